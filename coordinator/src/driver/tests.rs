//! Late, doubled and paused drivers.

use verger_proto::{
    Command, Driven, Driver, Event, JobReport, LogTime, Mode, Refusal, StoreTime, Term, Ticket, WorkerId,
};

use super::*;
use crate::machine::{Phase, State, apply};
use crate::testing::{options, repository};

const FIRST: Driver = Driver { node: 1, boots: 4, run: 1 };
const SECOND: Driver = Driver { node: 2, boots: 9, run: 1 };

struct Rig {
    state: State,
    now: u64,
}

impl Rig {
    /// A repository that the first drives, in the middle of a cycle.
    fn new() -> Self {
        let mut rig = Self { state: State::default(), now: 1_000_000 };
        rig.ask(lease(1)).unwrap();
        rig.take(FIRST).unwrap();
        rig.begin(FIRST);
        rig
    }

    fn ask(&mut self, command: Command) -> Result<Vec<Event>, Refusal> {
        let (events, _) = apply(&mut self.state, command, LogTime(self.now));
        let refused = events.iter().find_map(|event| match event {
            Event::CommandRefused { reason, .. } | Event::ResultFenced { reason, .. } => Some(reason.clone()),
            _ => None,
        });
        refused.map_or(Ok(events), Err)
    }

    fn take(&mut self, driver: Driver) -> Result<Vec<Event>, Refusal> {
        self.ask(Command::TakeDrive { repository: repository(), driver })
    }

    fn say(&mut self, driver: Driver, command: Command) -> Result<Vec<Event>, Refusal> {
        self.ask(Command::Driven(Box::new(Driven { driver, repository: repository(), command })))
    }

    fn begin(&mut self, driver: Driver) {
        self.say(driver, Command::OpenCycle { repository: repository(), options: options(Mode::Full) }).unwrap();
        let ticket = self.ticket(driver);
        self.say(driver, Command::ClaimJob { ticket }).unwrap();
    }

    fn ticket(&self, driver: Driver) -> Ticket {
        let cycle = self.state.cycles.values().next().unwrap();
        let job = cycle.jobs.values().find(|job| !job.is_over()).unwrap();
        cycle.spec(job).ticket(&WorkerId::new(driver.to_string()).unwrap())
    }

    fn drives(&self) -> &[Driver] {
        &self.state.repositories[&repository()].drives
    }

    /// What a new driver does first: whoever was at work is gone, and the lease is taken anew.
    fn take_over(&mut self, driver: Driver, lost: Driver) {
        self.take(driver).unwrap();
        let cycle = *self.state.cycles.keys().next().unwrap();
        self.say(driver, Command::ParkCycle { cycle }).unwrap();
        let worker = WorkerId::new(lost.to_string()).unwrap();
        self.say(driver, Command::LoseWorker { worker }).unwrap();
        self.say(driver, lease(2)).unwrap();
        self.say(driver, Command::OpenCycle { repository: repository(), options: options(Mode::Full) }).unwrap();
        self.say(driver, Command::ResumeCycle { cycle }).unwrap();
    }
}

fn lease(term: u64) -> Command {
    let (store_now, acts_until) = (StoreTime(5), StoreTime(120_005));
    Command::TakeLease { repository: repository(), term: Term(term), kept: false, store_now, acts_until }
}

#[test]
fn two_do_not_drive_at_once_and_silence_ends_a_drive() {
    let mut rig = Rig::new();
    assert_eq!(rig.take(SECOND), Err(Refusal::DrivenByOther(FIRST)));
    rig.now += SILENCE_MILLISECONDS;
    assert_eq!(rig.take(SECOND), Err(Refusal::DrivenByOther(FIRST)), "not before its time is over");
    let refused = rig.say(SECOND, Command::Tick);
    assert_eq!(refused, Err(Refusal::DrivenByOther(FIRST)));
    rig.now += 1;
    let events = rig.take(SECOND).unwrap();
    assert!(matches!(events[..], [Event::DriveTaken { before: Some(FIRST), .. }]), "{events:?}");
    assert!(rig.take(SECOND).unwrap().is_empty(), "asked again after a lost answer");
}

#[test]
fn a_sign_of_life_holds_the_drive_and_few_of_them_are_kept() {
    let mut rig = Rig::new();
    let mut kept = 0;
    for _ in 0..60 {
        rig.now += 1_000;
        kept += rig.say(FIRST, Command::Tick).unwrap().len();
        assert_eq!(rig.take(SECOND), Err(Refusal::DrivenByOther(FIRST)));
    }
    assert!((15..=25).contains(&kept), "{kept}");
}

/// Paused beyond its time, it goes on: it speaks of the present attempt, of the present term, in its own name and in its heir's.
#[test]
fn a_driver_that_wakes_up_late_is_not_heard_whatever_it_says() {
    let mut rig = Rig::new();
    let (old, cycle) = (rig.ticket(FIRST), *rig.state.cycles.keys().next().unwrap());
    rig.now += SILENCE_MILLISECONDS + 1;
    rig.take_over(SECOND, FIRST);
    assert_eq!(rig.state.cycles[&cycle].phase, Phase::Running);
    let (mine, theirs) = (rig.ticket(FIRST), rig.ticket(SECOND));
    assert_eq!(mine.term, Term(2));
    let before = rig.state.clone();
    for ticket in [old, mine, theirs.clone()] {
        let report = Box::new(JobReport::done(Vec::new()));
        for command in [
            Command::ClaimJob { ticket: ticket.clone() },
            Command::ReportProgress { ticket: ticket.clone(), progress: None },
            Command::CompleteJob { ticket: ticket.clone(), report },
        ] {
            assert_eq!(rig.say(FIRST, command), Err(Refusal::DrivenByOther(SECOND)));
        }
    }
    for command in [
        Command::ParkCycle { cycle },
        Command::Tick,
        lease(3),
        Command::ReleaseLease { repository: repository(), term: Term(2) },
        Command::LoseLease { repository: repository(), term: Term(2), reason: String::new() },
        Command::OpenCycle { repository: repository(), options: options(Mode::Quick) },
    ] {
        assert_eq!(rig.say(FIRST, command), Err(Refusal::DrivenByOther(SECOND)));
    }
    let leave = Command::LeaveDrive { repository: repository(), driver: FIRST };
    assert_eq!(rig.ask(leave), Err(Refusal::DrivenByOther(SECOND)));
    assert_eq!(rig.state, before, "nothing of it counts");
    rig.say(SECOND, Command::ClaimJob { ticket: theirs }).unwrap();
}

#[test]
fn one_whose_time_is_over_goes_on_if_nobody_took_it() {
    let mut rig = Rig::new();
    rig.now += 10 * SILENCE_MILLISECONDS;
    rig.say(FIRST, Command::Tick).unwrap();
    assert_eq!(rig.take(SECOND), Err(Refusal::DrivenByOther(FIRST)));
}

#[test]
fn a_process_of_the_same_folder_takes_over_at_once_and_another_run_does_not() {
    let mut rig = Rig::new();
    assert_eq!(rig.take(Driver { run: 2, ..FIRST }), Err(Refusal::DrivenByOther(FIRST)), "its thread may live");
    assert_eq!(rig.take(Driver { boots: 3, ..FIRST }), Err(Refusal::DrivenByOther(FIRST)), "a process before");
    let again = Driver { boots: 5, ..FIRST };
    rig.take(again).unwrap();
    assert_eq!(rig.say(FIRST, Command::Tick), Err(Refusal::DrivenByOther(again)));
    rig.ask(Command::LeaveDrive { repository: repository(), driver: again }).unwrap();
    assert_eq!(rig.say(again, Command::Tick), Err(Refusal::NotDriving));
    rig.take(SECOND).unwrap();
}

/// The object in the store is written before the machine hears of it: who may have written one is known until a lease is granted.
#[test]
fn r4_drives_are_known_until_one_of_them_is_granted_a_lease_and_who_lost_the_drive_is_granted_none() {
    let mut rig = Rig::new();
    assert_eq!(rig.drives(), [FIRST]);
    rig.now += SILENCE_MILLISECONDS + 1;
    rig.take(SECOND).unwrap();
    assert_eq!(rig.drives(), [FIRST, SECOND]);
    assert_eq!(
        rig.say(FIRST, lease(2)).unwrap_err(),
        Refusal::DrivenByOther(SECOND),
        "it was paused, and tells of its lease"
    );
    assert_eq!(rig.state.repositories[&repository()].last_term, Term(1));
    rig.say(SECOND, lease(3)).unwrap();
    assert_eq!(rig.drives(), [], "what they wrote is older, or is granted");
    for run in 0..2 * DRIVES_MAX as u64 {
        rig.now += SILENCE_MILLISECONDS + 1;
        rig.take(Driver { run, ..FIRST }).unwrap();
    }
    assert_eq!(rig.drives().len(), DRIVES_MAX);
}
