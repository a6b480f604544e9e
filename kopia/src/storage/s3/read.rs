//! Reading, looking, listing, and the store's time.

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_smithy_types::DateTime;
use bytes::Bytes;

use super::intercept::DateHeader;
use super::{S3Storage, errors, storage_class};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{BlobId, BlobMetadata, ByteRange, ETag, names};

/// How often a body that broke off is asked for again: the SDK's retries end with the headers.
const BODY_ATTEMPTS: usize = 4;

impl S3Storage {
    /// The headers of the answer are of the same version as its body.
    pub(super) fn read_with_metadata(&self, id: &BlobId) -> Result<(Bytes, BlobMetadata)> {
        let step = || format!("read blob {id}");
        let mut attempt = 1;
        loop {
            let read = self.read_once(id, ByteRange::All, None).and_then(|(bytes, head)| {
                let metadata = BlobMetadata {
                    id: id.clone(),
                    length: bytes.len() as u64,
                    timestamp: timestamp(head.last_modified, &step)?,
                    etag: etag(head.e_tag),
                };
                Ok((bytes, metadata))
            });
            match read {
                Err(error) if error.is_retryable() && attempt < BODY_ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    pub(super) fn read(&self, id: &BlobId, range: ByteRange) -> Result<Bytes> {
        let header = match range {
            ByteRange::All => None,
            // Requests for no bytes cannot be said in a header.
            ByteRange::Span { length: 0, .. } | ByteRange::Last(0) => {
                return range.within(id, self.look(id)?.length).map(|_| Bytes::new());
            }
            ByteRange::Last(n) => Some(format!("bytes=-{n}")),
            ByteRange::Span { offset, length } => match offset.checked_add(length - 1) {
                Some(last) => Some(format!("bytes={offset}-{last}")),
                None => return range.within(id, self.look(id)?.length).map(|_| Bytes::new()),
            },
        };
        let mut attempt = 1;
        loop {
            match self.read_once(id, range, header.as_deref()) {
                Err(error) if error.is_retryable() && attempt < BODY_ATTEMPTS => attempt += 1,
                other => return other.map(|(bytes, _)| bytes),
            }
        }
    }

    fn read_once(&self, id: &BlobId, range: ByteRange, header: Option<&str>) -> Result<(Bytes, Head)> {
        let step = || format!("read blob {id}");
        let request = self.client.get_object().bucket(&self.place.bucket).key(self.key(id));
        let request = request.set_range(header.map(str::to_owned));
        let answer = match self.runtime.block_on(request.send()) {
            Ok(answer) => answer,
            Err(error) if errors::status(&error) == Some(416) => {
                // The range begins behind the end: an empty blob, or one that is too short.
                let (_, length) = range.within(id, self.look(id)?.length)?;
                return match length {
                    0 => Ok((Bytes::new(), Head::default())),
                    _ => Err(Error::new(ErrorKind::StoreUnavailable, format!("{}: it is just being changed", step()))),
                };
            }
            Err(error) => return Err(self.failure(error, step())),
        };
        let (wanted, skip) = extent(&answer, id, range)?;
        let head = Head { last_modified: answer.last_modified, e_tag: answer.e_tag };
        let mut body = answer.body;
        let data = self.runtime.block_on(async {
            let mut data = bytes::BytesMut::new();
            while let Some(chunk) = body.try_next().await? {
                data.extend_from_slice(&chunk);
            }
            Ok::<_, aws_smithy_types::byte_stream::error::Error>(data.freeze())
        });
        let broken = |why: String| Error::new(ErrorKind::StoreUnavailable, format!("{}: {why}", step()));
        let data = data.map_err(|error| broken("the answer broke off".to_owned()).with_source(error))?;
        let end = skip.saturating_add(wanted);
        match (usize::try_from(skip), usize::try_from(end)) {
            (Ok(skip), Ok(end)) if end <= data.len() => Ok((data.slice(skip..end), head)),
            _ => Err(broken(format!("{end} bytes were announced, {} came", data.len()))),
        }
    }

    pub(super) fn look(&self, id: &BlobId) -> Result<BlobMetadata> {
        let step = || format!("look at blob {id}");
        let request = self.client.head_object().bucket(&self.place.bucket).key(self.key(id));
        let answer = match self.runtime.block_on(request.send()) {
            Ok(answer) => answer,
            Err(error) if errors::status(&error) == Some(404) => {
                self.check_bucket().map_err(|error| error.at(step()))?;
                return Err(Error::new(ErrorKind::NotFound, format!("blob {id} is not there")));
            }
            Err(error) => return Err(self.failure(error, step())),
        };
        let id = id.clone();
        Ok(BlobMetadata {
            timestamp: timestamp(answer.last_modified, &step)?,
            length: length(answer.content_length, &step)?,
            etag: etag(answer.e_tag),
            id,
        })
    }

    pub(super) fn visit_all(&self, prefix: &str, visit: &mut dyn FnMut(BlobMetadata) -> Result<()>) -> Result<()> {
        let step = || format!("list blobs that begin with {prefix:?}");
        let broken = |why: &str| Error::new(ErrorKind::StoreUnavailable, format!("{}: {why}", step()));
        let mut token: Option<String> = None;
        loop {
            let request = self.client.list_objects_v2().bucket(&self.place.bucket);
            let request = request.prefix(format!("{}{prefix}", self.place.prefix));
            let request = request.set_continuation_token(token.clone());
            let page = self.runtime.block_on(request.send()).map_err(|error| self.failure(error, step()))?;
            for object in page.contents.unwrap_or_default() {
                let key = object.key.ok_or_else(|| broken("an entry has no key"))?;
                let name = key.strip_prefix(&self.place.prefix).ok_or_else(|| broken("a key lacks the prefix"))?;
                if name == storage_class::CONFIG_NAME || !names::is_valid(name) {
                    continue;
                }
                let entry = || format!("{}: {name}", step());
                visit(BlobMetadata {
                    id: BlobId::new(name),
                    length: length(object.size, &entry)?,
                    timestamp: timestamp(object.last_modified, &entry)?,
                    etag: etag(object.e_tag),
                })?;
            }
            if !page.is_truncated.unwrap_or(false) {
                return Ok(());
            }
            match page.next_continuation_token {
                // The same page again would never end.
                Some(next) if token.as_ref() != Some(&next) => token = Some(next),
                _ => return Err(broken("the store says that there is more, but not where it goes on")),
            }
        }
    }

    /// The `Date` of a cheap request's answer. Whether the object is there does not matter.
    pub(super) fn date(&self) -> Result<Timestamp> {
        let step = || "ask the store for its time".to_owned();
        let header = DateHeader::default();
        let key = self.key(&BlobId::new(format!("{}lease", names::OWN_PREFIX)));
        let request = self.client.head_object().bucket(&self.place.bucket).key(key);
        let request = request.customize().interceptor(header.clone());
        match self.runtime.block_on(request.send()) {
            Ok(_) => {}
            Err(error) if errors::status(&error) == Some(404) => {}
            Err(error) => return Err(self.failure(error, step())),
        }
        let date = header.take();
        let parsed = date.as_deref().and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        let missing = || Error::new(ErrorKind::StoreUnavailable, format!("{}: {date:?} is no date", step()));
        parsed.map(|zoned| zoned.timestamp()).ok_or_else(missing)
    }
}

/// What an answer's headers say of the version that its body is.
#[derive(Default)]
struct Head {
    last_modified: Option<DateTime>,
    e_tag: Option<String>,
}

/// How many bytes of the body are wanted, and how many come before them. A store that ignores ranges sends everything.
fn extent(answer: &GetObjectOutput, id: &BlobId, range: ByteRange) -> Result<(u64, u64)> {
    let step = || format!("read blob {id}");
    let sent = length(answer.content_length, &step)?;
    if range == ByteRange::All {
        return Ok((sent, 0));
    }
    let Some(content_range) = &answer.content_range else {
        return range.within(id, sent).map(|(offset, length)| (length, offset));
    };
    // "bytes 5-9/20": the store cuts a range at the blob's end.
    let total = content_range.rsplit_once('/').and_then(|(_, total)| total.parse::<u64>().ok());
    let (_, length) = match total {
        Some(total) => range.within(id, total)?,
        None => match range {
            ByteRange::Span { offset, length } => (offset, length),
            _ => (0, sent),
        },
    };
    if sent < length {
        return Err(Error::damaged(format!("{}: {length} bytes are wanted, {sent} are there", step())));
    }
    Ok((length, 0))
}

fn length(length: Option<i64>, step: &dyn Fn() -> String) -> Result<u64> {
    length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| {
        Error::new(ErrorKind::StoreUnavailable, format!("{}: the store does not tell the length", step()))
    })
}

fn timestamp(time: Option<DateTime>, step: &dyn Fn() -> String) -> Result<Timestamp> {
    let parsed = time.and_then(|time| Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok());
    parsed.ok_or_else(|| {
        Error::new(ErrorKind::StoreUnavailable, format!("{}: the store does not tell the time of writing", step()))
    })
}

/// Some stores quote identities in one answer and not in the other.
pub(super) fn etag(text: Option<String>) -> Option<ETag> {
    let text = text?;
    let bare = text.trim().trim_matches('"');
    (!bare.is_empty()).then(|| ETag(format!("\"{bare}\"")))
}
