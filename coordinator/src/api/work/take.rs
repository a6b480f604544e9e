//! What there is to do, for whoever asks.

use std::sync::Arc;

use verger_proto::queue::Hint;
use verger_proto::{Command, LogTime, Pool};

use super::wire::{Ended, Instructions, Presence, Ready};
use super::{driver_of, nothing, read, record};
use crate::api::Standing;
use crate::api::call::Call;
use crate::api::desk::Ask;
use crate::api::problem::Problem;
use crate::api::server::{Answer, Server};
use crate::machine::{Phase, State};

/// Jobs that are told of at a time.
const JOBS_MAX: usize = 64;
/// Pools of one worker.
const POOLS_MAX: usize = 64;

/// Only who leads gives out cycles: two who do could give out more than a bucket bears.
pub(super) fn check_leads_itself(server: &Server) -> Result<(), Problem> {
    match server.api.stand.standing() {
        Standing::Leads => Ok(()),
        Standing::Follows { leader } | Standing::HandsOn { leader } => Err(Problem::not_leader(leader)),
        Standing::Unready(why) => Err(Problem::later("not-ready", why)),
    }
}

pub(in crate::api) fn next(server: &Arc<Server>, call: Call) -> Answer {
    check_leads_itself(server)?;
    let Ready { driver, mut pools } = read(&call)?;
    if pools.len() > POOLS_MAX {
        return Err(Problem::bad_request(format!("a worker has at most {POOLS_MAX} pools")));
    }
    pools.sort_unstable();
    pools.dedup();
    let driver = driver_of(&call, driver);
    let sees = |tenant: &str| call.sees(Some(tenant));
    let task = server.api.desk.next(&Ask { driver, pools: &pools, sees: &sees });
    match task.map_err(|error| Problem::not_kept(&error))? {
        Some(task) => record(&task),
        None => Ok(nothing()),
    }
}

pub(in crate::api) fn ended(server: &Arc<Server>, call: Call) -> Answer {
    check_leads_itself(server)?;
    let Ended { repository, driver, failed } = read(&call)?;
    if super::sees(server, &call, &repository) {
        server.api.desk.ended(&repository, driver_of(&call, driver), failed);
    }
    Ok(nothing())
}

/// Shards that wait for a worker, of the repositories of these pools.
pub(in crate::api) fn jobs(server: &Arc<Server>, call: Call) -> Answer {
    let pools = call.query("pools").unwrap_or_default().split(',').map(Pool::new).collect::<Result<Vec<_>, _>>();
    let pools = pools.map_err(|error| Problem::bad_request(format!("pools: {error}")))?;
    let now = server.now();
    let hints = server.state(|state| waiting(state, &pools, now, &|tenant| call.sees(Some(tenant))));
    record(&hints)
}

fn waiting(state: &State, pools: &[Pool], now: LogTime, sees: &dyn Fn(&str) -> bool) -> Vec<Hint> {
    // While nothing happens, the state's own time stands still.
    let now = now.max(state.now);
    let is_ours = |repository| {
        let entry = state.repositories.get(repository);
        let known = entry.and_then(|entry| entry.registration.as_ref());
        known.is_some_and(|known| pools.iter().any(|pool| pool.as_str() == known.pool) && sees(&known.tenant))
    };
    let running = state.cycles.values().filter(|cycle| cycle.phase == Phase::Running && is_ours(&cycle.repository));
    // One of each cycle in turn: whoever cannot do the shards of one is to see those of others.
    let mut each: Vec<_> = running.map(|cycle| cycle.waiting(now).map(|job| cycle.hint(job))).collect();
    if let Some(last) = each.len().checked_sub(1) {
        each.rotate_left(rand::Rng::random_range(&mut rand::rng(), 0..=last));
    }
    let mut hints = Vec::new();
    loop {
        let before = hints.len();
        hints.extend(each.iter_mut().filter_map(Iterator::next).take(JOBS_MAX - before));
        if hints.len() == before {
            return hints;
        }
    }
}

/// A worker says that it is there; it is told what is wanted of it.
pub(in crate::api) fn presence(server: &Arc<Server>, call: Call) -> Answer {
    server.check_leads()?;
    let Presence { worker, info, leaves } = read(&call)?;
    let id = verger_proto::CommandId(rand::Rng::random(&mut rand::rng()));
    let command = if leaves {
        Command::ForgetWorker { worker: worker.clone(), instance: info.instance }
    } else {
        Command::SeeWorker { worker: worker.clone(), info: Box::new(info.clone()) }
    };
    // What is known already is not asked of the log again.
    let is_news = server.state(|state| {
        let known = state.workers.get(&worker).filter(|known| known.info == info);
        leaves || known.is_none_or(|known| server.now().since(known.seen) >= crate::workers::KEPT_MILLISECONDS)
    });
    if is_news {
        Problem::among(&server.say(id, command)?)?;
    }
    let instructions = server.state(|state| Instructions {
        fleet: server.api.stand.fleet(),
        drain: state.workers.get(&worker).is_some_and(|known| known.drained),
        keys: state.work_keys.iter().map(|(node, key)| (*node, *key)).collect(),
    });
    record(&instructions)
}
