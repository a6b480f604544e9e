//! Two clocks that are never mixed: the one that stamps records, and the store's.

use serde::{Deserialize, Serialize};

macro_rules! time {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// This moment; one before 1970 counts as 1970.
            #[must_use]
            pub fn of(at: jiff::Timestamp) -> Self {
                Self(u64::try_from(at.as_millisecond()).unwrap_or_default())
            }

            /// Milliseconds since `earlier`; 0 if it is later.
            #[must_use]
            pub fn since(self, earlier: Self) -> u64 {
                self.0.saturating_sub(earlier.0)
            }

            /// This many milliseconds later, or the end of time.
            #[must_use]
            pub fn plus(self, milliseconds: u64) -> Self {
                Self(self.0.saturating_add(milliseconds))
            }
        }
    };
}

time! {
    /// When a record entered the log, by the clock of whoever leads: milliseconds since 1970.
    LogTime
}
time! {
    /// The store's clock: milliseconds since 1970.
    StoreTime
}
