//! A machine, an agenda, and workers that need so long for a cycle.

use std::collections::BTreeMap;

use verger_proto::schedule::{Own, OwnCycle};
use verger_proto::{
    Command, CycleOptions, Event, JobReport, LogTime, Mode, PlanHeader, Registration, RegistrationChange, RepositoryId,
    RepositoryName, Stage, StoreTime, Term, ViewRef,
};

use super::super::*;
use crate::machine::{Calendar, Phase, Repository, State, apply};
use crate::schedule::{Agenda, Start, Work};
use crate::testing::{digest, options, output, worker};

pub(super) const NIGHT: &str = "2026-11-21T00:00:00Z";

pub(super) fn id(number: u32) -> RepositoryId {
    repository(number)
}

pub(super) fn cycle(mode: Mode) -> CycleOptions {
    options(mode)
}

pub(super) fn wish(fleet: &mut Fleet, number: u32, key: &str, mode: Mode) {
    fleet.go(Command::RequestCycle { repository: id(number), key: key.to_owned(), options: cycle(mode) });
}

fn registration(number: u32, schedule: Schedule) -> Registration {
    Registration {
        name: RepositoryName::new(format!("r{number}")).unwrap(),
        address: format!("s3://bucket-{}/r{number}/", number % 4),
        schedule,
        ..crate::testing::registration()
    }
}

/// A repository that was added now.
pub(super) fn of(fleet: &Fleet, trigger: &str) -> Repository {
    let calendar = Calendar { since: fleet.at, ..Calendar::default() };
    Repository { registration: Some(registration(2, full(trigger, "UTC"))), calendar, ..Repository::default() }
}

pub(super) struct Fleet {
    pub(super) state: State,
    pub(super) at: LogTime,
    pub(super) limits: Limits,
    /// How long a cycle runs, in milliseconds.
    pub(super) length: u64,
    /// Every cycle fails at its end.
    pub(super) fails: bool,
    /// The store does not answer, so no cycle is opened.
    pub(super) shut: bool,
    /// Other processes lead the cycles.
    pub(super) elsewhere: bool,
    pub(super) own: Own,
    pub(super) log: Vec<(LogTime, String)>,
    pub(super) looks: u32,
    pub(super) most: usize,
    pub(super) most_in_a_bucket: usize,
    agenda: Agenda,
    running: Vec<(Start, LogTime)>,
    numbers: BTreeMap<RepositoryId, u32>,
}

impl Fleet {
    pub(super) fn new(time: &str) -> Self {
        let cycle = OwnCycle { enabled: true, interval_seconds: 86_400 };
        Self {
            state: State::default(),
            at: at(time),
            limits: Limits { total: 4, ..Limits::default() },
            length: MINUTE,
            fails: false,
            shut: false,
            elsewhere: false,
            own: Own { full: cycle, quick: cycle },
            log: Vec::new(),
            looks: 0,
            most: 0,
            most_in_a_bucket: 0,
            agenda: Agenda::default(),
            running: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    pub(super) fn go(&mut self, command: Command) -> Vec<Event> {
        let events = apply(&mut self.state, command.clone(), self.at).0;
        assert!(!events.iter().any(|event| matches!(event, Event::CommandRefused { .. })), "{command:?}: {events:?}");
        events
    }

    pub(super) fn add(&mut self, number: u32, schedule: Schedule) {
        self.numbers.insert(id(number), number);
        let registration = Box::new(registration(number, schedule));
        self.go(Command::AddRepository { repository: id(number), registration });
    }

    pub(super) fn change(&mut self, number: u32, change: RegistrationChange) {
        self.go(Command::ChangeRepository { repository: id(number), change });
    }

    /// The process is killed and started again: only the state is left.
    pub(super) fn restart(&mut self) {
        self.agenda = Agenda::default();
        self.running.clear();
        let running = self.state.cycles.values().filter(|cycle| cycle.phase == Phase::Running).map(|cycle| cycle.id);
        for cycle in running.collect::<Vec<_>>() {
            self.go(Command::ParkCycle { cycle });
        }
    }

    pub(super) fn said(&self) -> Vec<String> {
        self.log.iter().map(|(_, what)| what.clone()).collect()
    }

    /// When cycles of a repository were begun.
    pub(super) fn starts_of(&self, number: u32) -> Vec<LogTime> {
        let (due, asked) = (format!("{number} due"), format!("{number} asked"));
        let is_start = |(_, what): &&(LogTime, String)| what.starts_with(&due) || what.starts_with(&asked);
        self.log.iter().filter(is_start).map(|(at, _)| *at).collect()
    }

    /// Looks every minute, now and for so long.
    pub(super) fn run(&mut self, milliseconds: u64) {
        let end = self.at.plus(milliseconds);
        self.step();
        while self.at < end {
            self.at = self.at.plus(MINUTE);
            self.step();
        }
    }

    fn say(&mut self, id: &RepositoryId, what: &str) {
        self.log.push((self.at, format!("{} {what}", self.numbers[id])));
    }

    /// Parks what others lead; what is led here never.
    fn park_elsewhere(&mut self) {
        assert_eq!(self.agenda.overdue_elsewhere(&|_, _| false, &self.state, self.at), []);
        let elsewhere = self.elsewhere;
        for cycle in self.agenda.overdue_elsewhere(&|_, _| elsewhere, &self.state, self.at) {
            let id = self.state.cycles[&cycle].repository.clone();
            self.say(&id, "parks");
            self.go(Command::ParkCycle { cycle });
            self.running.retain(|(start, _)| start.running.repository != id);
            self.agenda.done(&id, false, self.at);
        }
    }

    fn step(&mut self) {
        self.park_elsewhere();
        for (start, ends) in std::mem::take(&mut self.running) {
            let id = start.running.repository.clone();
            if !self.elsewhere && self.agenda.must_park(&self.state, &start, self.at) {
                self.say(&id, "parks");
                let open =
                    self.state.open_cycle(&id).filter(|cycle| cycle.phase == Phase::Running).map(|cycle| cycle.id);
                open.map(|cycle| self.go(Command::ParkCycle { cycle }));
                self.agenda.done(&id, false, self.at);
            } else if ends > self.at {
                self.running.push((start, ends));
            } else {
                self.end(&start, &id);
                self.agenda.done(&id, self.fails || self.shut, self.at);
            }
        }
        let running: Vec<Running> = self.running.iter().map(|(start, _)| start.running.clone()).collect();
        for start in self.agenda.begin(&self.state, &running, &self.limits, self.at) {
            self.begin(&start);
            let length = if start.work == Work::Look { 0 } else { self.length };
            self.running.push((start, self.at.plus(length)));
        }
        self.most = self.most.max(self.running.len());
        let mut buckets: BTreeMap<&str, usize> = BTreeMap::new();
        self.running.iter().for_each(|(start, _)| *buckets.entry(&start.running.bucket).or_default() += 1);
        self.most_in_a_bucket = self.most_in_a_bucket.max(buckets.into_values().max().unwrap_or(0));
    }

    fn begin(&mut self, start: &Start) {
        let repository = start.running.repository.clone();
        let (what, options) = match &start.work {
            Work::Look => return,
            Work::Asked { options, .. } => ("asked", *options),
            Work::Unfinished(options) => ("goes on", *options),
            Work::Due(mode, _) => ("due", options(*mode)),
        };
        let what = if what == "goes on" { what.to_owned() } else { format!("{what} {}", options.mode.name()) };
        self.say(&repository, &what);
        if self.shut {
            return;
        }
        let term = Term(self.state.repositories[&repository].last_term.0 + 1);
        let (store_now, acts_until) = (StoreTime(self.at.0), StoreTime(self.at.0 + 120_000));
        self.go(Command::TakeLease { repository: repository.clone(), term, kept: false, store_now, acts_until });
        self.go(Command::OpenCycle { repository: repository.clone(), options });
        let parked = self.state.open_cycle(&repository).filter(|cycle| cycle.phase == Phase::Parked);
        parked.map(|cycle| cycle.id).map(|cycle| self.go(Command::ResumeCycle { cycle }));
    }

    fn end(&mut self, start: &Start, id: &RepositoryId) {
        if start.work == Work::Look {
            self.looks += 1;
            self.go(Command::RecordLook { repository: id.clone(), own: self.own, margins: None });
            return;
        }
        let Some(open) = self.state.repositories[id].open else { return };
        if self.fails {
            self.say(id, "fails");
            self.go(Command::AbortCycle { cycle: open, reason: "it fails".to_owned() });
            return;
        }
        while let Some(cycle) = self.state.open_cycle(id) {
            let spec = cycle.spec(cycle.jobs.values().find(|job| !job.is_over()).unwrap());
            let ticket = spec.ticket(&worker("w1"));
            let view = ViewRef { digest: digest("view"), taken: StoreTime(self.at.0) };
            let mut report = JobReport::done(vec![output(&format!("{}-{}", spec.stage, spec.id))]);
            match spec.stage {
                Stage::Survey => report.view = Some(view),
                Stage::Plan => report.plan = Some(header(id, cycle.view.unwrap().0, spec.term, spec.options.mode)),
                Stage::Check => report.checked = spec.plan,
                _ => {}
            }
            self.go(Command::ClaimJob { ticket: ticket.clone() });
            self.go(Command::CompleteJob { ticket, report: Box::new(report) });
        }
        self.say(id, "done");
    }
}

/// A plan that has nothing to do.
fn header(id: &RepositoryId, view: ViewRef, term: Term, mode: Mode) -> PlanHeader {
    PlanHeader {
        repository: id.clone(),
        store: "s3://bucket/".to_owned(),
        view,
        term,
        mode,
        stages: Vec::new(),
        removed_bytes: 0,
        total_packed_bytes: 100,
        contents: 10,
        live_contents: 10,
        body: output("plan"),
    }
}
