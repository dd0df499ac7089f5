//! A cluster as it is written down: the nodes, each on a database, and the
//! settings.
//!
//! Owns [`ClusterConfig`], which settings a cluster has beside those of its
//! pools, and what of all that contradicts. Which nodes the database of a URL
//! makes is known to `drivers` alone.

use std::time::Duration;

use millpond_driver::{Result, Role};

use super::builder::Builder;
use super::node::{self, Member};
use super::strategy::{LeastConnections, LeastCost, RoundRobin, TwoChoices, WeightedRandom};
use super::url;
use crate::config::text::{self, Setting};
use crate::config::{PoolConfig, Unset};
use crate::drivers::{self, Any};
use crate::health::HealthConfig;
use crate::pool::Pool;

/// A cluster as a URL or a document describes it.
///
/// [`builder`](Self::builder) makes a cluster of it, and takes what cannot be
/// written down: a listener, a runtime, a retry policy. Has no text that shows a
/// URL.
///
/// # In URLs
///
/// As for [`connect_cluster`](crate::connect_cluster).
///
/// # In documents
///
/// With the feature `serde` it is read from a document:
///
/// | field | value |
/// | --- | --- |
/// | `nodes` | a map from names to nodes: each a URL, or a map with a `url`, and if need be a `weight`, a `role` (`primary` or `replica`, whatever the node says of itself) and settings of its pool |
/// | `url` | in place of `nodes`: a URL as for [`connect_cluster`](crate::connect_cluster) |
/// | `pool` | settings of the pools of all nodes, as [`PoolConfig`] has them |
/// | `acquire_timeout` | how long a caller waits over all nodes together; default: that of `pool` |
/// | `max_lag` | how far a replica may be [behind](Builder::max_lag) |
/// | `strategy` | `least_cost`, `least_connections`, `round_robin`, `two_choices` or `weighted_random` |
/// | `probe_interval` | the [time between two checks](HealthConfig::interval) of a node |
/// | `probe_timeout` | the [longest a check takes](HealthConfig::timeout) |
///
/// What a node sets goes before what its URL sets, that before `pool`. In place
/// of `nodes`, `pool` and the fields beside it go before the URL. Nodes with the
/// same URL share what connections of one driver share: a database in memory is
/// one for all. Everything that is wrong is reported at once, each as field, value
/// and rule, contradicting settings included.
///
#[cfg_attr(feature = "serde", doc = "```no_run")]
#[cfg_attr(not(feature = "serde"), doc = "```ignore")]
/// use millpond::ClusterConfig;
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let config: ClusterConfig = serde_json::from_str(
///     r#"{
///         "nodes": {
///             "a": "postgres://app@10.0.0.1/shop",
///             "b": { "url": "postgres://app@10.0.0.2/shop", "weight": 2, "max_open_conns": 40 }
///         },
///         "pool": { "max_open_conns": 20 },
///         "acquire_timeout": "5s",
///         "max_lag": "2s"
///     }"#,
/// )?;
/// let cluster = config.builder().on_event(|event| println!("{event}")).build().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    pub(super) nodes: Vec<NodeConfig>,
    pub(super) settings: Settings,
}

impl ClusterConfig {
    /// What a URL says, as for [`connect_cluster`](crate::connect_cluster). Nothing
    /// is opened.
    ///
    /// ```
    /// use millpond::ClusterConfig;
    ///
    /// let url = "postgres://app:secret@a,b/shop?strategy=best&max_lag=soon";
    /// let error = ClusterConfig::from_url(url).unwrap_err().to_string();
    /// assert!(error.starts_with("invalid cluster: strategy = \"best\": must be least_cost, "));
    /// assert!(error.contains("; max_lag = \"soon\": must be a duration with units, "));
    /// ```
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the URL and its settings, at once and without
    /// showing the URL: it may hold a password.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut faults = Vec::new();
        let config = Self::on(url, Settings::default(), PoolConfig::new(), "", &mut faults);
        node::refuse(&faults)?;
        Ok(config)
    }

    /// The cluster on a URL, every fault noted; what is set here goes before what
    /// the URL sets. `field`: the part of a document that the URL was in, with what
    /// divides it from the fault.
    pub(super) fn on(
        url: &str,
        settings: Settings,
        pool: PoolConfig,
        field: &str,
        faults: &mut Vec<String>,
    ) -> Self {
        let mut in_url = Vec::new();
        let (of_url, pool_of_url, url) = url::take(url, &mut in_url);
        // With settings of the URL in doubt nobody knows what they contradict.
        let settings_are_known = in_url.is_empty();
        let settings = settings.or(of_url);
        let pool = settings.complete(pool.or(pool_of_url));
        let nodes = drivers::nodes(&url, &pool).unwrap_or_else(|wrong| {
            in_url.extend(wrong.into_iter().map(|error| url::hint(&url, error).to_string()));
            Vec::new()
        });
        faults.extend(in_url.iter().map(|fault| format!("{field}{fault}")));
        settings.check(faults);
        if settings_are_known {
            let part = if field.is_empty() { "" } else { "pool." };
            let contradictions = pool.contradictions();
            faults.extend(contradictions.iter().map(|fault| format!("{part}{fault}")));
        }
        Self { nodes, settings: settings.with_deadline_of(&pool) }
    }

    /// The names of the nodes, in the order in which they are written.
    pub fn names(&self) -> Vec<&str> {
        self.nodes.iter().map(|node| &*node.name).collect()
    }

    /// A builder of this cluster.
    pub fn builder(&self) -> Builder<Any> {
        let builder = Builder::new();
        let builder =
            self.nodes.iter().fold(builder, |builder, node| builder.member(node.member()));
        self.settings.apply(builder)
    }
}

/// A node as it is written down.
#[derive(Debug, Clone)]
pub(crate) struct NodeConfig {
    pub(crate) name: String,
    pub(crate) driver: Any,
    pub(crate) pool: PoolConfig,
    pub(crate) weight: f64,
    pub(crate) role: Option<Role>,
}

impl NodeConfig {
    pub(crate) fn new(name: impl Into<String>, driver: Any, pool: PoolConfig) -> Self {
        Self { name: name.into(), driver, pool, weight: 1.0, role: None }
    }

    pub(crate) fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    fn member(&self) -> Member<Any> {
        let pool = Pool::builder(self.driver.clone()).config(self.pool.clone());
        let member = Member::new(&*self.name, pool).weight(self.weight);
        match self.role {
            Some(role) => member.role(role),
            None => member,
        }
    }
}

/// The settings of a cluster that can be written down.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) strategy: Option<Choice>,
    pub(super) max_lag: Option<Duration>,
    pub(super) probe_interval: Option<Duration>,
    pub(super) probe_timeout: Option<Duration>,
    /// In a URL it is a setting of the pools, and the cluster's as well.
    pub(super) acquire_timeout: Option<Duration>,
}

impl Settings {
    /// Those that a URL has beside the settings of the pools.
    pub(super) const NAMES: &'static [&'static str] =
        &["strategy", "max_lag", "probe_interval", "probe_timeout"];

    /// Makes the setting `name` from text.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<(), Unset> {
        match name {
            "strategy" => self.strategy = Some(text::read(text)?),
            "max_lag" => self.max_lag = Some(text::read(text)?),
            "probe_interval" => self.probe_interval = Some(text::read(text)?),
            "probe_timeout" => self.probe_timeout = Some(text::read(text)?),
            _ => return Err(Unset::NoSuchName),
        }
        Ok(())
    }

    /// These settings, and those of `other` where none is made here.
    fn or(self, other: Self) -> Self {
        Self {
            strategy: self.strategy.or(other.strategy),
            max_lag: self.max_lag.or(other.max_lag),
            probe_interval: self.probe_interval.or(other.probe_interval),
            probe_timeout: self.probe_timeout.or(other.probe_timeout),
            acquire_timeout: self.acquire_timeout.or(other.acquire_timeout),
        }
    }

    /// Settings of a pool, with what they have from the cluster.
    pub(super) fn complete(&self, pool: PoolConfig) -> PoolConfig {
        match self.acquire_timeout {
            Some(limit) => {
                let of_cluster = PoolConfig::new().acquire_timeout(limit);
                pool.or(of_cluster)
            }
            None => pool,
        }
    }

    /// The same with the deadline of the pools, if it has none of its own.
    pub(super) fn with_deadline_of(mut self, pool: &PoolConfig) -> Self {
        self.acquire_timeout = self.acquire_timeout.or_else(|| pool.deadline());
        self
    }

    /// Notes what is wrong with them.
    pub(super) fn check(&self, faults: &mut Vec<String>) {
        if self.max_lag.is_some_and(|limit| limit.is_zero()) {
            faults.push("max_lag = 0ns: must be above 0".to_owned());
        }
        // It has two settings alone, under the names that they have there.
        faults.extend(self.health().faults().iter().map(|fault| format!("probe_{fault}")));
    }

    fn health(&self) -> HealthConfig {
        let mut health = HealthConfig::new();
        if let Some(interval) = self.probe_interval {
            health = health.interval(interval);
        }
        if let Some(limit) = self.probe_timeout {
            health = health.timeout(limit);
        }
        health
    }

    fn apply(&self, builder: Builder<Any>) -> Builder<Any> {
        let mut builder = builder.health(self.health()).max_lag(self.max_lag);
        if let Some(limit) = self.acquire_timeout {
            builder = builder.acquire_timeout(limit);
        }
        match self.strategy {
            None => builder,
            Some(Choice::LeastCost) => builder.strategy(LeastCost),
            Some(Choice::LeastConnections) => builder.strategy(LeastConnections),
            Some(Choice::RoundRobin) => builder.strategy(RoundRobin::new()),
            Some(Choice::TwoChoices) => builder.strategy(TwoChoices),
            Some(Choice::WeightedRandom) => builder.strategy(WeightedRandom),
        }
    }
}

/// A strategy, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    LeastCost,
    LeastConnections,
    RoundRobin,
    TwoChoices,
    WeightedRandom,
}

impl Setting for Choice {
    const FORM: &'static str =
        "least_cost, least_connections, round_robin, two_choices or weighted_random";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "least_cost" => Some(Self::LeastCost),
            "least_connections" => Some(Self::LeastConnections),
            "round_robin" => Some(Self::RoundRobin),
            "two_choices" => Some(Self::TwoChoices),
            "weighted_random" => Some(Self::WeightedRandom),
            _ => None,
        }
    }
}
