//! The coordinators of the fleet: who there is, who comes, who goes.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use verger_kopia::error::ErrorKind;

use super::call::Call;
use super::health::{json_answer, ok};
use super::problem::Problem;
use super::server::{Answer, Server};
use super::{Members, MembersError, Newcomer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NewMember {
    node: u64,
    /// 32 hexadecimal digits.
    key: String,
    peer_address: String,
    api_address: String,
    replaces: Option<u64>,
    /// What the program knows that asks; those from before there were levels do not say it.
    #[serde(default)]
    level: u32,
}

fn members(server: &Server) -> Result<&dyn Members, Problem> {
    server.api.stand.members().ok_or_else(|| {
        Problem::not_found("this coordinator is alone by design (verger up): it has no members")
            .with_fix("use `verger coordinator` for several")
    })
}

pub(super) fn status(server: &Arc<Server>, _: Call) -> Answer {
    ok(&members(server)?.status())
}

pub(super) fn admit(server: &Arc<Server>, call: Call) -> Answer {
    let members = members(server)?;
    let body: NewMember = call.json()?;
    let key = u128::from_str_radix(&body.key, 16).ok().filter(|_| body.key.len() == 32);
    let key = key.ok_or_else(|| Problem::bad_request("key: must be 32 hexadecimal digits"))?;
    if body.node == 0 {
        return Err(Problem::bad_request("node: numbers begin with 1"));
    }
    for (field, address) in [("peerAddress", &body.peer_address), ("apiAddress", &body.api_address)] {
        if address.is_empty() || address.len() > 512 {
            return Err(Problem::bad_request(format!("{field}: must have 1 to 512 characters")));
        }
    }
    let NewMember { node, peer_address, api_address, replaces, level, .. } = body;
    let newcomer = Newcomer { node, key, peer_address, api_address, replaces, level };
    members.admit(call.actor.name(), &newcomer).map_err(problem)?;
    Ok(json_answer(StatusCode::ACCEPTED, &members.status()))
}

pub(super) fn remove(server: &Arc<Server>, call: Call) -> Answer {
    let members = members(server)?;
    let text = call.parameter("id");
    let node = text.parse().map_err(|_| Problem::not_found(format!("no coordinator has the number {text:?}")))?;
    members.remove(call.actor.name(), node).map_err(problem)?;
    ok(&members.status())
}

fn problem(error: MembersError) -> Problem {
    match error {
        MembersError::Elsewhere(leader) => Problem::not_leader(leader),
        MembersError::Refused(refusal) => {
            let fix = "give it a number that no coordinator of this cluster ever had, and an empty data folder";
            Problem::refused(&refusal).with_fix(fix)
        }
        MembersError::TooOld { knows, cluster } => {
            let why = format!("the program that asks knows level {knows}, and the cluster is at level {cluster}");
            let fix = "join with the program that the coordinators of this cluster run, or a newer one";
            Problem::new(StatusCode::CONFLICT, ErrorKind::Unsupported.name(), why).with_fix(fix)
        }
        MembersError::Impossible(why) => Problem::new(StatusCode::CONFLICT, "members", why),
        MembersError::Unknown(why) => Problem::later("members", why),
    }
}
