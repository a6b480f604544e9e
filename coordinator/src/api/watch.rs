//! A cycle as it goes on, until it ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use verger_proto::CycleId;

use super::call::Call;
use super::cycles::find;
use super::feed::{Listener, listen, message};
use super::server::{Answer, Server};

/// How often whoever leads is asked.
const ASK_EVERY: Duration = Duration::from_millis(400);

pub(super) fn watch(server: &Arc<Server>, call: Call) -> Answer {
    let pulse = server.pulse.subscribe();
    let (cycle, now) = (call.cycle()?, find(server, &call, true)?);
    let (listener, response) = listen(server, "text/event-stream")?;
    let on = server.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = tell(on.clone(), call, now, listener, pulse) => {}
            () = ask(on.clone(), cycle) => {}
        }
    });
    Ok(response)
}

/// Keeps hearing from whoever leads. What is news wakes all that follow something.
async fn ask(server: Arc<Server>, cycle: CycleId) {
    loop {
        let on = server.clone();
        if tokio::task::spawn_blocking(move || on.ask_words(cycle)).await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
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
