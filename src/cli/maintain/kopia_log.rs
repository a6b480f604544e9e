//! The lines of Kopia's own maintenance that people search their logs for (`docs/json.md`).

use serde_json::Value;

use crate::output;
use verger::embedded::CycleReport;

/// What Kopia would have said of this cycle; nothing of a plan.
pub(super) fn lines(report: &CycleReport) -> Vec<String> {
    match (report.outcome.as_str(), report.mode) {
        ("planned", _) => Vec::new(),
        ("nothing-due", _) | (_, None) => {
            let until = report.next_due.map(|at| format!("not due for full maintenance cycle until {at}"));
            until.into_iter().collect()
        }
        (_, Some(mode)) => ran(report, mode.name()),
    }
}

fn ran(report: &CycleReport, mode: &str) -> Vec<String> {
    let mut lines = vec![format!("Running {mode} maintenance...")];
    if let Some(gc) = report.tasks.get("snapshot-gc") {
        for (text, field) in [
            ("GC found # unused contents", "unreferenced"),
            ("GC found # unused contents that are too recent to delete", "unreferencedRecent"),
            ("GC found # in-use contents", "inUse"),
            ("GC found # in-use system-contents", "inUseSystem"),
            ("GC undeleted # contents", "recovered"),
        ] {
            let count = number(gc, &format!("{field}ContentCount"));
            let size = output::bytes(number(gc, &format!("{field}ContentSize")));
            lines.push(format!("{} ({size})", text.replace('#', &count.to_string())));
        }
    }
    for (task, text) in [
        ("compact-single-epoch", "Compacting an eligible uncompacted epoch..."),
        ("advance-epoch", "Advancing epoch markers..."),
        ("generate-epoch-range-index", "Attempting to compact a range of epoch indexes ..."),
        ("cleanup-epoch-markers", "Cleaning up unneeded epoch markers..."),
        ("delete-superseded-epoch-indexes", "Cleaning up old index blobs which have already been compacted..."),
    ] {
        if report.tasks.contains_key(task) {
            lines.push(text.to_owned());
        }
    }
    if let Some(logs) = report.tasks.get("cleanup-logs") {
        lines.push(format!("Cleaned up {} logs.", number(logs, "deletedBlobCount")));
    }
    lines.push(format!("Finished {mode} maintenance."));
    lines
}

pub(super) fn number(data: &Value, field: &str) -> u64 {
    data.get(field).and_then(Value::as_u64).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    pub(in crate::cli::maintain) fn report(outcome: &str, tasks: &Value) -> CycleReport {
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        CycleReport {
            outcome: outcome.to_owned(),
            mode: Some(verger_kopia::maintenance::rules::plan::Mode::Full),
            cycle: 3,
            term: 4,
            started: now,
            ended: now + std::time::Duration::from_secs(61),
            tasks: serde_json::from_value(tasks.clone()).unwrap(),
            ..CycleReport::nothing_due(now, None)
        }
    }

    #[test]
    fn lines_are_those_of_kopias_log() {
        let done = report(
            "done",
            &json!({
                "snapshot-gc": {"unreferencedContentCount": 9, "unreferencedContentSize": 6294, "inUseContentCount": 59, "inUseContentSize": 899_999},
                "advance-epoch": null,
                "cleanup-logs": {"deletedBlobCount": 2},
            }),
        );
        assert_eq!(
            lines(&done),
            [
                "Running full maintenance...",
                "GC found 9 unused contents (6.3 KB)",
                "GC found 0 unused contents that are too recent to delete (0 B)",
                "GC found 59 in-use contents (900 KB)",
                "GC found 0 in-use system-contents (0 B)",
                "GC undeleted 0 contents (0 B)",
                "Advancing epoch markers...",
                "Cleaned up 2 logs.",
                "Finished full maintenance.",
            ]
        );
        assert!(lines(&report("planned", &json!({}))).is_empty());
    }
}
