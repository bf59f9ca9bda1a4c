//! A reader of server-sent events, by the book and nothing more.
//!
//! Source: HTML Living Standard, 9.2.6; chunks: RFC 9112, 7.1.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::Server;

/// One event as dispatched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// The id that stood with it.
    pub(crate) id: Option<String>,
    /// `event`
    pub(crate) kind: String,
    /// `data`
    pub(crate) data: Value,
}

impl Message {
    /// Id, change, name and state of the one service that a notification is about.
    pub(crate) fn tells(&self) -> (&str, &str, &str, &str) {
        assert_eq!(self.kind, "SerAvailabilityNotification", "{self:?}");
        let references = self.data["serviceReferences"].as_array().unwrap();
        assert_eq!(references.len(), 1, "{self:?}");
        let text = |name: &str| references[0][name].as_str().unwrap();
        (
            text("serInstanceId"),
            text("changeType"),
            text("serName"),
            text("state"),
        )
    }

    /// The id as a number.
    pub(crate) fn sequence(&self) -> u64 {
        self.id.as_deref().unwrap().parse().unwrap()
    }
}

/// An open stream.
pub(crate) struct Watch {
    stream: BufReader<TcpStream>,
    /// What is left of the chunk.
    left: usize,
    /// What a browser would send as `Last-Event-ID`.
    pub(crate) last_id: Option<String>,
}

impl Watch {
    /// Opens the stream; it is open, and counts from there, when this returns. `query` begins with
    /// `?` or is empty.
    pub(crate) fn open(server: &Server, query: &str, last_id: Option<&str>) -> Self {
        let header = last_id.map_or_else(String::new, |id| format!("last-event-id: {id}\r\n"));
        Self::open_with(server, query, last_id, &header)
    }

    /// The same, for whoever this token is for.
    pub(crate) fn open_as(server: &Server, token: &str) -> Self {
        let header = format!("authorization: Bearer {token}\r\n");
        Self::open_with(server, "", None, &header)
    }

    fn open_with(server: &Server, query: &str, last_id: Option<&str>, header: &str) -> Self {
        let mut stream = server.connect();
        let head = format!(
            "GET /mec_service_mgmt/v1/services/events{query} HTTP/1.1\r\nhost: x\r\n{header}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut watch = Self {
            stream: BufReader::new(stream),
            left: 0,
            last_id: last_id.map(str::to_owned),
        };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(watch.stream.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let head = head.to_lowercase();
        for line in [
            "http/1.1 200 ok\r\n",
            "\r\ncontent-type: text/event-stream\r\n",
            "\r\ncache-control: no-store\r\n",
            "\r\ntransfer-encoding: chunked\r\n",
        ] {
            assert!(head.contains(line), "{line:?} is not in {head}");
        }
        assert_eq!(watch.line().as_deref(), Some("retry: 1000"));
        assert_eq!(watch.block(), Some(None), "nothing but where it stands");
        watch
    }

    /// Opens it again, as a browser does.
    pub(crate) fn reopen(&self, server: &Server, query: &str) -> Self {
        Self::open(server, query, self.last_id.as_deref())
    }

    /// The next event; `None`: the stream has ended.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.block()? {
                return Some(message);
            }
        }
    }

    /// The next event, and it is there.
    pub(crate) fn event(&mut self) -> Message {
        self.next().expect("the stream goes on")
    }

    /// Waits for a sign that the stream is alive, with nothing to tell.
    pub(crate) fn sign(&mut self) {
        assert_eq!(self.block(), Some(None), "a sign of life");
    }

    /// Waits for a sign of life, or the end; whether it was the former.
    pub(crate) fn sign_or_end(&mut self) -> bool {
        match self.block() {
            None => false,
            Some(told) => {
                assert_eq!(told, None, "nothing to tell");
                true
            }
        }
    }

    /// The lines until a blank one; `Some(None)` where nothing is to be dispatched.
    fn block(&mut self) -> Option<Option<Message>> {
        let (mut id, mut kind, mut data) = (None, None, None);
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                // A comment.
                "" => {}
                "id" => assert_eq!(id.replace(value), None, "one id"),
                "event" => assert_eq!(kind.replace(value), None, "one kind"),
                "data" => assert_eq!(data.replace(value), None, "one line of data"),
                other => panic!("an event has no field {other:?}: {line:?}"),
            }
        }
        if id.is_some() {
            self.last_id.clone_from(&id);
        }
        let Some(data) = data else {
            assert_eq!(kind, None, "an event without data is not dispatched");
            return Some(None);
        };
        Some(Some(Message {
            id,
            kind: kind.unwrap(),
            data: serde_json::from_str(&data).unwrap(),
        }))
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Some(String::from_utf8(line).unwrap()),
                byte => line.push(byte),
            }
        }
    }

    /// The next byte of the body; `None` at its end, whether said or not.
    fn byte(&mut self) -> Option<u8> {
        if self.left == 0 {
            let mut size = String::new();
            there(self.stream.read_line(&mut size))?;
            self.left = usize::from_str_radix(size.trim_end(), 16).ok()?;
            if self.left == 0 {
                return None;
            }
        }
        let mut byte = [0];
        there(self.stream.read_exact(&mut byte))?;
        self.left -= 1;
        if self.left == 0 {
            there(self.stream.read_exact(&mut [0; 2]))?;
        }
        Some(byte[0])
    }
}

/// `None` at the end; a server that is killed resets its connections.
fn there<T>(read: std::io::Result<T>) -> Option<T> {
    match read {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("waited too long: {error}"),
        read => read.ok(),
    }
}
