//! What a coordinator's data folder says of the cluster that it belongs to. Made once, by `cluster init`, `join` or `replace`.

use std::path::{Path, PathBuf};

use rand::Rng as _;
use serde::{Deserialize, Serialize};
use verger_coordinator::files::{make_folders, read_if_there, replace};
use verger_kopia::{Error, ErrorKind, Result};

const FILE: &str = "member";
/// Longest name of a cluster, in bytes.
const NAME_BYTES_MAX: usize = 40;

/// Which coordinator of which cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Member {
    /// The cluster's name, for people.
    pub(crate) name: String,
    /// Eight hexadecimal digits that name the fleet in leases and as Kopia's owner.
    pub(crate) fleet: String,
    /// This coordinator's number.
    pub(crate) node: u64,
    /// 32 hexadecimal digits, made with the folder: another folder with the same number is told by them.
    pub(crate) key: String,
    /// The cluster began here.
    pub(crate) first: bool,
    /// How often the cluster was made anew of what was left of it.
    #[serde(default, skip_serializing_if = "is_first")]
    pub(crate) generation: u32,
}

fn is_first(generation: &u32) -> bool {
    *generation == 0
}

impl Member {
    /// The first one of a new cluster.
    ///
    /// # Errors
    /// `Usage` for a name that is none.
    pub(crate) fn first(name: &str, node: u64) -> Result<Self> {
        check_name(name)?;
        let fleet = format!("{:08x}", rand::rng().random::<u32>());
        Ok(Self { name: name.to_owned(), fleet, node, key: new_key(), first: true, generation: 0 })
    }

    /// One more of a cluster, by what raft calls it.
    ///
    /// # Errors
    /// `Unsupported` for a cluster that is named in another way.
    pub(crate) fn of(cluster: &str, node: u64) -> Result<Self> {
        let strange = || Error::new(ErrorKind::Unsupported, format!("{cluster:?} is no name of a cluster"));
        let (rest, generation) = match cluster.split_once('+') {
            Some((rest, generation)) => (rest, generation.parse().map_err(|_| strange())?),
            None => (cluster, 0),
        };
        let (name, fleet) = rest.rsplit_once('-').ok_or_else(strange)?;
        if fleet.len() != 8 || !fleet.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(strange());
        }
        let (name, fleet) = (name.to_owned(), fleet.to_owned());
        Ok(Self { name, fleet, node, key: new_key(), first: false, generation })
    }

    /// What raft calls the cluster: two of one name are not the same, and neither is one before and after it was made anew.
    pub(crate) fn cluster(&self) -> String {
        match self.generation {
            0 => format!("{}-{}", self.name, self.fleet),
            generation => format!("{}-{}+{generation}", self.name, self.fleet),
        }
    }

    /// The same coordinator, in the cluster that is made anew of it. It may have been made anew before, and half way.
    pub(crate) fn anew(&self) -> Self {
        Self { generation: self.generation.saturating_add(1), ..self.clone() }
    }

    /// Whether raft's name for a cluster is this one's, however often it was made anew.
    pub(crate) fn is_of(&self, cluster: &str) -> bool {
        cluster.split_once('+').map_or(cluster, |(rest, _)| rest) == format!("{}-{}", self.name, self.fleet)
    }

    /// Writes over what the folder said.
    ///
    /// # Errors
    /// `Permission` or `DiskFull`.
    pub(crate) fn write(&self, data: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::new(ErrorKind::Internal, "write down a member").with_source(error))?;
        let path = path(data);
        replace(&path, text.as_bytes()).map_err(|error| Error::of_file(format!("write {}", path.display()), error))
    }

    /// The key as a number.
    ///
    /// # Errors
    /// `Damaged`.
    pub(crate) fn key(&self) -> Result<u128> {
        u128::from_str_radix(&self.key, 16).map_err(|error| {
            Error::damaged("the key of this data folder is not 32 hexadecimal digits").with_source(error)
        })
    }

    /// Keeps it in a folder that belongs to nobody yet.
    ///
    /// # Errors
    /// `Usage` if it belongs to somebody, `Permission` or `DiskFull` if it cannot be written.
    pub(crate) fn keep(&self, data: &Path) -> Result<()> {
        make_folders(data).map_err(|error| Error::of_file(format!("make {}", data.display()), error))?;
        if let Some(other) = read(data)? {
            return if other == *self { Ok(()) } else { Err(taken(data, &other)) };
        }
        self.write(data)
    }

    /// Takes it back from a folder: the cluster did not want it.
    ///
    /// # Errors
    /// `Permission`.
    pub(crate) fn forget(&self, data: &Path) -> Result<()> {
        let path = path(data);
        std::fs::remove_file(&path).map_err(|error| Error::of_file(format!("remove {}", path.display()), error))
    }
}

/// A folder that belongs to somebody already.
pub(crate) fn taken(data: &Path, other: &Member) -> Error {
    let step = format!("{} belongs to coordinator {} of cluster {}", data.display(), other.node, other.name);
    let fix = "choose an empty folder: each coordinator has its own, and keeps it for good";
    Error::new(ErrorKind::Usage, step).with_fix(fix)
}

fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

fn new_key() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

fn check_name(name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(fits) {
        return Ok(());
    }
    let step = format!("{name:?} cannot be a cluster's name");
    Err(Error::new(ErrorKind::Usage, step).with_fix(format!("use 1 to {NAME_BYTES_MAX} of a to z, 0 to 9 and \"-\"")))
}

/// What the folder says; none if nobody made it a member.
///
/// # Errors
/// `Damaged` if it cannot be understood, `Permission` if it cannot be read.
pub(crate) fn read(data: &Path) -> Result<Option<Member>> {
    let path = path(data);
    let Some(bytes) = read_if_there(&path)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Error::damaged(format!("{} does not say which coordinator this is", path.display()))
            .with_source(error)
            .with_fix("put the file back from a copy of this folder, or let the coordinator join under a new number")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_members_for_good() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        let first = Member::first("attic", 1).unwrap();
        first.keep(folder.path()).unwrap();
        first.keep(folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(first.clone()));
        let second = Member::of(&first.cluster(), 2).unwrap();
        assert_eq!((second.cluster(), second.first), (first.cluster(), false));
        let anew = first.anew().anew();
        assert_eq!(anew.cluster(), format!("{}+2", first.cluster()));
        assert_eq!(Member::of(&anew.cluster(), 4).unwrap().cluster(), anew.cluster());
        assert!(anew.is_of(&first.cluster()) && first.is_of(&anew.cluster()) && !first.is_of("attic-00000000"));
        assert_eq!(second.keep(folder.path()).unwrap_err().kind(), ErrorKind::Usage);
        std::fs::write(folder.path().join(FILE), "{}").unwrap();
        assert_eq!(read(folder.path()).unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn names_are_short_and_plain() {
        for bad in ["", "Attic", "two words", "a/b", &"a".repeat(41)] {
            assert_eq!(Member::first(bad, 1).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
        for bad in ["attic", "attic-123", "attic-1234567z", "attic-12345678+x", "attic-12345678+"] {
            assert_eq!(Member::of(bad, 1).unwrap_err().kind(), ErrorKind::Unsupported, "{bad}");
        }
    }
}
