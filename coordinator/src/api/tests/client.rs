//! A client of one call a connection, over a real socket.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Status and kind of an error.
    pub(super) fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }
}

/// A body that comes in chunks, or until the connection ends.
pub(super) struct Body {
    reader: BufReader<TcpStream>,
    chunked: bool,
    left: usize,
    over: bool,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.chunked {
            return self.reader.read(buffer);
        }
        if self.over {
            return Ok(0);
        }
        let mut line = String::new();
        if self.left == 0 {
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            self.left = usize::from_str_radix(line.trim(), 16).unwrap();
            if self.left == 0 {
                self.over = true;
                return Ok(0);
            }
        }
        let most = self.left.min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.left -= read;
        if self.left == 0 {
            self.reader.read_line(&mut String::new())?;
        }
        Ok(read)
    }
}

/// Sends a request as it is written, and reads the head of the answer.
pub(super) fn send(address: SocketAddr, request: &[u8]) -> (u16, Vec<(String, String)>, Body) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    // A server that answers before it has read everything may close the connection.
    let _ = stream.write_all(request);
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let chunked =
        headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("transfer-encoding") && value == "chunked");
    (status, headers, Body { reader, chunked, left: 0, over: false })
}

pub(super) fn text(
    method: &str,
    path: &str,
    token: Option<&str>,
    headers: &[(&str, &str)],
    body: Option<&str>,
) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: verger\r\nConnection: close\r\n");
    if let Some(token) = token {
        text.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = body.unwrap_or_default();
    if !body.is_empty() {
        text.push_str("Content-Type: application/json\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
    text
}

pub(super) fn call(address: SocketAddr, request: &[u8]) -> Reply {
    let (status, headers, mut body) = send(address, request);
    let mut text = String::new();
    body.read_to_string(&mut text).unwrap();
    Reply { status, headers, text }
}

/// Messages of a stream that goes on.
pub(super) struct Messages(Lines<BufReader<Body>>);

#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: Option<u64>,
    pub(super) event: String,
    pub(super) data: Value,
}

impl Messages {
    pub(super) fn new(body: Body) -> Self {
        Self(BufReader::new(body).lines())
    }
}

impl Messages {
    /// What still comes, and whether the stream broke off after it.
    pub(super) fn rest(&mut self) -> (String, bool) {
        let mut text = String::new();
        for line in self.0.by_ref() {
            match line {
                Ok(line) => text.push_str(&line),
                Err(_) => return (text, true),
            }
        }
        (text, false)
    }
}

impl Iterator for Messages {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let mut message = Message { id: None, event: String::new(), data: Value::Null };
        for line in self.0.by_ref() {
            let line = line.unwrap();
            if let Some(id) = line.strip_prefix("id: ") {
                message.id = Some(id.parse().unwrap());
            } else if let Some(event) = line.strip_prefix("event: ") {
                message.event = event.to_owned();
            } else if let Some(data) = line.strip_prefix("data: ") {
                message.data = serde_json::from_str(data).unwrap();
            } else if line.is_empty() && !message.event.is_empty() {
                return Some(message);
            }
        }
        None
    }
}
