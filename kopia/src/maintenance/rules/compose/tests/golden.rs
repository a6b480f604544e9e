//! Plans for the golden repositories, held against what the real program did to a copy with `--safety=none`.

use super::super::check::{Severity, check};
use super::*;
use crate::bitmap::Bitmap;
use crate::index_set::legacy::{LegacyState, load_cleanups};
use crate::index_set::testing::{Golden, golden};
use crate::index_set::{IndexView, load_view};
use crate::maintenance::history::SnapshotGcStats;
use crate::maintenance::rules::facts::{CleanupNote, CompactionLog};
use crate::maintenance::{Margins, Params, schedule};
use crate::storage::{BlobMetadata, list_all};
use serde_json::Value;
use std::collections::BTreeSet;

fn names() -> Vec<String> {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden")).unwrap();
    let names =
        folder.filter_map(|file| file.unwrap().file_name().to_str()?.strip_suffix(".tar.gz").map(str::to_owned));
    names.collect()
}

/// IDs of the live contents that `expect.json` lists.
fn live(expect: &Value) -> BTreeSet<&str> {
    let contents = expect["contents"].as_array().unwrap().iter();
    contents.filter(|c| c["deleted"] != true).map(|c| c["contentID"].as_str().unwrap()).collect()
}

fn index(golden: &Golden, view: &IndexView) -> IndexFacts {
    let repository = &golden.repository;
    if view.write_epoch.is_some() {
        let blobs = list_all(&**repository.storage(), "x").unwrap();
        return IndexFacts::Epochs { parameters: repository.config().epoch.clone(), blobs };
    }
    let state = LegacyState::load(repository).unwrap();
    let log = |(blob, log): &(BlobMetadata, crate::index_set::legacy::CompactionLog)| CompactionLog {
        blob: blob.clone(),
        inputs: log.inputs().cloned().collect(),
        outputs: log.outputs().cloned().collect(),
    };
    let notes = load_cleanups(repository).unwrap().into_iter().map(|(blob, note)| CleanupNote {
        blob,
        logs: note.logs.unwrap_or_default(),
        scheduled: note.scheduled,
    });
    IndexFacts::Legacy {
        active: state.active(),
        logs: state.logs.iter().map(log).collect(),
        notes: notes.collect(),
        all: state.indexes,
    }
}

fn packs(golden: &Golden) -> Vec<BlobMetadata> {
    ["p", "q", "s"].iter().flat_map(|prefix| list_all(&**golden.repository.storage(), prefix).unwrap()).collect()
}

#[test]
fn schedules_read_as_kopia_prints_them_and_survive_a_rewrite() {
    for name in names() {
        let golden = golden(&name);
        let loaded = schedule::load(&golden.repository).unwrap();
        let printed = serde_json::to_value(&loaded.schedule).unwrap();
        // The printed schedule is the printing program's own reading; times lose a zone, not a digit.
        assert_eq!(printed, golden.expect["before"]["maintenance"]["schedule"], "{name}");
        let mut changed = loaded.schedule.clone();
        changed.next_full = None;
        schedule::replace(&golden.repository, &loaded, &changed, None).unwrap();
        assert_eq!(schedule::load(&golden.repository).unwrap().schedule, changed, "{name}");
        let foreign = schedule::replace(&golden.repository, &loaded, &changed, None).unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::ForeignMaintenance, "{name}: the version read is gone");
    }
}

#[test]
fn without_margins_plans_do_what_kopia_did() {
    for name in names() {
        let golden = golden(&name);
        let (before, after) = (&golden.expect["before"], &golden.expect["after"]);
        let view = load_view(&golden.repository, 2).unwrap();
        let (was, is) = (live(before), live(after));
        let mut used = Bitmap::new(u32::try_from(view.table.len()).unwrap());
        for row in 0..used.length() {
            let id = view.table.id(row).to_string();
            // What lived on in Kopia's copy is what snapshots need: nothing there was young.
            if view.table.prefix(row) != b'm' && was.contains(id.as_str()) && is.contains(id.as_str()) {
                used.insert(row);
            }
        }
        let (packs, index) = (packs(&golden), index(&golden, &view));
        let logs = list_all(&**golden.repository.storage(), "_log_").unwrap();
        let loaded = schedule::load(&golden.repository).unwrap();
        let now = golden.repository.storage().now().unwrap();
        let facts = Facts {
            mode: Mode::Full,
            margins: &Margins::none(),
            unique_id: "id",
            store: "memory:",
            view: "view",
            started: now,
            now,
            gc_started: now,
            table: &view.table,
            used: Some(&used),
            frozen: Frozen::Nothing,
            frozen_why: "",
            packs: &packs,
            sessions: &[],
            format_blobs: &[],
            logs: &logs,
            index: &index,
            schedule: &loaded.schedule,
            params: &Params::kopia_default(),
            blob_config: golden.repository.blob_config(),
            max_pack_size: golden.repository.config().max_pack_size,
        };
        let plan = compose(&facts).unwrap();
        let wrong: Vec<_> = check(&plan, &facts, 100).into_iter().filter(|n| n.severity == Severity::Fatal).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");

        let run = &after["maintenance"]["schedule"]["runs"]["snapshot-gc"][0]["extra"][0]["data"];
        let expected: SnapshotGcStats = serde_json::from_value(run.clone()).unwrap();
        assert_eq!(plan.gc.as_ref().unwrap().stats, expected, "{name}");

        let dropped: BTreeSet<u32> = plan.drop.as_ref().unwrap().rows.iter().copied().collect();
        let left: BTreeSet<String> = (0..used.length())
            .filter(|row| !dropped.contains(row) && view.table.prefix(*row) != b'm')
            .map(|row| view.table.id(row).to_string())
            .collect();
        let wanted: BTreeSet<String> = is.iter().filter(|id| !id.starts_with('m')).map(|id| (*id).to_owned()).collect();
        assert_eq!(left, wanted, "{name}");
        assert_packs(&name, &plan, &packs, after, &facts);
    }
}

/// At most one pack more than Kopia left. What is rewritten fills new packs, of each letter one more than its bytes
/// need.
fn assert_packs<R: Rows>(name: &str, plan: &PlanBody, packs: &[BlobMetadata], after: &Value, facts: &Facts<'_, R>) {
    let is_pack = |id: &str| id.starts_with(['p', 'q']);
    let gone = plan.delete.iter().chain(&plan.delete_rewritten).flat_map(|delete| &delete.blobs);
    let gone = gone.filter(|deletion| is_pack(deletion.blob.as_str())).count();
    let mut bytes = std::collections::BTreeMap::new();
    for pack in &plan.rewrite.as_ref().unwrap().packs {
        let letter = facts.table.packs()[pack.pack as usize].as_str().as_bytes()[0];
        let size: u64 = pack.rows.iter().map(|row| u64::from(facts.table.packed_length(*row))).sum();
        *bytes.entry(letter).or_insert(0) += size;
    }
    let new: u64 = bytes.values().map(|bytes| bytes / facts.max_pack_size + 1).sum();
    let left = packs.iter().filter(|blob| is_pack(blob.id.as_str())).count() - gone + usize::try_from(new).unwrap();
    let kopia = after["blobs"].as_array().unwrap().iter().filter(|blob| is_pack(blob["id"].as_str().unwrap())).count();
    assert!(left <= kopia + 1, "{name}: {left} packs, Kopia left {kopia}");
}
