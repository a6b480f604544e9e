//! What is known of leases that others hold. For people alone: whoever wants a lease reads its object, and decides by that.

use serde::{Deserialize, Serialize};

use crate::driver::Driver;
use crate::id::WorkerId;
use crate::report::FailureKind;
use crate::term::Term;
use crate::time::{LogTime, StoreTime};

/// Longest name of a holder, and longest reason, in bytes: both come from elsewhere.
pub const TEXT_BYTES_MAX: usize = 255;

/// What the lease object of a repository said when it was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SeenLease {
    /// Who holds it, or held it last.
    pub holder: String,
    /// Its term.
    pub term: Term,
    /// Until when the holder may act, by the store's clock.
    pub acts_until: StoreTime,
    /// When it has expired unless it is written again, by the store's clock.
    pub expires: StoreTime,
    /// It was given back.
    pub free: bool,
}

/// A worker that cannot open a repository.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unable {
    /// Its name.
    pub worker: WorkerId,
    /// Who it is when it asks for work; the run does not matter.
    pub driver: Driver,
    /// What kind of failure that is: `Usage` for a secret that is not there.
    pub kind: FailureKind,
    /// Why: the place of a secret, never the secret.
    pub reason: String,
    /// When that was said.
    pub since: LogTime,
}

/// A text that fits, without anything that would show as something else.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = plain.floor_char_boundary(TEXT_BYTES_MAX);
    plain.truncate(end);
    plain
}

/// Whether it is as [`plain`] gives it.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    text.len() <= TEXT_BYTES_MAX && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_cut_and_shows_as_what_it_is() {
        assert_eq!(plain("verger@fleet-1"), "verger@fleet-1");
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a [2Jb ");
        let long = plain(&"ä".repeat(200));
        assert_eq!((long.len(), is_plain(&long)), (254, true));
        assert!(!is_plain("a\nb") && !is_plain(&"x".repeat(256)));
    }
}
