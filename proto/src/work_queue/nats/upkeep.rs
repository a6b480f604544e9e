//! The stream and its consumers: made and kept by coordinators, also on a server that came back empty.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use tokio::sync::Notify;

use super::super::message::MESSAGE_BYTES_MAX;
use super::super::{ACK_WAIT, AGE_MAX, WAITING_MAX};
use super::link::{Link, Standing};
use super::settings::Names;
use crate::id::Pool;
use crate::mutant::{self, Check};

/// Somebody may take the stream away: looked after so often without a reason.
const PERIOD: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Pools of a fleet at most; offers to others wait in the stream until there is a place.
const POOLS_MAX: usize = 256;
/// An offer takes some 700 bytes on disk.
const BYTES_MAX: i64 = 128 << 20;
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Requests of idle workers that wait at the server, for each pool.
const WAITING_TAKERS_MAX: i64 = 4096;
/// Offers that are in the hands of workers, for each pool.
const HELD_MAX: i64 = 10_000;

/// What there has to be.
#[derive(Default, Debug)]
pub(super) struct Upkeep {
    pools: Mutex<BTreeSet<Pool>>,
    wanted: Notify,
    /// How often something was asked for, and up to which of these all is made.
    asked: AtomicU64,
    made: AtomicU64,
}

impl Upkeep {
    /// This pool has offers, so it needs a consumer.
    pub(super) fn need(&self, pool: &Pool) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if !pools.contains(pool) && pools.len() < POOLS_MAX {
            pools.insert(pool.clone());
            self.ask();
        }
    }

    /// Something is missing.
    pub(super) fn ask(&self) {
        self.asked.fetch_add(1, Ordering::AcqRel);
        self.wanted.notify_one();
    }

    pub(super) fn is_made(&self) -> bool {
        // One more, so that nothing is made before the first look.
        self.made.load(Ordering::Acquire) == self.asked.load(Ordering::Acquire) + 1
    }

    fn pools(&self) -> Vec<Pool> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Makes what there has to be, for as long as the queue is open.
    pub(super) async fn run(
        self: Arc<Self>,
        client: async_nats::Client,
        link: Arc<Link>,
        names: Names,
        replicas: usize,
    ) {
        let mut context = jetstream::new(client);
        context.set_timeout(ANSWER_WAIT);
        let mut told = String::new();
        loop {
            // Subscribed before the look, so that no change falls in between.
            let changed = link.changed();
            let pause = match link.standing() {
                Standing::Closed => return,
                Standing::Away(_) | Standing::Denied(super::super::Denied::Connect(_)) => {
                    self.made.store(0, Ordering::Release);
                    PERIOD
                }
                Standing::Up | Standing::Denied(_) => {
                    // Before: what is asked for meanwhile has to be looked for again.
                    let asked = self.asked.load(Ordering::Acquire);
                    match make(&context, &names, &self.pools(), replicas).await {
                        Ok(()) => {
                            self.made.store(asked + 1, Ordering::Release);
                            link.made();
                            told.clear();
                            PERIOD
                        }
                        Err(text) => {
                            self.made.store(0, Ordering::Release);
                            // A missing permission was told by name already.
                            if told != text && link.unmade().is_none() && matches!(link.standing(), Standing::Up) {
                                tracing::warn!("the work queue's stream cannot be made: {text}");
                                told = text;
                            }
                            RETRY
                        }
                    }
                }
            };
            tokio::select! {
                () = changed => {}
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

async fn make(context: &Context, names: &Names, pools: &[Pool], replicas: usize) -> Result<(), String> {
    let longest = i32::try_from(MESSAGE_BYTES_MAX).unwrap_or(i32::MAX);
    let stream = Config {
        name: names.stream(),
        description: Some("Hints for the workers of a fleet of Verger; what is lost is offered again".to_owned()),
        subjects: vec![names.subjects()],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_age: AGE_MAX,
        max_bytes: BYTES_MAX,
        max_messages: i64::try_from(WAITING_MAX).unwrap_or(i64::MAX),
        max_message_size: if mutant::is_out(Check::Length) { -1 } else { longest },
        duplicate_window: DUPLICATE_WINDOW,
        num_replicas: replicas.max(1),
        ..Config::default()
    };
    context.create_or_update_stream(stream).await.map_err(|error| error.to_string())?;
    for pool in pools {
        let consumer = pull::Config {
            durable_name: Some(names.consumer(pool)),
            filter_subject: names.subject(pool),
            ack_policy: AckPolicy::Explicit,
            ack_wait: ACK_WAIT,
            max_waiting: WAITING_TAKERS_MAX,
            max_ack_pending: HELD_MAX,
            ..pull::Config::default()
        };
        let made = context.create_consumer_on_stream(consumer, names.stream()).await;
        made.map_err(|error| format!("consumer of pool {pool}: {error}"))?;
    }
    Ok(())
}
