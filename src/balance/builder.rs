//! How a cluster comes to be: nodes and settings checked, the nodes asked.
//!
//! Owns the defaults.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use millpond_driver::{Driver, Error, Result, Runtime};

use super::events::Event;
use super::hub::{Hub, Listener};
use super::node::{self, Member, Node};
use super::strategy::{LeastCost, Strategy};
use super::watcher::Council;
use super::{Cluster, Inner};
use crate::health::HealthConfig;
use crate::pool;
use crate::retry::Retry;
use crate::sync::{AtomicU64, Mutex};

/// Sets a cluster up. Made by [`Cluster::builder`].
#[must_use = "a builder does nothing until built"]
pub struct Builder<D: Driver> {
    members: Vec<Member<D>>,
    strategy: Box<dyn Strategy>,
    health: HealthConfig,
    acquire_timeout: Duration,
    max_lag: Option<Duration>,
    retry: Retry,
    runtime: Option<Arc<dyn Runtime>>,
    listener: Option<Listener>,
}

impl<D: Driver> Builder<D> {
    pub(super) fn new() -> Self {
        Self {
            members: Vec::new(),
            strategy: Box::new(LeastCost),
            health: HealthConfig::new(),
            acquire_timeout: Duration::from_secs(30),
            max_lag: None,
            retry: Retry::new(),
            runtime: None,
            listener: None,
        }
    }

    /// A node: its name, and how its pool is built.
    pub fn node(self, name: impl Into<String>, pool: pool::Builder<D>) -> Self {
        self.member(Member::new(name, pool))
    }

    /// A node with more to say of it.
    pub fn member(mut self, member: Member<D>) -> Self {
        self.members.push(member);
        self
    }

    /// Which of several nodes gets the next caller. Default: [`LeastCost`].
    pub fn strategy(mut self, strategy: impl Strategy) -> Self {
        self.strategy = Box::new(strategy);
        self
    }

    /// When nodes are asked how they are, and what puts one out. Its listener is
    /// not called; that of [`on_event`](Self::on_event) is. Default: as for a
    /// [`HealthChecker`](crate::health::HealthChecker).
    pub fn health(mut self, config: HealthConfig) -> Self {
        self.health = config;
        self
    }

    /// How long a caller waits, over all nodes together. Default: 30 seconds.
    pub fn acquire_timeout(mut self, limit: Duration) -> Self {
        self.acquire_timeout = limit;
        self
    }

    /// How far a replica may be behind. One that is further is used only for want
    /// of a better one, and not at all for [`Route::Replica`](super::Route).
    /// Default: as far as it may be.
    pub fn max_lag(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.max_lag = limit.into();
        self
    }

    /// The policy of [`query`](Cluster::query) and [`execute`](Cluster::execute).
    /// Default: [`Retry::new`].
    pub fn retry(mut self, policy: Retry) -> Self {
        self.retry = policy;
        self
    }

    /// The runtime to work on, and that of pools that name none. Default: as for
    /// a [pool](pool::Builder::runtime).
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        self.runtime = Some(Arc::new(runtime));
        self
    }

    /// Is told what happens in the cluster, by its background task mostly; so it
    /// must not block. A panic in it is dropped.
    pub fn on_event(mut self, listener: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.listener = Some(Arc::new(listener));
        self
    }

    /// Builds the cluster and asks all nodes at once. It is built as soon as all
    /// have answered or failed to, if one has answered.
    ///
    /// # Errors
    ///
    /// - [`Config`](crate::ErrorKind::Config) for settings that make no sense, and
    ///   for a node that belongs to another cluster;
    /// - [`NoNode`](crate::ErrorKind::NoNode), with a cause for each, if none has
    ///   answered.
    ///
    /// # Cancellation
    ///
    /// Dropping the future closes what was opened.
    pub async fn build(self) -> Result<Cluster<D>> {
        let cluster = self.build_lazy()?;
        let inner = &cluster.inner;
        loop {
            let asked = inner.hub.news.listen();
            let nodes = inner.nodes.load_full();
            let untold = |node: &Arc<Node<D>>| node.gauge.read(|record| record.is_untold());
            if !nodes.iter().any(untold) {
                break;
            }
            asked.await;
        }
        inner.check_answers()?;
        Ok(cluster)
    }

    /// Builds the cluster without waiting for any node: callers do.
    ///
    /// # Errors
    ///
    /// [`Config`](crate::ErrorKind::Config) for settings that make no sense.
    pub fn build_lazy(self) -> Result<Cluster<D>> {
        self.check()?;
        let runtime = self.runtime.or_else(crate::runtime::current).ok_or_else(|| {
            Error::config(
                "no async runtime: build the cluster inside a tokio runtime (feature `tokio`), \
                 enable the feature `smol` or `async-std`, or name one with Builder::runtime",
            )
        })?;
        let hub = Arc::new(Hub::new(Arc::clone(&runtime), self.listener));
        let rules = self.health.rules();
        let nodes = self
            .members
            .into_iter()
            .map(|member| Node::new(member, &hub, rules, Arc::clone(&runtime)).map(Arc::new));
        let inner = Arc::new(Inner {
            nodes: ArcSwap::from_pointee(nodes.collect::<Result<Vec<_>>>()?),
            council: Mutex::new(Council::new(runtime.now())),
            hub,
            strategy: self.strategy,
            rules,
            timeout: self.health.probe_timeout(),
            acquire_timeout: self.acquire_timeout,
            max_lag: self.max_lag,
            retry: self.retry,
            retries: AtomicU64::new(0),
        });
        inner.watch();
        Ok(Cluster { inner })
    }

    fn check(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.members.is_empty() {
            faults.push("nodes: there must be at least one".to_owned());
        }
        for member in &self.members {
            member.check(&mut faults);
        }
        node::check_names(self.members.iter().map(|member| &*member.name), &mut faults);
        if let Some((first, others)) = self.members.split_first() {
            let expected = first.pool.driver().name();
            for member in others {
                let system = member.pool.driver().name();
                check_system(&member.name, system, expected, &mut faults);
            }
        }
        if self.max_lag.is_some_and(|limit| limit.is_zero()) {
            faults.push("max_lag = 0ns: must be above 0".to_owned());
        }
        for wrong in [self.health.validate().err(), self.retry.validate().err()] {
            faults.extend(wrong.map(|error| error.to_string()));
        }
        node::refuse(&faults)
    }
}

pub(super) fn check_system(name: &str, system: &str, expected: &str, faults: &mut Vec<String>) {
    if system != expected {
        faults.push(format!("{name}: is of {system}, and other nodes are of {expected}"));
    }
}

impl<D: Driver> Inner<D> {
    /// Whether what the nodes have answered makes them a cluster.
    fn check_answers(&self) -> Result<()> {
        let nodes = self.nodes.load();
        let changes = self.assess(&nodes, &mut self.council.lock(), self.hub.runtime.now());
        self.carry_out(changes);
        let mut faults = Vec::new();
        let mut causes = Vec::new();
        for node in nodes.iter() {
            node.gauge.read(|record| {
                faults.extend(
                    record.is_stranger().then(|| {
                        format!("{}: belongs to another cluster than the others", node.name)
                    }),
                );
                let error = record.last_error.clone().filter(|_| record.told.is_none());
                causes.extend(error.map(|error| (Box::from(&*node.name), error)));
            });
        }
        node::refuse(&faults)?;
        match causes.len() == nodes.len() {
            true => Err(Error::no_node("node", causes)),
            false => Ok(()),
        }
    }
}

impl<D: Driver> fmt::Debug for Builder<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("members", &self.members)
            .field("strategy", &self.strategy)
            .field("health", &self.health)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("max_lag", &self.max_lag)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
