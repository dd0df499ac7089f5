//! The workbench of the claims: pools to try, tables to write to, and the
//! checks that several claims share.
//!
//! Decides what "its own rows" and "nothing left behind" mean. Does not know
//! which claim asks.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use millpond_driver::{BoxFuture, Driver, Error, Runtime, Session};

use super::Equip;
use super::subject::{Ability, Subject};
use crate::testing::cancel::{cancel_after, cancel_when_woken};
use crate::{Builder, Pool, PooledConnection};

/// The most polls after which a future is dropped; one that is polled more
/// often is good for as many claims as anybody can wait for.
const MOST_POLLS: u32 = 64;

/// After this a statement has begun on any server.
pub(super) const BEGUN: Duration = Duration::from_millis(20);

/// Why a claim was not found to hold.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    /// It says nothing about this driver.
    Excluded(String),
    Failed(String),
}

pub(super) type Verdict<T = ()> = Result<T, Stop>;

impl Stop {
    pub(super) fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }

    pub(super) fn excluded(why: impl fmt::Display) -> Self {
        Self::Excluded(why.to_string())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::failed(format_args!("an error that should not be: {error:?}"))
    }
}

/// Fails the claim with a message unless something is so.
macro_rules! ensure {
    ($so:expr, $($what:tt)+) => {
        if !$so {
            return Err($crate::testing::conformance::lab::Stop::failed(format_args!($($what)+)));
        }
    };
}
pub(super) use ensure;

/// When a future is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Right after it has been polled so many times.
    Waiting(u32),
    /// After that, when it has been woken: what it waited for is there, unseen.
    Woken(u32),
}

impl Moment {
    /// Every moment at which a future can be dropped, each kind from the first
    /// on; the caller ends a kind when the future was too quick to be dropped.
    pub(super) fn all() -> [Box<dyn Iterator<Item = Self> + Send>; 2] {
        [Box::new((0..MOST_POLLS).map(Self::Waiting)), Box::new((1..MOST_POLLS).map(Self::Woken))]
    }
}

/// Polls a future up to a moment and drops it, unless it completes before.
pub(super) async fn cut<F: Future>(future: F, moment: Moment) -> Option<F::Output> {
    match moment {
        Moment::Waiting(polls) => cancel_after(polls.into(), future).await,
        Moment::Woken(polls) => cancel_when_woken(polls.into(), future).await,
    }
}

/// A subject on a runtime.
pub(super) struct Lab<S: Subject> {
    pub(super) subject: S,
    pub(super) runtime: Arc<dyn Runtime>,
    equip: Equip<S::Driver>,
}

impl<S: Subject> Lab<S> {
    pub(super) fn new(subject: S, runtime: Arc<dyn Runtime>, equip: Equip<S::Driver>) -> Self {
        Self { subject, runtime, equip }
    }

    pub(super) fn builder(&self, driver: S::Driver, max_open: usize) -> Builder<S::Driver> {
        (self.equip)(Pool::builder(driver).max_open_conns(max_open))
    }

    /// A pool of at most so many connections.
    pub(super) async fn pool(&self, max_open: usize) -> Verdict<Pool<S::Driver>> {
        Ok(self.builder(self.subject.driver(), max_open).build().await?)
    }

    pub(super) fn can(&self, ability: Ability) -> bool {
        self.subject.abilities().contains(&ability)
    }

    /// Excludes the claim where an ability is not declared.
    pub(super) fn needs(&self, ability: Ability) -> Verdict {
        if self.can(ability) {
            Ok(())
        } else {
            Err(Stop::excluded(format_args!("the subject does not declare {ability:?}")))
        }
    }

    /// Something the subject may give.
    pub(super) fn given<T>(&self, what: &str, given: Option<T>) -> Verdict<T> {
        given.ok_or_else(|| Stop::excluded(format_args!("the subject gives no {what}")))
    }

    /// A text nobody else asks for.
    pub(super) fn token(&self) -> String {
        format!("t{:016x}", self.runtime.random())
    }

    pub(super) fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.runtime.sleep_until(self.runtime.now() + time)
    }

    /// Waits for a future, but not for ever.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        what: &str,
        future: impl Future<Output = T> + Send,
    ) -> Verdict<T> {
        match select(pin!(future), self.sleep(limit)).await {
            Either::Left((value, _)) => Ok(value),
            Either::Right(_) => Err(Stop::failed(format_args!("{what} did not end in {limit:?}"))),
        }
    }

    /// Statements on the connection get their own rows, more than one, because
    /// answers that are out of step may be so by one.
    pub(super) async fn own_rows(&self, conn: &mut PooledConnection<S::Driver>) -> Verdict {
        for _ in 0..3 {
            let token = self.token();
            let sql = self.subject.select(&token);
            let rows = conn.query(&sql, &[]).await?;
            let answer = rows.scalar::<String>();
            ensure!(
                rows.len() == 1 && answer.as_deref().is_ok_and(|answer| answer == token),
                "asked for {token:?}, it got somebody else's rows: {} rows, the first {answer:?}",
                rows.len()
            );
        }
        Ok(())
    }

    /// Leaves a statement in flight: its future is dropped once it has begun on
    /// any server.
    pub(super) async fn leave_running(&self, conn: &mut PooledConnection<S::Driver>) -> Verdict {
        let sql = self.given("statement that runs for long", self.subject.slow())?;
        let running = conn.query(&sql, &[]);
        match select(pin!(running), self.sleep(BEGUN)).await {
            Either::Left((ended, _)) => {
                Err(Stop::failed(format_args!("the slow statement ended by itself: {ended:?}")))
            }
            Either::Right(_) => Ok(()),
        }
    }

    /// The next borrower: it gets its own rows on a session at a boundary.
    pub(super) async fn next(
        &self,
        pool: &Pool<S::Driver>,
    ) -> Verdict<PooledConnection<S::Driver>> {
        let mut conn = pool.acquire().label("the next borrower").await?;
        self.told(pool, &conn, Session::Clean, "when it is lent")?;
        self.own_rows(&mut conn).await?;
        Ok(conn)
    }

    /// The driver tells this state; one that cannot tell says so.
    pub(super) fn told(
        &self,
        pool: &Pool<S::Driver>,
        conn: &PooledConnection<S::Driver>,
        expected: Session,
        when: &str,
    ) -> Verdict {
        let expected = if self.can(Ability::Session) { expected } else { Session::Unverified };
        let told = pool.driver().session(conn);
        ensure!(told == expected, "the session is told as {told:?}, not {expected:?}, {when}");
        Ok(())
    }

    /// Nothing is lent any more, so no connection is lost.
    pub(super) fn all_back(&self, pool: &Pool<S::Driver>) -> Verdict {
        let now = pool.snapshot();
        ensure!(now.in_use == 0, "connections are lost: {now}");
        Ok(())
    }

    /// A new table of one column `n`, or of the columns given.
    pub(super) async fn table(&self, pool: &Pool<S::Driver>, columns: &str) -> Verdict<Table> {
        self.needs(Ability::Tables)?;
        let name = format!("millpond_{}", self.token());
        pool.query(&format!("CREATE TABLE {name} ({columns})"), &[]).await?;
        Ok(Table { name })
    }

    /// Removes a table. One that a failed claim leaves is no harm: nobody else
    /// has its name.
    pub(super) async fn remove(&self, pool: &Pool<S::Driver>, table: &Table) -> Verdict {
        pool.query(&format!("DROP TABLE {}", table.name), &[]).await?;
        Ok(())
    }
}

/// A table of a claim's own.
pub(super) struct Table {
    pub(super) name: String,
}

impl Table {
    /// The columns of most tables.
    pub(super) const NUMBERS: &str = "n BIGINT";

    pub(super) fn insert(&self) -> String {
        format!("INSERT INTO {} (n) VALUES (1)", self.name)
    }

    /// How many rows others see.
    pub(super) async fn count<D: Driver>(
        &self,
        conn: &mut PooledConnection<D>,
    ) -> crate::Result<u64> {
        let sql = format!("SELECT count(*) FROM {}", self.name);
        conn.query(&sql, &[]).await?.scalar()
    }
}
