//! What came of verifying a repository, as whoever did so tells it.

use std::sync::Arc;

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use verger_kopia::error::ErrorKind;
use verger_proto::{Command, SHARE_ALL, Verification};

use super::call::Call;
use super::health::ok;
use super::problem::Problem;
use super::repositories::{find, shown};
use super::server::{Answer, Server};
use super::show;
use crate::machine::Verified;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    unique_id: String,
    percent: f64,
    snapshots: u64,
    contents: u64,
    contents_read: u64,
    bytes_read: u64,
    problems: u64,
}

/// Keeps it, if it is of this repository: addresses and names are mixed up easily, and then nobody would look at the right one.
pub(super) fn tell(server: &Arc<Server>, call: Call) -> Answer {
    let (repository, known) = find(server, &call)?;
    let Body { unique_id, percent, snapshots, contents, contents_read, bytes_read, problems } = call.json()?;
    if !(0.0..=100.0).contains(&percent) {
        return Err(Problem::bad_request("percent: must be 0 to 100"));
    }
    if unique_id != repository.unique.as_str() {
        let name = known.name.as_str();
        let message = format!("{unique_id:?} was verified, and {name} is {}", repository.unique);
        let fix = "tell it of the repository that was verified";
        return Err(Problem::new(StatusCode::CONFLICT, ErrorKind::Usage.name(), message).with_fix(fix));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
    let share = (percent * f64::from(SHARE_ALL) / 100.0).round() as u16;
    let verification = Verification { share, snapshots, contents, contents_read, bytes_read, problems };
    server.order(&call.actor, Command::RecordVerification { repository: repository.clone(), verification })?;
    ok(&shown(server, &repository)?)
}

/// The last one, and when one found nothing wrong.
pub(super) fn show(verified: &Verified) -> Value {
    let Verified { last, at, sound_at } = verified;
    let mut value = json!({
        "at": show::at(*at),
        "percent": f64::from(last.share) * 100.0 / f64::from(SHARE_ALL),
        "snapshots": last.snapshots,
        "contents": last.contents,
        "contentsRead": last.contents_read,
        "bytesRead": last.bytes_read,
        "problems": last.problems,
    });
    if let Some(sound_at) = sound_at {
        value["soundAt"] = show::at(*sound_at);
    }
    value
}
