//! Writing and locking.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_sdk_s3::config::{Builder, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode, StorageClass};
use aws_smithy_types::DateTime;
use bytes::Bytes;

use super::intercept::{Deadline, content_md5};
use super::storage_class::StorageClasses;
use super::{S3Storage, errors, read};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BlobId, Condition, PutOptions, PutReceipt, Retention, RetentionMode, deadline};

/// What Kopia writes.
const CONTENT_TYPE: &str = "application/x-kopia";

impl S3Storage {
    pub(super) fn write(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        let step = || format!("write blob {id}");
        deadline::left(&*self.clock, options.not_after, &step())?;
        let class = self.classes()?.of(id.as_str()).map(StorageClass::from);
        let mut request = self.client.put_object().bucket(&self.place.bucket).key(self.key(id));
        // Object locks and some older stores want it; Kopia always sends it.
        request = request.content_type(CONTENT_TYPE).content_md5(content_md5(&data)).body(data.into());
        request = request.set_storage_class(class);
        request = match &options.condition {
            Condition::Always => request,
            Condition::IfAbsent => request.if_none_match("*"),
            Condition::IfMatch(etag) => request.if_match(&etag.0),
        };
        if let Some(retention) = options.retention {
            let mode = match retention.mode {
                RetentionMode::Governance => ObjectLockMode::Governance,
                RetentionMode::Compliance => ObjectLockMode::Compliance,
            };
            request = request.object_lock_mode(mode).object_lock_retain_until_date(date_time(retention.until));
        }
        let mut request = request.customize();
        if options.condition != Condition::Always {
            // Tried again after an answer that got lost, it would find its own success and take it for another's.
            request = request.config_override(Builder::new().retry_config(RetryConfig::disabled()));
        }
        if let Some(not_after) = options.not_after {
            request = request.config_override(self.once(not_after, &step())?);
            request = request.interceptor(Deadline { clock: Arc::clone(&self.clock), not_after });
        }
        match self.runtime.block_on(request.send()) {
            Ok(answer) => Ok(PutReceipt { etag: read::etag(answer.e_tag), timestamp: None }),
            // Amazon says so where there is nothing to match.
            Err(error)
                if matches!(options.condition, Condition::IfMatch(_)) && errors::code(&error) == Some("NoSuchKey") =>
            {
                Err(Error::new(ErrorKind::PreconditionFailed, format!("{}: it is not there any more", step())))
            }
            Err(error) => Err(self.failure(error, step())),
        }
    }

    /// The configuration of a request that must not be late: one try, in the time that is left.
    pub(super) fn once(&self, not_after: Duration, step: &str) -> Result<Builder> {
        let left = deadline::left(&*self.clock, Some(not_after), step)?.unwrap_or_default();
        let timeouts = TimeoutConfig::builder().operation_timeout(left).operation_attempt_timeout(left).build();
        Ok(Builder::new().retry_config(RetryConfig::disabled()).timeout_config(timeouts))
    }

    pub(super) fn lock_until(&self, id: &BlobId, retention: Retention) -> Result<()> {
        let mode = match retention.mode {
            RetentionMode::Governance => ObjectLockRetentionMode::Governance,
            RetentionMode::Compliance => ObjectLockRetentionMode::Compliance,
        };
        let lock = ObjectLockRetention::builder().mode(mode).retain_until_date(date_time(retention.until)).build();
        let request = self.client.put_object_retention().bucket(&self.place.bucket).key(self.key(id)).retention(lock);
        let step = || format!("extend the object lock of {id}");
        match self.runtime.block_on(request.send()) {
            Ok(_) => Ok(()),
            Err(error) if errors::code(&error) == Some("InvalidRequest") => {
                Err(Error::unsupported(format!("{}: the bucket has no object locks", step())).with_source(error))
            }
            Err(error) => Err(self.failure(error, step())),
        }
    }

    /// The storage classes of `.storageconfig`, read once.
    fn classes(&self) -> Result<Arc<StorageClasses>> {
        let mut classes = self.classes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(classes) = &*classes {
            return Ok(Arc::clone(classes));
        }
        let read = Arc::new(StorageClasses::read(self)?);
        *classes = Some(Arc::clone(&read));
        Ok(read)
    }
}

fn date_time(time: Timestamp) -> DateTime {
    DateTime::from_secs(time.as_second())
}
