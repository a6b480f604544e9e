//! Names of what is deleted, kept by a coordinator: a worker keeps nothing.

use std::sync::Arc;

use verger_coordinator::api::work::Names;
use verger_coordinator::ledger::evidence::KeepEvidence;
use verger_kopia::Result;
use verger_proto::{Digest, Evidence, OutputRef, Ticket};

use super::link::Link;

/// Sends them.
pub(super) struct RemoteEvidence {
    link: Arc<Link>,
}

impl RemoteEvidence {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }
}

impl KeepEvidence for RemoteEvidence {
    /// The coordinator knows the view itself.
    fn keep(&self, ticket: &Ticket, _: Digest, evidence: &Evidence) -> Result<OutputRef> {
        self.link.keep(&Names { ticket: ticket.clone(), evidence: evidence.clone() })
    }
}
