//! Where a repository lies, as people write it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// Where a repository lies. Prefixes are taken as written: Kopia adds no `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `filesystem:///path`, or a path.
    Filesystem(PathBuf),
    /// `s3://bucket/prefix`.
    S3(BucketPrefix),
    /// `gcs://bucket/prefix`.
    Gcs(BucketPrefix),
    /// `azure://container/prefix`.
    Azure(BucketPrefix),
}

/// A bucket (container) and what all keys in it begin with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketPrefix {
    /// Bucket or container.
    pub bucket: String,
    /// Beginning of all keys, as written; may be empty.
    pub prefix: String,
}

impl Address {
    /// The same place with `/` after the prefix, where it has a prefix without one: what a person may have meant.
    #[must_use]
    pub fn with_slash(&self) -> Option<Self> {
        let add = |place: &BucketPrefix| {
            let open = !place.prefix.is_empty() && !place.prefix.ends_with('/');
            open.then(|| BucketPrefix { bucket: place.bucket.clone(), prefix: format!("{}/", place.prefix) })
        };
        match self {
            Self::Filesystem(_) => None,
            Self::S3(place) => add(place).map(Self::S3),
            Self::Gcs(place) => add(place).map(Self::Gcs),
            Self::Azure(place) => add(place).map(Self::Azure),
        }
    }
}

impl fmt::Display for BucketPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix.as_str() {
            "" => f.write_str(&self.bucket),
            prefix => write!(f, "{}/{prefix}", self.bucket),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filesystem(path) => write!(f, "filesystem://{}", path.display()),
            Self::S3(place) => write!(f, "s3://{place}"),
            Self::Gcs(place) => write!(f, "gcs://{place}"),
            Self::Azure(place) => write!(f, "azure://{place}"),
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// # Errors
    /// `Usage` if it is no address; `Unsupported` for backends that Kopia has and this program has not.
    fn from_str(text: &str) -> Result<Self, Error> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return match text {
                "" => Err(usage("an empty address names no repository")),
                path => Ok(Self::Filesystem(PathBuf::from(path))),
            };
        };
        match scheme {
            "filesystem" if rest.starts_with('/') => Ok(Self::Filesystem(PathBuf::from(rest))),
            "filesystem" => Err(usage(format!("{text}: the path after filesystem:// must begin with /"))),
            "s3" => Ok(Self::S3(bucket_prefix(text, rest)?)),
            "gcs" => Ok(Self::Gcs(bucket_prefix(text, rest)?)),
            "azure" => Ok(Self::Azure(bucket_prefix(text, rest)?)),
            other => {
                Err(foreign_backend(other)
                    .unwrap_or_else(|| usage(format!("{text}: unknown kind of storage {other:?}"))))
            }
        }
    }
}

/// The error for a backend of Kopia's that this program does not have, by its name in a URI or a connection file;
/// `None` for a name that is none of Kopia's.
#[must_use]
pub fn foreign_backend(name: &str) -> Option<Error> {
    let (words, advice) = match name {
        "b2" => ("Backblaze B2", "use the bucket's S3 endpoint: s3://bucket/prefix with AWS_S3_ENDPOINT set to it"),
        "sftp" => ("SFTP", "run on that server on the directory itself, or mount it (sshfs) and give the path"),
        "webdav" => ("WebDAV", "mount it (davfs2) and give the path"),
        "rclone" => ("rclone", "mount it (rclone mount --vfs-cache-mode writes) and give the path"),
        "gdrive" => ("Google Drive", "mount it (rclone mount) and give the path"),
        "from-config" => ("a connection file in place of an address", "give the file with --config-file"),
        _ => return None,
    };
    let fix = format!("{advice}; or copy the repository to a store that is supported with `kopia repository sync-to`");
    Some(Error::unsupported(format!("{words} is not supported")).with_fix(fix))
}

fn bucket_prefix(text: &str, rest: &str) -> Result<BucketPrefix, Error> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() || bucket.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(usage(format!("{text}: the bucket's name is missing or malformed")));
    }
    if bucket.contains('@') {
        // A key in an address would end in logs and process lists.
        return Err(usage("an address with credentials in it is refused").with_fix("give credentials by environment"));
    }
    Ok(BucketPrefix { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn usage(step: impl Into<String>) -> Error {
    Error::new(ErrorKind::Usage, step)
        .with_fix("give filesystem:///path, s3://bucket/prefix, gcs://bucket/prefix or azure://container/prefix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["filesystem:///srv/a b", "s3://bucket", "s3://bucket/pre/fix/", "gcs://b/p", "azure://c/p?q"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("/srv/x".parse::<Address>().unwrap().to_string(), "filesystem:///srv/x");
        assert_eq!("x".parse::<Address>().unwrap(), Address::Filesystem("x".into()));
        let Address::S3(place) = "s3://b//p".parse::<Address>().unwrap() else { panic!() };
        assert_eq!(place.prefix, "/p");
        assert_eq!("s3://b/p".parse::<Address>().unwrap().with_slash().unwrap().to_string(), "s3://b/p/");
        assert_eq!("s3://b/p/".parse::<Address>().unwrap().with_slash(), None);
        assert_eq!("s3://b".parse::<Address>().unwrap().with_slash(), None);
    }

    #[test]
    fn what_is_no_address_says_what_to_do() {
        for (text, kind) in [
            ("", ErrorKind::Usage),
            ("s3://", ErrorKind::Usage),
            ("s3:///p", ErrorKind::Usage),
            ("s3://key:secret@bucket/p", ErrorKind::Usage),
            ("filesystem://srv", ErrorKind::Usage),
            ("ftp://x", ErrorKind::Usage),
            ("b2://bucket", ErrorKind::Unsupported),
            ("sftp://host/x", ErrorKind::Unsupported),
            ("webdav://host/x", ErrorKind::Unsupported),
            ("rclone://remote", ErrorKind::Unsupported),
            ("gdrive://folder", ErrorKind::Unsupported),
        ] {
            let error = text.parse::<Address>().unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.fix().is_some(), "{text}");
            assert!(!error.chain().contains("secret"), "{text}");
        }
    }
}
