//! The API's document, as this server serves it: what everybody gets is in `openapi.json`, what
//! comes with authentication or for EdgeGallery's clients is added here.

use bytes::Bytes;
use serde_json::{Value, json};

use super::gate::Gate;
use crate::wire::Dialect;

/// What is served whatever is configured.
const BASE: &str = include_str!("openapi.json");

/// The whole document of a server with this gate.
#[must_use]
pub fn document(gate: &Gate, dialect: Dialect) -> Bytes {
    let document = with(Extent {
        asks: gate.asks(),
        issues_tokens: gate.issues_tokens(),
        edgegallery: dialect.is_edgegallery(),
    });
    serde_json::to_vec(&document).unwrap_or_default().into()
}

/// What only some servers have.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Requests say who makes them.
    asks: bool,
    /// `/oauth2/token` is there.
    issues_tokens: bool,
    /// EdgeGallery's clients are served.
    edgegallery: bool,
}

fn with(extent: Extent) -> Value {
    let Ok(mut document) = serde_json::from_str::<Value>(BASE) else {
        unreachable!("the document is read by tests")
    };
    if extent.asks {
        ask(&mut document);
    }
    if extent.issues_tokens {
        let item = json!({
            "x-extension": "OAuth 2.0, RFC 6749.",
            "post": {
                "tags": ["tokens"],
                "operationId": "issueToken",
                "summary": "A token for a client that proves who it is",
                "description": "Client credentials, RFC 6749, 4.4. The client authenticates by \
                    Basic (2.3.1), or by client_id and client_secret in the body.",
                "security": [{"client": []}, {}],
                "requestBody": {
                    "required": true,
                    "content": {"application/x-www-form-urlencoded": {"schema": {
                        "type": "object",
                        "required": ["grant_type"],
                        "properties": {
                            "grant_type": {"const": "client_credentials"},
                            "client_id": {"type": "string", "description": "The appInstanceId."},
                            "client_secret": {"type": "string"}
                        }
                    }}}
                },
                "responses": token_responses()
            },
            "x-method-not-allowed": reference("MethodNotAllowed")
        });
        add(&mut document, "/oauth2/token", item);
        document["components"]["securitySchemes"]["client"] = json!({
            "type": "http", "scheme": "basic",
            "description": "What `mepulse admin app add` has given out."
        });
    }
    if extent.edgegallery {
        let item = json!({
            "x-extension": "EdgeGallery's.",
            "post": {
                "tags": ["tokens"],
                "operationId": "issueTokenForAccessKey",
                "summary": "A token for whoever signs the request with an access key",
                "description": "Authorization: SDK-HMAC-SHA256 Access=…, SignedHeaders=…, \
                    Signature=…; the signature covers host and x-sdk-date at least. The same \
                    request is not taken twice.",
                "security": [{}],
                "parameters": [{
                    "name": "x-sdk-date", "in": "header", "required": true,
                    "schema": {"type": "string", "pattern": "^[0-9]{8}T[0-9]{6}Z$"}
                }],
                "responses": token_responses()
            },
            "x-method-not-allowed": reference("MethodNotAllowed")
        });
        add(&mut document, "/mep/token", item);
        let info = document["info"]["description"].as_str().unwrap_or_default();
        document["info"]["description"] = format!(
            "{info} For EdgeGallery's clients every path with a version in it, and every path of a \
             liveness resource, stands below /mep too."
        )
        .into();
        let paths = document["paths"].as_object_mut();
        for (path, item) in paths.into_iter().flatten() {
            if path.ends_with("/{serviceId}/liveness") {
                let mut put = item["patch"].clone();
                put["summary"] = "The same as PATCH, for EdgeGallery's agent".into();
                let name = put["operationId"].as_str().unwrap_or_default();
                put["operationId"] = format!("{name}ByPut").into();
                item["put"] = put;
            }
            if path.ends_with("/services") {
                for method in ["get", "head"] {
                    if let Some(parameters) = item[method]["parameters"].as_array_mut() {
                        parameters.extend(their_parameters());
                    }
                }
            }
        }
    }
    document
}

/// Every operation of the API asks who calls.
fn ask(document: &mut Value) {
    document["components"]["securitySchemes"] = json!({
        "token": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "Source: GS MEC 011 V2.2.1, 8.2.2; RFC 6750."
        },
        "certificate": {
            "type": "mutualTLS",
            "description": "Where client certificates are asked for: it names the application."
        }
    });
    let challenge = json!({"description": "How to prove it.", "schema": {"type": "string"}});
    document["components"]["responses"]["Unauthorized"] = json!({
        "description": "The request does not prove who makes it.",
        "headers": {"WWW-Authenticate": challenge},
        "content": {"application/problem+json": {
            "schema": {"$ref": "#/components/schemas/ProblemDetails"}
        }}
    });
    document["components"]["responses"]["Forbidden"]["description"] =
        "The caller is not the application of the path, and may not act for it; or a token came \
         without TLS to an address that others reach."
            .into();
    let paths = document["paths"].as_object_mut();
    for item in paths.into_iter().flatten().map(|(_, item)| item) {
        for method in ["get", "head", "post", "put", "patch", "delete"] {
            if let Some(operation) = item.get_mut(method)
                && operation["tags"][0] != "operation"
            {
                operation["responses"]["401"] = reference("Unauthorized");
                operation["responses"]["403"] = reference("Forbidden");
                operation["security"] = json!([{"token": []}, {"certificate": []}]);
            }
        }
    }
}

/// EdgeGallery's names of query parameters.
fn their_parameters() -> [Value; 2] {
    let parameter = |name: &str, description: &str| {
        json!({
            "name": name, "in": "query", "schema": {"type": "string"},
            "description": description, "x-extension": "EdgeGallery's."
        })
    };
    [
        parameter("instance_id", "The same as ser_instance_id."),
        parameter("version", "The services of this version."),
    ]
}

fn token_responses() -> Value {
    let schema = |properties: Value, required: Value| {
        json!({"application/json": {"schema": {
            "type": "object", "required": required, "properties": properties
        }}})
    };
    let issued = schema(
        json!({
            "access_token": {"type": "string"},
            "token_type": {"const": "Bearer"},
            "expires_in": {"type": "integer", "minimum": 1, "description": "In seconds."}
        }),
        json!(["access_token", "token_type", "expires_in"]),
    );
    let refused = |description: &str| {
        json!({"description": description, "content": {
            "application/json": {"schema": {
                "type": "object",
                "required": ["error"],
                "properties": {
                    "error": {"type": "string", "description": "Source: RFC 6749, 5.2."},
                    "error_description": {"type": "string"}
                }
            }},
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}
        }})
    };
    json!({
        "200": {"description": "The token.", "content": issued},
        "400": refused("The request is malformed."),
        "401": refused("The secret or the signature is wrong, or the client is unknown."),
        "403": refused("Secrets are not taken without TLS on an address that others reach."),
        "408": reference("RequestTimeout"),
        "413": reference("PayloadTooLarge"),
        "414": reference("UriTooLong"),
        "429": refused("There are too many requests for tokens; Retry-After says when."),
        "503": reference("ServiceUnavailable")
    })
}

fn reference(response: &str) -> Value {
    json!({"$ref": format!("#/components/responses/{response}")})
}

fn add(document: &mut Value, path: &str, item: Value) {
    document["paths"][path] = item;
    let Some(tags) = document["tags"].as_array_mut() else {
        return;
    };
    if !tags.iter().any(|tag| tag["name"] == "tokens") {
        tags.push(json!({"name": "tokens", "description": "Proving who calls."}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(asks: bool, issues_tokens: bool, edgegallery: bool) -> Value {
        super::with(Extent {
            asks,
            issues_tokens,
            edgegallery,
        })
    }

    #[test]
    fn without_authentication_it_is_the_base() {
        let base: Value = serde_json::from_str(BASE).unwrap();
        assert_eq!(with(false, false, false), base);
    }

    #[test]
    fn every_operation_but_those_for_the_operator_asks_for_a_token() {
        let document = with(true, true, true);
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                if operation["responses"].is_null() {
                    continue;
                }
                let is_open = operation["tags"][0] == "operation";
                let is_ours = operation["tags"][0] == "tokens";
                assert_eq!(
                    operation["responses"]["401"].is_null(),
                    is_open,
                    "{method} {path}"
                );
                assert_eq!(operation["security"].is_null(), is_open, "{method} {path}");
                if is_ours {
                    assert_eq!(method, "post");
                }
            }
        }
        assert!(document["paths"]["/oauth2/token"].is_object());
        assert!(document["paths"]["/mep/token"].is_object());
    }

    #[test]
    fn ids_of_operations_stay_unique_and_references_lead_somewhere() {
        let document = with(true, true, true);
        let mut ids = std::collections::BTreeSet::new();
        for item in document["paths"].as_object().unwrap().values() {
            for operation in item.as_object().unwrap().values() {
                if let Some(id) = operation["operationId"].as_str() {
                    assert!(ids.insert(id), "{id}");
                }
            }
        }
        let text = document.to_string();
        for (at, _) in text.match_indices("\"$ref\":\"#") {
            let path = text[at + 9..].split('"').next().unwrap();
            assert!(document.pointer(&path[0..]).is_some(), "{path}");
        }
    }
}
