//! Runs the effects that concern one repository's workers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use verger_proto::queue::{Hint, Queue};
use verger_proto::{Effect, RepositoryId};

/// Runs effects; quickly, and without submitting.
pub trait Run: Send + Sync {
    /// Runs one.
    fn run(&self, effect: Effect);
}

/// Hints for the workers, and orders for whoever writes the lease object.
pub struct Effects {
    queue: Arc<dyn Queue>,
    lease_orders: Mutex<VecDeque<Effect>>,
}

impl Effects {
    /// Hints go into `queue`.
    #[must_use]
    pub fn new(queue: Arc<dyn Queue>) -> Self {
        Self { queue, lease_orders: Mutex::default() }
    }

    fn orders(&self) -> MutexGuard<'_, VecDeque<Effect>> {
        self.lease_orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next order about the lease.
    #[must_use]
    pub fn next_lease_order(&self) -> Option<Effect> {
        self.orders().pop_front()
    }

    /// Orders of a time before.
    pub(super) fn forget(&self) {
        self.orders().clear();
    }
}

impl Run for Effects {
    fn run(&self, effect: Effect) {
        match effect {
            // A queue that is closed has no workers left; the offer is made again after a start.
            Effect::OfferJob(job) => drop(self.queue.offer(Hint::from(job.as_ref()))),
            // Workers of this process see the state itself when they say how far they are.
            Effect::StopJob { .. } => {}
            order @ (Effect::RenewLease { .. } | Effect::CloseLease { .. }) => {
                let mut orders = self.orders();
                if !orders.contains(&order) {
                    orders.push_back(order);
                }
            }
        }
    }
}

/// Takes the effects of all repositories to those who run them. One that nobody is there for is lost, which costs time only: whoever
/// comes is told again (`Tick`).
#[derive(Default)]
pub struct Router(Mutex<BTreeMap<RepositoryId, Arc<Effects>>>);

impl Router {
    fn known(&self) -> MutexGuard<'_, BTreeMap<RepositoryId, Arc<Effects>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Effects of this repository go there from now on.
    pub fn join(&self, repository: RepositoryId, effects: Arc<Effects>) {
        self.known().insert(repository, effects);
    }

    /// Nobody is at work on this repository any more.
    pub fn leave(&self, repository: &RepositoryId) {
        self.known().remove(repository);
    }
}

impl Run for Router {
    fn run(&self, effect: Effect) {
        let repository = match &effect {
            Effect::OfferJob(job) => &job.repository,
            Effect::RenewLease { repository, .. } | Effect::CloseLease { repository, .. } => repository,
            Effect::StopJob { .. } => return,
        };
        let there = self.known().get(repository).cloned();
        if let Some(there) = there {
            there.run(effect);
        }
    }
}
