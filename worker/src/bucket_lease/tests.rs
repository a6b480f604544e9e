use std::sync::Mutex;

use super::*;
use verger_kopia::clock::SetClock;
use verger_kopia::storage::fault::{Call, Fault, FaultStorage};
use verger_kopia::storage::{Capabilities, MemoryStorage};

const MINUTE: Duration = Duration::from_secs(60);

struct Bench {
    clock: Arc<SetClock>,
    faults: Arc<FaultStorage>,
}

impl Bench {
    fn new(conditional: bool) -> Self {
        let clock = Arc::new(SetClock::new("2026-11-21T10:00:00Z".parse().unwrap()));
        let store = MemoryStorage::new(clock.clone());
        let can = Capabilities { conditional_writes: conditional, ..store.capabilities() };
        let faults = Arc::new(FaultStorage::new(Arc::new(store.with_capabilities(can))));
        Self { clock, faults }
    }

    fn try_take(&self, request: &Request) -> Result<Lease> {
        Lease::acquire(self.faults.clone(), self.clock.clone(), request, &mut |_, _| {})
    }

    fn take(&self, holder: &str) -> Lease {
        self.try_take(&request(holder)).unwrap()
    }

    fn body(&self) -> LeaseBody {
        read(&*self.faults).unwrap().unwrap().1
    }

    fn cover(&self, lease: &mut Lease) -> Result<bool> {
        lease.cover(self.faults.now().unwrap())
    }
}

fn request(holder: &str) -> Request {
    Request {
        unique_id: "ab".repeat(32),
        store_id: "cd".repeat(16),
        holder: holder.to_owned(),
        lock: None,
        ttl: TTL_DEFAULT,
        last_term: 0,
        fenced: None,
        drive: None,
        drives: Vec::new(),
        local_lock: false,
        exclusive: false,
        wait: false,
    }
}

fn lock_file(boot: &str) -> LockFile {
    LockFile { id: "ef".repeat(16), device: 1, inode: 2, host: "h".to_owned(), boot: boot.to_owned() }
}

#[test]
fn r3_terms_grow_past_the_object_and_past_what_is_remembered() {
    let bench = Bench::new(true);
    let first = bench.take("a");
    assert_eq!(first.term(), 1);
    first.release().unwrap();
    let second = bench.try_take(&Request { last_term: 41, ..request("b") }).unwrap();
    assert_eq!(second.term(), 42);
    bench.clock.advance(TTL_MIN);
    second.release().unwrap();
    assert_eq!(bench.take("a").term(), 43, "a's own memory is older than the object");
}

#[test]
fn r4_a_held_lease_locks_out_a_released_one_is_free_at_once_and_an_unreleased_one_has_to_expire() {
    let bench = Bench::new(true);
    let held = bench.take("a");
    assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Locked);
    held.release().unwrap();
    let free = bench.take("b");
    assert!(free.approvals_wait().is_zero() && bench.body().acts_until <= bench.clock.now() + ACTS_MAX);
    drop(free);
    bench.clock.advance(TTL_DEFAULT);
    assert_eq!(
        bench.try_take(&request("c")).err().unwrap().kind(),
        ErrorKind::Locked,
        "exactly the TTL is not past it"
    );
    bench.clock.advance(Duration::from_secs(1));
    let expired = bench.take("c");
    assert!(expired.approvals_wait().is_zero() && expired.term() == 3, "nothing is left to wait for");
}

#[test]
fn r4_the_least_ttl_is_180_seconds_and_a_renewal_keeps_it() {
    let bench = Bench::new(true);
    let mut held = bench.try_take(&Request { ttl: Duration::ZERO, ..request("a") }).unwrap();
    bench.clock.advance(TTL_MIN);
    assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Locked);
    assert!(bench.cover(&mut held).unwrap());
    bench.clock.advance(TTL_MIN);
    assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Locked);
    let half = held.body().acts_until - MINUTE;
    assert!(!held.cover(half).unwrap(), "still covered by half");
}

#[test]
fn r4_an_etag_that_stays_the_same_on_ones_own_clock_has_expired_whatever_the_stores_clock_says() {
    let bench = Bench::new(true);
    let _held = bench.take("a");
    // The object seems to be from the future for ever: its age is never positive.
    let body = bench.body();
    let future = Arc::new(SetClock::new(bench.clock.now() + MINUTE * 6000));
    let store = MemoryStorage::new(bench.clock.clone());
    let data = Bytes::from(serde_json::to_vec(&body).unwrap());
    store.put_at(&BlobId::from(LEASE), data, verger_kopia::clock::Clock::now(&*future));
    let store: Arc<dyn Storage> = Arc::new(store);
    let began = verger_kopia::clock::Clock::since_boot(&*bench.clock);
    let wait = Request { wait: true, ..request("b") };
    let taken = Lease::acquire(store, bench.clock.clone(), &wait, &mut |_, _| {}).unwrap();
    let waited = verger_kopia::clock::Clock::since_boot(&*bench.clock) - began;
    assert!(taken.approvals_wait().is_zero() && waited > TTL_DEFAULT && waited < TTL_DEFAULT + MINUTE, "{waited:?}");
}

#[test]
fn r4_a_dead_holder_of_ones_own_is_proven_by_its_very_lock_and_waited_out() {
    let bench = Bench::new(true);
    let own = |boot: &str| Request { lock: Some(lock_file(boot)), ..request("a") };
    drop(bench.try_take(&own("boot-1")).unwrap());
    assert_eq!(bench.try_take(&own("boot-2")).err().unwrap().kind(), ErrorKind::Locked, "another boot proves nothing");
    assert_eq!(bench.try_take(&request("a")).err().unwrap().kind(), ErrorKind::Locked, "nor does the name");
    let lease = bench.try_take(&own("boot-1")).unwrap();
    assert_eq!((lease.approvals_wait(), lease.term()), (TTL_MIN, 2));
    let keeper = LeaseKeeper::new(lease, Box::new(|_, _| Ok(())));
    let stop = Stop::default();
    let began = verger_kopia::clock::Clock::since_boot(&*bench.clock);
    keeper.wait_for_takeover(&*bench.clock, &stop).unwrap();
    assert_eq!(verger_kopia::clock::Clock::since_boot(&*bench.clock) - began, TTL_MIN);
    stop.ask();
    assert_eq!(keeper.wait_for_takeover(&*bench.clock, &stop).unwrap_err().kind(), ErrorKind::Interrupted);
}

/// As a process that took the drive over from another one of its fleet, whom the machine granted `term`.
fn driving(term: u64) -> Request {
    Request { last_term: term, fenced: Some(term), ..request("a") }
}

#[test]
fn r4_a_holder_that_our_machine_fenced_is_waited_out_and_may_live() {
    let bench = Bench::new(true);
    let mut paused = bench.try_take(&driving(0)).unwrap();
    bench.clock.advance(MINUTE * 2);
    assert!(bench.cover(&mut paused).unwrap(), "it announces two more minutes, and is paused");
    bench.clock.advance(Duration::from_secs(15));
    let new = bench.try_take(&driving(1)).unwrap();
    assert_eq!((new.approvals_wait(), new.term()), (TTL_MIN, 2));
    let announced = Duration::try_from(paused.body().acts_until.duration_since(bench.clock.now())).unwrap();
    assert!(new.approvals_wait() >= announced + UNDER_WAY_MAX);
    bench.clock.advance(announced / 2);
    let later = paused.body().acts_until;
    assert_eq!(paused.cover(later).unwrap_err().kind(), ErrorKind::Locked, "it wakes, and announces nothing more");
    assert_eq!(paused.release().unwrap_err().kind(), ErrorKind::Locked, "nor does it free what is not its own");
    // The next one dies in the middle of its wait: the wait begins again.
    drop(new);
    assert_eq!(bench.try_take(&driving(2)).unwrap().approvals_wait(), TTL_MIN);
}

#[test]
fn r4_r6_the_drive_fences_nobody_but_whom_our_machine_granted_this_very_lease() {
    let bench = Bench::new(true);
    drop(bench.try_take(&driving(4)).unwrap());
    let refused = |wanted: &Request, why: &str| {
        assert_eq!(bench.try_take(wanted).err().map(|e| e.kind()), Some(ErrorKind::Locked), "{why}");
        assert_eq!(bench.body().term, 5, "{why}");
    };
    refused(&Request { fenced: None, ..driving(5) }, "without the drive");
    refused(&driving(0), "the machine granted nothing");
    refused(&driving(4), "a restored machine, or another fleet of our name, took it since");
    refused(&driving(6), "another fleet of our name, whose machine knows a later term");
    refused(&Request { holder: "b".to_owned(), ..driving(5) }, "another fleet's, under the same number");
    refused(&Request { store_id: "00".repeat(16), ..driving(5) }, "a lease of another store");
    let put = |body: &LeaseBody| {
        let data = Bytes::from(serde_json::to_vec(body).unwrap());
        bench.faults.put(&BlobId::from(LEASE), data, &PutOptions::default()).unwrap();
    };
    let ours = bench.body();
    put(&LeaseBody { address: "s3://elsewhere/x".to_owned(), ..ours.clone() });
    refused(&driving(5), "a copy, or the same store by another name, under another drive");
    put(&LeaseBody { acts_until: bench.clock.now() + MINUTE * 60, ..ours.clone() });
    refused(&driving(5), "it may act for longer than anybody of ours: the store's clock was set back");
    put(&ours);
    assert_eq!(bench.try_take(&driving(5)).unwrap().term(), 6);
}

/// As the drive `own`, of a machine that granted `term` last and has given out these drives since.
fn untold(own: &str, term: u64, drives: &[&str]) -> Request {
    Request { drive: Some(own.to_owned()), drives: drives.iter().map(ToString::to_string).collect(), ..driving(term) }
}

/// Whoever wrote the object may have told nobody of it, and live on: nothing was approved under its term, and nothing will be.
#[test]
fn r4_a_lease_that_a_drive_of_our_own_never_told_of_is_waited_out_and_its_writer_may_live() {
    let bench = Bench::new(true);
    for granted in [0, 4] {
        drop(bench.faults.delete(&[BlobId::from(LEASE)], None));
        let mut paused = bench.try_take(&untold("one", granted, &["one"])).unwrap();
        bench.clock.advance(TTL_MIN);
        let next = bench.try_take(&untold("two", granted, &["one", "two"])).unwrap();
        assert_eq!((next.approvals_wait(), next.term()), (TTL_MIN, granted + 2));
        let later = paused.body().acts_until;
        assert_eq!(paused.cover(later).unwrap_err().kind(), ErrorKind::Locked, "it wakes, and announces nothing");
        assert_eq!(paused.release().unwrap_err().kind(), ErrorKind::Locked, "nor does it free what is not its own");
        // Nor did the next one come so far: the wait begins again, and its own answer may have been lost as well.
        drop(next);
        let third = bench.try_take(&untold("two", granted, &["one", "two"])).unwrap();
        assert_eq!((third.approvals_wait(), third.term()), (TTL_MIN, granted + 3));
        assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Locked, "others wait as ever");
    }
}

/// The requests of the holder before an untold lease are not over because that one lies between.
#[test]
fn r4_under_an_untold_lease_the_holder_before_it_is_waited_out_from_ones_own_write() {
    let bench = Bench::new(true);
    let granted = bench.try_take(&untold("one", 0, &["one"])).unwrap();
    let between = bench.try_take(&untold("two", 1, &["two"])).unwrap();
    assert_eq!((between.approvals_wait(), between.term()), (TTL_MIN, 2));
    let new = bench.try_take(&untold("three", 1, &["two", "three"])).unwrap();
    assert_eq!((new.approvals_wait(), new.term()), (TTL_MIN, 3));
    assert!(new.approvals_wait() >= ACTS_MAX + UNDER_WAY_MAX);
    drop((granted, between));
}

#[test]
fn r4_r6_of_a_lease_that_our_machine_knows_nothing_of_our_name_alone_proves_nothing() {
    let bench = Bench::new(true);
    let refused = |wanted: &Request, why: &str| {
        assert_eq!(bench.try_take(wanted).err().map(|e| e.kind()), Some(ErrorKind::Locked), "{why}");
    };
    drop(bench.try_take(&untold("a-copys", 4, &["a-copys"])).unwrap());
    refused(&untold("a-copys", 4, &[]), "a copy whose drive has our very number, after our own was granted a lease");
    refused(&untold("two", 4, &["one", "two"]), "a copy of the fleet wrote it, and may be at work");
    refused(&untold("two", 9, &["a-copys", "two"]), "our machine granted later ones");
    let ours = untold("two", 4, &["a-copys", "two"]);
    refused(&Request { fenced: None, ..ours.clone() }, "without the drive");
    refused(&Request { holder: "b".to_owned(), ..ours.clone() }, "another fleet's");
    refused(&Request { store_id: "00".repeat(16), ..ours.clone() }, "a lease of another store");
    let bare = LeaseBody { writer: "a-copys".to_owned(), ..bench.body() };
    let data = Bytes::from(serde_json::to_vec(&bare).unwrap());
    bench.faults.put(&BlobId::from(LEASE), data, &PutOptions::default()).unwrap();
    refused(&ours, "a writer that named no drive");
}

#[test]
fn r4_what_the_old_holder_announced_counts_where_the_stores_clock_went_back_a_little() {
    let bench = Bench::new(true);
    drop(bench.try_take(&driving(0)).unwrap());
    let body = LeaseBody { acts_until: bench.clock.now() + MINUTE * 2 + Duration::from_secs(30), ..bench.body() };
    let data = Bytes::from(serde_json::to_vec(&body).unwrap());
    bench.faults.put(&BlobId::from(LEASE), data, &PutOptions::default()).unwrap();
    let wait = bench.try_take(&driving(1)).unwrap().approvals_wait();
    assert_eq!(wait, TTL_MIN + Duration::from_secs(30), "a minute longer than the old one may act");
}

/// "Free" would say that nothing of anybody is under way.
#[test]
fn r4_who_still_waits_for_the_holder_before_frees_nothing() {
    let bench = Bench::new(true);
    let own = Request { lock: Some(lock_file("boot-1")), ..request("a") };
    for wanted in [driving(1), own] {
        drop(bench.try_take(&Request { fenced: None, last_term: 0, ..wanted.clone() }).unwrap());
        let wanted = Request { fenced: wanted.fenced.map(|_| bench.body().term), ..wanted };
        bench.try_take(&wanted).unwrap().release().unwrap();
        assert!(!bench.body().free);
        assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Locked);
        let again = Request { fenced: wanted.fenced.map(|_| bench.body().term), ..wanted };
        let waiting = bench.try_take(&again).unwrap();
        assert_eq!(hand_over(waiting, "b").unwrap_err().kind(), ErrorKind::Locked);
        assert!(!bench.body().free && bench.body().next.is_none());
        let waited = bench.try_take(&Request { fenced: again.fenced.map(|_| bench.body().term), ..again }).unwrap();
        bench.clock.advance(TTL_MIN);
        waited.release().unwrap();
        assert!(bench.body().free);
    }
}

#[test]
fn r4_waiting_for_a_lease_ends_when_somebody_asks_to_stop() {
    let bench = Bench::new(true);
    let _held = bench.take("one");
    let (stop, patient) = (Stop::default(), Request { wait: true, ..request("two") });
    let told = Mutex::new(0);
    let mut notice = |_: &str, _: Duration| {
        *told.lock().unwrap() += 1;
        stop.ask();
    };
    let began = bench.clock.since_boot();
    let error = Lease::acquire_unless(&stop, bench.faults.clone(), bench.clock.clone(), &patient, &mut notice);
    assert_eq!(error.err().map(|e| e.kind()), Some(ErrorKind::Interrupted));
    assert_eq!((*told.lock().unwrap(), bench.clock.since_boot() - began), (1, Duration::ZERO));
    assert_eq!(bench.body().holder, "one");
}

#[test]
fn r4_under_the_lock_of_a_local_disk_nobody_is_waited_for_until_the_lock_is_swapped() {
    let bench = Bench::new(true);
    drop(bench.take("a"));
    let local = Request { local_lock: true, last_term: 9, ..request("b") };
    let lease = bench.try_take(&local).unwrap();
    assert!(lease.approvals_wait().is_zero());
    let folder = tempfile::tempdir().unwrap();
    let lock = StoreLock::try_lock(folder.path()).unwrap();
    let keeper = LeaseKeeper::new(lease, Box::new(|_, _| Ok(()))).under(lock);
    keeper.cover(bench.clock.now()).unwrap();
    std::fs::rename(folder.path().join("verger.lock"), folder.path().join("gone")).unwrap();
    assert_eq!(keeper.cover(bench.clock.now()).unwrap_err().kind(), ErrorKind::Locked);
}

#[test]
fn r5_a_lease_that_somebody_else_took_is_neither_renewed_nor_freed() {
    for conditional in [true, false] {
        let bench = Bench::new(conditional);
        let ask = |holder: &str| Request { exclusive: !conditional, ..request(holder) };
        let mut old = bench.try_take(&ask("a")).unwrap();
        bench.clock.advance(TTL_DEFAULT + MINUTE);
        let new = bench.try_take(&ask("b")).unwrap();
        assert_eq!(bench.cover(&mut old).unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(old.release().unwrap_err().kind(), ErrorKind::Locked);
        assert_eq!(bench.body(), *new.body());
        assert!(!bench.body().free);
    }
}

#[test]
fn r5_a_renewal_is_confirmed_before_anything_is_approved_with_it() {
    let bench = Bench::new(true);
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    let confirm = move |now, until| {
        log.lock().unwrap().push((now, until));
        Err(Error::new(ErrorKind::DiskFull, "keep it"))
    };
    let keeper = LeaseKeeper::new(bench.take("a"), Box::new(confirm));
    keeper.cover(bench.clock.now()).unwrap();
    bench.clock.advance(MINUTE * 2);
    assert_eq!(keeper.cover(bench.clock.now()).unwrap_err().kind(), ErrorKind::DiskFull);
    assert_eq!(told.lock().unwrap().as_slice(), [(bench.clock.now(), bench.clock.now() + ACTS_MAX)]);
}

#[test]
fn r6_a_copy_of_the_lease_is_respected_another_repositorys_is_refused_and_a_missing_one_is_waited_for() {
    let bench = Bench::new(true);
    let put = |body: &LeaseBody| {
        let data = Bytes::from(serde_json::to_vec(body).unwrap());
        bench.faults.put(&BlobId::from(LEASE), data, &PutOptions::default()).unwrap();
    };
    drop(bench.take("a"));
    put(&LeaseBody { address: "s3://elsewhere/x".to_owned(), term: 7, ..bench.body() });
    assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Locked);
    bench.clock.advance(TTL_DEFAULT + MINUTE);
    assert_eq!(bench.take("b").term(), 8, "a copy is never renewed, so it expires");
    put(&LeaseBody { unique_id: "00".repeat(32), free: true, ..bench.body() });
    assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Locked);
    bench.faults.delete(&[BlobId::from(LEASE)], None);
    let remembered = bench.try_take(&Request { last_term: 8, ..request("b") }).unwrap();
    assert_eq!((remembered.approvals_wait(), remembered.term()), (TTL_MIN, 9));
    bench.faults.put(&BlobId::from(LEASE), Bytes::from_static(b"{"), &PutOptions::default()).unwrap();
    assert_eq!(bench.try_take(&request("b")).err().unwrap().kind(), ErrorKind::Damaged, "unreadable is not absent");
}

#[test]
fn r1_an_answer_that_did_not_come_is_looked_at() {
    let bench = Bench::new(true);
    bench.faults.script(Call::Put, LEASE, 0, 1, Fault::TimeoutAfter);
    let mut lease = bench.take("a");
    bench.clock.advance(MINUTE * 2);
    bench.faults.script(Call::Put, LEASE, 0, 1, Fault::TimeoutAfter);
    assert!(bench.cover(&mut lease).unwrap());
    bench.clock.advance(MINUTE * 2);
    bench.faults.script(Call::Put, LEASE, 0, 1, Fault::TimeoutBefore);
    assert_eq!(bench.cover(&mut lease).unwrap_err().kind(), ErrorKind::StoreUnavailable);
    assert!(bench.cover(&mut lease).unwrap(), "it is still ours");
}

#[test]
fn r23_without_conditional_writes_it_takes_a_persons_word() {
    let bench = Bench::new(false);
    assert_eq!(bench.try_take(&request("a")).err().unwrap().kind(), ErrorKind::Unsupported);
    assert!(bench.try_take(&Request { exclusive: true, ..request("a") }).is_ok());
}

#[test]
fn r4_what_a_dead_holder_left_is_freed_under_its_own_term_alone() {
    for conditional in [true, false] {
        let bench = Bench::new(conditional);
        let wanted = |holder: &str| Request { exclusive: true, ..request(holder) };
        assert_eq!(free(&*bench.faults, "a", 1, None).unwrap_err().kind(), ErrorKind::NotFound);
        drop(bench.try_take(&wanted("a")).unwrap());
        for (holder, term) in [("b", 1), ("a", 2), ("a", 0)] {
            assert_eq!(free(&*bench.faults, holder, term, None).unwrap_err().kind(), ErrorKind::Locked);
            assert!(!bench.body().free);
        }
        assert_eq!(under_way(&*bench.faults, "a", 1).unwrap(), TTL_MIN);
        bench.clock.advance(TTL_MIN - Duration::from_secs(1));
        let early = free(&*bench.faults, "a", 1, None).unwrap_err();
        assert!(early.kind() == ErrorKind::Locked && early.chain().contains("2 s more"), "{}", early.chain());
        bench.clock.advance(Duration::from_secs(1));
        free(&*bench.faults, "a", 1, None).unwrap();
        assert!(bench.body().free);
        assert_eq!(under_way(&*bench.faults, "a", 1).unwrap(), Duration::ZERO);
        free(&*bench.faults, "a", 1, None).unwrap();
        let other = bench.try_take(&wanted("b")).unwrap();
        assert!(other.term() == 2 && other.approvals_wait().is_zero(), "nobody waits");
        assert_eq!(free(&*bench.faults, "a", 1, None).unwrap_err().kind(), ErrorKind::Locked, "too late");
        assert!(!bench.body().free);
    }
}

#[test]
fn r4_somebody_who_takes_a_lease_while_it_is_freed_keeps_it() {
    let bench = Bench::new(true);
    drop(bench.take("a"));
    bench.clock.advance(TTL_MIN);
    let (store, clock) = (bench.faults.clone(), bench.clock.clone());
    let taken = Mutex::new(None);
    bench.faults.hook(Box::new(move |effect| {
        let mut taken = taken.lock().unwrap();
        if effect.call == Call::Put && !effect.done && taken.is_none() {
            *taken = Some(());
            drop(taken);
            clock.advance(TTL_DEFAULT + MINUTE);
            Lease::acquire(store.clone(), clock.clone(), &request("b"), &mut |_, _| {}).unwrap();
        }
        Ok(())
    }));
    assert_eq!(free(&*bench.faults, "a", 1, None).unwrap_err().kind(), ErrorKind::Locked);
    assert!(bench.body().holder == "b" && !bench.body().free);
}

#[test]
fn a_lease_that_is_handed_over_is_free_for_one_alone_until_its_time_is_over() {
    let bench = Bench::new(true);
    hand_over(bench.take("a"), "b").unwrap();
    for other in ["a", "c"] {
        let error = bench.try_take(&request(other)).err().unwrap();
        assert!(error.kind() == ErrorKind::Locked && error.chain().contains('b'), "{}", error.chain());
        let local = Request { local_lock: true, ..request(other) };
        assert_eq!(bench.try_take(&local).err().unwrap().kind(), ErrorKind::Locked);
    }
    let next = bench.take("b");
    assert!(next.term() == 2 && next.approvals_wait().is_zero());
    assert_eq!(next.body().next, None);
    hand_over(next, "a").unwrap();
    bench.clock.advance(TTL_DEFAULT + Duration::from_secs(1));
    assert_eq!(bench.take("c").term(), 3, "nobody came for it");
}

/// A holder with an approved batch is paused, the next lead takes over and dies while it waits that out: whoever frees the lease then by
/// hand would let a third begin at once.
#[test]
fn r4_a_lease_whose_holder_died_waiting_for_the_one_before_is_not_freed_before_that_wait_is_over() {
    let bench = Bench::new(true);
    drop(bench.try_take(&driving(0)).unwrap());
    bench.clock.advance(Duration::from_secs(20));
    let next = bench.try_take(&driving(1)).unwrap();
    let (holder, term, wait) = (next.body().holder.clone(), next.term(), next.approvals_wait());
    drop(next);
    assert!(wait >= TTL_MIN);
    bench.clock.advance(wait - Duration::from_secs(1));
    assert_eq!(free(&*bench.faults, &holder, term, Some("b")).unwrap_err().kind(), ErrorKind::Locked);
    assert!(!bench.body().free);
    bench.clock.advance(Duration::from_secs(1));
    free(&*bench.faults, &holder, term, Some("b")).unwrap();
    assert!(bench.take("b").approvals_wait().is_zero());
}

/// Two fleets add one store before anybody held its lease.
#[test]
fn r6_of_several_who_name_a_store_at_once_all_mean_the_same() {
    let bench = Bench::new(true);
    let (unique, store) = (request("a").unique_id, bench.faults.clone());
    let name = |id: &str| name_store(&*bench.faults, &unique, &id.repeat(16));
    let (theirs, raced) = (unique.clone(), Mutex::new(false));
    bench.faults.hook(Box::new(move |effect| {
        if !effect.done && !std::mem::replace(&mut *raced.lock().unwrap(), true) {
            // The winner dies right after it.
            name_store(&*store, &theirs, &"02".repeat(16))?;
        }
        Ok(())
    }));
    assert_eq!(name("01").unwrap().store_id, "02".repeat(16));
    let named = bench.body();
    assert_eq!((named.term, named.free, &*named.holder, named.acts_until), (0, true, "", Timestamp::UNIX_EPOCH));
    assert_eq!(name("03").unwrap(), named);
    let lease = bench.take("b");
    assert!(lease.term() == 1 && lease.approvals_wait().is_zero(), "nobody acts, so nobody is waited for");
    assert_eq!(lease.body().store_id, named.store_id, "whatever the holder calls it");
    lease.release().unwrap();
    assert_eq!(name("04").unwrap().store_id, named.store_id);
}

#[test]
fn r6_whoever_names_a_store_late_or_twice_writes_over_no_lease() {
    let bench = Bench::new(true);
    let (store, clock, raced) = (bench.faults.clone(), bench.clock.clone(), Mutex::new(false));
    bench.faults.hook(Box::new(move |effect| {
        // It looked, found nothing, and slept before its write. Another one has begun to act meanwhile.
        if !effect.done && !std::mem::replace(&mut *raced.lock().unwrap(), true) {
            Lease::acquire(store.clone(), clock.clone(), &request("b"), &mut |_, _| {})?;
        }
        Ok(())
    }));
    let unique = request("a").unique_id;
    let found = name_store(&*bench.faults, &unique, &"01".repeat(16)).unwrap();
    assert!(!bench.body().free && bench.body().holder == "b", "{:?}", bench.body());
    assert_eq!((&*found.holder, found.store_id), ("b", request("b").store_id));
    assert_eq!(bench.try_take(&request("a")).err().unwrap().kind(), ErrorKind::Locked);
    // An answer that did not come, of a write that was made.
    let bench = Bench::new(true);
    bench.faults.script(Call::Put, LEASE, 0, 1, Fault::TimeoutAfter);
    assert_eq!(name_store(&*bench.faults, &unique, &"01".repeat(16)).unwrap().store_id, "01".repeat(16));
    // And of one that was not: it is not known to be anything, and asked again it is said.
    let bench = Bench::new(true);
    bench.faults.script(Call::Put, LEASE, 0, 1, Fault::TimeoutBefore);
    let error = name_store(&*bench.faults, &unique, &"01".repeat(16)).unwrap_err();
    assert!(error.is_retryable() && read(&*bench.faults).unwrap().is_none());
    assert_eq!(name_store(&*bench.faults, &unique, &"02".repeat(16)).unwrap().store_id, "02".repeat(16));
    bench.faults.put(&BlobId::from(LEASE), Bytes::from_static(b"{"), &PutOptions::default()).unwrap();
    let error = name_store(&*bench.faults, &unique, &"02".repeat(16)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "unreadable is not absent");
}

/// Without conditions of writes nothing is named: it could only be written over what is there.
#[test]
fn r6_r23_a_store_without_conditional_writes_is_not_named() {
    let bench = Bench::new(false);
    assert!(name_store(&*bench.faults, &request("a").unique_id, &"01".repeat(16)).is_err());
    assert!(read(&*bench.faults).unwrap().is_none());
}

#[test]
fn r6_a_lease_that_is_remembered_and_gone_is_waited_for_whoever_named_the_store_since() {
    let bench = Bench::new(true);
    drop(bench.take("a"));
    bench.faults.delete(&[BlobId::from(LEASE)], None);
    name_store(&*bench.faults, &request("b").unique_id, &"01".repeat(16)).unwrap();
    // Its holder may be at work; whoever remembers the lease knows that, and nobody else can.
    let remembers = Request { last_term: 1, ..request("a") };
    let taken = bench.try_take(&remembers).unwrap();
    assert_eq!((taken.approvals_wait(), taken.term()), (TTL_MIN, 2));
    taken.release().unwrap();
    assert!(!bench.body().free, "nor is that told to the next one before it is over");
    bench.faults.delete(&[BlobId::from(LEASE)], None);
    bench.take("c").release().unwrap();
    assert_eq!(bench.try_take(&Request { last_term: 2, ..request("a") }).unwrap().approvals_wait(), TTL_MIN);
    let local = Request { local_lock: true, last_term: 9, ..request("a") };
    assert!(bench.try_take(&local).unwrap().approvals_wait().is_zero(), "the lock of a local disk knows better");
}
