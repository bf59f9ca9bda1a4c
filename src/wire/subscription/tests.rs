//! Every member of a subscription, right and wrong.

use serde_json::{Value, json};

use super::*;
use crate::domain::ServiceId;
use crate::wire::Dialect;

const CALLBACK: &str = "http://10.0.0.1:80/a/../b?c=%20";

fn body() -> Value {
    json!({"subscriptionType": TYPE, "callbackReference": CALLBACK})
}

fn with(name: &str, value: Value) -> Value {
    let mut body = body();
    body[name] = value;
    body
}

fn criteria(name: &str, value: Value) -> Value {
    let mut criteria = serde_json::Map::new();
    criteria.insert(name.to_owned(), value);
    with("filteringCriteria", criteria.into())
}

fn category_of(id: &str) -> Value {
    json!({"href": "/c", "id": id, "name": "n", "version": "v"})
}

fn parse_json(body: &Value) -> Result<(CallbackUri, Filter), String> {
    parse(body.to_string().as_bytes()).map_err(|error| error.to_string())
}

/// What a subscription made of the body is shown as.
fn shown(body: &Value) -> Value {
    let (callback, filter) = parse_json(body).unwrap();
    let subscription = Subscription {
        id: SubscriptionId::from_bytes([0xcd; 16]),
        app: AppInstanceId::parse("a b").unwrap(),
        callback,
        filter,
        from: 1,
    };
    serde_json::to_value(SubscriptionInfo::new(&subscription, &Links::default())).unwrap()
}

#[test]
fn what_was_sent_is_what_is_shown() {
    let own = "/mec_service_mgmt/v1/applications/a%20b/subscriptions/cdcdcdcd-cdcd-cdcd-cdcd-cdcdcdcdcdcd";
    let id = ServiceId::random().to_string();
    for criteria in [
        json!({"serInstanceIds": [id, "no UUID"]}),
        json!({"serNames": ["a", "ünï", "a"]}),
        json!({"serCategories": [category_of("1"), category_of("")]}),
        json!({"states": ["SUSPENDED", "ACTIVE", "INACTIVE"]}),
        json!({"isLocal": true}),
        json!({"isLocal": false}),
        json!({"serNames": ["n"], "states": ["ACTIVE"], "isLocal": true}),
    ] {
        let mut sent = with("filteringCriteria", criteria);
        let found = shown(&sent);
        sent["_links"] = json!({"self": {"href": own}});
        assert_eq!(found, sent);
    }
}

#[test]
fn a_filter_that_lets_everything_through_is_none() {
    let plain = shown(&body());
    assert_eq!(plain.get("filteringCriteria"), None);
    assert_eq!(plain["callbackReference"], CALLBACK);
    for body in [
        with("filteringCriteria", json!(null)),
        with("filteringCriteria", json!({})),
        criteria("serInstanceIds", json!([])),
        criteria("serNames", json!([])),
        criteria("serCategories", json!([])),
        criteria("states", json!([])),
        criteria("isLocal", json!(null)),
        criteria("unknown", json!(1)),
        with("unknown", json!([1])),
        with("_links", json!(7)),
    ] {
        assert_eq!(shown(&body), plain, "{body}");
    }
}

#[test]
fn ids_that_can_be_ours_are_hyphenated() {
    let id = ServiceId::random();
    let bare = id.to_string().replace('-', "").to_uppercase();
    let body = criteria("serInstanceIds", json!([bare, "{x}"]));
    let (_, filter) = parse_json(&body).unwrap();
    assert_eq!(
        filter.selection,
        Selection::Ids(vec![id.to_string(), "{x}".to_owned()])
    );
}

#[test]
fn what_is_wrong_is_named() {
    let types = "\"SerAvailabilityNotificationSubscription\" was expected";
    for (name, value, says) in [
        (
            "subscriptionType",
            json!(null),
            format!("subscriptionType is missing; {types}"),
        ),
        (
            "subscriptionType",
            json!("SerAvailabilityNotification"),
            format!("subscriptionType is \"SerAvailabilityNotification\"; {types}"),
        ),
        (
            "subscriptionType",
            json!([TYPE]),
            format!("subscriptionType is an array; {types}"),
        ),
        (
            "callbackReference",
            json!(null),
            "callbackReference is missing; a string was expected".into(),
        ),
        (
            "callbackReference",
            json!({}),
            "callbackReference is an object; a string was expected".into(),
        ),
        (
            "callbackReference",
            json!(""),
            "callbackReference must not be empty".into(),
        ),
        (
            "callbackReference",
            json!("/callback"),
            "callbackReference is no absolute URI: relative URL without a base".into(),
        ),
        (
            "callbackReference",
            json!("ftp://a/"),
            "callbackReference has the scheme \"ftp\"; http or https was expected".into(),
        ),
        (
            "callbackReference",
            json!("http://u:p@a/"),
            "callbackReference must not carry credentials".into(),
        ),
        (
            "callbackReference",
            json!(format!("http://a/{}", "x".repeat(2048))),
            "callbackReference is longer than 2048 bytes".into(),
        ),
        (
            "filteringCriteria",
            json!([]),
            "filteringCriteria is an array; an object was expected".into(),
        ),
        (
            "filteringCriteria",
            json!("all"),
            "filteringCriteria is \"all\"; an object was expected".into(),
        ),
    ] {
        assert_eq!(parse_json(&with(name, value)), Err(says));
    }
    for (body, part) in [("", "empty"), ("[]", "an array"), ("{", "not valid JSON")] {
        let error = parse(body.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{body}: {error}");
    }
}

#[test]
fn what_is_wrong_in_the_criteria_is_named() {
    let states = "\"ACTIVE\" or \"INACTIVE\" or \"SUSPENDED\" was expected";
    for (name, value, says) in [
        (
            "serInstanceIds",
            json!("x"),
            " is \"x\"; an array was expected",
        ),
        (
            "serInstanceIds",
            json!({}),
            " is an object; an array was expected",
        ),
        (
            "serInstanceIds",
            json!(["x", 1]),
            "[1] is 1; a string was expected",
        ),
        (
            "serInstanceIds",
            json!([null]),
            "[0] is null; a string was expected",
        ),
        ("serInstanceIds", json!(["x", ""]), "[1] must not be empty"),
        ("serNames", json!(true), " is true; an array was expected"),
        (
            "serNames",
            json!([["x"]]),
            "[0] is an array; a string was expected",
        ),
        ("serNames", json!([""]), "[0] must not be empty"),
        (
            "serCategories",
            json!(category_of("c")),
            " is an object; an array was expected",
        ),
        (
            "serCategories",
            json!(["c"]),
            "[0] is \"c\"; an object was expected",
        ),
        (
            "serCategories",
            json!([{}]),
            "[0].href is missing; a string was expected",
        ),
        (
            "serCategories",
            json!([category_of("c"), {"href": "/c", "id": 1}]),
            "[1].id is 1; a string was expected",
        ),
        (
            "states",
            json!("ACTIVE"),
            " is \"ACTIVE\"; an array was expected",
        ),
        (
            "states",
            json!(["ACTIVE", "active"]),
            &format!("[1] is \"active\"; {states}"),
        ),
        ("states", json!([null]), &format!("[0] is null; {states}")),
        (
            "states",
            json!([{}]),
            &format!("[0] is an object; {states}"),
        ),
        (
            "isLocal",
            json!("true"),
            " is \"true\"; true or false was expected",
        ),
        ("isLocal", json!(1), " is 1; true or false was expected"),
        (
            "isLocal",
            json!([]),
            " is an array; true or false was expected",
        ),
    ] {
        let error = parse_json(&criteria(name, value)).unwrap_err();
        assert_eq!(error, format!("filteringCriteria.{name}{says}"));
    }
}

#[test]
fn one_kind_of_name_is_taken() {
    let all = [
        ("serInstanceIds", json!(["x"])),
        ("serNames", json!(["x"])),
        ("serCategories", json!([category_of("x")])),
    ];
    for (at, (first, one)) in all.iter().enumerate() {
        for (second, other) in &all[at + 1..] {
            let mut body = criteria(first, one.clone());
            body["filteringCriteria"][second] = other.clone();
            let says = format!(
                "filteringCriteria.{first} and filteringCriteria.{second} exclude each other"
            );
            assert_eq!(parse_json(&body), Err(says));
            body["filteringCriteria"][first] = json!([]);
            assert_eq!(
                parse_json(&body),
                parse_json(&criteria(second, other.clone()))
            );
        }
    }
}

#[test]
fn arrays_are_bounded() {
    for (name, element) in [
        ("serInstanceIds", json!("x")),
        ("serNames", json!("x")),
        ("serCategories", category_of("x")),
        ("states", json!("ACTIVE")),
    ] {
        let list = vec![element; CRITERIA_MAX + 1];
        assert!(parse_json(&criteria(name, json!(list[1..]))).is_ok());
        let says = format!("filteringCriteria.{name} has 1001 elements; at most 1000 are taken");
        assert_eq!(parse_json(&criteria(name, json!(list))), Err(says));
    }
}

#[test]
fn the_list_links_to_each() {
    let app = AppInstanceId::parse("a b").unwrap();
    let links = Links::new("https://mep.example", Dialect::Standard);
    let own = "https://mep.example/mec_service_mgmt/v1/applications/a%20b/subscriptions";
    let [first, second] = [1, 2].map(|byte| SubscriptionId::from_bytes([byte; 16]));
    let list = SubscriptionLinkList::new(&app, [second, first], &links);
    assert_eq!(
        serde_json::to_value(list).unwrap(),
        json!({"_links": {"self": {"href": own}, "subscriptions": [
            {"href": format!("{own}/{second}"), "subscriptionType": TYPE},
            {"href": format!("{own}/{first}"), "subscriptionType": TYPE}
        ]}})
    );
    let list = SubscriptionLinkList::new(&app, [], &links);
    assert_eq!(
        serde_json::to_value(list).unwrap(),
        json!({"_links": {"self": {"href": own}, "subscriptions": []}})
    );
}
