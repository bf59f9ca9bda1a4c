//! What a platform says of a service, in any of its dialects. Pure.
//!
//! ETSI's link to the liveness resource is `_links.liveness.href`. EdgeGallery's is the bare string
//! `_links.self.liveness`, and what it leads to takes PUT. `_links.livenessBatch.href` is our own.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_64;

/// Members of a registration that say nothing of how the platform shows it: it chooses the interval,
/// shows a transport instead of its id, and the state is compared by itself.
const NOT_COMPARED: [&str; 3] = ["state", "livenessInterval", "transportId"];

/// Where a single beat goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeatLink {
    /// As the platform wrote it.
    pub href: String,
    /// With PUT instead of PATCH.
    pub put: bool,
}

/// A `ServiceInfo` as answered. Source: GS MEC 011 V2.2.1, 8.1.2.2.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Info {
    pub(super) id: String,
    pub(super) name: String,
    /// Whose it is, where the platform says so. EdgeGallery's lists those of all applications.
    pub(super) app: Option<String>,
    pub(super) inactive: bool,
    /// The effective interval in seconds.
    pub(super) interval_s: Option<u32>,
    /// `None`: the platform wants no beats.
    pub(super) beat: Option<BeatLink>,
    pub(super) batch: Option<String>,
    pub(super) all: Value,
}

impl Info {
    /// `None`: it names no id.
    pub(super) fn read(value: Value) -> Option<Self> {
        let text = |value: &Value| Some(value.as_str()?.to_owned()).filter(|text| !text.is_empty());
        let links = value.get("_links");
        let link = |name: &str| links?.get(name)?.get("href").and_then(text);
        let standard = link("liveness").map(|href| BeatLink { href, put: false });
        let beat = standard.or_else(|| {
            let href = text(links?.get("self")?.get("liveness")?)?;
            Some(BeatLink { href, put: true })
        });
        Some(Self {
            id: text(value.get("serInstanceId")?)?,
            name: value.get("serName").and_then(text).unwrap_or_default(),
            app: links
                .and_then(|links| links.get("appInstanceId"))
                .and_then(text),
            inactive: value.get("state").and_then(Value::as_str) == Some("INACTIVE"),
            interval_s: interval(value.get("livenessInterval")),
            batch: beat.as_ref().and(link("livenessBatch")),
            beat,
            all: value,
        })
    }

    /// Whether it may be this application's: the platform does not say that it is another one's.
    pub(super) fn may_be_of(&self, app: &str) -> bool {
        self.app.as_deref().is_none_or(|of| of == app)
    }

    /// Whether the platform shows all that is registered, as it is registered.
    pub(super) fn shows(&self, registration: &Map<String, Value>) -> bool {
        registration
            .iter()
            .filter(|(member, _)| !NOT_COMPARED.contains(&member.as_str()))
            .all(|(member, value)| {
                self.all
                    .get(member)
                    .is_some_and(|shown| contains(shown, value))
            })
    }
}

/// Seconds, where it is a whole number above 0.
pub(super) fn interval(value: Option<&Value>) -> Option<u32> {
    let secs = u32::try_from(value?.as_u64()?).ok()?;
    (secs > 0).then_some(secs)
}

/// Whether all of `wanted` stands in `shown`; platforms add members of their own.
fn contains(shown: &Value, wanted: &Value) -> bool {
    match (shown, wanted) {
        (Value::Object(shown), Value::Object(wanted)) => wanted.iter().all(|(member, wanted)| {
            shown
                .get(member)
                .is_some_and(|shown| contains(shown, wanted))
        }),
        (Value::Array(shown), Value::Array(wanted)) => {
            shown.len() == wanted.len()
                && shown
                    .iter()
                    .zip(wanted)
                    .all(|(shown, wanted)| contains(shown, wanted))
        }
        (shown, wanted) => shown == wanted,
    }
}

/// What can be held against that which EdgeGallery's platform shows: it puts its gateway's addresses
/// into `transportInfo.endpoint`.
pub(super) fn without_endpoint(mut registration: Map<String, Value>) -> Map<String, Value> {
    let transport = registration.get_mut("transportInfo");
    if let Some(transport) = transport.and_then(Value::as_object_mut) {
        transport.remove("endpoint");
    }
    registration
}

/// Changes whenever the registration does, but for its state.
pub(super) fn fingerprint(registration: &Map<String, Value>) -> String {
    let mut registration = registration.clone();
    registration.remove("state");
    // Members of a map are sorted.
    let text = Value::Object(registration).to_string();
    format!("{:016x}", xxh3_64(text.as_bytes()))
}

/// Of several services of one name, the one to keep: whichever does not have to be woken first.
pub(super) fn choose(own: &[Info]) -> Option<&Info> {
    own.iter().find(|info| !info.inactive).or(own.first())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Info {
        Info::read(value).unwrap()
    }

    #[test]
    fn links_are_understood_in_every_dialect() {
        let etsi = json!({"serInstanceId": "1", "serName": "cam", "state": "ACTIVE", "livenessInterval": 7,
            "_links": {"self": {"href": "/s/1"}, "liveness": {"href": "/s/1/l"}, "livenessBatch": {"href": "/l"}}});
        let info = read(etsi.clone());
        let link = |href: &str, put| {
            Some(BeatLink {
                href: href.to_owned(),
                put,
            })
        };
        assert_eq!(
            (info.interval_s, info.beat, info.batch.as_deref()),
            (Some(7), link("/s/1/l", false), Some("/l"))
        );
        let edge_gallery = json!({"serInstanceId": "2", "livenessInterval": 60,
            "_links": {"self": {"liveness": "/mep/l"}, "appInstanceId": ""}});
        let info = read(edge_gallery);
        assert!(info.may_be_of("app"));
        assert_eq!((info.beat, info.batch), (link("/mep/l", true), None));
        let none = json!({"serInstanceId": "3", "livenessInterval": 0, "_links": {"self": {}}});
        let info = read(none);
        assert_eq!((info.beat, info.interval_s), (None, None));
        for nothing in [
            json!([]),
            json!({}),
            json!({"serInstanceId": 5}),
            json!({"serInstanceId": ""}),
        ] {
            assert_eq!(Info::read(nothing), None);
        }
    }

    #[test]
    fn a_registration_is_shown_if_all_of_it_is_there() {
        let info = read(
            json!({"serInstanceId": "1", "serName": "cam", "version": "1", "isLocal": true,
            "transportInfo": {"id": "t", "endpoint": {"uris": ["a"]}, "security": {}}}),
        );
        let shown = |value: Value| info.shows(value.as_object().unwrap());
        assert!(shown(
            json!({"serName": "cam", "state": "INACTIVE", "livenessInterval": 5})
        ));
        assert!(shown(
            json!({"transportInfo": {"endpoint": {"uris": ["a"]}}})
        ));
        assert!(!shown(
            json!({"transportInfo": {"endpoint": {"uris": ["a", "b"]}}})
        ));
        assert!(!shown(json!({"version": "2"})));
        assert!(!shown(json!({"serCategory": {}})));
    }

    #[test]
    fn what_is_another_applications_is_known_by_its_links() {
        for (links, ours) in [
            (json!({}), true),
            (json!({"appInstanceId": ""}), true),
            (json!({"appInstanceId": null}), true),
            (json!({"appInstanceId": "app"}), true),
            (json!({"appInstanceId": "other"}), false),
        ] {
            let info = read(json!({"serInstanceId": "1", "_links": links}));
            assert_eq!(info.may_be_of("app"), ours, "{links}");
        }
    }

    #[test]
    fn an_endpoint_that_the_platform_rewrites_can_be_left_out() {
        let info = read(json!({"serInstanceId": "1",
            "transportInfo": {"id": "t", "endpoint": {"uris": ["https://gateway/1"]}}}));
        let ours = json!({"transportInfo": {"id": "t", "endpoint": {"uris": ["http://cam"]}}});
        let ours = ours.as_object().unwrap().clone();
        assert!(!info.shows(&ours));
        assert!(info.shows(&without_endpoint(ours)));
    }

    #[test]
    fn a_fingerprint_is_of_everything_but_the_state() {
        let print = |value: Value| fingerprint(value.as_object().unwrap());
        assert_eq!(
            print(json!({"a": 1, "state": "X"})),
            print(json!({"state": "Y", "a": 1}))
        );
        assert_ne!(print(json!({"a": 1})), print(json!({"a": 2})));
    }
}
