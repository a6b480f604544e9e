//! `verger verify --record NAME`: a coordinator is told what came of it.

use reqwest::Method;
use serde_json::json;
use verger_kopia::verify::Report;
use verger_kopia::{Error, ErrorKind, Repository, Result};

use super::{Coordinator, escaped, text_of};
use crate::client::Client;

/// Whether a coordinator is told, and which.
#[derive(Debug, clap::Args)]
pub(crate) struct Record {
    /// Tell the coordinator what came of it; NAME is the repository's there
    #[arg(long, value_name = "NAME", env = "VERGER_RECORD", help_heading = "Coordinator")]
    record: Option<String>,
    #[command(flatten)]
    coordinator: Coordinator,
}

/// A coordinator that looks after the repository that is verified.
pub(crate) struct Told {
    client: Client,
    path: String,
    unique_id: String,
}

impl Record {
    /// Asks beforehand whether it is that repository: reading everything takes hours.
    ///
    /// # Errors
    /// `Usage` if it is another one there; others as [`Client`] says.
    pub(crate) fn ask(&self, repository: &Repository) -> Result<Option<Told>> {
        let Some(name) = &self.record else { return Ok(None) };
        let (client, path) = (self.coordinator.client()?, format!("/v1/repositories/{}", escaped(name)));
        let (unique_id, known) = (verger_kopia::hex(repository.unique_id()), client.get(&path).map_err(unknown)?);
        let id = text_of(&known, "id");
        if id.split_once('-').is_none_or(|(unique, _)| unique != unique_id) {
            let step = format!("{unique_id} is to be verified, and {name} is another repository there ({id})");
            return Err(Error::new(ErrorKind::Usage, step)
                .with_fix("Give the name of this repository (verger repo list), or the address of that one"));
        }
        Ok(Some(Told { client, path: format!("{path}/verification"), unique_id }))
    }
}

impl Told {
    /// Tells what came of it.
    ///
    /// # Errors
    /// As [`Client`] says.
    pub(crate) fn tell(&self, report: &Report, percent: f64) -> Result<()> {
        let body = json!({
            "uniqueId": self.unique_id,
            "percent": percent,
            "snapshots": report.snapshots,
            "contents": report.contents,
            "contentsRead": report.contents_read,
            "bytesRead": report.bytes_read,
            "problems": report.problems_found(),
        });
        self.client.send_document(&Method::POST, &self.path, &body, None).map(drop).map_err(unknown)
    }
}

/// A name that is wrong is not damage, which has the exit code of what is not there.
fn unknown(error: Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::Usage, "tell what came of verifying it")
            .with_source(error)
            .with_fix("Look for its name in verger repo list"),
        _ => error,
    }
}
