//! Sentences for every mistake, and the documented file.

use super::*;

const GOOD: &str = r#"
[server]
url = "http://127.0.0.1:8088"
[agent]
app_instance_id = "app"
[[services]]
name = "cam"
transport_id = "t"
"#;

fn load(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).map_err(|error| error.to_string())
}

#[test]
fn the_documented_file_names_every_key_with_its_default() {
    let text = include_str!("../../../scripts/agent.toml");
    let documented = load(text).unwrap();
    assert_eq!(documented.server, Server::at(&documented.server.url));
    let app = &documented.agent.app_instance_id;
    assert_eq!(documented.agent, Agent::of(app));
    // What is optional is shown in comments.
    let optional = text
        .lines()
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| {
            line.split_once(" = ")
                .is_some_and(|(key, _)| !key.contains(' '))
        });
    let mut probes = 0;
    for line in optional {
        let text = match line.split(' ').next().unwrap() {
            "tcp" | "exec" | "file" => {
                probes += 1;
                format!("{GOOD}[services.probe]\n{line}\n")
            }
            _ => format!("{GOOD}{line}\n"),
        };
        load(&text).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
    assert_eq!(probes, 3);
}

#[test]
fn every_mistake_is_named() {
    let replaced = |from: &str, to: &str| GOOD.replace(from, to);
    let with = |more: &str| format!("{GOOD}{more}\n");
    let server = |more: &str| replaced("[agent]", &format!("{more}\n[agent]"));
    let agent = |more: &str| replaced("[[services]]", &format!("{more}\n[[services]]"));
    let probe = |more: &str| with(&format!("[services.probe]\n{more}"));
    for (text, part) in [
        ("nonsense".to_owned(), "agent.toml"),
        (String::new(), "missing field `server`"),
        (with("intervall_s = 3"), "did you mean `interval_s`?"),
        (server("ca_fil = ''"), "did you mean `ca_file`?"),
        (replaced("[agent]", "[agnet]"), "did you mean `agent`?"),
        (probe("htp = {}"), "did you mean `http`?"),
        (with("interval_s = 0"), "`interval_s` must be 1 or more"),
        (with("interval_s = -1"), "interval_s"),
        (with("interval_s = 'x'"), "expected u32"),
        (with("transport = {}"), "exclude each other"),
        (
            replaced("transport_id = \"t\"", ""),
            "one of `transport` and `transport_id`",
        ),
        (
            replaced("transport_id = \"t\"", "transport = {}"),
            "transportInfo.id is missing",
        ),
        (with("scope_of_locality = 'HERE'"), "\"MEC_SYSTEM\""),
        (with("category = {}"), "serCategory.href"),
        (replaced("\"cam\"", "\"\""), "serName must not be empty"),
        (
            with("[[services]]\nname = 'cam'\ntransport_id = 't'"),
            "two [[services]] have the name \"cam\"",
        ),
        (
            GOOD.split("[[services]]").next().unwrap().to_owned(),
            "missing field `services`",
        ),
        (replaced("http://", "ftp://"), "`server.url`"),
        (replaced("http://", ""), "`server.url`"),
        (replaced("8088", "8088/?a=b"), "`server.url`"),
        (server("api_root = 'v1/'"), "`server.api_root`"),
        (
            server("timeout_ms = 0"),
            "`server.timeout_ms` (0) must be between",
        ),
        (
            server("token_file = '/nowhere/token'"),
            "`server.token_file` /nowhere/token cannot be read",
        ),
        (
            server("token_file = '/dev/null'\noauth2 = { client_secret_file = '/dev/null' }"),
            "`server.token_file` and `server.oauth2` exclude each other",
        ),
        (
            server(
                "oauth2 = { client_secret_file = '/dev/null' }\naccess_key = { access_key = 'a', \
                 secret_key_file = '/dev/null' }",
            ),
            "`server.oauth2` and `server.access_key` exclude",
        ),
        (
            server("oauth2 = { client_id = 'me' }"),
            "`server.oauth2` needs a client_secret_file",
        ),
        (
            server("oauth2 = { client_secret_file = '/nowhere/secret' }"),
            "`server.oauth2.client_secret_file` /nowhere/secret cannot be read",
        ),
        (
            server("oauth2 = { client_secret_file = '/dev/null', token_url = 'oauth2' }"),
            "tokens cannot be fetched at \"oauth2\"",
        ),
        (
            server("oauth2 = { client_secret_file = '/dev/null', token_url = 'http://a:b@c/' }"),
            "without credentials",
        ),
        (
            server("oauth2 = { client_secret = 'x' }"),
            "did you mean `client_secret_file`?",
        ),
        (
            replaced(
                "http://127.0.0.1:8088\"",
                "http://10.0.0.1\"\noauth2 = { client_secret_file = '/dev/null' }",
            ),
            "http://10.0.0.1/oauth2/token without TLS",
        ),
        (
            replaced(
                "http://127.0.0.1:8088\"",
                "http://10.0.0.1\"\naccess_key = { access_key = 'a', secret_key_file = '/dev/null' }",
            ),
            "http://10.0.0.1/mep/token without TLS",
        ),
        (
            replaced(
                "http://127.0.0.1:8088\"",
                "http://10.0.0.1\"\noauth2 = { client_secret_file = '/dev/null', token_url = \
                 'https://login.example/token' }",
            ),
            "would go to `server.url` http://10.0.0.1 without TLS",
        ),
        (
            server("access_key = { access_key = 'a,b', secret_key_file = '/dev/null' }"),
            "without a comma",
        ),
        (
            server("access_key = { access_key = 'a' }"),
            "`server.access_key` needs a secret_key_file",
        ),
        (
            server("access_key = { token_path = '/other' }"),
            "`server.access_key` needs an access_key",
        ),
        (
            server(
                "access_key = { access_key = 'a', secret_key_file = '/dev/null', token_path = 'x' }",
            ),
            "must begin with a slash",
        ),
        (
            server("access_key = { access_key = 'a', secret_key = 'x' }"),
            "unknown field `secret_key`",
        ),
        (server("tls_name = 'no name'"), "`server.tls_name`"),
        (server("ca_file = '/nowhere/ca'"), "`server.ca_file`"),
        (
            server("client_cert_file = '/nowhere/cert'"),
            "need each other",
        ),
        (replaced("\"app\"", "\"a/b\""), "`agent.app_instance_id`"),
        (
            agent("state_file = '/nowhere/state'"),
            "there is no directory /nowhere",
        ),
        (agent("retry_max_s = 0"), "`agent.retry_max_s` (0)"),
        (agent("on_stop = 'explode'"), "deregister"),
        (agent("[status]\nlisten = 'nowhere'"), "`status.listen`"),
        (agent("[status]\nlisten = 'unix:'"), "`status.listen`"),
        (
            probe("interval_s = 3"),
            "exactly one of http, tcp, exec and file",
        ),
        (
            probe("tcp = { address = 'x:1' }\nexec = { command = ['x'] }"),
            "exactly one",
        ),
        (probe("tcp = { address = 'x' }"), "tcp.address"),
        (probe("http = { url = 'x' }"), "http.url"),
        (probe("exec = { command = [] }"), "names no program"),
        (
            probe("tcp = { address = 'x:1' }\ninterval_s = 0"),
            "interval_s (0)",
        ),
        (
            probe("tcp = { address = 'x:1' }\nunhealthy_after = 0"),
            "unhealthy_after (0)",
        ),
        (
            probe("file = { path = 'x', max_age_s = 0 }"),
            "file.max_age_s (0)",
        ),
    ] {
        let error = load(&text).unwrap_err();
        assert!(error.contains(part), "{text}\n{error}\n{part}");
    }
    assert!(load(GOOD).is_ok());
    for fine in [
        "oauth2 = { client_secret_file = '/dev/null' }",
        "oauth2 = { client_secret_file = '/dev/null', token_url = 'https://login.example/token' }",
        "oauth2 = { client_secret_file = '/dev/null', token_url = 'http://10.1.2.3/' }\nallow_plain = true",
        "access_key = { access_key = 'a', secret_key_file = '/dev/null' }\ntls_name = 'mep.example'",
    ] {
        load(&server(fine)).unwrap();
    }
    let missing = Config::load(Path::new("/nowhere")).unwrap_err().to_string();
    assert!(
        missing.contains("/nowhere") && missing.contains("--config"),
        "{missing}"
    );
}

#[test]
fn a_secret_is_read_without_its_line_end_and_shown_to_nobody() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), " s3cret \r\n").unwrap();
    let secret = Secret::read(file.path()).unwrap();
    assert_eq!(secret.expose(), "s3cret");
    assert_eq!(format!("{secret:?}"), "Secret");
    for (content, part) in [
        (b"\n".to_vec(), "empty"),
        (b"\xff".to_vec(), "no text"),
        (vec![b'x'; 70_000], "longer than"),
    ] {
        std::fs::write(file.path(), content).unwrap();
        let reason = Secret::read(file.path()).unwrap_err();
        assert!(reason.contains(part), "{reason}");
    }
}
