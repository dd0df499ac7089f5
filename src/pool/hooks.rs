//! The application's own code in the life of a connection.
//!
//! Owns how a hook is called: with a connection and its facts, in a task of the
//! pool, its panic contained, the session it leaves behind looked at. Does not
//! know what follows from a refusal; `tasks` and the state do.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use millpond_driver::{BoxFuture, Cause, Driver, Error, Fate, Phase, Result, Rows, Session, Value};

use super::events::Observer;
use super::info::ConnectionInfo;
use super::leaks::Leak;
use super::login::Login;
use super::shared::{Shared, panic_message};
use crate::sync::AtomicBool;

/// A connection in a hook's hands.
///
/// Dereferences to the driver's own connection, as
/// [`PooledConnection`](crate::PooledConnection) does.
pub struct HookConnection<'a, D: Driver> {
    driver: &'a D,
    conn: &'a mut D::Connection,
    info: ConnectionInfo,
    traces: &'a mut Traces,
}

/// What a hook leaves behind on a connection.
#[derive(Debug, Default)]
struct Traces {
    in_flight: bool,
    /// An error that condemned the connection, whatever the hook made of it.
    condemned: Option<Error>,
}

impl Traces {
    fn note(&mut self, error: Option<&Error>) {
        if let Some(error) = error.filter(|error| error.fate() == Fate::Discard) {
            self.condemned = Some(error.clone());
        }
    }
}

impl<D: Driver> HookConnection<'_, D> {
    /// The connection's facts.
    pub fn info(&self) -> ConnectionInfo {
        self.info
    }

    /// The driver the pool was built with.
    pub fn driver(&self) -> &D {
        self.driver
    }

    /// Runs one statement and collects its rows.
    ///
    /// # Errors
    ///
    /// The database's refusal, or the loss of the connection.
    ///
    /// # Cancellation
    ///
    /// Dropping the future has the connection closed.
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows> {
        let left_over = std::mem::replace(&mut self.traces.in_flight, true);
        let result = self.driver.query(self.conn, sql, params).await;
        self.traces.in_flight = left_over;
        self.traces.note(result.as_ref().err());
        result
    }

    /// Runs several statements separated by semicolons.
    ///
    /// # Errors
    ///
    /// The first statement that fails.
    ///
    /// # Cancellation
    ///
    /// As for [`query`](Self::query).
    pub async fn batch(&mut self, sql: &str) -> Result<()> {
        let left_over = std::mem::replace(&mut self.traces.in_flight, true);
        let result = self.driver.batch(self.conn, sql).await;
        self.traces.in_flight = left_over;
        self.traces.note(result.as_ref().err());
        result
    }
}

impl<D: Driver> Deref for HookConnection<'_, D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.conn
    }
}

impl<D: Driver> DerefMut for HookConnection<'_, D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.conn
    }
}

impl<D: Driver> fmt::Debug for HookConnection<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookConnection").field("info", &self.info).finish_non_exhaustive()
    }
}

/// One hook.
pub(super) type Hook<D> =
    Box<dyn for<'a> Fn(HookConnection<'a, D>) -> BoxFuture<'a, Result<()>> + Send + Sync>;

/// Who is told of leaks.
type Listener = Box<dyn Fn(&Leak) + Send + Sync>;

/// The hooks of a pool, each where the application has set it.
pub(super) struct Hooks<D: Driver> {
    /// What each connect logs in with, if not as the driver says.
    pub(super) login: Option<Login>,
    pub(super) after_connect: Option<Hook<D>>,
    pub(super) before_acquire: Option<Hook<D>>,
    pub(super) after_release: Option<Hook<D>>,
    pub(super) before_close: Option<Hook<D>>,
    pub(super) on_leak: Option<Listener>,
    pub(super) observer: Option<Arc<dyn Observer>>,
    /// Whether new sessions are to refuse writes, where somebody decides that.
    pub(super) reads_only: Option<Arc<AtomicBool>>,
}

impl<D: Driver> Default for Hooks<D> {
    fn default() -> Self {
        Self {
            login: None,
            after_connect: None,
            before_acquire: None,
            after_release: None,
            before_close: None,
            on_leak: None,
            observer: None,
            reads_only: None,
        }
    }
}

impl<D: Driver> fmt::Debug for Hooks<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("credentials", &self.login.is_some())
            .field("after_connect", &self.after_connect.is_some())
            .field("before_acquire", &self.before_acquire.is_some())
            .field("after_release", &self.after_release.is_some())
            .field("before_close", &self.before_close.is_some())
            .field("on_leak", &self.on_leak.is_some())
            .field("observer", &self.observer.is_some())
            .finish()
    }
}

impl<D: Driver> Shared<D> {
    /// Calls a hook, if there is one, for so long at the most.
    ///
    /// # Errors
    ///
    /// As for [`call_unhurried`](Self::call_unhurried); that it has taken too
    /// long, which says nothing of the database.
    pub(super) async fn call(
        &self,
        hook: Option<&Hook<D>>,
        limit: Duration,
        conn: &mut D::Connection,
        info: ConnectionInfo,
    ) -> Result<()> {
        if hook.is_none() {
            return Ok(());
        }
        let called = self.call_unhurried(hook, conn, info);
        self.bounded(limit, called, || {
            Error::timeout(Phase::Checking, format!("a hook did not end within {limit:?}"))
                .with_cause(Cause::Pool)
        })
        .await
    }

    /// Calls a hook, if there is one.
    ///
    /// # Errors
    ///
    /// Its own, its panic, or that it has left the connection in a state in which
    /// it cannot be lent.
    pub(super) async fn call_unhurried(
        &self,
        hook: Option<&Hook<D>>,
        conn: &mut D::Connection,
        info: ConnectionInfo,
    ) -> Result<()> {
        let Some(hook) = hook else { return Ok(()) };
        let mut traces = Traces::default();
        let visit = HookConnection { driver: &self.driver, conn, info, traces: &mut traces };
        // Called inside, for it may panic before there is a future.
        let called = AssertUnwindSafe(async { hook(visit).await }).catch_unwind().await;
        called.unwrap_or_else(|panic| Err(Error::panicked(panic_message("a hook", &*panic))))?;
        if let Some(condemned) = traces.condemned {
            return Err(condemned);
        }
        match self.session(conn) {
            Session::Clean => Ok(()),
            Session::Unverified if !traces.in_flight => Ok(()),
            session => Err(Error::lost(format!("a hook left the session as {session:?}"))
                .with_cause(Cause::Pool)),
        }
    }
}
