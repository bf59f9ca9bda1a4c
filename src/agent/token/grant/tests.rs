//! Requests byte for byte, and answers of every kind.

use http_body_util::BodyExt;
use serde_json::json;

use super::*;

/// `20261123T060656Z`
const NOW: Wall = Wall::from_ns(1_795_414_016_789_000_000);

fn server(lines: &str) -> Server {
    toml::from_str(&format!("url = 'http://127.0.0.1:8000/'\n{lines}")).unwrap()
}

fn grant(lines: &str, secret: &str) -> (Grant, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), secret).unwrap();
    let lines = lines.replace("FILE", &file.path().display().to_string());
    (Grant::of(&server(&lines), "app").unwrap().unwrap(), file)
}

/// URL, headers but `user-agent`, body.
async fn parts(grant: &Grant) -> (String, Vec<(String, String)>, String) {
    let (head, body) = grant.request(NOW).unwrap().into_parts();
    assert_eq!(head.method, Method::POST);
    let body = body.collect().await.unwrap().to_bytes();
    let headers = head.headers.iter().filter(|(name, _)| *name != USER_AGENT);
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let mut headers: Vec<_> = headers
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    headers.sort();
    assert!(head.headers[AUTHORIZATION].is_sensitive());
    (
        head.uri.to_string(),
        headers,
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

fn named(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    headers.iter().map(owned).collect()
}

#[tokio::test]
async fn client_credentials_are_asked_for_byte_by_byte() {
    let (grant, _file) = grant(
        "oauth2 = { client_secret_file = 'FILE', client_id = 'me:1', scope = 'mp1 all&x' }",
        "p%ss wörd\n",
    );
    let (url, headers, body) = parts(&grant).await;
    assert_eq!(url, "http://127.0.0.1:8000/oauth2/token");
    // me%3A1:p%25ss+w%C3%B6rd
    let expected = named(&[
        ("accept", "application/json"),
        ("authorization", "Basic bWUlM0ExOnAlMjVzcyt3JUMzJUI2cmQ="),
        ("content-type", "application/x-www-form-urlencoded"),
        ("host", "127.0.0.1:8000"),
    ]);
    assert_eq!(headers, expected);
    assert_eq!(body, "grant_type=client_credentials&scope=mp1+all%26x");
}

#[tokio::test]
async fn the_application_is_the_client_and_the_secret_is_read_anew() {
    let (grant, file) = grant("oauth2 = { client_secret_file = 'FILE' }", "one");
    let (_, headers, body) = parts(&grant).await;
    // app:one
    assert_eq!(headers[1].1, "Basic YXBwOm9uZQ==");
    assert_eq!(body, "grant_type=client_credentials");
    std::fs::write(file.path(), "two").unwrap();
    // app:two
    assert_eq!(parts(&grant).await.1[1].1, "Basic YXBwOnR3bw==");
    std::fs::remove_file(file.path()).unwrap();
    let failure = grant.request(NOW).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Away);
    assert!(failure.reason.contains("client_secret_file"), "{failure:?}");
}

#[tokio::test]
async fn an_access_key_signs_as_edgegallerys_agent_does() {
    let (grant, _file) = grant(
        "access_key = { access_key = 'QVUJMSUMgS0VZLS0tLS0', secret_key_file = 'FILE' }",
        "DXPb4sqElKhcHe07Kw5uorayETwId1JOjjOIRomRs5wyszoCR5R7AtVa28KT3lSc",
    );
    let (url, headers, body) = parts(&grant).await;
    assert_eq!(url, "http://127.0.0.1:8000/mep/token");
    let expected = named(&[
        ("accept", "application/json"),
        (
            "authorization",
            "SDK-HMAC-SHA256 Access=QVUJMSUMgS0VZLS0tLS0, \
             SignedHeaders=content-type;host;x-sdk-date, \
             Signature=ca7e49073e377f2c442c8fd2824a9e0967963e6f6c5986500a13b49b159be9c4",
        ),
        ("content-type", "application/json"),
        ("host", "127.0.0.1:8000"),
        ("x-sdk-date", "20261123T060656Z"),
    ]);
    assert_eq!(headers, expected);
    assert_eq!(body, "");
}

#[test]
fn nothing_of_a_secret_is_in_a_debug_text() {
    let (grant, _file) = grant(
        "access_key = { access_key = 'ak', secret_key_file = 'FILE' }",
        "s3cret",
    );
    let kept = Grant {
        secret: Kept::Here(Secret::new("s3cret".to_owned())),
        ..grant
    };
    assert!(!format!("{kept:?}").contains("s3cret"));
    let answer = answer(200, &json!({"access_token": "t0ken"}));
    assert!(!format!("{:?}", read(&answer, false)).contains("t0ken"));
}

fn answer(status: u16, body: &Value) -> Answer {
    Answer {
        status,
        retry_after: None,
        location: None,
        body: body.to_string().into(),
    }
}

#[test]
fn answers_are_read_leniently() {
    let life = |body: Value| read(&answer(200, &body), false).unwrap().life.as_secs();
    for (body, secs) in [
        (
            json!({"access_token": "t", "token_type": "Bearer", "expires_in": 3600}),
            3600,
        ),
        (
            json!({"access_token": "t", "token_type": "bearer", "expires_in": "60"}),
            60,
        ),
        (json!({"access_token": "t", "expires_in": 12.5}), 12),
        (
            json!({"access_token": "t", "token_type": null, "expires_in": null}),
            300,
        ),
        (json!({"access_token": "t", "expires_in": "soon"}), 300),
        (json!({"access_token": "t", "expires_in": "NaN"}), 300),
        (json!({"access_token": "t", "expires_in": 0}), 300),
        (json!({"access_token": "t", "expires_in": -5}), 300),
        (
            json!({"access_token": "t", "expires_in": 1e300}),
            30 * 24 * 3600,
        ),
    ] {
        assert_eq!(life(body.clone()), secs, "{body}");
    }
    let granted = read(&answer(200, &json!({"access_token": "t.1"})), false).unwrap();
    assert_eq!(granted.header, "Bearer t.1");
}

#[test]
fn what_is_no_token_is_refused_without_being_repeated() {
    for (body, part) in [
        (json!({}), "has no access_token"),
        (json!({"access_token": 5}), "has no access_token"),
        (json!("access_token"), "has no access_token"),
        (json!({"access_token": ""}), "cannot stand in a header"),
        (json!({"access_token": "a b"}), "cannot stand in a header"),
        (
            json!({"access_token": "x".repeat(20_000)}),
            "cannot stand in a header",
        ),
        (
            json!({"access_token": "t", "token_type": "mac"}),
            "not Bearer",
        ),
    ] {
        let failure = read(&answer(200, &body), false).unwrap_err();
        assert!(failure.reason.contains(part), "{body}: {failure:?}");
        assert_eq!(failure.kind, FailureKind::Away);
    }
    for (status, retry_after, kind) in [
        (400, None, FailureKind::Refused),
        (401, None, FailureKind::Refused),
        (302, None, FailureKind::Away),
        (404, None, FailureKind::Away),
        (500, None, FailureKind::Away),
        (429, None, FailureKind::Away),
        (429, Some(7), FailureKind::Busy(Duration::from_secs(7))),
        (503, Some(7), FailureKind::Busy(Duration::from_secs(7))),
    ] {
        let refusal = json!({"error": "invalid_client\n", "error_description": "not p4ss"});
        let answer = Answer {
            retry_after: retry_after.map(Duration::from_secs),
            ..answer(status, &refusal)
        };
        let failure = read(&answer, false).unwrap_err();
        let expected = format!("the server answered {status} (invalid_client)");
        assert!(failure.reason.starts_with(&expected), "{failure:?}");
        assert!(!failure.reason.contains("p4ss"));
        assert_eq!(failure.kind, kind);
    }
}

#[test]
fn only_who_knows_us_not_refuses() {
    for (status, is_signed, kind) in [
        (400, false, FailureKind::Away),
        (401, false, FailureKind::Away),
        (403, false, FailureKind::Away),
        (400, true, FailureKind::Away),
        (401, true, FailureKind::Refused),
        (403, true, FailureKind::Refused),
    ] {
        let failure = read(&answer(status, &json!({})), is_signed).unwrap_err();
        assert_eq!(failure.kind, kind, "{status} {is_signed}");
    }
}
