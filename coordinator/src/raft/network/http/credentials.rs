//! Who this coordinator is to the others: a certificate and its key, and the authority that theirs must be of. Files are read again
//! when a connection is made, so that they can be renewed under way.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::Digest;

use super::node_name;
use crate::pem;

const ALPN: &[u8] = b"h2";

/// PEM files of one coordinator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerFiles {
    /// Its certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authority's certificate, or several while it is being replaced.
    pub authority: PathBuf,
}

/// How coordinators know each other.
#[derive(Clone, Debug)]
pub enum Security {
    /// Each shows a certificate of one authority.
    Mutual(Credentials),
    /// Not at all. On loopback only, for trying out.
    None,
}

/// A certificate with its key, and whom to believe. Clones are the same one.
#[derive(Clone)]
pub struct Credentials(Arc<Shared>);

struct Shared {
    files: PeerFiles,
    provider: Arc<CryptoProvider>,
    loaded: Mutex<Loaded>,
}

#[derive(Clone)]
struct Loaded {
    digest: Digest,
    server: Arc<ServerConfig>,
    client: Arc<Parts>,
}

struct Parts {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.0.files).finish()
    }
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// `Usage`: a file is missing, no PEM, or key and certificate do not belong together. The file is named, never what is in it.
    pub fn open(files: PeerFiles) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let loaded = load(&files, &provider)?;
        Ok(Self(Arc::new(Shared { files, provider, loaded: Mutex::new(loaded) })))
    }

    /// What the files say now. Files that are being replaced may not fit each other for a moment: what was read before counts then.
    fn now(&self) -> Loaded {
        let mut loaded = self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = read_all(&self.0.files);
        if bytes.as_ref().is_ok_and(|bytes| digest(bytes) == loaded.digest) {
            return loaded.clone();
        }
        match bytes.and_then(|bytes| parse(&self.0.files, &bytes, &self.0.provider)) {
            Ok(new) => {
                tracing::info!(certificate = %self.0.files.certificate.display(), "the peer certificate was read again");
                *loaded = new;
            }
            Err(error) => tracing::warn!(error = error.chain(), "the peer certificate stays as it was"),
        }
        loaded.clone()
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        self.now().server
    }

    /// For a connection to this node.
    pub(super) fn client(&self, node: u64) -> Result<Arc<ClientConfig>, rustls::Error> {
        let parts = self.now().client;
        let provider = self.0.provider.clone();
        let inner = WebPkiServerVerifier::builder_with_provider(parts.roots.clone(), provider.clone()).build();
        let inner = inner.map_err(|error| rustls::Error::General(error.to_string()))?;
        let name = ServerName::try_from(node_name(node)).map_err(|error| rustls::Error::General(error.to_string()))?;
        let verifier = Arc::new(AddressOrName { inner, name });
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = builder.with_client_auth_cert(parts.chain.clone(), parts.key.clone_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Whether a certificate, checked already, is one of this host or name.
pub(super) fn is_for(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return false };
    ServerName::try_from(name).is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok())
}

const FILES: [&str; 3] = ["--peer-cert", "--peer-key", "--peer-ca"];

fn paths(files: &PeerFiles) -> [&Path; 3] {
    [&files.certificate, &files.key, &files.authority]
}

fn read_all(files: &PeerFiles) -> Result<[Vec<u8>; 3]> {
    let read = |at: usize| {
        let path = paths(files)[at];
        let step = format!("read {} ({})", path.display(), FILES[at]);
        std::fs::read(path).map_err(|error| Error::new(ErrorKind::Usage, step).with_source(error))
    };
    Ok([read(0)?, read(1)?, read(2)?])
}

fn digest(bytes: &[Vec<u8>; 3]) -> Digest {
    let digests: Vec<u8> = bytes.iter().flat_map(|bytes| *Digest::of(bytes).as_bytes()).collect();
    Digest::of(&digests)
}

fn load(files: &PeerFiles, provider: &Arc<CryptoProvider>) -> Result<Loaded> {
    parse(files, &read_all(files)?, provider)
}

fn parse(files: &PeerFiles, bytes: &[Vec<u8>; 3], provider: &Arc<CryptoProvider>) -> Result<Loaded> {
    let bad = |at: usize, what: String| {
        let step = format!("{} ({}) {what}", paths(files)[at].display(), FILES[at]);
        Error::new(ErrorKind::Usage, step).with_fix("give PEM files: docs/operating/cluster.md says how to make them")
    };
    let certificates =
        |at: usize| pem::certificates(&bytes[at]).ok_or_else(|| bad(at, "holds no certificate".to_owned()));
    let (chain, authorities) = (certificates(0)?, certificates(2)?);
    let key = PrivateKeyDer::from_pem_slice(&bytes[1]).map_err(|_| bad(1, "holds no private key".to_owned()))?;
    let roots = pem::roots(authorities).map_err(|error| bad(2, format!("cannot be an authority: {error}")))?;
    let roots = Arc::new(roots);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
    let verifier = verifier.map_err(|error| bad(2, format!("cannot be an authority: {error}")))?;
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| bad(0, error.to_string()))?.with_client_cert_verifier(verifier);
    let server = builder.with_single_cert(chain.clone(), key.clone_key());
    let mut server = server.map_err(|error| bad(1, format!("does not belong to the certificate: {error}")))?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    let client = Arc::new(Parts { roots, chain, key });
    Ok(Loaded { digest: digest(bytes), server: Arc::new(server), client })
}

/// Takes a certificate for the address that is called, or for the node's own name.
#[derive(Debug)]
struct AddressOrName {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for AddressOrName {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        address: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use CertificateError::{NotValidForName, NotValidForNameContext};
        match self.inner.verify_server_cert(end, between, address, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. })) => {
                self.inner.verify_server_cert(end, between, &self.name, ocsp, now)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
