use super::*;

fn at(hours: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + hours * 3600).unwrap()
}

fn run(start: i64, end: i64) -> RunRecord {
    RunRecord::success(at(start), at(end))
}

#[test]
fn i14_what_was_sealed_opens_and_keeps_what_is_not_known() {
    let json = concat!(
        r#"{"nextFullMaintenance":"2024-05-06T05:08:09.12Z","nextQuickMaintenance":"0001-01-01T00:00:00Z","#,
        r#""runs":{"a-new-task":[{"start":"2024-05-06T05:08:09Z","end":"2024-05-06T05:08:10Z","x":1}],"#,
        r#""snapshot-gc":[]},"#,
        r#""future":[1]}"#
    );
    let schedule: Schedule = serde_json::from_str(json).unwrap();
    assert_eq!(schedule.next_quick, None);
    let blob = schedule.seal(&[7; 32], [9; 12]).unwrap();
    assert_eq!(&blob[..12], &[9; 12]);
    let back = Schedule::open(&[7; 32], &blob).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
    for null in [r#"{"runs":null}"#, "{}", r#"{"runs":{"snapshot-gc":null}}"#] {
        assert!(serde_json::from_str::<Schedule>(null).unwrap().history(Task::SnapshotGc).is_empty());
    }
}

#[test]
fn a_changed_cut_or_foreign_blob_is_damage_never_an_empty_schedule() {
    let blob = Schedule::default().seal(&[7; 32], [9; 12]).unwrap();
    for cut in 0..blob.len() {
        assert_eq!(Schedule::open(&[7; 32], &blob[..cut]).unwrap_err().kind(), ErrorKind::Damaged);
        let mut flipped = blob.clone();
        flipped[cut] ^= 1;
        assert_eq!(Schedule::open(&[7; 32], &flipped).unwrap_err().kind(), ErrorKind::Damaged);
    }
    assert!(Schedule::open(&[8; 32], &blob).is_err());
}

#[test]
fn additional_data_is_kopias_word() {
    let nonce = [1u8; 12];
    let sealed = Aes256Gcm::new((&[2u8; 32]).into())
        .encrypt((&nonce).into(), Payload { msg: b"{}", aad: b"maintenance" })
        .unwrap();
    assert!(Schedule::open(&[2; 32], &[&nonce[..], &sealed].concat()).is_ok());
}

#[test]
fn i14_fifty_are_kept_newest_first() {
    let mut schedule = Schedule::default();
    for hour in 0..60 {
        schedule.report(Task::CleanupLogs, run(hour, hour));
    }
    let kept = schedule.history(Task::CleanupLogs);
    assert_eq!((kept.len(), kept[0].start, kept[49].start), (50, at(59), at(10)));
}

/// R15: with a cycle every five minutes, fifty records would all be younger than the five hours that a pair must span.
#[test]
fn r15_the_newest_gc_older_than_five_hours_is_kept() {
    let mut schedule = Schedule::default();
    let minute = |n: i64| at(0) + Duration::from_secs(60 * u64::try_from(n).unwrap());
    for n in 0..200 {
        schedule.report(Task::SnapshotGc, RunRecord::success(minute(n * 5), minute(n * 5 + 1)));
        let kept = schedule.history(Task::SnapshotGc);
        assert!(kept.len() <= RECORDS_MAX);
        assert!(kept.windows(2).all(|pair| pair[0].start > pair[1].start));
        if n * 5 > 5 * 60 + 5 {
            let limit = minute(n * 5) - Duration::from_secs(5 * 3600);
            assert!(kept.iter().any(|run| run.end < limit), "after {n} runs");
        }
    }
}

#[test]
fn r20_a_run_is_revised_in_place() {
    let mut schedule = Schedule::default();
    schedule.report(Task::FullRewriteContents, run(0, 0));
    schedule.report(Task::FullRewriteContents, run(5, 5));
    schedule.revise(Task::FullRewriteContents, run(0, 9));
    schedule.revise(Task::FullRewriteContents, run(7, 7));
    let ends: Vec<_> = schedule.history(Task::FullRewriteContents).iter().map(|run| run.end).collect();
    assert_eq!(ends, [at(7), at(5), at(9)]);
    assert_eq!(schedule.latest_success(&[Task::FullRewriteContents, Task::QuickRewriteContents]), Some(at(9)));
    schedule.report(Task::FullRewriteContents, RunRecord::failure(at(20), at(21), "x"));
    assert_eq!(schedule.latest_success(&[Task::FullRewriteContents]), Some(at(9)));
}

#[test]
fn the_condition_names_the_version_read() {
    let etag = ETag("x".into());
    let there = Loaded { exists: true, etag: Some(etag.clone()), ..Loaded::default() };
    assert_eq!(there.condition(true), Condition::IfMatch(etag));
    assert_eq!(there.condition(false), Condition::Always);
    assert_eq!(Loaded::default().condition(true), Condition::IfAbsent);
}

#[test]
fn i14_records_that_somebody_else_wrote_are_not_written_over() {
    let golden = crate::index_set::testing::golden("default");
    let ours = load(&golden.repository).unwrap();
    let mut theirs = load(&golden.repository).unwrap();
    theirs.schedule.report(Task::FullRewriteContents, run(1, 2));
    replace(&golden.repository, &theirs, &theirs.schedule, None).unwrap();
    let error = replace(&golden.repository, &ours, &ours.schedule, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignMaintenance);
    assert_eq!(load(&golden.repository).unwrap().schedule, theirs.schedule);
}
