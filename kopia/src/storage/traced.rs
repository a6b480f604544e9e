//! A store whose calls are counted, and told as spans where somebody wants them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::Span;
use tracing::field::Empty;

use super::calls::{Calls, Class, Code, Held, Op};
use super::scope::{STORE_SPANS, Scope};
use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, PutOptions, PutReceipt, Retention, Storage,
    Versioning,
};
use crate::clock::Timestamp;
use crate::error::Result;

/// Passes everything on, and counts it. A span is made only where a subscriber asks for [`STORE_SPANS`] and a job is under way.
#[derive(Debug)]
pub struct TracedStorage {
    inner: Arc<dyn Storage>,
    calls: Arc<Calls>,
    scope: Scope,
}

/// A call under way.
struct Call<'a> {
    store: &'a TracedStorage,
    op: Op,
    class: Class,
    span: Span,
    /// What held this thread's requests back before.
    held: Held,
}

impl TracedStorage {
    /// Counts the calls to `inner` in `calls`; their spans hang below `scope`'s.
    pub fn new(inner: Arc<dyn Storage>, calls: Arc<Calls>, scope: Scope) -> Self {
        Self { inner, calls, scope }
    }

    fn begin(&self, op: Op, class: Class) -> Call<'_> {
        // Not asked for with `enabled!`, which spoils what subscribers with several filters keep of the next span. Where nobody wants
        // spans there is no parent.
        let span = self.scope.next().map_or_else(Span::none, |parent| {
            tracing::debug_span!(
                target: STORE_SPANS,
                parent: &parent,
                "store",
                otel.name = format!("store {}", op.name()),
                otel.kind = "client",
                store.op = op.name(),
                store.class = class.name(),
                store.bytes = Empty,
                store.items = Empty,
                store.code = Empty,
                otel.status_code = Empty,
            )
        });
        Call { store: self, op, class, span, held: Held::here() }
    }

    fn run<T>(
        &self,
        op: Op,
        class: Class,
        call: impl FnOnce() -> Result<T>,
        bytes: impl FnOnce(&T) -> (u64, u64),
    ) -> Result<T> {
        let under_way = self.begin(op, class);
        let answer = call();
        match &answer {
            Ok(value) => under_way.end(Code::Ok, bytes(value)),
            Err(error) => under_way.end(Code::of(error.kind()), (0, 0)),
        }
        answer
    }
}

impl Call<'_> {
    fn end(self, code: Code, (read, written): (u64, u64)) {
        self.store.calls.count(self.op, self.class, code, read, written);
        self.store.calls.count_held(self.held);
        self.store.scope.count(read.saturating_add(written));
        if self.span.is_disabled() {
            return;
        }
        self.span.record("store.bytes", read.saturating_add(written));
        self.span.record("store.code", code.name());
        if !code.is_ordinary() {
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

fn none<T>(_: &T) -> (u64, u64) {
    (0, 0)
}

impl Storage for TracedStorage {
    fn address(&self) -> String {
        self.inner.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.run(Op::Get, Class::of(id.as_str()), || self.inner.get(id, range), |data| (data.len() as u64, 0))
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        let get = || self.inner.get_with_metadata(id);
        self.run(Op::Get, Class::of(id.as_str()), get, |(data, _)| (data.len() as u64, 0))
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.run(Op::Head, Class::of(id.as_str()), || self.inner.head(id), none)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        let call = self.begin(Op::List, Class::of(prefix));
        let (span, mut items) = (call.span.clone(), 0u64);
        let answer = self.inner.list(prefix, &mut |blob| {
            items += 1;
            visit(blob)
        });
        span.record("store.items", items);
        call.end(answer.as_ref().map_or_else(|error| Code::of(error.kind()), |()| Code::Ok), (0, 0));
        answer
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        let length = data.len() as u64;
        self.run(Op::Put, Class::of(id.as_str()), || self.inner.put(id, data, options), |_| (0, length))
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let call = self.begin(Op::Delete, Class::of_all(ids));
        call.span.record("store.items", ids.len());
        let report = self.inner.delete(ids, not_after);
        call.end(report.failed.first().map_or(Code::Ok, |(_, error)| Code::of(error.kind())), (0, 0));
        report
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        self.run(Op::Lock, Class::of(id.as_str()), || self.inner.extend_retention(id, retention), none)
    }

    fn now(&self) -> Result<Timestamp> {
        self.run(Op::Ask, Class::OTHER, || self.inner.now(), none)
    }

    fn versioning(&self) -> Result<Versioning> {
        self.run(Op::Ask, Class::OTHER, || self.inner.versioning(), none)
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        self.run(Op::Delete, Class::of(id.as_str()), || self.inner.purge_versions(id), none)
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        self.run(Op::Delete, Class::of(id.as_str()), || self.inner.delete_own_if(id, version), none)
    }

    fn local_root(&self) -> Option<&Path> {
        self.inner.local_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::scope::SPANS_A_JOB_MAX;
    use crate::storage::{MemoryStorage, conformance};

    #[test]
    fn it_is_the_store_that_it_counts() {
        let calls = Arc::new(Calls::default());
        let store = TracedStorage::new(Arc::new(MemoryStorage::default()), calls.clone(), Scope::default());
        let id = BlobId::new("p1");
        store.put(&id, "abcd".into(), &PutOptions::default()).unwrap();
        assert_eq!(store.get(&id, ByteRange::Last(3)).unwrap(), "bcd");
        assert!(store.head(&BlobId::new("xn0_1")).is_err());
        assert!(store.delete(&[id, BlobId::new("p2")], None).failed.is_empty());
        let shown: Vec<_> =
            calls.all().iter().map(|(op, class, code, count)| (op.name(), class.name(), code.name(), *count)).collect();
        let expected =
            [("get", "p", "ok", 1), ("head", "x", "not-found", 1), ("put", "p", "ok", 1), ("delete", "p", "ok", 1)];
        assert_eq!((shown, calls.bytes()), (expected.to_vec(), (3, 4)));
    }

    #[test]
    fn what_holds_a_call_back_is_counted_with_its_store() {
        use crate::clock::SetClock;
        use crate::storage::throttle::{Throttle, ThrottledStorage};
        let clock = Arc::new(SetClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        let throttle = Throttle { writes_per_second: Some(2.0), ..Throttle::default() };
        let inner = Arc::new(ThrottledStorage::new(Arc::new(MemoryStorage::default()), &throttle, clock));
        let [calls, others] = [(); 2].map(|()| Arc::new(Calls::default()));
        let store = TracedStorage::new(inner, calls.clone(), Scope::default());
        let quiet = TracedStorage::new(Arc::new(MemoryStorage::default()), others.clone(), Scope::default());
        for number in 0..5 {
            for store in [&store, &quiet] {
                store.put(&BlobId::new(format!("p{number}")), "abcd".into(), &PutOptions::default()).unwrap();
            }
        }
        let expected = Held { by_limit: 3, waited: Duration::from_millis(1_500), ..Held::default() };
        assert_eq!((calls.held(), others.held()), (expected, Held::default()), "two a second, after two at once");
    }

    /// Counts the spans that are made, by name.
    #[derive(Clone, Default)]
    struct Seen(Arc<std::sync::atomic::AtomicUsize>);

    impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Seen {
        fn on_new_span(
            &self,
            attributes: &tracing::span::Attributes<'_>,
            _: &tracing::span::Id,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            let is_call = attributes.metadata().target() == STORE_SPANS;
            self.0.fetch_add(usize::from(is_call), std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn spans_are_made_only_within_a_job_and_not_without_end() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let (seen, scope) = (Seen::default(), Scope::default());
        let made = || seen.0.load(std::sync::atomic::Ordering::Relaxed) as u64;
        let store = TracedStorage::new(Arc::new(MemoryStorage::default()), Arc::default(), scope.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(seen.clone()), || {
            store.now().unwrap();
            assert_eq!(made(), 0, "nobody would find it");
            let job = scope.enter_job(tracing::error_span!("job"));
            for _ in 0..SPANS_A_JOB_MAX + 7 {
                store.now().unwrap();
            }
            assert_eq!(made(), SPANS_A_JOB_MAX);
            drop(job);
            let next = scope.enter_job(tracing::error_span!("job"));
            store.now().unwrap();
            assert_eq!(made(), SPANS_A_JOB_MAX + 1);
            drop(next);
            store.now().unwrap();
            assert_eq!(made(), SPANS_A_JOB_MAX + 1);
        });
    }

    #[test]
    fn it_does_what_every_store_does() {
        conformance::suite(&|| {
            let inner = Arc::new(MemoryStorage::default());
            Box::new(TracedStorage::new(inner, Arc::default(), Scope::default()))
        });
    }
}
