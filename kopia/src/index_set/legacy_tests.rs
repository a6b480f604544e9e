use super::*;
use crate::clock::Clock as _;
use crate::content::Entry;
use crate::index_set::compact::{Epochs, Frugal, count_entries, merge_epochs, merge_legacy};
use crate::index_set::testing::{blobs, entry, golden};
use crate::index_set::write::write_index_set;
use crate::index_set::{Aside, list_active, load_view};
use crate::storage::Storage;

const HOUR: Duration = Duration::from_secs(3600);

fn recorded(names: &[&str]) -> Option<Vec<Recorded>> {
    Some(blobs(names).iter().map(Recorded::from).collect())
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// Logs as (name, written at, inputs, outputs) over these index blobs.
fn state(indexes: &[&str], logs: &[(&str, i64, &[&str], &[&str])]) -> LegacyState {
    let log = |(name, second, inputs, outputs): &(&str, i64, &[&str], &[&str])| {
        let blob = BlobMetadata { timestamp: at(*second), ..blobs(&[name]).remove(0) };
        (blob, CompactionLog { inputs: recorded(inputs), outputs: recorded(outputs) })
    };
    LegacyState { indexes: blobs(indexes), logs: logs.iter().map(log).collect() }
}

fn names_of(blobs: &[BlobMetadata]) -> Vec<&str> {
    blobs.iter().map(|blob| blob.id.as_str()).collect()
}

fn texts(ids: &[BlobId]) -> Vec<&str> {
    ids.iter().map(BlobId::as_str).collect()
}

#[test]
fn a_log_counts_once_all_its_outputs_are_listed() {
    let logs: &[(&str, i64, &[&str], &[&str])] = &[("m1", 0, &["n1", "n2"], &["n3", "n4"])];
    assert_eq!(names_of(&state(&["n1", "n2", "n3", "n4"], logs).active()), ["n3", "n4"]);
    assert_eq!(names_of(&state(&["n1", "n2", "n3"], logs).active()), ["n1", "n2", "n3"]);
    let chain: &[(&str, i64, &[&str], &[&str])] = &[("m1", 0, &["n1"], &["n2"]), ("m2", 9, &["n2"], &["n3"])];
    assert_eq!(names_of(&state(&["n1", "n2", "n3"], chain).active()), ["n3"], "outputs count as listed, not as active");
    let empty: &[(&str, i64, &[&str], &[&str])] = &[("m1", 0, &["n1"], &[])];
    assert!(state(&["n1"], empty).active().is_empty());
}

#[test]
fn inputs_go_an_hour_after_their_log_oldest_first() {
    let logs: &[(&str, i64, &[&str], &[&str])] =
        &[("m2", 3600, &["n2", "n3"], &["n4"]), ("m1", 0, &["n1"], &["n2"]), ("m3", 3601, &["n4"], &["n5"])];
    let state = state(&["n1", "n2", "n3", "n4", "n5"], logs);
    let none = deferred(&state, &[], at(3599), HOUR);
    assert_eq!(none, Deferred::default());
    let steps = deferred(&state, &[], at(7200), HOUR);
    assert_eq!((texts(&steps.inputs), texts(&steps.retire)), (vec!["n1", "n2", "n3"], vec!["m1", "m2"]));
    let named = [(blobs(&["l1"]).remove(0), Cleanup { logs: Some(vec!["m1".into()]), scheduled: at(0) })];
    assert_eq!(texts(&deferred(&state, &named, at(7200), HOUR).retire), ["m2"]);
    assert_eq!(texts(&deferred(&state, &[], at(3601), Duration::ZERO).inputs), ["n1", "n2", "n3", "n4"]);
}

#[test]
fn inputs_of_a_log_whose_outputs_are_lost_stay() {
    let logs: &[(&str, i64, &[&str], &[&str])] = &[("m1", 0, &["n1"], &["n2"])];
    assert_eq!(deferred(&state(&["n1"], logs), &[], at(9999), HOUR), Deferred::default());
    let gone = deferred(&state(&["n9"], logs), &[], at(9999), HOUR);
    assert_eq!((texts(&gone.inputs), texts(&gone.retire)), (vec![], vec!["m1"]), "nothing left to lose");
    let replaced: &[(&str, i64, &[&str], &[&str])] = &[("m1", 0, &["n1"], &["n2"]), ("m2", 1, &["n2"], &["n3"])];
    let steps = deferred(&state(&["n1", "n3"], replaced), &[], at(9999), HOUR);
    assert_eq!(texts(&steps.inputs), ["n1"], "the output was itself compacted and deleted");
}

#[test]
fn schedules_expire_by_the_newest_of_them() {
    let cleanup = |name: &str, written, scheduled, logs: &[&str]| {
        let blob = BlobMetadata { timestamp: at(written), ..blobs(&[name]).remove(0) };
        (blob, Cleanup { logs: Some(logs.iter().map(|id| (*id).into()).collect()), scheduled: at(scheduled) })
    };
    let all = [cleanup("l1", 10, 0, &["m1", "kopia.repository"]), cleanup("l2", 3600, 3599, &["m2"])];
    let (logs, schedules) = expired(&all, HOUR);
    assert_eq!((texts(&logs), texts(&schedules)), (vec!["m1"], vec!["l1"]), "only compaction logs are ever deleted");
    assert_eq!(expired(&all, Duration::from_secs(3601)), (vec![], vec![]));
    assert_eq!(expired(&[], HOUR), (vec![], vec![]));
}

#[test]
fn go_reads_and_writes_the_same_json() {
    let text =
        r#"{"inputMetadata":[{"id":"n1","length":5,"timestamp":"2026-11-21T12:00:00.5+01:00"}],"outputMetadata":null}"#;
    let log: CompactionLog = serde_json::from_str(text).unwrap();
    assert_eq!(log.inputs.as_ref().unwrap()[0].timestamp, "2026-11-21T11:00:00.5Z".parse().unwrap());
    assert_eq!((log.inputs().count(), log.outputs().count()), (1, 0));
    let written = serde_json::to_string(&log).unwrap();
    assert!(
        written.contains(r#""timestamp":"2026-11-21T11:00:00.5Z""#) && written.contains(r#""outputMetadata":null"#)
    );
}

#[test]
fn a_compaction_replaces_its_inputs_and_drops_old_marks() {
    let golden = golden("format1");
    let before = load_view(&golden.repository, 1).unwrap();
    let live = before.table.entry(before.table.rows().find(|row| !before.table.is_deleted(*row)).unwrap());
    let mark = Entry { deleted: true, timestamp: live.timestamp + 1, ..live.clone() };
    write_index_set(&golden.repository, vec![mark.clone()], "sabc147", None).unwrap();
    let old_marks = |before_second: i64| {
        let table = load_view(&golden.repository, 1).unwrap().table;
        table.rows().filter(|row| table.is_deleted(*row) && table.timestamp(*row) < before_second).count() as u64
    };
    let inputs = list_active(&golden.repository).unwrap().blobs;

    let kept = merge_legacy(&golden.repository, &inputs, Some(mark.timestamp), 1, None).unwrap();
    assert_eq!(kept.dropped, old_marks(mark.timestamp), "a mark at the cutoff itself stays");
    let expected = old_marks(mark.timestamp + 1);
    assert!(expected > 0);
    let prepared = merge_legacy(&golden.repository, &inputs, Some(mark.timestamp + 1), 1, None).unwrap();
    assert_eq!(prepared.dropped, expected);
    let log = prepared.publish(&golden.repository, None).unwrap();
    assert_eq!(log.timestamp, golden.clock.now());

    let after = load_view(&golden.repository, 1).unwrap();
    assert_eq!(after.blobs.iter().map(|blob| blob.id.clone()).collect::<Vec<_>>(), prepared.outputs);
    assert!(prepared.outputs.iter().all(|id| !id.as_str().contains('-')));
    assert_eq!(after.table.len() as u64, before.table.len() as u64 - prepared.dropped);
    assert_eq!(after.table.len() as u64, prepared.entries);
    assert!(after.table.find(&mark.id).is_none(), "the older live entry does not come back");
}

#[test]
fn the_same_inputs_never_give_the_same_output_name() {
    let golden = golden("format1");
    let inputs = list_active(&golden.repository).unwrap().blobs;
    let first = merge_legacy(&golden.repository, &inputs, None, 1, None).unwrap();
    let second = merge_legacy(&golden.repository, &inputs, None, 1, None).unwrap();
    assert_ne!(first.outputs, second.outputs);
}

#[test]
fn deferred_deletion_goes_through_logs_and_schedules() {
    let golden = golden("format1");
    let inputs = list_active(&golden.repository).unwrap().blobs;
    let first =
        merge_legacy(&golden.repository, &inputs, None, 1, None).unwrap().publish(&golden.repository, None).unwrap();
    golden.clock.advance(HOUR);
    write_index_set(&golden.repository, vec![entry(5, 9)], "sabc147", None).unwrap();
    let again = list_active(&golden.repository).unwrap().blobs;
    let newest =
        merge_legacy(&golden.repository, &again, None, 1, None).unwrap().publish(&golden.repository, None).unwrap();
    let view = load_view(&golden.repository, 1).unwrap();

    let state = LegacyState::load(&golden.repository).unwrap();
    let steps = deferred(&state, &load_cleanups(&golden.repository).unwrap(), newest.timestamp, HOUR);
    let mut expected: Vec<BlobId> = inputs.iter().map(|blob| blob.id.clone()).collect();
    expected.sort();
    let mut found = steps.inputs.clone();
    found.sort();
    assert_eq!((found, &steps.retire), (expected, &vec![first.id.clone()]));
    golden.store.delete(&steps.inputs, None);
    assert!(write_cleanup(&golden.repository, steps.retire, newest.timestamp, None).unwrap().is_some());
    assert_eq!(load_view(&golden.repository, 1).unwrap().digest(), view.digest());

    assert_eq!(
        expired(&load_cleanups(&golden.repository).unwrap(), HOUR),
        (vec![], vec![]),
        "an hour later at the earliest"
    );
    golden.clock.advance(HOUR);
    write_cleanup(&golden.repository, vec!["m00".into()], golden.clock.now(), None).unwrap();
    let (logs, schedules) = expired(&load_cleanups(&golden.repository).unwrap(), HOUR);
    assert_eq!((logs.clone(), schedules.len()), (vec![first.id], 1));
    golden.store.delete(&logs, None);
    golden.store.delete(&schedules, None);
    assert_eq!(load_view(&golden.repository, 1).unwrap().digest(), view.digest());
    assert_eq!(write_cleanup(&golden.repository, vec![], newest.timestamp, None).unwrap(), None);
}

#[test]
fn the_poison_of_an_upgrade_is_no_index() {
    let golden = golden("format1");
    let before = list_active(&golden.repository).unwrap().digest();
    golden.store.memory.put_at(&names::POISON.into(), b"poison"[..].into(), golden.clock.now());
    assert_eq!(load_view(&golden.repository, 1).unwrap().digest(), before);
}

#[test]
fn r11_an_unreadable_compaction_log_is_an_error() {
    let golden = golden("format1");
    let log = BlobId::new(format!("m{}", "0".repeat(32)));
    golden.store.memory.put_at(&log, b"not a log"[..].into(), golden.clock.now());
    assert_eq!(list_active(&golden.repository).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn i10_r18_compacted_epochs_keep_every_winner_and_every_mark() {
    let golden = golden("epochs");
    let before = load_view(&golden.repository, 1).unwrap();
    let mark = Entry { deleted: true, timestamp: 7, ..entry(9, 7) };
    write_index_set(&golden.repository, vec![mark.clone()], "sabc147", None).unwrap();
    super::super::watermark::advance(&golden.repository, 10, None).unwrap();
    let inputs = list_active(&golden.repository).unwrap().blobs;
    let epoch = before.write_epoch.unwrap();
    for output in [Epochs::Single(epoch), Epochs::Range(0, epoch)] {
        let prepared = merge_epochs(&golden.repository, &inputs, output, 2, None).unwrap();
        prepared.publish(&golden.repository, None).unwrap();
        assert_eq!(count_entries(&golden.repository, &prepared.blobs, 1, None).unwrap(), prepared.entries);
        let name = prepared.blobs[0].as_str();
        let (head, tail) = name.split_once('-').unwrap();
        assert_eq!((tail.len(), &tail[..1], &tail[17..]), (20, "s", "-c1"), "{name}");
        assert!(head.starts_with(&match output {
            Epochs::Single(epoch) => format!("xs{epoch}_"),
            Epochs::Range(first, last) => format!("xr{first}_{last}_"),
        }));
        let index = crate::index_set::fetch_indexes(&golden.repository, &prepared.blobs, 1).unwrap().remove(0);
        let entries: Vec<Entry> = index.entries().map(Result::unwrap).collect();
        assert!(entries.contains(&mark), "a mark below the watermark stays");
        assert_eq!(entries.len() as u64, before.table.len() as u64 + before.table.hidden_count() + 1);
    }
    super::super::epoch::write_marker(&golden.repository, epoch + 2, None).unwrap();
    let after = load_view(&golden.repository, 1).unwrap();
    assert!(after.blobs.iter().all(|blob| blob.id.as_str().starts_with("xr0_")), "{:?}", after.blobs);
    assert!(after.table.find(&mark.id).is_none());
    let rows = |view: &crate::index_set::IndexView| -> Vec<Entry> {
        view.table.rows().map(|row| view.table.entry(row)).filter(|e| !e.deleted).collect()
    };
    assert_eq!(rows(&after), rows(&before));
}

#[test]
fn r16_each_attempt_has_a_set_id_of_its_own() {
    let golden = golden("epochs");
    let inputs = list_active(&golden.repository).unwrap().blobs;
    let attempt = || merge_epochs(&golden.repository, &inputs, Epochs::Single(0), 1, None).unwrap().blobs;
    let set_of = |blob: &BlobId| blob.as_str().split('-').nth(1).unwrap().to_owned();
    let (one, other) = (attempt(), attempt());
    assert!(one.iter().all(|blob| other.iter().all(|theirs| set_of(blob) != set_of(theirs))), "{one:?} {other:?}");
}

#[test]
fn compaction_through_files_writes_more_blobs_and_the_same_entries() {
    let folder = tempfile::tempdir().unwrap();
    let folder = crate::spill::SpillFolder::new(folder.path());
    let place = crate::index::Place::Files { folder: folder.clone(), cache: 1 };
    let frugal = Frugal { aside: Aside { folder, at_once: 7, place, requests: 1 }, rows_max: 5 };
    let rows = |view: &crate::index_set::IndexView| -> Vec<Entry> {
        view.table.rows().map(|row| view.table.entry(row)).collect()
    };
    for name in ["epochs", "format1", "ecc"] {
        let golden = golden(name);
        let before = load_view(&golden.repository, 1).unwrap();
        let inputs = list_active(&golden.repository).unwrap().blobs;
        let written = if name == "format1" {
            let prepared = merge_legacy(&golden.repository, &inputs, None, 1, Some(&frugal)).unwrap();
            prepared.publish(&golden.repository, None).unwrap();
            (prepared.outputs, prepared.entries)
        } else {
            let epoch = before.write_epoch.unwrap();
            // One epoch makes no range.
            let output = if epoch == 0 { Epochs::Single(0) } else { Epochs::Range(0, epoch) };
            let prepared = merge_epochs(&golden.repository, &inputs, output, 2, Some(&frugal)).unwrap();
            prepared.publish(&golden.repository, None).unwrap();
            super::super::epoch::write_marker(&golden.repository, epoch + 2, None).unwrap();
            let count = |frugal| count_entries(&golden.repository, &prepared.blobs, 1, frugal).unwrap();
            assert_eq!((count(Some(&frugal)), count(None)), (prepared.entries, prepared.entries));
            (prepared.blobs, prepared.entries)
        };
        assert_eq!(written.0.len() as u64, written.1.div_ceil(5), "{name}");
        let after = load_view(&golden.repository, 1).unwrap();
        assert_eq!(after.blobs.len(), written.0.len(), "{name}");
        assert_eq!(rows(&after), rows(&before), "{name}");
    }
}
