//! What can be done, and what it takes.

use std::fmt;

use serde::{Deserialize, Serialize};
use verger_proto::Scope;

/// Whose an action's object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nobody's: open to everyone, a token or none.
    Open,
    /// A tenant's.
    Tenant,
    /// The fleet's own, or everyone's at once.
    Fleet,
}

/// Action, name, reach and scopes in one table: an action that is not in it does not exist.
macro_rules! actions {
    ($($(#[$doc:meta])* $action:ident $name:literal $reach:ident [$($scope:ident)*];)*) => {
        /// Everything that the API can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Action { $($(#[$doc])* $action,)* }

        impl Action {
            /// All.
            pub const ALL: &[Action] = &[$(Action::$action),*];

            /// As in messages.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Action::$action => $name,)* }
            }

            /// Whose its object is.
            #[must_use]
            pub fn reach(self) -> Reach {
                match self { $(Action::$action => Reach::$reach,)* }
            }

            /// The scopes that it needs, all of them.
            #[must_use]
            pub fn needs(self) -> &'static [Scope] {
                match self { $(Action::$action => &[$(Scope::$scope),*],)* }
            }
        }
    };
}

actions! {
    /// List repositories.
    RepoList "repo list" Tenant [Read];
    /// Show one.
    RepoShow "repo show" Tenant [Read];
    /// Add one: Verger may delete in it from then on.
    RepoAdd "repo add" Tenant [Admin];
    /// Change one.
    RepoEdit "repo edit" Tenant [Admin];
    /// Look after one no more.
    RepoRemove "repo remove" Tenant [Admin];
    /// Try what its store can do.
    RepoProbe "repo probe" Tenant [Operate];
    /// Say what came of verifying one.
    RepoVerify "repo verify" Tenant [Operate];
    /// Start a cycle.
    CycleStart "cycle start" Tenant [Operate];
    /// Start a cycle with a person's word in advance (`--allow-removing`, `--i-am-alone`, `--exclusive`): an approval, too.
    CycleStartWithWord "cycle start with a person's word" Tenant [Operate Approve];
    /// List cycles.
    CycleList "cycle list" Tenant [Read];
    /// Show one.
    CycleShow "cycle show" Tenant [Read];
    /// Follow one.
    CycleWatch "cycle watch" Tenant [Read];
    /// Park one.
    CyclePause "cycle pause" Tenant [Operate];
    /// Go on with one.
    CycleResume "cycle resume" Tenant [Operate];
    /// End one.
    CycleAbort "cycle abort" Tenant [Operate];
    /// Give a person's word for a plan.
    CycleApprove "cycle approve" Tenant [Approve];
    /// Read the ledger.
    Events "events" Tenant [Read];
    /// List leases.
    LeaseList "lease list" Tenant [Read];
    /// Hand a lease to another fleet.
    LeaseTransfer "lease transfer" Tenant [Admin];
    /// Give a lease back.
    LeaseRelease "lease release" Tenant [Admin];
    /// Make a token.
    TokenCreate "token create" Tenant [Admin];
    /// List tokens.
    TokenList "token list" Tenant [Admin];
    /// Revoke a token.
    TokenRevoke "token revoke" Tenant [Admin];
    /// Look at the coordinators.
    ClusterStatus "cluster status" Fleet [Read];
    /// Begin a cluster.
    ClusterInit "cluster init" Fleet [Admin];
    /// Add a coordinator.
    ClusterJoin "cluster join" Fleet [Admin];
    /// Take one out.
    ClusterRemove "cluster remove" Fleet [Admin];
    /// Exchange one.
    ClusterReplace "cluster replace" Fleet [Admin];
    /// List workers.
    WorkerList "worker list" Fleet [Read];
    /// Give a worker nothing new.
    WorkerDrain "worker drain" Fleet [Operate];
    /// Do the work of cycles, as workers do.
    Work "work" Tenant [Work];
    /// Read the metrics, which name everyone's repositories.
    Metrics "metrics" Fleet [Read];
    /// Alive and ready, or not.
    Health "health" Open [];
    /// How much there is, as far as the caller sees it.
    Status "status" Tenant [Read];
    /// What can be asked.
    Describe "describe" Open [];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
