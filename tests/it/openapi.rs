//! The API's document says what is served, no more and no less.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Answer, Server, data_dir, get, send, service};

const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

/// A server with its own document.
struct Served {
    server: Server,
    document: Value,
    _dir: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        let (dir, data) = data_dir();
        let server = Server::start(&data, &[]);
        let answer = get(&format!("{}/openapi.json", server.url));
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        Self {
            document: answer.json(),
            server,
            _dir: dir,
        }
    }

    /// Every path with its methods and what it says of them.
    fn paths(&self) -> impl Iterator<Item = (&str, &Value)> {
        let paths = self.document["paths"].as_object().unwrap();
        assert!(!paths.is_empty());
        paths.iter().map(|(path, item)| (path.as_str(), item))
    }

    fn operations(&self) -> impl Iterator<Item = Operation<'_>> {
        self.paths().flat_map(|(path, item)| {
            let method = |method| {
                let says = operation(item, method)?;
                Some(Operation { method, path, says })
            };
            METHODS.into_iter().filter_map(method)
        })
    }

    /// The path's URL for a service, a subscription or a registration that was made for nothing
    /// else.
    fn url(&self, path: &str) -> String {
        let info = self.server.register("app", &service("s", Some(30)));
        if path.contains("{serviceId}") {
            return self.url_of(path, info["serInstanceId"].as_str().unwrap());
        }
        if path.contains("{subscriptionId}") {
            let all = path.replace("{subscriptionId}", "");
            let location = self.made(all.trim_end_matches('/'));
            return self.url_of(path, location.rsplit('/').next().unwrap());
        }
        if let Some((all, _)) = path.split_once("/{appInstanceId}")
            && !all.ends_with("/applications")
        {
            let location = self.made(all);
            return format!("{}{location}", self.server.url);
        }
        self.url_of(path, "")
    }

    /// Where that is which a POST of the document's example makes.
    fn made(&self, path: &str) -> String {
        let mut all = self.operations();
        let post = all.find(|operation| operation.method == "POST" && operation.path == path);
        let body = self.body(&post.unwrap());
        let answer = send("POST", &self.url_of(path, ""), &[], &body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("location").unwrap().to_owned()
    }

    /// With this id of a service or a subscription, of the application `app`.
    fn url_of(&self, path: &str, id: &str) -> String {
        let path = path
            .replace("{appInstanceId}", "app")
            .replace("{serviceId}", id)
            .replace("{subscriptionId}", id);
        assert!(!path.contains('{'), "{path} has another parameter");
        format!("{}{path}", self.server.url)
    }

    /// Follows a `$ref`, if this is one.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref") {
            Some(reference) => self.target(reference.as_str().unwrap()),
            None => value,
        }
    }

    fn target(&self, reference: &str) -> &Value {
        reference
            .strip_prefix('#')
            .and_then(|pointer| self.document.pointer(pointer))
            .unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// A body that the operation takes; empty where it takes none.
    fn body(&self, operation: &Operation) -> Vec<u8> {
        let Some(body) = operation.says.get("requestBody") else {
            return Vec::new();
        };
        let Value::Object(content) = &body["content"]["application/json"] else {
            panic!("no JSON: {operation:?}");
        };
        let (schema, body) = (&content["schema"], &content["example"]);
        assert_eq!(self.misfit(schema, body), None, "{operation:?}");
        body.to_string().into_bytes()
    }

    /// Checks status, headers and body of an answer against what the operation says.
    fn assert_documented(&self, operation: &Operation, answer: &Answer) {
        let says = &operation.says["responses"][answer.status.to_string()];
        assert!(says.is_object(), "undocumented: {operation:?}: {answer:?}");
        self.assert_as_said(operation, self.resolve(says), answer);
    }

    fn assert_as_said(&self, operation: &Operation, says: &Value, answer: &Answer) {
        let context = format!("{operation:?}: {answer:?}");
        for name in [
            "Location",
            "ETag",
            "Allow",
            "Retry-After",
            "Preference-Applied",
        ] {
            let header = says["headers"].get(name).map(|header| self.resolve(header));
            match (header, answer.header(name)) {
                (None, Some(_)) => panic!("{name} is undocumented: {context}"),
                (Some(header), None) => assert_ne!(header["required"], true, "{context}"),
                _ => {}
            }
        }
        let content = says.get("content");
        if operation.method == "HEAD" || content.is_none() {
            assert!(answer.body.is_empty(), "{context}");
            return;
        }
        let kind = answer.header("content-type").unwrap_or_default();
        let Some(content) = content.and_then(|content| content.get(kind)) else {
            panic!("{kind:?} is undocumented: {context}");
        };
        if kind.ends_with("json") {
            let misfit = self.misfit(&content["schema"], &answer.json());
            assert_eq!(misfit, None, "{context}");
        }
    }

    /// What about a value contradicts a schema, as far as the document's own schemas go; members
    /// that the schema does not list contradict it too, unless it allows them or is a part of another.
    fn misfit(&self, schema: &Value, value: &Value) -> Option<String> {
        self.misfit_of(schema, value, true)
    }

    fn part_misfit(&self, schema: &Value, value: &Value) -> Option<String> {
        self.misfit_of(schema, value, schema.get("$ref").is_some())
    }

    fn misfit_of(&self, schema: &Value, value: &Value, alone: bool) -> Option<String> {
        let schema = self.resolve(schema);
        let no = |why: &str| Some(format!("{value} is not {why}"));
        if let Some(kinds) = schema.get("type") {
            let fits = |kind: &Value| match kind.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "integer" => value.is_u64(),
                "boolean" => value.is_boolean(),
                "null" => value.is_null(),
                other => panic!("unknown type {other}"),
            };
            let fits_any = match kinds.as_array() {
                Some(kinds) => kinds.iter().any(fits),
                None => fits(kinds),
            };
            if !fits_any {
                return no(&kinds.to_string());
            }
        }
        if schema.get("const").is_some_and(|only| only != value) {
            return no(&schema["const"].to_string());
        }
        if let Some(all) = schema["enum"].as_array()
            && !all.contains(value)
        {
            return no(&schema["enum"].to_string());
        }
        if let Some(least) = schema["minimum"].as_u64()
            && value.as_u64().is_some_and(|number| number < least)
        {
            return no(&format!("{least} or more"));
        }
        if let Some(most) = schema["maxLength"].as_u64()
            && value.as_str().is_some_and(|text| text.len() as u64 > most)
        {
            return no(&format!("at most {most} bytes"));
        }
        let parts = schema["allOf"].as_array().into_iter().flatten();
        if let Some(misfit) = parts.clone().find_map(|part| self.part_misfit(part, value)) {
            return Some(misfit);
        }
        if let Some(condition) = schema.get("if") {
            let fits = self.part_misfit(condition, value).is_none();
            let part = schema.get(if fits { "then" } else { "else" });
            if let Some(misfit) = part.and_then(|part| self.part_misfit(part, value)) {
                return Some(misfit);
            }
        }
        if let Some(excluded) = schema.get("not")
            && self.part_misfit(excluded, value).is_none()
        {
            return no(&format!("other than {excluded}"));
        }
        for (word, exactly_one) in [("oneOf", true), ("anyOf", false)] {
            if let Some(forms) = schema[word].as_array() {
                let fitting = forms
                    .iter()
                    .filter(|form| self.part_misfit(form, value).is_none())
                    .count();
                if fitting == 0 || (exactly_one && fitting > 1) {
                    return no(&format!("{word} {}", schema[word]));
                }
            }
        }
        if let (Some(least), Some(items)) = (schema["minItems"].as_u64(), value.as_array())
            && (items.len() as u64) < least
        {
            return no(&format!("{least} or more"));
        }
        if let (Some(schema), Some(items)) = (schema.get("items"), value.as_array()) {
            return items.iter().find_map(|item| self.misfit(schema, item));
        }
        let members = value.as_object()?;
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.map(|name| name.as_str().unwrap()) {
            if !members.contains_key(name) {
                return no(&format!("complete: {name} is missing"));
            }
        }
        let properties = schema["properties"].as_object()?;
        members
            .iter()
            .find_map(|(name, value)| match properties.get(name) {
                Some(schema) => self.misfit(schema, value),
                None if !alone || schema["additionalProperties"] == true => None,
                None => Some(format!("{name} is undocumented")),
            })
    }
}

#[derive(Debug)]
struct Operation<'a> {
    method: &'static str,
    path: &'a str,
    says: &'a Value,
}

fn operation<'a>(item: &'a Value, method: &str) -> Option<&'a Value> {
    item.get(method.to_lowercase())
}

/// Every `$ref` below a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(reference) if name == "$ref" => found.push(reference),
                    _ => references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

/// Everything that stands under a media type, below a value.
fn bodies<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_object() {
                    Some(kinds) if name == "content" => found.extend(kinds.values()),
                    _ => bodies(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| bodies(item, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_openapi_3_1_of_this_very_version() {
    let served = Served::start();
    assert_eq!(served.document["openapi"], "3.1.0");
    let info = &served.document["info"];
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["license"]["identifier"], env!("CARGO_PKG_LICENSE"));
}

#[test]
fn every_reference_resolves_and_every_component_is_referred_to() {
    let served = Served::start();
    let mut found = Vec::new();
    references(&served.document, &mut found);
    for reference in &found {
        served.target(reference);
    }
    for (kind, components) in served.document["components"].as_object().unwrap() {
        for name in components.as_object().unwrap().keys() {
            let reference = format!("#/components/{kind}/{name}");
            assert!(
                found.contains(&reference.as_str()),
                "{reference} is not used"
            );
        }
    }
}

#[test]
fn every_example_of_a_body_fits_its_schema() {
    let served = Served::start();
    let mut found = Vec::new();
    bodies(&served.document, &mut found);
    let examples = found
        .iter()
        .filter_map(|body| Some((body, body.get("example")?)));
    for (body, example) in examples.clone().filter(|(_, example)| !example.is_string()) {
        assert_eq!(served.misfit(&body["schema"], example), None, "{body}");
    }
    assert!(examples.count() > 10);
}

#[test]
fn every_link_leads_to_an_operation_and_names_its_parameters() {
    let served = Served::start();
    for link in served.document["components"]["links"]
        .as_object()
        .unwrap()
        .values()
    {
        let mut all = served.operations();
        let target = all.find(|operation| operation.says["operationId"] == link["operationId"]);
        let target = target.unwrap_or_else(|| panic!("{link} leads nowhere"));
        for name in link["parameters"].as_object().unwrap().keys() {
            assert!(target.path.contains(&format!("{{{name}}}")), "{link}");
        }
    }
}

#[test]
fn operation_ids_are_unique_and_path_parameters_declared() {
    let served = Served::start();
    let mut ids = BTreeSet::new();
    for operation in served.operations() {
        let id = operation.says["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is there twice");
    }
    for (path, item) in served.paths() {
        let declared: BTreeSet<&str> = item["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|parameter| served.resolve(parameter))
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        let written: BTreeSet<&str> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        assert_eq!(declared, written, "{path}");
    }
}

#[test]
fn every_documented_method_is_served_and_succeeds_as_documented() {
    let served = Served::start();
    for operation in served.operations() {
        let url = served.url(operation.path);
        let answer = send(operation.method, &url, &[], &served.body(&operation));
        let ok = (200..300).contains(&answer.status);
        assert!(ok, "{operation:?}: {answer:?}");
        served.assert_documented(&operation, &answer);
    }
}

#[test]
fn every_other_method_is_405_and_allow_lists_the_documented_ones() {
    let served = Served::start();
    for (path, item) in served.paths() {
        let documented: BTreeSet<&str> = METHODS
            .into_iter()
            .filter(|method| operation(item, method).is_some())
            .collect();
        let url = served.url(path);
        for method in METHODS.into_iter().filter(|m| !documented.contains(m)) {
            let answer = send(method, &url, &[], b"");
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            let allow: BTreeSet<&str> = answer.header("allow").unwrap().split(", ").collect();
            assert_eq!(allow, documented, "{method} {path}");
            let says = served.resolve(&item["x-method-not-allowed"]);
            let says_nothing = Value::Null;
            let refused = Operation {
                method,
                path,
                says: &says_nothing,
            };
            served.assert_as_said(&refused, says, &answer);
        }
    }
}

#[test]
fn head_stands_wherever_get_does_with_the_same_statuses() {
    let served = Served::start();
    for (path, item) in served.paths() {
        let statuses = |method| {
            let responses = operation(item, method)?["responses"].as_object()?;
            Some(responses.keys().collect::<Vec<_>>())
        };
        assert_eq!(statuses("GET"), statuses("HEAD"), "{path}");
    }
}

#[test]
fn refusals_are_documented() {
    let served = Served::start();
    let unknown = "00000000-0000-4000-8000-000000000000";
    let long = "x".repeat(9000);
    let mut seen = BTreeSet::new();
    for operation in served.operations() {
        let body = served.body(&operation);
        let takes_body = operation.says.get("requestBody").is_some();
        let tries = |expected: Option<u16>, url: &str, headers: &[(&str, &str)], body: &[u8]| {
            let answer = send(operation.method, url, headers, body);
            if let Some(expected) = expected {
                assert_eq!(answer.status, expected, "{operation:?}: {answer:?}");
            }
            served.assert_documented(&operation, &answer);
            answer.status
        };
        let url = served.url(operation.path);
        // Whoever is bound to an application refuses another one; nobody else minds.
        let owned = operation.path.contains("{appInstanceId}");
        let other = [("X-AppInstanceID", "other")];
        let refused = [
            tries(Some(400), &format!("{url}?x=1"), &[], &body),
            tries(Some(414), &format!("{url}?{long}"), &[], &body),
            tries(owned.then_some(403), &url, &other, &body),
        ];
        seen.extend(refused);
        let named = ["{serviceId}", "{subscriptionId}"];
        if named.iter().any(|name| operation.path.contains(name)) {
            for id in [unknown, "no-uuid"] {
                let url = served.url_of(operation.path, id);
                seen.insert(tries(Some(404), &url, &[], &body));
            }
        }
        if operation.path.contains("{serviceId}") {
            let silent = served.server.register("app", &service("s", None));
            let url = served.url_of(operation.path, silent["serInstanceId"].as_str().unwrap());
            let expected = operation.path.ends_with("/liveness").then_some(404);
            seen.insert(tries(expected, &url, &[], &body));
        }
        if operation.says["responses"].get("412").is_some() {
            let url = served.url(operation.path);
            for (tag, expected) in [("\"none\"", 412), ("none", 400)] {
                seen.insert(tries(Some(expected), &url, &[("If-Match", tag)], &body));
            }
        }
        if takes_body {
            let url = served.url(operation.path);
            for wrong in ["", "{", "[]", "{}"] {
                seen.insert(tries(Some(400), &url, &[], wrong.as_bytes()));
            }
            seen.insert(tries(Some(413), &url, &[], &vec![b' '; 70_000]));
        }
        if operation.method == "PATCH" {
            let mut inactive = service("s", Some(30));
            inactive["state"] = json!("INACTIVE");
            let inactive = served.server.register("app", &inactive);
            let url = served.url_of(operation.path, inactive["serInstanceId"].as_str().unwrap());
            // A batch tells it in the service's own result.
            let single = operation.path.contains("{serviceId}");
            let expected = if single { 409 } else { 200 };
            seen.insert(tries(Some(expected), &url, &[], &body));
        }
    }
    for status in [400, 403, 404, 409, 412, 413, 414] {
        assert!(seen.contains(&status), "{status} was never seen");
    }
}

#[test]
fn a_full_application_is_refused_as_documented() {
    let (_dir, data) = data_dir();
    let server = Server::start(&data, &["--set", "apps.services_max_per_app=1"]);
    let served = Served {
        document: get(&format!("{}/openapi.json", server.url)).json(),
        server,
        _dir,
    };
    let register = served
        .operations()
        .find(|operation| operation.says["operationId"] == "registerService")
        .unwrap();
    let url = served.url(register.path);
    let answer = send("POST", &url, &[], &served.body(&register));
    answer.problem(429);
    served.assert_documented(&register, &answer);
}

#[test]
fn preferences_and_both_forms_of_a_heartbeat_are_answered_as_documented() {
    let served = Served::start();
    let bare = json!({"state": "ACTIVE"});
    let wrapped = json!({"ServiceLivenessUpdate": {"state": "ACTIVE", "retryInterval": 1}});
    let both = json!({"state": "ACTIVE", "ServiceLivenessUpdate": {"state": "ACTIVE"}});
    let schema = json!({"$ref": "#/components/schemas/ServiceLivenessUpdate"});
    assert!(served.misfit(&schema, &both).is_some());
    let mut beats = 0;
    for operation in served
        .operations()
        .filter(|operation| operation.method == "PATCH" && operation.path.contains("{serviceId}"))
    {
        let url = served.url(operation.path);
        for (body, preference, status, applied) in [
            (&bare, "", 204, None),
            (&wrapped, "", 200, None),
            (&both, "", 400, None),
            (
                &bare,
                "return=representation",
                200,
                Some("return=representation"),
            ),
            (&wrapped, "return=minimal", 204, Some("return=minimal")),
        ] {
            if status != 400 {
                assert_eq!(served.misfit(&schema, body), None);
            }
            let headers = [("Prefer", preference)];
            let answer = send("PATCH", &url, &headers, body.to_string().as_bytes());
            assert_eq!(answer.status, status, "{operation:?}: {answer:?}");
            assert_eq!(answer.header("preference-applied"), applied);
            served.assert_documented(&operation, &answer);
            beats += 1;
        }
    }
    assert_eq!(beats, 15);
}
