//! The stages that only read: stock, scan, solve, plan, check.

use std::sync::Arc;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::index_set::legacy::read_cleanups;
use verger_kopia::index_set::list_active;
use verger_kopia::maintenance::rules::check::verdict;
use verger_kopia::maintenance::rules::facts::Frozen;
use verger_kopia::maintenance::rules::next::next;
use verger_kopia::maintenance::rules::plan::Mode;
use verger_kopia::object::ObjectId;
use verger_kopia::session::SessionId;
use verger_kopia::storage::BlobMetadata;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::StoreTime;
use verger_proto::digest::Digest;
use verger_proto::job::{JobSpec, ViewRef};
use verger_proto::report::{Damage, JobReport, Outcome, Severity};

use super::header::header;
use super::{Work, out_of_order};
use crate::task::plan::{Gathered, Request, lines, lists_bytes, plan};
use crate::task::solve::{Used, Wrong};
use crate::task::summary::Summaries;
use crate::task::survey::{Reach, Start, Survey, look_ahead, read_view, survey};
use crate::task::{check, scan, solve};

/// Percentage that may go without a person's word (S5).
const ALLOWED_PERCENT: u8 = 50;

impl Work<'_> {
    /// Records the start, then takes stock: manifests and all else come from one view taken after it (R10).
    pub(super) fn take_stock(&mut self, spec: &JobSpec) -> Result<JobReport> {
        let start = if self.choice.dry_run {
            Start::DryRun
        } else if let Some(started) = self.started {
            // A survey that failed after its start was recorded goes on from there.
            Start::Recorded(started)
        } else {
            let ahead = look_ahead(&self.workspace, self.earlier.take())?;
            self.earlier = ahead.view;
            let started = self.begin(spec, &ahead.params)?;
            self.started = Some(started);
            Start::Recorded(started)
        };
        let taken = self.workspace.repository.storage().now()?;
        let reach = if self.choice.mode == Mode::Index { Reach::Index } else { Reach::All };
        let found = survey(&self.workspace, reach, start, self.earlier.take())?;
        self.workspace.repository = found.repository.clone();
        let owner = &found.params.owner;
        let is_owner = *owner == self.workspace.identity || mutant::on(Mutant::R22AnybodyIsOwner);
        if !self.choice.dry_run && !is_owner {
            let step = format!("{owner} became the maintenance owner while this cycle began");
            return Err(Error::new(ErrorKind::NotOwner, step));
        }
        let view = ViewRef { digest: Digest::of(found.view.digest().as_bytes()), taken: StoreTime::of(taken) };
        let damages: Vec<Damage> = found.unreadable.iter().map(|one| unreadable(&one.what, &one.error)).collect();
        let noted = found.sessions.unreadable.iter().map(|(marker, error)| Damage {
            severity: Severity::Noted,
            subject: marker.id.to_string(),
            text: format!("a session marker cannot be read, and counts as active for 96 h: {}", error.chain()),
            snapshots: Vec::new(),
            paths: Vec::new(),
        });
        let mut damages: Vec<Damage> = damages.into_iter().chain(noted).collect();
        damages.extend(unreadable_notes(&found)?);
        let found = Arc::new(found);
        self.survey = Some(found.clone());
        self.view = Some(view);
        let mut report = JobReport { view: Some(view), ..self.found(damages) };
        self.cut_scan(spec, &found, &mut report)?;
        Ok(report)
    }

    pub(super) fn scan(&mut self) -> Result<JobReport> {
        let survey = self.taken_stock()?;
        // On a local disk a round trip costs nothing: the walk reads what is needed, and what is dead is not looked into at all.
        let walks = self.workspace.is_local();
        self.summaries = Some(if walks { Summaries::empty() } else { scan::scan(&self.workspace, &survey)? });
        Ok(JobReport::done(Vec::new()))
    }

    pub(super) fn solve(&mut self, spec: &JobSpec) -> Result<JobReport> {
        let survey = self.taken_stock()?;
        if self.summaries.is_none() {
            self.summaries = self.gather_scan(spec, &survey)?;
        }
        // Kept until it succeeded: it may be tried again.
        let summaries = self.summaries.as_ref().ok_or_else(|| out_of_order("scan"))?;
        let used = solve::solve(&self.workspace, &survey, summaries)?;
        self.summaries = None;
        self.workspace.memory.keep(survey.view.table.memory().saturating_add(survey.estimate.rest));
        self.look_again(&survey, &used)?;
        let damages = used.damages.iter().map(missing_or_unreadable).collect();
        self.used = Some(Arc::new(used));
        Ok(self.found(damages))
    }

    /// R11: what no entry names is looked for once more, on a fresh view, before an index blob counts as lost.
    fn look_again(&self, survey: &Survey, used: &Used) -> Result<()> {
        let missing: Vec<&solve::Damage> = used.damages.iter().filter(|one| one.wrong == Wrong::Missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let active = list_active(&survey.repository)?;
        if active.digest() == survey.view.digest() {
            return Ok(());
        }
        let fresh = read_view(&self.workspace, &survey.repository, &active)?;
        let is_there = |object: &ObjectId| fresh.table.find(&object.content).is_some();
        if missing.iter().all(|one| one.object.parse().is_ok_and(|object| is_there(&object))) {
            let step = "the index was listed before all of it could be seen";
            return Err(Error::new(ErrorKind::StoreUnavailable, step).with_fix("Run again; nothing was changed"));
        }
        Ok(())
    }

    fn found(&mut self, damages: Vec<Damage>) -> JobReport {
        self.damages.extend(damages.iter().cloned());
        JobReport::new(if damages.is_empty() { Outcome::Done } else { Outcome::Degraded(damages) })
    }

    pub(super) fn make_plan(&mut self, spec: &JobSpec) -> Result<JobReport> {
        let survey = self.taken_stock()?;
        let used = self.used.clone();
        let over = self.sessions_over();
        let request = self.request(&over);
        let gathered = Gathered::new(&survey, used.as_deref(), &request)?;
        let body = plan(&gathered)?;
        survey.estimate.check_lists(&self.workspace.memory, lists_bytes(&body), 2, "the list of what changes")?;
        let upcoming = next(&gathered.facts(), &body);
        let digest = hex_digest(&lines::digest(&body, &survey.view.table))?;
        let recorded_gc = gathered.frozen().0 == Frozen::Nothing;
        let epochs = survey.repository.config().epoch.enabled;
        let view = self.view.ok_or_else(|| out_of_order("survey"))?;
        let header = header(spec, &body, &survey.view.table, view, digest, recorded_gc, epochs)?;
        self.next = upcoming;
        self.header = Some(header.clone());
        self.plan = Some(Arc::new(body));
        let mut report = JobReport { plan: Some(header), ..JobReport::done(Vec::new()) };
        self.cut_rewrite(spec, &mut report)?;
        Ok(report)
    }

    pub(super) fn check_plan(&mut self) -> Result<JobReport> {
        let (survey, body) = (self.taken_stock()?, self.planned()?);
        let used = self.used.clone();
        let over = self.sessions_over();
        let request = self.request(&over);
        let gathered = Gathered::new(&survey, used.as_deref(), &request)?;
        let allowed = self.choice.allow_removing.unwrap_or(ALLOWED_PERCENT);
        // A dry run shows the plan whatever it would remove; the machine says the same of it.
        let word = if self.choice.dry_run { 100 } else { allowed };
        // The body is hashed anew, beside its check: what is sealed is what was checked.
        let (notes, digest) = std::thread::scope(|scope| {
            let digest = scope.spawn(|| lines::digest(&body, &survey.view.table));
            let notes = check::check(&self.workspace, &survey, &gathered, &body, word);
            (notes, digest.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        verdict(&notes?)?;
        let header = self.header.clone().ok_or_else(|| out_of_order("plan"))?;
        if hex_digest(&digest)? != header.body.digest {
            return Err(Error::new(ErrorKind::Internal, "the plan changed between its making and its check"));
        }
        let checked = header.digest().map_err(|e| Error::new(ErrorKind::Internal, "hash a plan").with_source(e))?;
        Ok(JobReport { checked: Some(checked), ..JobReport::done(Vec::new()) })
    }

    fn request<'r>(&'r self, over: &'r dyn Fn(&SessionId) -> bool) -> Request<'r> {
        let Self { choice, gc_started, .. } = self;
        Request { mode: choice.mode, margins: &choice.margins, gc_started: *gc_started, over }
    }

    /// Sessions of this identity's dead jobs (R21): nobody else holds the lease, and this cycle has not written a pack yet.
    fn sessions_over(&self) -> impl Fn(&SessionId) -> bool + use<> {
        let over = self.workspace.dead_sessions.clone();
        move |session: &SessionId| over.contains(session.as_str()) || mutant::on(Mutant::R21ForeignSessionIsOver)
    }
}

/// Clean-up notes of the legacy index that cannot be read: they only say what may go, so without them it stays.
fn unreadable_notes(survey: &Survey) -> Result<Vec<Damage>> {
    if survey.repository.config().epoch.enabled {
        return Ok(Vec::new());
    }
    let damage = |(note, error): (BlobMetadata, Error)| Damage {
        severity: Severity::Noted,
        subject: note.id.to_string(),
        text: format!("a clean-up note cannot be read; what it allows to go stays: {}", error.chain()),
        snapshots: Vec::new(),
        paths: Vec::new(),
    };
    let notes = read_cleanups(&survey.repository, survey.listing.cleanups())?.into_iter();
    Ok(notes.filter_map(|(note, read)| Some((note, read.err()?))).map(damage).collect())
}

fn unreadable(what: &str, error: &str) -> Damage {
    Damage {
        severity: Severity::Unreadable,
        subject: what.to_owned(),
        text: error.to_owned(),
        snapshots: what.strip_prefix("snapshot ").map(|id| vec![id.to_owned()]).unwrap_or_default(),
        paths: Vec::new(),
    }
}

pub(super) fn missing_or_unreadable(damage: &solve::Damage) -> Damage {
    let severity = match damage.wrong {
        Wrong::Missing => Severity::LostIndex,
        Wrong::Unreadable => Severity::Unreadable,
        Wrong::Cut => Severity::Noted,
    };
    let mut snapshots: Vec<String> = damage.touches.iter().map(|touch| touch.snapshot.clone()).collect();
    snapshots.dedup();
    let path = |touch: &solve::Touch| if touch.path.is_empty() { "/".to_owned() } else { touch.path.clone() };
    Damage {
        severity,
        subject: damage.object.clone(),
        text: damage.error.clone(),
        snapshots,
        paths: damage.touches.iter().map(path).collect(),
    }
}

fn hex_digest(text: &str) -> Result<Digest> {
    text.parse().map_err(|e| Error::new(ErrorKind::Internal, "parse the digest of a plan").with_source(e))
}
