//! A store that is only read, whatever it could do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, PutOptions, PutReceipt, Retention, Storage,
    Versioning,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};

/// Passes reading on and refuses the rest as `Permission`.
#[derive(Debug)]
pub struct ReadOnlyStorage(Arc<dyn Storage>);

impl ReadOnlyStorage {
    /// Wraps a store.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self(inner)
    }
}

fn refused(step: String) -> Error {
    Error::new(ErrorKind::Permission, format!("{step}: the store was opened read-only"))
}

impl Storage for ReadOnlyStorage {
    fn address(&self) -> String {
        self.0.address()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.0.get(id, range)
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        self.0.get_with_metadata(id)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        self.0.head(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.0.list(prefix, visit)
    }

    fn put(&self, id: &BlobId, _: Bytes, _: &PutOptions) -> Result<PutReceipt> {
        Err(refused(format!("write blob {id}")))
    }

    fn delete(&self, ids: &[BlobId], _: Option<Duration>) -> DeleteReport {
        let failed = ids.iter().map(|id| (id.clone(), refused(format!("delete blob {id}")))).collect();
        DeleteReport { deleted: Vec::new(), failed }
    }

    fn extend_retention(&self, id: &BlobId, _: Retention) -> Result<()> {
        Err(refused(format!("extend the object lock of {id}")))
    }

    fn now(&self) -> Result<Timestamp> {
        self.0.now()
    }

    fn versioning(&self) -> Result<Versioning> {
        self.0.versioning()
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        Err(refused(format!("delete old versions of {id}")))
    }

    fn delete_own_if(&self, id: &BlobId, _: &ETag) -> Result<()> {
        Err(refused(format!("delete blob {id}")))
    }

    fn local_root(&self) -> Option<&Path> {
        self.0.local_root()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn nothing_changes() {
        let inner = Arc::new(MemoryStorage::default());
        let id = BlobId::new("p1");
        inner.put(&id, "x".into(), &PutOptions::default()).unwrap();
        let store = ReadOnlyStorage::new(inner.clone());
        assert_eq!(store.get(&id, ByteRange::All).unwrap(), "x");
        let refused = store.put(&id, "y".into(), &PutOptions::default()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Permission);
        assert_eq!(store.delete(std::slice::from_ref(&id), None).failed.len(), 1);
        assert_eq!(inner.get(&id, ByteRange::All).unwrap(), "x");
    }
}
