//! Every member of `ServiceInfo`, right and wrong.

use serde_json::{Value, json};

use super::*;
use crate::domain::service::Endpoint;
use crate::domain::{AppInstanceId, Policy, ProducerState, ServiceId};

fn body() -> Value {
    json!({
        "serName": "cam", "version": "1.0", "state": "ACTIVE", "serializer": "JSON",
        "transportInfo": {
            "id": "t", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "2.0",
            "endpoint": {"uris": ["http://10.0.0.1/cam"]}, "security": {}
        }
    })
}

/// The body with one member (`a.b.c`) set.
fn with(path: &str, value: Value) -> Value {
    let mut body = body();
    let mut at = &mut body;
    for name in path.split('.') {
        at = at
            .as_object_mut()
            .unwrap()
            .entry(name)
            .or_insert(Value::Null);
    }
    *at = value;
    body
}

fn parse_json(body: &Value) -> Result<(Service, ServiceState), String> {
    parse(body.to_string().as_bytes(), &[], Dialect::Standard).map_err(|error| error.to_string())
}

#[test]
fn the_least_a_producer_must_say() {
    let (service, state) = parse_json(&body()).unwrap();
    assert_eq!(state, ServiceState::Active);
    assert_eq!(service.name, "cam");
    assert_eq!(service.liveness_offer, None);
    assert_eq!(service.scope_of_locality, Locality::MecHost);
    assert!(service.consumed_local_only);
}

#[test]
fn liveness_offers() {
    for (value, offer) in [
        (json!(null), None),
        (json!(0), Some(LivenessOffer::PlatformChooses)),
        (json!(10), Some(LivenessOffer::Seconds(10))),
        (
            json!(5_000_000_000_u64),
            Some(LivenessOffer::Seconds(u32::MAX)),
        ),
    ] {
        let (service, _) = parse_json(&with("livenessInterval", value.clone())).unwrap();
        assert_eq!(service.liveness_offer, offer, "{value}");
    }
    for value in [
        json!(-1),
        json!(1e30),
        json!("5"),
        json!(2.5),
        json!([]),
        json!({}),
        json!(true),
    ] {
        let error = parse_json(&with("livenessInterval", value.clone())).unwrap_err();
        assert!(
            error.starts_with("livenessInterval is "),
            "{value}: {error}"
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (path, value, part) in [
        ("serName", json!(null), "serName is missing"),
        ("serName", json!(""), "serName must not be empty"),
        ("serName", json!(5), "serName is 5"),
        ("version", json!(null), "version is missing"),
        ("state", json!("RUNNING"), "state is \"RUNNING\""),
        ("state", json!(null), "state is missing"),
        ("serializer", json!(null), "serializer is missing"),
        (
            "scopeOfLocality",
            json!("EARTH"),
            "scopeOfLocality is \"EARTH\"",
        ),
        (
            "consumedLocalOnly",
            json!("true"),
            "consumedLocalOnly is \"true\"",
        ),
        (
            "serCategory",
            json!({"href": "h"}),
            "serCategory.id is missing",
        ),
        ("serCategory", json!([]), "serCategory is an array"),
        ("transportInfo", json!(null), "transportInfo is missing"),
        (
            "transportInfo",
            json!(["t", "REST"]),
            "transportInfo is an array",
        ),
        (
            "transportInfo.type",
            json!(null),
            "transportInfo.type is missing",
        ),
        (
            "transportInfo.security",
            json!(null),
            "transportInfo.security is missing",
        ),
        (
            "transportInfo.endpoint",
            json!({}),
            "transportInfo.endpoint must have exactly one",
        ),
        ("transportInfo.endpoint", json!({"uris": []}), "exactly one"),
        (
            "transportInfo.endpoint.uris",
            json!([1]),
            "transportInfo.endpoint.uris[0] is 1",
        ),
        (
            "transportInfo.endpoint.alternative",
            json!({}),
            "exactly one",
        ),
        (
            "transportInfo.endpoint",
            json!({"addresses": [{"host": "h", "port": 70_000}]}),
            "addresses[0].port is 70000",
        ),
        (
            "transportInfo.endpoint",
            json!({"addresses": [{"host": "h"}]}),
            "addresses[0].port is missing",
        ),
        (
            "transportInfo.security",
            json!({"oAuth2Info": {"grantTypes": ["X"]}}),
            "grantTypes must have",
        ),
        (
            "transportInfo.security",
            json!({"oAuth2Info": {"grantTypes": []}}),
            "grantTypes must have",
        ),
        (
            "transportInfo.security",
            json!({"oAuth2Info": {"tokenEndpoint": 1}}),
            "tokenEndpoint is 1",
        ),
        ("transportId", json!("t1"), "exclude each other"),
    ] {
        let error = parse_json(&with(path, value.clone())).unwrap_err();
        assert!(error.contains(part), "{path} = {value}: {error}");
    }
}

#[test]
fn names_that_every_event_carries_are_bounded() {
    let category = |id: &str| json!({"href": "", "id": id, "name": "n".repeat(300), "version": ""});
    let long = "é".repeat(127) + "x";
    assert_eq!(long.len(), crate::domain::Subject::NAME_BYTES_MAX);
    for body in [
        with("serName", json!(long)),
        with("serCategory", category(&long)),
    ] {
        assert!(parse_json(&body).is_ok());
    }
    let longer = long + "x";
    for (path, body) in [
        ("serName", with("serName", json!(longer))),
        ("serCategory.id", with("serCategory", category(&longer))),
    ] {
        let says = format!("{path} is 256 bytes long; at most 255 are taken");
        assert_eq!(parse_json(&body), Err(says));
    }
}

/// The body with `transportId` instead of `transportInfo`.
fn by_id(id: &Value) -> Vec<u8> {
    let mut body = with("transportId", id.clone());
    body.as_object_mut().unwrap().remove("transportInfo");
    body.to_string().into_bytes()
}

#[test]
fn a_transport_is_named_by_its_id() {
    let (sent, _) = parse_json(&body()).unwrap();
    let offered = |count: usize| -> Vec<Transport> {
        let each = |number| Transport {
            id: format!("t{number}"),
            endpoint: Endpoint::Fqdn(vec![format!("h{number}")]),
            ..sent.transport.clone()
        };
        (0..count).map(each).collect()
    };
    let some = offered(3);
    let (service, _) = parse(&by_id(&json!("t1")), &some, Dialect::Standard).unwrap();
    assert_eq!(service.transport, some[1]);
    assert_eq!(service.name, sent.name);

    let ten = (0..10).map(|n| format!("\"t{n}\"")).collect::<Vec<_>>();
    for (id, transports, says) in [
        (
            "t1",
            offered(0),
            "transportId \"t1\" names no transport of this platform; send transportInfo instead",
        ),
        (
            "t2",
            offered(2),
            "transportId \"t2\" names no transport of this platform; it has \"t0\", \"t1\"",
        ),
        (
            "",
            offered(10),
            &format!(
                "transportId \"\" names no transport of this platform; it has {}",
                ten.join(", ")
            ),
        ),
        (
            "T1",
            offered(11),
            "transportId \"T1\" names no transport of this platform; it has 11, see /transports",
        ),
    ] {
        let error = parse(&by_id(&json!(id)), &transports, Dialect::Standard).unwrap_err();
        assert_eq!(error.to_string(), says);
    }
    for (body, says) in [
        (by_id(&json!(1)), "transportId is 1; a string was expected"),
        (
            by_id(&json!(null)),
            "transportInfo is missing; an object was expected",
        ),
        (
            with("transportId", json!("t1")).to_string().into_bytes(),
            "transportId and transportInfo exclude each other",
        ),
    ] {
        let error = parse(&body, &some, Dialect::Standard).unwrap_err();
        assert_eq!(error.to_string(), says);
    }
}

#[test]
fn what_belongs_to_the_platform_or_is_unknown_is_ignored() {
    for (path, value) in [
        ("serInstanceId", json!(7)),
        ("_links", json!({"self": {"liveness": ""}})),
        ("isLocal", json!("maybe")),
        ("somethingElse", json!([1])),
    ] {
        assert_eq!(parse_json(&with(path, value)), parse_json(&body()));
    }
}

#[test]
fn nulls_of_real_agents_are_absent() {
    let body = with(
        "transportInfo.security",
        json!({"oAuth2Info": {"grantTypes": null, "tokenEndpoint": ""}}),
    );
    let (service, _) = parse_json(&body).unwrap();
    assert_eq!(
        service.transport.security.as_str(),
        r#"{"oAuth2Info":{"tokenEndpoint":""}}"#
    );
}

#[test]
fn what_was_registered_is_what_is_shown() {
    let sent = json!({
        "serName": "ünï", "version": "1.0", "state": "INACTIVE", "serializer": "CBOR",
        "serCategory": {"href": "/c", "id": "i", "name": "n", "version": "v"},
        "scopeOfLocality": "ZONE_GROUP", "consumedLocalOnly": false, "livenessInterval": 10,
        "transportInfo": {
            "id": "t", "name": "REST", "description": "d", "type": "X", "protocol": "HTTP", "version": "2.0",
            "endpoint": {"addresses": [{"host": "10.0.0.1", "port": 80}, {"host": "h", "port": 0}]},
            "security": {"oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"], "tokenEndpoint": "http://t"}, "x": [null]},
            "implSpecificInfo": {"deep": [1.5, "x"]}
        }
    });
    let (service, _) = parse_json(&sent).unwrap();
    let key = ServiceKey {
        app: AppInstanceId::parse("a b%").unwrap(),
        service: ServiceId::from_bytes([0; 16]),
    };
    let interval = |s| crate::domain::LivenessInterval::from_secs(s).unwrap();
    let policy = Policy {
        default_interval: interval(30),
        min_interval: interval(5),
        max_interval: interval(60),
        grace_percent: 20,
        grace_min_ms: 2000,
        blind_cap: 10,
        remove_after_ms: None,
    };
    let now = crate::domain::Moment {
        steady: crate::domain::Steady::from_ms(0),
        wall: crate::domain::Wall::from_ns(0),
    };
    let liveness = Liveness::registered(
        ProducerState::Inactive,
        service.liveness_offer,
        &policy,
        now,
    );
    let links = Links::new("https://mep.example", Dialect::Standard);
    let mut shown =
        serde_json::to_value(ServiceInfo::new(&key, &service, &liveness, &links)).unwrap();
    let own = shown.as_object_mut().unwrap();
    assert_eq!(
        own.remove("serInstanceId").unwrap(),
        "00000000-0000-0000-0000-000000000000"
    );
    assert_eq!(own.remove("isLocal").unwrap(), true);
    let root = "https://mep.example/mec_service_mgmt/v1/applications/a%20b%25";
    let service_uri = format!("{root}/services/00000000-0000-0000-0000-000000000000");
    assert_eq!(
        own.remove("_links").unwrap(),
        json!({
            "self": {"href": service_uri},
            "liveness": {"href": format!("{service_uri}/liveness")},
            "livenessBatch": {"href": format!("{root}/liveness")}
        })
    );
    assert_eq!(shown, sent);
}
