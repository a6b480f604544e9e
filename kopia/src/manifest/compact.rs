//! Compaction of manifests: many `m` contents into one (`repo/manifest/committed_manifest_manager.go`).

use super::entry::{ManifestEntry, encode};
use super::store::ManifestSet;
use crate::content::ContentId;

/// From so many `m` contents on, Kopia's clients compact.
pub const CONTENTS_MIN: usize = 16;

/// What a compaction writes and what it replaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compaction {
    /// Plaintext of the new content: all live manifests, no deletions. `None` if there are none.
    pub plain: Option<Vec<u8>>,
    /// Contents to mark. Whoever writes `plain` takes its content ID out of these, should it be among them.
    pub replaces: Vec<ContentId>,
}

/// The compaction that is due; `None` below the threshold.
///
/// Entry and marks must reach the repository in *one* index blob: without the entry the manifests are gone, without the marks
/// dropped deletions come back. Never from a stale view, for the same reason. If any content is unreadable nothing is due: its
/// deletions are unknown, and so what is live.
#[must_use]
pub fn due(set: &ManifestSet) -> Option<Compaction> {
    if !set.unreadable.is_empty() || set.contents.len() < CONTENTS_MIN {
        return None;
    }
    let entries: Vec<_> = set.manifests.values().map(ManifestEntry::from).collect();
    let plain = (!entries.is_empty()).then(|| encode(&entries));
    Some(Compaction { plain, replaces: set.contents.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::error::Error;
    use crate::manifest::entry::decode;
    use crate::manifest::store::Manifest;
    use std::collections::BTreeMap;

    fn set(contents: usize, manifests: &[&str]) -> ManifestSet {
        let manifest = |id: &&str| Manifest {
            id: (*id).to_owned(),
            labels: BTreeMap::from([("type".to_owned(), "snapshot".to_owned())]),
            modified: Timestamp::from_second(7).unwrap(),
            data: serde_json::from_str(r#"{"x":1}"#).unwrap(),
        };
        ManifestSet {
            manifests: manifests.iter().map(|id| ((*id).to_owned(), manifest(id))).collect(),
            content_count: contents,
            contents: (0..contents).map(|n| format!("m{n:04x}").parse().unwrap()).collect(),
            unreadable: Vec::new(),
        }
    }

    #[test]
    fn sixteen_contents_become_one_with_all_that_lives() {
        assert_eq!(due(&set(15, &["a", "b"])), None);
        let full = set(16, &["a", "b"]);
        let compaction = due(&full).unwrap();
        assert_eq!(compaction.replaces, full.contents);
        let entries = decode(&compaction.plain.unwrap()).unwrap();
        let read: Vec<_> = entries.iter().map(|e| (e.id.as_str(), e.body(), e.labels["type"].as_str())).collect();
        assert_eq!(read, [("a", Some(r#"{"x":1}"#), "snapshot"), ("b", Some(r#"{"x":1}"#), "snapshot")]);
        assert_eq!(due(&set(20, &[])).unwrap().plain, None);
    }

    #[test]
    fn an_unreadable_content_forbids_it() {
        let mut full = set(16, &["a"]);
        full.unreadable.push(("mffff".parse().unwrap(), Error::damaged("x")));
        assert_eq!(due(&full), None);
    }
}
