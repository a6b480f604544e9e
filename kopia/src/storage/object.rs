//! One adapter for the stores of the `object_store` crate.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, UpdateVersion};

use super::address::BucketPrefix;
use super::cloud_runtime::CloudRuntime;
use super::object_date::DateConnector;
use super::{
    Address, BlobId, BlobMetadata, ByteRange, Capabilities, Condition, DeleteReport, ETag, PutOptions, PutReceipt,
    Storage, deadline, names, parallel,
};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};

/// Single deletes under way at once.
const DELETE_PARALLEL: usize = 16;

/// The clients of one bucket.
pub(crate) struct Clients {
    /// Tries again by itself.
    pub(crate) normal: Arc<dyn ObjectStore>,
    /// Tries once: for writes that must not happen late, and for those that could take their own success for another's.
    pub(crate) once: Arc<dyn ObjectStore>,
    /// Lists by any beginning of a key; `None` where only folders can be listed.
    pub(crate) pages: Option<Arc<dyn PaginatedListStore>>,
    /// Keeps the `Date` of answers; `None` where there is no server.
    pub(crate) date: Option<DateConnector>,
}

/// A repository in a bucket of Google Cloud Storage or Azure.
///
/// A blob's time is when the store wrote it. Kopia's `Kopia-Mtime`, which only copied repositories have, is not looked at:
/// listings do not show it.
pub struct ObjectStoreAdapter {
    runtime: CloudRuntime,
    clients: Clients,
    address: Address,
    prefix: String,
    clock: Arc<dyn Clock>,
    /// These stores call a missing bucket and a missing object alike.
    bucket_seen: AtomicBool,
}

impl fmt::Debug for ObjectStoreAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectStoreAdapter({})", self.address)
    }
}

impl ObjectStoreAdapter {
    pub(crate) fn new(address: Address, place: &BucketPrefix, clients: Clients) -> Result<Self> {
        let prefix = place.prefix.clone();
        if prefix.starts_with('/') || prefix.contains("//") || prefix.chars().any(char::is_control) {
            let step = format!("{address}: a prefix that begins with / or has an empty part cannot be reached");
            return Err(Error::unsupported(step));
        }
        let runtime = CloudRuntime::new("verger-objects")?;
        let clock = Arc::new(SystemClock);
        Ok(Self { runtime, clients, address, prefix, clock, bucket_seen: AtomicBool::new(false) })
    }

    fn path(&self, id: &BlobId) -> Result<Path> {
        names::check(id)?;
        Path::parse(format!("{}{id}", self.prefix))
            .map_err(|error| Error::damaged(format!("{id} is no key for this store")).with_source(error))
    }

    /// The failure of `step`. "Absent" only with the bucket in place.
    fn failure(&self, error: object_store::Error, step: String) -> Error {
        use object_store::Error as E;
        let kind = match &error {
            _ if status(&error) == Some(404) => match self.check_bucket() {
                Ok(()) => ErrorKind::NotFound,
                Err(missing) => return missing.at(step),
            },
            E::AlreadyExists { .. } | E::Precondition { .. } => ErrorKind::PreconditionFailed,
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => ErrorKind::Permission,
            E::NotSupported { .. } | E::NotImplemented { .. } => ErrorKind::Unsupported,
            E::InvalidPath { .. } => ErrorKind::Damaged,
            _ if matches!(status(&error), Some(401 | 403)) => ErrorKind::Permission,
            _ => ErrorKind::StoreUnavailable,
        };
        let failure = Error::new(kind, step).with_source(error);
        match kind {
            ErrorKind::Permission => failure.with_fix("check the credentials, and their rights on the bucket"),
            _ => failure,
        }
    }

    fn check_bucket(&self) -> Result<()> {
        let Some(pages) = &self.clients.pages else { return Ok(()) };
        if self.bucket_seen.load(Ordering::Relaxed) {
            return Ok(());
        }
        let options = PaginatedListOptions { max_keys: Some(1), ..PaginatedListOptions::default() };
        match self.runtime.block_on(pages.list_paginated(Some(&self.prefix), options)) {
            Ok(_) => {}
            // Not allowed to list; a missing bucket would have said so before.
            Err(error) if status(&error) == Some(403) => {}
            Err(error) if status(&error) == Some(404) => return Err(self.no_bucket(error)),
            Err(error) => {
                return Err(Error::new(ErrorKind::StoreUnavailable, "look at the bucket").with_source(error));
            }
        }
        self.bucket_seen.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn no_bucket(&self, error: object_store::Error) -> Error {
        Error::new(ErrorKind::NotARepository, format!("there is no bucket at {}", self.address))
            .with_fix("check the bucket's or container's name, and the account")
            .with_source(error)
    }

    fn read(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        let step = || format!("read blob {id}");
        let path = self.path(id)?;
        let wanted = match range {
            ByteRange::All => None,
            // These cannot be said in a request.
            ByteRange::Span { length: 0, .. } | ByteRange::Last(0) => {
                return range.within(id, self.head(id)?.length).map(|_| Bytes::new());
            }
            ByteRange::Last(n) => Some(GetRange::Suffix(n)),
            ByteRange::Span { offset, length } => match offset.checked_add(length) {
                Some(end) => Some(GetRange::Bounded(offset..end)),
                None => return range.within(id, self.head(id)?.length).map(|_| Bytes::new()),
            },
        };
        let options = GetOptions { range: wanted, ..GetOptions::default() };
        let answer = self.runtime.block_on(async {
            let answer = self.clients.normal.get_opts(&path, options).await?;
            let size = answer.meta.size;
            Ok((size, answer.bytes().await?))
        });
        let (size, data) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let failure = self.failure(error, step());
                if range == ByteRange::All || failure.kind() != ErrorKind::StoreUnavailable {
                    return Err(failure);
                }
                // A range behind the end fails in each store's own way.
                return match range.within(id, self.head(id)?.length)? {
                    (_, 0) => Ok(Bytes::new()),
                    _ => Err(failure),
                };
            }
        };
        let (_, length) = range.within(id, size)?;
        if data.len() as u64 != length {
            let step = format!("{}: {length} bytes were announced, {} came", step(), data.len());
            return Err(Error::new(ErrorKind::StoreUnavailable, step));
        }
        Ok(data)
    }

    fn visit_meta(
        &self,
        prefix: &str,
        object: ObjectMeta,
        visit: &mut dyn FnMut(BlobMetadata) -> Result<()>,
    ) -> Result<()> {
        match object.location.as_ref().strip_prefix(&self.prefix) {
            Some(name) if name.starts_with(prefix) && names::is_valid(name) => {
                visit(metadata(BlobId::new(name), &object)?)
            }
            _ => Ok(()),
        }
    }

    fn mode(&self, id: &BlobId, condition: &Condition) -> Result<PutMode> {
        let changed = || Error::new(ErrorKind::PreconditionFailed, format!("write blob {id}: it has changed"));
        match condition {
            Condition::Always => Ok(PutMode::Overwrite),
            Condition::IfAbsent => Ok(PutMode::Create),
            Condition::IfMatch(wanted) => {
                // Google wants the generation, which listings do not show: take it from the version with this identity.
                let path = self.path(id)?;
                let found = match self.runtime.block_on(self.clients.normal.head(&path)) {
                    Ok(found) => found,
                    Err(error) => {
                        let failure = self.failure(error, format!("look at blob {id}"));
                        return Err(if failure.kind() == ErrorKind::NotFound { changed() } else { failure });
                    }
                };
                if etag(found.e_tag.as_ref()).as_ref() != Some(wanted) {
                    return Err(changed());
                }
                Ok(PutMode::Update(UpdateVersion { e_tag: found.e_tag, version: found.version }))
            }
        }
    }

    /// One request, given up when its time is over; then it may or may not have happened.
    fn within<T>(
        &self,
        left: Option<Duration>,
        request: impl Future<Output = object_store::Result<T>>,
        step: &str,
    ) -> Result<T> {
        let result = match left {
            None => self.runtime.block_on(request),
            Some(left) => match self.runtime.block_on(async { tokio::time::timeout(left, request).await }) {
                Ok(result) => result,
                Err(_) => {
                    let step = format!("{step}: no answer before its deadline");
                    return Err(Error::new(ErrorKind::StoreUnavailable, step));
                }
            },
        };
        result.map_err(|error| self.failure(error, step.to_owned()))
    }

    fn delete_one(&self, id: &BlobId, not_after: Option<Duration>) -> Result<()> {
        names::check_change(id)?;
        let step = format!("delete blob {id}");
        let path = self.path(id)?;
        let left = deadline::left(&*self.clock, not_after, &step)?;
        let client = if left.is_some() { &self.clients.once } else { &self.clients.normal };
        match self.within(left, client.delete(&path), &step) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl Storage for ObjectStoreAdapter {
    fn address(&self) -> String {
        self.address.to_string()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_writes: true, ..Capabilities::LEAST }
    }

    fn get(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        self.read(id, range)
    }

    fn head(&self, id: &BlobId) -> Result<BlobMetadata> {
        let path = self.path(id)?;
        let found = self.runtime.block_on(self.clients.normal.head(&path));
        metadata(id.clone(), &found.map_err(|error| self.failure(error, format!("look at blob {id}")))?)
    }

    fn list(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        let step = || format!("list blobs that begin with {prefix:?}");
        let Some(pages) = &self.clients.pages else {
            let folder = self.prefix.rsplit_once('/').map(|(folder, _)| Path::from(folder));
            let all = self.runtime.block_on(self.clients.normal.list_with_delimiter(folder.as_ref()));
            let all = all.map_err(|error| self.failure(error, step()))?;
            return all.objects.into_iter().try_for_each(|object| self.visit_meta(prefix, object, visit));
        };
        let beginning = format!("{}{prefix}", self.prefix);
        let mut token: Option<String> = None;
        loop {
            let options = PaginatedListOptions { page_token: token.clone(), ..PaginatedListOptions::default() };
            let page = match self.runtime.block_on(pages.list_paginated(Some(&beginning), options)) {
                Ok(page) => page,
                Err(error) if status(&error) == Some(404) => return Err(self.no_bucket(error).at(step())),
                Err(error) => return Err(self.failure(error, step())),
            };
            for object in page.result.objects {
                self.visit_meta(prefix, object, visit)?;
            }
            match page.page_token.filter(|next| !next.is_empty()) {
                None => return Ok(()),
                Some(next) if token.as_ref() == Some(&next) => {
                    let step = format!("{}: the store gives the same page again", step());
                    return Err(Error::new(ErrorKind::StoreUnavailable, step));
                }
                next => token = next,
            }
        }
    }

    fn put(&self, id: &BlobId, data: Bytes, options: &PutOptions) -> Result<PutReceipt> {
        names::check_change(id)?;
        let step = format!("write blob {id}");
        if options.retention.is_some() {
            return Err(Error::unsupported(format!("{step}: object locks of this store cannot be set")));
        }
        let path = self.path(id)?;
        deadline::left(&*self.clock, options.not_after, &step)?;
        let mode = self.mode(id, &options.condition)?;
        let left = deadline::left(&*self.clock, options.not_after, &step)?;
        let careful = left.is_some() || options.condition != Condition::Always;
        let client = if careful { &self.clients.once } else { &self.clients.normal };
        let written = self.within(left, client.put_opts(&path, data.into(), mode.into()), &step)?;
        Ok(PutReceipt { etag: etag(written.e_tag.as_ref()), timestamp: None })
    }

    fn delete(&self, ids: &[BlobId], not_after: Option<Duration>) -> DeleteReport {
        let results = parallel::each(ids, DELETE_PARALLEL, |id| self.delete_one(id, not_after));
        let mut report = DeleteReport::default();
        ids.iter().zip(results).for_each(|(id, result)| report.add(id, result));
        report
    }

    fn now(&self) -> Result<Timestamp> {
        let Some(date) = &self.clients.date else { return Ok(self.clock.now()) };
        match self.head(&BlobId::new(format!("{}lease", names::OWN_PREFIX))) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.at("ask the store for its time")),
        }
        date.last().ok_or_else(|| Error::new(ErrorKind::StoreUnavailable, "the store's answers have no date"))
    }
}

/// The status of a refused request. The crate sorts it out for single objects only; for listings it is in the text.
fn status(error: &object_store::Error) -> Option<u16> {
    match error {
        object_store::Error::NotFound { .. } => return Some(404),
        object_store::Error::PermissionDenied { .. } => return Some(403),
        object_store::Error::Unauthenticated { .. } => return Some(401),
        _ => {}
    }
    let mut next: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = next {
        next = cause.source();
        // The innermost text holds the status alone; outer ones hold a URL as well.
        if next.is_none() {
            let text = cause.to_string();
            let (_, after) = text.split_once("non-2xx status code: ")?;
            return after.get(..3)?.parse().ok();
        }
    }
    None
}

fn metadata(id: BlobId, object: &ObjectMeta) -> Result<BlobMetadata> {
    let nanoseconds = i32::try_from(object.last_modified.timestamp_subsec_nanos()).unwrap_or(0);
    let timestamp = Timestamp::new(object.last_modified.timestamp(), nanoseconds)
        .map_err(|error| Error::damaged(format!("read the time of blob {id}")).with_source(error))?;
    Ok(BlobMetadata { id, length: object.size, timestamp, etag: etag(object.e_tag.as_ref()) })
}

fn etag(text: Option<&String>) -> Option<ETag> {
    let bare = text?.trim().trim_matches('"');
    (!bare.is_empty()).then(|| ETag(format!("\"{bare}\"")))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::storage::conformance;

    fn store(bucket: &Arc<InMemory>, prefix: &str) -> Result<ObjectStoreAdapter> {
        let place = BucketPrefix { bucket: "b".to_owned(), prefix: prefix.to_owned() };
        let (normal, once): (Arc<dyn ObjectStore>, Arc<dyn ObjectStore>) = (bucket.clone(), bucket.clone());
        ObjectStoreAdapter::new(Address::Gcs(place.clone()), &place, Clients { normal, once, pages: None, date: None })
    }

    #[test]
    fn it_conforms() {
        for prefix in ["", "pre/", "some/pre"] {
            let make = || Box::new(store(&Arc::new(InMemory::new()), prefix).unwrap()) as Box<dyn Storage>;
            conformance::suite(&make);
        }
    }

    #[test]
    fn prefixes_are_as_written() {
        let bucket = Arc::new(InMemory::new());
        let (open, slash) = (store(&bucket, "pre").unwrap(), store(&bucket, "pre/").unwrap());
        open.put(&BlobId::new("p1"), "open".into(), &PutOptions::default()).unwrap();
        slash.put(&BlobId::new("p1"), "slash".into(), &PutOptions::default()).unwrap();
        assert_eq!(open.get(&BlobId::new("p1"), ByteRange::All).unwrap(), "open");
        assert_eq!(crate::storage::list_all(&open, "").unwrap().len(), 1);
        for prefix in ["/pre", "a//b"] {
            assert_eq!(store(&bucket, prefix).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
