//! Damage of a data folder's snapshot and ledger: an error that names the file and what helps, or made again from the log.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use verger_kopia::error::{Error, ErrorKind};
use verger_proto::chain::ChainHead;
use verger_proto::envelope::{self, Kind};
use verger_proto::{Command, LogTime};

use crate::ledger::Entry;
use crate::ledger::segment::SEGMENT_BYTES;
use crate::raft::durable::sled::SledLog;
use crate::raft::ledger::{LedgerHead, ReplicaLedger};
use crate::raft::node::{Node, SubmitError};
use crate::raft::recover::Survivor;
use crate::raft::state_machine::StateMachine;
use crate::raft::stopped::StoppedLedger;
use crate::raft::testing::{Cluster, proposal};
use crate::testing::of_newer;

/// A stopped node of its own, with a snapshot and entries after it.
async fn stopped() -> Cluster {
    let mut cluster = Cluster::new(1).await;
    for number in 1..=70 {
        cluster.submit(proposal(number, 200)).await;
    }
    let mut metrics = cluster.nodes[&1].metrics();
    metrics.wait_for(|metrics| metrics.purged.is_some()).await.unwrap();
    cluster.stop(1).await;
    cluster
}

fn refused(data: &Path, file: &str, what: &str) {
    let error = StateMachine::open(data).unwrap_err();
    check(&error, file, what);
}

fn check(error: &Error, file: &str, what: &str) {
    assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
    assert!(
        error.chain().contains(file) && error.fix().is_some_and(|fix| fix.contains("verger cluster replace")),
        "{what}: {error:?}"
    );
}

#[tokio::test]
async fn every_damage_of_the_snapshot_is_refused() {
    let cluster = stopped().await;
    let data = cluster.data(1);
    let path = data.join("snapshot");
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(37) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        refused(&data, "snapshot", &format!("byte {at}"));
        std::fs::write(&path, &good[..at]).unwrap();
        refused(&data, "snapshot", &format!("cut at {at}"));
    }
    std::fs::remove_file(&path).unwrap();
    let error = Node::open(cluster.options(1)).await.unwrap_err();
    check(&error, "snapshot", "gone");
}

/// A part of a kind that is not known here, and a version that is not: whoever goes back to an older program loses nothing by it.
#[tokio::test]
async fn a_snapshot_of_a_newer_program_is_no_damage_and_stays_as_it_is() {
    let cluster = stopped().await;
    let data = cluster.data(1);
    let path = data.join("snapshot");
    let good = std::fs::read(&path).unwrap();
    let mut chain = ChainHead::default();
    let mut rest = &good[..];
    while !rest.is_empty() {
        let (record, after) = rest.split_at(envelope::header(rest).unwrap().record_bytes);
        chain.follow(record).unwrap();
        rest = after;
    }
    let part = envelope::encode(Kind::RaftSnapshot, &9_999_u32).unwrap();
    let grown = [good.clone(), chain.append(LogTime(0), part).unwrap()].concat();
    for (bytes, says) in [(grown, "does not decode"), (of_newer(&good), "version 2 is not known")] {
        std::fs::write(&path, &bytes).unwrap();
        for error in [
            StateMachine::open(&data).unwrap_err(),
            Node::open(cluster.options(1)).await.unwrap_err(),
            StoppedLedger::open(&data).unwrap_err(),
            Survivor::open(&data).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.chain().contains("snapshot") && error.chain().contains(says), "{error:?}");
            assert_eq!(error.fix(), Some(crate::files::NEWER));
        }
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_ledger_whose_chain_breaks_is_refused_and_its_end_is_made_again() {
    let mut cluster = stopped().await;
    let data = cluster.data(1);
    let path = data.join("ledger").join("ledger");
    let good = std::fs::read(&path).unwrap();
    let (_, known) = crate::raft::snapshot::load(&data, verger_proto::level::LEVEL).unwrap().unwrap();
    let known = usize::try_from(known.bytes).unwrap();
    assert!(known > 0 && known < good.len());
    for at in (0..known).step_by(97) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bad).unwrap();
        refused(&data, "ledger", &format!("byte {at}"));
        assert_eq!(std::fs::read(&path).unwrap(), bad, "a refused ledger is left as it was");
        std::fs::write(&path, &good[..at]).unwrap();
        refused(&data, "ledger", &format!("cut at {at}"));
    }
    let mut torn = good.clone();
    torn[known + 5] ^= 1;
    torn.extend_from_slice(&[0; 999]);
    for end in [torn, good[..known].to_vec(), good.clone()] {
        std::fs::write(&path, &end).unwrap();
        cluster.start(1).await;
        cluster.submit(proposal(70, 200)).await;
        assert!(cluster.ledger(1) == good, "made again from the log");
        cluster.stop(1).await;
    }
    std::fs::write(&path, foreign(known)).unwrap();
    refused(&data, "ledger", "another one of the same length");
    std::fs::remove_file(&path).unwrap();
    refused(&data, "ledger", "gone");
}

/// A ledger that holds, but is another.
fn foreign(bytes: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = ReplicaLedger::open(folder.path(), LedgerHead::default(), SEGMENT_BYTES).unwrap();
    while ledger.head().bytes < bytes as u64 {
        let entry = Entry { command: Command::Tick, events: Vec::new() };
        ledger.append(LogTime(1), &entry).unwrap();
    }
    std::fs::read(folder.path().join("ledger")).unwrap()
}

/// After a failed sync nobody knows what is on the disk: the node stops, says why, and takes nothing more.
#[tokio::test]
async fn a_disk_that_fails_stops_the_node() {
    let mut cluster = Cluster::new(1).await;
    cluster.submit(proposal(1, 10)).await;
    cluster.stop(1).await;
    let (is_bad, data) = (Arc::new(AtomicBool::new(false)), cluster.data(1));
    let watched = is_bad.clone();
    let sync = move |file: &std::fs::File, _: &Path| match watched.load(Ordering::SeqCst) {
        true => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
        false => file.sync_data(),
    };
    let node = Node::open_with(cluster.options(1), move |_| Ok(Arc::new(SledLog::open_with(&data, Box::new(sync))?)));
    let node = node.await.unwrap();
    while node.submit(proposal(2, 10)).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    is_bad.store(true, Ordering::SeqCst);
    let _ = node.submit(proposal(3, 10)).await;
    let error = node.stopped().await;
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert!(error.fix().is_some_and(|fix| fix.contains("make room")));
    is_bad.store(false, Ordering::SeqCst);
    match node.submit(proposal(4, 10)).await {
        Err(SubmitError::Stopped(error)) => assert_eq!(error.kind(), ErrorKind::DiskFull),
        other => panic!("{other:?}"),
    }
    node.shutdown().await;
    drop(node);
    cluster.start(1).await;
    cluster.submit(proposal(4, 10)).await;
    cluster.stop_all().await;
}

#[tokio::test]
async fn a_folder_without_its_log_is_refused() {
    let cluster = stopped().await;
    std::fs::remove_dir_all(cluster.data(1).join("log")).unwrap();
    check(&Node::open(cluster.options(1)).await.unwrap_err(), "log/db", "gone");
    std::fs::remove_file(cluster.data(1).join("log.mark")).unwrap();
    // An empty log would have forgotten for whom this node voted.
    check(&Node::open(cluster.options(1)).await.unwrap_err(), "log.mark", "gone with its mark");
}
