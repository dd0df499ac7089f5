//! What it costs a cluster to pick one of three nodes, in uncontended atomic swap
//! pairs of the same round.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use millpond::balance::{LeastCost, NodeView, Strategy};
use millpond::{Cluster, Pool, Route};

use super::{ns_each, one_thread, swap};
use crate::peer::SIZE;
use crate::peer::millpond::Null;
use crate::table::{figure, median};

const PICKS: usize = 200_000;

/// Each with the most it should cost, in swap pairs.
const STEPS: [(&str, Option<f64>); 4] = [
    ("swap pair", None),
    ("strategy alone", Some(6.0)),
    ("whole decision", Some(6.0)),
    ("acquire + release", None),
];

pub(crate) fn measure(rounds: usize) {
    let runtime = one_thread();
    let mut samples = STEPS.map(|_| Vec::with_capacity(rounds));
    runtime.block_on(async {
        let cluster = cluster().await;
        for _ in 0..rounds {
            let loans = loans(&cluster).await;
            let round = [swap::pair_ns(1), strategy(), decision(&cluster), loans];
            samples.iter_mut().zip(round).for_each(|(samples, ns)| samples.push(ns));
        }
    });
    println!("\n{}", Table(samples.map(|samples| median(samples.into_iter()))));
}

/// Three nodes with some connections open.
async fn cluster() -> Cluster<Null> {
    let mut builder = Cluster::builder();
    for name in ["a", "b", "c"] {
        builder = builder.node(name, Pool::builder(Null).max_open_conns(SIZE));
    }
    let cluster = builder.build().await.expect("three nodes that answer");
    let mut all = Vec::new();
    for _ in 0..3 * SIZE {
        all.push(cluster.acquire(Route::Any).await.expect("never refused"));
    }
    cluster
}

fn strategy() -> f64 {
    let cost = Duration::from_micros;
    let mut nodes =
        [NodeView::new(3, cost(510)), NodeView::new(2, cost(480)), NodeView::new(4, cost(500))];
    let start = Instant::now();
    for load in 0..PICKS as u32 {
        nodes[0].load = load % 8;
        black_box(
            LeastCost.pick(black_box(&nodes), black_box(u64::from(load)).wrapping_mul(1 << 29)),
        );
    }
    ns_each(start.elapsed(), PICKS)
}

fn decision(cluster: &Cluster<Null>) -> f64 {
    let start = Instant::now();
    for _ in 0..PICKS {
        black_box(cluster.would_pick(black_box(Route::Any)));
    }
    ns_each(start.elapsed(), PICKS)
}

async fn loans(cluster: &Cluster<Null>) -> f64 {
    let start = Instant::now();
    for _ in 0..PICKS {
        black_box(cluster.acquire(Route::Any).await.expect("never refused"));
    }
    ns_each(start.elapsed(), PICKS)
}

struct Table([f64; STEPS.len()]);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a cluster of three picks a node\n")?;
        write!(f, "{:<17}{:>9}  x swap pair", "", "ns/op")?;
        for ((name, target), ns) in STEPS.iter().zip(self.0) {
            write!(f, "\n{name:<17}{ns:>9.1}  {}", figure(ns / self.0[0], *target))?;
        }
        Ok(())
    }
}
