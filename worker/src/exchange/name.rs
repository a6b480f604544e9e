//! Names of parts: unique in the exchange, written once. A retry writes another name.

use std::fmt;

use verger_kopia::storage::BlobId;
use verger_proto::id::{CycleId, RepositoryId};
use verger_proto::{Digest, Shard, Stage};

/// Hexadecimal digits that a repository is known by in names.
const REPOSITORY_DIGITS: usize = 16;

/// A key that is longer than this stands in a name by its digest.
const KEY_BYTES_MAX: usize = 40;

/// Every part's name begins so.
pub(super) const PREFIX: &str = "x";

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PartKind {
    /// Contents that the shards of a range are to read.
    ScanOrder,
    /// What the contents of a shard point to.
    Scan,
    /// Contents that the shards of a range are to copy.
    RewriteOrder,
    /// Entries of contents that were copied, and what was left.
    Rewrite,
    /// The session that a shard's packs are written in, noted before the first of them.
    RewriteSession,
}

impl PartKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::ScanOrder, Self::Scan, Self::RewriteOrder, Self::Rewrite, Self::RewriteSession];

    /// As in names.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ScanOrder => "scan.order",
            Self::Scan => "scan",
            Self::RewriteOrder => "rewrite.order",
            Self::Rewrite => "rewrite",
            Self::RewriteSession => "rewrite.session",
        }
    }

    /// What the shards of `stage` are told by; `None` for a stage that is not cut.
    #[must_use]
    pub fn order_of(stage: Stage) -> Option<Self> {
        match stage {
            Stage::Scan => Some(Self::ScanOrder),
            Stage::Rewrite => Some(Self::RewriteOrder),
            _ => None,
        }
    }
}

/// A part's name, taken apart: `x/<repository>/<cycle>/<kind>-<first key>-<attempt>-<random>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartName {
    /// The first digits of the repository's digest.
    pub repository: String,
    /// Cycle.
    pub cycle: CycleId,
    /// What it holds.
    pub kind: PartKind,
    /// First key of its shard in hexadecimal, or its digest if it is long.
    pub from: String,
    /// The attempt that made it.
    pub attempt: u32,
    /// So that no two are the same.
    pub random: u32,
}

impl PartName {
    /// A new name.
    pub(super) fn new(repository: &RepositoryId, cycle: CycleId, kind: PartKind, shard: &Shard, attempt: u32) -> Self {
        let from = if shard.from.len() > KEY_BYTES_MAX {
            Digest::of(&shard.from).to_string()
        } else {
            hex::encode(&shard.from)
        };
        Self { repository: digits_of(repository), cycle, kind, from, attempt, random: rand::random() }
    }

    /// Reads a name; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut places = text.splitn(4, '/');
        let (prefix, repository, cycle) = (places.next()?, places.next()?, places.next()?);
        let mut last = places.next()?.rsplitn(4, '-');
        let (random, attempt, from, label) = (last.next()?, last.next()?, last.next()?, last.next()?);
        let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let shaped = prefix == PREFIX && repository.len() == REPOSITORY_DIGITS && random.len() == 8;
        if !shaped || !is_hex(repository) || !is_hex(from) || !is_hex(random) {
            return None;
        }
        let name = Self {
            repository: repository.to_owned(),
            cycle: CycleId(cycle.parse().ok()?),
            kind: PartKind::ALL.into_iter().find(|kind| kind.label() == label)?,
            from: from.to_owned(),
            attempt: attempt.parse().ok()?,
            random: u32::from_str_radix(random, 16).ok()?,
        };
        // One text for each name: no leading zeros, no signs.
        (name.to_string() == text).then_some(name)
    }

    /// The blob of a part: stores know no `/` in names.
    #[must_use]
    pub(super) fn blob(text: &str) -> BlobId {
        BlobId::new(text.replace('/', "."))
    }

    /// The name behind a blob.
    pub(super) fn of_blob(blob: &BlobId) -> Option<Self> {
        // The last place has dots of its own.
        Self::parse(&blob.as_str().replacen('.', "/", 3))
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { repository, cycle, kind, from, attempt, random } = self;
        write!(f, "{PREFIX}/{repository}/{cycle}/{}-{from}-{attempt}-{random:08x}", kind.label())
    }
}

/// What a repository is known by in names.
pub(super) fn digits_of(repository: &RepositoryId) -> String {
    let mut digits = Digest::of(repository.to_string().as_bytes()).to_string();
    digits.truncate(REPOSITORY_DIGITS);
    digits
}

/// Names of a repository's parts begin so.
pub(super) fn repository_prefix(repository: &RepositoryId) -> String {
    format!("{PREFIX}.{}.", digits_of(repository))
}

/// What the blobs of a cycle begin with.
pub(super) fn cycle_prefix(repository: &RepositoryId, cycle: CycleId) -> String {
    format!("{PREFIX}.{}.{cycle}.", digits_of(repository))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_nothing_else_is_one() {
        let repository: RepositoryId = format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap();
        for kind in PartKind::ALL {
            for from in [&b""[..], b"q", &[0xff; 40], &[7; 41]] {
                let shard = Shard { from: from.to_vec(), to: None };
                let name = PartName::new(&repository, CycleId(7), kind, &shard, 3);
                assert_eq!(PartName::parse(&name.to_string()), Some(name.clone()));
                let blob = PartName::blob(&name.to_string());
                assert_eq!(PartName::of_blob(&blob), Some(name));
                assert!(blob.as_str().starts_with(&cycle_prefix(&repository, CycleId(7))));
                assert!(!blob.as_str().starts_with(&cycle_prefix(&repository, CycleId(70))));
            }
        }
        let digits = "0".repeat(16);
        for text in [
            String::new(),
            format!("x/{digits}/07/scan--1-00000000"),
            format!("x/{digits}/7/scan--+1-00000000"),
            format!("x/{digits}/7/scan--1-0000000G"),
            format!("x/{digits}/7/solve--1-00000000"),
            format!("y/{digits}/7/scan--1-00000000"),
            format!("x/{digits}0/7/scan--1-00000000"),
        ] {
            assert_eq!(PartName::parse(&text), None, "{text}");
        }
    }
}
