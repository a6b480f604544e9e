//! The `Date` of a store's answers, which `object_store` does not hand on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

use crate::clock::Timestamp;

/// Makes HTTP clients that keep the `Date` of the last answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct DateConnector(Arc<Mutex<Option<Timestamp>>>);

impl DateConnector {
    /// The `Date` of the last answer.
    pub(crate) fn last(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnector for DateConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(DatedClient { inner, date: self.clone() }))
    }
}

#[derive(Debug)]
struct DatedClient {
    inner: HttpClient,
    date: DateConnector,
}

type Answer<'f> = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'f>>;

impl HttpService for DatedClient {
    // As `async_trait` would write it.
    fn call<'s, 'f>(&'s self, request: HttpRequest) -> Answer<'f>
    where
        's: 'f,
        Self: 'f,
    {
        Box::pin(async move {
            let answer = self.inner.execute(request).await?;
            let text = answer.headers().get("date").and_then(|value| value.to_str().ok());
            let date = text.and_then(|text| jiff::fmt::rfc2822::parse(text).ok()).map(|date| date.timestamp());
            *self.date.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
            Ok(answer)
        })
    }
}
