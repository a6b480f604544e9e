//! Where one of several coordinators stands: commands are taken at any of them, as long as somebody leads.

use verger_coordinator::api::{self, Stand, Standing};
use verger_coordinator::raft::members::{Members, Role};

/// One of several.
pub(super) struct Together {
    /// The fleet's own name.
    pub(super) fleet: String,
    pub(super) members: Members,
}

impl Stand for Together {
    fn standing(&self) -> Standing {
        match self.members.role() {
            Role::Leads => Standing::Leads,
            Role::Follows(leader) => Standing::HandsOn { leader: self.members.api_of(leader) },
            Role::Lost(why) => Standing::Unready(why),
        }
    }

    fn fleet(&self) -> String {
        self.fleet.clone()
    }

    fn members(&self) -> Option<&dyn api::Members> {
        Some(&self.members)
    }
}
