//! Whoever may publish in the NATS server is no coordinator: what he says costs nothing but a figure.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::nats::NatsServer;
use crate::place::{Flow, full};
use crate::support::{free_port, json, run};

/// Longest message that workers read.
const MESSAGE_BYTES_MAX: usize = 4096;

/// A connection that speaks the server's own protocol, and hears what coordinators say.
struct Stranger {
    reader: BufReader<TcpStream>,
}

impl Stranger {
    fn connect(nats: &NatsServer) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", nats.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut stranger = Self { reader: BufReader::new(stream) };
        stranger.say(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB verger.*.work.* 1\r\n");
        stranger
    }

    fn say(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// The next message of a coordinator: subject and bytes.
    fn hear(&mut self) -> (String, Vec<u8>) {
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).unwrap() > 0, "the server closed the connection");
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PING"] => self.say(b"PONG\r\n"),
                [verb @ ("MSG" | "HMSG"), subject, .., total] => {
                    let (total, head) = (total.parse::<usize>().unwrap(), words[words.len() - 2]);
                    let head = if *verb == "HMSG" { head.parse::<usize>().unwrap() } else { 0 };
                    let mut bytes = vec![0; total + 2];
                    self.reader.read_exact(&mut bytes).unwrap();
                    return ((*subject).to_owned(), bytes[head..total].to_vec());
                }
                _ => {}
            }
        }
    }

    fn publish(&mut self, subject: &str, bytes: &[u8]) {
        self.say(format!("PUB {subject} {}\r\n", bytes.len()).as_bytes());
        self.say(bytes);
        self.say(b"\r\n");
    }
}

/// A worker's own figure.
fn figure(port: u16, row: &str) -> u64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(row)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("{row} is not in {text}"))
}

#[test]
fn forged_replayed_and_oversized_messages_in_the_real_stream_cost_nothing_but_a_figure() {
    let Some(mut flow) = Flow::start() else { return };
    let _golden = flow.add("epochs");
    let port = free_port();
    flow.work_with("hand-1", &["--listen", &format!("127.0.0.1:{port}")]);
    flow.waits_until_listed("hand-1", "ready");
    let mut stranger = Stranger::connect(&flow.nats);
    run(flow.fleet.verger(&full("epochs")).args(["--key", "one"]));
    let (subject, genuine) = stranger.hear();
    let ended = json(&run(flow.fleet.verger(&full("epochs")).args(["--key", "one", "--wait", "--json"])));
    assert_eq!(ended["outcome"], "done", "{ended}");
    let (opened, completed) = (flow.events("epochs", "cycle_opened"), flow.events("epochs", "job_completed"));

    let mut forged = genuine.clone();
    *forged.last_mut().unwrap() ^= 1;
    let unsigned = &genuine[..genuine.len() - 72];
    let oversized = [&genuine[..], &vec![0; MESSAGE_BYTES_MAX]].concat();
    for _ in 0..3 {
        for message in [&forged[..], unsigned, b"{}", &oversized, &genuine] {
            stranger.publish(&subject, message);
        }
    }
    let rejected = |reason: &str| figure(port, &format!("verger_work_queue_rejected_total{{reason=\"{reason}\"}}"));
    let began = Instant::now();
    while rejected("forged") < 3 || rejected("unsigned") < 3 || rejected("malformed") < 3 {
        assert!(began.elapsed() < Duration::from_secs(30), "they are not heard of");
        std::thread::sleep(Duration::from_millis(200));
    }
    // The stream takes no such message in the first place: no worker has to read it.
    assert_eq!(rejected("oversized"), 0);
    // What was played again woke somebody for nothing.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((rejected("oversized"), rejected("malformed")), (0, 3), "nor did it come later as something else");
    assert_eq!(flow.events("epochs", "cycle_opened"), opened);
    assert_eq!(flow.events("epochs", "job_completed"), completed);
    assert!(flow.events("epochs", "job_failed").is_empty() && flow.events("epochs", "request_dropped").is_empty());

    // In the middle of a cycle, too.
    run(flow.fleet.verger(&full("epochs")).args(["--key", "two"]));
    for _ in 0..50 {
        stranger.publish(&subject, &forged);
        stranger.publish(&subject, &genuine);
    }
    let ended = json(&run(flow.fleet.verger(&full("epochs")).args(["--key", "two", "--wait", "--json"])));
    assert_eq!(ended["outcome"], "done", "{ended}");
    let job = |event: &Value| format!("{}/{}", event["ticket"]["cycle"], event["ticket"]["job"]);
    let mut done: Vec<String> = flow.events("epochs", "job_completed").iter().map(job).collect();
    let all = done.len();
    done.sort();
    done.dedup();
    assert_eq!(done.len(), all, "a job was done twice");
    assert_eq!(flow.events("epochs", "cycle_opened").len(), opened.len() + 1);
    flow.verifies("epochs");
}
