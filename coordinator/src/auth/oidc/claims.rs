//! What a token says, once it is believed.

use serde_json::{Map, Value};

use super::provider::Holds;

/// Claims whose text is a list of words (RFC 8693, and what others made of it).
const LISTS_OF_WORDS: [&str; 2] = ["scope", "scp"];

/// The claims of a token.
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// A claim of this name; else what is found on the way that its dots describe.
    fn find(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(name) {
            return Some(value);
        }
        let mut steps = name.split('.');
        let first = self.0.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.as_object()?.get(step))
    }

    /// Texts alone count: no number and no truth value is somebody's group.
    pub(super) fn hold(&self, holds: &Holds) -> bool {
        let is_list = LISTS_OF_WORDS.contains(&holds.claim.as_str());
        match self.find(&holds.claim) {
            Some(Value::String(text)) if is_list => text.split(' ').any(|word| word == holds.value),
            Some(Value::String(text)) => *text == holds.value,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(holds.value.as_str())),
            _ => false,
        }
    }

    /// The one text that a claim holds. Of several none is taken.
    pub(super) fn only(&self, name: &str) -> Option<&str> {
        match self.find(name)? {
            Value::String(text) => Some(text),
            Value::Array(all) if all.len() == 1 => all[0].as_str(),
            _ => None,
        }
    }

    /// A time in seconds, whole or not.
    ///
    /// # Errors
    /// It is there, and is none.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<f64>, ()> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or(()),
        }
    }
}
