//! Files of the state folder that are there as a whole, before or after a process or the power ended, and never in between.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// Puts `text` in the place of the file. One writer at a time: what an earlier one was killed over is written over.
pub fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(text)?;
    // A name that is durable before its bytes are would stand for an empty file.
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_folder(path)
}

/// Makes the names in the folder of this file last.
pub(super) fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
