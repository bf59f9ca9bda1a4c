//! Every status of the standard's tables, provoked: GS MEC 011 V2.2.1, 8.2, and the application
//! registration of V3.1.1; and every status of our own document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::support::{Answer, Server, data_dir, get, id_of, post, send, service};

const SERVICES: &str = "/mec_service_mgmt/v1/services";
const SERVICE: &str = "/mec_service_mgmt/v1/services/{serviceId}";
const EVENTS: &str = "/mec_service_mgmt/v1/services/events";
const TRANSPORTS: &str = "/mec_service_mgmt/v1/transports";
const OWN: &str = "/mec_service_mgmt/v1/applications/{appInstanceId}/services";
const ITEM: &str = "/mec_service_mgmt/v1/applications/{appInstanceId}/services/{serviceId}";
const LIVENESS: &str =
    "/mec_service_mgmt/v1/applications/{appInstanceId}/services/{serviceId}/liveness";
const SINGULAR: &str =
    "/mec_service_mgmt/v1/applications/{appInstanceId}/service/{serviceId}/liveness";
const ROOTLESS: &str = "/applications/{appInstanceId}/service/{serviceId}/liveness";
const BATCH: &str = "/mec_service_mgmt/v1/applications/{appInstanceId}/liveness";
const SUBSCRIPTIONS: &str = "/mec_service_mgmt/v1/applications/{appInstanceId}/subscriptions";
const SUBSCRIPTION: &str =
    "/mec_service_mgmt/v1/applications/{appInstanceId}/subscriptions/{subscriptionId}";
const REGISTRATIONS: &str = "/mec_app_support/v1/registrations";
const REGISTRATION: &str = "/mec_app_support/v1/registrations/{appInstanceId}";
const FOR_THE_OPERATOR: [&str; 5] = [
    "/healthz",
    "/readyz",
    "/metrics",
    "/version",
    "/openapi.json",
];

/// The standard's tables. All its URIs of a liveness resource are the platform's to choose.
const STANDARD: [(&str, &str, &[u16]); 19] = [
    ("GET", SERVICES, &[200, 400, 403, 404, 414]),
    ("GET", SERVICE, &[200, 400, 403, 404]),
    ("GET", OWN, &[200, 400, 403, 404, 414]),
    ("POST", OWN, &[201, 400, 403, 404]),
    ("GET", ITEM, &[200, 400, 403, 404]),
    ("PUT", ITEM, &[200, 400, 403, 404, 412]),
    ("DELETE", ITEM, &[204, 403, 404]),
    ("GET", LIVENESS, &[200, 400, 403, 404]),
    ("PATCH", LIVENESS, &[200, 204, 400, 403, 404, 409, 412]),
    ("PUT", LIVENESS, &[405]),
    ("GET", SUBSCRIPTIONS, &[200, 400, 403, 404]),
    ("POST", SUBSCRIPTIONS, &[201, 400, 403, 404]),
    ("GET", SUBSCRIPTION, &[200, 400, 403, 404]),
    ("DELETE", SUBSCRIPTION, &[204, 403, 404]),
    ("GET", TRANSPORTS, &[200, 400, 403, 404]),
    ("POST", REGISTRATIONS, &[201, 400, 401, 403, 404]),
    ("GET", REGISTRATION, &[200, 400, 403, 404]),
    ("PUT", REGISTRATION, &[204, 400, 401, 403, 404]),
    ("DELETE", REGISTRATION, &[204, 400, 401, 403, 404]),
];

/// What the standard lists and nothing here can be answered with.
const NEVER: [(&str, &str, u16, &str); 9] = [
    ("GET", SERVICES, 403, "whoever asks may see all services"),
    ("GET", SERVICES, 404, "the list is always there"),
    ("GET", SERVICE, 403, "whoever asks may see all services"),
    ("GET", TRANSPORTS, 403, "whoever asks may see them"),
    ("GET", TRANSPORTS, 404, "the list is always there"),
    ("POST", REGISTRATIONS, 401, "there is no authentication yet"),
    ("POST", REGISTRATIONS, 404, "the list is always there"),
    ("PUT", REGISTRATION, 401, "there is no authentication yet"),
    (
        "DELETE",
        REGISTRATION,
        401,
        "there is no authentication yet",
    ),
];

/// What our document lists of every operation and other tests provoke.
const ELSEWHERE: [(u16, &str, &str); 2] = [
    (
        408,
        "bad_input::a_slow_body_is_408",
        "one reader reads all bodies",
    ),
    (
        503,
        "overload::a_full_queue_refuses_every_write_and_serves_every_read, \
         bad_input::a_connection_too_many_is_told_503_until_one_goes",
        "it takes a full queue or a connection too many, not a request",
    ),
];

/// So many services, and subscriptions, an application may have here.
const ROOM: usize = 3;
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";

const CAM: &str = r#"{"serName":"cam","version":"1.0","state":"ACTIVE","serializer":"JSON",
    "livenessInterval":30,"transportInfo":{"id":"t","name":"REST","type":"REST_HTTP",
    "protocol":"HTTP","version":"2.0","endpoint":{"uris":["http://10.0.0.1/"]},"security":{}}}"#;
const NO_TRANSPORT: &str = r#"{"serName":"cam","version":"1.0","state":"ACTIVE",
    "serializer":"JSON"}"#;
const UNKNOWN_TRANSPORT: &str = r#"{"serName":"cam","version":"1.0","state":"ACTIVE",
    "serializer":"JSON","transportId":"no-such-transport"}"#;
const ALIVE: &str = r#"{"state":"ACTIVE"}"#;
const APP: &str = r#"{"appName":"viewer","appInstanceId":"{appInstanceId}",
    "endpoint":{"uris":["https://viewer.invalid/"]}}"#;
const OTHER_APP: &str = r#"{"appName":"other viewer","appInstanceId":"{appInstanceId}",
    "endpoint":{"uris":["https://viewer.invalid/"]}}"#;

/// A subscription with one member replaced, or added.
fn subscription(member: &str, value: Value) -> String {
    let mut body = json!({
        "subscriptionType": "SerAvailabilityNotificationSubscription",
        "callbackReference": "https://viewer.invalid/notify",
    });
    body[member] = value;
    body.to_string()
}

/// The same with one filtering criterion.
fn filtered(criteria: Value) -> String {
    subscription("filteringCriteria", criteria)
}

fn callback(uri: &str) -> String {
    subscription("callbackReference", json!(uri))
}

/// What there is before the request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Given {
    /// All that the path names.
    All,
    /// Nothing of it, not even the application.
    Nothing,
    /// The application only.
    App,
    /// It is another application's.
    Others,
    /// The service agreed on no heartbeats.
    Silent,
    /// The service is INACTIVE.
    Inactive,
    /// The application has all that it may have.
    Full,
    /// No application is accepted unasked.
    Closed,
    /// The application is registered.
    Registered,
}

/// What is looked at besides the status; of a refusal, the problem document in any case.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Extra {
    Nothing,
    /// It has these headers.
    Headers(&'static [&'static str]),
    /// It has none of these headers.
    Without(&'static [&'static str]),
    /// `Location` leads to what can be read.
    Leads,
    /// Afterwards it is not there any more.
    Gone,
}

/// One line of the table.
#[derive(Debug, Clone)]
struct Row {
    method: &'static str,
    path: String,
    given: Given,
    query: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    status: u16,
    extra: Extra,
}

fn ask(method: &'static str, path: &str) -> Row {
    Row {
        method,
        path: path.to_owned(),
        given: Given::All,
        query: String::new(),
        headers: Vec::new(),
        body: String::new(),
        status: 0,
        extra: Extra::Nothing,
    }
}

impl Row {
    fn given(self, given: Given) -> Self {
        Self { given, ..self }
    }

    fn query(self, query: &str) -> Self {
        let query = format!("?{query}");
        Self { query, ..self }
    }

    /// `{etag}` stands for the current one.
    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(self, body: impl Into<String>) -> Self {
        let body = body.into();
        Self { body, ..self }
    }

    fn gets(self, status: u16) -> Self {
        Self { status, ..self }
    }

    fn extra(self, extra: Extra) -> Self {
        Self { extra, ..self }
    }

    fn key(&self) -> (&str, &str, u16) {
        (self.path.as_str(), self.method, self.status)
    }
}

const CONTRADICTION: (&str, &str) = ("X-AppInstanceID", "another-one");

/// The table: what is asked, of what, and what it gets.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(lists());
    rows.extend(services());
    for path in [LIVENESS, SINGULAR, ROOTLESS] {
        rows.extend(liveness(path));
    }
    rows.extend(batch());
    rows.extend(transports_and_events());
    rows.extend(subscriptions());
    rows.extend(registrations());
    for path in FOR_THE_OPERATOR {
        rows.push(ask("GET", path).gets(200));
        rows.push(ask("GET", path).query("x=1").gets(400));
    }
    rows
}

/// Whoever sends this names another application than the path, or asks for what is not there.
fn refused_alike(method: &'static str, path: &str, body: &str) -> Vec<Row> {
    let (name, value) = CONTRADICTION;
    vec![
        ask(method, path).body(body).header(name, value).gets(403),
        ask(method, path).body(body).query("x=1").gets(400),
        ask(method, path).body(body).query("=").gets(400),
    ]
}

fn lists() -> Vec<Row> {
    let mut rows = Vec::new();
    for list in [SERVICES, OWN] {
        rows.push(ask("GET", list).gets(200));
        for query in [
            "ser_instance_id=00000000-0000-4000-8000-000000000000",
            "ser_instance_id=no-uuid&ser_instance_id=x",
            "ser_name=cam",
            "ser_name=cam&ser_name=lamp&is_local=true",
            "ser_name=a%2Cb+c",
            "ser_category_id=video",
            "scope_of_locality=NFVI_NODE&consumed_local_only=true&is_local=false",
        ] {
            rows.push(ask("GET", list).query(query).gets(200));
        }
        for query in [
            "x=1",
            "ser_name=cam&x=1",
            "SER_NAME=cam",
            "ser_instance_id=x&ser_name=cam",
            "ser_name=cam&ser_category_id=video",
            "ser_instance_id=x&ser_category_id=video",
            "ser_category_id=video&ser_category_id=audio",
            "scope_of_locality=zone",
            "scope_of_locality=ZONE&scope_of_locality=ZONE",
            "consumed_local_only=1",
            "consumed_local_only=true&consumed_local_only=true",
            "is_local=TRUE",
            "is_local=true&is_local=true",
            "ser_instance_id=",
            "ser_name=",
            "ser_name",
            "ser_name=cam&ser_name=",
            "ser_category_id=",
            "scope_of_locality=",
            "consumed_local_only=",
            "is_local=",
            "ser_name=%ff",
        ] {
            rows.push(ask("GET", list).query(query).gets(400));
        }
    }
    let (name, value) = CONTRADICTION;
    rows.extend([
        ask("GET", OWN).header(name, value).gets(403),
        ask("GET", OWN).given(Given::Nothing).gets(404),
    ]);
    rows
}

fn services() -> Vec<Row> {
    let stale = ("If-Match", "\"none\"");
    let mut rows = vec![
        ask("GET", SERVICE)
            .gets(200)
            .extra(Extra::Headers(&["ETag"])),
        ask("GET", SERVICE).header(stale.0, stale.1).gets(200),
        ask("GET", SERVICE).query("x=1").gets(400),
        ask("GET", SERVICE).given(Given::App).gets(404),
        ask("POST", OWN)
            .body(CAM)
            .gets(201)
            .extra(Extra::Headers(&["Location", "ETag"])),
        ask("POST", OWN).body(CAM).gets(201).extra(Extra::Leads),
        ask("POST", OWN)
            .body(CAM)
            .header(stale.0, stale.1)
            .gets(201),
        ask("POST", OWN).gets(400),
        ask("POST", OWN).body("[]").gets(400),
        ask("POST", OWN).body(NO_TRANSPORT).gets(400),
        ask("POST", OWN).body(UNKNOWN_TRANSPORT).gets(400),
        ask("POST", OWN)
            .body(cam("transportId", json!("t")))
            .gets(400),
        ask("POST", OWN)
            .body(CAM.replace("ACTIVE", "SUSPENDED"))
            .gets(400),
        ask("POST", OWN)
            .body(CAM.replace("cam", &"n".repeat(256)))
            .gets(400),
        ask("POST", OWN)
            .body(CAM.replace("cam", &"é".repeat(128)))
            .gets(400),
        ask("POST", OWN)
            .body(CAM.replace("cam", &"n".repeat(255)))
            .gets(201),
        ask("POST", OWN)
            .body(of_category(&"c".repeat(256)))
            .gets(400),
        ask("POST", OWN)
            .body(of_category(&"c".repeat(255)))
            .gets(201),
        ask("POST", OWN).body(CAM).given(Given::Closed).gets(404),
        ask("POST", OWN)
            .body(CAM)
            .given(Given::Full)
            .gets(429)
            .extra(Extra::Headers(&["Retry-After"])),
        ask("GET", ITEM).gets(200).extra(Extra::Headers(&["ETag"])),
        ask("GET", ITEM).header(stale.0, stale.1).gets(200),
        ask("PUT", ITEM)
            .body(CAM)
            .gets(200)
            .extra(Extra::Headers(&["ETag"])),
        ask("PUT", ITEM)
            .body(CAM)
            .header("If-Match", "{etag}")
            .gets(200),
        ask("PUT", ITEM)
            .body(CAM)
            .header("If-Match", "\"none\", {etag}")
            .gets(200),
        ask("PUT", ITEM).body(CAM).header("If-Match", "*").gets(200),
        ask("PUT", ITEM)
            .body(CAM)
            .header(stale.0, stale.1)
            .gets(412),
        ask("PUT", ITEM)
            .body(CAM)
            .header("If-Match", "W/{etag}")
            .gets(412),
        ask("PUT", ITEM)
            .body(CAM)
            .header("If-Match", "none")
            .gets(400),
        ask("PUT", ITEM)
            .body(CAM)
            .header("If-Match", "\"none")
            .gets(400),
        ask("PUT", ITEM)
            .body(ALIVE)
            .header(stale.0, stale.1)
            .gets(400),
        ask("PUT", ITEM).body(ALIVE).gets(400),
        ask("PUT", ITEM)
            .body(CAM.replace("ACTIVE", "SUSPENDED"))
            .gets(400),
        ask("DELETE", ITEM).gets(204).extra(Extra::Gone),
        ask("DELETE", ITEM).header(stale.0, stale.1).gets(204),
    ];
    rows.extend(refused_alike("POST", OWN, CAM));
    for (method, body) in [("GET", ""), ("PUT", CAM), ("DELETE", "")] {
        rows.extend(refused_alike(method, ITEM, body));
        for given in [Given::Nothing, Given::App, Given::Others] {
            rows.push(ask(method, ITEM).body(body).given(given).gets(404));
        }
    }
    rows.extend(not_allowed(SERVICES, &["POST", "PUT", "PATCH", "DELETE"]));
    rows.extend(not_allowed(SERVICE, &["POST", "PUT", "PATCH", "DELETE"]));
    rows.extend(not_allowed(OWN, &["PUT", "PATCH", "DELETE"]));
    rows.extend(not_allowed(ITEM, &["POST", "PATCH"]));
    rows
}

/// The service with one member replaced, or added.
fn cam(member: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(CAM).unwrap();
    body[member] = value;
    body.to_string()
}

/// The service in a category of this id.
fn of_category(id: &str) -> String {
    let category = json!({"href": "/c", "id": id, "name": "C", "version": "1"});
    cam("serCategory", category)
}

fn not_allowed(path: &str, methods: &[&'static str]) -> Vec<Row> {
    let row = |method: &&'static str| {
        ask(method, path)
            .gets(405)
            .extra(Extra::Headers(&["Allow"]))
    };
    methods.iter().map(row).collect()
}

fn liveness(path: &str) -> Vec<Row> {
    let stale = ("If-Match", "\"none\"");
    let told = ("Prefer", "return=representation");
    let beat = || ask("PATCH", path).body(ALIVE);
    let mut rows = vec![
        ask("GET", path).gets(200).extra(Extra::Headers(&["ETag"])),
        ask("GET", path).header(stale.0, stale.1).gets(200),
        beat()
            .gets(204)
            .extra(Extra::Without(&["Content-Type", "ETag"])),
        beat()
            .header(told.0, told.1)
            .gets(200)
            .extra(Extra::Headers(&["ETag", "Preference-Applied"])),
        beat().header("If-Match", "{etag}").gets(204),
        beat().header("If-Match", "*").gets(204),
        beat().header(stale.0, stale.1).gets(412),
        beat().header("If-Match", "none").gets(400),
        beat().given(Given::Inactive).gets(409),
        beat()
            .given(Given::Inactive)
            .header(stale.0, stale.1)
            .gets(412),
        ask("PATCH", path)
            .body("{}")
            .given(Given::Inactive)
            .gets(400),
        ask("PATCH", path).body("{}").given(Given::App).gets(404),
        ask("PATCH", path)
            .body("{}")
            .header(stale.0, stale.1)
            .gets(400),
        ask("PATCH", path).gets(400),
    ];
    for body in [
        "{",
        "[]",
        "null",
        "{}",
        r#"{"state":null}"#,
        r#"{"state":"INACTIVE"}"#,
        r#"{"state":"SUSPENDED"}"#,
        r#"{"state":"active"}"#,
    ] {
        rows.push(ask("PATCH", path).body(body).gets(400));
    }
    for (method, body) in [("GET", ""), ("PATCH", ALIVE)] {
        rows.extend(refused_alike(method, path, body));
        for given in [Given::Nothing, Given::App, Given::Others, Given::Silent] {
            rows.push(ask(method, path).body(body).given(given).gets(404));
        }
    }
    rows.extend(not_allowed(path, &["PUT", "POST", "DELETE"]));
    rows
}

fn batch() -> Vec<Row> {
    let mut rows = vec![
        ask("PATCH", BATCH).body(ALIVE).gets(200),
        ask("PATCH", BATCH).body("{}").gets(400),
        ask("PATCH", BATCH)
            .body(ALIVE)
            .given(Given::Nothing)
            .gets(404),
    ];
    rows.extend(refused_alike("PATCH", BATCH, ALIVE));
    rows.extend(not_allowed(BATCH, &["GET", "PUT", "POST", "DELETE"]));
    rows
}

fn transports_and_events() -> Vec<Row> {
    let mut rows = vec![
        ask("GET", TRANSPORTS).gets(200),
        ask("GET", TRANSPORTS).query("x=1").gets(400),
        ask("GET", TRANSPORTS).query("ser_name=cam").gets(400),
        ask("GET", EVENTS).gets(200),
        ask("GET", EVENTS)
            .query("ser_name=cam&ser_name=lamp&is_local=true")
            .gets(200),
        ask("GET", EVENTS).query("ser_category_id=video").gets(200),
        ask("GET", EVENTS).header("Last-Event-ID", "0").gets(200),
        ask("GET", EVENTS).header("Last-Event-ID", "-1").gets(400),
        ask("GET", EVENTS).header("Last-Event-ID", "x").gets(400),
    ];
    for query in [
        "x=1",
        "ser_name=cam&ser_category_id=video",
        "ser_name=",
        "is_local=1",
        "is_local=true&is_local=true",
        "scope_of_locality=ZONE",
        "consumed_local_only=true",
    ] {
        rows.push(ask("GET", EVENTS).query(query).gets(400));
    }
    rows.extend(not_allowed(TRANSPORTS, &["POST", "PUT", "PATCH", "DELETE"]));
    rows.extend(not_allowed(EVENTS, &["POST", "PUT", "PATCH", "DELETE"]));
    rows
}

fn subscriptions() -> Vec<Row> {
    let plain = subscription("_links", Value::Null);
    let mut rows = vec![
        ask("GET", SUBSCRIPTIONS).gets(200),
        ask("GET", SUBSCRIPTIONS).given(Given::Nothing).gets(404),
        ask("POST", SUBSCRIPTIONS)
            .body(plain.clone())
            .gets(201)
            .extra(Extra::Leads),
        ask("POST", SUBSCRIPTIONS)
            .body(plain.clone())
            .given(Given::Closed)
            .gets(404),
        ask("POST", SUBSCRIPTIONS)
            .body(plain.clone())
            .given(Given::Full)
            .gets(429)
            .extra(Extra::Headers(&["Retry-After"])),
        ask("POST", SUBSCRIPTIONS)
            .body(callback("http://192.0.2.1:8080/?to=me"))
            .gets(201),
        ask("POST", SUBSCRIPTIONS).gets(400),
        ask("POST", SUBSCRIPTIONS).body("[]").gets(400),
        ask("POST", SUBSCRIPTIONS).body("{}").gets(400),
        ask("GET", SUBSCRIPTION).gets(200),
        ask("DELETE", SUBSCRIPTION).gets(204).extra(Extra::Gone),
    ];
    for criteria in [
        json!({}),
        json!({"serNames": ["cam"], "states": ["ACTIVE", "SUSPENDED"], "isLocal": true}),
        json!({"serInstanceIds": [NOBODY]}),
        json!({"serCategories": [{"href": "/c", "id": "c", "name": "C", "version": "1"}]}),
    ] {
        rows.push(
            ask("POST", SUBSCRIPTIONS)
                .body(filtered(criteria))
                .gets(201),
        );
    }
    for criteria in [
        json!([]),
        json!({"serNames": ["cam"], "serInstanceIds": [NOBODY]}),
        json!({"serNames": "cam"}),
        json!({"serCategories": ["c"]}),
        json!({"states": ["GONE"]}),
        json!({"isLocal": "true"}),
    ] {
        rows.push(
            ask("POST", SUBSCRIPTIONS)
                .body(filtered(criteria))
                .gets(400),
        );
    }
    for kind in [Value::Null, json!("AppTerminationNotificationSubscription")] {
        let body = subscription("subscriptionType", kind);
        rows.push(ask("POST", SUBSCRIPTIONS).body(body).gets(400));
    }
    for uri in [
        "",
        "/notify",
        "viewer.invalid/notify",
        "ftp://viewer.invalid/",
        "http://",
        "http:viewer.invalid",
        "http:\\\\viewer.invalid\\",
        " http://viewer.invalid/",
        "http://user:secret@viewer.invalid/",
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://169.254.169.254/latest/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
    ] {
        rows.push(ask("POST", SUBSCRIPTIONS).body(callback(uri)).gets(400));
    }
    let long = |bytes| format!("{:a<bytes$}", "https://viewer.invalid/");
    rows.push(
        ask("POST", SUBSCRIPTIONS)
            .body(callback(&long(2048)))
            .gets(201),
    );
    rows.push(
        ask("POST", SUBSCRIPTIONS)
            .body(callback(&long(2049)))
            .gets(400),
    );
    rows.extend(refused_alike("GET", SUBSCRIPTIONS, ""));
    rows.extend(refused_alike("POST", SUBSCRIPTIONS, &plain));
    for method in ["GET", "DELETE"] {
        rows.extend(refused_alike(method, SUBSCRIPTION, ""));
        for given in [Given::Nothing, Given::App, Given::Others] {
            rows.push(ask(method, SUBSCRIPTION).given(given).gets(404));
        }
    }
    rows.extend(not_allowed(SUBSCRIPTIONS, &["PUT", "PATCH", "DELETE"]));
    rows.extend(not_allowed(SUBSCRIPTION, &["POST", "PUT", "PATCH"]));
    rows
}

fn registrations() -> Vec<Row> {
    let (name, value) = CONTRADICTION;
    let endpoint = r#""endpoint":{"uris":["https://viewer.invalid/"]}"#;
    let mut rows = vec![
        ask("POST", REGISTRATIONS).body(APP).gets(201).extra(Extra::Leads),
        ask("POST", REGISTRATIONS).body(format!(r#"{{"appName":"a",{endpoint}}}"#)).gets(201).extra(Extra::Leads),
        ask("POST", REGISTRATIONS).body(r#"{"appName":"a","appDId":"d","appInstanceId":"{appInstanceId}","isInsByMec":true}"#).gets(201),
        ask("POST", REGISTRATIONS).body(APP).given(Given::Registered).gets(201),
        ask("POST", REGISTRATIONS).body(OTHER_APP).given(Given::Registered).gets(409),
        ask("POST", REGISTRATIONS).body(APP).header(name, value).gets(403),
        ask("POST", REGISTRATIONS).body(APP).query("x=1").gets(400),
        ask("GET", REGISTRATION).gets(200),
        ask("GET", REGISTRATION).given(Given::Nothing).gets(404),
        ask("PUT", REGISTRATION).body(OTHER_APP).gets(204),
        ask("PUT", REGISTRATION).body(OTHER_APP).given(Given::Nothing).gets(404),
        ask("DELETE", REGISTRATION).gets(204).extra(Extra::Gone),
        ask("DELETE", REGISTRATION).given(Given::Nothing).gets(404),
    ];
    for (method, path) in [("POST", REGISTRATIONS), ("PUT", REGISTRATION)] {
        for body in [
            String::new(),
            "[]".to_owned(),
            "{}".to_owned(),
            format!("{{{endpoint}}}"),
            r#"{"appName":"a"}"#.to_owned(),
            r#"{"appName":"a","isInsByMec":true}"#.to_owned(),
            r#"{"appName":"a","appDId":"d","isInsByMec":true}"#.to_owned(),
            format!(r#"{{"appName":"a","appInstanceId":"a/b",{endpoint}}}"#),
            r#"{"appName":"a","endpoint":{}}"#.to_owned(),
            format!(
                r#"{{"appName":"a","appDId":"d","appServiceRequired":[{{"serName":"s","version":"1"}}],{endpoint}}}"#
            ),
            format!(r#"{{"appName":"a","appFeatureOptional":[{{"featureName":"f"}}],{endpoint}}}"#),
        ] {
            rows.push(ask(method, path).body(body).gets(400));
        }
    }
    for (method, body) in [("GET", ""), ("PUT", APP), ("DELETE", "")] {
        rows.extend(refused_alike(method, REGISTRATION, body));
    }
    rows.extend(not_allowed(
        REGISTRATIONS,
        &["GET", "PUT", "PATCH", "DELETE"],
    ));
    rows.extend(not_allowed(REGISTRATION, &["POST", "PATCH"]));
    rows
}

/// What our document says of every operation alike, and HEAD wherever there is GET.
fn complete(mut rows: Vec<Row>, documented: &BTreeSet<(String, &'static str, u16)>) -> Vec<Row> {
    let long = "x".repeat(9000);
    for (path, method, status) in documented {
        match status {
            413 => rows.push(ask(method, path).body(" ".repeat(70_000)).gets(413)),
            414 if *method != "HEAD" => rows.push(ask(method, path).query(&long).gets(414)),
            _ => {}
        }
    }
    let heads: Vec<_> = rows
        .iter()
        .filter(|row| row.method == "GET" && row.status != 405)
        .map(|row| Row {
            method: "HEAD",
            ..row.clone()
        })
        .collect();
    rows.extend(heads);
    rows
}

/// Every path, method and status of the document.
fn documented(document: &Value) -> BTreeSet<(String, &'static str, u16)> {
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            let responses = item[method.to_lowercase()]["responses"].as_object();
            for status in responses.into_iter().flat_map(|responses| responses.keys()) {
                found.insert((path.clone(), method, status.parse().unwrap()));
            }
        }
    }
    found
}

/// Two servers: one that accepts applications with their first service, one that does not.
struct World {
    open: Server,
    closed: Server,
    _dirs: [tempfile::TempDir; 2],
}

/// What the path's parameters stand for.
struct Names {
    app: String,
    service: String,
    subscription: String,
}

impl Names {
    fn fill(&self, text: &str) -> String {
        text.replace("{appInstanceId}", &self.app)
            .replace("{serviceId}", &self.service)
            .replace("{subscriptionId}", &self.subscription)
    }
}

impl World {
    fn start() -> Self {
        let [(open_dir, open), (closed_dir, closed)] = [data_dir(), data_dir()];
        let room = ["services", "subscriptions"].map(|of| format!("apps.{of}_max_per_app={ROOM}"));
        let room = ["--set", room[0].as_str(), "--set", room[1].as_str()];
        Self {
            open: Server::start(&open, &room),
            closed: Server::start(&closed, &["--set", "apps.auto_accept=false"]),
            _dirs: [open_dir, closed_dir],
        }
    }

    fn server(&self, row: &Row) -> &Server {
        match row.given {
            Given::Closed => &self.closed,
            _ => &self.open,
        }
    }

    fn document(&self) -> Value {
        get(&format!("{}/openapi.json", self.open.url)).json()
    }

    /// Makes what the row takes for given, for an application of its own.
    fn prepare(&self, row: &Row, index: usize) -> Result<Names, String> {
        let server = self.server(row);
        let mut names = Names {
            app: format!("app-{index}"),
            service: NOBODY.to_owned(),
            subscription: NOBODY.to_owned(),
        };
        if matches!(row.given, Given::Nothing | Given::Closed) {
            return Ok(names);
        }
        if row.given == Given::Registered || row.path == REGISTRATION {
            let info = serde_json::from_str(&names.fill(APP)).unwrap();
            made(&post(&format!("{}{REGISTRATIONS}", server.url), &info))?;
        }
        let of_apps = row.path.contains("/applications/") || row.path == SERVICE;
        if !of_apps {
            return Ok(names);
        }
        // The application is known by a service of its own in any case.
        server.register(&names.app, &service("known", None));
        let owner = match row.given {
            Given::Others => format!("{}-other", names.app),
            _ => names.app.clone(),
        };
        let mut info = service("cam", (row.given != Given::Silent).then_some(30));
        if row.given == Given::Inactive {
            info["state"] = json!("INACTIVE");
        }
        if row.given != Given::App && row.path.contains("{serviceId}") {
            id_of(&server.register(&owner, &info)).clone_into(&mut names.service);
        }
        let subscribe = || {
            let body = serde_json::from_str(&callback("https://viewer.invalid/")).unwrap();
            made(&post(
                &format!("{}/subscriptions", server.app(&owner)),
                &body,
            ))
        };
        if row.given != Given::App && row.path == SUBSCRIPTION {
            if row.given == Given::Others {
                server.register(&owner, &service("known", None));
            }
            let location = subscribe()?;
            let id = location.rsplit('/').next().unwrap();
            id.clone_into(&mut names.subscription);
        }
        if row.given == Given::Full {
            for _ in 1..ROOM {
                server.register(&names.app, &info);
            }
            for _ in (0..ROOM).filter(|_| row.path == SUBSCRIPTIONS) {
                subscribe()?;
            }
        }
        Ok(names)
    }

    /// Asks, and says what is wrong with the answer.
    fn provoke(&self, row: &Row, index: usize) -> Result<(), String> {
        let server = self.server(row);
        let names = self.prepare(row, index)?;
        let resource = format!("{}{}", server.url, names.fill(&row.path));
        let mut headers = Vec::new();
        for (name, value) in &row.headers {
            let value = match value.contains("{etag}") {
                true => value.replace("{etag}", &etag(&get(&resource))?),
                false => (*value).to_owned(),
            };
            headers.push((*name, value));
        }
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let url = format!("{resource}{}", row.query);
        let answer = send(row.method, &url, &headers, names.fill(&row.body).as_bytes());
        check_status(row, &answer)?;
        let is_there = |name: &&&str| answer.header(name).is_some();
        match row.extra {
            Extra::Nothing => {}
            Extra::Headers(all) => {
                if let Some(name) = all.iter().find(|name| !is_there(name)) {
                    return Err(format!("no {name}: {answer:?}"));
                }
                if all.contains(&"ETag") {
                    etag(&answer)?;
                }
            }
            Extra::Without(all) => {
                if let Some(name) = all.iter().find(is_there) {
                    return Err(format!("with {name}: {answer:?}"));
                }
            }
            Extra::Leads => {
                let target = get(&format!("{}{}", server.url, made(&answer)?));
                if target.status != 200 || target.json() != answer.json() {
                    return Err(format!("{answer:?} leads to {target:?}"));
                }
            }
            Extra::Gone => {
                let target = get(&resource);
                if target.status != 404 {
                    return Err(format!("still there: {target:?}"));
                }
            }
        }
        Ok(())
    }
}

/// The `Location` of what was made.
fn made(answer: &Answer) -> Result<String, String> {
    match answer.header("location") {
        Some(location) if answer.status == 201 => Ok(location.to_owned()),
        _ => Err(format!("not made: {answer:?}")),
    }
}

/// The strong entity tag of an answer.
fn etag(answer: &Answer) -> Result<String, String> {
    match answer.header("etag") {
        Some(tag) if tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"') => {
            Ok(tag.to_owned())
        }
        _ => Err(format!("no strong ETag: {answer:?}")),
    }
}

/// The status, and what always goes with it.
fn check_status(row: &Row, answer: &Answer) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what}: {answer:?}"));
    if answer.status != row.status {
        return wrong("another status");
    }
    if row.method == "HEAD" || row.status == 204 {
        return match answer.body.is_empty() {
            true => Ok(()),
            false => wrong("a body"),
        };
    }
    if row.status < 400 {
        return Ok(());
    }
    let kind = answer.header("content-type");
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let says_why = problem["detail"]
        .as_str()
        .is_some_and(|why| !why.is_empty());
    match kind == Some("application/problem+json") && problem["status"] == row.status && says_why {
        true => Ok(()),
        false => wrong("no problem document"),
    }
}

/// Each route with the statuses that were provoked, and how many times.
fn summary(rows: &[Row]) -> String {
    let mut routes = BTreeMap::<_, BTreeMap<u16, usize>>::new();
    for row in rows {
        let statuses = routes.entry((&row.path, row.method)).or_default();
        *statuses.entry(row.status).or_default() += 1;
    }
    let mut lines = String::new();
    for ((path, method), statuses) in routes {
        let statuses: Vec<_> = statuses
            .iter()
            .map(|(status, times)| format!("{status} ({times})"))
            .collect();
        lines += &format!("{method:6} {path}: {}\n", statuses.join(", "));
    }
    lines
}

#[test]
fn every_row_gets_its_status() {
    let world = World::start();
    let rows = complete(rows(), &documented(&world.document()));
    let failures: Vec<_> = rows
        .iter()
        .enumerate()
        .filter_map(|(index, row)| {
            let why = world.provoke(row, index).err()?;
            Some(format!("{row:?}\n    {why}\n"))
        })
        .collect();
    println!("{}{} requests", summary(&rows), rows.len());
    let failed = failures.len();
    assert!(failures.is_empty(), "{failed} rows:\n{}", failures.concat());
}

#[test]
fn the_rows_are_all_that_is_documented_and_all_of_the_standard() {
    let world = World::start();
    let documented = documented(&world.document());
    let rows = complete(rows(), &documented);
    let provoked: BTreeSet<_> = rows.iter().map(Row::key).collect();
    for (path, method, status) in &documented {
        let here = provoked.contains(&(path.as_str(), *method, *status));
        let elsewhere = ELSEWHERE.iter().find(|(known, ..)| known == status);
        assert_ne!(
            here,
            elsewhere.is_some(),
            "{method} {path} {status}: {elsewhere:?}"
        );
    }
    for (path, method, status) in provoked.iter().filter(|(.., status)| *status != 405) {
        let key = ((*path).to_owned(), *method, *status);
        assert!(
            documented.contains(&key),
            "undocumented: {method} {path} {status}"
        );
    }
    for (method, path, statuses) in STANDARD {
        for status in statuses {
            let here = provoked.contains(&(path, method, *status));
            let key = (method, path, *status);
            let never = NEVER.iter().find(|(m, p, s, _)| (*m, *p, *s) == key);
            assert_ne!(here, never.is_some(), "{key:?}: {never:?}");
        }
    }
}
