//! Reads HTTP/1.1 answers, strictly: what a server sends amiss is a finding, nothing to be lenient about.
//!
//! Source: RFC 9112. Only what answers to one request at a time need.

/// A longer head is none of ours.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A longer body is none: a thousand services are shorter.
const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Every answer begins so.
const VERSION: &[u8] = b"HTTP/1.1 ";

/// An answer that is not as HTTP/1.1 has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(&'static str);

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(usize),
    /// In chunks.
    Chunked,
}

/// The head of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) framing: Framing,
    /// The server closes the connection behind this answer.
    pub(super) close: bool,
    /// Length of the head in bytes; the body begins there.
    pub(super) bytes: usize,
}

/// Reads a head; `None` if it has not come in full.
pub(super) fn head(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
    let compared = bytes.len().min(VERSION.len());
    if bytes[..compared] != VERSION[..compared] {
        return Err(Malformed("the answer does not begin with HTTP/1.1"));
    }
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return match bytes.len() > HEAD_BYTES_MAX {
            true => Err(Malformed("the head of the answer is too long")),
            false => Ok(None),
        };
    };
    // With the last line's own end, so that every line has one.
    let mut rest = &bytes[VERSION.len()..end + 2];
    let status = status(take_line(&mut rest)?)?;
    let (mut length, mut chunked, mut close) = (None, false, false);
    while !rest.is_empty() {
        let line = take_line(&mut rest)?;
        let colon = memchr::memchr(b':', line).ok_or(Malformed("a header has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(u8::is_ascii_whitespace) {
            return Err(Malformed("a header's name is empty or has spaces"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let told = decimal(value).ok_or(Malformed("content-length is no number"))?;
            if length.is_some_and(|before| before != told) {
                return Err(Malformed("content-length comes twice and differs"));
            }
            length = Some(told);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("transfer-encoding is not chunked"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") {
            close |= value.eq_ignore_ascii_case(b"close");
        }
    }
    let framing = match (status, length, chunked) {
        (100..200, ..) => return Err(Malformed("an interim answer that nobody asked for")),
        (204 | 304, None | Some(0), false) => Framing::Length(0),
        (204 | 304, ..) => return Err(Malformed("a body where there can be none")),
        (_, Some(_), true) => return Err(Malformed("both content-length and chunks")),
        (_, None, true) => Framing::Chunked,
        (_, Some(length), false) if length <= BODY_BYTES_MAX => Framing::Length(length),
        (_, Some(_), false) => return Err(Malformed("the body of the answer is too long")),
        (_, None, false) => return Err(Malformed("nothing tells where the body ends")),
    };
    Ok(Some(Head {
        status,
        framing,
        close,
        bytes: end + 4,
    }))
}

/// The next line without its end.
fn take_line<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let end = memchr::memmem::find(rest, b"\r\n").ok_or(Malformed("a line has no end"))?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Ok(line)
}

/// `204 No Content`, also with nothing behind the number.
fn status(line: &[u8]) -> Result<u16, Malformed> {
    let (number, reason) = line
        .split_at_checked(3)
        .ok_or(Malformed("the status is no number"))?;
    let number = decimal(number).and_then(|number| u16::try_from(number).ok());
    match number {
        Some(status @ 100..600) if reason.is_empty() || reason.starts_with(b" ") => Ok(status),
        Some(_) | None => Err(Malformed("the status is no number")),
    }
}

fn decimal(text: &[u8]) -> Option<usize> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = digits.then(|| std::str::from_utf8(text).ok()).flatten()?;
    text.parse().ok()
}

/// Takes chunks apart, wherever they were cut on their way.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    state: State,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// In the line that tells a size; nothing yet.
    #[default]
    Start,
    /// In its digits.
    Size(usize),
    /// In what may stand behind it.
    Extension(usize),
    SizeEnd(usize),
    Data(usize),
    DataCr,
    DataLf,
    LastCr,
    LastLf,
    Done,
}

impl Chunks {
    /// Whether the last chunk has come.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Appends what `bytes` hold of the body; how many of them were taken, less than all only
    /// behind the end.
    pub(super) fn feed(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if let State::Data(left) = self.state {
                let taken = left.min(bytes.len() - at);
                body.extend_from_slice(&bytes[at..at + taken]);
                at += taken;
                self.state = match left - taken {
                    0 => State::DataCr,
                    left => State::Data(left),
                };
                continue;
            }
            self.state = self.step(bytes[at])?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, Malformed> {
        let digit = char::from(byte).to_digit(16).map(|digit| digit as usize);
        Ok(match (self.state, byte, digit) {
            (State::Start, _, Some(digit)) => State::Size(digit),
            (State::Size(size), _, Some(digit)) if size <= BODY_BYTES_MAX => {
                State::Size(size * 16 + digit)
            }
            (State::Size(size), b'\r', _) | (State::Extension(size), b'\r', _) => {
                State::SizeEnd(size)
            }
            (State::Size(size), b';' | b' ', _) => State::Extension(size),
            (State::Extension(size), 0x20..0x7f, _) => State::Extension(size),
            (State::SizeEnd(0), b'\n', _) => State::LastCr,
            (State::SizeEnd(size), b'\n', _) => {
                if size > BODY_BYTES_MAX {
                    return Err(Malformed("a chunk is too long"));
                }
                State::Data(size)
            }
            (State::DataCr, b'\r', _) => State::DataLf,
            (State::DataLf, b'\n', _) => State::Start,
            (State::LastCr, b'\r', _) => State::LastLf,
            (State::LastLf, b'\n', _) => State::Done,
            _ => return Err(Malformed("the chunks of the body are broken")),
        })
    }
}

/// An answer that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Reader {
    input: Vec<u8>,
    head: Option<Head>,
    chunks: Chunks,
}

impl Reader {
    /// Where the next piece is to be appended.
    pub(super) fn input(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    /// The next piece has come: the head once the answer is complete, with its body appended to
    /// `body`. Then the reader is ready for the next answer.
    pub(super) fn advance(&mut self, body: &mut Vec<u8>) -> Result<Option<Head>, Malformed> {
        let head = match self.head {
            Some(head) => head,
            None => match head(&self.input)? {
                None => return Ok(None),
                Some(head) => {
                    if head.framing == Framing::Chunked {
                        self.input.drain(..head.bytes);
                    }
                    self.head = Some(head);
                    head
                }
            },
        };
        match head.framing {
            Framing::Length(length) => {
                let end = head.bytes + length;
                if self.input.len() < end {
                    return Ok(None);
                }
                if self.input.len() > end {
                    return Err(Malformed("more than was asked for"));
                }
                body.extend_from_slice(&self.input[head.bytes..]);
            }
            Framing::Chunked => {
                let taken = self.chunks.feed(&self.input, body)?;
                if taken < self.input.len() {
                    return Err(Malformed("more than was asked for"));
                }
                if body.len() > BODY_BYTES_MAX {
                    return Err(Malformed("the body of the answer is too long"));
                }
                if !self.chunks.is_done() {
                    self.input.clear();
                    return Ok(None);
                }
            }
        }
        self.input.clear();
        self.head = None;
        self.chunks = Chunks::default();
        Ok(Some(head))
    }

    /// Gives up what has come behind a head, for a body that has no end.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds an answer in pieces of a length; its status and body.
    fn read(bytes: &[u8], piece: usize) -> Result<Option<(u16, Vec<u8>)>, Malformed> {
        let mut reader = Reader::default();
        let (mut body, mut found) = (Vec::new(), None);
        for piece in bytes.chunks(piece) {
            assert_eq!(found, None, "complete before its end");
            reader.input().extend_from_slice(piece);
            found = reader.advance(&mut body)?.map(|head| head.status);
        }
        Ok(found.map(|status| (status, body)))
    }

    #[test]
    fn answers_are_read_wherever_they_are_split() {
        for (answer, status, body) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
            ("HTTP/1.1 204\r\ndate: x\r\n\r\n", 204, ""),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                200,
                "hello",
            ),
            ("HTTP/1.1 503 \r\ncontent-length:0\r\n\r\n", 503, ""),
            (
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, you ther\r\n0\r\n\r\n",
                200,
                "hello, you ther",
            ),
        ] {
            for piece in 1..=answer.len() {
                let found = read(answer.as_bytes(), piece);
                let expected = Ok(Some((status, body.as_bytes().to_vec())));
                assert_eq!(found, expected, "{answer:?} in pieces of {piece}");
                let cut = read(&answer.as_bytes()[..answer.len() - 1], piece);
                assert_eq!(cut, Ok(None), "{answer:?} without its end");
            }
        }
    }

    #[test]
    fn garbage_is_refused_as_soon_as_it_shows() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(HEAD_BYTES_MAX));
        for garbage in [
            "SSH-2.0-x",
            "HTTP/1.0 200 OK\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: 1\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\nmore",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nmore",
            &long,
        ] {
            assert!(
                read(garbage.as_bytes(), garbage.len()).is_err(),
                "{garbage:?}"
            );
        }
        assert!(head(b"H").is_ok_and(|head| head.is_none()));
        assert!(head(b"h").is_err());
    }

    #[test]
    fn a_reader_is_ready_for_the_next_answer() {
        let mut reader = Reader::default();
        for close in [false, true] {
            let text = match close {
                true => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
                false => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
            };
            let mut body = Vec::new();
            reader.input().extend_from_slice(text.as_bytes());
            let head = reader.advance(&mut body).unwrap().unwrap();
            assert_eq!((head.close, &body[..]), (close, &b"x"[..]));
        }
    }
}
