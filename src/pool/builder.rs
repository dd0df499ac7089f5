//! How a pool comes to be: settings checked, a runtime found, a first
//! connection proved.
//!
//! Knows no default of a setting; `config` does.

use std::sync::Arc;

use millpond_driver::{Driver, Error, Phase, Result, Runtime};

use super::Pool;
use super::shared::Shared;
use super::state::State;
use super::tasks::Opening;
use crate::config::PoolConfig;

/// Sets a pool up. Made by [`Pool::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until built"]
pub struct Builder<D> {
    driver: D,
    pub(crate) config: PoolConfig,
    runtime: Option<Arc<dyn Runtime>>,
}

impl<D: Driver> Builder<D> {
    pub(super) fn new(driver: D) -> Self {
        Self { driver, config: PoolConfig::new(), runtime: None }
    }

    /// Replaces all settings made so far.
    pub fn config(mut self, config: PoolConfig) -> Self {
        self.config = config;
        self
    }

    /// The runtime to work on. Default: tokio if its feature is on and the pool
    /// is built inside a tokio runtime, else smol or async-std if its feature
    /// is on.
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtime = Some(Arc::new(runtime));
        self
    }

    /// Builds the pool and proves it: one connection is opened and pinged
    /// within `connect_timeout`, and lies idle afterwards.
    ///
    /// # Errors
    ///
    /// Contradicting settings, no runtime, or whatever keeps the first
    /// connection from working.
    ///
    /// # Cancellation
    ///
    /// Dropping the future closes what was opened.
    pub async fn build(self) -> Result<Pool<D>> {
        let pool = self.prepare()?;
        let shared = &pool.shared;
        let index =
            shared.turn(|state, turn| state.reserve(turn)).expect("a pool has at least one slot");
        let seat = Opening::new(shared, index);
        match first(shared).await {
            Ok(conn) => {
                seat.opened(conn);
                Ok(pool)
            }
            Err(error) => {
                seat.failed(error.clone());
                Err(error)
            }
        }
    }

    /// Builds the pool without touching the database: the first acquire
    /// connects.
    ///
    /// # Errors
    ///
    /// Contradicting settings, or no runtime.
    pub fn build_lazy(self) -> Result<Pool<D>> {
        let pool = self.prepare()?;
        pool.shared.turn(State::settle);
        Ok(pool)
    }

    fn prepare(self) -> Result<Pool<D>> {
        let settings = self.config.resolve()?;
        let runtime = self.runtime.or_else(crate::runtime::current).ok_or_else(|| {
            Error::config(
                "no async runtime: build the pool inside a tokio runtime (feature `tokio`), \
                 enable the feature `smol` or `async-std`, or name one with Builder::runtime",
            )
        })?;
        Ok(Pool { shared: Arc::new(Shared::new(self.driver, runtime, settings)) })
    }
}

/// A connection that has answered, within one `connect_timeout`.
async fn first<D: Driver>(shared: &Arc<Shared<D>>) -> Result<D::Connection> {
    let limit = shared.settings.connect_timeout;
    let work = async {
        let mut conn = shared.connect().await?;
        shared.driver.ping(&mut conn).await?;
        Ok(conn)
    };
    shared.attempt(Phase::Connecting, limit, work).await
}
