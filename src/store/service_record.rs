//! A registration as it is stored; the registry keeps it in the same form.

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
    /// Can be decoded, because it was.
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
        let service = decode(row)?;
        Ok(Self {
            row: row.into(),
            liveness_offer: service.liveness_offer,
        })
    }

    /// The registration.
    ///
    /// # Panics
    /// Never: what is in here was decoded or encoded before, and does not change.
    #[must_use]
    pub fn service(&self) -> Service {
        #[expect(clippy::expect_used, reason = "proven when it was made, see above")]
        decode(&self.row).expect("a row that could be decoded before")
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
struct ServiceV1 {
    name: String,
    /// href, id, name, version.
    category: Option<[String; 4]>,
    version: String,
    serializer: String,
    transport: TransportV1,
    scope_of_locality: u8,
    consumed_local_only: bool,
    /// 0: the platform chooses.
    liveness_offer_s: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct TransportV1 {
    id: String,
    name: String,
    description: Option<String>,
    kind: String,
    protocol: String,
    version: String,
    endpoint: EndpointV1,
    security_json: String,
    impl_specific_json: Option<String>,
}

/// bincode writes the variant's number: append only.
#[derive(Serialize, Deserialize)]
enum EndpointV1 {
    Uris(Vec<String>),
    Fqdn(Vec<String>),
    Addresses(Vec<(String, u16)>),
    AlternativeJson(String),
}

const LOCALITIES: [Locality; 6] = [
    Locality::MecSystem,
    Locality::MecHost,
    Locality::NfviPop,
    Locality::Zone,
    Locality::ZoneGroup,
    Locality::NfviNode,
];

fn encode(service: &Service) -> Vec<u8> {
    let Service {
        name,
        category,
        version,
        serializer,
        transport,
        scope_of_locality,
        consumed_local_only,
        liveness_offer,
    } = service;
    let endpoint = match &transport.endpoint {
        Endpoint::Uris(uris) => EndpointV1::Uris(uris.clone()),
        Endpoint::Fqdn(names) => EndpointV1::Fqdn(names.clone()),
        Endpoint::Addresses(all) => {
            EndpointV1::Addresses(all.iter().map(|a| (a.host.clone(), a.port)).collect())
        }
        Endpoint::Alternative(json) => EndpointV1::AlternativeJson(json.as_str().to_owned()),
    };
    let record = ServiceV1 {
        name: name.clone(),
        category: category.clone().map(
            |Category {
                 href,
                 id,
                 name,
                 version,
             }| [href, id, name, version],
        ),
        version: version.clone(),
        serializer: serializer.clone(),
        transport: TransportV1 {
            id: transport.id.clone(),
            name: transport.name.clone(),
            description: transport.description.clone(),
            kind: transport.kind.clone(),
            protocol: transport.protocol.clone(),
            version: transport.version.clone(),
            endpoint,
            security_json: transport.security.as_str().to_owned(),
            impl_specific_json: transport
                .impl_specific_info
                .as_ref()
                .map(|json| json.as_str().to_owned()),
        },
        scope_of_locality: match scope_of_locality {
            Locality::MecSystem => 0,
            Locality::MecHost => 1,
            Locality::NfviPop => 2,
            Locality::Zone => 3,
            Locality::ZoneGroup => 4,
            Locality::NfviNode => 5,
        },
        consumed_local_only: *consumed_local_only,
        liveness_offer_s: liveness_offer.map(|offer| match offer {
            LivenessOffer::PlatformChooses => 0,
            LivenessOffer::Seconds(secs) => secs,
        }),
    };
    codec::encode(1, &record)
}

fn decode(bytes: &[u8]) -> Result<Service, DecodeError> {
    let ServiceV1 {
        name,
        category,
        version,
        serializer,
        transport,
        scope_of_locality,
        consumed_local_only,
        liveness_offer_s,
    } = codec::decode_v1(bytes)?;
    let endpoint = match transport.endpoint {
        EndpointV1::Uris(uris) => Endpoint::Uris(uris),
        EndpointV1::Fqdn(names) => Endpoint::Fqdn(names),
        EndpointV1::Addresses(all) => Endpoint::Addresses(
            all.into_iter()
                .map(|(host, port)| Address { host, port })
                .collect(),
        ),
        EndpointV1::AlternativeJson(json) => Endpoint::Alternative(JsonText::from_json(json)),
    };
    Ok(Service {
        name,
        category: category.map(|[href, id, name, version]| Category {
            href,
            id,
            name,
            version,
        }),
        version,
        serializer,
        transport: Transport {
            id: transport.id,
            name: transport.name,
            description: transport.description,
            kind: transport.kind,
            protocol: transport.protocol,
            version: transport.version,
            endpoint,
            security: JsonText::from_json(transport.security_json),
            impl_specific_info: transport.impl_specific_json.map(JsonText::from_json),
        },
        scope_of_locality: *LOCALITIES
            .get(usize::from(scope_of_locality))
            .ok_or_else(|| unknown("locality", scope_of_locality))?,
        consumed_local_only,
        liveness_offer: liveness_offer_s.map(|secs| match secs {
            0 => LivenessOffer::PlatformChooses,
            secs => LivenessOffer::Seconds(secs),
        }),
    })
}

#[cfg(test)]
mod tests;
