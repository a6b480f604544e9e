//! Says every few seconds that the worker is there, and hears what is wanted of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use verger_coordinator::api::work::{Instructions, Presence as Word};
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::{WorkerId, WorkerInfo};

use super::Crew;
use super::link::Link;

/// How often.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// The worker, as it says of itself.
pub(super) struct Presence {
    link: Arc<Link>,
    word: Word,
}

impl Presence {
    pub(super) fn new(link: Arc<Link>, worker: WorkerId, info: WorkerInfo) -> Self {
        Self { link, word: Word { worker, info, leaves: false } }
    }

    /// Says it once.
    ///
    /// # Errors
    /// `Locked` if a later process has its name; what the coordinator says.
    pub(super) fn announce(&self) -> Result<Instructions> {
        self.link.presence(&self.word).map_err(|error| {
            if error.kind() != ErrorKind::PlanRefused {
                return error;
            }
            Error::new(ErrorKind::Locked, format!("the name {} is taken", self.word.worker))
                .with_source(error)
                .with_fix("Give each worker a name of its own (--name), or none: then it makes one")
        })
    }

    /// Once more, for the crew; the error that ends the worker, if there is one.
    pub(super) fn renew(&self, crew: &Crew) -> Option<Error> {
        match self.announce() {
            Ok(instructions) => {
                crew.counts.heard(&*crew.clock);
                crew.keys.replace(instructions.keys.iter().copied());
                if crew.drained.swap(instructions.drain, Ordering::Relaxed) != instructions.drain {
                    let text =
                        if instructions.drain { "nothing new is taken from now on" } else { "work is taken again" };
                    tracing::info!(worker = %crew.name, "{text}");
                }
                None
            }
            Err(error) if error.kind() == ErrorKind::Locked => Some(error),
            Err(error) => {
                tracing::warn!(error = error.chain(), "no coordinator was told that this worker is there");
                None
            }
        }
    }

    /// Says that it goes; that nobody hears it costs nothing.
    pub(super) fn leave(&self) {
        let word = Word { leaves: true, ..self.word.clone() };
        if let Err(error) = self.link.presence(&word) {
            tracing::debug!(error = error.chain(), "nobody was told that this worker goes");
        }
    }
}
