//! What connections log in with, where the application says so anew each time.
//!
//! Owns the application's provider of [`Credentials`] and contains what goes
//! wrong in it. Does not know when it is asked, nor how long it may take.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use millpond_driver::{BoxFuture, Credentials, Error, Outcome, Result};

use super::shared::panic_message;

type Provider = dyn Fn() -> BoxFuture<'static, Result<Credentials>> + Send + Sync;

pub(super) struct Login(Box<Provider>);

impl Login {
    pub(super) fn new<F, Fut>(provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials>> + Send + 'static,
    {
        Self(Box::new(move || Box::pin(provider())))
    }

    /// What the next connect logs in with. Whatever an error says of its own
    /// work, nothing was sent to this database.
    pub(super) async fn ask(&self) -> Result<Credentials> {
        let asked = AssertUnwindSafe(async { (self.0)().await }).catch_unwind().await;
        asked
            .unwrap_or_else(|panic| {
                Err(Error::panicked(panic_message("the credentials provider", &*panic)))
            })
            .map_err(|error| error.with_outcome(Outcome::NotSent))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}
