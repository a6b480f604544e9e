//! Manifests and what is in them: snapshots, policies, maintenance parameters; and the maintenance schedule.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::value::RawValue;
use verger_kopia::clock::Timestamp;
use verger_kopia::maintenance::history::{RunRecord, Task};
use verger_kopia::maintenance::rules::mode::{NextTimes, advance};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::maintenance::{Params, Schedule};
use verger_kopia::manifest::entry::{decode, encode};
use verger_kopia::manifest::{Manifest, ManifestSet};
use verger_kopia::snapshot::manifest::load_snapshots;
use verger_kopia::snapshot::policy::{effective_retention, hierarchy};
use verger_kopia::snapshot::{Snapshot, SourceInfo, list};

use super::bytes::has_odd_number;
use super::within;

/// First byte: whether the rest is compressed already; then the JSON of an `m` content.
pub fn manifests(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    if kind & 1 == 1 {
        // Deflate makes at most 1032 bytes out of one.
        let _ = within(1 << 17, 1032 * 8, rest.len(), || decode(rest));
        return;
    }
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(rest).unwrap();
    let plain = gzip.finish().unwrap();
    let Ok(entries) = within(1 << 17, 24, rest.len(), || decode(&plain)) else { return };
    let written = encode(&entries);
    let again = decode(&written).unwrap();
    assert_eq!(format!("{again:?}"), format!("{entries:?}"));
    assert!(again.iter().all(|entry| !again.iter().any(|other| other.beats(entry) && entry.beats(other))));
    assert_eq!(encode(&again), written);
}

fn manifest(id: usize, kind: &str, labels: BTreeMap<String, String>, body: &str) -> Option<Manifest> {
    let data = RawValue::from_string(body.to_owned()).ok()?;
    let mut labels = labels;
    labels.insert("type".to_owned(), kind.to_owned());
    let modified = Timestamp::from_second(i64::try_from(id % 3).unwrap()).unwrap();
    Some(Manifest { id: format!("{id:032x}"), labels, modified, data })
}

/// Lines: `s` and a snapshot's body; `p`, the labels and (after a tab) the body of a policy.
pub fn snapshots(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut set = ManifestSet::default();
    for (at, line) in text.lines().enumerate() {
        let made = match line.split_at_checked(1) {
            Some(("s", body)) => manifest(at, "snapshot", BTreeMap::new(), body),
            Some(("p", rest)) => rest
                .split_once('\t')
                .and_then(|(labels, body)| manifest(at, "policy", serde_json::from_str(labels).ok()?, body)),
            _ => None,
        };
        set.manifests.extend(made.map(|manifest| (manifest.id.clone(), manifest)));
    }
    let (snapshots, unreadable) = within(8192, 64, data.len(), || load_snapshots(&set));
    assert_eq!(snapshots.len() + unreadable.len(), set.of_type("snapshot").count());
    for snapshot in &snapshots {
        reads_back(snapshot);
        let _ = effective_retention(&set, &snapshot.source);
        assert!(hierarchy(&set, &snapshot.source).iter().all(|policy| policy.labels["type"] == "policy"));
    }
    let _ = effective_retention(&set, &SourceInfo::default());
    let count = snapshots.len();
    let listed = within(1 << 16, 64, data.len(), || list(snapshots, &set, &jiff::tz::TimeZone::UTC));
    assert_eq!(listed.len(), count);
    let again = list(listed.iter().cloned().rev().collect(), &set, &jiff::tz::TimeZone::UTC);
    let reasons = |list: &[Snapshot]| -> BTreeMap<String, Vec<String>> {
        list.iter().map(|s| (s.id.clone(), s.retention_reasons.clone())).collect()
    };
    if again.iter().map(|s| (&s.source, s.start_time)).collect::<std::collections::BTreeSet<_>>().len() == count {
        assert_eq!(reasons(&again), reasons(&listed), "the order of manifests decides what is kept");
    }
}

fn reads_back(snapshot: &Snapshot) {
    let mut snapshot = snapshot.clone();
    snapshot.storage_stats = None;
    let written = serde_json::to_string(&snapshot).unwrap();
    let id = usize::from_str_radix(&snapshot.id, 16).unwrap();
    let again = Snapshot::from_manifest(&manifest(id, "snapshot", BTreeMap::new(), &written).unwrap()).unwrap();
    assert_eq!(again, snapshot);
}

/// Maintenance parameters: fields that nobody knows survive.
pub fn params(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(params) = within(8192, 200, data.len(), || Params::parse("1", text)) else { return };
    if !has_odd_number(&serde_json::Value::Object(params.other.clone())) {
        assert_eq!(Params::parse("1", &params.to_json()).unwrap(), params);
    }
    let _ = params.log_retention.or_default();
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    for last in [None, Some(now), Some(Timestamp::MIN), Some(Timestamp::MAX)] {
        let _ = NextTimes::of_ledger(&params, last, last);
    }
    for mode in [Mode::Full, Mode::Quick] {
        let mut schedule = Schedule::default();
        advance(&mut schedule, &params, mode, now);
    }
}

/// The plaintext of `kopia.maintenance`, or (first byte) the blob itself.
pub fn schedule(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    let key = [7; 32];
    if kind & 1 == 1 {
        assert!(within(4096, 2, rest.len(), || Schedule::open(&key, rest)).is_err(), "a tag that holds by chance");
        return;
    }
    let Ok(mut schedule) = within(8192, 200, rest.len(), || serde_json::from_slice::<Schedule>(rest)) else { return };
    seals(&schedule, &key);
    let all = [Task::SnapshotGc, Task::FullRewriteContents, Task::CleanupLogs];
    assert!(schedule.latest_success(&all) >= schedule.latest_success(&all[..1]));
    let times = [Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH, Timestamp::from_second(1_800_000_000).unwrap()];
    for (start, end) in times.into_iter().flat_map(|start| times.map(|end| (start, end))) {
        schedule.report(Task::SnapshotGc, RunRecord::success(start, end));
        schedule.revise(Task::CleanupLogs, RunRecord::failure(start, end, "x"));
    }
    for _ in 0..60 {
        schedule.report(Task::SnapshotGc, RunRecord::success(times[3], times[3]));
    }
    assert_eq!(schedule.history(Task::SnapshotGc).len(), 50);
    seals(&schedule, &key);
}

fn seals(schedule: &Schedule, key: &[u8; 32]) {
    let sealed = schedule.seal(key, [1; 12]).unwrap();
    let again = Schedule::open(key, &sealed).unwrap();
    let odd = has_odd_number(&serde_json::to_value(schedule).unwrap());
    assert!(odd || again == *schedule, "{again:?} {schedule:?}");
    let mut cut = sealed;
    cut.pop();
    assert!(Schedule::open(key, &cut).is_err());
}
