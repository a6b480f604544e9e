//! What is counted of the calls to stores.

use std::sync::Arc;

use verger_kopia::storage::calls::{Calls, HeldBack};
use verger_proto::RepositoryName;

use super::{Labels, Page};

impl Page {
    /// The calls to repositories' stores, and what held them back. What has no name is added up.
    pub fn stores(&mut self, all: impl IntoIterator<Item = (Option<RepositoryName>, Arc<Calls>)>) {
        let (mut requests, mut bytes) = (Vec::new(), Vec::new());
        let (mut held_back, mut waited, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for (name, calls) in all {
            let repo: Labels = name.iter().map(|name| ("repo", name.to_string())).collect();
            let with = |more: &[(&'static str, &str)]| -> Labels {
                let more = more.iter().map(|(label, value)| (*label, (*value).to_owned()));
                repo.iter().cloned().chain(more).collect()
            };
            for (op, class, code, count) in calls.all() {
                requests.push((with(&[("op", op.name()), ("class", class.name()), ("code", code.name())]), count));
            }
            let (read, written) = calls.bytes();
            bytes.push((with(&[("direction", "read")]), read));
            bytes.push((with(&[("direction", "written")]), written));
            let held = calls.held();
            for (cause, count) in HeldBack::ALL.into_iter().zip([held.by_store, held.by_limit]) {
                held_back.push((with(&[("cause", cause.name())]), count));
            }
            waited.push((repo.clone(), held.waited.as_secs_f64()));
            again.push((repo, held.again));
        }
        self.counts("store_requests", "Calls to stores, by operation, class of blobs and answer", requests);
        self.counts("store_bytes", "Bytes of blobs that were read and written", bytes);
        self.counts("store_held_back", "Requests to a repository's store that were held back", held_back);
        self.amounts("store_limit_wait_seconds", "Seconds that requests waited for a limit that was set here", waited);
        self.counts("store_retries", "Attempts that a store's client made again by itself", again);
    }

    /// What held requests of the whole process back, before anybody knew for which repository too.
    pub fn held_back(&mut self) {
        let held_back = HeldBack::ALL.map(|cause| (vec![("cause", cause.name().to_owned())], cause.total()));
        self.counts("store_throttled", "Requests that were held back", held_back);
    }
}
