//! Whether this process may take commands.

/// Where a process stands among those that look after the same repositories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It takes commands.
    Leads,
    /// Another one does.
    Follows {
        /// Its address, if it is known.
        leader: Option<String>,
    },
    /// Nobody does now, for this reason.
    Unready(String),
}

/// Tells where a process stands. Must be quick.
pub trait Stand: Send + Sync {
    /// Where it stands now.
    fn standing(&self) -> Standing;

    /// The fleet's own name (`verger@fleet-<8 hex>`), which its leases and its ownership are under.
    fn fleet(&self) -> String;
}

/// The only process that there is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alone {
    /// The fleet's own name.
    pub fleet: String,
}

impl Stand for Alone {
    fn standing(&self) -> Standing {
        Standing::Leads
    }

    fn fleet(&self) -> String {
        self.fleet.clone()
    }
}
