//! The one gate.

use verger_proto::{Access, Scope, Scopes, Tenant};

use super::action::{Action, Reach};
use super::oidc::Mistrust;

/// Who asks. Made from a token, or from what an identity provider vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// Nobody known.
    Anonymous,
    /// Somebody.
    Known {
        /// Name, for events.
        name: String,
        /// Whose things.
        access: Access,
        /// What for.
        scopes: Scopes,
    },
}

impl Actor {
    /// For events: who did it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Actor::Anonymous => "anonymous",
            Actor::Known { name, .. } => name,
        }
    }
}

/// No. What, why, and the fix; never who else there is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token.
    #[error("`{0}` needs a token; ask an administrator for one")]
    Anonymous(Action),
    /// A token that is not known.
    #[error("the token is not valid; ask an administrator for a new one")]
    Unknown,
    /// Too late.
    #[error("the token {0:?} has expired; ask an administrator for a new one")]
    Expired(String),
    /// Taken back.
    #[error("the token {0:?} was revoked; ask an administrator for a new one")]
    Revoked(String),
    /// An identity provider's token that is not believed.
    #[error(transparent)]
    Mistrusted(#[from] Mistrust),
    /// An identity provider vouches for somebody who belongs to no tenant.
    #[error("{0:?} belongs to no tenant here; ask an administrator which claim of the provider's tokens says so")]
    NoTenant(String),
    /// A scope is missing.
    #[error("`{action}` needs the scope `{needs}`, which {name:?} does not have")]
    Scope {
        /// What was to be done.
        action: Action,
        /// The scope.
        needs: Scope,
        /// Who.
        name: String,
    },
    /// Somebody else's, or nobody's that was named.
    #[error("`{action}`: {name:?} reaches its own tenant only")]
    Tenant {
        /// What was to be done.
        action: Action,
        /// Who.
        name: String,
    },
}

impl Denied {
    /// HTTP status: 401 if it is not known who asks, else 403.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Denied::Anonymous(_)
            | Denied::Unknown
            | Denied::Expired(_)
            | Denied::Revoked(_)
            | Denied::Mistrusted(_) => 401,
            Denied::NoTenant(_) | Denied::Scope { .. } | Denied::Tenant { .. } => 403,
        }
    }
}

/// May this actor do this, to something of this tenant? `None` stands for everyone's: an action over all tenants at once.
///
/// # Errors
/// [`Denied`] in every case that is not allowed expressly.
pub fn authorize(actor: &Actor, action: Action, tenant: Option<&Tenant>) -> Result<(), Denied> {
    if action.reach() == Reach::Open {
        return Ok(());
    }
    let Actor::Known { name, access, scopes } = actor else { return Err(Denied::Anonymous(action)) };
    let reaches = match (access, action.reach(), tenant) {
        (Access::All, _, _) => true,
        (Access::One(own), Reach::Tenant, Some(tenant)) => own == tenant,
        _ => false,
    };
    // The tenant comes first: who may not see a thing does not learn what it would take to touch it.
    if !reaches {
        return Err(Denied::Tenant { action, name: name.clone() });
    }
    match action.needs().iter().find(|scope| !scopes.contains(**scope)) {
        Some(needs) => Err(Denied::Scope { action, needs: *needs, name: name.clone() }),
        None => Ok(()),
    }
}

/// May this actor do this at all: to something of its own, or of everyone's? What it may be done to is asked when it is known.
///
/// # Errors
/// [`Denied`].
pub fn enter(actor: &Actor, action: Action) -> Result<(), Denied> {
    match actor {
        Actor::Known { access: Access::One(own), .. } => authorize(actor, action, Some(own)),
        _ => authorize(actor, action, None),
    }
}

/// May this actor make or revoke a token with this access? It has to be an administrator of all that the token reaches; as
/// `admin` is every scope, nobody so gives more than they have.
///
/// # Errors
/// [`Denied`].
pub fn authorize_token(actor: &Actor, action: Action, access: &Access) -> Result<(), Denied> {
    match access {
        Access::One(tenant) => authorize(actor, action, Some(tenant)),
        Access::All => authorize(actor, action, None),
    }
}
