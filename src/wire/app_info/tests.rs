//! Every member of `AppInfo`, right and wrong.

use serde_json::json;

use super::*;

/// The least that an application not started by the platform must say.
fn body() -> Value {
    json!({"appName": "cam", "endpoint": {"uris": ["http://10.0.0.1/"]}})
}

/// The body with one member (`a.0.c`) set.
fn with_in(mut body: Value, path: &str, value: Value) -> Value {
    let mut at = &mut body;
    for name in path.split('.') {
        at = match name.parse::<usize>() {
            Ok(index) => &mut at[index],
            Err(_) => &mut at[name],
        };
    }
    *at = value;
    body
}

fn with(path: &str, value: Value) -> Value {
    with_in(body(), path, value)
}

/// Everything that one that the platform did not start can say.
fn full() -> Value {
    let transport = json!({
        "name": "", "description": "d", "type": "REST_HTTP", "protocol": "HTTP", "version": "2.0",
        "security": {"oAuth2Info": {"grantTypes": ["OAUTH2_IMPLICIT_GRANT"]}, "x": [null]},
        "implSpecificInfo": {"deep": [1.5, null]}
    });
    let service = json!({
        "serName": "s", "version": "1",
        "serCategory": {"href": "/c", "id": "i", "name": "n", "version": "v"},
        "serTransportDependencies": [
            {"transport": transport, "serializers": ["JSON", "CBOR"], "labels": ["l"]}
        ],
        "requestedPermissions": [null, "p"]
    });
    json!({
        "appName": "ünï", "appProvider": "", "isInsByMec": false,
        "appCategory": {"href": "", "id": "", "name": "", "version": ""},
        "endpoint": {"addresses": [{"host": "h", "port": 80}]},
        "appServiceRequired": [service, {"serName": "t", "version": ""}],
        "appServiceOptional": [service],
        "appFeatureRequired": [{"featureName": "f", "version": "1"}],
        "appFeatureOptional": [{"featureName": "g", "version": ""}],
        "appProfile": {"easId": "x", "null": null, "n": 0.1}
    })
}

fn parse_json(body: &Value) -> Result<(Option<AppInstanceId>, AppInfo), String> {
    parse(body.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// What is kept of a body.
fn kept(body: &Value) -> Value {
    let (_, info) = parse_json(body).unwrap();
    assert_eq!(info.name, body["appName"]);
    serde_json::from_str(info.json.as_str()).unwrap()
}

#[test]
fn what_was_registered_is_what_is_shown() {
    let by_mec = json!({"appName": "n", "appDId": "d", "appInstanceId": "a", "isInsByMec": true});
    let by_mec_too = with_in(by_mec.clone(), "endpoint", json!({"fqdn": ["a.example"]}));
    let alternative = with("endpoint", json!({"alternative": {"x": [1, null]}}));
    let with_descriptor = with("appDId", json!("d"));
    for sent in [
        body(),
        full(),
        by_mec,
        by_mec_too,
        alternative,
        with_descriptor,
    ] {
        let (id, info) = parse_json(&sent).unwrap();
        assert_eq!(
            id.as_ref().map(AppInstanceId::as_str),
            sent["appInstanceId"].as_str()
        );
        assert!(!info.json.as_str().contains("appInstanceId"));
        let own = AppInstanceId::parse("own \"id\"").unwrap();
        let text = serde_json::to_string(&AppInfoBody::new(&own, &info)).unwrap();
        let shown: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(shown, with_in(sent, "appInstanceId", json!("own \"id\"")));
    }
}

#[test]
fn what_is_kept_has_one_form() {
    let text = r#"{ "endpoint" : {"x": 1, "uris": ["http:\/\/a"]},
        "appName": "\u0061", "appDId": null, "z": {} }"#;
    let (_, info) = parse(text.as_bytes()).unwrap();
    assert_eq!(
        info.json.as_str(),
        r#"{"appName":"a","endpoint":{"uris":["http://a"]}}"#
    );
}

#[test]
fn nulls_and_what_is_unknown_are_dropped() {
    for name in full().as_object().unwrap().keys() {
        if !["appName", "endpoint"].contains(&name.as_str()) {
            assert_eq!(kept(&with(name, json!(null))), body(), "{name}");
        }
    }
    for (path, value) in [
        ("appInstanceId", json!(null)),
        ("appDId", json!(null)),
        ("unknown", json!({})),
        ("_links", json!(1)),
        ("endpoint.unknown", json!(1)),
        ("endpoint.fqdn", json!(null)),
        ("appServiceRequired", json!([])),
        ("appServiceOptional", json!([])),
        ("appFeatureRequired", json!([])),
        ("appFeatureOptional", json!([])),
    ] {
        assert_eq!(kept(&with(path, value)), body(), "{path}");
    }
    for path in [
        "appCategory.x",
        "appServiceRequired.0.x",
        "appServiceRequired.1.serCategory",
        "appServiceRequired.1.serTransportDependencies",
        "appServiceRequired.1.requestedPermissions",
        "appServiceRequired.0.serTransportDependencies.0.x",
        "appServiceRequired.0.serTransportDependencies.0.transport.x",
        "appServiceRequired.0.serTransportDependencies.0.transport.id",
        "appFeatureOptional.0.x",
    ] {
        let value = if path.ends_with(".x") {
            json!("x")
        } else {
            json!(null)
        };
        assert_eq!(kept(&with_in(full(), path, value)), full(), "{path}");
    }
}

#[test]
fn some_members_need_or_exclude_others() {
    let by_mec = json!({"appName": "n", "appDId": "d", "appInstanceId": "a", "isInsByMec": true});
    for name in ["appDId", "appInstanceId"] {
        let error = parse_json(&with_in(by_mec.clone(), name, json!(null))).unwrap_err();
        let says = format!("{name} is missing; isInsByMec is true, with which it is expected");
        assert_eq!(error, says);
    }
    let says = "endpoint is missing; isInsByMec is not true, without which it is expected";
    for value in [json!(null), json!(false)] {
        let body = with_in(by_mec.clone(), "isInsByMec", value);
        assert_eq!(parse_json(&body), Err(says.into()));
    }
    let error = parse_json(&with("isInsByMec", json!(true))).unwrap_err();
    assert!(error.starts_with("appDId is missing"), "{error}");
    for (name, _) in DEPENDENCIES {
        let says = format!("{name} and appDId exclude each other");
        for body in [body(), by_mec.clone()] {
            let body = with_in(body, "appDId", json!("d"));
            let without = parse_json(&with_in(body.clone(), name, json!([])));
            assert_eq!(without, parse_json(&body));
            let with = with_in(body, name, full()[name].clone());
            assert_eq!(parse_json(&with), Err(says.clone()));
        }
    }
}

#[test]
fn what_is_wrong_is_named() {
    let id = "must be 1 to 128 printable ASCII characters without '/'";
    for (name, value, says) in [
        ("appName", json!(null), "is missing; a string was expected"),
        ("appName", json!(""), "must not be empty"),
        ("appName", json!(1), "is 1; a string was expected"),
        (
            "appProvider",
            json!([]),
            "is an array; a string was expected",
        ),
        (
            "appCategory",
            json!("c"),
            "is \"c\"; an object was expected",
        ),
        (
            "appCategory",
            json!([]),
            "is an array; an object was expected",
        ),
        ("appDId", json!(5), "is 5; a string was expected"),
        ("appDId", json!(""), "must not be empty"),
        ("appInstanceId", json!(5), "is 5; a string was expected"),
        ("appInstanceId", json!(""), id),
        ("appInstanceId", json!("a/b"), id),
        (
            "endpoint",
            json!("http://a"),
            "is \"http://a\"; an object was expected",
        ),
        (
            "endpoint",
            json!({}),
            "must have exactly one of uris, fqdn, addresses and alternative",
        ),
        (
            "appServiceRequired",
            json!({}),
            "is an object; an array was expected",
        ),
        (
            "appServiceOptional",
            json!("s"),
            "is \"s\"; an array was expected",
        ),
        (
            "appFeatureRequired",
            json!(true),
            "is true; an array was expected",
        ),
        (
            "appFeatureOptional",
            json!(1),
            "is 1; an array was expected",
        ),
        (
            "isInsByMec",
            json!("true"),
            "is \"true\"; true or false was expected",
        ),
        ("isInsByMec", json!(0), "is 0; true or false was expected"),
        ("appProfile", json!("p"), "is \"p\"; an object was expected"),
        (
            "appProfile",
            json!([]),
            "is an array; an object was expected",
        ),
    ] {
        let error = parse_json(&with(name, value)).unwrap_err();
        assert_eq!(error, format!("{name} {says}"));
    }
    for (body, part) in [("", "empty"), ("[]", "an array"), ("{", "not valid JSON")] {
        let error = parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{body}: {error}");
    }
}

#[test]
fn what_is_wrong_deep_inside_is_named() {
    let text = "a string was expected";
    let object = "an object was expected";
    let missing_text = format!("is missing; {text}");
    let not_empty = "must not be empty";
    let (service, feature) = ("appServiceRequired.0", "appFeatureOptional.0");
    let dependency = &format!("{service}.serTransportDependencies.0");
    let transport = &format!("{dependency}.transport");
    for (at, name, value, says) in [
        ("appCategory", "href", json!(null), &*missing_text),
        ("appCategory", "id", json!(1), &format!("is 1; {text}")),
        (
            "endpoint",
            "addresses",
            json!([1]),
            &format!("[0] is 1; {object}"),
        ),
        (service, "", json!(1), &format!("is 1; {object}")),
        (service, "serName", json!(null), &missing_text),
        (service, "serName", json!(""), not_empty),
        (
            service,
            "serName",
            json!({}),
            &format!("is an object; {text}"),
        ),
        (service, "version", json!(null), &missing_text),
        (service, "version", json!(1), &format!("is 1; {text}")),
        (
            service,
            "serCategory",
            json!([]),
            &format!("is an array; {object}"),
        ),
        (
            service,
            "serTransportDependencies",
            json!({}),
            "is an object; an array was expected",
        ),
        (dependency, "", json!("t"), &format!("is \"t\"; {object}")),
        (
            dependency,
            "transport",
            json!(null),
            &format!("is missing; {object}"),
        ),
        (
            dependency,
            "transport",
            json!([]),
            &format!("is an array; {object}"),
        ),
        (
            dependency,
            "serializers",
            json!(null),
            "is missing; an array of strings was expected",
        ),
        (dependency, "serializers", json!([]), not_empty),
        (
            dependency,
            "serializers",
            json!([""]),
            "[0] must not be empty",
        ),
        (
            dependency,
            "serializers",
            json!("JSON"),
            "is \"JSON\"; an array was expected",
        ),
        (
            dependency,
            "labels",
            json!(null),
            "is missing; an array of strings was expected",
        ),
        (dependency, "labels", json!([]), not_empty),
        (
            dependency,
            "labels",
            json!(["l", 1]),
            &format!("[1] is 1; {text}"),
        ),
        (transport, "name", json!(null), &missing_text),
        (transport, "name", json!(1), &format!("is 1; {text}")),
        (
            transport,
            "description",
            json!([]),
            &format!("is an array; {text}"),
        ),
        (transport, "type", json!(null), &missing_text),
        (transport, "type", json!(""), not_empty),
        (transport, "protocol", json!(null), &missing_text),
        (
            transport,
            "protocol",
            json!(false),
            &format!("is false; {text}"),
        ),
        (transport, "version", json!(null), &missing_text),
        (transport, "version", json!(2), &format!("is 2; {text}")),
        (
            transport,
            "security",
            json!(null),
            &format!("is missing; {object}"),
        ),
        (
            transport,
            "security",
            json!("none"),
            &format!("is \"none\"; {object}"),
        ),
        (feature, "", json!(null), &format!("is null; {object}")),
        (feature, "featureName", json!(null), &missing_text),
        (feature, "featureName", json!(""), not_empty),
        (feature, "featureName", json!(1), &format!("is 1; {text}")),
        (feature, "version", json!(null), &missing_text),
        (
            feature,
            "version",
            json!([]),
            &format!("is an array; {text}"),
        ),
    ] {
        let path = format!("{at}.{name}");
        let path = path.trim_end_matches('.');
        let shown = path.replace(".0", "[0]");
        let gap = if says.starts_with('[') { "" } else { " " };
        let error = parse_json(&with_in(full(), path, value)).unwrap_err();
        assert_eq!(error, format!("{shown}{gap}{says}"));
    }
}
