//! Deleting in batches, or one by one where a store has no batches.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::config::{Builder, retry::RetryConfig};
use aws_sdk_s3::types::{Delete, ObjectIdentifier};

use super::intercept::{ContentMd5, Deadline};
use super::{DELETE_BATCH_MAX, S3Storage, errors};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BlobId, DeleteReport, ETag, deadline, names, parallel};

/// Requests for a thousand blobs that are under way at once: S3 takes 3,500 changes a second below one prefix, and answers such a
/// request in some tenths of a second.
pub(super) const REQUESTS_PARALLEL: usize = 4;
/// Single deletes under way at once.
const SINGLE_PARALLEL: usize = 16;

impl S3Storage {
    pub(super) fn delete_all(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let mut report = DeleteReport::default();
        let mut wanted = Vec::with_capacity(ids.len());
        for id in ids {
            match names::check_change(id) {
                Ok(()) => wanted.push(id.clone()),
                Err(error) => report.failed.push((id.clone(), error)),
            }
        }
        let batches: Vec<&[BlobId]> = wanted.chunks(DELETE_BATCH_MAX).collect();
        // The first one alone, until the store has shown that it takes lists.
        let alone = if self.takes_lists.load(Ordering::Relaxed) { 0 } else { batches.len().min(1) };
        let (first, others) = batches.split_at(alone);
        first.iter().for_each(|batch| report.extend(self.delete_batch(batch, not_after)));
        let threads = if self.single_deletes.load(Ordering::Relaxed) { 1 } else { REQUESTS_PARALLEL };
        parallel::each(others, threads, |batch| self.delete_batch(batch, not_after))
            .into_iter()
            .for_each(|part| report.extend(part));
        report
    }

    fn delete_batch(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let mut report = DeleteReport::default();
        let is_single = ids.len() == 1 || self.single_deletes.load(Ordering::Relaxed);
        if is_single || !self.batch(ids, not_after, &mut report) {
            let results = parallel::each(ids, SINGLE_PARALLEL, |id| self.delete_one(id, not_after));
            ids.iter().zip(results).for_each(|(id, result)| report.add(id, result));
        }
        report
    }

    /// If it is still this version.
    pub(super) fn delete_if(&self, id: &BlobId, version: &ETag) -> Result<()> {
        let step = || format!("delete blob {id} only as it is");
        let request = self.client.delete_object().bucket(&self.place.bucket).key(self.key(id)).if_match(&version.0);
        // Tried again after an answer that got lost, it would find its own success and take it for another's.
        let once = Builder::new().retry_config(RetryConfig::disabled());
        match self.runtime.block_on(request.customize().config_override(once).send()) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failure(error, step())),
        }
    }

    /// One request for all of them; false if the store has no such request.
    fn batch(&self, ids: &[BlobId], not_after: Option<Duration>, report: &mut DeleteReport) -> bool {
        let step = || format!("delete {} blobs", ids.len());
        let fail = |report: &mut DeleteReport, error: &Error| {
            report.failed.extend(ids.iter().map(|id| (id.clone(), again(error, id))));
        };
        // Built by hand, so nothing is missing in it.
        let objects: Result<Vec<_>, _> =
            ids.iter().map(|id| ObjectIdentifier::builder().key(self.key(id)).build()).collect();
        let body = objects.and_then(|objects| Delete::builder().set_objects(Some(objects)).quiet(false).build());
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                fail(report, &Error::new(ErrorKind::Internal, step()).with_source(error));
                return true;
            }
        };
        let request = self.client.delete_objects().bucket(&self.place.bucket).delete(body);
        let mut request = request.customize().interceptor(ContentMd5);
        if let Some(not_after) = not_after {
            match self.once(not_after, &step()) {
                Ok(once) => request = request.config_override(once),
                Err(error) => {
                    fail(report, &error);
                    return true;
                }
            }
            request = request.interceptor(Deadline { clock: Arc::clone(&self.clock), not_after });
        }
        match self.runtime.block_on(request.send()) {
            Ok(answer) => {
                self.takes_lists.store(true, Ordering::Relaxed);
                self.sort_out(ids, answer.deleted.unwrap_or_default(), answer.errors.unwrap_or_default(), report);
                true
            }
            Err(error)
                if errors::is_not_implemented(&error)
                    || matches!(errors::code(&error), Some("MalformedXML" | "InvalidRequest")) =>
            {
                self.single_deletes.store(true, Ordering::Relaxed);
                false
            }
            Err(error) => {
                fail(report, &self.failure(error, step()));
                true
            }
        }
    }

    /// An answer of 200 may hold an error for any key, or leave one out.
    fn sort_out(
        &self,
        ids: &[BlobId],
        deleted: Vec<aws_sdk_s3::types::DeletedObject>,
        failed: Vec<aws_sdk_s3::types::Error>,
        report: &mut DeleteReport,
    ) {
        let deleted: HashSet<String> = deleted.into_iter().filter_map(|object| object.key).collect();
        let failed: HashMap<String, (String, String)> = failed
            .into_iter()
            .filter_map(|error| Some((error.key?, (error.code.unwrap_or_default(), error.message.unwrap_or_default()))))
            .collect();
        for id in ids {
            let key = self.key(id);
            match failed.get(&key) {
                Some((code, _)) if code == "NoSuchKey" => report.deleted.push(id.clone()),
                Some((code, message)) => {
                    let kind = errors::kind(None, code);
                    let error = Error::new(kind, format!("delete blob {id}: {code} {message}"));
                    report.failed.push((id.clone(), error));
                }
                None if deleted.contains(&key) => report.deleted.push(id.clone()),
                None => {
                    let step = format!("delete blob {id}: the store's answer does not mention it");
                    report.failed.push((id.clone(), Error::new(ErrorKind::StoreUnavailable, step)));
                }
            }
        }
    }

    fn delete_one(&self, id: &BlobId, not_after: Option<Duration>) -> Result<()> {
        let step = || format!("delete blob {id}");
        deadline::left(&*self.clock, not_after, &step())?;
        let mut request = self.client.delete_object().bucket(&self.place.bucket).key(self.key(id)).customize();
        if let Some(not_after) = not_after {
            request = request.config_override(self.once(not_after, &step())?);
            request = request.interceptor(Deadline { clock: Arc::clone(&self.clock), not_after });
        }
        match self.runtime.block_on(request.send()) {
            Ok(_) => Ok(()),
            Err(error) if errors::code(&error) == Some("NoSuchKey") => Ok(()),
            Err(error) => Err(self.failure(error, step())),
        }
    }
}

/// The failure of a whole batch, for each blob of it.
fn again(error: &Error, id: &BlobId) -> Error {
    let copy = Error::new(error.kind(), format!("delete blob {id}: {}", error.chain()));
    match error.fix() {
        Some(fix) => copy.with_fix(fix),
        None => copy,
    }
}
