use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use verger_kopia::clock::{SetClock, Timestamp};
use verger_proto::control::{Control, ControlError, Directive};
use verger_proto::event::CycleEnd;
use verger_proto::queue::local::LocalQueue;
use verger_proto::report::Cut;
use verger_proto::{
    BatchRequest, FailureKind, JobReport, JobSpec, Mode, PlanHeader, Progress, Stage, StageWork, StoreTime, Term,
    Ticket, Unit, ViewRef,
};

use super::*;
use crate::ledger::file::FileLedger;
use crate::ledger::{Entry, Ledger};
use crate::testing::{batch, digest, done, options, output, repository, shards, worker};
use verger_kopia::error::{Error, ErrorKind};
use verger_proto::LogTime;

/// One process: a drive, its queue, and one worker's control.
struct Process {
    backend: Arc<FileBackend>,
    drive: Arc<Drive>,
    control: LocalControl,
    queue: Arc<LocalQueue>,
    clock: Arc<SetClock>,
}

impl Process {
    fn start(state_dir: &Path) -> Result<Self> {
        let clock = Arc::new(SetClock::new(Timestamp::from_second(1_700_000_000).unwrap()));
        let queue = Arc::new(LocalQueue::default());
        let folder = super::folder(state_dir, &repository());
        let effects = Arc::new(Effects::new(queue.clone()));
        let backend = Arc::new(FileBackend::open(&folder, clock.clone(), effects.clone(), None)?);
        let drive = Arc::new(Drive::behind(backend.clone(), effects, &repository(), &folder, clock.clone())?);
        Ok(Self { backend, control: LocalControl::new(drive.clone()), drive, queue, clock })
    }

    fn store(&self) -> StoreTime {
        StoreTime(u64::try_from(self.clock.now().as_millisecond()).unwrap())
    }

    fn take_lease(&self, term: u64) {
        let (store_now, acts_until) = (self.store(), self.store().plus(120_000));
        let (repository, term) = (repository(), Term(term));
        self.drive.submit(Command::TakeLease { repository, term, kept: false, store_now, acts_until }).unwrap();
    }

    fn begin(&self, mode: Mode) -> std::result::Result<CycleId, Refusal> {
        self.drive.begin(&repository(), options(mode)).unwrap()
    }

    fn claim(&self) -> Option<(Ticket, JobSpec)> {
        let hint = self.queue.take(Duration::ZERO).unwrap()?;
        let ticket = hint.ticket(&worker("w1"));
        let spec = self.control.claim(&ticket).unwrap();
        Some((ticket, spec))
    }

    fn view(&self) -> ViewRef {
        ViewRef { digest: digest("view"), taken: self.store() }
    }

    fn header(&self, spec: &JobSpec, view: ViewRef) -> PlanHeader {
        let stages = [(Stage::Delete, 2), (Stage::Index, 1)];
        let work = |(stage, items)| StageWork { stage, items, bytes: 10 * items };
        PlanHeader {
            repository: repository(),
            store: "filesystem:///srv/photos".to_owned(),
            view,
            term: spec.term,
            mode: spec.options.mode,
            stages: stages.into_iter().map(work).collect(),
            removed_bytes: 0,
            total_packed_bytes: 100,
            contents: 10,
            live_contents: 10,
            body: output("plan"),
        }
    }

    fn approve(&self, ticket: &Ticket, spec: &JobSpec, number: u32, first: u64) -> Result<(), ControlError> {
        let batch = spec.batch.unwrap_or(batch(spec.stage, number, first, 1));
        let request =
            BatchRequest { batch, plan: spec.plan, view: self.view(), store_now: self.store(), wanted: 60_000 };
        self.control.approve_batch(ticket, request).map(drop)
    }

    /// Does one job as a good worker; `false` if there is none.
    fn work(&self) -> bool {
        let Some((ticket, spec)) = self.claim() else { return false };
        let items = match spec.stage {
            Stage::Delete => 2,
            Stage::Index => 1,
            _ => 0,
        };
        for (number, first) in (0..).zip(spec.done..items) {
            self.approve(&ticket, &spec, number, first).unwrap();
            self.control.batch_done(&ticket, done(batch(spec.stage, number, first, 1))).unwrap();
        }
        let mut report = JobReport::done(vec![output(&format!("{}-{}", spec.stage, spec.id))]);
        match spec.stage {
            Stage::Survey => report.view = Some(self.view()),
            Stage::Plan => {
                let view = self.drive.state(|state| state.cycles[&spec.cycle].view.unwrap().0);
                report.plan = Some(self.header(&spec, view));
            }
            Stage::Check => report.checked = spec.plan,
            _ => {}
        }
        self.control.report(&ticket, report).unwrap();
        true
    }

    fn until(&self, stage: Stage) {
        while self.drive.state(|state| state.open_cycle(&repository()).unwrap().stage) < stage {
            assert!(self.work());
        }
    }

    fn last_end(&self) -> Option<CycleEnd> {
        self.drive.state(|state| state.repositories[&repository()].last_end.clone())
    }
}

#[test]
fn a_cycle_runs_through_queue_control_and_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    assert_eq!(process.begin(Mode::Full), Err(Refusal::NoLease));
    process.take_lease(1);
    let cycle = process.begin(Mode::Full).unwrap();
    assert_eq!(process.drive.unfinished(&repository()), Some((cycle, options(Mode::Full))));
    while process.work() {}
    assert_eq!(process.last_end(), Some(CycleEnd::Done));
    assert!(!process.drive.is_due(&repository()));
    let closing = Effect::CloseLease { repository: repository(), term: Term(1) };
    assert_eq!(process.drive.next_lease_order(), Some(closing));
    assert_eq!(process.drive.next_lease_order(), None);
    let state = process.drive.state(Clone::clone);
    drop(process);
    let again = Process::start(folder.path()).unwrap();
    assert_eq!(again.drive.state(Clone::clone), state, "the ledger is all that a process leaves");
}

#[test]
fn every_command_is_in_the_file_before_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    process.take_lease(1);
    process.begin(Mode::Full).unwrap();
    process.until(Stage::Delete);
    let (ticket, spec) = process.claim().unwrap();
    process.approve(&ticket, &spec, 0, 0).unwrap();
    let mut last = None;
    FileLedger::read(&super::folder(folder.path(), &repository()), |record| {
        last = Some(record.entry);
        Ok(())
    })
    .unwrap();
    assert!(matches!(last.unwrap().events[..], [Event::BatchApproved { .. }]), "the intent is there before the deed");
}

#[test]
fn s7_a_killed_process_leaves_a_cycle_that_the_next_one_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    process.take_lease(1);
    let cycle = process.begin(Mode::Full).unwrap();
    process.until(Stage::Delete);
    let (ticket, spec) = process.claim().unwrap();
    process.approve(&ticket, &spec, 0, 0).unwrap();
    drop((process, ticket));
    let next = Process::start(folder.path()).unwrap();
    assert!(next.drive.is_due(&repository()), "a killed cycle stays due");
    let parked = next.drive.state(|state| state.cycles[&cycle].phase.clone());
    assert_eq!(parked, Phase::Parked);
    next.take_lease(2);
    assert_eq!(next.begin(Mode::Full), Ok(cycle), "it goes on with the same cycle");
    while next.work() {}
    assert_eq!(next.last_end(), Some(CycleEnd::Done));
}

#[test]
fn with_the_same_term_the_next_process_goes_on_and_looks_at_the_open_batch() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    process.take_lease(1);
    let cycle = process.begin(Mode::Full).unwrap();
    process.until(Stage::Delete);
    let (ticket, spec) = process.claim().unwrap();
    process.approve(&ticket, &spec, 0, 0).unwrap();
    drop(process);
    let next = Process::start(folder.path()).unwrap();
    let (store_now, acts_until) = (next.store(), next.store().plus(120_000));
    let take = Command::TakeLease { repository: repository(), term: Term(1), kept: true, store_now, acts_until };
    next.drive.submit(take).unwrap();
    assert_eq!(next.begin(Mode::Full), Ok(cycle));
    let mut hints = std::iter::from_fn(|| next.queue.take(Duration::ZERO).unwrap());
    let newest = hints.by_ref().last().unwrap().ticket(&worker("w1"));
    let spec = next.control.claim(&newest).unwrap();
    assert_eq!((spec.stage, spec.batch), (Stage::Delete, Some(batch(Stage::Delete, 0, 0, 1))));
}

#[test]
fn an_unfinished_dry_run_is_given_up_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    let dry = CycleOptions { dry_run: true, ..options(Mode::Full) };
    process.drive.begin(&repository(), dry).unwrap().unwrap();
    drop(process);
    let next = Process::start(folder.path()).unwrap();
    assert_eq!((next.drive.unfinished(&repository()), next.drive.is_due(&repository())), (None, false));
}

#[test]
fn a_second_process_finds_the_ledger_locked() {
    let folder = tempfile::tempdir().unwrap();
    let _process = Process::start(folder.path()).unwrap();
    assert_eq!(Process::start(folder.path()).err().unwrap().kind(), ErrorKind::Locked);
}

#[test]
fn whoever_hears_of_one_shard_sees_all_that_wait() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    process.take_lease(1);
    process.begin(Mode::Full).unwrap();
    let (ticket, spec) = process.claim().unwrap();
    let survey = ticket.job;
    let whole = process.drive.state(|state| state.cycles[&spec.cycle].hint(&state.cycles[&spec.cycle].jobs[&survey]));
    assert_eq!(process.drive.waiting(&whole), [], "what is not cut is no shard");
    let cuts = vec![Cut { stage: Stage::Scan, shards: shards(&["p4", "q", "q4"]) }];
    let view = Some(process.view());
    process.control.report(&ticket, JobReport { cuts, view, ..JobReport::done(vec![output("survey")]) }).unwrap();
    assert_eq!(process.drive.waiting(&whole), [], "a hint of a stage that is over");
    let hints: Vec<Hint> = std::iter::from_fn(|| process.queue.take(Duration::ZERO).unwrap()).collect();
    let waiting = process.drive.waiting(&hints[1]);
    assert_eq!(waiting.iter().map(|(hint, _)| hint.clone()).collect::<Vec<_>>(), hints);
    assert_eq!(waiting[2].1, Shard { from: b"q".to_vec(), to: Some(b"q4".to_vec()) });
    process.control.claim(&hints[0].ticket(&worker("w2"))).unwrap();
    let failed = hints[2].ticket(&worker("w3"));
    process.control.claim(&failed).unwrap();
    process.control.report(&failed, JobReport::failed(FailureKind::StoreUnavailable, "gone".to_owned(), true)).unwrap();
    let left = |now: &Process| now.drive.waiting(&hints[1]).iter().map(|(hint, _)| hint.job).collect::<Vec<_>>();
    assert_eq!(left(&process), [hints[1].job, hints[3].job], "one is claimed, one has its pause");
    process.clock.advance(Duration::from_secs(60));
    assert_eq!(left(&process), [hints[1].job, hints[2].job, hints[3].job]);
}

#[test]
fn progress_is_thinned_for_the_ledger_and_answers_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    process.take_lease(1);
    let cycle = process.begin(Mode::Full).unwrap();
    let (ticket, _) = process.claim().unwrap();
    let word = |done| Progress { done, total: 0, unit: Unit::Blobs };
    for number in 0..1_000 {
        assert_eq!(process.control.progress(&ticket, word(number)), Ok(Directive::Continue));
    }
    assert_eq!(process.control.latest(ticket.job), Some(word(999)));
    process.clock.advance(Duration::from_secs(10));
    process.control.renew(&ticket).unwrap();
    let mut recorded = Vec::new();
    FileLedger::read(&super::folder(folder.path(), &repository()), |record| {
        let progress = record.entry.events.into_iter().filter(|event| event.kind() == "job_progressed");
        recorded.extend(progress);
        Ok(())
    })
    .unwrap();
    let expected = Event::JobProgressed { ticket: ticket.clone(), progress: Some(word(999)) };
    assert_eq!(recorded, [expected]);
    process.drive.submit(Command::ParkCycle { cycle }).unwrap();
    assert_eq!(process.control.progress(&ticket, word(0)), Err(ControlError::Refused(Refusal::Stopping)));
    assert!(process.control.report(&ticket, JobReport::failed(FailureKind::Interrupted, "ctrl-c", false)).is_err());
}

/// Takes a few records and then fails.
struct FullDisk(usize);

impl Ledger for FullDisk {
    fn append(&mut self, _at: LogTime, _entry: &Entry) -> Result<()> {
        self.0 = self.0.checked_sub(1).ok_or_else(|| Error::new(ErrorKind::DiskFull, "write the ledger"))?;
        Ok(())
    }
}

#[test]
fn without_its_ledger_the_machine_does_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path()).unwrap();
    process.take_lease(1);
    process.backend.lock().ledger = Box::new(FullDisk(0));
    let open = Command::OpenCycle { repository: repository(), options: options(Mode::Full) };
    assert_eq!(process.drive.submit(open).unwrap_err().kind(), ErrorKind::DiskFull);
    assert!(process.claim().is_none(), "no effect without a record");
    process.backend.lock().ledger = Box::new(FullDisk(9));
    assert!(process.drive.submit(Command::Tick).is_err(), "state and ledger are apart: only a fresh start helps");
}

#[test]
fn a_ledger_that_gives_other_events_than_it_says_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = super::folder(folder.path(), &repository());
    let (mut ledger, _) = FileLedger::open(&path, |_| Ok(())).unwrap();
    let command = Command::OpenCycle { repository: repository(), options: options(Mode::Full) };
    ledger.append(LogTime(1), &Entry { command, events: vec![Event::CycleJoined { cycle: CycleId(1) }] }).unwrap();
    drop(ledger);
    let error = Process::start(folder.path()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged);
}

#[test]
fn evidence_and_observers_get_what_happens() {
    let folder = tempfile::tempdir().unwrap();
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let observer: Observer = Box::new(move |_, _| {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    let clock = Arc::new(SetClock::new(Timestamp::from_second(1_700_000_000).unwrap()));
    let queue = Arc::new(LocalQueue::default());
    let drive = Arc::new(Drive::open(folder.path(), &repository(), clock, queue, Some(observer)).unwrap());
    drive.submit(Command::ParkCycle { cycle: CycleId(9) }).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1);
    let control = LocalControl::new(drive.clone());
    let ticket =
        Ticket { cycle: CycleId(1), job: verger_proto::JobId(1), attempt: 1, term: Term(1), worker: worker("w1") };
    let names = vec!["p01".to_owned()];
    let evidence = Evidence { batch: batch(Stage::Delete, 0, 0, 1), rule: "unreferenced-pack".to_owned(), names };
    let kept = control.keep_evidence(&ticket, evidence.clone()).unwrap();
    let kept_in = EvidenceFolder::beside(&super::folder(folder.path(), &repository()));
    assert_eq!(kept_in.read(CycleId(1)).unwrap(), [(kept.digest, evidence)]);
    let error = super::control::unwritten(&Error::of_file("keep evidence", std::io::ErrorKind::FileTooLarge.into()));
    assert!(matches!(error, ControlError::Ledger { kind: FailureKind::DiskFull, .. }), "{error}");
    let nobody = super::control::unwritten(&Error::new(ErrorKind::StoreUnavailable, "nobody leads"));
    assert!(matches!(nobody, ControlError::Unavailable(_)), "it passes, and is nobody's lack of a right: {nobody}");
    let denied = super::control::unwritten(&Error::new(ErrorKind::Permission, "append to the ledger"));
    assert!(matches!(denied, ControlError::Ledger { kind: FailureKind::Permission, .. }), "{denied}");
    let waited = drive.wait(Duration::from_millis(1), |state| (state.next_cycle > 99).then_some(()));
    assert_eq!((waited, drive.wait(Duration::ZERO, |state| Some(state.next_cycle))), (None, Some(1)));
}
