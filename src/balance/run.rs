//! Work and transactions on a cluster under a policy: each attempt on the node
//! that is best by then.
//!
//! Owns the calls. What an attempt is stands in `pool::repeat`, whether there is
//! another in `retry`.

use std::fmt;
use std::future::IntoFuture;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use millpond_driver::{BoxFuture, Driver, Error, Result, Rows, Runtime, TransactionOptions, Value};

use super::Cluster;
use super::acquire::Request;
use super::node::Node;
use super::route::{Route, Terms};
use crate::pool::{Lender, Lent, PooledConnection, Repeated, Transaction, run};
use crate::retry::{Course, Retry};
use crate::sync::Ordering;

impl<D: Driver> Cluster<D> {
    /// Runs work on a connection of a node, and again on another one where the
    /// policy says so.
    ///
    /// As [`Pool::run`](crate::Pool::run), and: what ran on a replica that takes no
    /// writes, in a session that refuses them, may be repeated whatever became of it; and when a
    /// node is found not to answer any more, what waits for it there is given up
    /// and tried elsewhere.
    ///
    /// ```
    /// # use millpond::{Pool, Cluster, drivers::fake::Fake, testing::sim::Sim};
    /// use millpond::{Retry, Route};
    ///
    /// # Sim::new(1).run(async |sim| {
    /// # let cluster = Cluster::builder().node("a", Pool::builder(Fake::new())).runtime(sim).build().await?;
    /// let policy = Retry::new();
    /// let rows = cluster
    ///     .run(Route::PreferReplica, &policy, |conn| {
    ///         Box::pin(async { conn.query("SELECT 1", &[]).await })
    ///     })
    ///     .await?;
    /// # assert_eq!(rows.len(), 1);
    /// # Ok::<_, millpond::Error>(())
    /// # })?;
    /// # Ok::<_, millpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// That of the last attempt, with those of the [earlier](Error::earlier)
    /// ones; [`ErrorKind::Config`](crate::ErrorKind::Config) if the policy is not
    /// valid.
    ///
    /// # Cancellation
    ///
    /// As for [`Pool::run`](crate::Pool::run).
    #[track_caller]
    pub fn run<'c, T, W>(
        &'c self,
        terms: impl Into<Terms>,
        policy: &'c Retry,
        work: W,
    ) -> impl Future<Output = Result<T>> + Send + 'c
    where
        T: Send + 'c,
        W: for<'a> FnMut(&'a mut Lent<'c, D>) -> BoxFuture<'a, Result<T>> + Send + 'c,
    {
        let place = Location::caller();
        run(Via { cluster: self, request: Request::new(terms.into(), place) }, policy, place, work)
    }

    /// Runs a transaction: begins, does the work, commits; and all of that again
    /// where the policy says so, on the node that is the primary by then.
    ///
    /// As [`Pool::transaction`](crate::Pool::transaction). A transaction that
    /// only reads may be given another [route](RetriedTransaction::route); on a
    /// replica it begins as one that only reads, unless it asks for writes.
    ///
    /// ```
    /// # use millpond::{Pool, Cluster, drivers::fake::Fake, testing::sim::Sim};
    /// use millpond::{Retry, params};
    ///
    /// # Sim::new(1).run(async |sim| {
    /// # let cluster = Cluster::builder().node("a", Pool::builder(Fake::new())).runtime(sim).build().await?;
    /// let policy = Retry::new().max_attempts(10);
    /// cluster.transaction(&policy, |tx| {
    ///     Box::pin(async move {
    ///         tx.execute("UPDATE account SET balance = balance - ?", &params![50]).await
    ///     })
    /// })
    /// .await?;
    /// # Ok::<_, millpond::Error>(())
    /// # })?;
    /// # Ok::<_, millpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for [`Pool::transaction`](crate::Pool::transaction).
    ///
    /// # Cancellation
    ///
    /// As for [`Pool::transaction`](crate::Pool::transaction).
    #[track_caller]
    pub fn transaction<'c, T, W>(
        &'c self,
        policy: &'c Retry,
        work: W,
    ) -> RetriedTransaction<'c, D, T>
    where
        T: Send + 'c,
        W: for<'a> FnMut(&'a mut Transaction<'c, D>) -> BoxFuture<'a, Result<T>> + Send + 'c,
    {
        let place = Location::caller();
        RetriedTransaction {
            via: Via { cluster: self, request: Request::new(Route::Primary.into(), place) },
            repeated: Repeated::new(policy, place, work),
        }
    }

    /// Runs one statement on a node and collects its rows, and again on another
    /// one where the cluster's [policy](super::Builder::retry) says so.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    ///
    /// # Cancellation
    ///
    /// As for `run`.
    #[track_caller]
    pub fn query<'c>(
        &'c self,
        terms: impl Into<Terms>,
        sql: &'c str,
        params: &'c [Value],
    ) -> impl Future<Output = Result<Rows>> + Send + 'c {
        self.run(terms, &self.inner.retry, move |conn| {
            Box::pin(async move { conn.query(sql, params).await })
        })
    }

    /// Runs one statement on the primary, and again where the cluster's policy
    /// says so; returns the number of rows it changed, 0 if the database does
    /// not say.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run).
    ///
    /// # Cancellation
    ///
    /// As for `run`.
    #[track_caller]
    pub fn execute<'c>(
        &'c self,
        sql: &'c str,
        params: &'c [Value],
    ) -> impl Future<Output = Result<u64>> + Send + 'c {
        let query = self.query(Route::Primary, sql, params);
        async move { Ok(query.await?.affected().unwrap_or(0)) }
    }

    /// Runs several statements separated by semicolons on the primary, as migrations
    /// do, once.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire) and
    /// [`PooledConnection::batch`](crate::PooledConnection::batch).
    ///
    /// # Cancellation
    ///
    /// As for `PooledConnection::batch`.
    #[track_caller]
    pub fn batch<'c>(&'c self, sql: &'c str) -> impl Future<Output = Result<()>> + Send + 'c {
        let acquire = self.acquire(Route::Primary);
        async move { acquire.await?.batch(sql).await }
    }

    /// Starts a transaction on the primary that owns its connection. It is not begun
    /// anew: that is for [`transaction`](Self::transaction).
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire) and
    /// [`PooledConnection::begin`](crate::PooledConnection::begin).
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves no transaction open for the next borrower.
    #[track_caller]
    pub fn begin(&self) -> impl Future<Output = Result<Transaction<'static, D>>> + Send + '_ {
        let acquire = self.acquire(Route::Primary);
        async move { acquire.await?.into_transaction().await }
    }
}

/// Lends connections of the nodes that serve a route.
struct Via<'c, D: Driver> {
    cluster: &'c Cluster<D>,
    request: Request,
}

impl<D: Driver> Lender<D> for Via<'_, D> {
    type Tie = Arc<Node<D>>;

    fn runtime(&self) -> &dyn Runtime {
        &*self.cluster.inner.hub.runtime
    }

    async fn lend(
        &self,
        left: Duration,
        _place: &'static Location<'static>,
    ) -> Result<(PooledConnection<D>, Arc<Node<D>>)> {
        let inner = &self.cluster.inner;
        inner.acquire(&self.request, inner.acquire_timeout.min(left)).await
    }

    fn is_harmless(&self, conn: &PooledConnection<D>, node: &Arc<Node<D>>) -> bool {
        conn.is_read_only() && node.takes_no_writes()
    }

    async fn given_up(&self, node: &Arc<Node<D>>) -> Error {
        self.cluster.inner.given_up(node).await
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn note_retry(&self, _course: &Course) {
        self.cluster.inner.retries.fetch_add(1, Ordering::Relaxed);
    }
}

/// A transaction on a cluster under a policy, run by awaiting it. Made by
/// [`Cluster::transaction`].
#[must_use = "a transaction does nothing until awaited"]
pub struct RetriedTransaction<'c, D: Driver, T> {
    via: Via<'c, D>,
    repeated: Repeated<'c, D, T>,
}

impl<'c, D: Driver, T: Send + 'c> RetriedTransaction<'c, D, T> {
    /// Where it runs. Default: [`Route::Primary`].
    pub fn route(mut self, terms: impl Into<Terms>) -> Self {
        self.via.request.terms = terms.into();
        self
    }

    /// An isolation level or access mode for each attempt, as for
    /// [`Pool::transaction`](crate::RetriedTransaction::options).
    pub fn options(mut self, options: TransactionOptions) -> Self {
        self.repeated.options = options;
        self
    }

    /// Finds out whether a commit of unknown outcome took place, as for
    /// [`Pool::transaction`](crate::RetriedTransaction::verify). After a
    /// failover the answer of a new primary is no proof, unless what the old one
    /// has committed is there for certain.
    pub fn verify<V, F>(mut self, mut hook: V) -> Self
    where
        V: FnMut(&'c Cluster<D>) -> F + Send + 'c,
        F: Future<Output = Result<bool>> + Send + 'c,
    {
        let cluster = self.via.cluster;
        self.repeated.verify = Some(Box::new(move || Box::pin(hook(cluster))));
        self
    }
}

impl<'c, D: Driver, T: Send + 'c> IntoFuture for RetriedTransaction<'c, D, T> {
    type Output = Result<T>;
    type IntoFuture = BoxFuture<'c, Result<T>>;

    fn into_future(self) -> BoxFuture<'c, Result<T>> {
        Box::pin(self.repeated.drive(self.via))
    }
}

impl<D: Driver, T> fmt::Debug for RetriedTransaction<'_, D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetriedTransaction")
            .field("request", &self.via.request)
            .field("policy", &self.repeated.policy)
            .field("options", &self.repeated.options)
            .field("verifies", &self.repeated.verify.is_some())
            .finish_non_exhaustive()
    }
}
