//! Several nodes as one: replicas that share the reading, and a primary that
//! may be another one tomorrow.
//!
//! Owns [`Cluster`]: nodes, each a [`Pool`] of its own, and which of them serves
//! whom. Does not know how a database replicates; a node says itself what it is,
//! and whatever is behind the [`Driver`] may be one.
//!
//! - Callers say what they need by a [`Route`]; no statement is read to guess it.
//! - Of the nodes that serve the route a [`Strategy`] picks one, by default the
//!   one that may be expected to answer first ([`LeastCost`]).
//! - One background task asks the nodes how they are, outside their pools, and
//!   the pools tell it what is met. A node that does not answer is out within
//!   moments, whatever waits for it is given up, and it comes back slowly.
//! - Roles are found out. When a node refuses a write, it gets no other before it
//!   has been asked what it is; when its role has changed, its connections are
//!   retired; and who needs the primary waits until there is one.
//! - Sessions on replicas are opened so that they refuse writes. So whatever
//!   became of a statement there, it may be repeated elsewhere, if the node itself
//!   takes no writes either.
//!
//! ```
//! use millpond::{Cluster, Pool, Role, Route, drivers::fake::Fake, testing::sim::Sim};
//! use millpond::balance::Member;
//!
//! Sim::new(1).run(async |sim| {
//!     let pool = || Pool::builder(Fake::new()).max_open_conns(8);
//!     let cluster = Cluster::builder()
//!         .member(Member::new("writer", pool()).role(Role::Primary))
//!         .member(Member::new("reader-1", pool()).role(Role::Replica))
//!         .member(Member::new("reader-2", pool()).role(Role::Replica))
//!         .runtime(sim)
//!         .build()
//!         .await?;
//!     cluster.execute("INSERT INTO visit VALUES (1)", &[]).await?;
//!     let rows = cluster.query(Route::PreferReplica, "SELECT * FROM visit", &[]).await?;
//!     assert_eq!(rows.len(), 1);
//!     let conn = cluster.acquire(Route::Replica).await?;
//!     assert!(conn.is_read_only() && conn.pool_name().starts_with("reader-"));
//!     Ok::<_, millpond::Error>(())
//! })?;
//! # Ok::<_, millpond::Error>(())
//! ```
//!
//! From a URL it comes by [`connect_cluster`](crate::connect_cluster), from a
//! document by [`ClusterConfig`].
//!
//! What happens in a cluster is told to [`Builder::on_event`]; an event shows itself
//! as a line for a log, and `observers::log_cluster` logs it by `tracing`. Numbers are in [`Cluster::snapshot`], and wherever metrics
//! go: [`openmetrics`](crate::metrics::openmetrics), a
//! [`Monitor`](crate::metrics::Monitor).
//!
//! In the folder beside it, from the inside out: `strategy`, `estimate`, `lag`,
//! `standing`, `route` and `record` are pure; `gauge` is what is met on a node, `hub` how
//! everybody hears of everybody; `watcher` asks and decides; `pick` and `search` choose; `acquire`, `run`,
//! `builder`, `snapshot`, `numbers` and `events` are what a user meets; `config`,
//! `url` and `document` are how a cluster is written down.

mod acquire;
mod builder;
pub(crate) mod config;
#[cfg(feature = "serde")]
mod document;
mod estimate;
mod events;
mod gauge;
mod hub;
mod lag;
mod node;
mod numbers;
mod pick;
mod record;
mod route;
mod run;
mod search;
mod snapshot;
mod standing;
mod strategy;
pub(crate) mod url;
mod watcher;

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use millpond_driver::{Driver, Error, Position, Result};

pub use acquire::Acquire;
pub use builder::Builder;
pub use config::ClusterConfig;
pub use events::Event;
pub use node::Member;
pub use route::{Route, Terms};
pub use run::RetriedTransaction;
pub use snapshot::{ClusterSnapshot, NodeSnapshot};
pub use strategy::{
    LeastConnections, LeastCost, NodeView, RoundRobin, Strategy, TwoChoices, WeightedRandom,
};

use acquire::Request;
use hub::Hub;
use node::Node;
use route::Duty;
use watcher::Council;

use crate::health::Rules;
use crate::pool::{CloseReport, Pool};
use crate::retry::Retry;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Several nodes as one.
///
/// A handle: clones share the cluster, and dropping the last one closes it.
pub struct Cluster<D: Driver> {
    inner: Arc<Inner<D>>,
}

struct Inner<D: Driver> {
    nodes: ArcSwap<Vec<Arc<Node<D>>>>,
    /// Held by who changes the list, and by who judges the nodes on it.
    council: Mutex<Council>,
    hub: Arc<Hub>,
    strategy: Box<dyn Strategy>,
    rules: Rules,
    /// How long a probe may take.
    timeout: Duration,
    acquire_timeout: Duration,
    max_lag: Option<Duration>,
    retry: Retry,
    retries: AtomicU64,
}

impl<D: Driver> Cluster<D> {
    /// Starts to set up a cluster.
    pub fn builder() -> Builder<D> {
        Builder::new()
    }

    /// Waits for a connection of a node that serves the route.
    ///
    /// An idle connection of the best node is there at once. Otherwise one is
    /// waited for: of a node that is not used up before one that is, and if a
    /// node fails meanwhile, of the next. All that is bounded by one deadline.
    /// The connection belongs to the pool of its node; [which that
    /// is](crate::PooledConnection::pool_name) it says itself. How many wait for a
    /// primary to come is not limited; `max_waiters` counts those in the queue of a
    /// pool.
    ///
    /// # Errors
    ///
    /// - [`NoNode`](crate::ErrorKind::NoNode), with a cause for
    ///   [each](Error::nodes), if no node can be used: at once; at the deadline for
    ///   [`Route::Primary`], for [`Route::Replica`] after a position that none has
    ///   reached, and while a node has not answered yet;
    /// - [`Timeout`](crate::ErrorKind::Timeout), with the numbers of the pool, if
    ///   all nodes are used up until then;
    /// - [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancellation
    ///
    /// As for [`Acquire`].
    #[track_caller]
    pub fn acquire(&self, terms: impl Into<Terms>) -> Acquire<'_, D> {
        Acquire::new(self, Request::new(terms.into(), Location::caller()))
    }

    /// The place in the log up to which the primary has committed: whoever reads
    /// [after](Route::after) it sees whatever was committed before this was
    /// called.
    ///
    /// As long as nothing is lost. What a primary had not sent on when it fell is
    /// gone, and the log of the next one may have passed that place with something
    /// else in it.
    ///
    /// # Errors
    ///
    /// As for [`acquire`](Self::acquire) and
    /// [`PooledConnection::position`](crate::PooledConnection::position).
    ///
    /// # Cancellation
    ///
    /// Dropping the future loses nothing.
    #[track_caller]
    pub fn position(&self) -> impl Future<Output = Result<Position>> + Send + '_ {
        let acquire = self.acquire(Route::Primary);
        async move { acquire.await?.position().await }
    }

    /// Takes a node in. It is used once it has answered.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for a name that is taken, a weight out
    /// of range, a database of another system, or settings of its pool that
    /// contradict each other; [`Closed`](crate::ErrorKind::Closed).
    pub fn join(&self, member: Member<D>) -> Result<()> {
        let inner = &self.inner;
        let council = inner.council.lock();
        if inner.hub.is_closed() {
            return Err(Error::closed());
        }
        let nodes = inner.nodes.load_full();
        let mut faults = Vec::new();
        member.check(&mut faults);
        let names = nodes.iter().map(|node| &*node.name);
        node::check_names(names.chain([&*member.name]), &mut faults);
        if let Some(other) = nodes.first() {
            let (system, expected) = (member.pool.driver().name(), other.pool.driver().name());
            builder::check_system(&member.name, system, expected, &mut faults);
        }
        node::refuse(&faults)?;
        let runtime = Arc::clone(&inner.hub.runtime);
        let node = Node::new(member, &inner.hub, inner.rules, runtime)?;
        let name = Arc::clone(&node.name);
        let mut all = Vec::clone(&nodes);
        all.push(Arc::new(node));
        inner.nodes.store(Arc::new(all));
        drop(council);
        inner.hub.tell(&Event::Joined { node: &name });
        inner.hub.hurry();
        Ok(())
    }

    /// Takes a node out, and closes its pool: nobody is sent there any more, and
    /// what is borrowed there closes when it comes back. What it says of who that
    /// is.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for a name that there is not.
    ///
    /// # Cancellation
    ///
    /// The node is out from the first poll on.
    pub async fn leave(&self, name: &str) -> Result<CloseReport> {
        let inner = &self.inner;
        let node = {
            let _council = inner.council.lock();
            let mut all = Vec::clone(&inner.nodes.load());
            let index = all.iter().position(|node| &*node.name == name);
            let Some(index) = index else { return Err(self.unknown(name)) };
            let node = all.remove(index);
            inner.nodes.store(Arc::new(all));
            node
        };
        node.gauge.set_duty(Duty::NONE);
        inner.hub.tell_callers();
        inner.hub.hurry();
        inner.hub.tell(&Event::Left { node: name });
        Ok(node.pool.close().await)
    }

    /// Changes the share that a node gets.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for a name that there is not, and a
    /// weight out of range.
    pub fn set_weight(&self, name: &str, weight: f64) -> Result<()> {
        let mut faults = Vec::new();
        node::check_weight(name, weight, &mut faults);
        node::refuse(&faults)?;
        let node = self.inner.node(name).ok_or_else(|| self.unknown(name))?;
        node.gauge.change(|record| record.set_weight = weight as f32);
        self.inner.hub.hurry();
        Ok(())
    }

    /// The pool of a node, to look at it or to operate it.
    pub fn pool(&self, name: &str) -> Option<Pool<D>> {
        self.inner.node(name).map(|node| node.pool.clone())
    }

    /// Which of its nodes a caller would be sent to now. For measurements: it
    /// sends nobody there.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn would_pick(&self, route: Route) -> Option<usize> {
        let &wanted = route.tiers().first()?;
        self.inner.pick(&self.inner.nodes.load(), wanted, |_, duty| duty.serves(wanted))
    }

    /// The cluster in numbers.
    pub fn snapshot(&self) -> ClusterSnapshot {
        self.inner.snapshot()
    }

    /// Closes all pools at the same time. What each says, by the name of its
    /// node.
    ///
    /// # Cancellation
    ///
    /// The cluster is closed from the first poll on.
    pub async fn close(&self) -> Vec<(String, CloseReport)> {
        self.inner.hub.close();
        let nodes = {
            // Whoever is about to join is among these, or sees that it is closed.
            let _council = self.inner.council.lock();
            self.inner.nodes.load_full()
        };
        let closes =
            nodes.iter().map(|node| async { (node.name.to_string(), node.pool.close().await) });
        join_all(closes).await
    }

    /// Whether there is a node to send such a caller to, as it is known now: for a
    /// readiness endpoint. Asks nobody and does no I/O; whether a connection is free
    /// there is not looked at.
    ///
    /// ```
    /// # use millpond::{Cluster, Driver, Route};
    /// fn status<D: Driver>(cluster: &Cluster<D>) -> u16 {
    ///     if cluster.is_ready(Route::Primary) { 200 } else { 503 }
    /// }
    /// ```
    pub fn is_ready(&self, route: Route) -> bool {
        let nodes = self.inner.nodes.load();
        let serves = |wanted| nodes.iter().any(|node| node.gauge.duty().has(wanted));
        !self.is_closed() && route.tiers().iter().any(|wanted| serves(*wanted))
    }

    /// Whether it has been closed.
    pub fn is_closed(&self) -> bool {
        self.inner.hub.is_closed()
    }

    fn unknown(&self, name: &str) -> Error {
        let nodes = self.inner.nodes.load();
        let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
        let hint = match millpond_driver::url::nearest(name, &names) {
            Some(nearest) => format!("; did you mean {nearest}?"),
            None => String::new(),
        };
        let names = names.join(", ");
        Error::config(format!("{name:?} is not a node of the cluster, which are {names}{hint}"))
    }
}

impl<D: Driver> Inner<D> {
    fn node(&self, name: &str) -> Option<Arc<Node<D>>> {
        self.nodes.load().iter().find(|node| &*node.name == name).cloned()
    }

    fn snapshot(&self) -> ClusterSnapshot {
        let nodes = self.nodes.load();
        let nodes = nodes.iter().map(|node| {
            let gauge = &node.gauge;
            let now = self.hub.runtime.now();
            let (duty, pool) = (gauge.duty(), node.pool.snapshot());
            gauge.read(|record| NodeSnapshot {
                name: node.name.to_string(),
                state: record.health.state(),
                role: record.standing.role,
                takes_writes: duty.serves(Duty::WRITE),
                serves_reads: duty.serves(Duty::READ),
                lag: record.lag,
                weight: f64::from(record.set_weight) * record.health.weight(now),
                cost: gauge.cost(),
                load: gauge.load(),
                picks: gauge.picks(),
                ejections: record.ejections,
                epoch: record.epoch,
                error: record.last_error.clone().filter(|_| !record.health.state().is_serving()),
                pool,
            })
        });
        ClusterSnapshot { nodes: nodes.collect(), retries: self.retries.load(Ordering::Relaxed) }
    }
}

/// Nobody can ask for it any more: the watcher ends, and the pools close with
/// their last handles.
impl<D: Driver> Drop for Inner<D> {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl<D: Driver> Clone for Cluster<D> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<D: Driver> fmt::Debug for Cluster<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes = self.inner.nodes.load();
        let names: Vec<&str> = nodes.iter().map(|node| &*node.name).collect();
        f.debug_struct("Cluster")
            .field("nodes", &names)
            .field("strategy", &self.inner.strategy)
            .finish_non_exhaustive()
    }
}
