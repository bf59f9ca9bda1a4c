//! The platform's own transports, and services that name them.
//!
//! Source: GS MEC 011 V2.2.1, 8.1.2.2 (`transportId`) and 8.2.9 (`/transports`).

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Server, data_dir, get, mepulse, post, put, self_of, send, service};

const APP: &str = "app";

const REST: &str = r#"{id="rest-1",name="REST",type="REST_HTTP",protocol="HTTP",version="1.1",endpoint={uris=["http://gw:8080/"]},security={}}"#;
const BUS: &str = r#"{id="bus",name="MQTT",description="the bus",type="MB_TOPIC_BASED",protocol="MQTT",version="5",endpoint={addresses=[{host="bus",port=1883}]},security={oAuth2Info={grantTypes=["OAUTH2_CLIENT_CREDENTIALS"],tokenEndpoint="http://t/"}},implSpecificInfo={qos=1}}"#;

fn rest() -> Value {
    json!({
        "id": "rest-1", "name": "REST", "type": "REST_HTTP", "protocol": "HTTP", "version": "1.1",
        "endpoint": {"uris": ["http://gw:8080/"]}, "security": {}
    })
}

fn bus() -> Value {
    json!({
        "id": "bus", "name": "MQTT", "description": "the bus", "type": "MB_TOPIC_BASED",
        "protocol": "MQTT", "version": "5",
        "endpoint": {"addresses": [{"host": "bus", "port": 1883}]},
        "security": {"oAuth2Info": {
            "grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"], "tokenEndpoint": "http://t/"
        }},
        "implSpecificInfo": {"qos": 1}
    })
}

fn set(entries: &[&str]) -> String {
    format!("platform.transports=[{}]", entries.join(","))
}

/// A service with a transport of the platform's.
fn with_id(id: &Value) -> Value {
    let mut body = service("cam", None);
    body.as_object_mut().unwrap().remove("transportInfo");
    body["transportId"] = id.clone();
    body
}

fn offered(server: &Server) -> Value {
    let answer = get(&format!("{}/transports", server.root()));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

#[test]
fn transports_come_from_the_file_and_from_the_command_line() {
    let (keep, dir) = data_dir();
    let file = keep.path().join("config.toml");
    let tables = "\
        [[platform.transports]]\nid = \"rest-1\"\nname = \"REST\"\ntype = \"REST_HTTP\"\n\
        protocol = \"HTTP\"\nversion = \"1.1\"\nsecurity = {}\n\
        endpoint = { uris = [\"http://gw:8080/\"] }\n\
        [[platform.transports]]\nid = \"bus\"\nname = \"MQTT\"\ndescription = \"the bus\"\n\
        type = \"MB_TOPIC_BASED\"\nprotocol = \"MQTT\"\nversion = \"5\"\n\
        implSpecificInfo = { qos = 1 }\n\
        [platform.transports.endpoint]\naddresses = [{ host = \"bus\", port = 1883 }]\n\
        [platform.transports.security.oAuth2Info]\n\
        grantTypes = [\"OAUTH2_CLIENT_CREDENTIALS\"]\ntokenEndpoint = \"http://t/\"\n";
    std::fs::write(&file, tables).unwrap();
    let file = ["--config", file.to_str().unwrap()];
    let (line, none) = (set(&[BUS]), set(&[]));
    for (args, expected) in [
        (vec![], json!([])),
        (file.to_vec(), json!([rest(), bus()])),
        (vec!["--set", &line], json!([bus()])),
        ([&file[..], &["--set", &line]].concat(), json!([bus()])),
        ([&file[..], &["--set", &none]].concat(), json!([])),
    ] {
        let server = Server::start(&dir, &args);
        assert_eq!(offered(&server), expected, "{args:?}");
        server.stop();
    }
}

#[test]
fn the_list_can_be_read_and_nothing_more() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", &set(&[REST])]);
    let uri = format!("{}/transports", server.root());
    let head = send("HEAD", &uri, &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = send(method, &uri, &[], b"{}");
        answer.problem(405);
        assert_eq!(answer.header("allow"), Some("GET, HEAD"), "{method}");
    }
    let detail = get(&format!("{uri}?id=rest-1")).problem(400);
    assert!(detail.contains("id"), "{detail}");
    get(&format!("{uri}/rest-1")).problem(404);
}

#[test]
fn a_service_names_a_transport_and_shows_it() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", &set(&[REST, BUS])]);
    let check = |info: &Value, transport: &Value| {
        assert_eq!(info["transportInfo"], *transport);
        assert_eq!(info.get("transportId"), None, "{info}");
    };
    let info = server.register(APP, &with_id(&json!("bus")));
    check(&info, &bus());
    let own = self_of(&server, &info);
    check(&get(&own).json(), &bus());
    let other = put(&own, &with_id(&json!("rest-1")));
    assert_eq!(other.status, 200, "{other:?}");
    check(&other.json(), &rest());
    check(&get(&own).json(), &rest());
    let own_transport = service("cam", None);
    check(
        &put(&own, &own_transport).json(),
        &own_transport["transportInfo"],
    );
}

#[test]
fn exactly_one_transport_that_exists_is_taken() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", &set(&[REST, BUS])]);
    let info = server.register(APP, &service("cam", None));
    let own = self_of(&server, &info);
    let collection = format!("{}/services", server.app(APP));
    let mut both = service("cam", None);
    both["transportId"] = "bus".into();
    let mut neither = service("cam", None);
    neither.as_object_mut().unwrap().remove("transportInfo");
    let cases: Vec<(Value, &[&str])> = vec![
        (both, &["transportId", "transportInfo"]),
        (neither, &["transportInfo"]),
        (with_id(&Value::Null), &["transportInfo"]),
        (
            with_id(&json!("nats")),
            &["transportId", "nats", "rest-1", "bus"],
        ),
        (with_id(&json!("BUS")), &["transportId", "rest-1"]),
        (with_id(&json!("")), &["transportId"]),
        (with_id(&json!(1)), &["transportId"]),
        (with_id(&json!(["bus"])), &["transportId"]),
        (with_id(&json!({"id": "bus"})), &["transportId"]),
    ];
    for (body, names) in &cases {
        for answer in [post(&collection, body), put(&own, body)] {
            let detail = answer.problem(400);
            for name in *names {
                assert!(detail.contains(name), "{body}: {detail}");
            }
        }
    }
    assert_eq!(get(&collection).json(), json!([info]));
    server.stop();
    // Without any, that is said.
    let server = Server::start(&dir, &[]);
    let detail = post(&collection_of(&server), &with_id(&json!("bus"))).problem(400);
    assert!(detail.contains("transportInfo"), "{detail}");
    // Of very many, where to look.
    server.stop();
    let many: Vec<_> = (0..100)
        .map(|n| REST.replace("rest-1", &format!("t{n}")))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let server = Server::start(&dir, &["--set", &set(&many)]);
    let detail = post(&collection_of(&server), &with_id(&json!("bus"))).problem(400);
    assert!(
        detail.contains("100") && detail.contains("/transports"),
        "{detail}"
    );
}

fn collection_of(server: &Server) -> String {
    format!("{}/services", server.app(APP))
}

#[test]
fn a_registered_service_keeps_its_transport_whatever_the_platform_offers_later() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", &set(&[REST, BUS])]);
    let info = server.register(APP, &with_id(&json!("bus")));
    server.stop();
    let changed = BUS.replace("1883", "8883");
    for args in [vec![], vec!["--set".to_owned(), set(&[&changed])]] {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let server = Server::start(&dir, &args);
        assert_eq!(get(&self_of(&server, &info)).json(), info, "{args:?}");
        server.kill();
    }
    let server = Server::start(&dir, &["--set", &set(&[&changed])]);
    // The id means what it means now.
    let again = put(&self_of(&server, &info), &with_id(&json!("bus"))).json();
    assert_eq!(
        again["transportInfo"]["endpoint"]["addresses"][0]["port"],
        8883
    );
}

/// It does not start, exits with 2 and says what is wrong where; nothing is written.
fn check_refused(dir: &Path, setting: &str, names: &[&str]) {
    let output = mepulse()
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir)
        .args(["--set", setting])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{setting}: {said}");
    assert!(output.stdout.is_empty(), "{setting}");
    for name in names {
        assert!(said.contains(name), "{setting}: {name:?} is not in {said}");
    }
    assert!(!dir.exists(), "{setting}");
}

#[test]
fn a_broken_transport_is_refused_by_name_before_anything_is_opened() {
    let (_keep, dir) = data_dir();
    let without = |member: &str| {
        let start = REST.find(&format!("{member}=")).unwrap();
        let end = REST[start..]
            .find(",")
            .map_or(REST.len() - 1, |at| start + at + 1);
        format!("{}{}", &REST[..start], &REST[end..]).replace(",}", "}")
    };
    for member in [
        "id", "name", "type", "protocol", "version", "endpoint", "security",
    ] {
        let path = format!("platform.transports[1].{member}");
        check_refused(&dir, &set(&[BUS, &without(member)]), &[&path, "missing"]);
    }
    let replaced = |from: &str, to: &str| REST.replace(from, to);
    let cases: Vec<(String, &str)> = vec![
        (
            replaced("id=\"rest-1\"", "id=\"\""),
            "platform.transports[1].id",
        ),
        (
            replaced("id=\"rest-1\"", "id=7"),
            "platform.transports[1].id",
        ),
        (
            replaced("\"REST_HTTP\"", "\"\""),
            "platform.transports[1].type",
        ),
        (replaced("\"1.1\"", "1.1"), "platform.transports[1].version"),
        (
            replaced("[\"http://gw:8080/\"]", "\"http://gw\""),
            "platform.transports[1].endpoint.uris",
        ),
        (
            replaced("uris=[\"http://gw:8080/\"]", ""),
            "platform.transports[1].endpoint",
        ),
        (
            replaced("[\"http://gw:8080/\"]", "[\"u\"],fqdn=[\"f\"]"),
            "platform.transports[1].endpoint",
        ),
        (
            replaced("security={}", "security=[]"),
            "platform.transports[1].security",
        ),
        (
            replaced(
                "security={}",
                "security={oAuth2Info={grantTypes=[\"MAGIC\"]}}",
            ),
            "platform.transports[1].security.oAuth2Info.grantTypes",
        ),
        (BUS.to_owned(), "platform.transports[1].id is \"bus\""),
    ];
    for (entry, named) in &cases {
        check_refused(&dir, &set(&[BUS, entry]), &[named]);
    }
    for setting in [
        "platform.transports=7",
        "platform.transports={}",
        "platform.transports=[7]",
        "platform.transports=[[]]",
    ] {
        check_refused(&dir, setting, &["platform.transports"]);
    }
    check_refused(&dir, "platform.transport=[]", &["platform.transport"]);
}
