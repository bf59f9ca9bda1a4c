//! The file and the environment in EdgeGallery's shape.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

/// Everything that a file can hold, with what Go takes for nothing.
const SAMPLE: &str = r#"
serviceInfoPosts:
  - serInstanceId: ""
    serName: cam-1
    serCategory:
      href: /example/catalogue1
      id: id12345
      name: RNI
      version: 1.10
    version: 1.0
    state: ACTIVE
    transportId: Rest1
    transportInfo:
      id: TransId12345
      name: REST
      description: REST API
      type: REST_HTTP
      protocol: HTTP
      version: "2.0"
      endpoint:
        uris: []
        addresses:
          - host: 192.0.2.1
            port: 8080
          - host: cam.example
            port: 8081
        alternative: {}
      security:
        oAuth2Info:
          grantTypes: [OAUTH2_CLIENT_CREDENTIALS]
          tokenEndpoint: /mecSerMgmtApi/security/TokenEndPoint
      implSpecificInfo: {}
    serializer: JSON
    scopeOfLocality: MEC_SYSTEM
    consumedLocalOnly: false
    isLocal: true
    livenessInterval: 60
    _links:
      self:
        liveness: ""
  - serName: map
    serCategory:
    version: v1
    state: ACTIVE
    transportId: ~
    transportInfo:
      id: ""
      type: null
      endpoint:
        uris: ["http://192.0.2.1/map"]
        addresses: null
      security:
        oAuth2Info:
          grantTypes: null
          tokenEndpoint: ""
    serializer: ""
    livenessInterval: 0
    colour: blue
  - serName: bare
    transportId: rest
serAvailabilityNotificationSubscriptions:
  - subscriptionType: SerAvailabilityNotificationSubscription
    callbackReference: http://192.0.2.1/callback
extra: 1
"#;

fn parse(text: &str) -> file::Info {
    file::parse(text).unwrap()
}

#[test]
fn a_whole_file_is_understood() {
    let info = parse(SAMPLE);
    assert_eq!(info.subscriptions, 1);
    assert_eq!(info.unknown, ["extra", "serviceInfoPosts[1].colour"]);
    let body = |at: usize| Value::Object(info.services[at].registration());
    assert_eq!(
        body(0),
        json!({
            "serName": "cam-1",
            "serCategory": {"href": "/example/catalogue1", "id": "id12345", "name": "RNI",
                "version": "1.10"},
            "version": "1.0",
            "state": "ACTIVE",
            "transportInfo": {
                "id": "TransId12345", "name": "REST", "description": "REST API",
                "type": "REST_HTTP", "protocol": "HTTP", "version": "2.0",
                "endpoint": {"addresses": [{"host": "192.0.2.1", "port": 8080},
                    {"host": "cam.example", "port": 8081}]},
                "security": {"oAuth2Info": {"grantTypes": ["OAUTH2_CLIENT_CREDENTIALS"],
                    "tokenEndpoint": "/mecSerMgmtApi/security/TokenEndPoint"}},
            },
            "serializer": "JSON",
            "scopeOfLocality": "MEC_SYSTEM",
            "consumedLocalOnly": false,
            "livenessInterval": 60,
        })
    );
    // Without an interval no heartbeats are offered.
    assert_eq!(
        body(1),
        json!({
            "serName": "map", "version": "v1", "state": "ACTIVE", "serializer": "JSON",
            "transportInfo": {
                "id": "endpoint", "name": "endpoint", "type": "REST_HTTP", "protocol": "HTTP",
                "version": "1.1", "endpoint": {"uris": ["http://192.0.2.1/map"]}, "security": {},
            },
        })
    );
    assert_eq!(body(2)["transportId"], "rest");
    assert!(body(2).get("transportInfo").is_none());
}

#[test]
fn a_file_that_cannot_be_is_refused_with_a_reason() {
    let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n";
    let bomb = (b'b'..b'k').fold(bomb.to_owned(), |text, at| {
        let (from, to) = (char::from(at), char::from(at + 1));
        let all = vec![format!("*{from}"); 9].join(", ");
        format!("{text}{to}: &{to} [{all}]\n")
    });
    let bomb = format!(
        "{bomb}serviceInfoPosts: [{{serName: a, transportInfo: {{implSpecificInfo: *k}}}}]\n"
    );
    let post = |lines: &str| format!("serviceInfoPosts:\n  - serName: cam\n    {lines}\n");
    for (text, part) in [
        (
            "serviceInfoPosts: [{serName: a}, {serName: b}, {serName: a}]",
            "serviceInfoPosts[0] and [2]",
        ),
        (
            "serviceInfoPosts: [{version: v1}]",
            "serviceInfoPosts[0]: serName",
        ),
        ("serviceInfoPosts: 5", "line"),
        (&post("livenessInterval: -1"), "line"),
        (&post("serName: twice"), "serName"),
        (
            &post("transportInfo: {endpoint: {addresses: [{host: a}]}}"),
            "lacks its host or port",
        ),
        ("{", "line"),
        (&bomb, "budget"),
    ] {
        let error = file::parse(text).unwrap_err();
        assert!(error.contains(part), "{text}\n{error}");
    }
}

#[test]
fn an_agent_that_is_only_asked_needs_no_services() {
    for text in ["{}", "serviceInfoPosts: []", "serviceInfoPosts:"] {
        assert_eq!(file::parse(text).unwrap().services.len(), 0, "{text}");
    }
}

/// Variables that are fine, and some that are not.
fn read(changes: &[(&str, &str)], root: &Path) -> Result<Environment, String> {
    let mut variables: BTreeMap<&str, &str> = [
        ("APPINSTID", "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f"),
        ("MEP_IP", "mep.example"),
        ("MEP_APIGW_PORT", "8443"),
        ("CA_CERT_DOMAIN_NAME", "edgegallery"),
        ("AK", "QVUJMSUMgS0VZLS0tLS0"),
        ("SK", "s3cret"),
    ]
    .into();
    variables.extend(changes.iter().copied());
    let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    environment(variable, root).map_err(|error| error.to_string())
}

#[test]
fn the_environment_says_where_the_platform_is() {
    let nowhere = Path::new("/nowhere");
    let plain = read(&[], nowhere).unwrap();
    assert_eq!(plain.app, "5abe4782-2c70-4e47-9a4e-0ee3a1a0fd1f");
    assert_eq!(plain.server.url, "https://mep.example:8443");
    assert_eq!(plain.server.api_root, "/mep/mec_service_mgmt/v1");
    assert_eq!(plain.server.tls_name, "edgegallery");
    assert!(!plain.server.allow_plain);
    assert_eq!(plain.server.ca_file, PathBuf::new());
    let key = &plain.server.access_key;
    assert_eq!(key.access_key, "QVUJMSUMgS0VZLS0tLS0");
    assert_eq!(key.secret_key.as_ref().unwrap().expose(), "s3cret");
    assert!(!format!("{plain:?}").contains("s3cret"));
    for (changes, url) in [
        (vec![("MEP_IP", "192.0.2.7")], "https://192.0.2.7:8443"),
        (
            vec![("MEP_IP", "2001:db8::7")],
            "https://[2001:db8::7]:8443",
        ),
        // The port is fixed, as it is in EdgeGallery's.
        (vec![("EG_PROTOCOL", "http")], "http://mep.example:8000"),
        (
            vec![
                ("EG_PROTOCOL", "HTTP"),
                ("MEP_APIGW_PORT", "x"),
                ("CA_CERT_DOMAIN_NAME", "a b"),
            ],
            "http://mep.example:8000",
        ),
        (vec![("EG_PROTOCOL", "https")], "https://mep.example:8443"),
    ] {
        let found = read(&changes, nowhere).unwrap().server;
        assert_eq!(found.url, url);
        assert_eq!(found.allow_plain, url.starts_with("http:"));
    }
    let without = read(&[("AK", ""), ("SK", "")], nowhere).unwrap();
    assert!(!without.server.uses_access_key());
}

#[test]
fn authorities_are_beside_the_file_or_named() {
    let directory = tempfile::tempdir().unwrap();
    let beside = directory.path().join("ca.crt");
    std::fs::write(&beside, "").unwrap();
    let found = |changes: &[_]| read(changes, directory.path()).unwrap().server.ca_file;
    assert_eq!(found(&[]), beside);
    assert_eq!(
        found(&[("MEPULSE_CA_FILE", "/dev/null")]),
        Path::new("/dev/null")
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let bad = [
        ("APPINSTID", ""),
        ("MEP_IP", "a b"),
        ("MEP_APIGW_PORT", "70000"),
        ("EG_PROTOCOL", "ftp"),
        ("CA_CERT_DOMAIN_NAME", "a b"),
        ("SK", ""),
        ("MEPULSE_CA_FILE", "/nowhere/ca"),
    ];
    let error = read(&bad, Path::new("/nowhere")).unwrap_err();
    for (name, _) in bad {
        assert!(error.contains(name), "{name}: {error}");
    }
    let more = [
        ("APPINSTID", "a/b"),
        ("MEP_IP", ""),
        ("MEP_APIGW_PORT", ""),
        ("AK", ""),
    ];
    let error = read(&more, Path::new("/nowhere")).unwrap_err();
    for (name, _) in more {
        assert!(error.contains(name), "{name}: {error}");
    }
    assert!(!error.contains("s3cret"));
    assert!(
        read(&[("AK", "a,b")], Path::new("/"))
            .unwrap_err()
            .contains("AK must be")
    );
}

#[test]
fn the_file_is_found_in_the_directory_in_conf_or_by_its_own_path() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let variable = |name: &str| {
        let value = match name {
            "APPINSTID" => "app",
            "MEP_IP" => "192.0.2.7",
            "EG_PROTOCOL" => "http",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let missing = load(root, variable, None).unwrap_err().to_string();
    assert!(missing.contains("conf/app_instance_info.yaml"), "{missing}");
    let file = root.join("app_instance_info.yaml");
    let one = |name: &str| format!("serviceInfoPosts: [{{serName: {name}, livenessInterval: 5}}]");
    std::fs::write(&file, one("a")).unwrap();
    let config = load(root, variable, None).unwrap();
    assert_eq!(config.services[0].name, "a");
    assert_eq!(config.status.listen, "127.0.0.1:8080");
    assert!(config.status.hand_out_tokens);
    assert_eq!(config.agent.state_file, PathBuf::new());
    let config = load(&file, variable, Some("127.0.0.1:0")).unwrap();
    assert_eq!(config.status.listen, "127.0.0.1:0");
    std::fs::create_dir(root.join("conf")).unwrap();
    std::fs::write(root.join("conf/app_instance_info.yaml"), one("b")).unwrap();
    assert_eq!(load(root, variable, None).unwrap().services[0].name, "b");
    std::fs::write(&file, " ".repeat(1_100_000)).unwrap();
    let long = load(&file, variable, None).unwrap_err().to_string();
    assert!(long.contains("longer than 1048576 bytes"), "{long}");
}
