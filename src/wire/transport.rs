//! `TransportInfo`: of a service, and of the platform itself.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.2.3.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::member::{Malformed, Members, empty, wrong};
use crate::domain::service::{Address, Endpoint, JsonText, Transport};

/// Where the operator's configuration lists the platform's transports.
const CONFIGURED: &str = "platform.transports";

/// Source: GS MEC 011 V2.2.1, 8.1.5.4 (`SecurityInfo`).
const GRANT_TYPES: [&str; 4] = [
    "OAUTH2_AUTHORIZATION_CODE",
    "OAUTH2_IMPLICIT_GRANT",
    "OAUTH2_RESOURCE_OWNER",
    "OAUTH2_CLIENT_CREDENTIALS",
];

/// Reads the platform's own transports out of the operator's configuration. A `transportId` names
/// one of them, so each needs an id of its own.
///
/// # Errors
/// [`Malformed`], naming the key.
pub fn parse_transports(list: Vec<Value>) -> Result<Vec<Transport>, Malformed> {
    let mut transports: Vec<Transport> = Vec::with_capacity(list.len());
    for (index, value) in list.into_iter().enumerate() {
        let members = Members::nested(format!("{CONFIGURED}[{index}]"), value)?;
        let path = members.path_of("id");
        let transport = transport(members)?;
        if transport.id.is_empty() {
            return Err(empty(&path));
        }
        let twin = transports.iter().position(|t| t.id == transport.id);
        if let Some(twin) = twin {
            return Err(Malformed::new(format!(
                "{path} is {:?}, as is {CONFIGURED}[{twin}].id; each transport needs an id of its own",
                transport.id
            )));
        }
        transports.push(transport);
    }
    Ok(transports)
}

/// Reads a `TransportInfo`.
pub(super) fn transport(mut members: Members) -> Result<Transport, Malformed> {
    Ok(Transport {
        id: members.string("id")?,
        name: members.string("name")?,
        description: members.optional_string("description")?,
        kind: members.text("type")?,
        protocol: members.string("protocol")?,
        version: members.string("version")?,
        endpoint: endpoint(members.object("endpoint")?)?,
        security: security(members.object("security")?)?,
        impl_specific_info: members
            .take("implSpecificInfo")
            .map(|value| JsonText::from_json(value.to_string())),
    })
}

/// Exactly one of the four forms; an empty list counts as absent.
pub(super) fn endpoint(mut members: Members) -> Result<Endpoint, Malformed> {
    let path = members.path_of("");
    let path = path.trim_end_matches('.');
    let uris = members
        .optional_strings("uris")?
        .filter(|list| !list.is_empty());
    let fqdn = members
        .optional_strings("fqdn")?
        .filter(|list| !list.is_empty());
    let addresses = members
        .optional_objects("addresses")?
        .filter(|list| !list.is_empty());
    let addresses: Option<Vec<Address>> = addresses
        .map(|list| list.into_iter().map(address).collect::<Result<_, _>>())
        .transpose()?;
    let alternative = members.take("alternative");
    let mut forms = [
        uris.map(Endpoint::Uris),
        fqdn.map(Endpoint::Fqdn),
        addresses.map(Endpoint::Addresses),
        alternative.map(|value| Endpoint::Alternative(JsonText::from_json(value.to_string()))),
    ]
    .into_iter()
    .flatten();
    match (forms.next(), forms.next()) {
        (Some(form), None) => Ok(form),
        _ => Err(Malformed::new(format!(
            "{path} must have exactly one of uris, fqdn, addresses and alternative"
        ))),
    }
}

fn address(mut members: Members) -> Result<Address, Malformed> {
    let host = members.text("host")?;
    let expected = "a port number";
    let path = members.path_of("port");
    match members.optional_whole("port", expected)? {
        None => Err(Malformed::new(format!(
            "{path} is missing; {expected} was expected"
        ))),
        Some(port) => match u16::try_from(port) {
            Ok(port) => Ok(Address { host, port }),
            Err(_) => Err(wrong(&path, expected, &port.into())),
        },
    }
}

/// Checks what the standard fixes and keeps the rest, which it leaves open.
pub(super) fn security(mut members: Members) -> Result<JsonText, Malformed> {
    if let Some(mut oauth) = members.optional_object("oAuth2Info")? {
        if let Some(grants) = oauth.optional_strings("grantTypes")? {
            let path = oauth.path_of("grantTypes");
            let known = |grant: &String| GRANT_TYPES.contains(&grant.as_str());
            if !(1..=GRANT_TYPES.len()).contains(&grants.len()) || !grants.iter().all(known) {
                return Err(Malformed::new(format!(
                    "{path} must have 1 to 4 of {}",
                    GRANT_TYPES.join(", ")
                )));
            }
            oauth.put("grantTypes", grants.into());
        }
        if let Some(endpoint) = oauth.optional_string("tokenEndpoint")? {
            oauth.put("tokenEndpoint", endpoint.into());
        }
        // It was an object, so this is one.
        members.put(
            "oAuth2Info",
            serde_json::from_str(&oauth.into_json()).unwrap_or(Value::Null),
        );
    }
    Ok(JsonText::from_json(members.into_json()))
}

/// `TransportInfo` as answered. Source: GS MEC 011 V2.2.1, 8.1.2.3.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TransportInfo<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(rename = "type")]
    kind: &'a str,
    protocol: &'a str,
    version: &'a str,
    endpoint: EndPointInfo<'a>,
    security: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impl_specific_info: Option<&'a RawValue>,
}

/// `EndPointInfo` as answered. Source: GS MEC 011 V2.2.1, 8.1.5.3.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum EndPointInfo<'a> {
    Uris(&'a [String]),
    Fqdn(&'a [String]),
    Addresses(Vec<HostPort<'a>>),
    Alternative(Option<&'a RawValue>),
}

#[derive(Debug, Serialize)]
pub(super) struct HostPort<'a> {
    host: &'a str,
    port: u16,
}

impl<'a> TransportInfo<'a> {
    /// Renders a transport.
    #[must_use]
    pub fn new(transport: &'a Transport) -> Self {
        Self {
            id: &transport.id,
            name: &transport.name,
            description: transport.description.as_deref(),
            kind: &transport.kind,
            protocol: &transport.protocol,
            version: &transport.version,
            endpoint: EndPointInfo::new(&transport.endpoint),
            security: raw(&transport.security),
            impl_specific_info: transport.impl_specific_info.as_ref().and_then(raw),
        }
    }
}

impl<'a> EndPointInfo<'a> {
    pub(super) fn new(endpoint: &'a Endpoint) -> Self {
        match endpoint {
            Endpoint::Uris(uris) => Self::Uris(uris),
            Endpoint::Fqdn(names) => Self::Fqdn(names),
            Endpoint::Addresses(all) => Self::Addresses(
                all.iter()
                    .map(|a| HostPort {
                        host: &a.host,
                        port: a.port,
                    })
                    .collect(),
            ),
            Endpoint::Alternative(json) => Self::Alternative(raw(json)),
        }
    }
}

/// The text was JSON when it was taken in, and a checksum has guarded it since.
fn raw(json: &JsonText) -> Option<&RawValue> {
    serde_json::from_str(json.as_str()).ok()
}

#[cfg(test)]
mod tests;
