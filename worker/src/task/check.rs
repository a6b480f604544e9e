//! Looks at a plan with other eyes before it is sealed: rules of its own, and another way to what is used.

use verger_kopia::content::ContentId;
use verger_kopia::content::read::read_content;
use verger_kopia::directory::parse_object;
use verger_kopia::error::{Error, ErrorKind, Result};
use verger_kopia::maintenance::rules::check::{self, Note};
use verger_kopia::maintenance::rules::plan::PlanBody;
use verger_kopia::object::ObjectId;

use super::plan::Gathered;
use super::summary::Role;
use super::survey::Survey;
use crate::progress::{Meter, Unit};
use crate::workspace::Workspace;

/// Directories that the other way looks into, where reading one costs about nothing, and where it costs a round trip.
const SAMPLE_LOCAL: usize = 256;
const SAMPLE_REMOTE: usize = 12;

/// Holds the plan against the facts with rules that share nothing with those that made it, then walks from snapshot roots down a few
/// hundred directories, one read at a time: nothing met on the way may be marked. Worst notes first; `rules::check::verdict` refuses.
///
/// # Errors
/// `PlanRefused` if the plan marks something that a snapshot needs; storage errors; `Interrupted`.
pub fn check(
    workspace: &Workspace,
    survey: &Survey,
    gathered: &Gathered<'_>,
    plan: &PlanBody,
    allow_removing: u8,
) -> Result<Vec<Note>> {
    let notes = check::check(plan, &gathered.facts(), allow_removing);
    spot_check(workspace, survey, plan)?;
    Ok(notes)
}

fn spot_check(workspace: &Workspace, survey: &Survey, plan: &PlanBody) -> Result<()> {
    let Some(gc) = plan.gc.as_ref().filter(|gc| !gc.mark.is_empty()) else { return Ok(()) };
    let sample = if workspace.is_local() { SAMPLE_LOCAL } else { SAMPLE_REMOTE };
    let meter = Meter::start(&*workspace.progress, "check", Some(sample as u64), Unit::Objects);
    let mut todo: Vec<(Role, ObjectId)> = survey.roots.iter().map(|root| (root.role, root.object)).collect();
    let mut looked_into = 0;
    while let Some((role, object)) = pick(&mut todo) {
        let row = survey.view.table.find(&object.content);
        if row.is_some_and(|row| gc.mark.binary_search(&row).is_ok()) {
            let step = format!("the plan is refused: it marks {}, which a snapshot needs", object.content);
            return Err(Error::new(ErrorKind::PlanRefused, step));
        }
        if role == Role::File || looked_into == sample {
            continue;
        }
        workspace.stop.check()?;
        looked_into += 1;
        meter.add(1);
        let fetch = |content: &ContentId| {
            let row =
                survey.view.table.find(content).ok_or_else(|| Error::damaged(format!("no entry names {content}")))?;
            read_content(&survey.repository, &survey.view.table.entry(row))
        };
        let read = parse_object(object, fetch, |entry| todo.push((super::holds::role(entry.kind), entry.object)));
        match read {
            // Damage is the solve's to tell; here only marks matter.
            Err(error) if !super::bulk::is_damage(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Any of those to come, so that the sample is not one corner of one tree.
fn pick(todo: &mut Vec<(Role, ObjectId)>) -> Option<(Role, ObjectId)> {
    if todo.is_empty() {
        return None;
    }
    let place = rand::random_range(0..todo.len());
    Some(todo.swap_remove(place))
}
