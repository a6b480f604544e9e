//! Names of what was done, beside the ledger (S6): every blob and content with the rule, the plan and the term. The ledger keeps
//! their digest and count.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use verger_kopia::{Error, ErrorKind, Result};
use verger_proto::Digest;
use verger_proto::job::OutputRef;

/// One line: something that was changed, and why.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    /// Stage: `mark`, `delete`, …
    pub stage: &'a str,
    /// Rule: `unreferenced-pack`, `unused-content`, …
    pub rule: &'a str,
    /// Blob or content.
    pub subject: &'a str,
    /// Bytes.
    pub bytes: u64,
}

/// The evidence of one cycle. Nothing is written where there is no folder (dry runs, tests).
pub struct Evidence {
    out: Option<(PathBuf, BufWriter<File>)>,
    name: String,
    batch: Vec<u8>,
    lines: u64,
    batches: u64,
}

impl Evidence {
    /// Appends to `<folder>/<name>.jsonl`.
    ///
    /// # Errors
    /// `Permission` if the file cannot be opened.
    pub fn in_folder(folder: &Path, name: &str) -> Result<Self> {
        let path = folder.join(format!("{name}.jsonl"));
        let open = || -> std::io::Result<File> {
            std::fs::create_dir_all(folder)?;
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path)
        };
        let file = open().map_err(|e| failed(&path, e))?;
        Ok(Self { out: Some((path, BufWriter::new(file))), name: name.to_owned(), batch: Vec::new(), lines: 0, batches: 0 })
    }

    /// Counts and hashes without writing.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { out: None, name: "none".to_owned(), batch: Vec::new(), lines: 0, batches: 0 }
    }

    /// Notes what a batch is doing.
    ///
    /// # Errors
    /// `Internal` if it cannot be encoded.
    pub fn note(&mut self, line: &Line<'_>) -> Result<()> {
        serde_json::to_writer(&mut self.batch, line)
            .map_err(|e| Error::new(ErrorKind::Internal, "encode evidence").with_source(e))?;
        self.batch.push(b'\n');
        self.lines += 1;
        Ok(())
    }

    /// Ends a batch: its lines are durable when this returns. `None` if it had none.
    ///
    /// # Errors
    /// `DiskFull`, `Permission`.
    pub fn close_batch(&mut self) -> Result<Option<OutputRef>> {
        if self.batch.is_empty() {
            return Ok(None);
        }
        let digest = Digest::of(&self.batch);
        let (batch, count) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.lines));
        if let Some((path, out)) = &mut self.out {
            let write = out.write_all(&batch).and_then(|()| out.flush()).and_then(|()| out.get_ref().sync_data());
            write.map_err(|e| failed(path, e))?;
        }
        self.batches += 1;
        let name = format!("evidence/{}/{}", self.name, self.batches);
        Ok(Some(OutputRef { name, digest, count, view: digest }))
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::StorageFull { ErrorKind::DiskFull } else { ErrorKind::Permission };
    Error::new(kind, format!("write evidence to {}", path.display())).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s6_every_line_is_in_the_file_and_its_digest_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut evidence = Evidence::in_folder(folder.path(), "cycle-7").unwrap();
        assert_eq!(evidence.close_batch().unwrap(), None);
        let line = Line { stage: "delete", rule: "unreferenced-pack", subject: "p12-s1", bytes: 5 };
        evidence.note(&line).unwrap();
        let told = evidence.close_batch().unwrap().unwrap();
        let written = std::fs::read(folder.path().join("cycle-7.jsonl")).unwrap();
        assert_eq!((told.count, told.digest), (1, Digest::of(&written)));
        assert!(String::from_utf8(written).unwrap().contains("p12-s1"));
    }
}
