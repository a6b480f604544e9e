//! An HTTP server that answers by script, for stores that no test can have.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use verger_kopia::storage::secret::Secret;
use verger_kopia::storage::settings::{S3Credentials, S3Settings};

/// One request as it came in.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Status, headers, body. A `content-length` among the headers replaces the true one.
#[derive(Debug, Clone)]
pub struct Answer(pub u16, pub Vec<(&'static str, String)>, pub Vec<u8>);

pub fn error(status: u16, code: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by script</Message></Error>");
    Answer(status, vec![("content-type", "application/xml".to_owned())], body.into_bytes())
}

pub fn xml(body: &str) -> Answer {
    Answer(200, vec![("content-type", "application/xml".to_owned())], body.as_bytes().to_vec())
}

type Script = dyn Fn(&Request) -> Answer + Send + Sync;

/// A listening server; its thread ends with the process.
pub struct ScriptServer {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl ScriptServer {
    pub fn start(script: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_over(Some, script)
    }

    /// With something between the sockets and the script, such as TLS.
    pub fn start_over<S: Read + Write>(
        wrap: impl Fn(TcpStream) -> Option<S> + Send + Sync + 'static,
        script: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, wrap, log): (Arc<Script>, _, _) = (Arc::new(script), Arc::new(wrap), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, wrap, log) = (Arc::clone(&script), Arc::clone(&wrap), Arc::clone(&log));
                std::thread::spawn(move || wrap(stream).map(|stream| serve(stream, &*script, &log)));
            }
        });
        Self { port, seen }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            credentials: S3Credentials::Static {
                access_key: "key".to_owned(),
                secret_key: Secret::new("hush-hush"),
                session_token: None,
            },
            ..S3Settings::default()
        }
    }

    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(stream: impl Read + Write, script: &Script, log: &Mutex<Vec<Request>>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream) {
        log.lock().unwrap().push(request.clone());
        let Answer(status, headers, body) = script(&request);
        let mut head = format!("HTTP/1.1 {status} x\r\n");
        if !headers.iter().any(|(name, _)| *name == "content-length") {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        for (name, value) in &headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let body = if request.method == "HEAD" { &[][..] } else { &body };
        let writer = stream.get_mut();
        let sent =
            writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body)).and_then(|()| writer.flush());
        let promised = headers.iter().find(|(name, _)| *name == "content-length");
        let cut = request.method != "HEAD" && promised.is_some_and(|(_, length)| *length != body.len().to_string());
        if sent.is_err() || cut {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<impl Read>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = request.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}
