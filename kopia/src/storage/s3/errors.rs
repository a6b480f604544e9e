//! What an S3 store's errors mean.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::S3Storage;
use super::intercept::DeadlineReached;
use crate::error::{Error, ErrorKind};

/// Status of the answer, if there was one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Code of the answer, if there was one with a body.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// Whether the store does not have this operation, or this form of it.
pub(super) fn is_not_implemented<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> bool {
    matches!(status(error), Some(501 | 405)) || matches!(code(error), Some("NotImplemented" | "MethodNotAllowed"))
}

impl S3Storage {
    /// The failure of `step`. Only an answer that names the missing key makes a blob absent.
    pub(super) fn failure<E>(&self, error: SdkError<E, HttpResponse>, step: String) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if DeadlineReached::is_in(&error) {
            return Error::new(ErrorKind::DeadlinePassed, format!("{step}: its deadline has passed"));
        }
        let region = error.raw_response().and_then(|response| response.headers().get("x-amz-bucket-region"));
        let region = region.map(str::to_owned);
        let (status, code) = (status(&error), code(&error).unwrap_or_default().to_owned());
        if code == "NoSuchBucket" {
            return self.no_bucket().at(step);
        }
        let kind = kind(status, &code);
        let cause = Cause::of(error, status, &code);
        let untrusted = cause.text.contains("invalid peer certificate");
        let failure = Error::new(kind, step).with_source(cause);
        if untrusted {
            return failure.with_fix("give the certificate of the authority that signed the server's");
        }
        match fix(kind, &code, region.as_deref()) {
            Some(fix) => failure.with_fix(fix),
            None => failure,
        }
    }
}

/// The kind of an answer with this status and code.
pub(super) fn kind(status: Option<u16>, code: &str) -> ErrorKind {
    match (status, code) {
        (_, "NoSuchKey") => ErrorKind::NotFound,
        (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException") => {
            ErrorKind::Usage
        }
        (_, "RequestTimeTooSkewed") => ErrorKind::Clock,
        (_, "NotImplemented") => ErrorKind::Unsupported,
        (_, "PreconditionFailed" | "ConditionalRequestConflict" | "OperationAborted") => ErrorKind::PreconditionFailed,
        (
            _,
            "AccessDenied"
            | "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "AllAccessDisabled"
            | "AccountProblem",
        ) => ErrorKind::Permission,
        (_, "QuotaExceeded" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "InsufficientStorage") => {
            ErrorKind::DiskFull
        }
        (Some(412 | 409), _) => ErrorKind::PreconditionFailed,
        (Some(401 | 403), _) => ErrorKind::Permission,
        (Some(501 | 405), _) => ErrorKind::Unsupported,
        (Some(301 | 307), _) => ErrorKind::Usage,
        (Some(507), _) => ErrorKind::DiskFull,
        // A 404 without a code may come from anything on the way.
        _ => ErrorKind::StoreUnavailable,
    }
}

fn fix(kind: ErrorKind, code: &str, region: Option<&str>) -> Option<String> {
    match (kind, code) {
        (ErrorKind::Usage, _) => Some(match region {
            Some(region) => format!("set AWS_REGION to {region}"),
            None => "set AWS_REGION to the bucket's region, or AWS_S3_ENDPOINT to its endpoint".to_owned(),
        }),
        (ErrorKind::Permission, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken") => {
            Some("check access key, secret key and session token".to_owned())
        }
        (ErrorKind::Permission, _) => Some(
            "the credentials need s3:GetObject, s3:ListBucket, s3:PutObject and s3:DeleteObject on the bucket"
                .to_owned(),
        ),
        (ErrorKind::Clock, _) => Some("set this machine's clock".to_owned()),
        _ => None,
    }
}

/// What the SDK says, in words. Its own texts leave the cause out ("service error", "dispatch failure").
#[derive(Debug)]
struct Cause {
    text: String,
}

impl Cause {
    fn of<E>(error: SdkError<E, HttpResponse>, status: Option<u16>, code: &str) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let message = error.as_service_error().and_then(ProvideErrorMetadata::message).map(str::to_owned);
        let text = match (status, message) {
            (Some(status), Some(message)) => format!("{status} {code}: {message}"),
            (Some(status), None) if !code.is_empty() => format!("{status} {code}"),
            (Some(status), None) => format!("status {status}"),
            (None, _) => chain(&error),
        };
        Self { text }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Some layers repeat the one below.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_named_key_is_absent() {
        assert_eq!(kind(Some(404), "NoSuchKey"), ErrorKind::NotFound);
        assert_eq!(kind(Some(404), ""), ErrorKind::StoreUnavailable);
        assert_eq!(kind(Some(403), ""), ErrorKind::Permission);
        assert_eq!(kind(Some(403), "AccessDenied"), ErrorKind::Permission);
        assert_eq!(kind(Some(403), "RequestTimeTooSkewed"), ErrorKind::Clock);
        assert_eq!(kind(Some(412), ""), ErrorKind::PreconditionFailed);
        assert_eq!(kind(Some(409), "ConditionalRequestConflict"), ErrorKind::PreconditionFailed);
        assert_eq!(kind(Some(501), "NotImplemented"), ErrorKind::Unsupported);
        assert_eq!(kind(Some(503), "SlowDown"), ErrorKind::StoreUnavailable);
        assert_eq!(kind(None, ""), ErrorKind::StoreUnavailable);
    }
}
