//! A repository in a bucket of S3 or of one of its many likes.

mod client;
mod delete;
mod errors;
mod intercept;
mod read;
mod storage_class;
mod unverified;
mod versions;
mod write;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_s3::Client;
use bytes::Bytes;

use super::address::BucketPrefix;
use super::cloud_runtime::CloudRuntime;
use super::settings::S3Settings;
use super::{
    Address, BlobId, BlobMetadata, ByteRange, Capabilities, DeleteReport, ETag, PutOptions, PutReceipt, Retention,
    Storage, Versioning, names,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Most keys that one `DeleteObjects` takes.
const DELETE_BATCH_MAX: usize = 1000;

/// Which bucket, and how to reach it.
#[derive(Debug, Clone)]
pub struct S3Options {
    /// Bucket and prefix.
    pub place: BucketPrefix,
    /// Endpoint, credentials, TLS.
    pub settings: S3Settings,
    /// Clock of the deadlines.
    pub clock: Arc<dyn Clock>,
}

impl S3Options {
    /// With the machine's own clock.
    #[must_use]
    pub fn new(place: BucketPrefix, settings: S3Settings) -> Self {
        Self { place, settings, clock: Arc::new(SystemClock) }
    }
}

/// A repository in a bucket. Requests are retried by the SDK, except those that must not happen late or twice: writes with a
/// condition or a deadline.
pub struct S3Storage {
    runtime: CloudRuntime,
    client: Client,
    place: BucketPrefix,
    clock: Arc<dyn Clock>,
    /// `.storageconfig`, read before the first write.
    classes: Mutex<Option<Arc<storage_class::StorageClasses>>>,
    /// The store has refused `DeleteObjects`.
    single_deletes: AtomicBool,
    /// The store has answered one.
    takes_lists: AtomicBool,
    /// A HEAD that answers 404 does not say whether the object is missing or the bucket.
    bucket_seen: AtomicBool,
}

impl fmt::Debug for S3Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "S3Storage({})", self.address())
    }
}

impl S3Storage {
    /// Prepares the client. Sends nothing to the bucket yet.
    ///
    /// # Errors
    /// `Usage` for settings that cannot be; `Unsupported` for Kopia's point in time.
    pub fn connect(options: S3Options) -> Result<Self> {
        let S3Options { place, settings, clock } = options;
        let runtime = CloudRuntime::new("verger-s3")?;
        let client = runtime.block_on(client::build(&settings))?;
        Ok(Self {
            runtime,
            client,
            place,
            clock,
            classes: Mutex::default(),
            single_deletes: AtomicBool::new(false),
            takes_lists: AtomicBool::new(false),
            bucket_seen: AtomicBool::new(false),
        })
    }

    fn key(&self, id: &BlobId) -> String {
        format!("{}{id}", self.place.prefix)
    }

    /// Tells a missing bucket from a missing object, once.
    fn check_bucket(&self) -> Result<()> {
        if self.bucket_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let asked = self.runtime.block_on(self.client.head_bucket().bucket(&self.place.bucket).send());
        match asked {
            Ok(_) => {}
            Err(error) if errors::status(&error) == Some(404) => return Err(self.no_bucket()),
            // Not allowed to ask; then a missing bucket answers 403 as well, and never came here.
            Err(error) if errors::status(&error) == Some(403) => {}
            Err(error) => return Err(self.failure(error, format!("look at bucket {}", self.place.bucket))),
        }
        self.bucket_seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn no_bucket(&self) -> Error {
        Error::new(ErrorKind::NotARepository, format!("there is no bucket {}", self.place.bucket))
            .with_fix("check the bucket's name, the endpoint and the region")
    }
}

impl Storage for S3Storage {
    fn address(&self) -> String {
        Address::S3(self.place.clone()).to_string()
    }

    fn capabilities(&self) -> Capabilities {
        let able = Capabilities { conditional_writes: true, retention: true, ..Capabilities::LEAST };
        if self.single_deletes.load(Ordering::Relaxed) {
            return able;
        }
        let delete_at_once = DELETE_BATCH_MAX * delete::REQUESTS_PARALLEL;
        Capabilities { delete_batch_max: DELETE_BATCH_MAX, delete_at_once, ..able }
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        names::check(id)?;
        self.read(id, range)
    }

    fn get_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        names::check(id)?;
        self.read_with_metadata(id)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        names::check(id)?;
        self.look(id)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        self.visit_all(prefix, visit)
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        names::check_change(id)?;
        self.write(id, data, options)
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        self.delete_all(ids, not_after)
    }

    fn extend_retention(&self, id: &BlobId, retention: Retention) -> Result<()> {
        names::check_change(id)?;
        self.lock_until(id, retention)
    }

    fn now(&self) -> Result<Timestamp> {
        self.date()
    }

    fn versioning(&self) -> Result<Versioning> {
        self.ask_versioning()
    }

    fn delete_own_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        names::check_own(id)?;
        self.delete_if(id, version)
    }

    fn purge_versions(&self, id: &BlobId) -> Result<u64> {
        names::check_change(id)?;
        self.purge(id)
    }
}
