//! Cycles that a person, or a script, asks for: remembered by the value of a key, so that asking twice is asking once.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use verger_proto::schedule::Lane;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// Requests that may wait at once, of one repository.
pub const REQUESTS_MAX: usize = 32;
/// Keys of requests that have begun, kept to know them again.
pub const KEYS_KEPT: usize = 256;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It waits now.
    New,
    /// It waits already.
    Waiting,
    /// A cycle has begun for it.
    Begun,
    /// It is not taken: the key is empty or longer than [`KEY_BYTES_MAX`].
    BadKey,
    /// It is not taken: [`REQUESTS_MAX`] wait already.
    TooMany,
}

/// What was asked for, of one repository.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Requests {
    waiting: VecDeque<(Lane, String)>,
    begun: VecDeque<String>,
}

impl Requests {
    /// Asks for a cycle. The key alone counts: the same key with another lane is the same request.
    pub fn ask(&mut self, lane: Lane, key: &str) -> Asked {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            Asked::BadKey
        } else if self.waiting.iter().any(|(_, waiting)| waiting == key) {
            Asked::Waiting
        } else if self.begun.iter().any(|begun| begun == key) {
            Asked::Begun
        } else if self.waiting.len() >= REQUESTS_MAX {
            Asked::TooMany
        } else {
            self.waiting.push_back((lane, key.to_owned()));
            Asked::New
        }
    }

    /// The oldest request of this lane that waits.
    #[must_use]
    pub fn first(&self, lane: Lane) -> Option<&str> {
        self.waiting.iter().find(|(waiting, _)| *waiting == lane).map(|(_, key)| key.as_str())
    }

    /// A cycle has begun for this key, or the request was taken back: it never asks again. Says whether it waited.
    pub fn begin(&mut self, key: &str) -> bool {
        let Some(at) = self.waiting.iter().position(|(_, waiting)| waiting == key) else { return false };
        self.waiting.remove(at);
        self.begun.push_back(key.to_owned());
        while self.begun.len() > KEYS_KEPT {
            self.begun.pop_front();
        }
        true
    }
}
