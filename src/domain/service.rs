//! What is registered: the part of `ServiceInfo` that the producer owns.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.2.2. State and heartbeat agreement are in
//! [`crate::domain::liveness`]; ids and links belong to the platform.

/// A registered service, as its producer described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `serName`, not empty; need not be unique.
    pub name: String,
    /// `serCategory`.
    pub category: Option<Category>,
    /// `version`.
    pub version: String,
    /// `serializer`: `JSON`, `XML`, `PROTOBUF3`, or an extension.
    pub serializer: String,
    /// `transportInfo`.
    pub transport: Transport,
    /// `scopeOfLocality`.
    pub scope_of_locality: Locality,
    /// `consumedLocalOnly`.
    pub consumed_local_only: bool,
    /// What the producer offered as `livenessInterval`; `None`: it cannot send heartbeats.
    pub liveness_offer: Option<LivenessOffer>,
}

/// The producer's side of the heartbeat negotiation.
///
/// Source: GS MEC 011 V2.2.1, 8.1.2.2: 0 means "supported, the platform chooses".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessOffer {
    /// `livenessInterval: 0`.
    PlatformChooses,
    /// A proposal in seconds, above 0; larger ones than fit are clamped anyway.
    Seconds(u32),
}

/// `CategoryRef`. Source: GS MEC 011 V2.2.1, 8.1.5.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// Reference of the catalogue.
    pub href: String,
    /// Identifier of the category.
    pub id: String,
    /// Name of the category.
    pub name: String,
    /// Version of the category.
    pub version: String,
}

/// `TransportInfo`. Source: GS MEC 011 V2.2.1, 8.1.2.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transport {
    /// Identifier of this transport.
    pub id: String,
    /// Name of this transport.
    pub name: String,
    /// Human-readable description.
    pub description: Option<String>,
    /// `type`: `REST_HTTP`, …, or an extension.
    pub kind: String,
    /// The protocol, `HTTP` for REST.
    pub protocol: String,
    /// Version of the protocol.
    pub version: String,
    /// Where the service is reached.
    pub endpoint: Endpoint,
    /// `security`: kept as sent, nulls dropped.
    pub security: JsonText,
    /// `implSpecificInfo`: kept as sent.
    pub impl_specific_info: Option<JsonText>,
}

/// `EndPointInfo`: exactly one of its members. Source: GS MEC 011 V2.2.1, 8.1.5.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `uris`, not empty.
    Uris(Vec<String>),
    /// `fqdn` (V3.1.1), not empty.
    Fqdn(Vec<String>),
    /// `addresses`, not empty.
    Addresses(Vec<Address>),
    /// `alternative`: kept as sent.
    Alternative(JsonText),
}

/// One of `EndPointInfo.addresses`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port number.
    pub port: u16,
}

/// `LocalityType`, a closed list. Source: GS MEC 011 V2.2.1, 8.1.6.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the standard's own names")]
pub enum Locality {
    MecSystem,
    MecHost,
    NfviPop,
    Zone,
    ZoneGroup,
    NfviNode,
}

/// A JSON value of free form, kept as compact text: the domain never looks inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(Box<str>);

impl JsonText {
    /// Takes a text that the caller knows to be JSON.
    #[must_use]
    pub fn from_json(text: String) -> Self {
        Self(text.into_boxed_str())
    }

    /// The JSON text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
