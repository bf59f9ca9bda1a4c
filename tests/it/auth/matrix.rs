//! Two applications × every route × own, other, operator, no and bad token.
//!
//! `cargo test --test it auth::matrix -- --nocapture` prints it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::start;
use crate::support::jwt::{Idp, bearer};
use crate::support::{Answer, Server, data_dir, send, service};

const ROOT: &str = "/mec_service_mgmt/v1";

/// What one application has.
struct Owned {
    app: &'static str,
    token: String,
    service: String,
    subscription: String,
}

fn call(server: &Server, token: Option<&str>, method: &str, path: &str, body: &Value) -> Answer {
    let authorization = token.map(bearer);
    let headers: Vec<_> = authorization
        .iter()
        .map(|value| ("authorization", value.as_str()))
        .collect();
    let body = match body {
        Value::Null => Vec::new(),
        body => body.to_string().into_bytes(),
    };
    send(method, &format!("{}{path}", server.url), &headers, &body)
}

fn set_up(server: &Server, idp: &Idp, app: &'static str) -> Owned {
    let token = idp.token(app);
    let own = format!("{ROOT}/applications/{app}");
    let body = service("cam", Some(3600));
    let made = call(
        server,
        Some(&token),
        "POST",
        &format!("{own}/services"),
        &body,
    );
    assert_eq!(made.status, 201, "{made:?}");
    let subscribed = call(
        server,
        Some(&token),
        "POST",
        &format!("{own}/subscriptions"),
        &subscription(),
    );
    assert_eq!(subscribed.status, 201, "{subscribed:?}");
    let link = subscribed.json()["_links"]["self"]["href"].clone();
    Owned {
        app,
        token,
        service: made.json()["serInstanceId"].as_str().unwrap().to_owned(),
        subscription: link
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned(),
    }
}

fn subscription() -> Value {
    json!({
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "callbackReference": "http://192.0.2.7:1/"
    })
}

fn registration(app: &str) -> Value {
    json!({"appName": "cam", "appInstanceId": app, "endpoint": {"uris": ["https://cam.invalid/"]}})
}

/// Every route below one application: method, path, its template in our document, a body, and what
/// the owner gets. What removes comes last.
fn routes(of: &Owned) -> Vec<(&'static str, String, &'static str, Value, u16)> {
    const OWN: &str = "/mec_service_mgmt/v1/applications/{appInstanceId}";
    let Owned {
        app,
        service: id,
        subscription: sub,
        ..
    } = of;
    let own = format!("{ROOT}/applications/{app}");
    let active = json!({"state": "ACTIVE"});
    let info = service("cam", Some(3600));
    let template =
        |rest: &'static str| -> &'static str { Box::leak(format!("{OWN}{rest}").into_boxed_str()) };
    let mut routes = vec![
        (
            "GET",
            format!("{own}/services"),
            template("/services"),
            Value::Null,
            200,
        ),
        (
            "POST",
            format!("{own}/services"),
            template("/services"),
            info.clone(),
            201,
        ),
        (
            "GET",
            format!("{own}/services/{id}"),
            template("/services/{serviceId}"),
            Value::Null,
            200,
        ),
        (
            "PUT",
            format!("{own}/services/{id}"),
            template("/services/{serviceId}"),
            info,
            200,
        ),
    ];
    for (path, template) in [
        (
            format!("{own}/services/{id}/liveness"),
            template("/services/{serviceId}/liveness"),
        ),
        (
            format!("{own}/service/{id}/liveness"),
            template("/service/{serviceId}/liveness"),
        ),
        (
            format!("/applications/{app}/service/{id}/liveness"),
            "/applications/{appInstanceId}/service/{serviceId}/liveness",
        ),
    ] {
        routes.push(("GET", path.clone(), template, Value::Null, 200));
        routes.push(("PATCH", path, template, active.clone(), 204));
    }
    let subs = template("/subscriptions");
    let one_sub = template("/subscriptions/{subscriptionId}");
    let registered = "/mec_app_support/v1/registrations/{appInstanceId}";
    let registration_path = format!("/mec_app_support/v1/registrations/{app}");
    routes.extend([
        (
            "PATCH",
            format!("{own}/liveness"),
            template("/liveness"),
            active,
            200,
        ),
        (
            "GET",
            format!("{own}/subscriptions"),
            subs,
            Value::Null,
            200,
        ),
        (
            "POST",
            format!("{own}/subscriptions"),
            subs,
            subscription(),
            201,
        ),
        (
            "GET",
            format!("{own}/subscriptions/{sub}"),
            one_sub,
            Value::Null,
            200,
        ),
        (
            "POST",
            "/mec_app_support/v1/registrations".to_owned(),
            "/mec_app_support/v1/registrations",
            registration(app),
            201,
        ),
        (
            "GET",
            registration_path.clone(),
            registered,
            Value::Null,
            200,
        ),
        (
            "PUT",
            registration_path.clone(),
            registered,
            registration(app),
            204,
        ),
        (
            "DELETE",
            format!("{own}/subscriptions/{sub}"),
            one_sub,
            Value::Null,
            204,
        ),
        (
            "DELETE",
            format!("{own}/services/{id}"),
            template("/services/{serviceId}"),
            Value::Null,
            204,
        ),
        ("DELETE", registration_path, registered, Value::Null, 204),
    ]);
    routes
}

#[test]
fn nobody_touches_what_is_anothers() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let server = start(&dir, &idp, &[]);
    let [a, b] = ["app-a", "app-b"].map(|app| set_up(&server, &idp, app));
    let operator = idp.operator();
    let stranger = Idp::new(keep.path(), "stranger").token(a.app);
    let mut covered = BTreeSet::new();
    println!("| route | none | bad | other | own |");
    println!("|---|---|---|---|---|");
    for (own, other) in [(&a, &b), (&b, &a)] {
        for (method, path, template, body, expected) in routes(own) {
            covered.insert((method, template));
            let state = || {
                call(
                    &server,
                    Some(&operator),
                    "GET",
                    &format!("{ROOT}/applications/{}/services", own.app),
                    &Value::Null,
                )
                .text()
            };
            let before = state();
            let with = |token: Option<&str>| call(&server, token, method, &path, &body);
            let nobody = with(None);
            nobody.problem(401);
            assert_eq!(
                nobody.header("www-authenticate"),
                Some("Bearer realm=\"mepulse\"")
            );
            let bad = with(Some(&stranger));
            bad.problem(401);
            assert!(
                bad.header("www-authenticate")
                    .unwrap()
                    .contains("invalid_token")
            );
            let others = with(Some(&other.token));
            others.problem(403);
            assert_eq!(state(), before, "{method} {path} has changed something");
            let mine = with(Some(&own.token));
            assert_eq!(mine.status, expected, "{method} {path}: {mine:?}");
            println!("| {method} {template} | 401 | 401 | 403 | {expected} |");
        }
    }
    // As another application an unknown one looks like a known one.
    let path = format!("{ROOT}/applications/unheard-of/services");
    call(&server, Some(&a.token), "GET", &path, &Value::Null).problem(403);
    call(&server, Some(&operator), "GET", &path, &Value::Null).problem(404);
    check_complete(&server, &covered);
}

/// A new route below an application must have a row.
fn check_complete(server: &Server, covered: &BTreeSet<(&str, &str)>) {
    let document = call(server, None, "GET", "/openapi.json", &Value::Null).json();
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.contains("applications/") && !path.contains("registrations") {
            continue;
        }
        for method in ["get", "post", "put", "patch", "delete"] {
            if item[method].is_object() {
                let row = (method.to_uppercase(), path.as_str());
                let found = covered
                    .iter()
                    .any(|(method, path)| *method == row.0 && *path == row.1);
                assert!(found, "{row:?} has no row");
            }
        }
    }
}

#[test]
fn edgegallerys_prefix_and_method_are_no_way_around() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let server = start(&dir, &idp, &["--set", "edgegallery.enabled=true"]);
    let [a, b] = ["app-a", "app-b"].map(|app| set_up(&server, &idp, app));
    let mut rows = routes(&a);
    let beats = rows.clone().into_iter().filter(|row| row.0 == "PATCH");
    let puts = beats.map(|row| ("PUT", row.1, row.2, row.3, row.4));
    rows.extend(puts.filter(|row| row.2.ends_with("{serviceId}/liveness")));
    for (method, path, _, body, _) in rows {
        for path in [format!("/mep{path}"), path] {
            call(&server, None, method, &path, &body).problem(401);
            call(&server, Some(&b.token), method, &path, &body).problem(403);
        }
    }
    for path in ["/mep/admin/services", "/admin/services", "/mep/mep/token"] {
        call(&server, None, "GET", path, &Value::Null).problem(404);
    }
}

#[test]
fn an_operator_acts_for_all() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let server = start(&dir, &idp, &[]);
    let operator = idp.operator();
    for app in ["app-a", "app-b"] {
        let owned = set_up(&server, &idp, app);
        for (method, path, _, body, expected) in routes(&owned) {
            let answer = call(&server, Some(&operator), method, &path, &body);
            assert_eq!(answer.status, expected, "{method} {path}: {answer:?}");
        }
    }
}

#[test]
fn what_belongs_to_nobody_needs_a_token_or_none() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let server = start(&dir, &idp, &[]);
    let owned = set_up(&server, &idp, "app-a");
    let other = idp.token("app-b");
    for path in [
        format!("{ROOT}/services"),
        format!("{ROOT}/services/events"),
        format!("{ROOT}/services/{}", owned.service),
        format!("{ROOT}/transports"),
    ] {
        call(&server, None, "GET", &path, &Value::Null).problem(401);
        let answer = call(&server, Some(&other), "GET", &path, &Value::Null);
        assert_eq!(answer.status, 200, "{path}");
    }
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/version",
        "/openapi.json",
    ] {
        assert_eq!(
            call(&server, None, "GET", path, &Value::Null).status,
            200,
            "{path}"
        );
    }
    call(&server, None, "GET", "/nowhere", &Value::Null).problem(404);
    // An application that does not say which one it is gets its own id.
    let anonymous = json!({"appName": "cam", "endpoint": {"uris": ["https://cam.invalid/"]}});
    let path = "/mec_app_support/v1/registrations";
    let made = call(&server, Some(&other), "POST", path, &anonymous);
    assert_eq!(made.status, 201, "{made:?}");
    assert!(
        made.header("location").unwrap().ends_with("/app-b"),
        "{made:?}"
    );
}

#[test]
fn a_header_neither_helps_nor_harms_beside_a_token() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let server = start(&dir, &idp, &[]);
    let owned = set_up(&server, &idp, "app-a");
    let url = format!("{}/services", server.app("app-a"));
    let get = |token: &str, app: &str| {
        let bearer = bearer(token);
        send(
            "GET",
            &url,
            &[("authorization", &bearer), ("x-appinstanceid", app)],
            b"",
        )
    };
    assert_eq!(get(&owned.token, "app-b").status, 200);
    get(&idp.token("app-b"), "app-a").problem(403);
}
