//! Where old segments of the ledger go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use verger_coordinator::ledger::archive::{Archive, KEEP_LOCAL_DEFAULT};
use verger_kopia::storage::{Access, Address, settings};
use verger_kopia::{Error, ErrorKind, Result};

use super::stores;

/// Where old segments of the ledger go, as given.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ArchiveArgs {
    /// Store for old segments of the ledger: `filesystem:///path`, `s3://bucket/prefix`, `gcs://bucket/prefix` or
    /// `azure://container/prefix`; its credentials come from the environment [default: they stay on this disk]
    #[arg(long, value_name = "URL", env = "VERGER_LEDGER_ARCHIVE", help_heading = "Ledger")]
    ledger_archive: Option<String>,
    /// Segments of some 8 MiB that stay on this disk although they are archived [default: 4]
    #[arg(long, value_name = "N", env = "VERGER_LEDGER_KEEP_LOCAL", help_heading = "Ledger")]
    ledger_keep_local: Option<u32>,
}

impl ArchiveArgs {
    /// The archive of a fleet's ledger, if there is one. A store that cannot be reached now is tried again later.
    ///
    /// # Errors
    /// `Usage` or `Unsupported` for an address that is none, or is that of the data folder.
    pub(crate) fn resolve(&self, fleet: &str, data_dir: &Path) -> Result<Option<Arc<Archive>>> {
        let Some(text) = &self.ledger_archive else { return Ok(None) };
        let address: Address = text.parse().map_err(|error: Error| error.at("--ledger-archive"))?;
        if let Address::Filesystem(path) = &address
            && is_inside(path, data_dir)
        {
            let step = format!("the archive {address} lies in the data folder {}", data_dir.display());
            return Err(
                Error::new(ErrorKind::Usage, step).with_fix("Choose another disk, or a bucket: --ledger-archive")
            );
        }
        let (shown, given) = (address.to_string(), stores::from_environment());
        let open = move || settings::open(&address, &given, Access::ReadWrite);
        let archive = Archive::new(shown, fleet, self.ledger_keep_local.unwrap_or(KEEP_LOCAL_DEFAULT), open);
        Ok(Some(Arc::new(archive.with_evidence(&work(data_dir)))))
    }
}

/// Where a data folder has what its cycles leave: ledgers' neighbours, evidence, memories of repositories.
pub(crate) fn work(data_dir: &Path) -> PathBuf {
    data_dir.join("work")
}

fn is_inside(path: &Path, folder: &Path) -> bool {
    let (path, folder) = (std::fs::canonicalize(path), std::fs::canonicalize(folder));
    path.is_ok_and(|path| folder.is_ok_and(|folder| path.starts_with(folder)))
}
