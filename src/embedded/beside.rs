//! What goes on beside some work.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

/// Does `work`, while another thread does something each time that `every` has passed, until the work is done or it has had enough.
pub(super) fn beside<T>(
    every: Duration,
    mut now_and_then: impl FnMut() -> ControlFlow<()> + Send,
    work: impl FnOnce() -> T,
) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::thread::park_timeout(every);
                if over.load(Ordering::Relaxed) || now_and_then().is_break() {
                    return;
                }
            }
        });
        // Also when the work panics: the scope waits for the other, which would go on for ever.
        let _end = EndOfWork { over: &over, other: other.thread() };
        work()
    })
}

struct EndOfWork<'a> {
    over: &'a AtomicBool,
    other: &'a Thread,
}

impl Drop for EndOfWork<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.other.unpark();
    }
}
