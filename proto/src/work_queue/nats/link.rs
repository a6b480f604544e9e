//! Whether the server is there, answers, and lets us: said at once, told once.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{ClientError, Event, ServerError};
use tokio::sync::watch;

use super::super::{Denied, WorkQueueError};

/// After a refusal, how long nothing is tried: permissions change by hand.
const DENIED_PAUSE: Duration = Duration::from_secs(10);
const SILENT_PAUSE_MAX: Duration = Duration::from_secs(10);
const TOLD_MAX: usize = 16;
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How the queue stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Not connected, and why.
    Away(String),
    /// The server does not let us in, or do what we have to.
    Denied(Denied),
    /// Connected.
    Up,
    /// Closed by us.
    Closed,
}

#[derive(Debug)]
enum Connection {
    Up,
    Down(String),
    Refused(String),
    Closed,
}

#[derive(Debug)]
struct Seen {
    connection: Connection,
    /// What a worker, or whoever offers, may not do.
    denied: Option<Denied>,
}

/// Calls that got no answer, in a row, and when the next one is worth it.
#[derive(Default, Debug)]
struct Pause {
    silent: u32,
    until: Option<Instant>,
    /// What was said, until all is well again.
    told: BTreeSet<String>,
    /// What a coordinator may not make or change; offers go on, as somebody else may have made it.
    unmade: Option<Denied>,
}

#[derive(Debug)]
pub(super) struct Link {
    seen: watch::Sender<Seen>,
    pause: Mutex<Pause>,
}

impl Default for Link {
    fn default() -> Self {
        let connection = Connection::Down("it was not reached yet".to_owned());
        Self { seen: watch::Sender::new(Seen { connection, denied: None }), pause: Mutex::default() }
    }
}

/// When the next attempt to connect is made: at once, then later and later.
pub(super) fn reconnect_pause(attempt: usize) -> Duration {
    let doubled = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX).min(10);
    if attempt <= 1 { Duration::ZERO } else { (Duration::from_millis(50) * 2u32.pow(doubled)).min(RECONNECT_PAUSE_MAX) }
}

impl Link {
    fn pause(&self) -> MutexGuard<'_, Pause> {
        self.pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the client says.
    pub(super) fn heard(&self, event: &Event) {
        match event {
            Event::Connected => {
                {
                    let mut pause = self.pause();
                    *pause = Pause { told: std::mem::take(&mut pause.told), ..Pause::default() };
                }
                self.set(Connection::Up);
                self.well();
            }
            Event::Disconnected | Event::Closed => self.set(Connection::Down("the connection was lost".to_owned())),
            Event::ServerError(ServerError::AuthorizationViolation) => {
                self.refused("these credentials are not known there")
            }
            Event::ServerError(ServerError::Other(text)) => {
                if let Some(denied) = permission(text) {
                    self.deny(denied);
                }
            }
            Event::ClientError(ClientError::Other(text)) if text == "authorization violation" => {
                self.refused("these credentials are not known there");
            }
            Event::ClientError(ClientError::Other(text)) if text == "failed signing nonce" => {
                self.refused("the seed of the NKey or of the credentials cannot be used");
            }
            Event::ClientError(error) => self.set(Connection::Down(error.to_string())),
            Event::LameDuckMode | Event::Draining | Event::SlowConsumer(_) | Event::ServerError(_) => {}
        }
    }

    fn refused(&self, why: &str) {
        self.set(Connection::Refused(why.to_owned()));
    }

    fn set(&self, connection: Connection) {
        self.seen.send_modify(|seen| {
            if !matches!(seen.connection, Connection::Closed) {
                // Other permissions may hold when it is there again.
                *seen = Seen { connection, denied: None };
            }
        });
        match self.connection() {
            Err(WorkQueueError::Closed) | Ok(()) => {}
            Err(error) => self.tell(&error),
        }
    }

    fn deny(&self, denied: Denied) {
        let error = WorkQueueError::Denied(denied.clone());
        let is_upkeep = |subject: &str| subject.starts_with("$JS.API.") && !subject.contains(".MSG.NEXT.");
        if matches!(&denied, Denied::Permission { subject, .. } if is_upkeep(subject)) {
            self.pause().unmade = Some(denied);
        } else {
            self.pause().until = Some(Instant::now() + DENIED_PAUSE);
            self.seen.send_modify(|seen| seen.denied = Some(denied));
        }
        self.tell(&error);
    }

    pub(super) fn close(&self) {
        self.seen.send_modify(|seen| seen.connection = Connection::Closed);
    }

    /// A call was answered, whatever with.
    pub(super) fn answered(&self) {
        let mut pause = self.pause();
        (pause.silent, pause.until) = (0, None);
        let is_made = pause.unmade.is_none();
        drop(pause);
        let mut is_well = is_made;
        self.seen.send_if_modified(|seen| {
            // Offers that come do not show that we may say what becomes of them.
            let is_over = seen.denied.as_ref().is_some_and(|denied| !is_of_acknowledgements(denied));
            if is_over {
                seen.denied = None;
            }
            is_well &= seen.denied.is_none();
            is_over
        });
        if is_well {
            self.well();
        }
    }

    /// A coordinator made what it has to.
    pub(super) fn made(&self) {
        self.pause().unmade = None;
        self.answered();
    }

    /// A call got no answer: the next ones do not wait for one.
    pub(super) fn silent(&self) -> WorkQueueError {
        let mut pause = self.pause();
        pause.silent = pause.silent.saturating_add(1);
        let wait = (Duration::from_millis(500) * 2u32.pow(pause.silent.min(6))).min(SILENT_PAUSE_MAX);
        pause.until = Some(Instant::now() + wait);
        drop(pause);
        let error = WorkQueueError::Away("it is connected and does not answer".to_owned());
        self.tell(&error);
        error
    }

    /// What a coordinator may not make.
    pub(super) fn unmade(&self) -> Option<Denied> {
        self.pause().unmade.clone()
    }

    fn connection(&self) -> Result<(), WorkQueueError> {
        match &self.seen.borrow().connection {
            Connection::Up => Ok(()),
            Connection::Down(why) => Err(WorkQueueError::Away(why.clone())),
            Connection::Refused(why) => Err(WorkQueueError::Denied(Denied::Connect(why.clone()))),
            Connection::Closed => Err(WorkQueueError::Closed),
        }
    }

    /// Whether a call is worth it now.
    pub(super) fn check(&self) -> Result<(), WorkQueueError> {
        self.connection()?;
        if self.pause().until.is_none_or(|until| until <= Instant::now()) {
            return Ok(());
        }
        let denied = self.seen.borrow().denied.clone();
        Err(denied.map_or_else(
            || WorkQueueError::Away("it is connected and did not answer".to_owned()),
            WorkQueueError::Denied,
        ))
    }

    pub(super) fn standing(&self) -> Standing {
        match self.check() {
            Ok(()) => {
                let denied = self.seen.borrow().denied.clone();
                denied.or_else(|| self.unmade()).map_or(Standing::Up, Standing::Denied)
            }
            Err(WorkQueueError::Closed) => Standing::Closed,
            Err(WorkQueueError::Denied(denied)) => Standing::Denied(denied),
            Err(error) => Standing::Away(error.to_string()),
        }
    }

    /// Waits until something changes after this call.
    pub(super) fn changed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut seen = self.seen.subscribe();
        async move {
            let _ = seen.changed().await;
        }
    }

    /// Lets `call` go on until the connection is lost, the queue closed, or something refused.
    pub(super) async fn while_up<T>(&self, call: impl Future<Output = T>) -> Result<T, WorkQueueError> {
        let mut seen = self.seen.subscribe();
        self.check()?;
        tokio::pin!(call);
        loop {
            tokio::select! {
                done = &mut call => return Ok(done),
                changed = seen.changed() => {
                    if changed.is_err() {
                        return Err(WorkQueueError::Closed);
                    }
                    self.check()?;
                }
            }
        }
    }

    /// Says what is wrong: once until all is well again, however often it happens and in whatever words the network fails.
    fn tell(&self, error: &WorkQueueError) {
        let what = if matches!(error, WorkQueueError::Away(_)) { "away".to_owned() } else { error.to_string() };
        let mut pause = self.pause();
        if pause.told.len() < TOLD_MAX && pause.told.insert(what) {
            tracing::warn!("{error}");
        }
    }

    fn well(&self) {
        if !std::mem::take(&mut self.pause().told).is_empty() {
            tracing::info!("the work queue answers");
        }
    }
}

fn is_of_acknowledgements(denied: &Denied) -> bool {
    matches!(denied, Denied::Permission { subject, .. } if subject.starts_with("$JS.ACK."))
}

/// What a server says of a missing permission: `Permissions Violation for Publish to "subject"`.
fn permission(text: &str) -> Option<Denied> {
    let text = text.strip_prefix("Permissions Violation for ")?;
    let (verb, rest) = match text.strip_prefix("Publish to ") {
        Some(rest) => ("publish", rest),
        None => ("subscribe", text.strip_prefix("Subscription to ")?),
    };
    let subject = rest.trim_start_matches('"').split('"').next()?;
    Some(Denied::Permission { verb, subject: subject.chars().take(256).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn violation(subject: &str) -> Event {
        Event::ServerError(ServerError::Other(format!("Permissions Violation for Publish to \"{subject}\"")))
    }

    #[test]
    fn what_is_wrong_is_said_at_once_and_over_when_it_is_over() {
        let link = Link::default();
        assert!(matches!(link.check(), Err(WorkQueueError::Away(_))));
        link.heard(&Event::ClientError(ClientError::Other("authorization violation".to_owned())));
        assert!(matches!(link.standing(), Standing::Denied(Denied::Connect(_))));
        link.heard(&Event::Connected);
        assert_eq!((link.check(), link.standing()), (Ok(()), Standing::Up));
        link.heard(&violation("$JS.API.CONSUMER.MSG.NEXT.S.c"));
        let Err(WorkQueueError::Denied(denied)) = link.check() else { panic!("{:?}", link.check()) };
        let subject = "$JS.API.CONSUMER.MSG.NEXT.S.c".to_owned();
        assert_eq!(denied, Denied::Permission { verb: "publish", subject });
        link.answered();
        assert_eq!(link.check(), Ok(()));
        let _ = link.silent();
        assert!(matches!(link.check(), Err(WorkQueueError::Away(_))));
        link.heard(&Event::Disconnected);
        link.heard(&Event::Connected);
        assert_eq!(link.check(), Ok(()));
        link.close();
        link.heard(&Event::Connected);
        assert_eq!((link.check(), link.standing()), (Err(WorkQueueError::Closed), Standing::Closed));
    }

    #[test]
    fn who_may_not_make_the_stream_may_still_offer() {
        let link = Link::default();
        link.heard(&Event::Connected);
        link.heard(&violation("$JS.API.STREAM.CREATE.S"));
        assert_eq!(link.check(), Ok(()));
        assert!(matches!(link.standing(), Standing::Denied(_)) && link.unmade().is_some());
        link.made();
        assert_eq!(link.standing(), Standing::Up);
    }

    /// Counts what is told.
    #[derive(Clone, Default)]
    struct Told(std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl tracing::Subscriber for Told {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn people_are_told_once_and_once_more_when_it_is_over() {
        let (told, link) = (Told::default(), Link::default());
        let count = || told.0.load(std::sync::atomic::Ordering::Relaxed);
        tracing::subscriber::with_default(told.clone(), || {
            link.heard(&Event::Connected);
            assert_eq!(count(), 0, "nothing was wrong");
            for attempt in 0..100 {
                link.heard(&violation("verger.0a1b2c3d.work.default"));
                link.heard(&Event::Disconnected);
                link.heard(&Event::ClientError(ClientError::Other(format!("error {attempt}"))));
            }
            assert_eq!(count(), 2, "a refusal, and that the server is away");
            link.heard(&Event::Connected);
            link.answered();
            assert_eq!(count(), 3);
            // That offers come again does not show that they may be acknowledged.
            for _ in 0..100 {
                link.heard(&violation("$JS.ACK.S.c.1.2.3"));
                link.answered();
            }
            assert_eq!(count(), 4);
        });
    }

    #[test]
    fn pauses_grow_to_an_end() {
        assert_eq!([0, 1, 2, 3].map(reconnect_pause).map(|pause| pause.as_millis()), [0, 0, 100, 200]);
        assert_eq!(reconnect_pause(usize::MAX), RECONNECT_PAUSE_MAX);
    }
}
