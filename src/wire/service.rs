//! `ServiceInfo`: from a request into the domain, and from the registry onto the wire.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.2.2.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::links::Links;
use super::member::{Malformed, Members, wrong};
use crate::domain::service::{
    Address, Category, Endpoint, JsonText, LivenessOffer, Locality, Transport,
};
use crate::domain::{Liveness, Service, ServiceKey, ServiceState};

const STATES: [(&str, ServiceState); 3] = [
    ("ACTIVE", ServiceState::Active),
    ("INACTIVE", ServiceState::Inactive),
    ("SUSPENDED", ServiceState::Suspended),
];

const LOCALITIES: [(&str, Locality); 6] = [
    ("MEC_SYSTEM", Locality::MecSystem),
    ("MEC_HOST", Locality::MecHost),
    ("NFVI_POP", Locality::NfviPop),
    ("ZONE", Locality::Zone),
    ("ZONE_GROUP", Locality::ZoneGroup),
    ("NFVI_NODE", Locality::NfviNode),
];

/// Source: GS MEC 011 V2.2.1, 8.1.5.4 (`SecurityInfo`).
const GRANT_TYPES: [&str; 4] = [
    "OAUTH2_AUTHORIZATION_CODE",
    "OAUTH2_IMPLICIT_GRANT",
    "OAUTH2_RESOURCE_OWNER",
    "OAUTH2_CLIENT_CREDENTIALS",
];

/// Reads the `ServiceInfo` of a POST or PUT. Members that belong to the platform
/// (`serInstanceId`, `isLocal`, `_links`) are ignored: clients that PUT what they got send them.
///
/// # Errors
/// [`Malformed`], naming the member.
pub fn parse(body: &[u8]) -> Result<(Service, ServiceState), Malformed> {
    let mut members = Members::parse(body)?;
    let name = members.text("serName")?;
    let category = members
        .optional_object("serCategory")?
        .map(category)
        .transpose()?;
    let version = members.string("version")?;
    let state = members.word("state", &STATES)?;
    let transport_id = members.optional_string("transportId")?;
    let transport_info = members.optional_object("transportInfo")?;
    let transport = match (transport_id, transport_info) {
        (None, Some(info)) => transport(info)?,
        (Some(id), None) => {
            return Err(Malformed::new(format!(
                "transportId {id:?} names no transport of this platform; send transportInfo instead"
            )));
        }
        (None, None) => {
            return Err(Malformed::new(
                "transportInfo is missing; an object was expected",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(Malformed::new(
                "transportId and transportInfo exclude each other",
            ));
        }
    };
    let serializer = members.text("serializer")?;
    let scope_of_locality = members
        .optional_word("scopeOfLocality", &LOCALITIES)?
        .unwrap_or(Locality::MecHost);
    let consumed_local_only = members.optional_bool("consumedLocalOnly")?.unwrap_or(true);
    let expected = "a whole number of seconds, 0 or more,";
    let liveness_offer =
        members
            .optional_whole("livenessInterval", expected)?
            .map(|secs| match secs {
                0 => LivenessOffer::PlatformChooses,
                // Clamped by the policy in any case.
                secs => LivenessOffer::Seconds(u32::try_from(secs).unwrap_or(u32::MAX)),
            });
    let service = Service {
        name,
        category,
        version,
        serializer,
        transport,
        scope_of_locality,
        consumed_local_only,
        liveness_offer,
    };
    Ok((service, state))
}

fn category(mut members: Members) -> Result<Category, Malformed> {
    Ok(Category {
        href: members.string("href")?,
        id: members.string("id")?,
        name: members.string("name")?,
        version: members.string("version")?,
    })
}

fn transport(mut members: Members) -> Result<Transport, Malformed> {
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
fn endpoint(mut members: Members) -> Result<Endpoint, Malformed> {
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
fn security(mut members: Members) -> Result<JsonText, Malformed> {
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

/// `ServiceInfo` as answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInfo<'a> {
    ser_instance_id: String,
    ser_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ser_category: Option<CategoryRef<'a>>,
    version: &'a str,
    state: &'static str,
    transport_info: TransportInfo<'a>,
    serializer: &'a str,
    scope_of_locality: &'static str,
    consumed_local_only: bool,
    is_local: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness_interval: Option<u32>,
    #[serde(rename = "_links")]
    links: ServiceLinks,
}

#[derive(Debug, Serialize)]
struct CategoryRef<'a> {
    href: &'a str,
    id: &'a str,
    name: &'a str,
    version: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TransportInfo<'a> {
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum EndPointInfo<'a> {
    Uris(&'a [String]),
    Fqdn(&'a [String]),
    Addresses(Vec<HostPort<'a>>),
    Alternative(Option<&'a RawValue>),
}

#[derive(Debug, Serialize)]
struct HostPort<'a> {
    host: &'a str,
    port: u16,
}

/// `LinkType`.
#[derive(Debug, Serialize)]
struct Link {
    href: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceLinks {
    #[serde(rename = "self")]
    own: Link,
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness: Option<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness_batch: Option<Link>,
}

impl<'a> ServiceInfo<'a> {
    /// Renders a service. `livenessInterval` and `_links.liveness` are both there or both absent.
    ///
    /// Source: GS MEC 011 V2.2.1, 8.1.2.2.
    #[must_use]
    pub fn new(key: &ServiceKey, service: &'a Service, liveness: &Liveness, links: &Links) -> Self {
        let monitored = liveness.monitored();
        Self {
            ser_instance_id: key.service.to_string(),
            ser_name: &service.name,
            ser_category: service.category.as_ref().map(|category| CategoryRef {
                href: &category.href,
                id: &category.id,
                name: &category.name,
                version: &category.version,
            }),
            version: &service.version,
            state: liveness.state().as_str(),
            transport_info: TransportInfo::new(&service.transport),
            serializer: &service.serializer,
            scope_of_locality: locality_name(service.scope_of_locality),
            consumed_local_only: service.consumed_local_only,
            // One platform: whoever asks here is local.
            is_local: true,
            liveness_interval: monitored.map(|monitored| monitored.agreement.shown().as_secs()),
            links: ServiceLinks {
                own: Link {
                    href: links.service(key),
                },
                liveness: monitored.map(|_| Link {
                    href: links.liveness(key),
                }),
                liveness_batch: monitored.map(|_| Link {
                    href: links.liveness_batch(&key.app),
                }),
            },
        }
    }
}

impl<'a> TransportInfo<'a> {
    fn new(transport: &'a Transport) -> Self {
        Self {
            id: &transport.id,
            name: &transport.name,
            description: transport.description.as_deref(),
            kind: &transport.kind,
            protocol: &transport.protocol,
            version: &transport.version,
            endpoint: match &transport.endpoint {
                Endpoint::Uris(uris) => EndPointInfo::Uris(uris),
                Endpoint::Fqdn(names) => EndPointInfo::Fqdn(names),
                Endpoint::Addresses(all) => EndPointInfo::Addresses(
                    all.iter()
                        .map(|a| HostPort {
                            host: &a.host,
                            port: a.port,
                        })
                        .collect(),
                ),
                Endpoint::Alternative(json) => EndPointInfo::Alternative(raw(json)),
            },
            security: raw(&transport.security),
            impl_specific_info: transport.impl_specific_info.as_ref().and_then(raw),
        }
    }
}

/// The text was JSON when it was taken in, and a checksum has guarded it since.
fn raw(json: &JsonText) -> Option<&RawValue> {
    serde_json::from_str(json.as_str()).ok()
}

fn locality_name(locality: Locality) -> &'static str {
    match locality {
        Locality::MecSystem => "MEC_SYSTEM",
        Locality::MecHost => "MEC_HOST",
        Locality::NfviPop => "NFVI_POP",
        Locality::Zone => "ZONE",
        Locality::ZoneGroup => "ZONE_GROUP",
        Locality::NfviNode => "NFVI_NODE",
    }
}

#[cfg(test)]
mod tests;
