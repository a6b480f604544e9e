//! A cycle's report, for people.

use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::rules::next::{Next, Rule};
use verger_kopia::maintenance::rules::plan::{Mode, Skipped};
use verger_proto::report::Damage;
use verger_proto::stage::Stage;

use super::kopia_log::number;
use super::way_out::way_out;
use crate::output;
use verger::embedded::{CycleReport, PlanSummary};

/// Damage beyond this is only counted.
const DAMAGE_MAX: usize = 20;

/// All lines.
pub(crate) fn lines(report: &CycleReport) -> Vec<String> {
    let mut lines = match report.outcome.as_str() {
        "nothing-due" => nothing_due(report),
        "planned" => vec![format!("A {} cycle would do this; nothing was changed.", mode(report))],
        outcome => {
            let seconds = report.ended.duration_since(report.started).as_secs().max(0);
            let mode = output::capital(mode(report));
            vec![format!("{mode} cycle {} {outcome} after {seconds} s (term {}).", report.cycle, report.term)]
        }
    };
    if report.outcome == "planned" {
        lines.extend(report.plan.iter().flat_map(planned));
    } else {
        lines.extend(did(report));
    }
    // That locks are not to be extended is a setting, and no news.
    let news = |skipped: &&Skipped| skipped.until.is_some() || skipped.task != "extend-blob-retention-time";
    for skipped in report.skipped.iter().filter(news) {
        let until = skipped.until.map(|at| format!(" (until {})", time(at))).unwrap_or_default();
        lines.push(format!("Not now: {}: {}{until}", skipped.task, skipped.reason));
    }
    lines.extend(report.next.iter().map(next));
    lines.extend(damage(&report.damage));
    lines
}

fn nothing_due(report: &CycleReport) -> Vec<String> {
    let next = match report.next_due {
        Some(at) => format!("the next cycle is due at {}", time(at)),
        None => "quick and full cycles are disabled in this repository (`kopia maintenance info`)".to_owned(),
    };
    vec![format!("Nothing is due; {next}. `verger maintain --full` runs one now.")]
}

fn mode(report: &CycleReport) -> &'static str {
    report.mode.map_or("full", Mode::name)
}

/// What was marked in the index and what was freed in the store are different things, and told apart.
pub(crate) fn did(report: &CycleReport) -> Vec<String> {
    let figure = |task: &str, field: &str| report.tasks.get(task).map_or(0, |data| number(data, field));
    let size = |task: &str, field: &str| output::bytes(figure(task, field));
    let mut lines = Vec::new();
    if report.tasks.contains_key("snapshot-gc") {
        lines.push(format!(
            "Marked in the index: {} contents that no snapshot needs ({}); revived: {}.",
            figure("snapshot-gc", "deletedContentCount"),
            size("snapshot-gc", "deletedContentSize"),
            figure("snapshot-gc", "recoveredContentCount"),
        ));
    }
    if let Some(at) = report.tasks.get("full-drop-deleted-content").and_then(|d| d.get("droppedContentsDeletedBefore"))
    {
        let text = at.as_str().unwrap_or_default();
        let until = text.parse().map_or_else(|_| text.to_owned(), time);
        lines.push(format!("Dropped from the index: all marks up to {until}."));
    }
    for task in ["full-rewrite-contents", "quick-rewrite-contents"] {
        if figure(task, "rewrittenContentCount") > 0 {
            let count = figure(task, "rewrittenContentCount");
            lines.push(format!("Moved out of short packs: {count} contents ({}).", size(task, "rewrittenContentSize")));
        }
    }
    for task in ["full-delete-blobs", "quick-delete-blobs"] {
        if report.tasks.contains_key(task) {
            lines.push(format!(
                "Deleted from the store: {} packs ({}); {} more wait for a margin.",
                figure(task, "deletedPackCount"),
                size(task, "deletedTotalSize"),
                figure(task, "retainedPackCount"),
            ));
        }
    }
    let indexes = figure("delete-superseded-epoch-indexes", "deletedBlobCount");
    let logs = figure("cleanup-logs", "deletedBlobCount");
    if indexes + logs > 0 {
        lines.push(format!("Also deleted: {indexes} superseded index blobs, {logs} logs."));
    }
    if report.repaired_items > 0 {
        lines.push(format!(
            "Repaired while reading, by error correction: {} contents and blobs.",
            report.repaired_items
        ));
    }
    if report.mode.is_some() {
        let (freed, written) = (output::bytes(report.freed_bytes), output::bytes(report.written_bytes));
        let word =
            if report.deletes_hide { "Hidden in the store (it keeps old versions)" } else { "Freed in the store" };
        lines.push(format!("{word}: {freed}; written in its place: {written}."));
    }
    lines
}

fn planned(plan: &PlanSummary) -> Vec<String> {
    let mut lines = Vec::new();
    let order = Stage::ALL.iter().filter_map(|stage| plan.stages.get_key_value(stage.name()));
    for (stage, figures) in order.filter(|(_, figures)| figures.items > 0) {
        lines.push(format!("  {stage:<18} {:>9} items {:>10}", figures.items, output::bytes(figures.bytes)));
    }
    if lines.is_empty() {
        lines.push("  Nothing can be changed now.".to_owned());
    }
    lines.push(format!(
        "Of {} in {} contents it removes {}; {} contents stay. Plan {}.",
        output::bytes(plan.total_packed_bytes),
        plan.contents,
        output::bytes(plan.removed_bytes),
        plan.live_contents,
        plan.digest
    ));
    lines
}

/// When bytes can go next.
pub(crate) fn next(next: &Next) -> String {
    format!("Next: {} can go at {}: {}.", output::bytes(next.bytes), time(next.at), why(next.rule))
}

/// What a margin waits for.
pub(crate) fn why(rule: Rule) -> &'static str {
    match rule {
        Rule::PackAge => "packs that nothing references must be 24 h old",
        Rule::Session => "the session that wrote them may not be over",
        Rule::RewriteDelay => "an hour must pass after a rewrite, so that all clients see the new place",
        Rule::MarkToDrop => "marked contents wait for a second garbage collection and for clients that sleep",
        Rule::ContentAge => "contents younger than 24 h may belong to a snapshot that is being made",
    }
}

/// A time as people read it.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%F %H:%M UTC").to_string()
}

fn damage(damage: &[Damage]) -> Vec<String> {
    let mut lines = Vec::new();
    for damage in damage.iter().take(DAMAGE_MAX) {
        lines.push(format!("DAMAGED {}: {}", damage.subject, damage.text));
        lines.extend(damage.paths.iter().take(3).map(|path| format!("  {path}")));
        lines.extend(way_out(damage).map(|text| format!("  Way out: {text}")));
    }
    if damage.len() > DAMAGE_MAX {
        lines.push(format!("… and {} more; --json lists all.", damage.len() - DAMAGE_MAX));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::kopia_log::tests::report;
    use super::*;
    use serde_json::json;

    #[test]
    fn r24_marked_and_freed_are_told_apart() {
        let mut done = report(
            "done",
            &json!({
                "snapshot-gc": {"deletedContentCount": 9, "deletedContentSize": 6294},
                "full-delete-blobs": {"deletedPackCount": 2, "deletedTotalSize": 8000, "retainedPackCount": 1},
            }),
        );
        done.freed_bytes = 8000;
        done.next = Some(Next { at: done.ended, rule: Rule::MarkToDrop, bytes: 6294 });
        let text = lines(&done);
        assert_eq!(text[0], "Full cycle 3 done after 61 s (term 4).");
        assert_eq!(text[1], "Marked in the index: 9 contents that no snapshot needs (6.3 KB); revived: 0.");
        assert_eq!(text[2], "Deleted from the store: 2 packs (8 KB); 1 more wait for a margin.");
        assert_eq!(text[3], "Freed in the store: 8 KB; written in its place: 0 B.");
        done.deletes_hide = true;
        assert!(lines(&done)[3].starts_with("Hidden in the store (it keeps old versions): 8 KB;"), "R24");
        assert!(
            text[4].starts_with("Next: 6.3 KB can go at 2026-11-21 10:01 UTC: marked contents wait"),
            "{}",
            text[4]
        );
    }

    #[test]
    fn nothing_due_says_when_and_how_to_run_all_the_same() {
        let mut waits = report("nothing-due", &json!({}));
        waits.mode = None;
        waits.next_due = Some(waits.ended);
        assert_eq!(
            lines(&waits),
            ["Nothing is due; the next cycle is due at 2026-11-21 10:01 UTC. `verger maintain --full` runs one now."]
        );
    }
}
