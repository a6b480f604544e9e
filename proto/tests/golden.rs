//! Every kind of event has a golden file of each version; all are read for ever. `VERGER_WRITE_GOLDEN=1` writes missing ones of
//! the newest version, and never changes one that is there.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use verger_proto::envelope::{self, Kind};
use verger_proto::event::{CycleEnd, PassReason, Stop};
use verger_proto::schedule::{Margin, MarkToDrop, Own, OwnCycle};
use verger_proto::work_queue::PublicKey;
use verger_proto::{
    Access, Acting, Approval, Batch, BatchOutcome, BatchResult, CycleId, CycleOptions, Damage, Digest, Driver, Event,
    Failure, FailureKind, IndexKind, JobId, LogTime, Mode, OutputRef, PlanHeader, Progress, Refusal, Registration,
    RegistrationChange, RepositoryId, RepositoryName, Safety, Schedule, Scope, Scopes, SecretRef, SeenLease, Severity,
    Shard, Sight, Stage, StageWork, StoreProbe, StoreSeen, StoreTime, Tenant, Term, Ticket, Unit, Verification,
    ViewRef, WorkerId, WorkerInfo, report::TaskStats,
};

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/event/v1"))
}

fn repository() -> RepositoryId {
    format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap()
}

fn ticket() -> Ticket {
    let worker = WorkerId::new("cellar/1").unwrap();
    Ticket { cycle: CycleId(7), job: JobId(300), attempt: 2, term: Term(11), worker }
}

fn view() -> ViewRef {
    ViewRef { digest: Digest::of(b"view"), taken: StoreTime(1_700_000_000_000) }
}

fn output(name: &str) -> OutputRef {
    OutputRef { name: name.to_owned(), digest: Digest::of(name.as_bytes()), count: 70_000, view: view().digest }
}

fn header() -> PlanHeader {
    PlanHeader {
        repository: repository(),
        store: "s3://attic/photos/".to_owned(),
        view: view(),
        term: Term(11),
        mode: Mode::Full,
        stages: vec![
            StageWork { stage: Stage::Mark, items: 3, bytes: 4_000_000_000 },
            StageWork { stage: Stage::Close, items: 0, bytes: 0 },
        ],
        removed_bytes: 30,
        total_packed_bytes: 100,
        contents: 10,
        live_contents: 7,
        body: output("plan"),
    }
}

fn batch() -> Batch {
    Batch { stage: Stage::Delete, number: 3, first: 1_500, items: 500, digest: Digest::of(b"batch") }
}

fn outcome(result: BatchResult) -> BatchOutcome {
    let evidence = Some(output("evidence/7"));
    BatchOutcome { batch: batch(), result, changed: 499, left_out: 1, bytes: 1 << 33, evidence }
}

fn failure() -> Failure {
    let text = "the store does not answer".to_owned();
    Failure { kind: FailureKind::StoreUnavailable, text, retryable: true }
}

fn recovered() -> Event {
    let (cluster, voted) = ("attic-0a1b2c3d+1".to_owned(), vec![1, 2, 4]);
    Event::ClusterRecovered { node: 2, cluster, voted, last_index: 300, last_term: 7 }
}

/// One event of each kind, or more where a field has shapes of its own.
fn samples() -> Vec<(&'static str, Event)> {
    let (cycle, job, stage) = (CycleId(7), JobId(300), Stage::Delete);
    let (repository, term, plan) = (repository(), Term(11), header().digest().unwrap());
    let (store_now, acts_until) = (StoreTime(1_700_000_000_000), StoreTime(1_700_000_120_000));
    let shard = Shard { from: b"k".to_vec(), to: Some(b"kf0".to_vec()) };
    let progress = Some(Progress { done: 5, total: 9, unit: Unit::Blobs });
    let options = CycleOptions {
        mode: Mode::Quick,
        safety: Safety::None,
        index: IndexKind::Legacy,
        dry_run: true,
        allow_removing: Some(99),
        exclusive: true,
        alone: true,
    };
    let damage = Damage {
        severity: Severity::LostIndex,
        subject: "xn3_00".to_owned(),
        text: "cannot be read".to_owned(),
        snapshots: vec!["m1".to_owned()],
        paths: vec!["/photos".to_owned()],
    };
    let approval = Approval {
        batch: batch(),
        term,
        plan: Some(plan),
        view: view(),
        deadline: LogTime(1_700_000_100_000),
        store_deadline: acts_until,
        valid_for: 100_000,
        again: true,
    };
    let stats = vec![TaskStats { task: "snapshot-gc".to_owned(), data: "{\"unreferencedContentCount\":3}".to_owned() }];
    let removes = Refusal::RemovesTooMuch { removed: 30, total: 50, allowed: 50 };
    let boxed = || Box::new(header());
    vec![
        ("", Event::LeaseTaken { repository: repository.clone(), term, store_now, acts_until }),
        ("", Event::LeaseRenewed { repository: repository.clone(), term, store_now, acts_until }),
        ("", Event::LeaseLost { repository: repository.clone(), term, reason: "taken over".to_owned() }),
        ("", Event::LeaseReleased { repository: repository.clone(), term }),
        ("", Event::CycleOpened { cycle, repository: repository.clone(), term, options }),
        (
            "-index",
            Event::CycleOpened { cycle, repository, term, options: CycleOptions { mode: Mode::Index, ..options } },
        ),
        ("", Event::CycleJoined { cycle }),
        ("", Event::StageOpened { cycle, stage, jobs: 12 }),
        ("", Event::StagePassed { cycle, stage: Stage::Revive, reason: PassReason::NothingToDo }),
        ("", Event::StageClosed { cycle, stage }),
        ("", Event::JobOffered { cycle, job, stage: Stage::Scan, shard, attempt: 2 }),
        ("", Event::JobClaimed { ticket: ticket() }),
        ("", Event::JobProgressed { ticket: ticket(), progress }),
        ("", Event::JobCompleted { ticket: ticket(), outputs: vec![output("scan-300")], stats, view: Some(view()) }),
        ("", Event::JobFailed { ticket: ticket(), failure: failure() }),
        ("", Event::JobLost { cycle, job, attempt: 2, worker: ticket().worker }),
        ("", Event::ShardQuarantined { cycle, job, stage: Stage::Rewrite, failure: failure() }),
        ("", Event::ResultFenced { ticket: ticket(), reason: Refusal::StaleTerm { given: Term(10), current: term } }),
        ("", Event::ResultRepeated { ticket: ticket() }),
        ("", Event::CycleDegraded { cycle, severity: Severity::LostIndex, damage: vec![damage] }),
        ("", Event::PlanSealed { cycle, plan, header: boxed(), allowed_percent: 50 }),
        ("", Event::PlanRefused { cycle, plan: Some(plan), reason: removes.clone() }),
        ("", Event::PlanChecked { cycle, plan, header: boxed(), refusal: Some(removes) }),
        ("", Event::RevivalsAdded { ticket: ticket(), revived: output("revived"), bytes: 77 }),
        ("", Event::BatchApproved { ticket: ticket(), approval }),
        ("", Event::BatchDone { ticket: ticket(), outcome: outcome(BatchResult::Done) }),
        ("", Event::BatchAmbiguous { ticket: ticket(), outcome: outcome(BatchResult::Ambiguous) }),
        ("", Event::CycleStopping { cycle, stop: Stop::Park }),
        ("-abort", Event::CycleStopping { cycle, stop: Stop::Abort("enough".to_owned()) }),
        ("-fail", Event::CycleStopping { cycle, stop: Stop::Fail(failure()) }),
        ("", Event::CycleParked { cycle, stage }),
        ("", Event::CycleResumed { cycle, stage, term }),
        ("", Event::CycleRestarted { cycle, term, dropped_plan: Some(plan), view: Some(view().digest) }),
        ("", Event::CycleClosed { cycle, end: CycleEnd::Degraded }),
        ("-done", Event::CycleClosed { cycle, end: CycleEnd::Done }),
        ("-planned", Event::CycleClosed { cycle, end: CycleEnd::Planned }),
        ("-aborted", Event::CycleClosed { cycle, end: CycleEnd::Aborted("enough".to_owned()) }),
        ("-failed", Event::CycleClosed { cycle, end: CycleEnd::Failed(failure()) }),
        ("", refused(Refusal::BatchOutOfOrder { number: 3, first: 1_500 })),
        // The last variant of its enum: a variant put in before it would shift its number.
        ("-last", refused(Refusal::NoRevival(Stage::Close))),
    ]
    .into_iter()
    .chain(fleet_samples())
    .chain(cluster_samples())
    .chain(worker_samples())
    .chain(member_samples())
    .chain(others_samples())
    .chain(refusal_samples())
    .collect()
}

/// Of repositories that a fleet looks after.
fn fleet_samples() -> Vec<(&'static str, Event)> {
    let (repository, name) = (repository(), RepositoryName::new("photos").unwrap());
    let registration = Registration {
        name: name.clone(),
        address: "s3://attic/photos/".to_owned(),
        tenant: "home".to_owned(),
        password: SecretRef::Env("PHOTOS_PASSWORD".to_owned()),
        acting: Acting::ActAs("owner@cellar".to_owned()),
        exclusive: true,
        index: IndexKind::Epochs,
        schedule: Schedule::default(),
        pool: "default".to_owned(),
        weight: 1,
        mark_to_drop: MarkToDrop::Day,
    };
    let added = |registration: Registration| Event::RepositoryAdded {
        repository: self::repository(),
        registration: Box::new(registration),
    };
    let changed = |change| Event::RepositoryChanged { repository: self::repository(), change };
    let observed = Registration {
        password: SecretRef::Mounted("photos".to_owned()),
        acting: Acting::Observe,
        ..registration.clone()
    };
    let taken = Registration {
        password: SecretRef::File("/run/secrets/photos".to_owned()),
        acting: Acting::TakeOwnership,
        ..registration.clone()
    };
    let options = CycleOptions {
        mode: Mode::Full,
        safety: Safety::Full,
        index: IndexKind::Epochs,
        dry_run: false,
        allow_removing: Some(60),
        exclusive: false,
        alone: false,
    };
    let key = || "nightly-7".to_owned();
    let cycle = |enabled, interval_seconds| OwnCycle { enabled, interval_seconds };
    let own = Own { full: cycle(false, 86_400), quick: cycle(true, 3_600) };
    let margin = Margin { at: LogTime(1_700_000_000_000), is_drop: true };
    vec![
        ("", added(registration)),
        ("-observed", added(observed)),
        ("-taken", added(taken)),
        ("", changed(RegistrationChange::Suspended(true))),
        ("-acting", changed(RegistrationChange::Acting(Acting::TakeOwnership))),
        ("-exclusive", changed(RegistrationChange::Exclusive(false))),
        ("-password", changed(RegistrationChange::Password(SecretRef::Env("OTHER".to_owned())))),
        ("-index", changed(RegistrationChange::Index(IndexKind::Legacy))),
        ("-schedule", changed(RegistrationChange::Schedule(Box::new(schedule())))),
        ("-pool", changed(RegistrationChange::Pool("night".to_owned()))),
        ("-weight", changed(RegistrationChange::Weight(300))),
        ("-mark-to-drop", changed(RegistrationChange::MarkToDrop(MarkToDrop::FiveHours))),
        ("", Event::RepositoryRemoved { repository: repository.clone(), name: name.clone() }),
        ("", Event::CycleRequested { repository: repository.clone(), key: key(), options }),
        ("", Event::RequestDropped { repository: repository.clone(), key: key(), failure: failure() }),
        ("", Event::CycleReported { repository: repository.clone(), cycle: CycleId(7), report: "{}".to_owned() }),
        ("", Event::CyclePaused { cycle: CycleId(7) }),
        ("", Event::CycleUnpaused { cycle: CycleId(7) }),
        ("", Event::LookRecorded { repository, own, margins: Some(vec![margin]) }),
        (
            "",
            token(
                Access::One(Tenant::new("home").unwrap()),
                &[Scope::Operate, Scope::Approve],
                Some(LogTime(1_800_000_000_000)),
            ),
        ),
        ("-all", token(Access::All, &[Scope::Admin], None)),
        ("", Event::TokenRevoked { name: "cron".to_owned(), access: Access::All }),
    ]
}

fn refusal_samples() -> Vec<(&'static str, Event)> {
    let first = Driver { node: 1, boots: 300, run: 7 };
    vec![
        ("-token", refused(Refusal::UnknownToken("cron".to_owned()))),
        ("-fleet", refused(Refusal::TooManyRequests(16))),
        ("-look", refused(Refusal::TooManyMargins(65))),
        ("-driven", refused(Refusal::DrivenByOther(first))),
    ]
}

/// Of several coordinators.
fn cluster_samples() -> Vec<(&'static str, Event)> {
    let (first, second) = (Driver { node: 1, boots: 300, run: 7 }, Driver { node: 2, boots: 5, run: 70_000 });
    let until = LogTime(1_700_000_015_000);
    let (taken, renewed, left) = (repository(), repository(), repository());
    vec![
        ("", Event::NodeAdmitted { node: 4, replaces: Some(2) }),
        ("", Event::DriveTaken { repository: taken, driver: second, until, before: Some(first) }),
        ("", Event::DriveRenewed { repository: renewed, driver: second, until }),
        ("", Event::DriveLeft { repository: left, driver: second }),
        ("", Event::WriteNoted { repository: repository(), term: Term(11), version: Digest::of(b"schedule") }),
        (
            "",
            Event::SessionNoted {
                repository: repository(),
                term: Term(11),
                session: "s0123456789abcdef142".parse().unwrap(),
            },
        ),
    ]
}

/// Of workers in processes of their own.
fn worker_samples() -> Vec<(&'static str, Event)> {
    let worker = || WorkerId::new("cellar").unwrap();
    let info = WorkerInfo {
        instance: u64::MAX,
        started: LogTime(1_700_000_000_000),
        version: "0.1.0".to_owned(),
        pools: vec!["default".to_owned(), "night".to_owned()],
        labels: [("zone".to_owned(), "cellar".to_owned())].into(),
        places: 4,
        exchange: Some("0a1b2c3d".to_owned()),
    };
    let (cycle, job, stage, into) = (CycleId(7), JobId(300), Stage::Scan, vec![JobId(301), JobId(302)]);
    vec![
        ("", Event::WorkerSeen { worker: worker(), info: Box::new(info) }),
        ("", Event::WorkerLeft { worker: worker() }),
        ("", Event::WorkerDrained { worker: worker(), drain: true }),
        ("", Event::ShardSplit { cycle, job, stage, failure: failure(), into }),
        ("", Event::WorkKeyNoted { node: 2, key: PublicKey([0xab; 32]) }),
    ]
}

/// Of members that change.
fn member_samples() -> Vec<(&'static str, Event)> {
    vec![
        ("", Event::NodeDismissed { node: 4 }),
        ("", Event::NodeMoved { node: 4, address: "d.example:7421".to_owned() }),
        ("", recovered()),
        ("", Event::StoreProbed { repository: repository(), probe: Box::new(probe(true)) }),
        ("-observed", Event::StoreProbed { repository: repository(), probe: Box::new(probe(false)) }),
    ]
}

fn verification() -> Verification {
    let (contents, bytes_read) = (70_000, 9_000_000_000);
    Verification { share: 500, snapshots: 30, contents, contents_read: 3_500, bytes_read, problems: 2 }
}

/// Of others: fleets that share a store, and workers that cannot reach one.
fn others_samples() -> Vec<(&'static str, Event)> {
    let before = "02".repeat(16).parse().unwrap();
    let lease = SeenLease {
        holder: "verger@fleet-0a1b2c3d".to_owned(),
        term: Term(12),
        acts_until: StoreTime(1_700_000_120_000),
        expires: StoreTime(1_700_000_600_000),
        free: false,
    };
    let reason = "environment variable PHOTOS (--password-env) is not set".to_owned();
    vec![
        ("", Event::StoreIdentified { repository: repository(), before }),
        ("", Event::LeaseSeen { repository: repository(), lease: Box::new(lease) }),
        ("", Event::WorkerUnable { repository: repository(), worker: WorkerId::new("cellar").unwrap(), reason }),
        ("", Event::LevelRaised { level: 300, before: 1 }),
        ("", Event::RepositoryVerified { repository: repository(), verification: verification() }),
    ]
}

fn probe(is_written: bool) -> StoreProbe {
    let seen = StoreSeen {
        conditional_writes: true,
        conditional_deletes: false,
        reads: Sight::After(350),
        lists: Sight::NotWithin(12_000),
        stamp_offset: -900,
    };
    StoreProbe {
        local_disk: false,
        seen: is_written.then_some(seen),
        clock_offset: -1_500,
        round_trip: 31,
        keeps_versions: is_written.then_some(true),
        default_retention: is_written.then_some(86_400),
    }
}

fn schedule() -> Schedule {
    Schedule {
        full: "30 2 * * sun".parse().unwrap(),
        quick: "every 6h".parse().unwrap(),
        zone: "Europe/Berlin".to_owned(),
        windows: vec!["mon-fri 22:00-06:00".parse().unwrap()],
        blackouts: vec!["2026-12-24T00:00:00Z/2027-01-02T00:00:00Z holidays".parse().unwrap()],
        jitter_seconds: 600,
        ..Schedule::default()
    }
}

fn token(access: Access, scopes: &[Scope], expires: Option<LogTime>) -> Event {
    Event::TokenCreated { name: "cron".to_owned(), access, scopes: Scopes::of(scopes), expires }
}

fn refused(reason: Refusal) -> Event {
    let (cycle, job) = (Some(CycleId(7)), Some(JobId(300)));
    Event::CommandRefused { command: "approve_batch".to_owned(), cycle, job, reason }
}

#[test]
fn every_kind_has_a_sample() {
    let mut kinds: Vec<&str> = samples().iter().map(|(_, event)| event.kind()).collect();
    kinds.dedup();
    // A refusal again, with what fleets are refused.
    assert_eq!(kinds.pop(), Some("command_refused"));
    assert_eq!(kinds, Event::KINDS);
}

#[test]
fn what_is_written_today_is_byte_for_byte_the_golden_files() {
    let write = std::env::var_os("VERGER_WRITE_GOLDEN").is_some();
    for (suffix, event) in samples() {
        let stem = folder().join(format!("{}{suffix}", event.kind()));
        let (bin, json) = (stem.with_extension("bin"), stem.with_extension("expected.json"));
        let bytes = envelope::encode(Kind::Event, &event).unwrap();
        if write && !bin.exists() {
            std::fs::write(&bin, &bytes).unwrap();
            std::fs::write(&json, serde_json::to_string_pretty(&event).unwrap() + "\n").unwrap();
        }
        let golden = std::fs::read(&bin).unwrap_or_else(|error| panic!("{}: {error}", bin.display()));
        assert!(golden == bytes, "{} is written differently now: add a version, keep the old", bin.display());
    }
}

#[test]
fn every_golden_file_reads_as_it_says_and_each_belongs_to_a_kind() {
    let mut kinds = std::collections::BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "bin") {
            continue;
        }
        let event: Event = envelope::decode(Kind::Event, &std::fs::read(&path).unwrap()).unwrap();
        let json = std::fs::read_to_string(path.with_extension("expected.json")).unwrap();
        let expected: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_value(&event).unwrap(), expected, "{}", path.display());
        assert_eq!(serde_json::from_value::<Event>(expected.clone()).unwrap(), event);
        assert_eq!(expected.as_object().unwrap().keys().next().unwrap(), event.kind());
        kinds.insert(event.kind());
    }
    assert_eq!(kinds.len(), Event::KINDS.len(), "every kind has a file");
}
