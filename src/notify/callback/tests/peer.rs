//! A server that does what a script says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::callback;
use crate::domain::subscription::CallbackUri;

/// What becomes of a connection after an answer.
#[derive(Clone, Copy)]
pub(super) enum Then {
    Next,
    Close,
    Hang,
}

/// The answer to the request of this number, counted over all connections.
pub(super) type Script = fn(usize) -> (Vec<u8>, Then);

/// A server that answers by a script.
#[derive(Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Peer {
    pub(super) async fn start(script: Script) -> Self {
        Self::start_on("127.0.0.1:0", None, script).await
    }

    pub(super) async fn start_on(listen: &str, tls: Option<TlsAcceptor>, script: Script) -> Self {
        let listener = TcpListener::bind(listen).await.unwrap();
        let peer = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            requests: Arc::default(),
        };
        let accepting = peer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (peer, tls) = (accepting.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => peer.talk(stream, script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                peer.talk(stream, script).await;
                            }
                        }
                    }
                });
            }
        });
        peer
    }

    async fn talk(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin, script: Script) {
        while let Some(request) = read_request(&mut stream).await {
            let number = {
                let mut requests = self.requests.lock().unwrap();
                requests.push(request);
                requests.len() - 1
            };
            let (answer, then) = script(number);
            // A caller that has heard enough hangs up.
            let _ = stream.write_all(&answer).await;
            match then {
                Then::Next => {}
                Then::Close => break,
                Then::Hang => std::future::pending().await,
            }
        }
    }

    pub(super) fn callback(&self) -> CallbackUri {
        callback(&format!("http://{}/notify?a=b", self.address))
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
