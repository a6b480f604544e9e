//! Scans in shards against the golden repositories: whatever the shards, the summaries are those of one reader, or there are none.

#![allow(clippy::unwrap_used, unreachable_pub)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::Golden;
use verger_kopia::Repository;
use verger_kopia::bitmap::Bitmap;
use verger_kopia::clock::SystemClock;
use verger_kopia::session::SessionId;
use verger_kopia::storage::{Access, BlobId, ByteRange, FsStorage, MemoryStorage, PutOptions, Storage, list_all};
use verger_proto::control::local::ScriptedControl;
use verger_proto::job::{JobSpec, OutputRef};
use verger_proto::{
    CycleId, CycleOptions, Digest, FailureKind, IndexKind, JobId, JobReport, Mode, Outcome, RepositoryId, Safety,
    Shard, Stage, Term, WorkerId,
};
use verger_worker::exchange::{Exchange, PartError, PartKind, Parts};
use verger_worker::run::{SHARD_BYTES, Shards, run_shard};
use verger_worker::task::order::{self, Making};
use verger_worker::task::survey::{Reach, Start, Survey, survey};
use verger_worker::task::{cut, scan, scan_shard, solve};
use verger_worker::workspace::Workspace;

/// A golden repository on a store that is not near, taken stock of, with an exchange.
struct Rig {
    _golden: Golden,
    workspace: Workspace,
    survey: Survey,
    id: RepositoryId,
    store: Arc<MemoryStorage>,
    exchange: Exchange,
    used: Bitmap,
}

impl Rig {
    fn new(name: &str) -> Self {
        Self::with(name, Access::ReadOnly)
    }

    fn with(name: &str, access: Access) -> Self {
        let golden = Golden::unpack(name);
        let storage = FsStorage::open(golden.path(), access).unwrap().with_local_disk(false);
        let workspace = Workspace::new(Repository::open(Arc::new(storage), "golden", Arc::new(SystemClock)).unwrap());
        let survey = survey(&workspace, Reach::All, Start::DryRun, None).unwrap();
        let used = solve::solve(&workspace, &survey, &scan::scan(&workspace, &survey).unwrap()).unwrap().rows;
        let id = format!("{}-{}", hex(workspace.repository.unique_id()), "01".repeat(16)).parse().unwrap();
        let store = Arc::new(MemoryStorage::default());
        let exchange = Exchange::open(store.clone()).unwrap();
        Self { _golden: golden, workspace, survey, id, store, exchange, used }
    }

    fn parts(&self) -> Parts {
        self.exchange.parts(&self.workspace.repository, &self.id, CycleId(1))
    }

    fn cut(&self, shard_bytes: u64) -> (Vec<Shard>, Vec<OutputRef>) {
        let parts = self.parts();
        let view = Digest::of(self.survey.view.digest().as_bytes());
        let making = Making { parts: &parts, kind: PartKind::ScanOrder, attempt: 1, view };
        scan_shard::cut_scan(&self.workspace, &self.survey, &making, shard_bytes).unwrap().unwrap()
    }

    fn spec(&self, shard: Shard, attempt: u32, inputs: &[OutputRef]) -> JobSpec {
        let (mode, safety, index) = (Mode::Full, Safety::Full, IndexKind::Epochs);
        let (dry_run, allow_removing, exclusive, alone) = (false, None, false, false);
        JobSpec {
            id: JobId(9),
            cycle: CycleId(1),
            repository: self.id.clone(),
            term: Term(1),
            stage: Stage::Scan,
            shard,
            attempt,
            options: CycleOptions { mode, safety, index, dry_run, allow_removing, exclusive, alone },
            inputs: inputs.to_vec(),
            plan: None,
            done: 0,
            batch: None,
        }
    }

    fn shards(&self) -> Shards {
        Shards::new(self.exchange.clone(), SHARD_BYTES)
    }

    fn run(&self, spec: &JobSpec) -> JobReport {
        let control = ScriptedControl::new(spec.clone());
        run_shard(&self.workspace, &self.shards(), &control, spec, &WorkerId::new("w1").unwrap())
    }

    fn shard(&self, shard: Shard, orders: &[OutputRef]) -> OutputRef {
        let report = self.run(&self.spec(shard, 1, orders));
        assert_eq!(report.outcome, Outcome::Done);
        report.outputs.into_iter().next().unwrap()
    }

    /// What a solve on these parts finds in use; or why they do not count.
    fn gathered(&self, found: &[OutputRef]) -> Result<Bitmap, PartError> {
        let found: Vec<&OutputRef> = found.iter().collect();
        match scan_shard::gather(&self.workspace, &self.survey, &self.parts(), &found) {
            Ok(summaries) => {
                let used = solve::solve(&self.workspace, &self.survey, &summaries).unwrap();
                assert_eq!(used.damages, []);
                Ok(used.rows)
            }
            Err(error) => Err(PartError::of(&error).unwrap_or_else(|| panic!("{error:?}")).clone()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The key in the middle of a shard, counted in its first bytes: a half is a range like any other.
fn halves(shard: &Shard) -> [Shard; 2] {
    let number = |key: &[u8]| (0..8).fold(0u64, |sum, at| sum << 8 | u64::from(key.get(at).copied().unwrap_or(0)));
    let (from, to) = (number(&shard.from), shard.to.as_deref().map_or(u64::MAX, number));
    let middle = (from + (to - from) / 2).to_be_bytes().to_vec();
    [Shard { from: shard.from.clone(), to: Some(middle.clone()) }, Shard { from: middle, to: shard.to.clone() }]
}

const NAMES: [&str; 6] = ["default", "epochs", "format1", "v1-gzip", "ecc", "split-fixed-128k-large-dirs"];

#[test]
fn r12_any_number_of_shards_in_any_order_and_their_halves_find_what_one_reader_finds() {
    for name in NAMES {
        let rig = Rig::new(name);
        for shard_bytes in [1, 4096, 40_000] {
            let parts = rig.parts();
            let view = Digest::of(rig.survey.view.digest().as_bytes());
            let making = Making { parts: &parts, kind: PartKind::ScanOrder, attempt: 1, view };
            let cut = scan_shard::cut_scan(&rig.workspace, &rig.survey, &making, shard_bytes).unwrap();
            let Some((shards, orders)) = cut else { continue };
            assert_eq!(Shard::prove_coverage(&shards), Ok(()));
            assert_eq!(orders.len(), shards.len());
            let mut found: Vec<OutputRef> = shards.iter().map(|shard| rig.shard(shard.clone(), &orders)).collect();
            found.reverse();
            assert_eq!(rig.gathered(&found).as_ref(), Ok(&rig.used), "{name} {shard_bytes}");
            // One of them is split; the halves read the order of the whole.
            for (number, shard) in shards.iter().enumerate() {
                let mut found = found.clone();
                found.remove(shards.len() - 1 - number);
                found.extend(halves(shard).map(|half| rig.shard(half, &orders)));
                assert_eq!(rig.gathered(&found).as_ref(), Ok(&rig.used), "{name} {shard_bytes} {shard:?}");
            }
        }
        let cut = rig.cut(1);
        assert!(cut.0.len() > 1, "{name}: {} shards", cut.0.len());
    }
}

#[test]
fn r12_a_shard_that_is_missing_is_no_shard_without_contents() {
    let rig = Rig::new("epochs");
    let (shards, orders) = rig.cut(1);
    let found: Vec<OutputRef> = shards.iter().map(|shard| rig.shard(shard.clone(), &orders)).collect();
    assert_eq!(rig.gathered(&found).as_ref(), Ok(&rig.used));
    for number in 0..found.len() {
        let mut some = found.clone();
        let lines = some.remove(number).count;
        assert_eq!(rig.gathered(&some), Err(PartError::Uncovered(lines)));
    }
    assert!(matches!(rig.gathered(&[]), Err(PartError::Uncovered(_))));
    // Twice, by one part or by two.
    let again = rig.shard(shards[0].clone(), &orders);
    for twice in [found[0].clone(), again] {
        let more = [&found[..], &[twice]].concat();
        assert!(matches!(rig.gathered(&more), Err(PartError::Twice(_))));
    }
    // What nobody ordered: a whole scan of another repository's contents under this one's name.
    let other = Rig::new("default");
    let (others, foreign) = other.cut(1);
    let strange = other.shard(others[0].clone(), &foreign);
    assert!(matches!(rig.gathered(&[strange]), Err(PartError::Missing)));
}

#[test]
fn r12_a_shard_whose_order_is_not_there_does_nothing() {
    let rig = Rig::new("epochs");
    let (shards, orders) = rig.cut(1);
    let outcome = |spec: &JobSpec| match rig.run(spec).outcome {
        Outcome::Failed(failure) => (failure.kind, failure.retryable),
        other => panic!("{other:?}"),
    };
    // Whatever is wrong with an order, smaller shards have the same: none of it is a failure after which a shard is split.
    let unusable = (FailureKind::StoreUnavailable, true);
    assert_eq!(outcome(&rig.spec(shards[0].clone(), 1, &[])), unusable, "nothing was ordered");
    // A range that goes beyond its order.
    assert_eq!(outcome(&rig.spec(Shard::whole(), 1, &orders)), unusable);
    let blob = BlobId::new(orders[1].name.replace('/', "."));
    let bytes = rig.store.get(&blob, ByteRange::All).unwrap();
    assert!(rig.store.delete(std::slice::from_ref(&blob), None).failed.is_empty());
    let spec = rig.spec(shards[1].clone(), 1, &orders);
    assert_eq!(outcome(&spec), unusable);
    let cut = bytes.slice(..bytes.len() - 1);
    rig.store.put(&blob, cut, &PutOptions::default()).unwrap();
    assert_eq!(outcome(&spec), unusable);
    rig.store.put(&blob, bytes, &PutOptions::default()).unwrap();
    assert_eq!(rig.run(&spec).outcome, Outcome::Done);
    // The address leads to another repository than the job is for.
    let mut other = spec.clone();
    other.repository.unique = "ab".repeat(32).parse().unwrap();
    assert_eq!(outcome(&other), (FailureKind::Usage, false));
}

#[test]
fn a_shard_that_fails_leaves_nothing_and_its_next_attempt_counts() {
    let rig = Rig::new("epochs");
    let (shards, orders) = rig.cut(1);
    let before = list_all(&*rig.store, "").unwrap().len();
    let mut stopped = rig.workspace.clone();
    stopped.stop = verger_worker::progress::Stop::default();
    stopped.stop.ask();
    let spec = rig.spec(shards[0].clone(), 1, &orders);
    let control = ScriptedControl::new(spec.clone());
    let report = run_shard(&stopped, &rig.shards(), &control, &spec, &WorkerId::new("w1").unwrap());
    let Outcome::Failed(failure) = report.outcome else { panic!("{report:?}") };
    // Whoever drains leaves the shard to another worker.
    assert_eq!((failure.kind, failure.retryable), (FailureKind::Interrupted, true));
    assert_eq!(list_all(&*rig.store, "").unwrap().len(), before);
    let first = rig.run(&rig.spec(shards[0].clone(), 1, &orders)).outputs;
    let second = rig.run(&rig.spec(shards[0].clone(), 2, &orders)).outputs;
    assert_ne!(first[0].name, second[0].name, "written once");
    assert_eq!(first[0].count, second[0].count);
    let mut found: Vec<OutputRef> = shards[1..].iter().map(|shard| rig.shard(shard.clone(), &orders)).collect();
    found.push(second[0].clone());
    assert_eq!(rig.gathered(&found).as_ref(), Ok(&rig.used));
    // The first attempt's bytes under the second's name.
    let blob = |part: &OutputRef| BlobId::new(part.name.replace('/', "."));
    let late = rig.store.get(&blob(&first[0]), ByteRange::All).unwrap();
    rig.store.put(&blob(&second[0]), late, &PutOptions::default()).unwrap();
    assert_eq!(rig.gathered(&found), Err(PartError::OtherAttempt(1)));
}

#[test]
fn r26_a_shard_whose_list_does_not_fit_is_refused_with_what_helps() {
    let rig = Rig::new("epochs");
    let (shards, orders) = rig.cut(1);
    let mut workspace = rig.workspace.clone();
    workspace.memory = verger_worker::limit::MemoryLimit::new(1 << 20);
    let spec = rig.spec(shards[0].clone(), 1, &orders);
    let control = ScriptedControl::new(spec.clone());
    let report = run_shard(&workspace, &rig.shards(), &control, &spec, &WorkerId::new("w1").unwrap());
    let Outcome::Failed(failure) = report.outcome else { panic!("{report:?}") };
    assert_eq!(failure.kind, FailureKind::MemoryLimit);
    assert!(failure.text.contains("--shard-bytes"), "{}", failure.text);
    assert_eq!(workspace.memory.kept(), 0);
}

/// The sessions whose blobs of these letters there are.
fn sessions_of(rig: &Rig, letters: &[&str]) -> BTreeSet<SessionId> {
    let storage = rig.workspace.repository.storage();
    let blobs = letters.iter().flat_map(|letter| list_all(&**storage, letter).unwrap());
    blobs.filter_map(|blob| SessionId::of_blob(&blob.id)).collect()
}

#[test]
fn r21_shards_share_a_session_within_one_cycle_under_one_term_alone() {
    let rig = Rig::with("epochs", Access::ReadWrite);
    let (table, repository) = (&rig.survey.view.table, &rig.workspace.repository);
    let mut rows: Vec<u32> = table.rows().filter(|row| !table.is_deleted(*row)).collect();
    rows.sort_by_key(|row| (table.packs()[table.pack(*row) as usize].clone(), table.offset(*row)));
    let packs: BTreeSet<&BlobId> = rows.iter().map(|row| &table.packs()[table.pack(*row) as usize]).collect();
    let grain = cut::Grain { bytes: 1, packs: cut::PACKS_MAX, seams: &[] };
    let shards = cut::cut(packs.iter().map(|pack| (*pack, 1)), &grain).unwrap();
    assert!(shards.len() > 2, "{}", shards.len());
    let (before, view) = (sessions_of(&rig, &["p", "q"]), Digest::of(b"view"));
    let worker = rig.shards();
    let did = |shards: &Shards, cycle: u64, term: u64, number: usize, cut: &[Shard]| {
        let parts = rig.exchange.parts(repository, &rig.id, CycleId(cycle));
        let making = Making { parts: &parts, kind: PartKind::RewriteOrder, attempt: 1, view };
        let orders = order::write_orders(&rig.workspace, &making, table, cut, &rows).unwrap();
        let spec = JobSpec {
            stage: Stage::Rewrite,
            cycle: CycleId(cycle),
            term: Term(term),
            ..rig.spec(cut[number].clone(), 1, &orders)
        };
        let control = ScriptedControl::new(spec.clone());
        let done = run_shard(&rig.workspace, shards, &control, &spec, &WorkerId::new("w1").unwrap());
        assert_eq!(done.outcome, Outcome::Done);
        (
            sessions_of(&rig, &["p", "q"]).difference(&before).cloned().collect::<BTreeSet<_>>(),
            sessions_of(&rig, &["s"]),
        )
    };
    let (first, marked) = did(&worker, 1, 1, 0, &shards);
    assert!(first.len() == 1 && first.is_subset(&marked), "{first:?} {marked:?}");
    assert_eq!(did(&worker, 1, 1, 1, &shards), (first.clone(), marked), "the same for the next shard of the cycle");
    // That cycle closes, and its markers go.
    let gone: Vec<BlobId> = list_all(&**repository.storage(), "s").unwrap().into_iter().map(|blob| blob.id).collect();
    assert!(repository.storage().delete(&gone, None).failed.is_empty());
    let (second, marked) = did(&worker, 2, 1, 0, &shards);
    let new: BTreeSet<SessionId> = second.difference(&first).cloned().collect();
    assert!(new.len() == 1 && new.is_subset(&marked), "another cycle has another session, with its marker: {new:?}");
    assert_eq!(did(&worker, 2, 2, 1, &shards).0.len(), 3, "and so has another term");
    assert_eq!(did(&rig.shards(), 2, 2, 2, &shards).0.len(), 4, "and another worker");
}
