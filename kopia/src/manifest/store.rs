//! Reading manifests from an index view.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::entry::{self, ManifestEntry};
use crate::clock::Timestamp;
use crate::content::ContentId;
use crate::content::read::read_content;
use crate::error::{Error, ErrorKind, Result};
use crate::index_set::IndexView;
use crate::repository::Repository;

pub use super::entry::{decode as read_entries, encode};

/// Contents read at once; they are small, so this is all about round trips.
const READ_THREADS: usize = 8;

/// One manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// 32 hex digits.
    pub id: String,
    /// Labels; `type` is always there.
    pub labels: BTreeMap<String, String>,
    /// When it was last written.
    pub modified: Timestamp,
    /// Body.
    pub data: Box<serde_json::value::RawValue>,
}

/// All live manifests of a view, and what could not be read.
#[derive(Debug, Default)]
pub struct ManifestSet {
    /// By ID.
    pub manifests: BTreeMap<String, Manifest>,
    /// Number of `m` contents that hold them.
    pub content_count: usize,
    /// These contents, sorted; the unreadable ones are not among them.
    pub contents: Vec<ContentId>,
    /// `m` contents that could not be read: they may protect anything (R11).
    pub unreadable: Vec<(ContentId, Error)>,
}

impl ManifestSet {
    /// Reads all live `m` contents of `view`. One that cannot be read is listed, and fails nothing here.
    ///
    /// # Errors
    /// Those that say nothing about the content: the store does not answer, or refuses.
    pub fn load(repository: &Repository, view: &IndexView) -> Result<Self> {
        let table = &view.table;
        let rows: Vec<u32> = (0..u32::try_from(table.len()).unwrap_or(u32::MAX))
            .filter(|&row| table.prefix(row) == b'm' && !table.is_deleted(row))
            .collect();
        let next = AtomicUsize::new(0);
        let read = || {
            let mut done = Vec::new();
            while let Some(&row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                let entry = table.entry(row);
                let entries = read_content(repository, &entry)
                    .and_then(|plain| entry::decode(&plain))
                    .map_err(|error| error.at(format!("read manifest content {}", entry.id)));
                done.push((entry.id, entries));
            }
            done
        };
        let threads = rows.len().min(READ_THREADS);
        let mut contents: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        contents.sort_by_key(|(id, _)| *id);
        Self::merge(contents)
    }

    /// Merges the entries of contents: of each manifest the latest counts, and a deletion removes it.
    fn merge(contents: Vec<(ContentId, Result<Vec<ManifestEntry>>)>) -> Result<Self> {
        let mut set = Self { content_count: contents.len(), ..Self::default() };
        let mut latest: BTreeMap<String, ManifestEntry> = BTreeMap::new();
        for (id, entries) in contents {
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) if says_something_of_the_content(&error) => {
                    set.unreadable.push((id, error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            set.contents.push(id);
            for entry in entries {
                if latest.get(&entry.id).is_none_or(|other| entry.beats(other)) {
                    latest.insert(entry.id.clone(), entry);
                }
            }
        }
        let live = latest.into_iter().filter(|(_, entry)| !entry.deleted);
        set.manifests = live.map(|(id, entry)| (id, Manifest::from(entry))).collect();
        Ok(set)
    }

    /// Manifests whose label `type` is this.
    pub fn of_type<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Manifest> + 'a {
        self.manifests.values().filter(move |m| m.labels.get("type").is_some_and(|t| t == kind))
    }

    /// Manifests that bear all these labels, the one written first coming first (as Kopia's own queries).
    #[must_use]
    pub fn find(&self, labels: &BTreeMap<&str, &str>) -> Vec<&Manifest> {
        let bears = |m: &&Manifest| labels.iter().all(|(&name, &value)| m.labels.get(name).is_some_and(|v| v == value));
        let mut found: Vec<_> = self.manifests.values().filter(bears).collect();
        found.sort_by_key(|manifest| manifest.modified);
        found
    }

    /// All manifests in the shape of `kopia manifest list --json`.
    #[must_use]
    pub fn list(&self) -> Vec<ManifestListItem<'_>> {
        self.find(&BTreeMap::new()).into_iter().map(ManifestListItem::from).collect()
    }
}

/// Whether a failed read is the content's fault; else it is the weather's, or ours.
fn says_something_of_the_content(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported | ErrorKind::NotFound)
}

/// What `kopia manifest list --json` says of a manifest.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ManifestListItem<'a> {
    /// As in [`Manifest`].
    pub id: &'a str,
    /// Bytes of the body as stored.
    pub length: usize,
    /// As in [`Manifest`].
    pub labels: &'a BTreeMap<String, String>,
    /// As in [`Manifest`].
    pub mtime: Timestamp,
}

impl<'a> From<&'a Manifest> for ManifestListItem<'a> {
    fn from(manifest: &'a Manifest) -> Self {
        Self { id: &manifest.id, length: manifest.data.get().len(), labels: &manifest.labels, mtime: manifest.modified }
    }
}

impl From<ManifestEntry> for Manifest {
    fn from(entry: ManifestEntry) -> Self {
        let data = entry.data.unwrap_or_else(|| serde_json::value::RawValue::NULL.to_owned());
        Self { id: entry.id, labels: entry.labels, modified: entry.modified, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, second: i64, body: Option<&str>) -> ManifestEntry {
        let at = Timestamp::from_second(second).unwrap();
        let labels = BTreeMap::from([("type".to_owned(), "policy".to_owned())]);
        match body {
            None => ManifestEntry::deletion(id, at),
            Some(body) => ManifestEntry::put(id, labels, at, serde_json::from_str(body).unwrap()),
        }
    }

    fn bodies(contents: Vec<Vec<ManifestEntry>>) -> Vec<(String, String)> {
        let id = |n: usize| format!("m{n:02}").parse().unwrap();
        let set = ManifestSet::merge(contents.into_iter().enumerate().map(|(n, c)| (id(n), Ok(c))).collect()).unwrap();
        set.manifests.into_values().map(|m| (m.id, m.data.get().to_owned())).collect()
    }

    #[test]
    fn the_latest_entry_counts_wherever_it_lies() {
        let old = || vec![entry("a", 1, Some("1")), entry("b", 1, Some("1")), entry("c", 5, Some("5"))];
        let new = || vec![entry("a", 2, Some("2")), entry("b", 2, None), entry("c", 4, None), entry("d", 1, None)];
        let expected = [("a", "2"), ("c", "5")].map(|(id, body)| (id.to_owned(), body.to_owned()));
        assert_eq!(bodies(vec![old(), new()]), expected);
        assert_eq!(bodies(vec![new(), old()]), expected);
        assert_eq!(bodies(vec![[new(), old()].concat()]), expected);
    }

    #[test]
    fn a_tie_keeps_the_manifest() {
        for contents in
            [[entry("a", 1, None), entry("a", 1, Some("1"))], [entry("a", 1, Some("1")), entry("a", 1, None)]]
        {
            assert_eq!(bodies(contents.map(|e| vec![e]).into()).len(), 1);
        }
    }

    #[test]
    fn unreadable_contents_are_listed_and_weather_is_not_damage() {
        let id: ContentId = "m01".parse().unwrap();
        let set = ManifestSet::merge(vec![(id, Err(Error::damaged("x")))]).unwrap();
        assert_eq!((set.content_count, set.contents.len(), set.unreadable[0].0), (1, 0, id));
        let weather = Error::new(ErrorKind::StoreUnavailable, "x");
        assert_eq!(ManifestSet::merge(vec![(id, Err(weather))]).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    }
}
