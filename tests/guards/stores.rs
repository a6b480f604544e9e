//! One process on its own tries a store before it changes anything in it, and remembers what it found.

use std::sync::{Arc, Mutex};

use verger::embedded::{CycleReport, CycleRequest, Means, cycle};
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::fault::{Call, Effect, Fault};
use verger_kopia::{ErrorKind, Result};

use crate::store::{World, alone, careful};
use crate::{DAY, full};

/// As `verger maintain` runs it.
fn maintain(world: &World, request: &CycleRequest) -> Result<CycleReport> {
    cycle(Means { tries_store: true, ..world.means() }, request)
}

#[test]
fn r3_a_store_that_ignores_conditions_is_found_out_before_the_lease_is_taken() {
    let world = World::golden("default", DAY);
    let before = world.names("");
    world.faults.script(Call::Put, "", 0, u64::MAX, Fault::IgnoredCondition);
    let unsaid = CycleRequest { exclusive: false, ..full() };
    for _ in 0..2 {
        let error = maintain(&world, &unsaid).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        assert!(error.fix().is_some_and(|fix| fix.contains("--exclusive")), "{error:?}");
        assert_eq!(world.names(""), before, "neither a lease nor what was tried with");
    }
    // With the word that nobody else maintains it, and then without it: a word is for one time.
    maintain(&world, &full()).unwrap();
    assert_eq!(maintain(&world, &unsaid).unwrap_err().kind(), ErrorKind::Unsupported);
    world.faults.heal();
    assert_eq!(maintain(&world, &unsaid).unwrap().outcome, "done");
}

#[test]
fn r14_a_store_that_lists_what_was_is_refused_whatever_is_said() {
    let world = World::golden("default", DAY);
    let before = world.names("");
    world.faults.script(Call::List, "verger.probe-", 0, u64::MAX, Fault::StaleList(1));
    let error = maintain(&world, &alone(Mode::Full)).unwrap_err();
    assert!(error.kind() == ErrorKind::Unsupported && error.chain().contains("listing"), "{error:?}");
    assert_eq!(world.names(""), before);
}

#[test]
fn r3_a_good_store_is_tried_once_a_week_and_never_for_what_changes_nothing() {
    let world = World::golden("default", DAY);
    let probes = Arc::new(Mutex::new(0));
    let count = probes.clone();
    world.faults.hook(Box::new(move |effect: &Effect| {
        if !effect.done && effect.id.as_str().starts_with("verger.probe-") {
            *count.lock().unwrap() += 1;
        }
        Ok(())
    }));
    let tried = || std::mem::take(&mut *probes.lock().unwrap());
    maintain(&world, &CycleRequest { dry_run: true, ..full() }).unwrap();
    assert_eq!(tried(), 0, "a plan");
    maintain(&world, &full()).unwrap();
    assert!(tried() > 0);
    world.clock.advance(DAY);
    maintain(&world, &full()).unwrap();
    assert_eq!(tried(), 0, "it is remembered");
    assert_eq!(maintain(&world, &careful(None)).unwrap().outcome, "nothing-due");
    world.clock.advance(DAY * 7);
    maintain(&world, &full()).unwrap();
    assert!(tried() > 0, "a week later");
    let means = Means { identity: "somebody@else".to_owned(), tries_store: true, ..world.means() };
    assert_eq!(
        cycle(Means { state_dir: world.state_dir().join("new"), ..means }, &full()).unwrap_err().kind(),
        ErrorKind::NotOwner
    );
    assert_eq!(tried(), 0, "of another's repository");
}
