//! What a node learns of itself from others, and after which it takes no part any more.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use openraft::Raft;
use tokio::task::AbortHandle;
use verger_kopia::error::Result;

use crate::raft::failure::Failures;
use crate::raft::identity::{self, OwnFolder};
use crate::raft::network::Links;
use crate::raft::types::TypeConfig;
use crate::raft::{heads, levels, runtime};

type Folder = Arc<Mutex<Option<OwnFolder>>>;
type Keep = fn(&mut OwnFolder) -> Result<()>;

/// Stops a node that runs on an old copy of its disk, which has forgotten votes; one whose program knows less than its cluster; and one
/// whose ledger is not the leader's.
pub(super) fn watch(
    data: &Path,
    links: &Links,
    raft: &Raft<TypeConfig>,
    folder: Folder,
    failures: Failures,
) -> AbortHandle {
    let (mut old, mut heard, own) = (links.standings.is_old(), links.levels.heard(), links.levels.own());
    let mut differ = links.heads.differ();
    let (raft, data) = (raft.clone(), data.to_owned());
    let watch = async move {
        let is_old = async { old.wait_for(|is_old| *is_old).await.map(drop) };
        let too_old = async { heard.wait_for(|cluster| *cluster > own).await.map(|cluster| *cluster) };
        let differs = async { differ.wait_for(Option::is_some).await.map(|records| records.unwrap_or_default()) };
        let (error, kept): (_, Option<Keep>) = tokio::select! {
            Ok(()) = is_old => (identity::is_old(&data), Some(OwnFolder::set_old)),
            Ok(cluster) = too_old => (levels::too_old(cluster, own), None),
            Ok(records) = differs => (heads::differs(records), Some(OwnFolder::set_differing)),
            else => return,
        };
        failures.note(&error);
        if let Some(keep) = kept {
            note(data, folder, keep).await;
        }
        let _ = raft.shutdown().await;
    };
    tokio::spawn(watch).abort_handle()
}

/// Notes it in the folder, which is not opened again.
async fn note(data: PathBuf, folder: Folder, keep: Keep) {
    let noted = runtime::blocking("note that a data folder is not to be used", move || {
        folder.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map_or(Ok(()), keep)
    });
    if let Err(error) = noted.await {
        let (error, data) = (error.chain(), data.display());
        tracing::error!(error, %data, "this data folder must not be used again, and that could not be noted");
    }
}
