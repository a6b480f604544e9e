//! The one place where blocking callers meet the asynchronous SDKs.

use tokio::runtime::{Builder, Runtime};

use crate::error::{Error, ErrorKind, Result};

/// A small runtime of a store's own.
#[derive(Debug)]
pub(crate) struct CloudRuntime(Option<Runtime>);

impl CloudRuntime {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let built = Builder::new_multi_thread().worker_threads(2).thread_name(name).enable_all().build();
        let failed = |error| Error::new(ErrorKind::Internal, "start the runtime of a store").with_source(error);
        Ok(Self(Some(built.map_err(failed)?)))
    }

    /// Runs a request on the calling thread, which must not be one of an asynchronous runtime.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.0.as_ref().expect("there until dropped").block_on(future)
    }
}

impl Drop for CloudRuntime {
    fn drop(&mut self) {
        // A plain drop waits, and panics where the owner happens to be dropped inside another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
