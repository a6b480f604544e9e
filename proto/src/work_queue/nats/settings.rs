//! Where the NATS server is, and who we are there.

use std::path::{Path, PathBuf};

use async_nats::{ConnectOptions, ServerAddr};
use zeroize::Zeroizing;

use crate::id::{FleetId, Pool};

/// Files of credentials and certificates are not longer than this, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Who we are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Credentials {
    /// Nobody: for a server on this machine that lets everybody in.
    #[default]
    None,
    /// A `.creds` file: a JWT and the seed that goes with it.
    CredsFile(PathBuf),
    /// A file with the seed of an NKey (`SU…`).
    NkeyFile(PathBuf),
}

/// Where the server is, and what is ours there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `nats://HOST:PORT` or `tls://HOST:PORT`, one or several of one cluster.
    pub servers: Vec<String>,
    /// Who we are.
    pub credentials: Credentials,
    /// Authorities that the server's certificate must come from, instead of those of the system; makes TLS a must.
    pub ca: Option<PathBuf>,
    /// The fleet whose work it is.
    pub fleet: FleetId,
    /// On how many servers of a NATS cluster each offer lies. Only a coordinator asks for it.
    pub replicas: usize,
}

/// Settings that cannot be used. Nothing of a secret is in the text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SettingsError {
    /// Not an address.
    #[error("{0:?} is not the address of a NATS server; write nats://HOST:PORT or tls://HOST:PORT")]
    Address(String),
    /// An address with a password or a token in it.
    #[error(
        "the address of the NATS server holds a user or a password, which every list of processes would show; \
         use --nats-creds or --nats-nkey-file"
    )]
    SecretInAddress,
    /// A file cannot be read.
    #[error("{path}: {text}")]
    File {
        /// Which.
        path: String,
        /// Why, and the fix.
        text: String,
    },
    /// No thread of our own.
    #[error("no thread for the work queue: {0}")]
    Thread(String),
}

impl Settings {
    /// With nothing but addresses.
    #[must_use]
    pub fn new(servers: Vec<String>, fleet: FleetId) -> Self {
        Self { servers, credentials: Credentials::None, ca: None, fleet, replicas: 1 }
    }

    pub(super) fn addresses(&self) -> Result<Vec<ServerAddr>, SettingsError> {
        let parse = |text: &String| {
            if text.contains('@') {
                return Err(SettingsError::SecretInAddress);
            }
            let address: ServerAddr = text.parse().map_err(|_| SettingsError::Address(text.clone()))?;
            let is_plain = matches!(address.scheme(), "nats" | "tls") && !address.host().is_empty();
            if is_plain { Ok(address) } else { Err(SettingsError::Address(text.clone())) }
        };
        if self.servers.is_empty() {
            return Err(SettingsError::Address(String::new()));
        }
        self.servers.iter().map(parse).collect()
    }

    /// Credentials and authorities. Read now; the authorities again at each connection.
    pub(super) fn options(&self) -> Result<ConnectOptions, SettingsError> {
        let mut options = match &self.credentials {
            Credentials::None => ConnectOptions::new(),
            Credentials::CredsFile(path) => {
                let wrong = |_| unusable(path, "this is not a file of NATS credentials (nsc generate creds)");
                ConnectOptions::with_credentials(&read(path)?).map_err(wrong)?
            }
            Credentials::NkeyFile(path) => {
                let content = read(path)?;
                let seed = content.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
                // Base 32 of 2 bytes of prefix, 32 of seed and 2 of checksum.
                let seed = seed.filter(|seed| seed.starts_with("SU") && seed.len() == 58);
                let wrong = || unusable(path, "this is not the seed of a user's NKey (SU…, nk -gen user)");
                ConnectOptions::with_nkey(seed.ok_or_else(wrong)?.to_owned())
            }
        };
        if let Some(path) = &self.ca {
            if !read(path)?.contains("-----BEGIN CERTIFICATE-----") {
                return Err(unusable(path, "there is no certificate in PEM in it"));
            }
            options = options.add_root_certificates(path.clone()).require_tls(true);
        }
        Ok(options)
    }
}

fn unusable(path: &Path, text: &str) -> SettingsError {
    SettingsError::File { path: path.display().to_string(), text: text.to_owned() }
}

fn read(path: &Path) -> Result<Zeroizing<String>, SettingsError> {
    let failed = |error: std::io::Error| unusable(path, &error.to_string());
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(unusable(path, "the file is longer than 1 MiB"));
    }
    std::fs::read_to_string(path).map(Zeroizing::new).map_err(failed)
}

/// What things of a fleet are called on the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Names {
    fleet: FleetId,
}

impl Names {
    /// Of a fleet.
    #[must_use]
    pub fn of(fleet: FleetId) -> Self {
        Self { fleet }
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> String {
        format!("VERGER_{}", self.fleet.as_str().to_ascii_uppercase())
    }

    /// The subject of each pool's offers.
    #[must_use]
    pub fn subject(&self, pool: &Pool) -> String {
        format!("verger.{}.work.{pool}", self.fleet)
    }

    /// The subjects of all pools.
    #[must_use]
    pub fn subjects(&self) -> String {
        format!("verger.{}.work.*", self.fleet)
    }

    /// The consumer that a pool's workers share.
    #[must_use]
    pub fn consumer(&self, pool: &Pool) -> String {
        format!("work-{pool}")
    }

    /// Where a worker asks for the next offer.
    #[must_use]
    pub fn next(&self, pool: &Pool) -> String {
        format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream(), self.consumer(pool))
    }
}
