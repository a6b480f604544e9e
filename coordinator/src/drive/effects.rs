//! Runs the effects that concern one repository's workers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use verger_proto::Effect;
use verger_proto::queue::{Hint, Queue};

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

    /// Runs one.
    pub fn run(&self, effect: Effect) {
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
