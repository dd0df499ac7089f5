//! A cluster's numbers as metrics.
//!
//! Owns which number has which name. Those of the pools are the pools'.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use millpond_driver::{Driver, Role, Runtime};

use super::{Cluster, ClusterSnapshot, Inner, NodeSnapshot};
use crate::health::State;
use crate::metrics::{Kind, Metric, Source, Watch, merged};

/// The attribute that names the node, as its pool is named.
const NODE: &str = "db.client.connection.pool.name";

impl<D: Driver> Inner<D> {
    fn metrics(&self) -> Vec<Metric> {
        let pools = self.nodes.load().iter().map(|node| node.pool.metrics()).collect::<Vec<_>>();
        merged(pools.into_iter().chain([named(&self.snapshot())]))
    }
}

impl<D: Driver> Source for Cluster<D> {
    fn metrics(&self) -> Vec<Metric> {
        self.inner.metrics()
    }
}

impl<D: Driver> Watch for Cluster<D> {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.inner.hub.runtime)
    }

    fn weak(&self) -> Arc<dyn Source> {
        Arc::new(WeakCluster(Arc::downgrade(&self.inner)))
    }
}

/// None once the cluster is gone.
struct WeakCluster<D: Driver>(Weak<Inner<D>>);

impl<D: Driver> Source for WeakCluster<D> {
    fn metrics(&self) -> Vec<Metric> {
        self.0.upgrade().map_or_else(Vec::new, |inner| inner.metrics())
    }
}

fn named(now: &ClusterSnapshot) -> Vec<Metric> {
    let each = |kind, name, unit, description, number: &dyn Fn(&NodeSnapshot) -> Option<u64>| {
        now.nodes.iter().fold(Metric::new(kind, name, unit, description), |metric, node| {
            match number(node) {
                Some(number) => metric.with(&[(NODE, Cow::Owned(node.name.clone()))], number),
                None => metric,
            }
        })
    };
    let mut states =
        Metric::new(Kind::Gauge, "millpond.node.state", "{node}", "Whether nodes are used.");
    let mut roles = Metric::new(Kind::Gauge, "millpond.node.role", "{node}", "The role of nodes.");
    for node in &now.nodes {
        let name = (NODE, Cow::Owned(node.name.clone()));
        for state in [State::Up, State::Degraded, State::Ejected, State::Probing, State::Draining] {
            let label = ("millpond.node.state", Cow::Borrowed(state.as_str()));
            states = states.with(&[name.clone(), label], u64::from(node.state == state));
        }
        for (role, word) in [
            (Role::Primary, "primary"),
            (Role::Replica, "replica"),
            (Role::Peer, "peer"),
            (Role::Standalone, "standalone"),
            (Role::Unknown, "unknown"),
        ] {
            let label = ("millpond.node.role", Cow::Borrowed(word));
            roles = roles.with(&[name.clone(), label], u64::from(node.role == role));
        }
    }
    vec![
        states,
        roles,
        each(
            Kind::Gauge,
            "millpond.node.writable",
            "{node}",
            "Nodes that are used for writes.",
            &|node| Some(node.takes_writes.into()),
        ),
        each(
            Kind::Gauge,
            "millpond.node.lag",
            "ms",
            "How far replicas are behind, where that is known.",
            &|node| node.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
        ),
        each(
            Kind::Gauge,
            "millpond.node.cost",
            "us",
            "How long statements take in the mean of the last seconds.",
            &|node| Some(u64::try_from(node.cost.as_micros()).unwrap_or(u64::MAX)),
        ),
        each(
            Kind::Gauge,
            "millpond.node.load",
            "{request}",
            "Callers that use a node or wait for it.",
            &|node| Some(node.load.into()),
        ),
        each(
            Kind::Counter,
            "millpond.node.picks",
            "{request}",
            "Callers sent to a node.",
            &|node| Some(node.picks),
        ),
        each(
            Kind::Counter,
            "millpond.node.ejections",
            "{ejection}",
            "How often a node was put out.",
            &|node| Some(node.ejections),
        ),
        Metric::new(
            Kind::Counter,
            "millpond.cluster.retries",
            "{retry}",
            "Work, statements and transactions that were tried again.",
        )
        .with(&[], now.retries),
    ]
}
