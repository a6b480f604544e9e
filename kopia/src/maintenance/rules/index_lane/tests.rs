use super::super::testing::{at, blob, epoch_parameters};
use super::*;

const H: i64 = 3600;

fn listing(blobs: &[(&str, i64)]) -> Vec<BlobMetadata> {
    blobs.iter().map(|(name, hours)| blob(name, hours * H)).collect()
}

fn steps(blobs: &[(&str, i64)], mode: Mode) -> Vec<IndexStep> {
    epochs(&listing(blobs), &epoch_parameters(), mode, at(0))
}

fn names(blobs: &[BlobId]) -> Vec<&str> {
    blobs.iter().map(BlobId::as_str).collect()
}

#[test]
fn i11_all_settled_epochs_are_compacted_at_once_and_younger_ones_never() {
    let blobs = [
        ("xe4", -30),
        ("xn0_a-s1-c1", -90),
        ("xn1_a-s1-c1", -80),
        ("xs1_b-s9-c2", -70), // one of two: not a set
        ("xn2_a-s1-c2", -60), // used by itself, complete or not
        ("xn2_b-s1-c1", -60),
        ("xn3_a-s1-c1", -50),
        ("xn4_a-s1-c1", -1),
    ];
    let steps = steps(&blobs, Mode::Quick);
    let epochs: Vec<_> = steps
        .iter()
        .map(|step| match step {
            IndexStep::CompactEpoch { epoch, inputs } => (*epoch, names(inputs)),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(epochs, [(0, vec!["xn0_a-s1-c1"]), (1, vec!["xn1_a-s1-c1"]), (2, vec!["xn2_a-s1-c2", "xn2_b-s1-c1"])]);
}

#[test]
fn nothing_is_settled_before_the_second_epoch() {
    for markers in [&[][..], &[("xe1", -1)][..]] {
        let blobs: Vec<_> = [("xn0_a-s1-c1", -90)].iter().chain(markers).copied().collect();
        assert!(steps(&blobs, Mode::Full).iter().all(|s| !matches!(s, IndexStep::CompactEpoch { .. })));
    }
}

#[test]
fn advance_needs_age_and_count_or_size() {
    let epoch = |count: usize, hours: i64, length: u64| {
        let mut blobs: Vec<BlobMetadata> = (0..count).map(|n| blob(&format!("xn0_{n}-s1-c1"), -hours * H)).collect();
        blobs[0].timestamp = at(0);
        blobs[0].length = length;
        epochs(&blobs, &epoch_parameters(), Mode::Quick, at(0))
    };
    assert_eq!(epoch(20, 24, 1), [IndexStep::AdvanceEpoch { epoch: 1 }]);
    assert!(epoch(19, 24, 1).is_empty() && epoch(20, 23, 1).is_empty());
    assert_eq!(epoch(2, 24, 10 << 20), [IndexStep::AdvanceEpoch { epoch: 1 }]);
    assert!(epoch(2, 24, (10 << 20) - 11).is_empty());
}

#[test]
fn i11_ranges_chain_from_epoch_zero_and_take_sets() {
    let mut blobs: Vec<(String, i64)> = (0..10).map(|n| (format!("xn{n}_a-s1-c1"), -100 + n)).collect();
    blobs.extend((0..7).map(|n| (format!("xs{n}_x-s7-c1"), -50)));
    blobs.push(("xe9".into(), -1));
    let ranges = |blobs: &[(String, i64)], extra: &[(&str, i64)]| {
        let all: Vec<(&str, i64)> = blobs.iter().map(|(n, t)| (n.as_str(), *t)).chain(extra.iter().copied()).collect();
        steps(&all, Mode::Full).into_iter().find_map(|step| match step {
            IndexStep::CompactRange { first, last, inputs } => Some((first, last, names(&inputs).join(" "))),
            _ => None,
        })
    };
    assert_eq!(ranges(&blobs, &[]), None, "i11: epoch 7 is compacted in this cycle, and its blobs are others then");
    blobs.push(("xs7_x-s7-c1".into(), -50));
    let listed = |extra: &[(&str, i64)]| ranges(&blobs, extra);
    let (first, last, inputs) = listed(&[]).unwrap();
    assert_eq!((first, last), (0, 7));
    assert!(inputs.contains("xs3_x-s7-c1") && !inputs.contains("xn3_") && !inputs.contains("xn8_"), "{inputs}");
    assert_eq!(listed(&[("xr0_0_x-s1-c1", -9)]), None, "six settled epochs after the range are too few");
    assert!(listed(&[("xr0_0_x-s1-c2", -9)]).is_some(), "an incomplete range does not count");
    assert!(listed(&[("xr1_6_x-s1-c1", -9)]).is_some(), "a range that does not chain from 0 does not count");
    assert_eq!(
        Epochs::of(&listing(&[("xr0_1_a-s1-c1", 0), ("xr2_4_a-s1-c1", 0), ("xr0_3_a-s2-c1", 0)])).first_after_ranges(),
        5
    );
}

#[test]
fn i11_r16_markers_and_superseded_blobs_go_by_the_newest_uncompacted_blob() {
    let blobs = [
        ("xe1", -80),
        ("xe2", -60),
        ("xe3", -50),
        ("xw100", -50),
        ("xw200", -3),
        ("xw300", -2),
        ("xn0_a-s1-c1", -90),
        ("xs0_b-s2-c1", -5),
        ("xn1_a-s1-c1", -80),
        ("xs1_b-s2-c1", -4),  // exactly the margin: not yet
        ("xs1_c-s3-c2", -30), // what a dead attempt left
        ("xs1_d-s4-c2", -23), // an attempt that may be at it
        ("xs5_c-s3-c2", -30), // incomplete, and nothing stands in for it
        ("xn3_a-s1-c1", 0),
    ];
    let all = steps(&blobs, Mode::Full);
    let markers =
        all.iter().find_map(|s| if let IndexStep::CleanMarkers { blobs } = s { Some(names(blobs)) } else { None });
    assert_eq!(markers.unwrap(), ["xe1", "xw100"]);
    let superseded =
        all.iter().find_map(|s| if let IndexStep::DeleteSuperseded { blobs } = s { Some(names(blobs)) } else { None });
    assert_eq!(superseded.unwrap(), ["xn0_a-s1-c1", "xs1_c-s3-c2"]);
    assert!(
        steps(&blobs, Mode::Quick)
            .iter()
            .all(|s| !matches!(s, IndexStep::CleanMarkers { .. } | IndexStep::DeleteSuperseded { .. }))
    );
    // Without recent index blobs there is no clock, and nothing is cleaned.
    assert!(Epochs::of(&listing(&[("xe9", 0), ("xn0_a", 0)])).replaced_before(&epoch_parameters()).is_none());
}

#[test]
fn names_kopia_would_not_read_are_left_alone() {
    let listed = listing(&[
        ("x", 0),
        ("xé", 0),
        ("xn", 0),
        ("xnz_1", 0),
        ("xr5_1_a", 0),
        ("xw", 0),
        ("xe18446744073709551615", 0),
    ]);
    let epochs = Epochs::of(&listed);
    assert_eq!((epochs.write_epoch, epochs.first_after_ranges(), epochs.watermark()), (u64::MAX, 0, None));
    assert!(
        super::epochs(&listed, &epoch_parameters(), Mode::Full, at(0))
            .iter()
            .all(|s| matches!(s, IndexStep::CleanMarkers { .. }))
    );
}

#[test]
fn legacy_compaction_picks_as_kopia_does() {
    let sized = |sizes: &[(usize, u64)]| {
        let mut blobs = Vec::new();
        for (count, length) in sizes {
            for _ in 0..*count {
                blobs.push(BlobMetadata { length: *length, ..blob(&format!("n{}", blobs.len()), 0) });
            }
        }
        legacy_compaction(&blobs, 1000).len()
    };
    assert_eq!(sized(&[(7, 1)]), 0);
    assert_eq!(sized(&[(8, 1)]), 8);
    assert_eq!(sized(&[(8, 49), (6, 50)]), 8, "very small ones alone");
    assert_eq!(sized(&[(8, 49), (7, 50)]), 15, "too many medium ones");
    assert_eq!(sized(&[(4, 1), (4, 500)]), 8, "not more than half are very small");
    assert_eq!(sized(&[(7, 1), (5, 1001)]), 0, "large ones are no candidates");
}

#[test]
fn i10_legacy_blobs_go_in_the_order_that_cannot_bring_them_back() {
    let hour = Duration::from_secs(3600);
    let log = |name: &str, hours: i64, inputs: &[&str], outputs: &[&str]| CompactionLog {
        blob: blob(name, hours * H),
        inputs: inputs.iter().map(|i| BlobId::from(*i)).collect(),
        outputs: outputs.iter().map(|o| BlobId::from(*o)).collect(),
    };
    let all = listing(&[("n1", -9), ("n2", -9), ("n3", -9), ("n4", -9)]);
    let logs = [
        log("m1", -1, &["n1", "n2"], &["n3"]),
        log("m2", 0, &["n4"], &["n3"]),    // too young
        log("m3", -9, &["n4"], &["gone"]), // its output is not there
        log("m4", -2, &["n0"], &["n3"]),   // inputs gone, old enough
        log("m5", -1, &["n0"], &["n3"]),   // inputs gone, a note allows it
        log("m6", -1, &["n0"], &["n3"]),   // inputs gone, no note yet
    ];
    let note = |name: &str, hours: i64, logs: &[&str]| CleanupNote {
        blob: blob(name, hours * H),
        logs: logs.iter().map(|l| BlobId::from(*l)).collect(),
        scheduled: at(hours * H),
    };
    let notes = [note("l1", -1, &["m5", "m0"]), note("l2", 0, &["m6"]), note("l3", -1, &["m1"])];
    let gone = legacy_superseded(&all, &logs, &notes, hour, at(0));
    assert_eq!(names(&gone), ["l1", "m4", "m5", "n1", "n2"]);
    assert!(names(&legacy_superseded(&all, &logs, &notes, Duration::ZERO, at(0))).contains(&"n4"));
    // n2 was made of n1, and n3 of n2: were n2 to go first, n1 would be active again.
    let chain = [log("m1", -9, &["n1"], &["n2"]), log("m2", -9, &["n2"], &["n3"])];
    assert_eq!(names(&legacy_superseded(&all, &chain, &[], hour, at(0))), ["n1"]);
    assert_eq!(names(&legacy_superseded(&all[1..], &chain, &[], hour, at(0))), ["m1", "n2"]);
}
