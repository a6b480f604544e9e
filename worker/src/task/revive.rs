//! Packs marked contents that a snapshot needs again (R13): an index-only undelete would race any deletion.

use std::collections::BTreeMap;
use verger_kopia::mutant::{self, Mutant};

use verger_kopia::content::{ContentId, Entry};
use verger_kopia::index_set::write::write_index_set;
use verger_kopia::maintenance::rules::plan::RewritePack;
use verger_kopia::session::{self, SessionId};
use verger_kopia::storage::BlobId;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::stage::Stage;

use super::deed::{Approved, Deeds};
use super::publish::Publication;
use super::rewrite::{Copied, Order, copy};

/// Groups rows by the pack they lie in, for copying.
#[must_use]
pub fn by_pack(table: &verger_kopia::index::Table, rows: impl IntoIterator<Item = u32>) -> Vec<RewritePack> {
    let mut packs: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for row in rows {
        packs.entry(table.pack(row)).or_default().push(row);
    }
    packs.into_iter().map(|(pack, rows)| RewritePack { pack, rows }).collect()
}

/// A session of this cycle: its marker is in the store before its first pack, and goes after its entries are durable (R21).
pub struct OpenSession {
    /// The session.
    pub id: SessionId,
    marker: Option<BlobId>,
}

impl OpenSession {
    /// A session that a shard began.
    pub(crate) fn new(id: SessionId, marker: Option<BlobId>) -> Self {
        Self { id, marker }
    }
}

impl Deeds<'_> {
    /// Starts a session for packs that are about to be written.
    ///
    /// # Errors
    /// Storage errors.
    pub fn start_session(&self) -> Result<OpenSession> {
        let (info, marker) = self.workspace.start_session(self.guard.repository())?;
        Ok(OpenSession { id: info.id, marker: Some(marker) })
    }

    /// Ends sessions whose entries are durable.
    ///
    /// # Errors
    /// Storage errors.
    pub fn end_sessions(&self, sessions: &[OpenSession]) -> Result<()> {
        let markers: Vec<BlobId> = sessions.iter().filter_map(|session| session.marker.clone()).collect();
        session::delete_markers(self.guard.repository(), &markers)
    }

    /// Revives the plan's rows: copies them into new packs as live contents and publishes those. Tells which could not be read,
    /// and why; their packs stay.
    ///
    /// # Errors
    /// `Damaged` if one cannot be read though the plan `forgets` something: a snapshot needs it; else as [`Deeds::publish`].
    pub fn revive(&mut self, rows: &[u32], forgets: bool) -> Result<Vec<(u32, Error)>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let session = self.start_session()?;
        let now = self.guard.repository().storage().now()?.as_second();
        let mut copied = self.copy_live(rows, &session.id, now)?;
        if forgets {
            copied = self.whole(copied)?;
        }
        let table = &self.guard.view().table;
        let unread: Vec<BlobId> = copied.left.iter().map(|(row, _)| table.entry(*row).pack).collect();
        unread.into_iter().for_each(|pack| self.guard.keep_pack(pack));
        let publication =
            Publication { stage: Stage::Revive, rule: "needed-by-snapshot", session: &session.id, stamp: false };
        let total = copied.entries.len() as u64;
        self.publish(&publication, total, copied.entries.into_iter())?;
        self.leave_out(Stage::Revive, copied.left.len() as u64)?;
        self.end_sessions(&[session])?;
        Ok(copied.left)
    }

    fn copy_live(&self, rows: &[u32], session: &SessionId, now: i64) -> Result<Copied> {
        let table = &self.guard.view().table;
        if mutant::on(Mutant::R13RevivedInPlace) {
            let live = |row: &u32| Entry { deleted: false, timestamp: now, ..table.entry(*row) };
            let mut copied = Copied::default();
            copied.entries.extend(&self.workspace.spill, rows.iter().map(live))?;
            return Ok(copied);
        }
        let packs = by_pack(table, rows.iter().copied());
        let order = Order { stage: Stage::Revive.name(), table, packs: &packs, session, now, revive: true };
        copy(self.workspace, &order)
    }

    /// Refuses a copy that lacks something.
    fn whole(&self, mut copied: Copied) -> Result<Copied> {
        match copied.left.pop() {
            None => Ok(copied),
            Some((row, error)) => {
                let id = self.guard.view().table.id(row);
                let step = format!("revive content {id}, which a snapshot needs and a mark hides");
                Err(error.at(step).with_fix("Give up the snapshots that need it with `verger snapshot abandon ID`"))
            }
        }
    }

    /// Revives what newer snapshots need and a mark would take away, inside the batch that is approved now (R14).
    ///
    /// # Errors
    /// As [`Deeds::revive`]; `DeadlinePassed` if copying took longer than the approval lasts.
    pub fn revive_newcomers(&mut self, approved: &Approved) -> Result<()> {
        let ids: Vec<ContentId> = self.guard.endangered().collect();
        if ids.is_empty() || mutant::on(Mutant::R14NothingRevived) {
            return Ok(());
        }
        let session = self.start_session()?;
        let rows: Vec<u32> = ids.iter().filter_map(|id| self.guard.view().table.find(id)).collect();
        // Later than any mark of this cycle, so that the live entry wins.
        let copied = self.copy_live(&rows, &session.id, approved.store_now.as_second().saturating_add(1))?;
        let copied = self.whole(copied)?;
        let bytes = copied.bytes;
        let entries: Vec<_> = copied.entries.into_iter().collect();
        for entry in &entries {
            self.evidence.note("needed-by-newer-snapshot", entry.id.to_string());
        }
        self.keep_evidence(approved.batch)?;
        let told = self.kept.clone().ok_or_else(|| Error::new(ErrorKind::Internal, "revive nothing"))?;
        self.control
            .add_revivals(&self.ticket, told, bytes)
            .map_err(|e| Error::new(ErrorKind::PlanRefused, "revive what newer snapshots need").with_source(e))?;
        let clock = &**self.workspace.repository.clock();
        approved.deadline.check(clock, "revive what newer snapshots need")?;
        let not_after = Some(approved.deadline.since_boot());
        let blobs = write_index_set(self.guard.repository(), entries, session.id.as_str(), not_after)?;
        self.guard.wrote(blobs);
        self.guard.revived(ids);
        self.end_sessions(&[session])
    }
}
