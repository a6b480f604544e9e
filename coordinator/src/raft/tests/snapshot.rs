//! A snapshot is as long as what is going on, not as what has been.

use verger_proto::work_queue::PublicKey;
use verger_proto::{
    Command, CommandId, CycleId, Driver, FailureKind, LogTime, Mode, SeenLease, StoreTime, Term, Unable, Verification,
};

use crate::machine::State;
use crate::raft::answers::Answers;
use crate::raft::snapshot::{self, LedgerHead, Replicated};
use crate::testing::{History, Rig, options, registration, repository, store, worker, worker_info};

struct Long {
    rig: Rig,
    answers: Answers,
    commands: u64,
}

impl Long {
    fn new() -> Self {
        Self { rig: Rig::bare(), answers: Answers::default(), commands: 0 }
    }

    /// A whole quick cycle under a lease of its own, with its report.
    fn cycle(&mut self, report_bytes: usize) {
        let term = self.rig.state.repositories.get(&repository()).map_or(0, |entry| entry.last_term.0);
        self.rig.pass(60_000);
        self.rig.take_lease(term + 1);
        self.rig.open(options(Mode::Quick));
        let cycle = CycleId(self.rig.state.next_cycle - 1);
        while !self.rig.state.cycles.is_empty() {
            self.rig.do_job();
        }
        let report = "r".repeat(report_bytes);
        self.rig.go(Command::RecordReport { repository: repository(), cycle, report });
        self.rig.go(Command::ReleaseLease { repository: repository(), term: Term(term + 1) });
        for (_, _, events) in std::mem::take(&mut self.rig.log) {
            self.answers.keep(CommandId(u128::from(self.commands)), &events);
            self.commands += 1;
        }
        // It looks at every job that there ever was.
        self.rig.history = History::default();
    }

    fn snapshot(&self) -> usize {
        let (state, answers) = (self.rig.state.clone(), self.answers.clone());
        let replicated = Replicated { state, answers, ..Replicated::default() };
        let bytes = snapshot::encode(&replicated, LedgerHead::default()).unwrap();
        assert_eq!(snapshot::decode(&bytes, verger_proto::level::LEVEL).unwrap().0, replicated);
        bytes.len()
    }
}

#[test]
fn ten_thousand_cycles_leave_a_snapshot_of_the_same_length() {
    let mut long = Long::new();
    let mut lengths = Vec::new();
    for cycle in 1..=10_000 {
        long.cycle(200);
        if cycle % 2_500 == 0 {
            lengths.push(long.snapshot());
        }
    }
    assert!(long.commands > 200_000, "{}", long.commands);
    let (first, last) = (lengths[0], lengths[3]);
    // Numbers get a byte longer now and then.
    assert!(last < first + first / 20, "{lengths:?}");
    assert!(last < 8 << 20, "{lengths:?}");
}

#[test]
fn workers_keys_and_probes_are_in_a_snapshot() {
    let mut long = Long::new();
    long.cycle(10);
    long.rig.go(Command::AddRepository { repository: repository(), registration: Box::new(registration()) });
    long.rig.state.level = verger_proto::level::LEVEL;
    let plain = long.snapshot();
    for name in ["attic", "cellar"] {
        let info = Box::new(worker_info());
        long.rig.go(Command::SeeWorker { worker: worker(name), info });
    }
    long.rig.go(Command::DrainWorker { worker: worker("cellar"), drain: true });
    long.rig.go(Command::NoteWorkKey { node: 1, key: PublicKey([7; 32]) });
    long.rig.go(Command::RecordProbe { repository: repository(), probe: Box::new(store()) });
    let state = &long.rig.state;
    assert!(state.workers[&worker("cellar")].drained && state.work_keys.len() == 1);
    assert!(state.repositories[&repository()].store.is_some());
    let verification =
        Verification { share: 1, snapshots: 2, contents: 3, contents_read: 4, bytes_read: 5, problems: 6 };
    long.rig.go(Command::RecordVerification { repository: repository(), verification });
    assert_eq!(long.rig.state.repositories[&repository()].verified.map(|verified| verified.last), Some(verification));
    let entry = long.rig.state.repositories.get_mut(&repository()).unwrap();
    let (holder, acts_until, expires) = ("other@fleet".to_owned(), StoreTime(5), StoreTime(9));
    entry.other = Some((SeenLease { holder, term: Term(9), acts_until, expires, free: false }, LogTime(7)));
    let (driver, reason) = (Driver { node: 1, boots: 2, run: 3 }, "no password".to_owned());
    let kind = FailureKind::WrongPassword;
    entry.unable = vec![Unable { worker: worker("cellar"), driver, kind, reason, since: LogTime(8) }];
    entry.drives = vec![driver];
    assert!(long.snapshot() > plain);
    // Without them it is as it was before there were any.
    long.rig.state.workers.clear();
    long.rig.state.work_keys.clear();
    let entry = long.rig.state.repositories.get_mut(&repository()).unwrap();
    (entry.store, entry.other, entry.unable, entry.drives) = (None, None, Vec::new(), Vec::new());
    entry.verified = None;
    assert!(long.snapshot().abs_diff(plain) < 16);
    // A program from before levels may get it, and knows nothing of drives.
    long.rig.state.level = 0;
    long.snapshot();
    let drives = |drives: Vec<Driver>| {
        let mut state = long.rig.state.clone();
        state.repositories.get_mut(&repository()).unwrap().drives = drives;
        snapshot::encode(&Replicated { state, ..Replicated::default() }, LedgerHead::default()).unwrap()
    };
    assert_eq!(drives(vec![driver]), drives(Vec::new()));
}

#[test]
fn long_reports_do_not_make_a_snapshot_impossible() {
    let mut long = Long::new();
    for _ in 0..40 {
        long.cycle(3 << 20);
    }
    assert!(long.snapshot() < 12 << 20);
    let kept = |state: &State| {
        let past = state.repositories[&repository()].past.clone();
        past.iter().filter(|past| past.report.is_some()).map(|past| past.id).collect::<Vec<_>>()
    };
    assert_eq!(kept(&long.rig.state), [CycleId(40)], "the newest in any case");
    for _ in 0..40 {
        long.cycle(100 << 10);
    }
    assert_eq!(kept(&long.rig.state).len(), 10);
}
