//! What probes left that were killed.

use jiff::SignedDuration;

use super::object::{PREFIX, remove_object};
use crate::error::Result;
use crate::storage::{Storage, list_all};

/// No probe takes so long: what is older has nobody any more who would remove it.
const AGE: SignedDuration = SignedDuration::from_hours(24);

/// Removes objects of probes that are older than a day, by the store's clock.
pub(super) fn remove(storage: &dyn Storage) -> Result<()> {
    let found = list_all(storage, PREFIX)?;
    if found.is_empty() {
        return Ok(());
    }
    let now = storage.now()?;
    let old = found.iter().filter(|blob| now.duration_since(blob.timestamp) > AGE);
    old.map(|blob| &blob.id).try_for_each(|id| remove_object(storage, id))
}
