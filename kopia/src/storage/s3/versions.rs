//! Buckets that keep what is deleted (R24).

use std::time::Duration;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{BucketVersioningStatus, DefaultRetention};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::{S3Storage, errors};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BlobId, Versioning, names};

const DAY: u64 = 24 * 3600;

impl S3Storage {
    pub(super) fn ask_versioning(&self) -> Result<Versioning> {
        let step = || format!("ask whether bucket {} keeps versions", self.place.bucket);
        let request = self.client.get_bucket_versioning().bucket(&self.place.bucket);
        let kept = match self.runtime.block_on(request.send()) {
            // Suspended keeps what it had.
            Ok(answer) => {
                Some(matches!(answer.status, Some(BucketVersioningStatus::Enabled | BucketVersioningStatus::Suspended)))
            }
            Err(error) if may_not_ask(&error) => None,
            Err(error) => return Err(self.failure(error, step())),
        };
        if kept == Some(false) {
            // Object locks need versions.
            return Ok(Versioning::NONE);
        }
        let request = self.client.get_object_lock_configuration().bucket(&self.place.bucket);
        let default_retention = match self.runtime.block_on(request.send()) {
            Ok(answer) => answer
                .object_lock_configuration
                .and_then(|configuration| configuration.rule)
                .and_then(|rule| rule.default_retention)
                .map(|retention| period(&retention)),
            Err(error) if may_not_ask(&error) || errors::status(&error) == Some(404) => None,
            Err(error) => return Err(self.failure(error, step())),
        };
        Ok(Versioning { kept, default_retention })
    }

    /// Deletes all versions but the newest, and delete markers if one of them is the newest.
    pub(super) fn purge(&self, id: &BlobId) -> Result<u64> {
        if !names::is_own(id.as_str()) {
            return Err(Error::new(ErrorKind::Usage, format!("old versions of {id} are not ours to delete")));
        }
        let step = || format!("delete old versions of {id}");
        let mut purged = 0;
        for version in self.old_versions(id)? {
            let request = self.client.delete_object().bucket(&self.place.bucket).key(self.key(id)).version_id(version);
            match self.runtime.block_on(request.send()) {
                Ok(_) => purged += 1,
                // Locked, or not ours to remove: it stays.
                Err(error) if errors::code(&error) == Some("AccessDenied") => {}
                Err(error) => return Err(self.failure(error, step())),
            }
        }
        Ok(purged)
    }

    fn old_versions(&self, id: &BlobId) -> Result<Vec<String>> {
        let step = || format!("list versions of {id}");
        let key = self.key(id);
        let (mut old, mut key_marker, mut version_marker) = (Vec::new(), None, None);
        loop {
            let request = self.client.list_object_versions().bucket(&self.place.bucket).prefix(&key);
            let request = request.set_key_marker(key_marker).set_version_id_marker(version_marker);
            let page = match self.runtime.block_on(request.send()) {
                Ok(page) => page,
                Err(error) if errors::is_not_implemented(&error) => return Ok(old),
                Err(error) => return Err(self.failure(error, step())),
            };
            let versions = page.versions.unwrap_or_default().into_iter();
            // An unversioned bucket shows its objects as their only, latest version.
            let older = versions.filter(|version| version.is_latest == Some(false));
            old.extend(
                older.filter(|version| version.key.as_ref() == Some(&key)).filter_map(|version| version.version_id),
            );
            let markers = page.delete_markers.unwrap_or_default().into_iter();
            old.extend(
                markers.filter(|marker| marker.key.as_ref() == Some(&key)).filter_map(|marker| marker.version_id),
            );
            if !page.is_truncated.unwrap_or(false) || page.next_key_marker.is_none() {
                return Ok(old);
            }
            (key_marker, version_marker) = (page.next_key_marker, page.next_version_id_marker);
        }
    }
}

fn may_not_ask<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    errors::status(error) == Some(403) || errors::is_not_implemented(error)
}

fn period(retention: &DefaultRetention) -> Duration {
    let days = retention.days.and_then(|days| u64::try_from(days).ok());
    let years = retention.years.and_then(|years| u64::try_from(years).ok());
    let days = days.unwrap_or_default() + years.unwrap_or_default() * 366;
    Duration::from_secs(days * DAY)
}
