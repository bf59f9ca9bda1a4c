//! The same API over HTTP/2 with prior knowledge, on the same port.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::load::stored;
use crate::support::{LINGERING, Server, data_dir, liveness_of, self_of, service};

const ACTIVE: &str = r#"{"state":"ACTIVE"}"#;

/// One connection; clones share it.
#[derive(Clone)]
struct Client(SendRequest<Full<Bytes>>);

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    content_type: Option<String>,
    body: Bytes,
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let address = server.url.strip_prefix("http://").unwrap();
        let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn send(&mut self, method: Method, uri: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .body(Full::new(body.into()))
            .unwrap();
        self.0.ready().await.unwrap();
        let answer = self.0.send_request(request).await.unwrap();
        assert_eq!(answer.version(), Version::HTTP_2);
        let content_type = answer.headers().get("content-type");
        Answer {
            status: answer.status(),
            content_type: content_type.map(|value| value.to_str().unwrap().to_owned()),
            body: answer.into_body().collect().await.unwrap().to_bytes(),
        }
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn check_problem(&self, status: u16) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(
            self.content_type.as_deref(),
            Some("application/problem+json"),
            "{self:?}"
        );
        assert_eq!(self.json()["status"], status);
    }
}

#[tokio::test]
async fn registering_beating_and_removing_work_over_http2() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let mut client = Client::connect(&server).await;
    let collection = format!("{}/services", server.app("app"));
    let body = service("cam", Some(3600)).to_string();
    let answer = client.send(Method::POST, &collection, body).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    let info = answer.json();
    let (own, liveness) = (self_of(&server, &info), liveness_of(&server, &info));
    let answer = client.send(Method::PATCH, &liveness, ACTIVE).await;
    assert_eq!(
        (answer.status, answer.body.len()),
        (StatusCode::NO_CONTENT, 0)
    );
    let answer = client.send(Method::GET, &liveness, "").await;
    assert_eq!(answer.json()["state"], "ACTIVE");
    let renamed = service("door", Some(3600)).to_string();
    let answer = client.send(Method::PUT, &own, renamed).await;
    assert_eq!(answer.json()["serName"], "door");
    let answer = client.send(Method::GET, &collection, "").await;
    assert_eq!(answer.json().as_array().unwrap().len(), 1);
    assert_eq!(stored(&dir)[0]["beats"], 1);
    let answer = client.send(Method::DELETE, &own, "").await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT);
    client.send(Method::GET, &own, "").await.check_problem(404);
    server.stop();
}

#[tokio::test]
async fn more_beats_than_streams_share_one_connection() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let info = server.register("app", &service("cam", Some(3600)));
    let client = Client::connect(&server).await;
    let mut beats = JoinSet::new();
    for _ in 0..600 {
        let (mut client, uri) = (client.clone(), liveness_of(&server, &info));
        beats.spawn(async move { client.send(Method::PATCH, &uri, ACTIVE).await.status });
    }
    while let Some(status) = beats.join_next().await {
        assert_eq!(status.unwrap(), StatusCode::NO_CONTENT);
    }
    server.kill();
    assert_eq!(stored(&dir)[0]["beats"], 600);
}

#[tokio::test]
async fn bad_requests_cost_their_own_stream_only() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let info = server.register("app", &service("cam", Some(3600)));
    let liveness = liveness_of(&server, &info);
    let mut client = Client::connect(&server).await;
    for (method, uri, body, status) in [
        (Method::GET, format!("{}/nowhere", server.url), vec![], 404),
        (Method::PUT, liveness.clone(), vec![], 405),
        (Method::PATCH, liveness.clone(), b"\xff".to_vec(), 400),
        (Method::PATCH, liveness.clone(), vec![b' '; 100_000], 413),
        (
            Method::GET,
            format!("{}/{}", server.url, "x".repeat(9000)),
            vec![],
            414,
        ),
    ] {
        let answer = client.send(method, &uri, body).await;
        answer.check_problem(status);
        let answer = client.send(Method::PATCH, &liveness, ACTIVE).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "after {status}");
    }
    assert_eq!(stored(&dir)[0]["beats"], 5);
}

#[tokio::test]
async fn connect_over_http2_is_refused_and_no_panic() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let mut client = Client::connect(&server).await;
    let answer = client.send(Method::CONNECT, "example.com:80", "").await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    let answer = client
        .send(Method::GET, &format!("{}/healthz", server.url), "")
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

#[tokio::test]
async fn head_over_http2_has_no_body() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &[]);
    let info = server.register("app", &service("cam", Some(3600)));
    let mut client = Client::connect(&server).await;
    for uri in [
        self_of(&server, &info),
        liveness_of(&server, &info),
        format!("{}/services", server.root()),
        format!("{}/healthz", server.url),
        format!("{}/nowhere", server.url),
    ] {
        let full = client.send(Method::GET, &uri, "").await;
        let head = client.send(Method::HEAD, &uri, "").await;
        assert_eq!(
            (head.status, head.content_type, head.body.len()),
            (full.status, full.content_type, 0),
            "{uri}"
        );
    }
}

#[tokio::test]
async fn a_stop_finishes_what_is_under_way_over_http2() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &LINGERING);
    let info = server.register("app", &service("cam", Some(3600)));
    let (idle, mut client) = (
        Client::connect(&server).await,
        Client::connect(&server).await,
    );
    let uri = liveness_of(&server, &info);
    let beating = tokio::spawn(async move { client.send(Method::PATCH, &uri, ACTIVE).await });
    while server.metric("mepulse_queue_depth") == 0 {
        assert!(!beating.is_finished(), "the beat was to wait in the queue");
        tokio::task::yield_now().await;
    }
    server.signal("TERM");
    assert_eq!(beating.await.unwrap().status, StatusCode::NO_CONTENT);
    tokio::task::spawn_blocking(|| server.ends_well())
        .await
        .unwrap();
    drop(idle);
    assert_eq!(stored(&dir)[0]["beats"], json!(1));
}

#[tokio::test]
async fn a_quiet_stream_of_events_is_not_taken_for_one_that_is_not_read() {
    let (_keep, dir) = data_dir();
    let server = Server::start(&dir, &["--set", "server.idle_timeout_ms=1000"]);
    let mut client = Client::connect(&server).await;
    let uri = format!("{}/services/events", server.root());
    let request = Request::builder().uri(uri).body(Full::default()).unwrap();
    client.0.ready().await.unwrap();
    let answer = client.0.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut body = answer.into_body();
    // So many signs of life are several timeouts.
    for _ in 0..8 {
        let part = body.frame().await.expect("it goes on").unwrap();
        assert!(part.is_data(), "{part:?}");
    }
}
