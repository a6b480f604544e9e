//! A disk that is small, and full when a test wants it so.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::skipped;

/// A small file system in memory; it goes with the value.
pub struct Small(pub PathBuf, tempfile::TempDir);

impl Small {
    /// `None`, and a word, where none can be mounted.
    pub fn mount(kilobytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small");
        fs::create_dir(&path).unwrap();
        let options = format!("size={kilobytes}k");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(&path).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            skipped("no tmpfs can be mounted: full disks are only played");
            return None;
        }
        Some(Self(path, folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Leaves no room, in files of smaller and smaller sizes; which.
pub fn fill(folder: &Path) -> Vec<PathBuf> {
    let (mut block, mut files) = (vec![1_u8; 1 << 20], Vec::new());
    while !block.is_empty() {
        let path = folder.join(format!("filler{}", files.len()));
        if fs::write(&path, &block).is_ok() {
            files.push(path);
        } else {
            let _ = fs::remove_file(&path);
            block.truncate(block.len() / 2);
        }
    }
    files
}
