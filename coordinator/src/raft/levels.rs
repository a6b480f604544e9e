//! What programs know ([`verger_proto::level`]): what each node says of its own, and what the cluster goes by.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use verger_kopia::error::{Error, ErrorKind};
use verger_kopia::mutant::{self, Mutant};

/// A node that was heard longer ago has said nothing: another program may have been started in its place.
const HEARD_WITHIN: Duration = Duration::from_secs(5);

/// What is said of a program whose cluster knows more.
pub(crate) fn too_old(cluster: u32, own: u32) -> Error {
    let step = format!(
        "this program knows level {own}, and the cluster is at level {cluster}: it would apply commands in another way \
         than the other coordinators"
    );
    let fix = "start the program that the other coordinators run, or a newer one; nothing is damaged, and nothing was \
               changed";
    Error::new(ErrorKind::Unsupported, step).with_fix(fix)
}

/// What this node knows of its own and others' programs. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Levels(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    own: u32,
    cluster: AtomicU32,
    /// The highest level of the cluster that was applied here or that another node spoke of.
    heard: watch::Sender<u32>,
    said: Mutex<BTreeMap<u64, (u32, Instant)>>,
}

impl Levels {
    /// Of a program that knows this level.
    pub(crate) fn new(own: u32) -> Self {
        let (heard, _) = watch::channel(0);
        Self(Arc::new(Shared { own, cluster: AtomicU32::new(0), heard, said: Mutex::default() }))
    }

    /// What this node's program knows.
    pub(crate) fn own(&self) -> u32 {
        self.0.own
    }

    /// What the cluster goes by, as far as it was applied here.
    pub(crate) fn cluster(&self) -> u32 {
        self.0.cluster.load(Ordering::Relaxed)
    }

    pub(crate) fn apply(&self, level: u32) {
        self.0.cluster.store(level, Ordering::Relaxed);
    }

    /// Another node says what the cluster goes by; whether this program may take part in that.
    pub(crate) fn hear(&self, cluster: u32) -> Result<(), Error> {
        self.0.heard.send_if_modified(|known| {
            let is_news = cluster > *known;
            *known = cluster.max(*known);
            is_news
        });
        if cluster > self.0.own { Err(too_old(cluster, self.0.own)) } else { Ok(()) }
    }

    /// The highest level of the cluster that others spoke of.
    pub(crate) fn heard(&self) -> watch::Receiver<u32> {
        self.0.heard.subscribe()
    }

    /// A node has answered, and said this of its program; 0: nothing, as programs from before do.
    pub(crate) fn note(&self, node: u64, level: u32) {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner).insert(node, (level, Instant::now()));
    }

    /// What a node's program knows, if it was heard a moment ago.
    pub(crate) fn of(&self, node: u64) -> Option<u32> {
        let said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.get(&node).filter(|(_, at)| at.elapsed() < HEARD_WITHIN).map(|(level, _)| *level)
    }

    /// What the cluster could go by: what each of its members knows. Whoever says nothing holds it down.
    pub(crate) fn common(&self, node: u64, members: impl Iterator<Item = u64>) -> u32 {
        let asked = members.filter(|id| *id != node && !mutant::on(Mutant::P6NobodyAskedForItsLevel));
        asked.map(|id| self.of(id).unwrap_or(0)).fold(self.0.own, u32::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_level_is_what_all_members_said_a_moment_ago() {
        let levels = Levels::new(3);
        assert_eq!(levels.common(1, [1].into_iter()), 3, "alone");
        assert_eq!(levels.common(1, 1..=3), 0, "nobody was heard");
        levels.note(2, 4);
        levels.note(3, 2);
        assert_eq!(levels.common(1, 1..=3), 2);
        levels.note(3, 0);
        assert_eq!(levels.common(1, 1..=3), 0, "an earlier program was started in its place");
        levels.note(3, 3);
        assert_eq!(levels.common(1, 1..=3), 3);
        tokio::time::advance(HEARD_WITHIN).await;
        assert_eq!(levels.common(1, 1..=3), 0);
    }

    #[test]
    fn a_program_that_knows_less_is_told_both_levels() {
        let levels = Levels::new(1);
        levels.hear(1).unwrap();
        let error = levels.hear(2).unwrap_err();
        assert_eq!((error.kind(), *levels.heard().borrow()), (ErrorKind::Unsupported, 2));
        let said = error.chain();
        assert!(said.contains("level 1") && said.contains("level 2") && error.fix().is_some(), "{said}");
    }
}
