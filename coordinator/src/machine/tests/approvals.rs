//! Batches: approved one at a time, in order, for a while, and looked at again when their end is unknown.

use verger_proto::{
    BatchOutcome, BatchResult, Command, Effect, Event, FailureKind, Mode, Refusal, Stage, StoreTime, Term,
};

use super::{reason, refused};
use crate::testing::{Rig, batch, digest, done, failure, options, output, repository, words};

#[test]
fn r5_an_approval_has_a_deadline_by_both_clocks_and_never_outlives_the_lease() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    rig.pass(50_000);
    let (store, at) = (rig.store(), rig.at);
    let Event::BatchApproved { approval, .. } = rig.approve(&ticket, batch(Stage::Mark, 0, 0, 2)) else { panic!() };
    assert_eq!((approval.valid_for, approval.again), (70_000, false), "what is left of the lease's 120 s");
    assert_eq!((approval.deadline, approval.store_deadline), (at.plus(70_000), store.plus(70_000)));
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(batch(Stage::Mark, 0, 0, 2)) });
    rig.renew_lease();
    let request = verger_proto::BatchRequest { wanted: 30_000, ..rig.request(batch(Stage::Mark, 1, 2, 1)) };
    let (events, _) = rig.go(Command::ApproveBatch { ticket: ticket.clone(), request });
    assert!(matches!(&events[0], Event::BatchApproved { approval, .. } if approval.valid_for == 30_000));
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(batch(Stage::Mark, 1, 2, 1)) });
    rig.pass(120_000);
    let request = rig.request(batch(Stage::Mark, 2, 3, 0));
    let (events, effects) = rig.go(Command::ApproveBatch { ticket, request });
    assert_eq!(refused(&events), &Refusal::NoTime);
    assert!(matches!(effects[..], [Effect::RenewLease { term: Term(1), .. }]));
}

#[test]
fn the_clock_that_is_further_on_decides() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let ask = |rig: &mut Rig, change: fn(&mut verger_proto::BatchRequest)| {
        let mut request = rig.request(batch(Stage::Mark, 0, 0, 1));
        change(&mut request);
        rig.go(Command::ApproveBatch { ticket: ticket.clone(), request }).0
    };
    // The store is 120 s further on than our log thinks.
    let ahead = |request: &mut verger_proto::BatchRequest| {
        request.store_now = request.store_now.plus(120_000);
        request.view.taken = request.store_now;
    };
    assert_eq!(refused(&ask(&mut rig, ahead)), &Refusal::NoTime);
    // The worker looked at the store's clock right after the lease was written, and asks two minutes later.
    rig.pass(120_000);
    let behind = |request: &mut verger_proto::BatchRequest| {
        request.store_now.0 -= 120_000;
        request.view.taken = request.store_now;
    };
    assert_eq!(refused(&ask(&mut rig, behind)), &Refusal::NoTime);
    rig.renew_lease();
    assert!(matches!(ask(&mut rig, |_| {})[..], [Event::BatchApproved { .. }]));
}

#[test]
fn r4_a_lease_that_asks_for_more_than_120_s_does_not_get_it() {
    let mut rig = Rig::bare();
    let (store_now, acts_until) = (rig.store(), rig.store().plus(3_600_000));
    let take = Command::TakeLease { repository: repository(), term: Term(1), kept: false, store_now, acts_until };
    rig.go(take);
    let lease = rig.state.repositories[&repository()].lease.unwrap();
    assert_eq!((lease.acts_until, lease.confirmed_until), (store_now.plus(120_000), rig.at.plus(120_000)));
}

#[test]
fn approvals_are_refused_for_another_plan_stage_order_size_or_an_old_view() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    let good = rig.request(batch(Stage::Delete, 0, 0, 2));
    let mut say = |request| {
        let ticket = ticket.clone();
        refused(&rig.go(Command::ApproveBatch { ticket, request }).0).clone()
    };
    let with = |batch| verger_proto::BatchRequest { batch, ..good };
    let other = Some(verger_proto::PlanDigest(digest("another")));
    assert_eq!(say(verger_proto::BatchRequest { plan: other, ..good }), Refusal::OtherPlan);
    assert_eq!(say(verger_proto::BatchRequest { plan: None, ..good }), Refusal::NoPlan);
    assert_eq!(say(with(batch(Stage::Publish, 0, 0, 1))), Refusal::OtherStage(Stage::Delete));
    let next = Refusal::BatchOutOfOrder { number: 0, first: 0 };
    assert_eq!(say(with(batch(Stage::Delete, 1, 0, 1))), next);
    assert_eq!(say(with(batch(Stage::Delete, 0, 1, 1))), next);
    assert_eq!(say(with(batch(Stage::Delete, 0, 0, 5))), Refusal::BatchBeyondPlan { items: 4 });
    assert_eq!(say(with(batch(Stage::Delete, 0, 0, u64::MAX))), Refusal::BatchBeyondPlan { items: 4 });
    let mut old = good;
    old.view.taken = StoreTime(good.store_now.0 - 120_001);
    let newest = Refusal::ViewOrder;
    assert_eq!(say(old), newest, "older than the view of the batch before");
    let mut ahead = good;
    ahead.view.taken = good.store_now.plus(1);
    assert_eq!(say(ahead), Refusal::ViewOrder);
    assert_eq!(say(verger_proto::BatchRequest { wanted: 0, ..good }), Refusal::NoTime);
}

#[test]
fn r14_a_view_may_be_120_seconds_old_and_no_older() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let view = rig.view();
    rig.pass(120_001);
    rig.renew_lease();
    let mut request = verger_proto::BatchRequest { view, ..rig.request(batch(Stage::Mark, 0, 0, 3)) };
    let said = rig.go(Command::ApproveBatch { ticket: ticket.clone(), request }).0;
    assert_eq!(refused(&said), &Refusal::StaleView(120_001));
    request.view.taken = view.taken.plus(1);
    let said = rig.go(Command::ApproveBatch { ticket, request }).0;
    assert!(matches!(said[..], [Event::BatchApproved { .. }]));
}

#[test]
fn only_deeds_and_the_surveys_start_are_approved() {
    let mut rig = Rig::new();
    rig.open(options(Mode::Full));
    let ticket = rig.claim();
    let start = batch(Stage::Survey, 0, 0, 0);
    assert!(matches!(rig.approve(&ticket, start), Event::BatchApproved { .. }));
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(start) });
    let beyond = batch(Stage::Survey, 1, 0, 1);
    assert_eq!(reason(&rig.approve(&ticket, beyond)), &Refusal::BatchBeyondPlan { items: 0 });
    let report = Box::new(rig.report(&rig.job()));
    rig.go(Command::CompleteJob { ticket, report });
    let ticket = rig.claim();
    let refusal = Refusal::NotADeed(Stage::Scan);
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Scan, 0, 0, 0))), &refusal);
    rig.do_job();
    rig.until(Stage::Rewrite);
    let ticket = rig.claim();
    let refusal = Refusal::NotADeed(Stage::Rewrite);
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Rewrite, 0, 0, 1))), &refusal);
}

#[test]
fn a_lost_answer_is_given_again_without_a_second_more() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let request = rig.request(batch(Stage::Mark, 0, 0, 1));
    let ask = Command::ApproveBatch { ticket: ticket.clone(), request };
    let first = rig.go(ask.clone()).0;
    rig.pass(5_000);
    assert_eq!(rig.go(ask).0, first);
    let other = batch(Stage::Mark, 0, 0, 2);
    assert_eq!(reason(&rig.approve(&ticket, other)), &Refusal::BatchOutstanding(0));
    let outcome = done(request.batch);
    let say = Command::BatchDone { ticket, outcome };
    assert!(matches!(rig.go(say.clone()).0[..], [Event::BatchDone { .. }]));
    assert!(matches!(rig.go(say).0[..], [Event::ResultRepeated { .. }]));
}

#[test]
fn an_ambiguous_batch_is_looked_at_again_and_never_planned_again() {
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    let first = batch(Stage::Delete, 0, 0, 3);
    rig.approve(&ticket, first);
    let outcome = BatchOutcome { result: BatchResult::Ambiguous, changed: 1, ..done(first) };
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome });
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Delete, 0, 0, 2))), &Refusal::BatchOutstanding(0));
    assert_eq!(reason(&rig.approve(&ticket, batch(Stage::Delete, 1, 3, 1))), &Refusal::BatchOutstanding(0));
    let report = Box::new(rig.report(&rig.job()));
    let said = rig.go(Command::CompleteJob { ticket: ticket.clone(), report }).0;
    assert_eq!(refused(&said), &Refusal::BatchOutstanding(0));
    let lost = rig.go(Command::FailJob { ticket, failure: failure(FailureKind::StoreUnavailable, true) });
    let [Effect::OfferJob(spec)] = &lost.1[..] else { panic!("{lost:?}") };
    assert_eq!((spec.attempt, spec.done, spec.batch), (2, 0, Some(first)));
    let ticket = rig.claim();
    let Event::BatchApproved { approval, .. } = rig.approve(&ticket, first) else { panic!() };
    assert!(approval.again);
    let outcome = BatchOutcome { changed: 2, left_out: 1, ..done(first) };
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome });
    assert_eq!(rig.job().done, 3);
    rig.do_batches(&ticket);
    let report = Box::new(rig.report(&rig.job()));
    assert_eq!(words(&rig.go(Command::CompleteJob { ticket, report }))[1], "stage_closed delete");
}

#[test]
fn r12_a_deed_is_not_done_before_all_its_items_are() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let first = batch(Stage::Mark, 0, 0, 2);
    rig.approve(&ticket, first);
    let wrong = BatchOutcome { changed: 1, ..done(first) };
    let said = rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: wrong }).0;
    assert_eq!(refused(&said), &Refusal::BatchFigures);
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome: done(first) });
    let report = Box::new(rig.report(&rig.job()));
    let said = rig.go(Command::CompleteJob { ticket, report }).0;
    assert_eq!(refused(&said), &Refusal::Uncovered { done: 2, items: 3 });
}

#[test]
fn a_batch_that_never_began_may_be_cut_anew() {
    let mut rig = Rig::at_stage(Stage::Mark);
    let ticket = rig.claim();
    let first = batch(Stage::Mark, 0, 0, 3);
    rig.approve(&ticket, first);
    let outcome = BatchOutcome { result: BatchResult::NotDone, changed: 0, bytes: 0, ..done(first) };
    rig.go(Command::BatchDone { ticket: ticket.clone(), outcome });
    let smaller = batch(Stage::Mark, 0, 0, 1);
    assert!(matches!(rig.approve(&ticket, smaller), Event::BatchApproved { .. }));
}

#[test]
fn revivals_are_added_to_a_sealed_plan_and_nowhere_else() {
    let mut rig = Rig::at_stage(Stage::Scan);
    let ticket = rig.claim();
    let add = |ticket| Command::AddRevivals { ticket, revived: output("revived"), bytes: 7 };
    assert_eq!(refused(&rig.go(add(ticket)).0), &Refusal::NoRevival(Stage::Scan));
    let mut rig = Rig::at_stage(Stage::Delete);
    let ticket = rig.claim();
    assert!(matches!(rig.go(add(ticket)).0[..], [Event::RevivalsAdded { bytes: 7, .. }]));
}
