//! What the interface needs of whoever can reach stores: it opens none itself.

use std::time::Duration;

use verger_kopia::error::Result;
use verger_proto::{
    Acting, IndexKind, Own, Registration, RepositoryId, RepositoryName, SecretRef, SeenLease, StoreProbe, Term,
};

/// A repository that somebody wants to have looked after, or looked at again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Name.
    pub name: RepositoryName,
    /// Address, without secrets.
    pub address: String,
    /// Where its password is.
    pub password: SecretRef,
    /// In whose name it is to be maintained.
    pub acting: Acting,
    /// A person's word that nobody else maintains it.
    pub exclusive: bool,
    /// What it was when it was added, if it was.
    pub known: Option<RepositoryId>,
}

/// What was found at an address.
#[derive(Clone, PartialEq, Debug)]
pub struct Probed {
    /// Which repository it is.
    pub repository: RepositoryId,
    /// Which index it has.
    pub index: IndexKind,
    /// Kopia's maintenance owner (`user@host`); empty if nobody is.
    pub owner: String,
    /// Its own settings of when maintenance is due, if they were read.
    pub own: Option<Own>,
    /// What its store was seen to do.
    pub store: StoreProbe,
    /// What its lease object says, if there is one.
    pub lease: Option<SeenLease>,
}

/// Reaches stores. Calls block; the interface makes them on threads of their own.
pub trait Hands: Send + Sync {
    /// Opens the repository, and probes its store with objects that it removes again. Then the store says which one it is, to this fleet
    /// and to all others, by a free lease object where there was none. Nothing is written where it is only observed.
    ///
    /// # Errors
    /// Whatever opening says; never with a secret in its text (S9). `Permission` if it cannot be written to.
    fn probe(&self, wanted: &Wanted) -> Result<Probed>;

    /// How long requests may be under way that somebody sent under this term, or the holder before him.
    ///
    /// # Errors
    /// Whatever the store says.
    fn under_way(&self, known: &Registration, holder: &str, term: Term) -> Result<Duration>;

    /// Writes "free" into the lease object that `holder` wrote under this term, `next` for that holder alone. Nothing acts under it
    /// any more when this is called.
    ///
    /// # Errors
    /// The object may still name this term: then it is free when its time is over.
    fn free_lease(&self, known: &Registration, holder: &str, term: Term, next: Option<&str>) -> Result<()>;

    /// Takes the lease, which nobody may hold, and gives it back for `next` alone.
    ///
    /// # Errors
    /// `Locked` if somebody holds it; whatever the store says.
    fn hand_over_lease(&self, known: &Registration, repository: &RepositoryId, holder: &str, next: &str) -> Result<()>;
}
