//! Failures that stop a node: kept here with their fix, because openraft hands on only a text.

use std::sync::{Arc, Mutex, PoisonError};

use openraft::{AnyError, ErrorSubject, ErrorVerb, StorageIOError};
use verger_kopia::error::{Error, ErrorKind};

use super::types::StorageError;

/// The first failure of a node's storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures(Arc<Mutex<Option<First>>>);

#[derive(Debug)]
struct First {
    kind: ErrorKind,
    text: String,
    fix: Option<String>,
}

impl Failures {
    /// Keeps `error` if it is the first, and makes of it what openraft stops for.
    pub(crate) fn stop(&self, subject: ErrorSubject<u64>, verb: ErrorVerb, error: &Error) -> StorageError {
        self.note(error);
        StorageError::IO { source: StorageIOError::new(subject, verb, AnyError::error(error.chain())) }
    }

    /// Keeps `error` if it is the first.
    pub(crate) fn note(&self, error: &Error) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(|| First {
            kind: error.kind(),
            text: error.chain(),
            fix: error.fix().map(str::to_owned),
        });
    }

    /// Why the node stopped; `otherwise` if its storage has nothing to do with it.
    pub(crate) fn first(&self, otherwise: &str) -> Error {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(First { kind, text, fix }) => {
                let error = Error::new(*kind, text.clone());
                fix.iter().fold(error, |error, fix| error.with_fix(fix.clone()))
            }
            None => Error::new(ErrorKind::Interrupted, otherwise),
        }
    }
}
