//! Whose work the calls of a store are. They come from many threads, so the span that theirs hang below is here and in no thread.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Span;

/// The name under which spans of cycles are asked for.
pub const CYCLE_SPANS: &str = "verger::cycle";
/// The name under which spans of storage calls are asked for.
pub const STORE_SPANS: &str = "verger::store";

/// Storage calls of one job that get a span of their own. The others are in its sums: a job that reads a million blobs would
/// otherwise drown its trace.
pub const SPANS_A_JOB_MAX: u64 = 1_000;

/// Whose work the calls of a store are, now. Clones are the same one.
#[derive(Clone, Default)]
pub struct Scope(Arc<Shared>);

#[derive(Default)]
struct Shared {
    span: Mutex<Option<Span>>,
    requests: AtomicU64,
    bytes: AtomicU64,
    spans: AtomicU64,
    omitted: AtomicU64,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("requests", &self.0.requests).finish_non_exhaustive()
    }
}

impl Scope {
    /// Calls are `span`'s until the answer is dropped; then its `store.requests` and `store.bytes` are recorded. Scopes nest.
    #[must_use = "calls are the span's as long as this is held"]
    pub fn enter(&self, span: Span) -> Within {
        let sums = (self.0.requests.load(Ordering::Relaxed), self.0.bytes.load(Ordering::Relaxed));
        let before = self.replace(Some(span.clone()));
        Within { scope: self.clone(), span, before, sums, omitted: None }
    }

    /// As [`Scope::enter`], for a job: its calls get spans of their own, up to [`SPANS_A_JOB_MAX`].
    #[must_use = "calls are the span's as long as this is held"]
    pub fn enter_job(&self, span: Span) -> Within {
        self.0.spans.store(0, Ordering::Relaxed);
        let omitted = Some(self.0.omitted.load(Ordering::Relaxed));
        let mut within = self.enter(span);
        within.omitted = omitted;
        within
    }

    /// The span of what is done now; `None` if nobody wants it.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        let span = self.0.span.lock().unwrap_or_else(PoisonError::into_inner).clone();
        span.filter(|span| !span.is_disabled())
    }

    /// As [`Scope::span`], for one more call, if that is still to have a span.
    pub(super) fn next(&self) -> Option<Span> {
        let span = self.span()?;
        if self.0.spans.fetch_add(1, Ordering::Relaxed) < SPANS_A_JOB_MAX {
            return Some(span);
        }
        self.0.omitted.fetch_add(1, Ordering::Relaxed);
        None
    }

    pub(super) fn count(&self, bytes: u64) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn replace(&self, span: Option<Span>) -> Option<Span> {
        std::mem::replace(&mut *self.0.span.lock().unwrap_or_else(PoisonError::into_inner), span)
    }
}

/// As long as this is held, calls are a span's.
pub struct Within {
    scope: Scope,
    span: Span,
    before: Option<Span>,
    sums: (u64, u64),
    omitted: Option<u64>,
}

impl Within {
    /// The span.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.span
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        let shared = &self.scope.0;
        let (requests, bytes) = self.sums;
        self.span.record("store.requests", shared.requests.load(Ordering::Relaxed).saturating_sub(requests));
        self.span.record("store.bytes", shared.bytes.load(Ordering::Relaxed).saturating_sub(bytes));
        if let Some(before) = self.omitted {
            let omitted = shared.omitted.load(Ordering::Relaxed).saturating_sub(before);
            if omitted > 0 {
                self.span.record("store.spans_omitted", omitted);
            }
        }
        self.scope.replace(self.before.take());
    }
}
