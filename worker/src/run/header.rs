//! The header of a plan, which is all that the machine sees of it.

use verger_kopia::Result;
use verger_kopia::bitmap::Bitmap;
use verger_kopia::index::Table;
use verger_kopia::maintenance::rules::plan::{Deletion, Mode, PlanBody};
use verger_proto::digest::Digest;
use verger_proto::job::{JobSpec, OutputRef, ViewRef};
use verger_proto::plan::{PlanHeader, StageWork};
use verger_proto::stage::Stage;

/// The prefix of contents that hold manifests; they are never marked.
const SYSTEM: u8 = b'm';

/// A mode as records have it.
#[must_use]
pub fn recorded(mode: Mode) -> verger_proto::Mode {
    match mode {
        Mode::Quick => verger_proto::Mode::Quick,
        Mode::Full => verger_proto::Mode::Full,
        Mode::Index => verger_proto::Mode::Index,
    }
}

/// A mode as the rules take it.
#[must_use]
pub fn ruled(mode: verger_proto::Mode) -> Mode {
    match mode {
        verger_proto::Mode::Quick => Mode::Quick,
        verger_proto::Mode::Full => Mode::Full,
        verger_proto::Mode::Index => Mode::Index,
    }
}

/// Makes the header. `epochs`: the repository has epoch indexes, whose tasks are recorded even if there is nothing to do.
pub(super) fn header(
    spec: &JobSpec,
    body: &PlanBody,
    table: &Table,
    view: ViewRef,
    digest: Digest,
    recorded_gc: bool,
    epochs: bool,
) -> Result<PlanHeader> {
    let mode = recorded(body.mode);
    let stages = stages(body, table, recorded_gc, epochs);
    let (removed, removed_bytes) = removed(body, table);
    let live = |row: &u32| !table.is_deleted(*row) && !removed.contains(*row);
    let counted = |row: &u32| table.prefix(*row) != SYSTEM;
    let anything_goes = removed.count() > 0;
    // Where nothing goes, a repository without any snapshot is no emptied one.
    let live_contents = table.rows().filter(live).filter(|row| !anything_goes || counted(row)).count() as u64;
    Ok(PlanHeader {
        repository: spec.repository.clone(),
        store: body.store.clone(),
        view,
        term: spec.term,
        mode,
        removed_bytes,
        total_packed_bytes: table.rows().map(|row| u64::from(table.packed_length(row))).sum(),
        contents: table.len() as u64,
        live_contents,
        body: OutputRef {
            name: format!("plan/{}/{}", spec.id, spec.attempt),
            digest,
            count: stages.iter().map(|work| work.items).sum(),
            view: view.digest,
        },
        stages,
    })
}

/// Rows that readers lose, and their packed bytes (S5).
fn removed(body: &PlanBody, table: &Table) -> (Bitmap, u64) {
    let mut rows = Bitmap::new(u32::try_from(table.len()).unwrap_or(u32::MAX));
    let marked = body.gc.iter().flat_map(|gc| &gc.mark);
    let dropped = body.drop.iter().flat_map(|drop| &drop.rows);
    let mut bytes = 0;
    for row in marked.chain(dropped) {
        if rows.insert(*row) {
            bytes += u64::from(table.packed_length(*row));
        }
    }
    (rows, bytes)
}

fn stages(body: &PlanBody, table: &Table, recorded_gc: bool, epochs: bool) -> Vec<StageWork> {
    let packed = |rows: &[u32]| rows.iter().map(|row| u64::from(table.packed_length(*row))).sum::<u64>();
    let lengths = |blobs: &[Deletion]| blobs.iter().map(|deletion| deletion.length).sum::<u64>();
    let mut stages = Vec::new();
    let mut add = |stage: Stage, items: usize, bytes: u64| {
        if stage.is_in(recorded(body.mode)) {
            stages.push(StageWork { stage, items: items as u64, bytes });
        }
    };
    if let Some(gc) = &body.gc {
        if !gc.undelete.is_empty() {
            add(Stage::Revive, gc.undelete.len(), packed(&gc.undelete));
        }
        if !gc.mark.is_empty() {
            add(Stage::Mark, gc.mark.len(), packed(&gc.mark));
        }
        if recorded_gc {
            add(Stage::RecordGc, 0, 0);
        }
    }
    if let Some(drop) = &body.drop {
        add(Stage::Watermark, 1, packed(&drop.rows));
    }
    if let Some(delete) = &body.delete {
        add(Stage::Delete, delete.blobs.len(), lengths(&delete.blobs));
    }
    if let Some(rewrite) = &body.rewrite {
        let rows: usize = rewrite.packs.iter().map(|pack| pack.rows.len()).sum();
        let bytes = rewrite.packs.iter().map(|pack| packed(&pack.rows)).sum();
        if rows > 0 {
            add(Stage::Rewrite, rows, bytes);
        }
        add(Stage::Publish, rows, bytes);
    }
    if let Some(delete) = &body.delete_rewritten {
        add(Stage::DeleteRewritten, delete.blobs.len(), lengths(&delete.blobs));
    }
    if epochs || !body.index.is_empty() {
        add(Stage::Index, 0, 0);
    }
    if let Some(locks) = &body.locks {
        add(Stage::Locks, locks.blobs.len(), 0);
    }
    if let Some(logs) = &body.logs {
        add(Stage::Logs, logs.blobs.len(), lengths(&logs.blobs));
    }
    stages
}
