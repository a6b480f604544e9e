//! Whether this process may take commands, and which others there are.

use serde_json::Value;
use verger_proto::Refusal;

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
    /// Another one does, and this one hands them on to it.
    HandsOn {
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

    /// The coordinators of the fleet, where there can be several.
    fn members(&self) -> Option<&dyn Members> {
        None
    }
}

/// The coordinators of a fleet. Calls block.
pub trait Members: Send + Sync {
    /// What this one knows of them, as it is shown.
    fn status(&self) -> Value;

    /// Takes one in, in the name of `actor`; it votes as soon as it has caught up. The same again is the same.
    ///
    /// # Errors
    /// [`MembersError`].
    fn admit(&self, actor: &str, newcomer: &Newcomer) -> Result<(), MembersError>;

    /// Lets one go, in the name of `actor`.
    ///
    /// # Errors
    /// [`MembersError`].
    fn remove(&self, actor: &str, node: u64) -> Result<(), MembersError>;
}

/// A coordinator that wants to become a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Newcomer {
    /// Its number.
    pub node: u64,
    /// Of its data folder.
    pub key: u128,
    /// Where others reach it.
    pub peer_address: String,
    /// Where people do.
    pub api_address: String,
    /// The member that leaves when it votes.
    pub replaces: Option<u64>,
    /// What the program knows that asks for it ([`verger_proto::level`]).
    pub level: u32,
}

/// Why the members stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// Ask the leader.
    #[error("another coordinator leads")]
    Elsewhere(Option<String>),
    /// The machine says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Its program knows less than the cluster goes by.
    #[error("its program knows level {knows}, and the cluster is at level {cluster}")]
    TooOld {
        /// What it knows.
        knows: u32,
        /// What the cluster goes by.
        cluster: u32,
    },
    /// It cannot be, for this reason.
    #[error("{0}")]
    Impossible(String),
    /// It may have happened: look, and ask again.
    #[error("{0}")]
    Unknown(String),
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
