//! Snapshots that appeared since the plan's view (R14): each is walked once, and what it needs is kept or revived.

use std::collections::BTreeSet;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::clock::Timestamp;
use verger_kopia::content::read::ContentReader;
use verger_kopia::content::{ContentId, Entry};
use verger_kopia::directory::{EntryType, parse_object};
use verger_kopia::maintenance::Params;
use verger_kopia::manifest::entry::decode;
use verger_kopia::object::{ObjectId, resolve};
use verger_kopia::strict;
use verger_kopia::{Error, ErrorKind, Repository, Result};

use super::guard::Guard;
use crate::workspace::Workspace;

/// What newer snapshots need.
pub(super) struct Needs {
    /// Contents behind them.
    pub(super) contents: BTreeSet<ContentId>,
    /// IDs of the manifests that were read.
    pub(super) manifests: BTreeSet<String>,
    /// Who owns maintenance by the newest parameters among them, if there are any.
    pub(super) owner: Option<String>,
}

#[derive(serde::Deserialize)]
struct Body {
    #[serde(rename = "rootEntry", deserialize_with = "strict::object")]
    root: Root,
}

#[derive(serde::Deserialize)]
struct Root {
    obj: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// Reads the manifests in these contents, and in a full cycle walks the snapshots that were not there before.
pub(super) fn needs(
    workspace: &Workspace,
    repository: &Repository,
    guard: &Guard,
    contents: &[Entry],
) -> Result<Needs> {
    let mut reader = ContentReader::new(repository);
    let mut found = Needs { contents: BTreeSet::new(), manifests: BTreeSet::new(), owner: None };
    let mut owner: Option<(Timestamp, String, String)> = None;
    let mut roots = Vec::new();
    for entry in contents {
        let plain = reader.read(entry)?.to_vec();
        for manifest in decode(&plain).map_err(|e| e.at(format!("read manifest content {}", entry.id)))? {
            let Some(body) = manifest.body() else { continue };
            if manifest.labels.get("type").is_some_and(|kind| kind == "maintenance") {
                let params = Params::parse(&manifest.id, body)?;
                owner = owner.max(Some((manifest.modified, manifest.id, params.owner)));
                continue;
            }
            let is_snapshot = manifest.labels.get("type").is_some_and(|kind| kind == "snapshot");
            if guard.manifests().contains(&manifest.id) || !found.manifests.insert(manifest.id.clone()) || !is_snapshot
            {
                continue;
            }
            let step = || format!("read snapshot {}, which is newer than this cycle's view", manifest.id);
            let strict::Object(body): strict::Object<Body> =
                serde_json::from_str(body).map_err(|e| Error::damaged(step()).with_source(e))?;
            let object: ObjectId =
                body.root.obj.parse().map_err(|e: Error| e.into_kind(ErrorKind::Damaged).at(step()))?;
            roots.push((object, body.root.kind == "d"));
        }
    }
    found.owner = owner.map(|(_, _, owner)| owner);
    if guard.used().is_none() {
        return Ok(found);
    }
    let mut walk = Walk { workspace, guard, reader, seen: BTreeSet::new(), contents: &mut found.contents };
    let walked = walk.run(roots);
    if !mutant::on(Mutant::R11UnreadableNewcomerIsEmpty) {
        walked?;
    }
    Ok(found)
}

struct Walk<'a> {
    workspace: &'a Workspace,
    guard: &'a Guard,
    reader: ContentReader<'a>,
    seen: BTreeSet<(ObjectId, bool)>,
    contents: &'a mut BTreeSet<ContentId>,
}

impl Walk<'_> {
    fn run(&mut self, roots: Vec<(ObjectId, bool)>) -> Result<()> {
        let mut todo = roots;
        while let Some((object, is_directory)) = todo.pop() {
            self.workspace.stop.check()?;
            if self.is_known(&object, is_directory) || !self.seen.insert((object, is_directory)) {
                continue;
            }
            let (guard, reader) = (self.guard, &mut self.reader);
            let mut fetch = |id: &ContentId| {
                let missing =
                    || Error::damaged(format!("content {id}, which a newer snapshot needs, has no index entry"));
                reader.read(&guard.current(id).ok_or_else(missing)?).map(<[u8]>::to_vec)
            };
            let contents = &mut *self.contents;
            resolve(&object, &mut fetch, &mut |found| {
                contents.insert(found.id);
            })?;
            if is_directory {
                parse_object(object, fetch, |child| todo.push((child.object, child.kind == EntryType::Directory)))?;
            }
        }
        Ok(())
    }

    /// Whether the plan's snapshots need all of it already, in the same role.
    fn is_known(&self, object: &ObjectId, is_directory: bool) -> bool {
        let Some(used) = self.guard.used() else { return false };
        if object.indirection > 0 || !used.damages.is_empty() {
            return false;
        }
        let row = self.guard.view().table.find(&object.content);
        row.is_some_and(|row| if is_directory { used.directories.contains(row) } else { used.rows.contains(row) })
    }
}
