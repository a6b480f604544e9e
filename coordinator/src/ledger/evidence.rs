//! Names of what was done, a file for each cycle. The ledger holds the digest of each record.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use verger_kopia::error::{Error, ErrorKind, Result};
use verger_proto::envelope::{self, Kind};
use verger_proto::{CycleId, Digest, Evidence, OutputRef, Ticket};

use crate::files::{make_folders, sync_folder};

/// Keeps names of what a batch does where they outlast the process that does it.
pub trait KeepEvidence: Send + Sync {
    /// Keeps a record; it is on stable storage when this returns. `view`: what the cycle works on.
    ///
    /// # Errors
    /// It may not have been kept.
    fn keep(&self, ticket: &Ticket, view: Digest, evidence: &Evidence) -> Result<OutputRef>;
}

impl KeepEvidence for EvidenceFolder {
    fn keep(&self, ticket: &Ticket, view: Digest, evidence: &Evidence) -> Result<OutputRef> {
        self.append(ticket.cycle, view, evidence)
    }
}

/// The folder of a repository's evidence.
#[derive(Debug)]
pub struct EvidenceFolder(PathBuf);

impl EvidenceFolder {
    /// The folder `evidence` beside a ledger.
    #[must_use]
    pub fn beside(ledger_folder: &Path) -> Self {
        Self(ledger_folder.join("evidence"))
    }

    fn path(&self, cycle: CycleId) -> PathBuf {
        self.0.join(cycle.to_string())
    }

    /// Keeps a record; it is on stable storage when this returns.
    ///
    /// # Errors
    /// It may not have been kept.
    pub fn append(&self, cycle: CycleId, view: Digest, evidence: &Evidence) -> Result<OutputRef> {
        let path = self.path(cycle);
        let step = || format!("keep evidence in {}", path.display());
        let bytes = envelope::encode(Kind::Evidence, evidence)
            .map_err(|error| Error::new(ErrorKind::Internal, step()).with_source(error))?;
        let written = (|| {
            make_folders(&self.0)?;
            let is_new = !path.exists();
            let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            if is_new { sync_folder(&self.0) } else { Ok(()) }
        })();
        written.map_err(|error| Error::of_file(step(), error))?;
        let count = u64::try_from(evidence.names.len()).unwrap_or(u64::MAX);
        Ok(OutputRef { name: format!("evidence/{cycle}"), digest: Digest::of(&bytes), count, view })
    }

    /// Reads the evidence of a cycle; each record with its digest, to compare with the ledger.
    ///
    /// # Errors
    /// `Damaged` if a record does not read back, save one that was cut short at the end.
    pub fn read(&self, cycle: CycleId) -> Result<Vec<(Digest, Evidence)>> {
        let path = self.path(cycle);
        let step = || format!("read evidence in {}", path.display());
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
        read.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::new(ErrorKind::NotFound, step()).with_source(error),
            _ => Error::new(ErrorKind::Permission, step()).with_source(error),
        })?;
        let (mut rest, mut records) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let length = match envelope::header(rest) {
                Ok(header) if header.record_bytes <= rest.len() => header.record_bytes,
                Ok(_) | Err(envelope::EnvelopeError::Short { .. }) => break,
                Err(error) => return Err(Error::damaged(step()).with_source(error)),
            };
            let (record, after) = rest.split_at(length);
            let evidence = envelope::decode(Kind::Evidence, record);
            records.push((Digest::of(record), evidence.map_err(|error| Error::damaged(step()).with_source(error))?));
            rest = after;
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use verger_proto::{Batch, Stage};

    #[test]
    fn s6_evidence_reads_back_with_the_digest_that_the_ledger_got() {
        let folder = tempfile::tempdir().unwrap();
        let evidence = EvidenceFolder::beside(folder.path());
        let batch = Batch { stage: Stage::Delete, number: 0, first: 0, items: 2, digest: Digest::of(b"b") };
        let names = vec!["p01".to_owned(), "p02".to_owned()];
        let one = Evidence { batch, rule: "unreferenced-pack".to_owned(), names };
        let kept = evidence.append(CycleId(7), Digest::of(b"view"), &one).unwrap();
        let again = evidence.append(CycleId(7), Digest::of(b"view"), &one).unwrap();
        assert_eq!((kept.count, kept.name.as_str()), (2, "evidence/7"));
        let expected = [(kept.digest, one.clone()), (again.digest, one)];
        assert_eq!(evidence.read(CycleId(7)).unwrap(), expected);
        assert_eq!(evidence.read(CycleId(8)).unwrap_err().kind(), ErrorKind::NotFound);
        let path = evidence.path(CycleId(7));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[60] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(evidence.read(CycleId(7)).unwrap_err().kind(), ErrorKind::Damaged);
    }
}
