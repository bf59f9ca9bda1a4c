//! Tokens of an identity server, good and bad.

use std::fs;

use serde_json::{Value, json};

use super::start;
use crate::support::clients::wait_until;
use crate::support::jwt::{Idp, bearer, message, now_s};
use crate::support::{Server, data_dir, mepulse, send};

/// The status that a token gets, and what it is told.
fn judged(server: &Server, token: &str) -> (u16, String) {
    let bearer = bearer(token);
    let url = format!("{}/services", server.root());
    let answer = send("GET", &url, &[("authorization", &bearer)], b"");
    let told = answer.header("www-authenticate").unwrap_or_default();
    (answer.status, told.to_owned())
}

#[test]
fn claims_are_judged_with_leeway() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let more = [
        "--set",
        "auth.issuer=https://idp",
        "--set",
        "auth.audience=mep",
    ];
    let server = start(&dir, &idp, &more);
    let now = now_s();
    let with = |changes: Value| {
        let mut claims = json!({"sub": "a", "iss": "https://idp", "aud": "mep", "exp": now + 600});
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        idp.sign(&claims)
    };
    for good in [
        json!({}),
        json!({"aud": ["x", "mep"]}),
        json!({"exp": now - 10}),
        json!({"exp": f64::from(u32::MAX) + 0.5}),
        json!({"exp": 1e300}),
        json!({"nbf": now + 10}),
        json!({"nbf": now - 10, "iat": now + 999_999}),
    ] {
        assert_eq!(judged(&server, &with(good.clone())).0, 200, "{good}");
    }
    for (bad, told) in [
        (json!({"exp": now - 120}), "expired"),
        (json!({"exp": null}), "exp"),
        (json!({"exp": "tomorrow"}), ""),
        (json!({"exp": -1}), ""),
        (json!({"nbf": now + 120}), "not valid yet"),
        (json!({"aud": "other"}), "aud"),
        (json!({"aud": null}), "aud"),
        (json!({"aud": 7}), ""),
        (json!({"iss": "https://evil"}), "iss"),
        (json!({"iss": null}), "iss"),
        (json!({"sub": null}), "application"),
        (json!({"sub": 7}), ""),
        (json!({"sub": "a/b"}), "application"),
        (json!({"sub": ""}), "application"),
    ] {
        let (status, said) = judged(&server, &with(bad.clone()));
        assert_eq!(status, 401, "{bad}");
        assert!(
            said.contains("error=\"invalid_token\"") && said.contains(told),
            "{bad}: {said}"
        );
    }
    server.stop();
}

#[test]
fn forgeries_and_nonsense_are_refused() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let server = start(&dir, &idp, &[]);
    let claims = json!({"sub": "a", "exp": now_s() + 600});
    let good = idp.sign(&claims);
    assert_eq!(judged(&server, &good).0, 200);
    let (body, signature) = good.rsplit_once('.').unwrap();
    let none = message(&json!({"alg": "none"}), &claims);
    let mut tokens = vec![
        Idp::new(keep.path(), "other").sign(&claims),
        idp.forged(&claims),
        format!("{none}."),
        format!("{none}.{signature}"),
        idp.sign_as(&json!({"alg": "RS256"}), &claims),
        idp.sign_as(&json!({"alg": "ES256", "crit": ["exp"]}), &claims),
        idp.sign_as(
            &json!({"alg": "ES256", "b64": false, "crit": ["b64"]}),
            &claims,
        ),
        idp.sign_as(&json!({"alg": 7}), &claims),
        idp.sign_as(&json!([]), &claims),
        idp.sign(&json!([])),
        idp.sign(&json!("a")),
        body.to_owned(),
        format!("{body}."),
        format!("{body}.AAAA"),
        format!("{good}.{signature}"),
        format!("x{good}"),
        "a.b.c".to_owned(),
        "..".to_owned(),
        ".".repeat(5000),
        "x".to_owned(),
        "%00".to_owned(),
        format!("{good} {good}"),
    ];
    // Another application's claims under this signature.
    let other = message(
        &json!({"alg": "ES256", "typ": "JWT"}),
        &json!({"sub": "b", "exp": now_s() + 600}),
    );
    tokens.push(format!("{other}.{signature}"));
    for token in tokens {
        let (status, said) = judged(&server, &token);
        assert_eq!(status, 401, "{token}: {said}");
    }
    let url = format!("{}/services", server.root());
    for (headers, status) in [
        (vec![("authorization", "Basic YTpi")], 401),
        (vec![("authorization", "Bearer")], 401),
        (vec![("authorization", "")], 401),
        (vec![("authorization", good.as_str())], 401),
        (
            vec![("authorization", "Bearer a"), ("authorization", "Bearer b")],
            400,
        ),
    ] {
        send("GET", &url, &headers, b"").problem(status);
    }
    let lower = format!("bearer {good}");
    assert_eq!(
        send("GET", &url, &[("authorization", &lower)], b"").status,
        200
    );
    // In a query it would be in every log.
    send("GET", &format!("{url}?access_token={good}"), &[], b"").problem(401);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[test]
fn a_token_of_a_megabyte_hurts_nobody() {
    let (keep, dir) = data_dir();
    let idp = Idp::new(keep.path(), "idp");
    let server = start(&dir, &idp, &[]);
    let good = idp.token("a");
    for bytes in [9_000, 60_000, 1 << 20] {
        let claims = json!({"sub": "a", "exp": now_s() + 600, "x": "x".repeat(bytes)});
        let authorization = bearer(&idp.sign(&claims));
        let url = format!("{}/services", server.root());
        let answer =
            crate::support::try_send("GET", &url, &[("authorization", &authorization)], b"");
        // Longer than a head may be, the connection can end before the answer is read.
        if let Ok(answer) = answer {
            assert!([401, 431].contains(&answer.status), "{answer:?}");
        } else {
            assert!(bytes > 60_000);
        }
        assert_eq!(judged(&server, &good).0, 200);
    }
}

#[test]
fn keys_of_a_jwks_file_are_rolled_while_the_server_runs() {
    let (keep, dir) = data_dir();
    let [old, new] = ["old", "new"].map(|name| Idp::new(keep.path(), name));
    let jwks = keep.path().join("jwks.json");
    let put = |keys: Vec<Value>| {
        let fresh = keep.path().join("fresh");
        fs::write(&fresh, json!({"keys": keys}).to_string()).unwrap();
        fs::rename(fresh, &jwks).unwrap();
    };
    let secret = json!({"kty": "oct", "alg": "HS256", "kid": "k", "k": "c2VjcmV0"});
    put(vec![secret.clone(), old.jwk("1")]);
    let jwks_file = format!("auth.jwks_file={}", jwks.display());
    let server = Server::start(&dir, &["--set", "auth.mode=jwt", "--set", &jwks_file]);
    let token = |idp: &Idp, kid: &str| {
        let claims = json!({"sub": "a", "exp": now_s() + 600});
        idp.sign_as(&json!({"alg": "ES256", "kid": kid}), &claims)
    };
    let (first, second) = (token(&old, "1"), token(&new, "2"));
    assert_eq!(judged(&server, &first).0, 200);
    assert_eq!(judged(&server, &second).0, 401);
    assert_eq!(judged(&server, &token(&old, "2")).0, 401);
    put(vec![old.jwk("1"), new.jwk("2")]);
    wait_until("the new key is known", || judged(&server, &second).0 == 200);
    assert_eq!(judged(&server, &first).0, 200);
    // A key that is gone ends its tokens, also those seen before.
    put(vec![new.jwk("2")]);
    wait_until("the old key is gone", || judged(&server, &first).0 == 401);
    assert_eq!(judged(&server, &second).0, 200);
    fs::write(&jwks, "{").unwrap();
    wait_until("it says so", || server.log().contains("jwks.json"));
    assert_eq!(judged(&server, &second).0, 200);
    server.stop();
}

#[test]
fn a_server_does_not_start_with_keys_that_are_none() {
    let (keep, dir) = data_dir();
    let file = keep.path().join("key");
    let failed = |setting: &str| {
        let output = mepulse()
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--set",
                "auth.mode=jwt",
                "--data-dir",
            ])
            .arg(&dir)
            .args(["--set", setting])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let path = file.display();
    let jwks = format!("auth.jwks_file={path}");
    let pem = format!(r#"auth.keys=[{{ algorithm = "RS256", file = "{path}" }}]"#);
    for content in [
        None,
        Some(""),
        Some("{"),
        Some(r#"{"keys":[]}"#),
        Some("no PEM"),
    ] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        for setting in [&jwks, &pem] {
            let said = failed(setting);
            assert!(said.contains(&path.to_string()), "{content:?}: {said}");
        }
    }
    // A key of another kind than was said.
    let idp = Idp::new(keep.path(), "idp");
    let said = failed(&format!(
        r#"auth.keys=[{{ algorithm = "RS256", file = "{}" }}]"#,
        idp.file.display()
    ));
    assert!(said.contains("idp.pem"), "{said}");
    let said = failed(&format!(
        r#"auth.keys=[{{ algorithm = "HS256", file = "{path}" }}]"#
    ));
    assert!(said.contains("HS256"), "{said}");
}
