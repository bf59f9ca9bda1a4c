//! A token endpoint on a port of its own; time is the runtime's, and paused.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::agent::config::Server;
use crate::agent::line::Http;
use crate::clock::{Machine, ManualMachine};
use crate::domain::Steady;

/// Answers the n-th request as `script` says: status and body; without a status never.
struct Endpoint {
    url: String,
    asked: Arc<AtomicUsize>,
    secret: tempfile::NamedTempFile,
    fetched: Fetched,
    machine: ManualMachine,
}

impl Endpoint {
    async fn start(script: impl Fn(usize) -> (u16, String) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let (status, body) = script(count.fetch_add(1, Ordering::SeqCst));
                if status == 0 {
                    held.push(stream);
                    continue;
                }
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "s3cret").unwrap();
        let path = secret.path().display();
        let server = format!("url = '{url}'\noauth2 = {{ client_secret_file = '{path}' }}");
        let server: Server = toml::from_str(&server).unwrap();
        let grant = Grant::of(&server, "app").unwrap().unwrap();
        let http = Http::new(&server, Duration::from_secs(5), 0).unwrap();
        let machine = ManualMachine::new();
        let clock = Clock::anchored(
            Arc::new(machine.clone()),
            Steady::from_ms(0),
            &machine.read(),
        );
        let line = Line::new(http);
        Self {
            url,
            asked,
            secret,
            fetched: Fetched::new(grant, line, 5_000, TokenMeters::default(), clock),
            machine,
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn header(&self) -> Result<String, String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let header = self.fetched.header(deadline).await;
        let header = header.map_err(|Lost(reason)| reason)?;
        Ok(header.to_str().unwrap().to_owned())
    }

    async fn refused(&self, header: &str) -> Option<String> {
        let deadline = Instant::now() + Duration::from_secs(5);
        let header = HeaderValue::from_str(header).unwrap();
        let other = self.fetched.refused(Some(&header), deadline).await?;
        Some(other.to_str().unwrap().to_owned())
    }
}

fn token(number: usize, secs: u64) -> (u16, String) {
    let body = format!("{{\"access_token\":\"t{number}\",\"expires_in\":{secs}}}");
    (200, body)
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn one_fetch_serves_all_and_nothing_is_fetched_before_it_is_needed() {
    let endpoint = Endpoint::start(|n| token(n, 300)).await;
    pass(1000).await;
    assert_eq!(endpoint.asked(), 0);
    assert!(endpoint.fetched.hand_out().is_none());
    let all = futures_util::future::join_all((0..20).map(|_| endpoint.header())).await;
    assert!(
        all.iter().all(|it| it.as_deref() == Ok("Bearer t0")),
        "{all:?}"
    );
    assert_eq!(endpoint.asked(), 1);
    let handed = endpoint.fetched.hand_out().unwrap();
    assert!((295..=300).contains(&handed.ends_in_s.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_it_ends_whoever_asks() {
    let endpoint = Endpoint::start(|n| token(n, 300)).await;
    assert_eq!(endpoint.header().await.unwrap(), "Bearer t0");
    pass(165).await;
    assert_eq!(endpoint.asked(), 1);
    pass(40).await;
    assert_eq!(endpoint.asked(), 2);
    assert_eq!(endpoint.header().await.unwrap(), "Bearer t1");
    pass(3 * 200).await;
    assert!((4..=6).contains(&endpoint.asked()), "{}", endpoint.asked());
}

#[tokio::test(start_paused = true)]
async fn while_renewals_fail_the_old_token_is_used_until_its_end() {
    let endpoint = Endpoint::start(|n| match n {
        0 => token(0, 300),
        1..15 => (500, String::new()),
        _ => token(n, 300),
    })
    .await;
    let began = Instant::now();
    let first = endpoint.header().await.unwrap();
    while began.elapsed() < Duration::from_secs(295) {
        assert_eq!(endpoint.header().await, Ok(first.clone()));
        pass(5).await;
    }
    assert!((4..=15).contains(&endpoint.asked()), "{}", endpoint.asked());
    let error = endpoint.fetched.error().unwrap();
    assert!(
        error.contains(&endpoint.url) && error.contains("500"),
        "{error}"
    );
    // From its end on every request tries for itself, and the first that succeeds is enough.
    pass(10).await;
    let mut tries = 0;
    while let Err(reason) = endpoint.header().await {
        assert!(reason.contains("500"), "{reason}");
        tokio::time::sleep(Duration::from_millis(250)).await;
        tries += 1;
        assert!(tries < 20);
    }
    assert_eq!(endpoint.fetched.error(), None);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_holds_nobody_up_while_the_old_token_holds() {
    let endpoint = Endpoint::start(|n| match n {
        0 => token(0, 60),
        _ => (0, String::new()),
    })
    .await;
    endpoint.header().await.unwrap();
    pass(50).await;
    assert!(endpoint.asked() > 1);
    let before = Instant::now();
    assert_eq!(endpoint.header().await.unwrap(), "Bearer t0");
    assert_eq!(before.elapsed(), Duration::ZERO);
    pass(20).await;
    let before = Instant::now();
    assert!(endpoint.header().await.is_err());
    assert!(before.elapsed() <= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_not_taken_is_replaced_once_for_all() {
    let endpoint = Endpoint::start(|n| token(n, 300)).await;
    endpoint.header().await.unwrap();
    pass(10).await;
    let all = futures_util::future::join_all((0..8).map(|_| endpoint.refused("Bearer t0"))).await;
    assert!(
        all.iter().all(|it| it.as_deref() == Some("Bearer t1")),
        "{all:?}"
    );
    assert_eq!(endpoint.asked(), 2);
    // Whoever comes late has another one already.
    assert_eq!(endpoint.refused("Bearer t0").await.unwrap(), "Bearer t1");
    assert_eq!(endpoint.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_always_says_401_is_no_reason_for_a_storm() {
    let endpoint = Endpoint::start(|n| token(n, 300)).await;
    let mut header = endpoint.header().await.unwrap();
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if let Some(other) = endpoint.refused(&header).await {
            header = other;
        }
    }
    assert!((3..=16).contains(&endpoint.asked()), "{}", endpoint.asked());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_at_once_and_not_asked_for_again_and_again() {
    let body = "{\"error\":\"invalid_client\"}";
    let endpoint = Endpoint::start(move |_| (401, body.to_owned())).await;
    for _ in 0..100 {
        let reason = endpoint.header().await.unwrap_err();
        assert!(reason.contains("401 (invalid_client)"), "{reason}");
        assert!(!reason.contains("s3cret"));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!((3..=6).contains(&endpoint.asked()), "{}", endpoint.asked());
}

#[tokio::test(start_paused = true)]
async fn another_secret_ends_the_pause_after_refusals() {
    let refusal = "{\"error\":\"invalid_client\"}";
    let endpoint = Endpoint::start(move |n| match n {
        0..8 => (401, refusal.to_owned()),
        _ => token(n, 300),
    })
    .await;
    while endpoint.asked() < 8 {
        let _ = endpoint.header().await;
        pass(1).await;
    }
    assert!(endpoint.fetched.next_try_in_ms().unwrap() > 10_000);
    std::fs::write(endpoint.secret.path(), "another one").unwrap();
    pass(3).await;
    assert_eq!(endpoint.header().await.unwrap(), "Bearer t8");
    assert_eq!(endpoint.fetched.next_try_in_ms(), None);
}

#[tokio::test(start_paused = true)]
async fn without_a_token_one_fetch_that_hangs_holds_up_no_other() {
    let endpoint = Endpoint::start(|n| match n {
        0 => (0, String::new()),
        _ => token(n, 300),
    })
    .await;
    endpoint.fetched.promise(Duration::from_millis(900));
    let before = Instant::now();
    assert_eq!(endpoint.header().await.unwrap(), "Bearer t1");
    assert!(before.elapsed() <= Duration::from_millis(1000));
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_also_while_the_machine_is_suspended() {
    let endpoint = Endpoint::start(|n| token(n, 300)).await;
    endpoint.header().await.unwrap();
    endpoint.machine.sleep_ms(100_000);
    assert!(endpoint.fetched.ends_in_s().unwrap() <= 200);
    endpoint.machine.sleep_ms(250_000);
    assert!(endpoint.fetched.hand_out().is_none());
    assert_eq!(endpoint.header().await.unwrap(), "Bearer t1");
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_401_is_handed_out_to_nobody() {
    let endpoint = Endpoint::start(|n| match n {
        0 | 2.. => token(n, 300),
        _ => (500, String::new()),
    })
    .await;
    let first = endpoint.header().await.unwrap();
    assert!(endpoint.fetched.hand_out().is_some());
    pass(1).await;
    assert_eq!(endpoint.refused(&first).await, None);
    assert!(endpoint.fetched.hand_out().is_none());
    pass(3).await;
    let handed = endpoint.fetched.hand_out().unwrap();
    assert_eq!(handed.header, "Bearer t2");
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_tokens_again_and_again_sets_no_pace() {
    let endpoint = Endpoint::start(|_| (500, String::new())).await;
    for _ in 0..600 {
        assert!(endpoint.fetched.hand_out().is_none());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((3..=9).contains(&endpoint.asked()), "{}", endpoint.asked());
}
