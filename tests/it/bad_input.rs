//! Nothing a client sends stops the server, spoils a registration, or is answered with a 5xx.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{Server, data_dir, get, liveness_of, send, service};

const APP: &str = "app";
const BODY_LIMIT: usize = 65_536;

/// A server with one registration that must survive whatever the test does.
struct Target {
    server: Server,
    info: Value,
    _keep: tempfile::TempDir,
}

impl Target {
    fn start(args: &[&str]) -> Self {
        let (keep, dir) = data_dir();
        let server = Server::start(&dir, args);
        let info = server.register(APP, &service("cam", Some(3600)));
        Self {
            server,
            info,
            _keep: keep,
        }
    }

    fn own(&self) -> String {
        let href = self.info["_links"]["self"]["href"].as_str().unwrap();
        format!("{}{href}", self.server.url)
    }

    /// Every resource that takes a body, with its method.
    fn writable(&self) -> [(&'static str, String); 4] {
        [
            ("POST", format!("{}/services", self.server.app(APP))),
            ("PUT", self.own()),
            ("PATCH", liveness_of(&self.server, &self.info)),
            ("PATCH", format!("{}/liveness", self.server.app(APP))),
        ]
    }

    fn check_unharmed(&self, after: &str) {
        let health = get(&format!("{}/healthz", self.server.url));
        assert_eq!(health.status, 200, "after {after}");
        let all = get(&format!("{}/services", self.server.root())).json();
        assert_eq!(all, json!([self.info]), "after {after}");
    }

    /// Sends bytes and returns what comes until the server closes.
    fn talk(&self, bytes: &[u8]) -> String {
        let mut stream = self.server.connect();
        // The server may have closed before it has everything.
        let _ = stream.write_all(bytes);
        until_closed(&mut stream)
    }
}

fn until_closed(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            panic!("{error} after {:?}", String::from_utf8_lossy(&answer))
        }
        Ok(_) | Err(_) => String::from_utf8_lossy(&answer).into_owned(),
    }
}

/// Reads one answer with a short JSON body off a connection that stays open.
fn one_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"}") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

fn status_of(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()
}

/// A complete raw request whose answer ends the connection.
fn raw(method: &str, uri: &str, headers: &str, body: &str) -> String {
    let path = uri.splitn(4, '/').nth(3).unwrap();
    format!("{method} /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n{body}")
}

/// The full body with one member (`a.b.c`) set.
fn with(path: &str, value: &Value) -> Value {
    let mut body = service("cam", Some(3600));
    body["serCategory"] = json!({"href": "h", "id": "i", "name": "n", "version": "v"});
    let mut at = &mut body;
    for name in path.split('.') {
        at = at.as_object_mut().unwrap().entry(name).or_insert(json!({}));
    }
    *at = value.clone();
    body
}

/// Whether a member may have that value.
type Accepts<'a> = &'a dyn Fn(&Value) -> bool;

fn is_never(_: &Value) -> bool {
    false
}

#[test]
fn every_wrong_type_of_every_member_is_400_and_named() {
    let target = Target::start(&[]);
    let required = |value: &Value| value.is_string();
    let optional = |value: &Value| value.is_string() || value.is_null();
    let flag = |value: &Value| value.is_boolean() || value.is_null();
    let interval = |value: &Value| value.is_u64() || value.is_null();
    let open_object = |value: &Value| value.is_object();
    let optional_object = |value: &Value| value.is_object() || value.is_null();
    let only_null = |value: &Value| value.is_null();
    let members: &[(&str, Accepts<'_>)] = &[
        ("serName", &required),
        ("version", &required),
        ("state", &is_never),
        ("serializer", &required),
        ("scopeOfLocality", &only_null),
        ("consumedLocalOnly", &flag),
        ("livenessInterval", &interval),
        ("transportId", &only_null),
        ("serCategory", &only_null),
        ("serCategory.href", &required),
        ("serCategory.id", &required),
        ("serCategory.name", &required),
        ("serCategory.version", &required),
        ("transportInfo", &is_never),
        ("transportInfo.id", &required),
        ("transportInfo.name", &required),
        ("transportInfo.description", &optional),
        ("transportInfo.type", &required),
        ("transportInfo.protocol", &required),
        ("transportInfo.version", &required),
        ("transportInfo.endpoint", &is_never),
        ("transportInfo.endpoint.uris", &is_never),
        ("transportInfo.endpoint.fqdn", &|value| {
            value.is_null() || *value == json!([])
        }),
        ("transportInfo.endpoint.addresses", &|value| {
            value.is_null() || *value == json!([])
        }),
        ("transportInfo.security", &open_object),
        ("transportInfo.security.oAuth2Info", &optional_object),
        ("transportInfo.security.oAuth2Info.grantTypes", &only_null),
        ("transportInfo.security.oAuth2Info.tokenEndpoint", &optional),
    ];
    let values = [
        json!(null),
        json!(true),
        json!(7),
        json!(-1),
        json!(2.5),
        json!("text"),
        json!([]),
        json!([1]),
        json!([null]),
        json!({}),
    ];
    let [post, put, ..] = target.writable();
    for (path, accepts) in members {
        for value in values.iter().filter(|value| !accepts(value)) {
            let body = with(path, value).to_string();
            for (method, uri) in [&post, &put] {
                let answer = send(method, uri, &[], body.as_bytes());
                let detail = answer.problem(400);
                let member = path.strip_suffix(".uris").unwrap_or(path);
                assert!(
                    detail.contains(member),
                    "{method} {path} = {value}: {detail}"
                );
            }
        }
    }
    target.check_unharmed("wrong types");
}

#[test]
fn intervals_and_ports_out_of_range_are_400() {
    let target = Target::start(&[]);
    let port = |port: Value| {
        with(
            "transportInfo.endpoint",
            &json!({"addresses": [{"host": "h", "port": port}]}),
        )
    };
    let whole = service("cam", None).to_string();
    let interval = |text: &str| {
        whole.replace(
            "\"livenessInterval\":null",
            &format!("\"livenessInterval\":{text}"),
        )
    };
    let bodies = [
        "-1", "1e30", "\"5\"", "2.5", "1e999", "-0.5", "[5]", "05", "+5", "NaN", "1e",
    ]
    .map(interval)
    .into_iter()
    .chain([
        port(json!(-1)).to_string(),
        port(json!(65_536)).to_string(),
        port(json!("80")).to_string(),
        port(json!(1.5)).to_string(),
        port(json!(null)).to_string(),
        with(
            "transportInfo.endpoint",
            &json!({"addresses": [{"host": "", "port": 1}]}),
        )
        .to_string(),
        with(
            "transportInfo.endpoint",
            &json!({"uris": ["x"], "fqdn": ["y"]}),
        )
        .to_string(),
        with("serName", &json!("")).to_string(),
    ]);
    let [post, put, ..] = target.writable();
    for body in bodies {
        for (method, uri) in [&post, &put] {
            send(method, uri, &[], body.as_bytes()).problem(400);
        }
    }
    target.check_unharmed("numbers out of range");
}

#[test]
fn what_is_no_json_object_is_400_everywhere() {
    let target = Target::start(&[]);
    let good = service("cam", Some(60)).to_string();
    let deep_arrays = "[".repeat(30_000);
    let deep_objects = "{\"a\":".repeat(10_000);
    let deep_member = format!("{{\"serName\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    let bodies: [&[u8]; 19] = [
        b"",
        b" \r\n\t",
        b"[]",
        b"[{}]",
        b"null",
        b"true",
        b"5",
        b"\"ACTIVE\"",
        b"{",
        b"{}",
        b"{\"state\":\"ACTIVE\"",
        b"{\"state\":\"ACTIVE\"}}",
        b"{\"state\":\"\xff\xfe\"}",
        b"{\"state\":\"ACTIVE\\ud800\"}",
        b"\xff\xfe{\0}\0",
        b"\0\0\0\0",
        deep_arrays.as_bytes(),
        deep_objects.as_bytes(),
        deep_member.as_bytes(),
    ];
    let cut = &good.as_bytes()[..good.len() - 1];
    for (method, uri) in target.writable() {
        for body in bodies.iter().copied().chain([cut]) {
            let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
            let answer = send(method, &uri, &[], body);
            assert_eq!(answer.status, 400, "{method} {uri} {shown}: {answer:?}");
            assert!(answer.problem(400).len() < 400, "{method} {uri} {shown}");
        }
    }
    target.check_unharmed("bodies that are no JSON objects");
}

#[test]
fn a_body_over_the_limit_is_413_however_it_comes() {
    let target = Target::start(&[]);
    let huge = vec![b' '; 10 * 1024 * 1024];
    let good = service("cam", Some(3600)).to_string();
    let padded = |length: usize| good.clone() + &" ".repeat(length - good.len());
    for (method, uri) in target.writable() {
        send(method, &uri, &[], &huge).problem(413);
        let over = padded(BODY_LIMIT + 1);
        send(method, &uri, &[], over.as_bytes()).problem(413);
        let chunk = format!("{:x}\r\n{}\r\n", 100_000, " ".repeat(100_000));
        let chunks = format!("{}0\r\n\r\n", chunk.repeat(20));
        let answer =
            target.talk(raw(method, &uri, "transfer-encoding: chunked\r\n", &chunks).as_bytes());
        assert_eq!(status_of(&answer), Some(413), "{method} {uri}: {answer}");
        let waiting = "expect: 100-continue\r\ncontent-length: 10485760\r\n";
        let answer = target.talk(raw(method, &uri, waiting, "").as_bytes());
        assert_eq!(status_of(&answer), Some(413), "{method} {uri}: {answer}");
    }
    let (method, uri) = &target.writable()[1];
    let answer = send(method, uri, &[], padded(BODY_LIMIT).as_bytes());
    assert_eq!(answer.status, 200, "exactly the limit is fine: {answer:?}");
    target.check_unharmed("bodies over the limit");
}

#[test]
fn the_content_type_is_never_judged() {
    let target = Target::start(&[]);
    let good = service("cam", Some(3600)).to_string();
    let beat = r#"{"state":"ACTIVE"}"#;
    for (index, (method, uri)) in target.writable().into_iter().enumerate() {
        let body = if index < 2 { good.as_str() } else { beat };
        for content_type in [
            "",
            "content-type: text/plain\r\n",
            "content-type: application/xml; charset=latin-1\r\n",
            "content-type: \r\n",
            "content-type: \u{fe}\r\n",
        ] {
            let headers = format!("{content_type}content-length: {}\r\n", body.len());
            let answer = target.talk(raw(method, &uri, &headers, body).as_bytes());
            let status = status_of(&answer).unwrap();
            assert_eq!(status / 100, 2, "{method} {content_type:?}: {answer}");
            if status == 201 {
                let (_, info) = answer.split_once("\r\n\r\n").unwrap();
                let info: Value = serde_json::from_str(info).unwrap();
                let href = info["_links"]["self"]["href"].as_str().unwrap();
                let own = format!("{}{href}", target.server.url);
                assert_eq!(send("DELETE", &own, &[], b"").status, 204);
            }
        }
    }
    target.check_unharmed("odd content types");
}

#[test]
fn a_uri_over_8_kib_is_414() {
    let target = Target::start(&[]);
    let root = target.server.root();
    let long = "x".repeat(9000);
    for uri in [
        format!("{}/{long}", target.server.url),
        format!("{root}/services?ser_name={long}"),
        format!("{}/services", target.server.app(&long)),
        format!("{}?{long}", target.own()),
    ] {
        for method in ["GET", "POST", "DELETE"] {
            send(method, &uri, &[], b"").problem(414);
        }
    }
    for (length, status) in [(8191, 404), (8192, 414)] {
        let uri = format!("{}/{}", target.server.url, "x".repeat(length));
        get(&uri).problem(status);
    }
    for length in [60_000, 70_000, 1_000_000] {
        let path = "/".to_owned() + &"x".repeat(length);
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = target.talk(request.as_bytes());
        let status = status_of(&answer);
        assert!(
            matches!(status, None | Some(414 | 431)),
            "{length}: {answer}"
        );
    }
    target.check_unharmed("long URIs");
}

#[test]
fn what_is_no_http_is_refused_or_closed() {
    let target = Target::start(&["--set", "server.header_timeout_ms=300"]);
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(5000));
    let requests: [&[u8]; 15] = [
        b"GARBAGE\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"\0\0\0\0\0\0\0\0",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"GET /healthz FTP/1.1\r\n\r\n",
        b"G\xffT /healthz HTTP/1.1\r\n\r\n",
        b"GET healthz HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n bad: fold\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\ncontent-length: x\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        many_headers.as_bytes(),
    ];
    for request in requests {
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
        let answer = target.talk(request);
        let status = status_of(&answer);
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{shown:?}: {answer}"
        );
        target.check_unharmed(&shown);
    }
    let (method, uri) = &target.writable()[2];
    for body in [
        "zz\r\n{}\r\n0\r\n\r\n",
        "-1\r\n",
        "ffffffffffffffffff\r\n{}",
    ] {
        let request = raw(method, uri, "transfer-encoding: chunked\r\n", body);
        let answer = target.talk(request.as_bytes());
        assert!(
            status_of(&answer).is_none_or(|status| status == 400),
            "{body:?}: {answer}"
        );
    }
    target.check_unharmed("broken chunks");
}

#[test]
fn a_half_sent_head_is_closed() {
    let target = Target::start(&["--set", "server.header_timeout_ms=300"]);
    for head in [
        "G",
        "GET /healthz HTT",
        "GET /healthz HTTP/1.1\r\nhost: x\r\n",
    ] {
        assert_eq!(target.talk(head.as_bytes()), "", "{head:?}");
    }
    let mut stream = target.server.connect();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert_eq!(status_of(&one_answer(&mut stream)), Some(200));
    stream.write_all(b"GET /heal").unwrap();
    assert_eq!(
        until_closed(&mut stream),
        "",
        "the second head is bounded too"
    );
    target.check_unharmed("half-sent heads");
}

#[test]
fn a_slow_body_is_408() {
    let target = Target::start(&["--set", "server.body_timeout_ms=300"]);
    for (method, uri) in target.writable() {
        for (headers, part) in [
            ("content-length: 100\r\n", "{"),
            ("content-length: 100\r\n", ""),
            ("transfer-encoding: chunked\r\n", "1\r\n{\r\n"),
        ] {
            let answer = target.talk(raw(method, &uri, headers, part).as_bytes());
            assert_eq!(status_of(&answer), Some(408), "{method} {uri}: {answer}");
            assert!(answer.contains("application/problem+json"), "{answer}");
        }
    }
    target.check_unharmed("slow bodies");
}

#[test]
fn an_idle_connection_is_closed() {
    let target = Target::start(&["--set", "server.idle_timeout_ms=300"]);
    assert_eq!(target.talk(b""), "", "nothing was ever said");
    let answer = target.talk(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(status_of(&answer), Some(200), "{answer}");
    assert!(!answer.contains("connection: close"), "{answer}");
    target.check_unharmed("idle connections");
}

#[test]
fn a_connection_too_many_is_told_503_until_one_goes() {
    // The client that registered holds the first connection.
    let target = Target::start(&["--set", "server.connections_max=2"]);
    let hello = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut second = target.server.connect();
    second.write_all(hello.as_bytes()).unwrap();
    assert_eq!(status_of(&one_answer(&mut second)), Some(200));
    for request in [hello, "", "nonsense"] {
        let mut third = target.server.connect();
        third.write_all(request.as_bytes()).unwrap();
        let answer = one_answer(&mut third);
        assert_eq!(status_of(&answer), Some(503), "{answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    target.check_unharmed("connections too many");
    drop(second);
    let closing = raw("GET", &format!("{}/healthz", target.server.url), "", "");
    while status_of(&target.talk(closing.as_bytes())) != Some(200) {}
    target.check_unharmed("room again");
}

#[test]
fn a_request_refused_before_its_body_is_still_answered() {
    let target = Target::start(&[]);
    let body = vec![b' '; 3_000_000];
    for (method, uri, status) in [
        ("POST", format!("{}/nowhere", target.server.url), 404),
        ("PATCH", format!("{}/services", target.server.root()), 405),
        ("PUT", format!("{}x", target.own()), 404),
        (
            "POST",
            format!("{}/services?x=1", target.server.app(APP)),
            400,
        ),
    ] {
        send(method, &uri, &[], &body).problem(status);
    }
    target.check_unharmed("bodies that nobody read");
}

#[test]
fn a_target_without_a_path_is_refused_and_no_panic() {
    let target = Target::start(&[]);
    for line in [
        "CONNECT example.com:80 HTTP/1.1",
        "CONNECT example.com:80 HTTP/1.0",
        "GET example.com:80 HTTP/1.1",
        "PATCH example.com:80 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "CONNECT / HTTP/1.1",
    ] {
        let request = format!("{line}\r\nhost: example.com:80\r\nconnection: close\r\n\r\n");
        let answer = target.talk(request.as_bytes());
        let status = status_of(&answer);
        assert!(
            status.is_some_and(|status| (400..500).contains(&status)),
            "{line}: {answer:?}"
        );
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    target.check_unharmed("targets without a path");
    let log = target.server.log();
    assert!(!log.contains("panicked"), "{log}");
}
