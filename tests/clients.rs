//! Clients at work during a cycle, at every moment of it (R14, S1).

#![allow(clippy::unwrap_used)]

#[path = "support/client.rs"]
mod client;
#[path = "support/store.rs"]
mod store;
mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, Plain, Trust, plaintexts};
use store::{Saved, World, careful};
use verger_kopia::content::ContentId;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::storage::fault::{Call, Effect};

const DAY: Duration = Duration::from_secs(24 * 3600 + 60);

/// A repository right before a cycle of interest, and the contents that no snapshot needs there.
struct Stage {
    world: World,
    saved: Saved,
    dying: Vec<Plain>,
}

impl Stage {
    /// Before a cycle that marks.
    fn marks(name: &str) -> Self {
        let world = World::golden(name, DAY);
        let before = world.save();
        let dying = dying(&world);
        let mut stage = Self { world, saved: before, dying };
        stage.world.restore(&stage.saved);
        stage
    }

    /// Before a cycle that drops marks and deletes the packs of what they hide.
    fn drops(name: &str) -> Self {
        let mut stage = Self::marks(name);
        for _ in 0..2 {
            stage.world.cycle(&careful(Some(Mode::Full)));
            stage.world.clock.advance(DAY);
        }
        stage.saved = stage.world.save();
        stage
    }

    /// The effects of the cycle, undisturbed.
    fn effects(&mut self) -> Vec<(Call, String)> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        self.world.restore(&self.saved);
        self.world.faults.hook(Box::new(move |effect: &Effect| {
            if !effect.done {
                log.lock().unwrap().push((effect.call, effect.id.to_string()));
            }
            Ok(())
        }));
        self.world.cycle(&careful(Some(Mode::Full)));
        self.world.restore(&self.saved);
        let effects = seen.lock().unwrap();
        effects.clone()
    }

    /// Runs the cycle with `step` right before its Nth effect; then another cycle a day later. Every snapshot stays whole.
    fn interleave(
        &mut self,
        number: usize,
        prepare: impl FnOnce(&World) -> Box<dyn FnOnce() -> String + Send>,
    ) -> String {
        self.world.restore(&self.saved);
        let step = Mutex::new(Some(prepare(&self.world)));
        let made = Arc::new(Mutex::new(None));
        let (told, count) = (made.clone(), Mutex::new(0));
        self.world.faults.hook(Box::new(move |effect: &Effect| {
            let mut count = count.lock().unwrap();
            *count += usize::from(!effect.done);
            if !effect.done && *count == number {
                let step = step.lock().unwrap().take().unwrap();
                *told.lock().unwrap() = Some(step());
            }
            Ok(())
        }));
        let report = self.world.try_cycle(&careful(Some(Mode::Full)));
        self.world.faults.heal();
        let manifest = made.lock().unwrap().clone().expect("the client was never asked");
        let name = self.world.name.clone();
        let report = report.unwrap_or_else(|e| panic!("{name}: client before effect {number}: {}", e.chain()));
        self.world.assert_whole(&format!("client before effect {number}: {report:?}"));
        self.world.clock.advance(DAY);
        self.world.cycle(&careful(Some(Mode::Full)));
        manifest
    }
}

/// Contents that no snapshot needs, by what a full cycle marks.
fn dying(world: &World) -> Vec<Plain> {
    let view = world.view();
    world.cycle(&careful(Some(Mode::Full)));
    let after = world.view();
    let marked: BTreeSet<ContentId> =
        after.table.rows().filter(|row| after.table.is_deleted(*row)).map(|row| after.table.id(row)).collect();
    assert!(marked.len() >= 5);
    plaintexts(&world.outside, &view, |entry| marked.contains(&entry.id))
}

fn everywhere(mut stage: Stage, trust: Trust, until: impl Fn(&(Call, String)) -> bool) {
    let effects = stage.effects();
    let last = effects.iter().position(until).unwrap_or(effects.len());
    assert!(last > 2, "{effects:?}");
    for number in 1..=last {
        let dying = stage.dying.clone();
        // With a view of the same moment, and with one from before the cycle.
        for stale in [false, true] {
            let dying = dying.clone();
            stage.interleave(number, |world| {
                let mut client = Client::new(&world.outside, trust);
                if stale {
                    let pending = client.upload(&dying);
                    Box::new(move || client.publish(pending))
                } else {
                    Box::new(move || {
                        client.refresh();
                        client.snapshot(&dying)
                    })
                }
            });
        }
    }
}

#[test]
fn r14_a_snapshot_at_any_moment_of_a_cycle_that_marks_stays_whole() {
    everywhere(Stage::marks("default"), Trust::Live, |_| false);
}

#[test]
fn r14_a_snapshot_at_any_moment_of_a_cycle_that_marks_stays_whole_with_the_legacy_index() {
    everywhere(Stage::marks("format1"), Trust::Live, |_| false);
}

#[test]
fn r14_a_snapshot_at_any_moment_of_a_cycle_that_drops_stays_whole() {
    everywhere(Stage::drops("default"), Trust::Live, |_| false);
}

#[test]
fn r14_a_snapshot_at_any_moment_of_a_cycle_that_drops_stays_whole_with_the_legacy_index() {
    everywhere(Stage::drops("format1"), Trust::Live, |_| false);
}

/// A client that deduplicated against contents before they were marked is saved as long as their packs are there: its manifest
/// is seen before a deletion is approved.
#[test]
fn r14_what_a_late_manifest_needs_is_revived_before_the_deletion() {
    for name in ["default", "format1"] {
        everywhere(Stage::drops(name), Trust::Marked, |(call, id)| *call == Call::Delete && id.starts_with(['p', 'q']));
    }
}

/// What the cycle of `stage` does while `meanwhile` happens at the start of one of its stages.
fn disturb(stage: &mut Stage, at: &'static str, meanwhile: impl FnOnce(&mut Client) + Send + 'static) {
    stage.world.restore(&stage.saved);
    let mut client = Client::new(&stage.world.outside, Trust::Nothing);
    stage.world.meanwhile.at(at, move || meanwhile(&mut client));
    stage.world.cycle(&careful(Some(Mode::Full)));
    assert!(stage.world.meanwhile.is_over(), "stage {at} never came");
}

#[test]
fn r1_a_content_whose_winner_changed_is_not_marked() {
    for name in ["default", "format1"] {
        let mut stage = Stage::marks(name);
        let (rewritten, rest) = stage.dying.split_first().unwrap();
        let (rewritten, rest) = (rewritten.clone(), rest.to_vec());
        let again = rewritten.clone();
        let clock = stage.world.clock.clone();
        disturb(&mut stage, "solve", move |client| {
            client.write(&[again]);
            // A mark of the same second would lose anyway.
            clock.advance(Duration::from_secs(5));
        });
        let view = stage.world.view();
        let marked = |(prefix, plain): &Plain| {
            let id = ContentId::new(*prefix, stage.world.outside.hasher().hash(plain)).unwrap();
            view.table.is_deleted(view.table.find(&id).unwrap())
        };
        assert!(!marked(&rewritten), "{name}: it was written again before the mark");
        assert!(rest.iter().all(marked), "{name}: the others go on");
    }
}

#[test]
fn r14_a_snapshot_before_the_mark_is_not_marked_and_one_before_the_drop_is_revived() {
    for name in ["default", "format1"] {
        for (mut stage, at, trust) in
            [(Stage::marks(name), "mark", Trust::Live), (Stage::drops(name), "delete", Trust::Marked)]
        {
            let dying = stage.dying.clone();
            disturb(&mut stage, at, move |client| {
                client.trust = trust;
                client.refresh();
                client.snapshot(&dying);
            });
            let view = stage.world.view();
            for (prefix, plain) in &stage.dying {
                let id = ContentId::new(*prefix, stage.world.outside.hasher().hash(plain)).unwrap();
                let row = view.table.find(&id).unwrap_or_else(|| panic!("{name}: {id} is lost"));
                assert!(!view.table.is_deleted(row), "{name}: {id}");
            }
        }
    }
}

#[test]
fn r1_a_pack_that_a_newer_entry_names_is_not_deleted() {
    for name in ["default", "format1"] {
        let mut stage = Stage::drops(name);
        let view = stage.world.view();
        let now = stage.world.now().as_second();
        let marked = view.table.rows().map(|row| view.table.entry(row)).find(|entry| entry.deleted).unwrap();
        let pack = marked.pack.clone();
        let recovered = verger_kopia::content::Entry { deleted: false, timestamp: now, ..marked };
        disturb(&mut stage, "solve", move |client| client.index(vec![recovered]));
        assert_eq!(stage.world.count(pack.as_str()), 1, "{name}: {pack}");
        assert!(stage.world.count("p") + stage.world.count("q") < view.table.packs().len(), "{name}: the others go");
    }
}
