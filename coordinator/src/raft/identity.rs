//! Whose data folder this is. A folder belongs to one node of one cluster, and to no other, ever: a node whose log went back in time
//! would vote twice in one term.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::envelope::{self, Kind};

use super::files::{self, failed};
use crate::files::{make_folders, temporary};

const FILE_NAME: &str = "identity";
const LOCK_NAME: &str = "lock";
/// Says by being there that the ledger is not the leader's.
const DIFFERS_NAME: &str = "differs";

/// Whose data folder this is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: u64,
    /// How often the folder was opened.
    pub boots: u64,
    /// There is a log in it: were it gone, so were votes that others count on.
    pub has_log: bool,
    /// Others have seen more of this node than there is here: it is an old copy, and never opened again.
    pub is_old: bool,
}

/// A data folder that is this process's as long as this lives.
#[derive(Debug)]
pub struct OwnFolder {
    /// Whose it is.
    pub identity: Identity,
    path: PathBuf,
    _lock: File,
}

impl OwnFolder {
    /// Notes that there is a log from now on.
    ///
    /// # Errors
    /// `DiskFull` or `Permission` if it cannot be written.
    pub fn set_has_log(&mut self) -> Result<()> {
        if !self.identity.has_log {
            self.identity.has_log = true;
            write(&self.path, &self.identity)?;
        }
        Ok(())
    }

    /// Notes that the folder is an old copy.
    ///
    /// # Errors
    /// `DiskFull` or `Permission` if it cannot be written.
    pub fn set_old(&mut self) -> Result<()> {
        self.identity.is_old = true;
        write(&self.path, &self.identity)
    }

    /// Notes that the ledger in it is not the leader's.
    ///
    /// # Errors
    /// `DiskFull` or `Permission` if it cannot be written.
    pub fn set_differing(&mut self) -> Result<()> {
        files::replace(&self.path.with_file_name(DIFFERS_NAME), b"")
    }
}

/// What is said of a ledger that was found not to be the leader's.
fn is_differing(folder: &Path) -> Error {
    let what = "this node's ledger was found not to be the leader's: one of them applied a command in another way";
    files::damaged(folder, what)
}

/// What is said of an old copy.
pub(crate) fn is_old(folder: &Path) -> Error {
    let what = "others have seen more of this node than there is: an old copy of its disk was put back";
    files::damaged(folder, what)
}

fn write(path: &Path, identity: &Identity) -> Result<()> {
    let too_long = |error| Error::new(ErrorKind::Usage, "the cluster's name is too long").with_source(error);
    files::replace(path, &envelope::encode(Kind::Identity, identity).map_err(too_long)?)
}

/// Makes the folder if it is not there, locks it, checks whose it is, and counts the boot.
///
/// # Errors
/// `Locked` if another process has it, `Usage` if it belongs to another node or cluster, `Damaged` if it does not say whose it is
/// although it is not empty, `Unsupported` if a newer verger says it.
pub fn open(folder: &Path, cluster: &str, node: u64) -> Result<OwnFolder> {
    make_folders(folder).map_err(|error| failed(folder, "make the folder", error))?;
    let lock = lock(&folder.join(LOCK_NAME))?;
    let path = folder.join(FILE_NAME);
    let known = match files::read(&path)? {
        Some(bytes) => envelope::decode(Kind::Identity, &bytes).map_err(|error| files::unfit(&path, &error))?,
        None => {
            refuse_foreign_files(folder, &path)?;
            Identity { cluster: cluster.to_owned(), node, boots: 0, has_log: false, is_old: false }
        }
    };
    if known.cluster != cluster || known.node != node {
        let Identity { cluster: theirs, node: other, .. } = known;
        let step = format!(
            "{} belongs to node {other} of cluster {theirs}, not to node {node} of {cluster}",
            folder.display()
        );
        let fix = "give each node a data folder of its own; a node whose folder is lost joins again under a new ID";
        return Err(Error::new(ErrorKind::Usage, step).with_fix(fix));
    }
    if known.is_old {
        return Err(is_old(folder));
    }
    if files::read(&folder.join(DIFFERS_NAME))?.is_some() {
        return Err(is_differing(folder));
    }
    let identity = Identity { boots: known.boots.saturating_add(1), ..known };
    write(&path, &identity)?;
    Ok(OwnFolder { identity, path, _lock: lock })
}

/// Locks a folder whose node does not run, and says whose it is. Nothing in it is changed.
///
/// # Errors
/// `Locked` if its node runs, `NotFound` if there is none in it, `Damaged` if it does not say whose it is, `Unsupported` if a newer
/// verger says it.
pub(crate) fn open_stopped(folder: &Path) -> Result<(Identity, File)> {
    let path = folder.join(FILE_NAME);
    let Some(bytes) = files::read(&path)? else {
        let step = format!("there is no coordinator's data in {}", folder.display());
        return Err(Error::new(ErrorKind::NotFound, step).with_fix("say with --data-dir where it is"));
    };
    let identity = envelope::decode(Kind::Identity, &bytes).map_err(|error| files::unfit(&path, &error))?;
    Ok((identity, lock(&folder.join(LOCK_NAME))?))
}

/// Makes a folder that [`open_stopped`] locked one of another cluster: whoever goes by the old name is not answered any more.
///
/// # Errors
/// `DiskFull` or `Permission` if it cannot be written.
pub(crate) fn rename(folder: &Path, identity: &Identity, cluster: &str) -> Result<()> {
    write(&folder.join(FILE_NAME), &Identity { cluster: cluster.to_owned(), ..identity.clone() })
}

fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| failed(path, "open the lock file", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let step = format!("another coordinator is using this data folder ({} is locked)", path.display());
            Err(Error::new(ErrorKind::Locked, step).with_fix("stop it, or choose another folder with --data-dir"))
        }
        Err(TryLockError::Error(error)) => Err(failed(path, "lock", error)),
    }
}

/// A folder with a log but no identity lost it: taking it for an empty one would forget votes.
fn refuse_foreign_files(folder: &Path, path: &Path) -> Result<()> {
    let unreadable = |error| failed(folder, "list", error);
    let ours: [PathBuf; 2] = [folder.join(LOCK_NAME), temporary(path)];
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let found = entry.map_err(unreadable)?.path();
        if !ours.contains(&found) {
            return Err(files::damaged(path, format!("is missing, although there is {}", found.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::of_newer;

    #[test]
    fn a_folder_is_one_nodes_and_counts_its_boots() {
        let folder = tempfile::tempdir().unwrap();
        let own = open(folder.path(), "attic", 1).unwrap();
        assert_eq!(open(folder.path(), "attic", 1).unwrap_err().kind(), ErrorKind::Locked);
        drop(own);
        for (cluster, node) in [("attic", 2), ("cellar", 1)] {
            assert_eq!(open(folder.path(), cluster, node).unwrap_err().kind(), ErrorKind::Usage);
        }
        assert_eq!(open(folder.path(), "attic", 1).unwrap().identity.boots, 2);
    }

    #[test]
    fn an_identity_of_a_newer_program_is_no_damage_and_stays_as_it_is() {
        #[derive(Serialize)]
        struct Grown(Identity, Option<String>);
        let folder = tempfile::tempdir().unwrap();
        let identity = open(folder.path(), "attic", 1).unwrap().identity;
        let path = folder.path().join(FILE_NAME);
        let grown = envelope::encode(Kind::Identity, &Grown(identity, Some("rack 7".to_owned()))).unwrap();
        for (bytes, says) in [(of_newer(&std::fs::read(&path).unwrap()), "version 2"), (grown, "does not decode")] {
            std::fs::write(&path, &bytes).unwrap();
            for error in [open(folder.path(), "attic", 1).unwrap_err(), open_stopped(folder.path()).unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
                assert!(error.chain().contains("identity") && error.chain().contains(says), "{error:?}");
                assert_eq!(error.fix(), Some(crate::files::NEWER));
            }
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }

    #[test]
    fn a_lost_or_damaged_identity_is_not_taken_for_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path(), "attic", 1).unwrap());
        let path = folder.path().join(FILE_NAME);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let error = open(folder.path(), "attic", 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Damaged, "byte {at}");
            assert!(error.fix().is_some() && error.chain().contains("identity"));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(folder.path().join("snapshot"), b"").unwrap();
        assert_eq!(open(folder.path(), "attic", 1).unwrap_err().kind(), ErrorKind::Damaged);
    }
}
