//! The real program, stopped at a moment that its ledger tells.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use verger_coordinator::ledger::file::FileLedger;
use verger_proto::Event;

/// Shows each event of the only ledger below this home.
pub fn events(home: &Path, mut see: impl FnMut(&Event)) {
    let Ok(states) = std::fs::read_dir(home.join("state/verger")) else { return };
    let Some(folder) = states.flatten().map(|entry| entry.path()).find(|path| path.is_dir()) else { return };
    let _ = FileLedger::read(&folder, |record| {
        record.entry.events.iter().for_each(&mut see);
        Ok(())
    });
}

/// How many batches were approved.
pub fn approvals(home: &Path) -> usize {
    let mut count = 0;
    events(home, |event| count += usize::from(matches!(event, Event::BatchApproved { .. })));
    count
}

/// A batch was approved, and nothing told yet what became of it.
pub fn has_approval(home: &Path) -> bool {
    let mut open = false;
    events(home, |event| open = matches!(event, Event::BatchApproved { .. }));
    open
}

/// A cycle has begun to change something, and has not ended.
pub fn is_inside(home: &Path) -> bool {
    let mut inside = false;
    events(home, |event| match event {
        Event::BatchApproved { .. } => inside = true,
        Event::LeaseTaken { .. } | Event::CycleClosed { .. } | Event::CycleParked { .. } => inside = false,
        _ => {}
    });
    inside
}

pub fn send(child: &Child, signal: Signal) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_child(child), signal);
}

/// A process that was stopped when this came true; another one if it ended before.
pub fn catch(mut spawn: impl FnMut() -> Child, is_there: impl Fn() -> bool) -> Child {
    for _ in 0..50 {
        let mut child = spawn();
        while child.try_wait().unwrap().is_none() {
            send(&child, Signal::STOP);
            // It stands a moment later.
            std::thread::sleep(Duration::from_millis(1));
            if is_there() {
                return child;
            }
            send(&child, Signal::CONT);
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    panic!("no process was caught");
}
