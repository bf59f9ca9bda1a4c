//! A registration as it is stored; the registry keeps it in the same form.
//!
//! The record is frozen as those in `records` are. What has a new version must be rewritten by a
//! migration, row by row: two registrations are the same when their bytes are.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::codec::{self, DecodeError};
use super::records::unknown;
use crate::domain::Service;
use crate::domain::service::{
    Address, Category, Endpoint, JsonText, LivenessOffer, Locality, Transport,
};

/// A registration in one piece of memory instead of the dozen that a [`Service`] consists of: a
/// registry holds a million of them, and looks into few. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRecord {
    /// Decoded before, or encoded by us.
    row: Arc<[u8]>,
    liveness_offer: Option<LivenessOffer>,
}

impl ServiceRecord {
    /// Takes a registration in.
    #[must_use]
    pub fn new(service: &Service) -> Self {
        Self {
            row: encode(service).into(),
            liveness_offer: service.liveness_offer,
        }
    }

    /// Takes over what stands in the store.
    pub(super) fn from_row(row: &[u8]) -> Result<Self, DecodeError> {
        // All that could be wrong in it is looked at; `words` relies on there being version 1 alone.
        let record: ServiceV1<'_> = codec::decode_v1(row)?;
        locality(record.scope_of_locality)?;
        Ok(Self {
            row: row.into(),
            liveness_offer: record.liveness_offer_s.map(offer),
        })
    }

    /// The registration.
    ///
    /// # Panics
    /// Never: what is in here was decoded before, or encoded by us, and does not change.
    #[must_use]
    pub fn service(&self) -> Service {
        #[expect(clippy::expect_used, reason = "proven when it was made, see above")]
        decode(&self.row).expect("a row that could be decoded before")
    }

    /// What it is found by, without decoding the rest: its name, and the id of its category.
    ///
    /// # Panics
    /// Never, as [`Self::service`].
    #[must_use]
    pub fn words(&self) -> (&str, Option<&str>) {
        // How ServiceV1 begins: the name, then href, id, name and version of the category.
        #[expect(clippy::expect_used, reason = "proven when it was made, see above")]
        let (name, category): (_, Option<[&str; 4]>) =
            codec::beginning(&self.row).expect("a row that could be decoded before");
        (name, category.map(|[_, id, ..]| id))
    }

    /// [`Service::liveness_offer`], which every heartbeat asks for.
    #[must_use]
    pub fn liveness_offer(&self) -> Option<LivenessOffer> {
        self.liveness_offer
    }

    /// Whether both are clones of one: quicker than comparing, and enough to see that nothing has
    /// been registered since.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.row, &other.row)
    }
}

/// What is stored, to be split into parts.
impl AsRef<[u8]> for ServiceRecord {
    fn as_ref(&self) -> &[u8] {
        &self.row
    }
}

#[derive(Serialize, Deserialize)]
struct ServiceV1<'a> {
    name: &'a str,
    /// href, id, name, version.
    #[serde(borrow)]
    category: Option<[&'a str; 4]>,
    version: &'a str,
    serializer: &'a str,
    #[serde(borrow)]
    transport: TransportV1<'a>,
    scope_of_locality: u8,
    consumed_local_only: bool,
    /// 0: the platform chooses.
    liveness_offer_s: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct TransportV1<'a> {
    id: &'a str,
    name: &'a str,
    #[serde(borrow)]
    description: Option<&'a str>,
    kind: &'a str,
    protocol: &'a str,
    version: &'a str,
    #[serde(borrow)]
    endpoint: EndpointV1<'a>,
    security_json: &'a str,
    #[serde(borrow)]
    impl_specific_json: Option<&'a str>,
}

/// bincode writes the variant's number: append only.
#[derive(Serialize, Deserialize)]
enum EndpointV1<'a> {
    #[serde(borrow)]
    Uris(Vec<&'a str>),
    #[serde(borrow)]
    Fqdn(Vec<&'a str>),
    #[serde(borrow)]
    Addresses(Vec<(&'a str, u16)>),
    AlternativeJson(&'a str),
}

const LOCALITIES: [Locality; 6] = [
    Locality::MecSystem,
    Locality::MecHost,
    Locality::NfviPop,
    Locality::Zone,
    Locality::ZoneGroup,
    Locality::NfviNode,
];

fn locality(number: u8) -> Result<Locality, DecodeError> {
    let known = LOCALITIES.get(usize::from(number)).copied();
    known.ok_or_else(|| unknown("locality", number))
}

fn offer(secs: u32) -> LivenessOffer {
    match secs {
        0 => LivenessOffer::PlatformChooses,
        secs => LivenessOffer::Seconds(secs),
    }
}

fn borrowed(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

fn owned(all: &[&str]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

fn json(text: &str) -> JsonText {
    JsonText::from_json(text.to_owned())
}

fn encode(service: &Service) -> Vec<u8> {
    let transport = &service.transport;
    let category = service.category.as_ref();
    let record = ServiceV1 {
        name: &service.name,
        category: category.map(|c| [&c.href, &c.id, &c.name, &c.version].map(String::as_str)),
        version: &service.version,
        serializer: &service.serializer,
        transport: TransportV1 {
            id: &transport.id,
            name: &transport.name,
            description: transport.description.as_deref(),
            kind: &transport.kind,
            protocol: &transport.protocol,
            version: &transport.version,
            endpoint: match &transport.endpoint {
                Endpoint::Uris(uris) => EndpointV1::Uris(borrowed(uris)),
                Endpoint::Fqdn(names) => EndpointV1::Fqdn(borrowed(names)),
                Endpoint::Addresses(all) => {
                    EndpointV1::Addresses(all.iter().map(|a| (a.host.as_str(), a.port)).collect())
                }
                Endpoint::Alternative(json) => EndpointV1::AlternativeJson(json.as_str()),
            },
            security_json: transport.security.as_str(),
            impl_specific_json: transport.impl_specific_info.as_ref().map(JsonText::as_str),
        },
        scope_of_locality: match service.scope_of_locality {
            Locality::MecSystem => 0,
            Locality::MecHost => 1,
            Locality::NfviPop => 2,
            Locality::Zone => 3,
            Locality::ZoneGroup => 4,
            Locality::NfviNode => 5,
        },
        consumed_local_only: service.consumed_local_only,
        liveness_offer_s: service.liveness_offer.map(|offer| match offer {
            LivenessOffer::PlatformChooses => 0,
            LivenessOffer::Seconds(secs) => secs,
        }),
    };
    codec::encode(1, &record)
}

fn decode(bytes: &[u8]) -> Result<Service, DecodeError> {
    let record: ServiceV1<'_> = codec::decode_v1(bytes)?;
    let transport = record.transport;
    Ok(Service {
        name: record.name.to_owned(),
        category: record.category.map(|category| {
            let [href, id, name, version] = category.map(str::to_owned);
            Category {
                href,
                id,
                name,
                version,
            }
        }),
        version: record.version.to_owned(),
        serializer: record.serializer.to_owned(),
        transport: Transport {
            id: transport.id.to_owned(),
            name: transport.name.to_owned(),
            description: transport.description.map(str::to_owned),
            kind: transport.kind.to_owned(),
            protocol: transport.protocol.to_owned(),
            version: transport.version.to_owned(),
            endpoint: match transport.endpoint {
                EndpointV1::Uris(uris) => Endpoint::Uris(owned(&uris)),
                EndpointV1::Fqdn(names) => Endpoint::Fqdn(owned(&names)),
                EndpointV1::Addresses(all) => {
                    let address = |(host, port): (&str, u16)| Address {
                        host: host.to_owned(),
                        port,
                    };
                    Endpoint::Addresses(all.into_iter().map(address).collect())
                }
                EndpointV1::AlternativeJson(text) => Endpoint::Alternative(json(text)),
            },
            security: json(transport.security_json),
            impl_specific_info: transport.impl_specific_json.map(json),
        },
        scope_of_locality: locality(record.scope_of_locality)?,
        consumed_local_only: record.consumed_local_only,
        liveness_offer: record.liveness_offer_s.map(offer),
    })
}

#[cfg(test)]
mod tests;
