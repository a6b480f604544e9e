//! Who calls: the holder of which token. What they may do, `auth` says.

use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use verger_kopia::clock::Clock;
use verger_proto::{Access, Digest, LogTime, Scope, Scopes};

use crate::auth::oidc::{Mistrust, TOKEN_BYTES_MAX, is_presented};
use crate::auth::{Actor, Bearer, Denied, OWNER};
use crate::drive::Backend;
use crate::providers::Providers;

/// Tells who holds a token. Must be quick: it is asked before anything of a request is read.
pub trait Gate: Send + Sync {
    /// Who holds `bearer` now; without one, nobody that is known.
    ///
    /// # Errors
    /// [`Denied`]: a token that is not known, that has expired, or that was revoked.
    fn actor(&self, bearer: Option<&str>) -> Result<Actor, Denied>;

    /// Over when nothing is under way any more that could make another answer for `bearer`, and soon in any case.
    fn settled<'a>(&'a self, bearer: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let _ = bearer;
        Box::pin(ready(()))
    }
}

/// The tokens that the machine keeps; the owner's, which is in no ledger and may do everything; and those of identity providers.
pub struct TokenGate {
    owner: Option<Digest>,
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    providers: Option<Providers>,
}

impl std::fmt::Debug for TokenGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenGate").finish_non_exhaustive()
    }
}

impl TokenGate {
    /// A gate for the tokens in the state of `backend`, valid by `clock`. `owner`: hash ([`Bearer::hash`]) of the token of whoever runs
    /// this process.
    #[must_use]
    pub fn new(owner: Option<Digest>, backend: Arc<dyn Backend>, clock: Arc<dyn Clock>) -> Self {
        Self { owner, backend, clock, providers: None }
    }

    /// Believes these providers, too.
    #[must_use]
    pub fn with_providers(self, providers: Providers) -> Self {
        Self { providers: Some(providers), ..self }
    }

    fn now(&self) -> LogTime {
        LogTime::of(self.clock.now())
    }
}

impl Gate for TokenGate {
    fn actor(&self, bearer: Option<&str>) -> Result<Actor, Denied> {
        let Some(bearer) = bearer else { return Ok(Actor::Anonymous) };
        if bearer.len() > TOKEN_BYTES_MAX {
            return Err(Mistrust::TooLong.into());
        }
        if let Some(providers) = self.providers.as_ref().filter(|_| is_presented(bearer)) {
            return providers.actor(bearer, self.now());
        }
        let bearer = Bearer::parse(bearer).map_err(|_| Denied::Unknown)?;
        // Hashes are compared, and in constant time: how long it takes says nothing of how much of a guess was right.
        let is_owner = self.owner.is_some_and(|owner| bool::from(owner.as_bytes().ct_eq(bearer.hash().as_bytes())));
        if is_owner {
            let scopes = Scopes::of(&[Scope::Admin]);
            return Ok(Actor::Known { name: OWNER.to_owned(), access: Access::All, scopes });
        }
        let now = self.now();
        let mut found = Err(Denied::Unknown);
        self.backend.look(&mut |state| found = state.tokens.actor(&bearer, now));
        found
    }

    fn settled<'a>(&'a self, bearer: &'a str) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        match self.providers.as_ref().filter(|_| is_presented(bearer)) {
            Some(providers) => Box::pin(providers.settled(bearer)),
            None => Box::pin(ready(())),
        }
    }
}
