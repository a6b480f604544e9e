//! A plan body as JSON lines, rows told by content ID: what `verger plan --out` writes, and what the plan's digest is of.
//!
//! One header, one line a task, one line a thing that changes, and a last line that counts the others, so that a file cut short shows.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::json;
use verger_kopia::index::Table;
use verger_kopia::maintenance::rules::plan::{DeletePlan, Deletion, PlanBody};
use verger_kopia::storage::RetentionMode;

/// What a row's line takes, about.
const LINE_BYTES: usize = 256;

/// Version of this text.
const VERSION: u32 = 1;

/// Digest of a body: BLAKE3 (hex) of exactly the bytes that [`write_lines`] writes.
#[must_use]
pub fn digest(body: &PlanBody, table: &Table) -> String {
    let mut hasher = blake3::Hasher::new();
    // Hashing does not fail, and neither does turning these values into JSON.
    write_lines(body, table, &mut hasher).expect("writing into a hash cannot fail");
    hasher.finalize().to_hex().to_string()
}

/// Writes `body`, a line at a time.
///
/// # Errors
/// What `out` returns.
pub fn write_lines(body: &PlanBody, table: &Table, out: &mut impl Write) -> io::Result<()> {
    let packs = table.packs().iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let mut lines = Lines { table, packs, out: io::BufWriter::with_capacity(1 << 16, out), count: 0 };
    lines.line(&json!({
        "plan": VERSION, "mode": body.mode, "uniqueID": body.unique_id, "store": body.store,
        "started": body.started, "view": body.view, "rows": body.rows,
    }))?;
    gc_and_drop(&mut lines, body)?;
    if let Some(delete) = &body.delete {
        lines.deletes(delete, if delete.quick { "quick-delete-blobs" } else { "full-delete-blobs" })?;
    }
    rewrite(&mut lines, body)?;
    if let Some(delete) = &body.delete_rewritten {
        lines.deletes(delete, "delete-rewritten-blobs")?;
    }
    for step in &body.index {
        lines.line(&json!({ "index": step }))?;
    }
    locks_and_logs(&mut lines, body)?;
    for skipped in &body.skipped {
        lines.line(&json!({ "skipped": skipped }))?;
    }
    let count = lines.count;
    lines.line(&json!({ "lines": count }))?;
    lines.out.flush()
}

fn gc_and_drop<W: Write>(lines: &mut Lines<'_, W>, body: &PlanBody) -> io::Result<()> {
    if let Some(gc) = &body.gc {
        let (mark, undelete) = (gc.mark.len(), gc.undelete.len());
        lines.line(&json!({ "task": "snapshot-gc", "mark": mark, "undelete": undelete, "stats": gc.stats }))?;
        lines.rows("mark", &gc.mark)?;
        lines.rows("undelete", &gc.undelete)?;
    }
    if let Some(drop) = &body.drop {
        let (task, count) = ("full-drop-deleted-content", drop.rows.len());
        lines.line(&json!({ "task": task, "cutoff": drop.cutoff, "drop": count }))?;
        lines.rows("drop", &drop.rows)?;
    }
    Ok(())
}

fn rewrite<W: Write>(lines: &mut Lines<'_, W>, body: &PlanBody) -> io::Result<()> {
    let Some(rewrite) = &body.rewrite else { return Ok(()) };
    let task = if rewrite.quick { "quick-rewrite-contents" } else { "full-rewrite-contents" };
    lines.line(&json!({ "task": task, "packs": rewrite.packs.len(), "stats": rewrite.stats }))?;
    for pack in &rewrite.packs {
        lines.rows("rewrite", &pack.rows)?;
    }
    Ok(())
}

fn locks_and_logs<W: Write>(lines: &mut Lines<'_, W>, body: &PlanBody) -> io::Result<()> {
    if let Some(locks) = &body.locks {
        let mode = match locks.mode {
            RetentionMode::Governance => "GOVERNANCE",
            RetentionMode::Compliance => "COMPLIANCE",
        };
        let (task, count) = ("extend-blob-retention-time", locks.blobs.len());
        lines.line(&json!({ "task": task, "blobs": count, "mode": mode, "seconds": locks.period.as_secs() }))?;
        for blob in &locks.blobs {
            lines.line(&json!({ "lock": blob }))?;
        }
    }
    if let Some(logs) = &body.logs {
        lines.line(&json!({ "task": "cleanup-logs", "delete": logs.blobs.len(), "stats": logs.stats }))?;
        lines.blobs(&logs.blobs)?;
    }
    Ok(())
}

struct Lines<'t, W: Write> {
    table: &'t Table,
    /// Names of its packs, as JSON.
    packs: Vec<String>,
    out: io::BufWriter<W>,
    count: u64,
}

impl<W: Write> Lines<'_, W> {
    fn line(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, value)?;
        self.count += 1;
        self.out.write_all(b"\n")
    }

    /// Millions of these, twice a cycle: written by hand, without the machinery of formatting. Content IDs and pack names that
    /// Verger reads hold nothing that JSON escapes, so the pack's name alone goes through the encoder.
    fn rows(&mut self, deed: &str, rows: &[u32]) -> io::Result<()> {
        let (table, mut numbers) = (self.table, itoa::Buffer::new());
        let mut line = Vec::with_capacity(LINE_BYTES);
        let start = format!("{{\"{deed}\":\"");
        for &row in rows {
            line.clear();
            line.extend_from_slice(start.as_bytes());
            table.id(row).write_text(&mut line);
            line.extend_from_slice(b"\",\"pack\":");
            line.extend_from_slice(self.packs[table.pack(row) as usize].as_bytes());
            line.extend_from_slice(b",\"offset\":");
            line.extend_from_slice(numbers.format(table.offset(row)).as_bytes());
            line.extend_from_slice(b",\"bytes\":");
            line.extend_from_slice(numbers.format(table.packed_length(row)).as_bytes());
            line.extend_from_slice(b",\"time\":");
            line.extend_from_slice(numbers.format(table.timestamp(row)).as_bytes());
            let end: &[u8] = if table.is_deleted(row) { b",\"marked\":true}\n" } else { b",\"marked\":false}\n" };
            line.extend_from_slice(end);
            self.out.write_all(&line)?;
            self.count += 1;
        }
        Ok(())
    }

    fn deletes(&mut self, delete: &DeletePlan, task: &str) -> io::Result<()> {
        self.line(&json!({ "task": task, "delete": delete.blobs.len(), "stats": delete.stats }))?;
        self.blobs(&delete.blobs)
    }

    fn blobs(&mut self, blobs: &[Deletion]) -> io::Result<()> {
        for deletion in blobs {
            let (blob, bytes, rule) = (&deletion.blob, deletion.length, deletion.rule);
            self.line(&json!({ "delete": blob, "bytes": bytes, "rule": rule }))?;
        }
        Ok(())
    }
}
