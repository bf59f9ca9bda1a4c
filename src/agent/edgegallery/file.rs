//! `app_instance_info.yaml`.
//!
//! It is read twice: once for what it says, with every text as it stands there (a version `1.10` is
//! no number), and once for keys that nobody knows.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::agent::config::{ConfigError, Service};

/// A longer file is a mistake, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// So many unknown keys are named.
const UNKNOWN_MAX: usize = 20;

/// What the file says.
#[derive(Debug)]
pub(super) struct Info {
    pub(super) services: Vec<Service>,
    pub(super) subscriptions: usize,
    /// Paths of keys that were left out.
    pub(super) unknown: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    service_info_posts: Option<Vec<Post>>,
    ser_availability_notification_subscriptions: Option<Vec<Value>>,
}

/// `ServiceInfo`; everything may be absent or null, as in Go.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Post {
    ser_name: Option<String>,
    ser_category: Option<Category>,
    version: Option<String>,
    state: Option<String>,
    transport_id: Option<String>,
    transport_info: Option<Transport>,
    serializer: Option<String>,
    scope_of_locality: Option<String>,
    consumed_local_only: Option<bool>,
    liveness_interval: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
struct Category {
    href: Option<String>,
    id: Option<String>,
    name: Option<String>,
    version: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transport {
    id: Option<String>,
    name: Option<String>,
    description: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    protocol: Option<String>,
    version: Option<String>,
    endpoint: Option<Endpoint>,
    security: Option<Security>,
    impl_specific_info: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Endpoint {
    uris: Option<Vec<String>>,
    addresses: Option<Vec<Address>>,
    alternative: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Address {
    host: Option<String>,
    port: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Security {
    o_auth2_info: Option<OAuth2Info>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct OAuth2Info {
    grant_types: Option<Vec<String>>,
    token_endpoint: Option<String>,
}

/// The keys of an object, and of those in it.
enum Known {
    /// Whatever is in it.
    Any,
    Keys(&'static [(&'static str, Known)]),
}

/// Those of a list are those of its elements. What belongs to the platform (`serInstanceId`,
/// `isLocal`, `_links`) is known, and not sent.
const KNOWN: Known = Known::Keys(&[
    (
        "serviceInfoPosts",
        Known::Keys(&[
            ("serInstanceId", Known::Any),
            ("serName", Known::Any),
            (
                "serCategory",
                Known::Keys(&[
                    ("href", Known::Any),
                    ("id", Known::Any),
                    ("name", Known::Any),
                    ("version", Known::Any),
                ]),
            ),
            ("version", Known::Any),
            ("state", Known::Any),
            ("transportId", Known::Any),
            (
                "transportInfo",
                Known::Keys(&[
                    ("id", Known::Any),
                    ("name", Known::Any),
                    ("description", Known::Any),
                    ("type", Known::Any),
                    ("protocol", Known::Any),
                    ("version", Known::Any),
                    (
                        "endpoint",
                        Known::Keys(&[
                            ("uris", Known::Any),
                            (
                                "addresses",
                                Known::Keys(&[("host", Known::Any), ("port", Known::Any)]),
                            ),
                            ("alternative", Known::Any),
                        ]),
                    ),
                    (
                        "security",
                        Known::Keys(&[(
                            "oAuth2Info",
                            Known::Keys(&[
                                ("grantTypes", Known::Any),
                                ("tokenEndpoint", Known::Any),
                            ]),
                        )]),
                    ),
                    ("implSpecificInfo", Known::Any),
                ]),
            ),
            ("serializer", Known::Any),
            ("scopeOfLocality", Known::Any),
            ("consumedLocalOnly", Known::Any),
            ("isLocal", Known::Any),
            ("livenessInterval", Known::Any),
            ("_links", Known::Any),
        ]),
    ),
    ("serAvailabilityNotificationSubscriptions", Known::Any),
]);

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Info, ConfigError> {
    let failed = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let bytes = file
        .take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    let wrong = |reason: String| ConfigError::Syntax {
        path: path.to_owned(),
        reason,
    };
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    parse(&text).map_err(wrong)
}

/// Reads its text.
pub(super) fn parse(text: &str) -> Result<Info, String> {
    let document: Document = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let all: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut unknown = Vec::new();
    look(&all, &KNOWN, "", &mut unknown);
    let posts = document.service_info_posts.unwrap_or_default();
    let services = posts.into_iter().enumerate().map(|(index, post)| {
        service(post).map_err(|reason| format!("serviceInfoPosts[{index}]: {reason}"))
    });
    let services = services.collect::<Result<Vec<_>, _>>()?;
    for (index, service) in services.iter().enumerate() {
        if let Some(first) = services.iter().position(|other| other.name == service.name)
            && first < index
        {
            return Err(format!(
                "serviceInfoPosts[{first}] and [{index}] have the same serName {:?}; each needs one of \
                 its own",
                service.name
            ));
        }
    }
    let subscriptions = document.ser_availability_notification_subscriptions;
    Ok(Info {
        services,
        subscriptions: subscriptions.map_or(0, |all| all.len()),
        unknown,
    })
}

/// Finds keys that nobody knows.
fn look(value: &Value, known: &Known, path: &str, unknown: &mut Vec<String>) {
    match (value, known) {
        (Value::Array(all), _) => {
            for (index, value) in all.iter().enumerate() {
                look(value, known, &format!("{path}[{index}]"), unknown);
            }
        }
        (Value::Object(members), Known::Keys(keys)) => {
            for (key, value) in members {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                match keys.iter().find(|(name, _)| name == key) {
                    Some((_, known)) => look(value, known, &path, unknown),
                    None if unknown.len() < UNKNOWN_MAX => unknown.push(path),
                    None => {}
                }
            }
        }
        _ => {}
    }
}

/// Null, absent and empty are one in Go.
fn there(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn service(post: Post) -> Result<Service, String> {
    let name = there(post.ser_name).ok_or("serName is missing")?;
    if let Some(state) = there(post.state)
        && state != "ACTIVE"
    {
        log::warn!("service {name:?}: state {state} is ignored; it is ACTIVE while its agent is");
    }
    let transport_id = there(post.transport_id);
    // Files in use have both; then the id is only what the other one is called.
    let transport = match (post.transport_info, &transport_id) {
        (None, Some(_)) => None,
        (info, _) => Some(transport(info.unwrap_or_default())?),
    };
    let defaults = Service::named(&name);
    let interval_s = post.liveness_interval.filter(|secs| *secs > 0);
    Ok(Service {
        interval_s: interval_s.unwrap_or(defaults.interval_s),
        offers_none: interval_s.is_none(),
        version: there(post.version).unwrap_or(defaults.version),
        serializer: there(post.serializer).unwrap_or(defaults.serializer),
        transport_id: transport_id.filter(|_| transport.is_none()),
        transport: transport.map(table).transpose()?,
        category: category(post.ser_category).map(table).transpose()?,
        scope_of_locality: there(post.scope_of_locality),
        consumed_local_only: post.consumed_local_only,
        ..Service::named(&name)
    })
}

/// Without any text in it there is none; MEC 011 wants all four.
fn category(category: Option<Category>) -> Option<Value> {
    let Category {
        href,
        id,
        name,
        version,
    } = category?;
    let texts = [href, id, name, version].map(Option::unwrap_or_default);
    if texts.iter().all(String::is_empty) {
        return None;
    }
    let [href, id, name, version] = texts;
    Some(json!({"href": href, "id": id, "name": name, "version": version}))
}

/// MEC 011 wants more of it than EdgeGallery does.
fn transport(info: Transport) -> Result<Value, String> {
    let id = there(info.id).unwrap_or_else(|| "endpoint".to_owned());
    let or = |text, default: &str| there(text).unwrap_or_else(|| default.to_owned());
    let mut transport = json!({
        "name": or(info.name, &id),
        "type": or(info.kind, "REST_HTTP"),
        "protocol": or(info.protocol, "HTTP"),
        "version": or(info.version, "1.1"),
        "endpoint": endpoint(info.endpoint.unwrap_or_default())?,
        "security": security(info.security.unwrap_or_default()),
    });
    transport["id"] = id.into();
    if let Some(description) = there(info.description) {
        transport["description"] = description.into();
    }
    let specific = info.impl_specific_info.unwrap_or_default();
    if specific
        .as_object()
        .is_some_and(|members| !members.is_empty())
    {
        transport["implSpecificInfo"] = specific;
    }
    Ok(transport)
}

/// MEC 011 wants exactly one form. EdgeGallery's agent knows addresses, so these come first.
fn endpoint(endpoint: Endpoint) -> Result<Value, String> {
    let addresses = endpoint.addresses.unwrap_or_default();
    let uris = endpoint.uris.unwrap_or_default();
    if !addresses.is_empty() {
        let addresses = addresses.into_iter().map(|address| {
            match (there(address.host), address.port.filter(|port| *port > 0)) {
                (Some(host), Some(port)) => Ok(json!({"host": host, "port": port})),
                _ => Err("an address of transportInfo.endpoint lacks its host or port".to_owned()),
            }
        });
        let addresses: Vec<Value> = addresses.collect::<Result<_, _>>()?;
        return Ok(json!({"addresses": addresses}));
    }
    if !uris.is_empty() {
        return Ok(json!({"uris": uris}));
    }
    let alternative = endpoint.alternative.filter(|it| !it.is_null());
    Ok(json!({"alternative": alternative.unwrap_or_else(|| json!({}))}))
}

fn security(security: Security) -> Value {
    let OAuth2Info {
        grant_types,
        token_endpoint,
    } = security.o_auth2_info.unwrap_or_default();
    let mut info = Map::new();
    if let Some(grants) = grant_types.filter(|grants| !grants.is_empty()) {
        info.insert("grantTypes".to_owned(), grants.into());
    }
    if let Some(endpoint) = there(token_endpoint) {
        info.insert("tokenEndpoint".to_owned(), endpoint.into());
    }
    match info.is_empty() {
        true => json!({}),
        false => json!({"oAuth2Info": info}),
    }
}

/// The configuration keeps what a person would write in TOML, which knows no null.
fn table(value: Value) -> Result<toml::Table, String> {
    toml::Table::try_from(value).map_err(|error| format!("a value cannot be kept: {error}"))
}
