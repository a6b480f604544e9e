//! What is stored has golden files of each version; all are read for ever. `VERGER_WRITE_GOLDEN=1` writes missing ones.

use std::path::PathBuf;

use openraft::{EntryPayload, Membership};
use verger_proto::envelope::{self, Kind};
use verger_proto::{Command, CommandId, LogTime, Mode, Proposal, StoreTime, Term};

use crate::machine::{State, apply};
use crate::raft::answers::Answers;
use crate::raft::identity::Identity;
use crate::raft::snapshot::{self, LedgerHead, Replicated};
use crate::raft::testing::log_id;
use crate::raft::types::{LogEntry, Peer};
use crate::testing::{digest, options, repository};

fn golden(name: &str, today: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/raft/v1")).join(name);
    if std::env::var_os("VERGER_WRITE_GOLDEN").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, today).unwrap();
    }
    let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == today, "{name} is written differently now: add a version, keep the old");
    golden
}

fn members() -> Membership<u64, Peer> {
    let nodes = (1..=3)
        .map(|id| (id, Peer::at(format!("coordinator-{id}:7421"))))
        .collect::<std::collections::BTreeMap<_, _>>();
    Membership::new(vec![[1, 2].into()], nodes)
}

fn open_cycle() -> Command {
    Command::OpenCycle { repository: repository(), options: options(Mode::Full) }
}

#[test]
fn entries_of_the_log_are_what_they_were() {
    let proposal = Proposal {
        id: CommandId(1 << 90),
        at: LogTime(1_700_000_000_000),
        actor: Some("ann".to_owned()),
        command: open_cycle(),
    };
    let payloads = [
        ("entry-blank.bin", EntryPayload::Blank),
        ("entry-normal.bin", EntryPayload::Normal(proposal)),
        ("entry-members.bin", EntryPayload::Membership(members())),
    ];
    for (name, payload) in payloads {
        let entry = LogEntry { log_id: log_id(7, 300), payload };
        let bytes = golden(name, &envelope::encode(Kind::RaftEntry, &entry).unwrap());
        assert_eq!(envelope::decode::<LogEntry>(Kind::RaftEntry, &bytes).unwrap(), entry);
    }
}

#[test]
fn an_identity_is_what_it_was() {
    let identity = Identity { cluster: "attic".to_owned(), node: 3, boots: 300, has_log: true, is_old: false };
    let bytes = golden("identity.bin", &envelope::encode(Kind::Identity, &identity).unwrap());
    assert_eq!(envelope::decode::<Identity>(Kind::Identity, &bytes).unwrap(), identity);
}

#[test]
fn a_snapshot_reads_back() {
    let (mut state, mut answers) = (State::default(), Answers::default());
    let (store_now, acts_until) = (StoreTime(5), StoreTime(120_005));
    let take = Command::TakeLease { repository: repository(), term: Term(1), kept: false, store_now, acts_until };
    for (id, command) in [take, open_cycle(), open_cycle()].into_iter().enumerate() {
        let (events, _) = apply(&mut state, command, LogTime(1_000));
        answers.keep(CommandId(id as u128), &events);
    }
    let membership = openraft::StoredMembership::new(Some(log_id(6, 2)), members());
    let replicated = Replicated { applied: Some(log_id(7, 300)), membership, state, answers };
    let head = LedgerHead { records: 9, last: digest("ledger"), bytes: 4_000 };
    // Without notes and index cycles it is as it was before there were any.
    let bytes = golden("snapshot.bin", &snapshot::encode(&replicated, head).unwrap());
    assert_eq!(snapshot::decode(&bytes, verger_proto::level::LEVEL).unwrap(), (replicated, head));
}
