//! How a pool comes to be: settings checked, a runtime found, a first
//! connection proved.
//!
//! Knows no default of a setting; `config` does.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use millpond_driver::{BoxFuture, Credentials, Driver, Error, Phase, Result, Runtime};

use super::Pool;
use super::connects::Newborn;
use super::events::{Both, Observer};
use super::hooks::{HookConnection, Hooks};
use super::info::ConnectionInfo;
use super::leaks::Leak;
use super::login::Login;
use super::shared::Shared;
use super::state::State;
use super::tasks::Opening;
use crate::config::PoolConfig;
use crate::retry::Retry;
use crate::sync::AtomicBool;

/// Sets a pool up. Made by [`Pool::builder`].
#[must_use = "a builder does nothing until built"]
pub struct Builder<D: Driver> {
    driver: D,
    pub(crate) config: PoolConfig,
    runtime: Option<Arc<dyn Runtime>>,
    hooks: Hooks<D>,
    name: Option<String>,
    /// How long the database may take to come.
    patience: Option<Duration>,
}

impl<D: Driver> Builder<D> {
    pub(super) fn new(driver: D) -> Self {
        Self {
            driver,
            config: PoolConfig::new(),
            runtime: None,
            hooks: Hooks::default(),
            name: None,
            patience: None,
        }
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

    /// What connections log in with, asked for anew by each connect: for
    /// passwords that change and tokens that expire. Default: what the driver
    /// was configured with, as for whatever the provider leaves out.
    ///
    /// The provider may take its time, which is part of `connect_timeout`, and
    /// may be called by several connects at once; one that costs much keeps what
    /// it got for as long as that is good. Its error is the connect's: one that
    /// is [permanent](Error::is_permanent), as those with
    /// [`Cause::Auth`](crate::Cause::Auth) are, is told to callers at once;
    /// after others the pool tries again. Connections that are open go on with
    /// what they logged in with, for `conn_max_lifetime` at most.
    ///
    /// ```
    /// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
    /// use millpond::Credentials;
    ///
    /// # async fn token() -> millpond::Result<String> { Ok("of this hour".to_owned()) }
    /// # Sim::new(1).run(async |sim| {
    /// let server = Fake::new();
    /// let pool = Pool::builder(server.clone())
    ///     .credentials(|| async { Ok(Credentials::new().user("app").password(token().await?)) })
    /// #   .runtime(sim)
    ///     .build()
    ///     .await?;
    /// let given = server.logins()[0].clone().expect("credentials");
    /// assert_eq!(given.password.as_deref(), Some("of this hour"));
    /// # Ok::<_, millpond::Error>(())
    /// # })?;
    /// # Ok::<_, millpond::Error>(())
    /// ```
    pub fn credentials<F, Fut>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Credentials>> + Send + 'static,
    {
        self.hooks.login = Some(Login::new(provider));
        self
    }

    /// How long [`build`](Self::build) waits for a database that does not take
    /// connections yet, as while both start together. It tries again from 50
    /// milliseconds on, in the end about twice a second. What waiting does not
    /// mend fails at once: wrong credentials, an unknown database. Default: 0,
    /// one attempt.
    ///
    /// ```
    /// # use millpond::{Pool, drivers::fake::{Act, Fake}, testing::sim::Sim};
    /// # use std::time::Duration;
    /// # Sim::new(1).run(async |sim| {
    /// # let driver = Fake::new();
    /// # driver.next_connects([Act::refuse(), Act::refuse(), Act::refuse()]);
    /// let limit = Duration::from_secs(60);
    /// let pool = Pool::builder(driver)
    ///     .wait_for_database(limit)
    /// #   .runtime(sim)
    ///     .build()
    ///     .await?;
    /// # Ok::<_, millpond::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn wait_for_database(mut self, limit: Duration) -> Self {
        self.patience = Some(limit).filter(|limit| !limit.is_zero());
        self
    }

    /// Builds the pool and proves it: one connection is opened and pinged
    /// within `connect_timeout`, and lies idle afterwards.
    ///
    /// # Errors
    ///
    /// Contradicting settings, no runtime, or whatever keeps the first
    /// connection from working, with the [earlier](Error::earlier) attempts if
    /// it [waits](Self::wait_for_database) for the database.
    ///
    /// # Cancellation
    ///
    /// Dropping the future closes what was opened.
    pub async fn build(self) -> Result<Pool<D>> {
        let patience = self.patience;
        let pool = self.prepare()?;
        let shared = &pool.shared;
        let index =
            shared.turn(|state, turn| state.reserve(turn)).expect("a pool has at least one slot");
        let seat = Opening::new(shared, index);
        let opened = match patience {
            Some(limit) => first_within(shared, limit).await,
            None => first(shared, Duration::MAX).await,
        };
        match opened {
            Ok(newborn) => {
                seat.opened(newborn);
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
        let name = self.name.unwrap_or_else(|| self.driver.name().to_owned());
        let shared = Shared::new(self.driver, runtime, settings, self.hooks, name);
        Ok(Pool { shared: Arc::new(shared) })
    }
}

/// The application's own code in the life of a connection.
///
/// Hooks run in tasks of the pool (but for `after_connect` on the first
/// connection, which [`build`](Self::build) proves itself), so a slow one holds
/// up nobody but those who wait for that very connection. One that holds a
/// [`Pool`] keeps it open for ever; give it a [weak handle](Pool::downgrade). One that has nothing to await returns a
/// [ready](std::future::ready) future. A panic counts as a refusal, and so does
/// a session that is left in a transaction or with a statement under way.
///
/// ```
/// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
/// # Sim::new(1).run(async |sim| {
/// let pool = Pool::builder(Fake::new())
///     .after_connect(|mut conn| Box::pin(async move { conn.batch("SET ROLE app").await }))
///     .before_close(|conn| {
///         println!("connection {} is closed after {} uses", conn.info().id, conn.info().uses);
///         Box::pin(std::future::ready(Ok(())))
///     })
/// #   .runtime(sim)
///     .build()
///     .await?;
/// # Ok::<_, millpond::Error>(())
/// # }).unwrap();
/// ```
impl<D: Driver> Builder<D> {
    /// Runs on each new connection before anybody can see it, within
    /// `connect_timeout`; and again after a reset to
    /// [`Reset::Session`](crate::Reset::Session), which clears what it has set.
    /// An error is that of the connect: the connection is closed. Replaces the hook
    /// set before.
    pub fn after_connect<H>(mut self, hook: H) -> Self
    where
        H: for<'a> Fn(HookConnection<'a, D>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
    {
        self.hooks.after_connect = Some(Box::new(hook));
        self
    }

    /// Runs on each connection before it is lent, within `check_timeout`.
    ///
    /// An error closes the connection, and the next one is tried. One that is
    /// [permanent](crate::Error::is_permanent) goes to the caller instead; the
    /// connection is then kept if the error's [fate](crate::Error::fate) is
    /// [`Reusable`](crate::Fate::Reusable). A new connection that is refused
    /// counts as a connect that failed. Costs each acquire a task. Replaces the hook
    /// set before.
    pub fn before_acquire<H>(mut self, hook: H) -> Self
    where
        H: for<'a> Fn(HookConnection<'a, D>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
    {
        self.hooks.before_acquire = Some(Box::new(hook));
        self
    }

    /// Runs on each connection that is given back and clean, within
    /// `reset_timeout`, while the pool is open. An error closes it, and is told
    /// to the [observer](Self::observer). Replaces the hook set before.
    pub fn after_release<H>(mut self, hook: H) -> Self
    where
        H: for<'a> Fn(HookConnection<'a, D>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
    {
        self.hooks.after_release = Some(Box::new(hook));
        self
    }

    /// Runs on each connection that the pool is about to close, within the
    /// second that a goodbye may take. It cannot be refused. Not called for one
    /// that is dropped with its runtime, detached, or refused by
    /// `after_connect`. Replaces the hook set before.
    pub fn before_close<H>(mut self, hook: H) -> Self
    where
        H: for<'a> Fn(HookConnection<'a, D>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static,
    {
        self.hooks.before_close = Some(Box::new(hook));
        self
    }

    /// Is told of each connection that is held for longer than `leak_after`,
    /// and of its return. Called by whoever keeps the pool's time, and where it
    /// is given back; so it must not block. A panic in it is dropped. Replaces the
    /// listener set before.
    pub fn on_leak(mut self, listener: impl Fn(&Leak) + Send + Sync + 'static) -> Self {
        self.hooks.on_leak = Some(Box::new(listener));
        self
    }
}

impl<D: Driver> Builder<D> {
    /// Has somebody told what happens in the pool, one by one. There may be
    /// several; each is told.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.hooks.observer = Some(match self.hooks.observer.take() {
            None => Arc::new(observer),
            Some(first) => Arc::new(Both(first, observer)),
        });
        self
    }

    /// The name of the pool in metrics. Default: the one it is registered by, or
    /// that of its driver.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Has somebody decide, by a flag, whether new sessions refuse writes.
    pub(crate) fn reads_only(mut self, flag: Arc<AtomicBool>) -> Self {
        self.hooks.reads_only = Some(flag);
        self
    }

    /// The driver.
    pub(crate) fn driver(&self) -> &D {
        &self.driver
    }

    /// Its runtime, if it has none.
    pub(crate) fn or_runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime.get_or_insert(runtime);
        self
    }

    /// The name it has, if it has one.
    pub(crate) fn named(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its name, if it has none.
    pub(crate) fn or_name(mut self, name: &str) -> Self {
        self.name.get_or_insert_with(|| name.to_owned());
        self
    }
}

impl<D: Driver> fmt::Debug for Builder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("driver", &self.driver.name())
            .field("name", &self.name)
            .field("config", &self.config)
            .field("hooks", &self.hooks)
            .finish_non_exhaustive()
    }
}

/// A connection that has answered, within one `connect_timeout` or this limit.
async fn first<D: Driver>(
    shared: &Arc<Shared<D>>,
    limit: Duration,
) -> Result<Newborn<D::Connection>> {
    let limit = shared.rules(|rules| rules.connect_timeout).min(limit);
    let work = async {
        // Boxed: it is the largest of all, and whoever builds a pool may have a
        // small stack.
        let mut newborn = Box::pin(shared.connect()).await?;
        if let Err(error) = shared.driver.ping(&mut newborn.conn).await {
            let info = ConnectionInfo::newborn(newborn.id);
            Box::pin(shared.farewell(newborn.conn, info)).await;
            return Err(error);
        }
        Ok(newborn)
    };
    shared.attempt(Phase::Connecting, limit, work).await
}

/// The same, tried again for this long.
async fn first_within<D: Driver>(
    shared: &Arc<Shared<D>>,
    limit: Duration,
) -> Result<Newborn<D::Connection>> {
    let policy = Retry::of_first_connect(limit);
    let mut attempts = policy.attempts(&*shared.runtime);
    loop {
        match first(shared, attempts.left(shared.runtime.now())).await {
            Ok(newborn) => return Ok(newborn),
            Err(error) => attempts.next(error).await?,
        }
    }
}
