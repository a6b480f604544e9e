//! Names of index blobs (`internal/epoch/epoch_utils.go`, `internal/completeset/complete_set.go`).
//!
//! Epochs are Go's `int` there: anything above 2^63 - 1 is no epoch. Malformed names are ignored.

use std::collections::HashMap;

use crate::storage::{BlobId, BlobMetadata};

/// Prefix of legacy index blobs.
pub const LEGACY_INDEX: &str = "n";
/// Prefix of legacy compaction logs.
pub const LEGACY_LOG: &str = "m";
/// Prefix of legacy clean-up schedules.
pub const LEGACY_CLEANUP: &str = "l";
/// Prefix of everything that the epoch manager owns.
pub const EPOCH: &str = "x";
/// Prefix of epoch markers.
pub const MARKER: &str = "xe";
/// Prefix of index blobs as clients write them.
pub const UNCOMPACTED: &str = "xn";
/// Prefix of compacted single epochs.
pub const SINGLE: &str = "xs";
/// Prefix of compacted ranges of epochs.
pub const RANGE: &str = "xr";
/// Prefix of deletion watermarks.
pub const WATERMARK: &str = "xw";

/// The plaintext blob that an upgrade to epochs leaves so that old clients fail. Never an index.
pub const POISON: &str =
    "n00000000000000000000000000000000-repository_unreadable_by_this_kopia_version_upgrade_required";

/// Epoch of an `xe`, `xn` or `xs` blob.
#[must_use]
pub fn epoch_of(id: &BlobId) -> Option<u64> {
    let name = id.as_str();
    number(name.split_once('_').map_or(name, |(head, _)| head))
}

/// First and last epoch of an `xr` blob.
#[must_use]
pub fn range_of(id: &BlobId) -> Option<(u64, u64)> {
    let mut parts = id.as_str().split('_');
    let (first, last, _hash) = (parts.next()?, parts.next()?, parts.next()?);
    Some((number(first)?, decimal(last)?))
}

/// Unix seconds of an `xw` blob.
#[must_use]
pub fn watermark_of(id: &BlobId) -> Option<i64> {
    let text = id.as_str().strip_prefix(WATERMARK)?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Set ID and number of members, of a name that ends in `-s<set>-c<count>`.
#[must_use]
pub fn set_of(id: &BlobId) -> Option<(&str, usize)> {
    let mut parts = id.as_str().split('-').skip(1);
    let (set, count) = (parts.next()?, parts.next()?);
    let count = count.strip_prefix('c').filter(|count| count.bytes().all(|b| b.is_ascii_digit()))?;
    set.starts_with('s').then_some(())?;
    Some((set, count.parse().ok()?))
}

/// `xe<epoch>`.
#[must_use]
pub fn marker(epoch: u64) -> BlobId {
    BlobId::new(format!("{MARKER}{epoch}"))
}

/// `xw<seconds>`.
#[must_use]
pub fn watermark(seconds: i64) -> BlobId {
    BlobId::new(format!("{WATERMARK}{seconds}"))
}

/// `xn<epoch>_`.
#[must_use]
pub fn uncompacted_prefix(epoch: u64) -> String {
    format!("{UNCOMPACTED}{epoch}_")
}

/// `xs<epoch>_`.
#[must_use]
pub fn single_prefix(epoch: u64) -> String {
    format!("{SINGLE}{epoch}_")
}

/// `xr<first>_<last>_`.
#[must_use]
pub fn range_prefix(first: u64, last: u64) -> String {
    format!("{RANGE}{first}_{last}_")
}

/// The complete sets among `blobs`, in the order in which they become complete. A blob without a set is one of its own.
#[must_use]
pub fn complete_sets(blobs: &[BlobMetadata]) -> Vec<Vec<BlobMetadata>> {
    let mut open: HashMap<&str, Vec<BlobMetadata>> = HashMap::new();
    let mut complete = Vec::new();
    for blob in blobs {
        let Some((set, count)) = set_of(&blob.id) else {
            complete.push(vec![blob.clone()]);
            continue;
        };
        let members = open.entry(set).or_default();
        members.push(blob.clone());
        if members.len() == count {
            complete.push(members.clone());
        }
    }
    complete
}

/// The set that readers use of several for the same epochs: the first that is complete, in listing order.
#[must_use]
pub fn first_complete(blobs: &[BlobMetadata]) -> Option<Vec<BlobMetadata>> {
    complete_sets(blobs).into_iter().next()
}

/// Digits behind a prefix of anything else.
fn number(text: &str) -> Option<u64> {
    decimal(text.trim_start_matches(|c: char| !c.is_ascii_digit()))
}

fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok().filter(|number| i64::try_from(*number).is_ok()))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index_set::testing::blobs;

    #[test]
    fn names_are_read_as_kopia_reads_them() {
        assert_eq!(epoch_of(&"xn12_00ff-s1-c1".into()), Some(12));
        assert_eq!(epoch_of(&"xe3".into()), Some(3));
        assert_eq!(epoch_of(&"xe".into()), None);
        assert_eq!(epoch_of(&"xs1x_a".into()), None);
        assert_eq!(epoch_of(&"xe9223372036854775808".into()), None);
        assert_eq!(range_of(&"xr0_7_aa-s1-c1".into()), Some((0, 7)));
        assert_eq!(range_of(&"xr0_7".into()), None);
        assert_eq!(range_of(&"xr_7_a".into()), None);
        assert_eq!(watermark_of(&"xw1795253297".into()), Some(1_795_253_297));
        assert_eq!(watermark_of(&"xw-5".into()), Some(-5));
        assert_eq!(watermark_of(&"xw".into()), None);
        assert_eq!(watermark_of(&"xw12a".into()), None);
        assert_eq!(set_of(&"xs0_aa-s12ab-c3".into()), Some(("s12ab", 3)));
        assert_eq!(set_of(&"xs0_aa-s12ab-c3-more".into()), Some(("s12ab", 3)));
        assert_eq!(set_of(&"xs0_aa-s12ab".into()), None);
        assert_eq!(set_of(&"xs0_aa-t12ab-c3".into()), None);
        assert_eq!(set_of(&"xs0_aa-s12ab-cX".into()), None);
        let longest = uncompacted_prefix(u64::MAX);
        assert_eq!((marker(4).as_str(), longest.as_str()), ("xe4", "xn18446744073709551615_"));
        assert_eq!((single_prefix(1), range_prefix(1, 9)), ("xs1_".to_owned(), "xr1_9_".to_owned()));
    }

    #[test]
    fn the_first_set_to_be_complete_is_used() {
        let listed = blobs(&["xs1_a-s1-c3", "xs1_b-s2-c2", "xs1_c-s1-c3", "xs1_d-s2-c2", "xs1_e-s1-c3"]);
        let names = |set: &[BlobMetadata]| set.iter().map(|blob| blob.id.to_string()).collect::<Vec<_>>();
        let sets = complete_sets(&listed);
        assert_eq!(names(&sets[0]), ["xs1_b-s2-c2", "xs1_d-s2-c2"]);
        assert_eq!(sets.len(), 2);
        assert_eq!(names(&first_complete(&blobs(&["xs1_a-s1-c2", "xs1_b"])).unwrap()), ["xs1_b"]);
        assert!(first_complete(&blobs(&["xs1_a-s1-c2"])).is_none());
        assert!(first_complete(&blobs(&["xs1_a-s1-c0"])).is_none());
        assert_eq!(complete_sets(&blobs(&["xs1_a-s1-c1", "xs1_b-s1-c1"])).len(), 1);
    }
}
