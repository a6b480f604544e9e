//! Identity providers whose tokens are believed: their keys are fetched by a thread for each, before somebody asks and when a token names
//! an unknown one, and kept for a while if the provider does not answer. Whoever asks is told at once from what is known.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use verger_kopia::clock::Clock;
use verger_proto::LogTime;

use crate::auth::oidc::{KeySet, Mistrust, Presented, Provider, is_safe};
use crate::auth::{Actor, Denied};

/// Reads a document of a provider. It may block, and must give up some time.
pub trait Fetch: Send {
    /// What lies at this address.
    ///
    /// # Errors
    /// Why it cannot be had, for people.
    fn get(&self, url: &str) -> Result<Vec<u8>, String>;
}

/// A provider, and the way to its keys.
pub struct Source {
    /// What it is worth.
    pub provider: Provider,
    /// Where its keys are, if it does not say so itself (`/.well-known/openid-configuration`).
    pub keys_url: Option<String>,
    /// Reads them.
    pub fetch: Box<dyn Fetch>,
}

/// How often and how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Keys are fetched again after this.
    pub refresh: Duration,
    /// A provider that did not answer is asked again after this.
    pub retry: Duration,
    /// Tokens that name unknown keys make a provider be asked this often at most.
    pub ask: Duration,
    /// Known keys go on for this long without an answer of their provider.
    pub keep: Duration,
    /// A call waits this long at most for keys that are being fetched.
    pub wait: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { refresh: seconds(600), retry: seconds(30), ask: seconds(10), keep: seconds(6 * 3600), wait: seconds(3) }
    }
}

/// The providers that are believed.
pub struct Providers {
    all: Vec<Known>,
    clock: Arc<dyn Clock>,
    pace: Pace,
}

struct Known {
    provider: Provider,
    shared: Arc<Shared>,
    /// Dropped, it ends the thread.
    ask: SyncSender<()>,
}

struct Shared {
    kept: Mutex<Kept>,
    /// Whether keys are to be fetched now, or are being fetched.
    pending: watch::Sender<bool>,
}

#[derive(Default, Clone)]
struct Kept {
    keys: Arc<KeySet>,
    /// When the provider last answered, and when it was last asked; since boot.
    answered: Option<Duration>,
    asked: Option<Duration>,
}

impl Shared {
    fn kept<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|known| &known.provider)).finish()
    }
}

impl Providers {
    /// Begins to fetch the keys of these providers.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(sources: Vec<Source>, clock: Arc<dyn Clock>, pace: Pace) -> std::io::Result<Self> {
        let start = |source: Source| {
            let shared = Arc::new(Shared { kept: Mutex::default(), pending: watch::channel(true).0 });
            let (ask, asked) = sync_channel(1);
            let (provider, told, time) = (source.provider.clone(), shared.clone(), clock.clone());
            std::thread::Builder::new()
                .name("keys".to_owned())
                .spawn(move || fetch_keys(&source, &told, &asked, &*time, pace))?;
            Ok(Known { provider, shared, ask })
        };
        let all = sources.into_iter().map(start).collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { all, clock, pace })
    }

    /// For whom a token stands now. A token whose key is not known makes its provider be asked for new ones.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn actor(&self, token: &str, now: LogTime) -> Result<Actor, Denied> {
        let presented = Presented::read(token)?;
        let known = self.of(&presented).ok_or(Mistrust::Issuer)?;
        let found = match self.keys(known) {
            Some(keys) => presented.verify(&known.provider, &keys, now),
            None => Err(Mistrust::NoKeys.into()),
        };
        if let Err(Denied::Mistrusted(why)) = &found
            && why.may_pass()
        {
            self.ask(known, *why);
        }
        found
    }

    /// Over when the keys of a token's provider are not being fetched (any more), or that takes too long.
    pub async fn settled(&self, token: &str) {
        let Ok(presented) = Presented::read(token) else { return };
        if let Some(known) = self.of(&presented) {
            let mut pending = known.shared.pending.subscribe();
            // Late or over, it makes no difference: whoever waits looks again.
            let _ = tokio::time::timeout(self.pace.wait, pending.wait_for(|pending| !*pending)).await;
        }
    }

    fn of(&self, presented: &Presented<'_>) -> Option<&Known> {
        self.all.iter().find(|known| known.provider.issuer == presented.issuer())
    }

    /// The keys that can be believed now.
    fn keys(&self, known: &Known) -> Option<Arc<KeySet>> {
        let kept = known.shared.kept(|kept| kept.clone());
        let age = self.clock.since_boot().saturating_sub(kept.answered?);
        (age < self.pace.keep).then_some(kept.keys)
    }

    /// Has keys fetched, unless they are being fetched or were a moment ago.
    fn ask(&self, known: &Known, why: Mistrust) {
        let asked = known.shared.kept(|kept| kept.asked);
        let is_early = asked.is_some_and(|asked| self.clock.since_boot().saturating_sub(asked) < self.pace.ask);
        let begins = |pending: &mut bool| !is_early && !std::mem::replace(pending, true);
        if known.shared.pending.send_if_modified(begins) {
            let issuer = &known.provider.issuer;
            tracing::info!(issuer, %why, "a token is refused; the keys of its provider are fetched anew");
            // One word is enough, and the thread takes it before it asks.
            let _ = known.ask.try_send(());
        }
    }
}

/// As long as somebody could ask.
fn fetch_keys(source: &Source, shared: &Shared, asked: &Receiver<()>, clock: &dyn Clock, pace: Pace) {
    let mut pause = Duration::ZERO;
    loop {
        match asked.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        shared.pending.send_replace(true);
        let fetched = keys_of(source);
        let now = clock.since_boot();
        pause = if fetched.is_ok() { pace.refresh } else { pace.retry };
        let before = shared.kept(|kept| {
            kept.asked = Some(now);
            let before = kept.clone();
            if let Ok(keys) = &fetched {
                (kept.keys, kept.answered) = (keys.clone(), Some(now));
            }
            before
        });
        tell(source, &fetched, &before, now, pace);
        shared.pending.send_replace(false);
    }
}

fn tell(source: &Source, fetched: &Result<Arc<KeySet>, String>, before: &Kept, now: Duration, pace: Pace) {
    let issuer = &source.provider.issuer;
    match (fetched, before.answered) {
        (Ok(keys), _) if !keys.ids().eq(before.keys.ids()) => {
            tracing::info!(issuer, ?keys, "the identity provider has these keys now");
        }
        (Ok(_), _) => {}
        (Err(error), Some(answered)) if now.saturating_sub(answered) < pace.keep => {
            let left = pace.keep.saturating_sub(now.saturating_sub(answered)).as_secs();
            tracing::warn!(issuer, error, "the identity provider's keys cannot be had; known ones go on for {left} s");
        }
        (Err(error), _) => {
            tracing::warn!(issuer, error, "the identity provider's keys cannot be had; its tokens are refused");
        }
    }
}

#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

fn keys_of(source: &Source) -> Result<Arc<KeySet>, String> {
    let url = match &source.keys_url {
        Some(url) => url.clone(),
        None => discovered(source)?,
    };
    if !is_safe(&url) {
        return Err(format!("{url:?}, where its keys are, is neither an https:// address nor one of this machine"));
    }
    let keys = source.fetch.get(&url).and_then(|bytes| KeySet::parse(&bytes));
    keys.map(Arc::new).map_err(|error| format!("{url}: {error}"))
}

/// Where its keys are, as a provider says itself. It must be the one that was asked.
fn discovered(source: &Source) -> Result<String, String> {
    let issuer = &source.provider.issuer;
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let bytes = source.fetch.get(&url).map_err(|error| format!("{url}: {error}"))?;
    let found: Discovered = serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))?;
    if found.issuer != *issuer {
        return Err(format!("{url}: it calls itself {:?}, which is not {issuer:?} to the letter", found.issuer));
    }
    Ok(found.jwks_uri)
}

#[cfg(test)]
mod tests;
