//! The queue of one process.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{Hint, Queue, QueueClosed};

/// The queue of one process: a channel.
#[derive(Debug)]
pub struct LocalQueue {
    sender: Mutex<Option<Sender<Hint>>>,
    receiver: Receiver<Hint>,
}

impl Default for LocalQueue {
    fn default() -> Self {
        let (sender, receiver) = unbounded();
        Self { sender: Mutex::new(Some(sender)), receiver }
    }
}

impl Queue for LocalQueue {
    fn offer(&self, hint: Hint) -> Result<(), QueueClosed> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().ok_or(QueueClosed)?.send(hint).map_err(|_| QueueClosed)
    }

    fn take(&self, wait: Duration) -> Result<Option<Hint>, QueueClosed> {
        match self.receiver.recv_timeout(wait) {
            Ok(hint) => Ok(Some(hint)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(QueueClosed),
        }
    }

    fn close(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CycleId, JobId, Stage, Term};

    #[test]
    fn hints_come_in_order_and_a_closed_queue_is_emptied_first() {
        let queue = LocalQueue::default();
        let repository = format!("{}-{}", "ab".repeat(32), "01".repeat(16)).parse().unwrap();
        let hint = |job| Hint {
            repository: Clone::clone(&repository),
            cycle: CycleId(1),
            job: JobId(job),
            attempt: 1,
            term: Term(1),
            stage: Stage::Scan,
        };
        assert_eq!(queue.take(Duration::ZERO), Ok(None));
        queue.offer(hint(1)).unwrap();
        queue.offer(hint(2)).unwrap();
        queue.close();
        assert_eq!(queue.offer(hint(3)), Err(QueueClosed));
        assert_eq!(queue.take(Duration::ZERO), Ok(Some(hint(1))));
        assert_eq!(queue.take(Duration::ZERO), Ok(Some(hint(2))));
        assert_eq!(queue.take(Duration::ZERO), Err(QueueClosed));
    }
}
