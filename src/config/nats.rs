//! The NATS server that wakes workers.

use std::path::PathBuf;

use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::FleetId;
use verger_proto::work_queue::nats::{Credentials, Settings};

/// Where the server is, and who we are there.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct NatsArgs {
    /// Server that wakes workers, or several of one cluster: `tls://HOST:4222`; without one, workers ask every few seconds
    #[arg(long, value_name = "URL", env = "VERGER_NATS", value_delimiter = ',', help_heading = "NATS")]
    nats: Vec<String>,
    /// Credentials of an account (a .creds file)
    #[arg(
        long,
        value_name = "FILE",
        env = "VERGER_NATS_CREDS",
        conflicts_with = "nats_nkey_file",
        help_heading = "NATS"
    )]
    nats_creds: Option<PathBuf>,
    /// Seed of a user's NKey (SU…)
    #[arg(long, value_name = "FILE", env = "VERGER_NATS_NKEY_FILE", help_heading = "NATS")]
    nats_nkey_file: Option<PathBuf>,
    /// Authorities that the server's certificate must come from (PEM)
    #[arg(long, value_name = "FILE", env = "VERGER_NATS_CA", help_heading = "NATS")]
    nats_ca: Option<PathBuf>,
    /// Servers of the NATS cluster that each hint lies on; asked for by coordinators [default: 1]
    #[arg(long, value_name = "N", env = "VERGER_NATS_REPLICAS", help_heading = "NATS")]
    nats_replicas: Option<u8>,
}

/// What JetStream has at most.
const REPLICAS_MAX: u8 = 5;

impl NatsArgs {
    /// The server, if there is one.
    ///
    /// # Errors
    /// `Usage` for credentials without a server.
    pub(crate) fn resolve(self) -> Result<Option<Nats>> {
        let Self { nats: servers, nats_creds, nats_nkey_file, nats_ca: ca, nats_replicas } = self;
        if let Some(count) = nats_replicas.filter(|count| *count == 0 || *count > REPLICAS_MAX) {
            let step = format!("--nats-replicas is {count}");
            return Err(Error::new(ErrorKind::Usage, step).with_fix("give a number from 1 to 5; odd ones are of use"));
        }
        let replicas = usize::from(nats_replicas.unwrap_or(1));
        if servers.is_empty() {
            if nats_creds.is_some() || nats_nkey_file.is_some() || ca.is_some() || nats_replicas.is_some() {
                let step = "there are settings for NATS, and no server";
                return Err(Error::new(ErrorKind::Usage, step).with_fix("Say where it is: --nats tls://HOST:4222"));
            }
            return Ok(None);
        }
        let credentials = match (nats_creds, nats_nkey_file) {
            (Some(path), _) => Credentials::CredsFile(path),
            (None, Some(path)) => Credentials::NkeyFile(path),
            (None, None) => Credentials::None,
        };
        Ok(Some(Nats { servers, credentials, ca, replicas }))
    }
}

/// A server, for a fleet that is not known yet.
#[derive(Debug, Clone)]
pub(crate) struct Nats {
    servers: Vec<String>,
    credentials: Credentials,
    ca: Option<PathBuf>,
    replicas: usize,
}

impl Nats {
    /// For a fleet, by its own name (`verger@fleet-0a1b2c3d`) or number.
    ///
    /// # Errors
    /// `Internal` if that is no fleet's.
    pub(crate) fn of(&self, fleet: &str) -> Result<Settings> {
        let number = fleet.rsplit('-').next().unwrap_or_default();
        let fleet = FleetId::new(number).map_err(|error| {
            Error::new(ErrorKind::Internal, format!("read the fleet's name {fleet}")).with_source(error)
        })?;
        let Self { servers, credentials, ca, replicas } = self.clone();
        Ok(Settings { credentials, ca, replicas, ..Settings::new(servers, fleet) })
    }
}

/// What settings say that cannot be used.
pub(crate) fn unusable(error: verger_proto::work_queue::nats::SettingsError) -> Error {
    Error::new(ErrorKind::Usage, "set up the work queue").with_source(error)
}
