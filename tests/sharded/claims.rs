//! Stages that their lead does as a whole: his claim lasts as long as he is at work, and what the machine wants he hears meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use verger::embedded::{cycle, identify};
use verger_coordinator::drive::Backend;
use verger_coordinator::machine::JobStatus;
use verger_kopia::ErrorKind;
use verger_kopia::clock::{Clock, Timestamp};
use verger_kopia::storage::fault::{Call, Effect, Fault};
use verger_proto::{Command, LogTime, Stage};

use crate::store::{HOUR, World};
use crate::{Fleet, look, request};

/// For what comes within milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn wait(until: impl Fn() -> bool) -> bool {
    let begun = Instant::now();
    while !until() {
        if begun.elapsed() > SOON {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Whether the job of a stage that is not cut is claimed at this time and for a while.
fn is_claimed(backend: &Arc<dyn Backend>, stage: Stage, now: Timestamp) -> bool {
    look(backend, |state| {
        let jobs = state.cycles.values().filter(|cycle| cycle.stage == stage).flat_map(|c| c.jobs.values());
        let now = LogTime::of(now);
        jobs.into_iter().any(|job| matches!(&job.status, JobStatus::Claimed(_, until) if until.since(now) > 15_000))
    })
}

/// Does something in the middle of the first write of a rewrite that is not cut.
fn in_the_middle(
    world: &World,
    backend: &Arc<dyn Backend>,
    act: impl Fn() + Send + Sync + 'static,
) -> Arc<AtomicUsize> {
    let (times, backend) = (Arc::<AtomicUsize>::default(), backend.clone());
    let counted = times.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        let is_pack = effect.call == Call::Put && effect.id.as_str().starts_with(['p', 'q']) && !effect.done;
        let is_rewrite = is_pack && look(&backend, |state| state.cycles.values().any(|c| c.stage == Stage::Rewrite));
        if is_rewrite && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            act();
        }
        Ok(())
    }));
    times
}

fn fleet(world: &World) -> Fleet {
    let id = identify(&world.state_dir(), &world.repository, None).unwrap();
    Fleet::new(world, &id, 0)
}

#[test]
fn s7_a_stage_that_takes_its_lead_longer_than_a_claim_lasts_is_not_taken_away() {
    let world = World::golden("default", HOUR);
    let fleet = fleet(&world);
    let (clock, backend) = (world.clock.clone(), fleet.backend.clone());
    let times = in_the_middle(&world, &fleet.backend, move || {
        for _ in 0..6 {
            clock.advance(Duration::from_secs(12));
            assert!(wait(|| is_claimed(&backend, Stage::Rewrite, clock.now())), "he does not say that he is at work");
            backend.submit(Command::Tick).unwrap();
        }
    });
    let report = cycle(fleet.means(&world), &request(&world)).unwrap();
    assert_eq!(report.outcome.to_string(), "done");
    assert!(times.load(Ordering::SeqCst) > 0, "nothing was rewritten");
    assert_eq!(fleet.events("job_lost"), 0);
    world.faults.heal();
    world.assert_whole("after a long stage");
}

/// The batch under way is done and told, however long that takes within its approval, and the lease is free.
#[test]
fn a_batch_that_is_under_way_when_its_cycle_is_paused_has_a_known_end() {
    let world = World::golden("default", HOUR);
    let fleet = fleet(&world);
    let (clock, backend, times) = (world.clock.clone(), fleet.backend.clone(), AtomicUsize::new(0));
    world.faults.hook(Box::new(move |effect: &Effect| {
        let is_pack = effect.call == Call::Delete && effect.id.as_str().starts_with(['p', 'q']) && !effect.done;
        if !is_pack || times.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let (cycle, stage) = look(&backend, |state| state.cycles.values().map(|c| (c.id, c.stage)).next()).unwrap();
        backend.submit(Command::PauseCycle { cycle }).unwrap();
        for _ in 0..4 {
            clock.advance(Duration::from_secs(12));
            assert!(wait(|| is_claimed(&backend, stage, clock.now())), "he falls silent in {stage}");
            backend.submit(Command::Tick).unwrap();
        }
        Ok(())
    }));
    let before = fleet.events("batch_done");
    let ended = cycle(fleet.means(&world), &request(&world)).map(|report| report.outcome).unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::Interrupted, "{}", ended.chain());
    assert_eq!((fleet.events("job_lost"), fleet.events("batch_ambiguous")), (0, 0));
    assert!(fleet.events("batch_done") > before && fleet.events("lease_released") == 1);
    let open = look(&fleet.backend, |state| state.cycles.values().map(|cycle| cycle.paused).collect::<Vec<_>>());
    assert_eq!(open, [true]);
    world.faults.heal();
    world.assert_whole("after a deed that was paused");
}

#[test]
fn a_lead_hears_in_the_middle_of_a_stage_that_its_cycle_is_paused_or_given_up() {
    for is_paused in [true, false] {
        let world = World::golden("default", HOUR);
        let fleet = fleet(&world);
        let (backend, stop) = (fleet.backend.clone(), world.stop.clone());
        let times = in_the_middle(&world, &fleet.backend, move || {
            let cycle = look(&backend, |state| state.cycles.keys().copied().next()).unwrap();
            let word = match is_paused {
                true => Command::PauseCycle { cycle },
                false => Command::AbortCycle { cycle, reason: "enough".to_owned() },
            };
            backend.submit(word).unwrap();
            assert!(wait(|| stop.is_asked()), "he goes on");
        });
        let ended = cycle(fleet.means(&world), &request(&world)).map(|report| report.outcome);
        assert!(times.load(Ordering::SeqCst) > 0, "nothing was rewritten");
        let open = look(&fleet.backend, |state| {
            state.cycles.values().map(|cycle| (cycle.stage, cycle.paused)).collect::<Vec<_>>()
        });
        assert_eq!(open, if is_paused { vec![(Stage::Rewrite, true)] } else { vec![] }, "{ended:?}");
        world.faults.heal();
        world.assert_whole("after a stage that was left in the middle");
    }
}

#[test]
fn a_cycle_is_told_by_its_own_end_whatever_became_of_others_in_the_same_machine() {
    let worlds = ["default", "format1"].map(|name| World::golden(name, HOUR));
    let [one, other] = [fleet(&worlds[0]), fleet(&worlds[1])];
    let other = Fleet { backend: one.backend.clone(), router: one.router.clone(), ..other };
    let fleets = [one, other];
    // Each once before the other, and once behind it.
    for (failing, fine) in [(0, 1), (1, 0)] {
        worlds[failing].faults.script(Call::Put, "kopia.maintenance", 1, u64::MAX, Fault::Permission);
        let failed = cycle(fleets[failing].means(&worlds[failing]), &request(&worlds[failing]));
        assert_eq!(failed.map(|report| report.outcome).unwrap_err().kind(), ErrorKind::Permission);
        worlds[failing].faults.heal();
        let report = cycle(fleets[fine].means(&worlds[fine]), &request(&worlds[fine])).unwrap();
        let own = look(&fleets[fine].backend, |state| state.repositories[&fleets[fine].id].last_term.0);
        assert_eq!((report.outcome.as_str(), report.term), ("done", own));
        worlds[failing].clock.advance(HOUR);
        worlds[fine].clock.advance(HOUR);
    }
}
