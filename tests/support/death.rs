//! A process that ends at one effect on the store, and what it leaves behind there and in its own folder.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use verger::embedded::CycleRequest;
use verger_kopia::index_set::names;
use verger_kopia::manifest::ManifestSet;
use verger_kopia::storage::fault::Effect;
use verger_kopia::storage::{ByteRange, Storage, list_all};
use verger_kopia::{Error, ErrorKind};

use crate::store::World;

/// When a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Right before the effect: it never happens.
    Before,
    /// Right after it: the answer is lost.
    After,
}

pub const MOMENTS: [Moment; 2] = [Moment::Before, Moment::After];

/// The folder's files with their bytes: what a process had written when it ended.
pub fn files(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Puts a folder's files back, over what is there; those that did not exist are removed.
pub fn put_back(folder: &Path, then: &BTreeMap<std::path::PathBuf, Vec<u8>>) {
    files(folder).into_keys().filter(|path| !then.contains_key(path)).for_each(|path| fs::remove_file(path).unwrap());
    for (path, bytes) in then {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Runs a cycle whose process ends at its effect `number`: nothing is asked of the store after that, and the state folder stays as it
/// was at this moment (what the code still writes there while it unwinds, a dead process would not). The error is what it came to.
pub fn die(world: &World, number: u64, moment: Moment, request: &CycleRequest) -> Option<Error> {
    let frozen = Arc::new(Mutex::new(None));
    let (faults, state, seen) = (world.faults.clone(), world.state_dir(), AtomicU64::new(0));
    let keep = frozen.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        if effect.done != (moment == Moment::After) || seen.fetch_add(1, Ordering::SeqCst) + 1 != number {
            return Ok(());
        }
        *keep.lock().unwrap() = Some(files(&state));
        faults.stop_after(0);
        Err(Error::new(ErrorKind::Interrupted, "the process was stopped"))
    }));
    let ended = world.try_cycle(request).err();
    world.faults.heal();
    if let Some(files) = frozen.lock().unwrap().take() {
        put_back(&world.state_dir(), &files);
    }
    ended
}

/// What cycles have left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub live: BTreeSet<String>,
    pub marked: BTreeSet<String>,
    pub snapshots: BTreeSet<String>,
    /// Blobs by kind: the letters that their names begin with; without those that each run adds one of.
    pub kinds: BTreeMap<String, usize>,
    /// What nothing needs: packs that no entry names, members of sets that never became complete, markers of sessions, lease held.
    pub garbage: Vec<String>,
}

fn kind(name: &str) -> String {
    let letters = |name: &str, count| name.chars().take(count).collect();
    match name.as_bytes()[0] {
        b'x' => letters(name, 2),
        b'k' | b'v' => name.to_owned(),
        _ => letters(name, 1),
    }
}

pub fn left(world: &World) -> Left {
    let view = world.view();
    let table = &view.table;
    let (marked, live): (Vec<u32>, Vec<u32>) = table.rows().partition(|row| table.is_deleted(*row));
    let ids = |rows: Vec<u32>| rows.into_iter().map(|row| table.id(row).to_string()).collect();
    let manifests = ManifestSet::load(&world.outside, &view).unwrap();
    let mut kinds = BTreeMap::new();
    for name in world.names("").keys().filter(|name| !is_index(name)) {
        *kinds.entry(kind(name)).or_default() += 1;
    }
    Left {
        live: ids(live),
        marked: ids(marked),
        snapshots: manifests.of_type("snapshot").map(|manifest| manifest.id.to_string()).collect(),
        kinds,
        garbage: garbage(world),
    }
}

/// An index blob as clients write them, or a watermark: how many there are depends on how many runs there were, until a margin that is
/// never waived has ended.
fn is_index(name: &str) -> bool {
    name.starts_with('n') || name.starts_with(names::UNCOMPACTED) || name.starts_with(names::WATERMARK)
}

/// How many of those there are.
pub fn indexes(world: &World) -> usize {
    world.names("").keys().filter(|name| is_index(name)).count()
}

fn garbage(world: &World) -> Vec<String> {
    let view = world.view();
    let named: BTreeSet<String> = view.table.rows().map(|row| view.table.entry(row).pack.as_str().to_owned()).collect();
    let blobs = world.blobs("");
    let mut found: Vec<String> = blobs
        .iter()
        .map(|blob| blob.id.to_string())
        .filter(|name| name.starts_with('s') || (name.starts_with(['p', 'q']) && !named.contains(name)))
        .collect();
    let mut sets: BTreeMap<&str, usize> = BTreeMap::new();
    for (set, count) in blobs.iter().filter_map(|blob| names::set_of(&blob.id)) {
        *sets.entry(set).or_insert(count) -= 1;
    }
    found.extend(sets.into_iter().filter(|(_, missing)| *missing > 0).map(|(set, _)| format!("part of set {set}")));
    found.extend(held_lease(&**world.outside.storage()));
    found
}

fn held_lease(storage: &dyn Storage) -> Option<String> {
    let lease = list_all(storage, "verger.lease").unwrap().pop()?;
    let body: serde_json::Value = serde_json::from_slice(&storage.get(&lease.id, ByteRange::All).unwrap()).unwrap();
    (body["free"] != true).then(|| format!("lease {body}"))
}
