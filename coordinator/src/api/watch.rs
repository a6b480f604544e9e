//! A cycle as it goes on, until it ends.

use std::io;
use std::sync::Arc;

use axum::body::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use super::call::Call;
use super::cycles::find;
use super::feed::{Listener, listen, message};
use super::server::{Answer, Server};

pub(super) fn watch(server: &Arc<Server>, call: Call) -> Answer {
    let pulse = server.pulse.subscribe();
    let now = find(server, &call, true)?;
    let (listener, response) = listen(server, "text/event-stream")?;
    tokio::spawn(tell(server.clone(), call, now, listener, pulse));
    Ok(response)
}

fn kind(before: &Value, now: &Value) -> &'static str {
    if now["phase"] == "ended" {
        "end"
    } else if before["stage"] != now["stage"] || before["phase"] != now["phase"] {
        "stage"
    } else {
        "progress"
    }
}

async fn tell(
    server: Arc<Server>,
    mut call: Call,
    mut now: Value,
    mut listener: Listener,
    mut pulse: watch::Receiver<u64>,
) {
    let mut before = Value::Null;
    loop {
        if now != before {
            let kind = kind(&before, &now);
            let sent = listener.send(Ok(Bytes::from(message(None, kind, &now.to_string())))).await;
            if !sent || kind == "end" {
                return;
            }
        }
        if !listener.next(&mut pulse).await {
            return;
        }
        before = now;
        let on = server.clone();
        let read = tokio::task::spawn_blocking(move || {
            let found = if call.is_still_allowed(on.api.gate.as_ref()) { find(&on, &call, true).ok() } else { None };
            (call, found)
        });
        match read.await {
            Ok((same, Some(found))) => (call, now) = (same, found),
            _ => {
                listener.send(Err(io::Error::other("the cycle cannot be followed on"))).await;
                return;
            }
        }
    }
}
