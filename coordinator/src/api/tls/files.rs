//! The certificate and key of the interface, from files, and again when those change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use verger_kopia::clock::Clock;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::Digest;
use zeroize::Zeroizing;

use crate::pem;

use super::validity;

/// Where certificate and key are, as PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of the certificates that clients must show; `None`: they need none.
    pub client_authority: Option<PathBuf>,
}

/// What connections are taken with.
pub struct Tls {
    files: TlsFiles,
    clock: Arc<dyn Clock>,
    current: RwLock<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// Of the bytes of the files that were looked at last, whether or not they would do.
    seen: Digest,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// The bytes of all files, which belong together.
struct Bytes {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_authority: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// `Permission` for a file that cannot be read; `Usage` for one that does not hold what it should, a key that does not fit the
    /// certificate, and a certificate that is not valid now.
    pub fn read(files: TlsFiles, clock: Arc<dyn Clock>) -> Result<Self> {
        let bytes = Bytes::read(&files)?;
        let config = config(&files, &bytes, &*clock)?;
        let current = RwLock::new(Current { config, seen: bytes.digest() });
        Ok(Self { files, clock, current })
    }

    /// Reads the files again, and takes what they hold from the next connection on. `false`: nothing new.
    ///
    /// # Errors
    /// As [`Self::read`], once for what the files hold: the certificate before goes on.
    pub fn read_again(&self) -> Result<bool> {
        let bytes = Bytes::read(&self.files)?;
        let seen = bytes.digest();
        if self.current.read().unwrap_or_else(PoisonError::into_inner).seen == seen {
            return Ok(false);
        }
        let config = config(&self.files, &bytes, &*self.clock);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.seen = seen;
        current.config = config?;
        Ok(true)
    }

    pub(in crate::api) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }
}

impl Bytes {
    fn read(files: &TlsFiles) -> Result<Self> {
        let read = |path: &Path, what: &str| {
            std::fs::read(path).map_err(|error| {
                Error::of_file(format!("read the {what} in {}", path.display()), error)
                    .with_fix("Give a file that this user can read")
            })
        };
        let client_authority = files.client_authority.as_deref();
        Ok(Self {
            certificate: read(&files.certificate, "certificate")?,
            key: Zeroizing::new(read(&files.key, "key")?),
            client_authority: client_authority.map(|path| read(path, "authority of clients")).transpose()?,
        })
    }

    fn digest(&self) -> Digest {
        let all = [Digest::of(&self.certificate), Digest::of(&self.key)];
        let authority = self.client_authority.as_deref().map(Digest::of);
        Digest::of(&all.into_iter().chain(authority).flat_map(|digest| digest.0).collect::<Vec<_>>())
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    pem::certificates(pem).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("{} holds no certificate", path.display()))
            .with_fix("Give PEM: -----BEGIN CERTIFICATE-----")
    })
}

fn config(files: &TlsFiles, bytes: &Bytes, clock: &dyn Clock) -> Result<Arc<ServerConfig>> {
    let chain = certificates(&files.certificate, &bytes.certificate)?;
    check_valid(&files.certificate, &chain, clock)?;
    // What is wrong with it is not told: it could be a part of the key.
    let key = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|_| {
        Error::new(ErrorKind::Usage, format!("{} holds no private key", files.key.display()))
            .with_fix("Give PEM without a passphrase: -----BEGIN PRIVATE KEY-----")
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let internal = |error: rustls::Error| Error::new(ErrorKind::Internal, "set up TLS").with_source(error);
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(internal)?;
    let builder = match (&files.client_authority, &bytes.client_authority) {
        (Some(path), Some(authorities)) => {
            let bad = |why: String| {
                Error::new(ErrorKind::Usage, format!("{} is no authority of clients", path.display())).with_source(why)
            };
            let roots = pem::roots(certificates(path, authorities)?).map_err(|error| bad(error.to_string()))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| bad(error.to_string()))?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let step = format!("the key in {} does not fit the certificate in", files.key.display());
            Error::new(ErrorKind::Usage, format!("{step} {}", files.certificate.display()))
                .with_fix("Give the key that the certificate was made for; its own certificate comes first in the file")
        }
        error => Error::new(ErrorKind::Usage, format!("use the certificate in {}", files.certificate.display()))
            .with_source(error),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn check_valid(path: &Path, chain: &[CertificateDer<'_>], clock: &dyn Clock) -> Result<()> {
    let of = |certificate: &CertificateDer<'_>| validity::of(certificate);
    let (from, until) = chain.first().and_then(of).ok_or_else(|| {
        Error::new(ErrorKind::Usage, format!("the certificate in {} cannot be read", path.display()))
            .with_fix("Give an X.509 certificate")
    })?;
    let now = clock.now();
    let step = if now > until {
        format!("the certificate in {} expired at {until}", path.display())
    } else if now < from {
        format!("the certificate in {} is valid from {from} on, and it is {now}", path.display())
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Usage, step).with_fix("Have a new one made, or set the clock of this machine"))
}
