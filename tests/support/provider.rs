//! An identity provider on this machine, with keys that are made anew.

#![allow(unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// It answers as long as this lives.
pub struct Provider {
    pub issuer: String,
    address: std::net::SocketAddr,
    keys: BTreeMap<&'static str, KeyPair>,
    /// The name of the key that is published; none: nothing is answered any more.
    published: Arc<Mutex<Option<Value>>>,
}

impl Provider {
    /// With keys "one", which it publishes, and "two".
    pub fn start() -> Self {
        Self::begin("http", None)
    }

    /// The same behind TLS, with this certificate of `localhost` and its key.
    pub fn start_with_tls(certificate: CertificateDer<'static>, key: &KeyPair) -> Self {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Self::begin("https", Some(Arc::new(config)))
    }

    fn begin(scheme: &str, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let base = format!(
            "{scheme}://{}",
            if tls.is_some() { format!("localhost:{}", address.port()) } else { address.to_string() }
        );
        let issuer = format!("{base}/realms/attic");
        let keys = ["one", "two"].map(|id| (id, KeyPair::generate_for(&PKCS_ED25519).unwrap())).into();
        let provider = Self { issuer: issuer.clone(), address, keys, published: Arc::default() };
        provider.publish("one");
        let published = provider.published.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let Some(keys) = published.lock().unwrap().clone() else { return };
                // Whoever does not believe the certificate goes away in the middle.
                let _ = match &tls {
                    None => answer(stream, &issuer, &base, keys),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls.clone()).unwrap();
                        answer(StreamOwned::new(connection, stream), &issuer, &base, keys)
                    }
                };
            }
        });
        provider
    }

    /// From now on this key, and no other.
    pub fn publish(&self, id: &'static str) {
        let x = URL_SAFE_NO_PAD.encode(self.keys[id].der_bytes());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": id, "x": x });
        *self.published.lock().unwrap() = Some(json!({ "keys": [key] }));
    }

    /// A token for ann of the tenant attic, with other claims as they are said.
    pub fn token(&self, id: &'static str, changes: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims = json!({
            "iss": self.issuer, "aud": "verger", "sub": "ann", "exp": now + 600, "tenant": "attic", "groups": ["staff"],
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name.as_str()] = value.clone();
        }
        let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": id });
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature = self.keys[id].sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Who acts in the ledger.
    pub fn actor(&self, subject: &str) -> String {
        let (_, name) = self.issuer.split_once("://").unwrap();
        format!("oidc:{name}/{subject}")
    }
}

fn answer(stream: impl Read + Write, issuer: &str, base: &str, keys: Value) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    let (status, body) = match path.as_str() {
        "/realms/attic/.well-known/openid-configuration" => {
            ("200 OK", json!({ "issuer": issuer, "jwks_uri": format!("{base}/keys") }))
        }
        "/keys" => ("200 OK", keys),
        _ => ("404 Not Found", json!({})),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    reader.get_mut().write_all(format!("{head}{body}").as_bytes())?;
    reader.get_mut().flush()
}

impl Provider {
    /// It is gone.
    pub fn stop(&self) {
        *self.published.lock().unwrap() = None;
        // The thread notices with the next caller.
        let _ = std::net::TcpStream::connect(self.address);
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.stop();
    }
}
