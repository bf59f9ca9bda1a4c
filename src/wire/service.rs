//! `ServiceInfo`: from a request into the domain, and from the registry onto the wire.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.2.2.

use serde::Serialize;

use super::dialect::Dialect;
use super::links::{Link, Links};
use super::member::{Malformed, Members};
use super::transport::{TransportInfo, transport};
use crate::domain::service::{Category, LivenessOffer, Locality, Transport};
use crate::domain::{Liveness, Service, ServiceKey, ServiceState, Subject};

/// So many ids are listed when a `transportId` is none of them.
const IDS_LISTED_MAX: usize = 10;

pub(super) const STATES: [(&str, ServiceState); 3] = [
    ("ACTIVE", ServiceState::Active),
    ("INACTIVE", ServiceState::Inactive),
    ("SUSPENDED", ServiceState::Suspended),
];

pub(super) const LOCALITIES: [(&str, Locality); 6] = [
    ("MEC_SYSTEM", Locality::MecSystem),
    ("MEC_HOST", Locality::MecHost),
    ("NFVI_POP", Locality::NfviPop),
    ("ZONE", Locality::Zone),
    ("ZONE_GROUP", Locality::ZoneGroup),
    ("NFVI_NODE", Locality::NfviNode),
];

/// Reads the `ServiceInfo` of a POST or PUT. Members that belong to the platform
/// (`serInstanceId`, `isLocal`, `_links`) are ignored: clients that PUT what they got send them.
/// A `transportId` names one of the platform's `transports`; the service gets a copy of it.
///
/// # Errors
/// [`Malformed`], naming the member.
pub fn parse(
    body: &[u8],
    transports: &[Transport],
    dialect: Dialect,
) -> Result<(Service, ServiceState), Malformed> {
    let mut members = Members::parse(body)?;
    if dialect.is_edgegallery() {
        // Its agent sends every member that it knows, and those that nobody has set are empty.
        members.forget_empty(&["transportId", "scopeOfLocality"]);
    }
    let name = members.text("serName")?;
    bounded("serName", &name)?;
    let category = optional_category(&mut members, "serCategory")?;
    if let Some(category) = &category {
        bounded("serCategory.id", &category.id)?;
    }
    let version = members.string("version")?;
    let state = members.word("state", &STATES)?;
    let transport_id = members.optional_string("transportId")?;
    let transport_info = members.optional_object("transportInfo")?;
    let transport = match (transport_id, transport_info) {
        (None, Some(info)) => transport(info)?,
        (Some(id), None) => offered(&id, transports)?,
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
    let liveness_offer = members
        .optional_whole("livenessInterval", expected)?
        // For EdgeGallery's clients 0 means none at all.
        .filter(|secs| *secs > 0 || !dialect.is_edgegallery())
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

fn bounded(path: &str, text: &str) -> Result<(), Malformed> {
    match text.len() {
        ..=Subject::NAME_BYTES_MAX => Ok(()),
        bytes => Err(Malformed::new(format!(
            "{path} is {bytes} bytes long; at most {} are taken",
            Subject::NAME_BYTES_MAX
        ))),
    }
}

/// A copy of the platform's transport with this id.
fn offered(id: &str, transports: &[Transport]) -> Result<Transport, Malformed> {
    if let Some(transport) = transports.iter().find(|transport| transport.id == id) {
        return Ok(transport.clone());
    }
    let instead = match transports.len() {
        0 => "send transportInfo instead".to_owned(),
        1..=IDS_LISTED_MAX => {
            let ids: Vec<_> = transports.iter().map(|t| format!("{:?}", t.id)).collect();
            format!("it has {}", ids.join(", "))
        }
        count => format!("it has {count}, see /transports"),
    };
    Err(Malformed::new(format!(
        "transportId {id:?} names no transport of this platform; {instead}"
    )))
}

/// An optional `CategoryRef`.
pub(super) fn optional_category(
    members: &mut Members,
    name: &str,
) -> Result<Option<Category>, Malformed> {
    members.optional_object(name)?.map(category).transpose()
}

/// Reads a `CategoryRef`.
pub(super) fn category(mut members: Members) -> Result<Category, Malformed> {
    Ok(Category {
        href: members.string("href")?,
        id: members.string("id")?,
        name: members.string("name")?,
        version: members.string("version")?,
    })
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

/// `CategoryRef` as answered. Source: GS MEC 011 V2.2.1, 8.1.5.2.
#[derive(Debug, Serialize)]
pub(super) struct CategoryRef<'a> {
    href: &'a str,
    id: &'a str,
    name: &'a str,
    version: &'a str,
}

impl<'a> CategoryRef<'a> {
    pub(super) fn new(category: &'a Category) -> Self {
        Self {
            href: &category.href,
            id: &category.id,
            name: &category.name,
            version: &category.version,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceLinks {
    #[serde(rename = "self")]
    own: SelfLink,
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness: Option<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness_batch: Option<Link>,
}

#[derive(Debug, Serialize)]
struct SelfLink {
    href: String,
    /// Where EdgeGallery's agent looks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    liveness: Option<String>,
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
            ser_category: service.category.as_ref().map(CategoryRef::new),
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
                own: SelfLink {
                    href: links.service(key),
                    liveness: monitored.and_then(|_| links.edgegallery_liveness(key)),
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
