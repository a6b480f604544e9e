//! Coordinators with good certificates, with others, and strangers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::api::Members as _;
use crate::raft::members::Members;
use crate::raft::network::clocks::Clocks;
use crate::raft::network::{Answer, Call, Request, Transport, Unreached};
use crate::raft::node::{Node, SubmitError};
use crate::raft::testing::{Cluster, proposal};
use crate::raft::types::Peer;
use verger_kopia::clock::{Clock as _, SetClock, SystemClock};
use verger_proto::CommandId;

/// An authority, and files that it signed.
struct Authority {
    folder: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let (folder, key) = (tempfile::tempdir().unwrap(), KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sign(&self, stem: &str, names: &[&str], year_of_end: i32) -> PeerFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year_of_end, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let (cert, pem) = (self.path(&format!("{stem}.pem")), self.path(&format!("{stem}.key")));
        std::fs::write(&cert, certificate.pem()).unwrap();
        std::fs::write(&pem, key.serialize_pem()).unwrap();
        PeerFiles { certificate: cert, key: pem, authority: self.path("ca.pem") }
    }

    fn good(&self, id: u64) -> Security {
        Security::Mutual(Credentials::open(self.sign(&node_name(id), &[&node_name(id)], 2100)).unwrap())
    }
}

/// A cluster of one that is reached at an address.
async fn served(security: Security) -> (Cluster, String) {
    let cluster = Cluster::new(1).await;
    let address = serving(security, &cluster).await;
    (cluster, address)
}

async fn serving(security: Security, cluster: &Cluster) -> String {
    cluster.leader().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(serve(listener, security, cluster.nodes[&1].clone(), std::future::pending()));
    address
}

fn clocks() -> Clocks {
    Clocks::new(Arc::new(SystemClock))
}

fn call(from: u64, cluster: &str, to: u64) -> Call {
    let (standing, known) = Default::default();
    let request = Request::Ledger { from: 0, bytes_max: 1 };
    Call { cluster: cluster.to_owned(), from, to, standing, known, request, level: 0, head: None }
}

async fn ask(security: Security, address: &str, from: u64) -> Result<Answer, Unreached> {
    let client = PeerClient::new(security, clocks());
    let asked = client.call(&Peer::at(address), call(from, "attic", 1), Duration::from_secs(5)).await;
    asked.map(|reply| reply.answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_the_authority_opens_and_all_else_does_not() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (mut cluster, address) = served(authority.good(1)).await;
    assert!(matches!(ask(authority.good(2), &address, 2).await, Ok(Answer::Ledger(_))));
    // By address instead of by name.
    let files = authority.sign("by-address", &["127.0.0.1"], 2100);
    assert!(ask(Security::Mutual(Credentials::open(files).unwrap()), &address, 2).await.is_ok());
    let expired = authority.sign("expired", &["node-2"], 2021);
    let foreign = PeerFiles { authority: authority.path("ca.pem"), ..other.sign("foreign", &["node-2"], 2100) };
    for (what, files) in [("expired", expired), ("foreign", foreign)] {
        let refused = ask(Security::Mutual(Credentials::open(files).unwrap()), &address, 2).await;
        assert!(refused.is_err(), "{what}: {refused:?}");
    }
    // The certificate is good, and another node's: node 1 is known here, and this is not it.
    let stolen = ask(authority.good(2), &address, 1).await.unwrap_err();
    assert!(stolen.0.contains("403") && stolen.0.contains("node-1"), "{stolen}");
    // The other side's certificate is looked at as well.
    let (mut second, wrong) = served(authority.good(3)).await;
    let refused = ask(authority.good(2), &wrong, 2).await.unwrap_err();
    assert!(refused.0.contains("TLS"), "{refused}");
    for (cluster, to) in [("cellar", 1), ("attic", 2)] {
        let client = PeerClient::new(authority.good(2), clocks());
        let mut peer_call = call(9, cluster, 1);
        peer_call.cluster = cluster.to_owned();
        peer_call.to = to;
        let peer = Peer::at(&address);
        let reply = match to {
            1 => client.call(&peer, peer_call, Duration::from_secs(5)).await.unwrap().answer,
            // A certificate for node 2 is asked of node 1: already the connection is refused.
            _ => {
                assert!(client.call(&peer, peer_call, Duration::from_secs(5)).await.is_err());
                continue;
            }
        };
        assert!(matches!(reply, Answer::Refused(_)), "{cluster} {to}");
    }
    cluster.stop_all().await;
    second.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_plain_text_and_no_certificate_get_nowhere_and_do_no_harm() {
    let authority = Authority::new();
    let (mut cluster, address) = served(authority.good(1)).await;
    for garbage in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0u8; 4096], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0x16, 3, 1, 0xff, 0xff]]
    {
        let mut tcp = TcpStream::connect(&address).await.unwrap();
        tcp.write_all(garbage).await.unwrap();
        tcp.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = tcp.read_to_end(&mut answer).await;
        assert!(answer.len() < 64, "{answer:?}");
    }
    assert!(ask(Security::None, &address, 2).await.is_err(), "no TLS at all");
    // TLS without a certificate of one's own.
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(authority.path("ca.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = rustls::pki_types::ServerName::try_from("node-1").unwrap();
    let refused = match connector.connect(name, TcpStream::connect(&address).await.unwrap()).await {
        // With TLS 1.3 the client hears of it with the first byte that it reads.
        Ok(mut tls) => tls.read_u8().await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert!(matches!(ask(authority.good(2), &address, 2).await, Ok(Answer::Ledger(_))), "it still answers");
    cluster.stop_all().await;
}

/// Sends a body as it is; status of the answer.
async fn post(security: &Security, address: &str, path: &str, bodies: &[Vec<u8>]) -> Option<u16> {
    post_at(0, security, address, path, bodies).await
}

/// The same, of a cluster at this level.
async fn post_at(level: u32, security: &Security, address: &str, path: &str, bodies: &[Vec<u8>]) -> Option<u16> {
    let Security::Mutual(credentials) = security else { panic!() };
    let connector = tokio_rustls::TlsConnector::from(credentials.client(1).unwrap());
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let tls = connector.connect(name, tcp).await.unwrap();
    let (mut send, connection) = h2::client::handshake(tls).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("https://peer{path}")).header(LEVEL_HEADER, level).body(()).unwrap();
    let (response, mut stream) = send.send_request(request, false).unwrap();
    for body in bodies {
        let _ = stream.send_data(bytes::Bytes::from(body.clone()), false);
    }
    let _ = stream.send_data(bytes::Bytes::new(), true);
    response.await.ok().map(|response| response.status().as_u16())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_too_long_or_no_call_are_refused() {
    let authority = Authority::new();
    let (mut cluster, address) = served(authority.good(1)).await;
    let security = authority.good(2);
    assert_eq!(post(&security, &address, PATH, &[b"nonsense".to_vec()]).await, Some(400));
    assert_eq!(post(&security, &address, "/elsewhere", &[]).await, Some(404));
    let mut changed = call(2, "attic", 1).encode().unwrap();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(post(&security, &address, PATH, &[changed]).await, Some(400));
    let pieces: Vec<Vec<u8>> = (0..18).map(|_| vec![7; 1 << 20]).collect();
    assert_eq!(post(&security, &address, PATH, &pieces).await, Some(413));
    assert!(matches!(ask(security, &address, 2).await, Ok(Answer::Ledger(_))), "it still answers");
    cluster.stop_all().await;
}

/// Whoever cannot read a request any more hears all the same that its cluster knows more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_levels_go_beside_what_can_be_read_and_what_cannot() {
    let authority = Authority::new();
    let mut cluster = Cluster::knowing(1, 3).await;
    let address = serving(authority.good(1), &cluster).await;
    let (security, peer) = (authority.good(2), Peer::at(&address));
    let client = PeerClient::new(security.clone(), clocks());
    let told = client.call(&peer, Call { level: 3, ..call(2, "attic", 1) }, Duration::from_secs(5)).await.unwrap();
    assert!(told.level == 3 && matches!(told.answer, Answer::Ledger(_)), "{told:?}");
    assert_eq!(post_at(3, &security, &address, PATH, &[b"nonsense".to_vec()]).await, Some(400));
    assert!(cluster.nodes[&1].metrics().borrow().running_state.is_ok());
    assert_eq!(post_at(4, &security, &address, PATH, &[b"nonsense".to_vec()]).await, Some(400));
    let node = cluster.nodes[&1].clone();
    let error = tokio::time::timeout(Duration::from_secs(20), node.stopped()).await.unwrap();
    let said = error.chain();
    assert!(said.contains("level 3") && said.contains("level 4"), "{said}");
    drop(node);
    cluster.stop_all().await;
}

#[test]
fn the_end_of_a_ledger_reads_back_and_what_is_none_is_not_said() {
    let head = LedgerHead { records: 7, bytes: 900, last: verger_proto::Digest::of(b"7") };
    let headers = |text: &str| http::HeaderMap::from_iter([(LEDGER_HEADER.parse().unwrap(), text.parse().unwrap())]);
    let text = ledger_text(&head);
    assert_eq!(ledger(&headers(&text)), Some(head));
    for odd in ["", "7", "7 900", "7 900 xyz", &text[1..], "-1 2 3"] {
        assert_eq!(ledger(&headers(odd)), None, "{odd}");
    }
    assert_eq!((ledger(&http::HeaderMap::new()), level(&http::HeaderMap::new())), (None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_read_again_and_bad_ones_change_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.sign("one", &["node-1"], 2100);
    let server = Security::Mutual(Credentials::open(files.clone()).unwrap());
    let (mut cluster, address) = served(server).await;
    let renewed = authority.sign("new", &["node-7"], 2100);
    // Certificate and key do not fit each other while only one of them is new.
    std::fs::copy(&renewed.certificate, &files.certificate).unwrap();
    assert!(ask(authority.good(2), &address, 2).await.is_ok());
    std::fs::copy(&renewed.key, &files.key).unwrap();
    assert!(ask(authority.good(2), &address, 2).await.is_err(), "it is node 7 now");
    std::fs::write(&files.key, "no key").unwrap();
    assert!(ask(authority.good(2), &address, 2).await.is_err(), "still node 7");
    for (bad, name) in [
        (PeerFiles { certificate: PathBuf::from("/nowhere"), ..renewed.clone() }, "--peer-cert"),
        (PeerFiles { key: files.key.clone(), ..renewed.clone() }, "--peer-key"),
        (PeerFiles { authority: renewed.key.clone(), ..renewed.clone() }, "--peer-ca"),
        (PeerFiles { key: other.sign("x", &["node-1"], 2100).key, ..renewed.clone() }, "--peer-key"),
    ] {
        let error = Credentials::open(bad).unwrap_err();
        assert!(error.to_string().contains(name), "{error:?}");
    }
    cluster.stop_all().await;
}

/// Three nodes over real sockets: a command to any of them counts once, and the leader's death is survived. The clock of one is ten
/// minutes ahead, which costs nothing and is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_over_sockets_takes_commands_at_any_node() {
    let authority = Authority::new();
    let mut cluster = Cluster::empty(1);
    let mut servers = std::collections::BTreeMap::new();
    let (mut members, mut heard) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    for id in 1..=3 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        members.insert(id, Peer::at(listener.local_addr().unwrap().to_string()));
        let security = authority.good(id);
        let mut options = cluster.options(id);
        if id == AHEAD {
            options.clock = Arc::new(SetClock::new(SystemClock.now() + Duration::from_secs(600)));
        }
        let clocks = Clocks::new(options.clock.clone());
        options.transport = Arc::new(PeerClient::new(security.clone(), clocks.clone()));
        heard.insert(id, clocks);
        cluster.start_with(options).await;
        let node = cluster.nodes[&id].clone();
        servers.insert(id, tokio::spawn(serve(listener, security, node, std::future::pending())));
    }
    cluster.nodes[&1].initialize(members).await.unwrap();
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let id = CommandId(77);
    let ask = |node: std::sync::Arc<Node>| async move {
        loop {
            match node.propose_anywhere(id, None, proposal(1, 10).command).await {
                Ok(events) => return events,
                Err(SubmitError::Stopped(error)) => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let events = ask(cluster.nodes[&follower].clone()).await;
    assert_eq!(events.len(), 1);
    let shown = Members::new(cluster.nodes[&leader].clone(), heard[&leader].clone(), tokio::runtime::Handle::current());
    let shown = shown.status();
    for node in shown["nodes"].as_array().unwrap() {
        let id = node["node"].as_u64().unwrap();
        let ahead = 600_000 * (i64::from(id == AHEAD) - i64::from(leader == AHEAD));
        match node["clockAheadMs"].as_i64() {
            Some(ms) => assert!(id != leader && (ms - ahead).abs() < 60_000, "{shown}"),
            None => assert_eq!(id, leader, "{shown}"),
        }
    }
    servers.remove(&leader).unwrap().abort();
    cluster.stop(leader).await;
    for id in (1..=3).filter(|id| *id != leader) {
        assert_eq!(ask(cluster.nodes[&id].clone()).await, events, "the answer of the first time");
    }
    cluster.settle().await;
    let ledgers: Vec<_> = cluster.nodes.keys().map(|id| records(&cluster.data(*id))).collect();
    assert_eq!(ledgers, [1, 1]);
    cluster.stop_all().await;
}

const AHEAD: u64 = 3;

fn records(data: &Path) -> u64 {
    crate::ledger::file::FileLedger::read(&data.join("ledger"), |_| Ok(())).unwrap().records
}
