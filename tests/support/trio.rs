//! A primary and two replicas on scripted servers, as one cluster.
//!
//! Owns the servers, and how a primary falls and another is promoted. Knows no
//! claim.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::balance::{Builder, ClusterSnapshot};
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::testing::sim::Sim;
use millpond::{Cluster, Pool, Role};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The servers `a`, `b` and `c`, of which `a` is the primary at first.
#[derive(Clone)]
pub(crate) struct Trio {
    pub(crate) a: Fake,
    pub(crate) b: Fake,
    pub(crate) c: Fake,
    /// What the cluster has told, line by line.
    pub(crate) told: Arc<Mutex<Vec<String>>>,
}

impl Trio {
    pub(crate) fn new() -> Self {
        let (a, b, c) = (Fake::new(), Fake::new(), Fake::new());
        a.becomes(Role::Primary).timeline(1).of_cluster("7").tells_role(true);
        for replica in [&b, &c] {
            replica.follow(&a).timeline(1).of_cluster("7").tells_role(true);
        }
        Self { a, b, c, told: Arc::default() }
    }

    pub(crate) fn all(&self) -> [(&'static str, &Fake); 3] {
        [("a", &self.a), ("b", &self.b), ("c", &self.c)]
    }

    pub(crate) fn builder(&self, sim: &Sim) -> Builder<Fake> {
        let told = Arc::clone(&self.told);
        let mut builder = Cluster::builder().runtime(sim.clone()).on_event(move |event| {
            told.lock().unwrap().push(event.to_string());
        });
        for (name, fake) in self.all() {
            builder = builder.node(name, Pool::builder(fake.clone()).max_open_conns(4));
        }
        builder
    }

    pub(crate) async fn cluster(&self, sim: &Sim) -> Cluster<Fake> {
        self.builder(sim).build().await.unwrap()
    }

    pub(crate) fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }

    /// `b` is the primary from now on, and `c` follows it.
    pub(crate) fn promote_b(&self) {
        self.b.becomes(Role::Primary).timeline(2);
        self.c.follow(&self.b).timeline(2);
    }
}

/// The server is gone: its connections are dead, and it takes no others.
pub(crate) fn take_down(fake: &Fake) {
    fake.restart().always_connect(Act::refuse());
}

/// It takes connections again.
pub(crate) fn bring_back(fake: &Fake) {
    fake.always_connect(Act::Answer);
}

/// The server is silent until it is thawed: whatever it is asked waits.
pub(crate) fn freeze(fake: &Fake) -> Gate {
    let ice = Gate::new();
    let frozen = || Act::Wait(ice.clone());
    fake.always_connect(frozen()).always_ping(frozen()).always_query(frozen());
    ice
}

/// It goes on where it was.
pub(crate) fn thaw(fake: &Fake, ice: &Gate) {
    fake.always_connect(Act::Answer).always_ping(Act::Answer).always_query(Act::Answer);
    ice.open();
}

/// The names of the nodes that are used for writes and for reads.
pub(crate) fn duties(now: &ClusterSnapshot) -> (Vec<&str>, Vec<&str>) {
    let of = |writes: bool| {
        let used = now.nodes.iter().filter(|node| match writes {
            true => node.takes_writes,
            false => node.serves_reads,
        });
        used.map(|node| &*node.name).collect()
    };
    (of(true), of(false))
}
