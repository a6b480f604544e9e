//! What the last cycles found, by their own reports.

use serde_json::Value;

use crate::machine::{Repository, State};
use crate::page::{Labels, Page};

/// Names of figures, of Kopia's own in the run record of `snapshot-gc` that make them up, and what they are.
const CONTENTS: [(&str, &[&str], &str); 4] = [
    ("live", &["inUseContent", "inUseSystemContent"], "that snapshots need"),
    ("unreferenced", &["unreferencedContent"], "that no snapshot needs, old enough to be marked"),
    ("recent", &["unreferencedRecentContent"], "that no snapshot needs, too young to be marked"),
    ("undeleted", &["recoveredContent"], "whose marks were undone"),
];
const SEVERITIES: [&str; 3] = ["noted", "unreadable", "lost-index"];

/// The reports of a repository's cycles that changed something, the newest first.
fn reports(entry: &Repository) -> impl Iterator<Item = Value> {
    let real = entry.past.iter().rev().filter(|past| !past.options.dry_run);
    real.filter_map(|past| serde_json::from_str(past.report.as_deref()?).ok())
}

pub(super) fn of_the_reports(page: &mut Page, state: &State) {
    let mut contents: [Vec<(Labels, f64)>; CONTENTS.len()] = Default::default();
    let mut bytes: [Vec<(Labels, f64)>; CONTENTS.len()] = Default::default();
    let (mut orphaned, mut locked, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let (mut index, mut epochs, mut damage) = (Vec::new(), Vec::new(), Vec::new());
    for entry in state.repositories.values() {
        let Some(registration) = &entry.registration else { continue };
        let labels: Labels = vec![("repo", registration.name.to_string())];
        if let Some(report) = reports(entry).find(|report| report["tasks"]["snapshot-gc"].is_object()) {
            let gc = &report["tasks"]["snapshot-gc"];
            let sum = |parts: &[&str], unit: &str| {
                let parts = parts.iter().map(|part| gc[format!("{part}{unit}")].as_u64());
                parts.sum::<Option<u64>>().map(|sum| sum as f64)
            };
            for (at, (_, parts, _)) in CONTENTS.iter().enumerate() {
                contents[at].extend(sum(parts, "Count").map(|count| (labels.clone(), count)));
                bytes[at].extend(sum(parts, "Size").map(|size| (labels.clone(), size)));
            }
        }
        if let Some(report) = reports(entry).find(|report| report["tasks"]["full-delete-blobs"].is_object()) {
            let kept = report["tasks"]["full-delete-blobs"]["retainedTotalSize"].as_u64();
            orphaned.extend(kept.map(|bytes| (labels.clone(), bytes as f64)));
            // A store that hides what is deleted refuses nothing, and does not tell what it holds back.
            let refused = report["refusedBytes"].as_u64().filter(|_| report["deletesHide"] == false);
            locked.extend(refused.map(|bytes| (labels.clone(), bytes as f64)));
        }
        let Some(newest) = reports(entry).next() else { continue };
        let opened = newest["openMilliseconds"].as_u64();
        open.extend(opened.map(|milliseconds| (labels.clone(), milliseconds as f64 / 1_000.0)));
        index.extend(newest["indexBlobs"].as_u64().map(|count| (labels.clone(), count as f64)));
        epochs.extend(newest["uncompactedEpochs"].as_u64().map(|count| (labels.clone(), count as f64)));
        if let Some(items) = newest["damage"].as_array() {
            damage.extend(SEVERITIES.map(|kind| {
                let count = items.iter().filter(|item| item["severity"] == kind).count();
                ([labels.clone(), vec![("kind", kind.to_owned())]].concat(), count as f64)
            }));
        }
    }
    for ((name, _, what), (contents, bytes)) in CONTENTS.iter().zip(contents.into_iter().zip(bytes)) {
        page.levels(&format!("contents_{name}"), &format!("Contents {what}"), contents);
        page.levels(&format!("bytes_{name}"), &format!("Packed bytes of contents {what}"), bytes);
    }
    page.levels("bytes_orphaned", "Bytes of packs that no index names and that are too young to be deleted", orphaned);
    page.levels("bytes_locked", "Bytes of blobs that were to be deleted and that the store did not let go", locked);
    let help = "How long the last cycle took to open the repository: format blobs, keys and index";
    page.levels("repo_open_seconds", help, open);
    page.levels("index_blobs", "Index blobs that clients read, when the last cycle began", index);
    page.levels("epochs_uncompacted", "Epochs with index blobs that nobody has compacted", epochs);
    page.levels("damage_items", "Things that the last cycle could not read, by what they stop", damage);
}
