//! The platform's transports, right and wrong.

use serde_json::json;

use super::*;

fn one(id: &str) -> Value {
    json!({
        "id": id, "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "2.0",
        "endpoint": {"uris": ["http://10.0.0.1/"]}, "security": {}
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut transport = one("c");
    transport[name] = value;
    transport
}

#[test]
fn what_was_configured_is_what_is_shown() {
    let list = vec![
        one("a"),
        json!({
            "id": "b", "name": "", "description": "d", "type": "MB_TOPIC_BASED", "protocol": "MQTT",
            "version": "5", "endpoint": {"addresses": [{"host": "h", "port": 1883}]},
            "security": {"oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"]}},
            "implSpecificInfo": ["x", null]
        }),
        with("endpoint", json!({"fqdn": ["a.example"]})),
    ];
    let transports = parse_transports(list.clone()).unwrap();
    let shown: Vec<_> = transports
        .iter()
        .map(|transport| serde_json::to_value(TransportInfo::new(transport)).unwrap())
        .collect();
    assert_eq!(shown, list);
    assert_eq!(parse_transports(Vec::new()), Ok(Vec::new()));
}

#[test]
fn what_is_wrong_is_named() {
    let text = "; a string was expected";
    for (name, value, says) in [
        ("id", json!(null), format!("id is missing{text}")),
        ("id", json!(1), format!("id is 1{text}")),
        ("id", json!(""), "id must not be empty".into()),
        (
            "id",
            json!("a"),
            "id is \"a\", as is platform.transports[0].id; each transport needs an id of its own"
                .into(),
        ),
        ("name", json!(null), format!("name is missing{text}")),
        ("name", json!([]), format!("name is an array{text}")),
        (
            "description",
            json!({}),
            format!("description is an object{text}"),
        ),
        ("type", json!(null), format!("type is missing{text}")),
        ("type", json!(""), "type must not be empty".into()),
        ("type", json!(true), format!("type is true{text}")),
        (
            "protocol",
            json!(null),
            format!("protocol is missing{text}"),
        ),
        ("protocol", json!(2), format!("protocol is 2{text}")),
        ("version", json!(null), format!("version is missing{text}")),
        ("version", json!(2.5), format!("version is 2.5{text}")),
        (
            "endpoint",
            json!(null),
            "endpoint is missing; an object was expected".into(),
        ),
        (
            "endpoint",
            json!("http://a"),
            "endpoint is \"http://a\"; an object was expected".into(),
        ),
        (
            "endpoint",
            json!({}),
            "endpoint must have exactly one of uris, fqdn, addresses and alternative".into(),
        ),
        (
            "endpoint",
            json!({"uris": ["http://a"], "fqdn": ["a"]}),
            "endpoint must have exactly one of uris, fqdn, addresses and alternative".into(),
        ),
        (
            "endpoint",
            json!({"uris": ["http://a", 5]}),
            format!("endpoint.uris[1] is 5{text}"),
        ),
        (
            "endpoint",
            json!({"fqdn": "a"}),
            "endpoint.fqdn is \"a\"; an array was expected".into(),
        ),
        (
            "endpoint",
            json!({"addresses": [{"host": ""}]}),
            "endpoint.addresses[0].host must not be empty".into(),
        ),
        (
            "endpoint",
            json!({"addresses": [{"host": "h", "port": -1}]}),
            "endpoint.addresses[0].port is -1; a port number was expected".into(),
        ),
        (
            "security",
            json!(null),
            "security is missing; an object was expected".into(),
        ),
        (
            "security",
            json!([]),
            "security is an array; an object was expected".into(),
        ),
        (
            "security",
            json!({"oAuth2Info": 1}),
            "security.oAuth2Info is 1; an object was expected".into(),
        ),
    ] {
        let list = vec![one("a"), one("b"), with(name, value.clone())];
        let error = parse_transports(list).unwrap_err().to_string();
        let expected = format!("platform.transports[2].{says}");
        assert_eq!(error, expected, "{name} = {value}");
    }
    for value in [json!(1), json!(null), json!([])] {
        let error = parse_transports(vec![one("a"), value]).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("platform.transports[1] is "), "{error}");
    }
}
