//! Commands that speak to a coordinator, and the one that is one.

pub(super) mod cluster;
pub(super) mod coordinator;
pub(super) mod cycle;
pub(super) mod events;
pub(super) mod lease;
pub(super) mod login;
mod oidc;
mod recover;
pub(super) mod repo;
mod schedule;
mod service;
pub(super) mod token;
pub(super) mod up;
pub(super) mod verification;
pub(super) mod worker;

use std::path::PathBuf;

use serde_json::Value;
use verger_kopia::{Error, ErrorKind, Result};

use crate::client::{ADDRESS_DEFAULT, Client};
use crate::config::token as kept;

/// Which coordinator, and by what right.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Coordinator {
    /// Address of a coordinator, or of several with commas between them: whichever answers leads to the leader
    #[arg(long, value_name = "URL", env = "VERGER_ADDR", default_value = ADDRESS_DEFAULT, help_heading = "Coordinator")]
    addr: String,
    /// File with a token [default: what `verger up` left for this user; else VERGER_TOKEN]
    #[arg(long, value_name = "FILE", env = "VERGER_TOKEN_FILE", help_heading = "Coordinator")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
}

/// Which coordinator is believed to be one, and who one is to it.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Trust {
    /// Authorities that a coordinator's certificate must come from (PEM) [default: those of this machine]
    #[arg(long, value_name = "FILE", env = "VERGER_CA_FILE", help_heading = "Coordinator")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate to show to a coordinator that wants one (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "VERGER_CLIENT_CERT",
        requires = "client_key",
        help_heading = "Coordinator"
    )]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        env = "VERGER_CLIENT_KEY",
        requires = "client_cert",
        help_heading = "Coordinator"
    )]
    pub(crate) client_key: Option<PathBuf>,
}

impl Coordinator {
    /// Speaks to it.
    ///
    /// # Errors
    /// `Usage` for an address that is none, or a token file that cannot be read.
    pub(crate) fn client(&self) -> Result<Client> {
        let token = match &self.token_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                Error::new(ErrorKind::Usage, format!("read the token in {}", path.display())).with_source(error)
            })?),
            None => kept::from_environment(),
        };
        Client::new(&self.addr, token, &self.trust)
    }
}

/// A part of a path or query, as it may stand in a URL.
fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// `text` of a document's field, or a dash.
fn text_of(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
