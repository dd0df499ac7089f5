//! A primary and two replicas on scripted servers, as one cluster.
//!
//! Owns the servers, how a primary falls and another is promoted, and a runtime
//! that can come to a stand. Knows no claim.
#![allow(dead_code, reason = "each test file uses its part")]

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use millpond::balance::{Builder, ClusterSnapshot};
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::runtime::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};
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

/// Runs a claim on a cluster of three.
pub(crate) fn with_trio(seed: u64, claim: impl AsyncFnOnce(Sim, Trio, Cluster<Fake>)) {
    Sim::new(seed).run(async |sim| {
        let trio = Trio::new();
        let cluster = trio.cluster(&sim).await;
        claim(sim, trio, cluster).await;
    });
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

/// The simulator as a runtime that can come to a stand, and that does not let
/// anybody spin, which the simulator could not end.
#[derive(Debug, Clone)]
pub(crate) struct Balky {
    sim: Sim,
    /// How often it has come to a stand.
    stands: Arc<AtomicU64>,
    /// How often it was asked the time, and when that was last.
    asked: Arc<Mutex<(Duration, u32)>>,
}

impl Balky {
    pub(crate) fn new(sim: &Sim) -> Self {
        Self { sim: sim.clone(), stands: Arc::default(), asked: Arc::default() }
    }

    /// What has been spawned so far is neither polled any more nor dropped; what
    /// is spawned from now on runs.
    pub(crate) fn come_to_a_stand(&self) {
        self.stands.fetch_add(1, Ordering::SeqCst);
    }
}

impl Runtime for Balky {
    /// # Panics
    ///
    /// If it has been asked far too often without time going by.
    fn now(&self) -> Instant {
        let mut asked = self.asked.lock().unwrap();
        let elapsed = self.sim.elapsed();
        *asked = if asked.0 == elapsed { (elapsed, asked.1 + 1) } else { (elapsed, 0) };
        // Once, for what is dropped then asks as well.
        let spins = asked.1 == 10_000;
        drop(asked);
        assert!(!spins, "somebody spins");
        self.sim.now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.sim.sleep_until(deadline)
    }

    fn spawn(&self, mut task: BoxFuture<'static, ()>) {
        let (born, stands) = (self.stands.load(Ordering::SeqCst), Arc::clone(&self.stands));
        self.sim.spawn(Box::pin(poll_fn(move |cx| match stands.load(Ordering::SeqCst) == born {
            true => task.as_mut().poll(cx),
            false => Poll::Pending,
        })));
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.sim.spawn_blocking(job);
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.sim.resolve(host, port)
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        self.sim.connect(target, options)
    }

    fn random(&self) -> u64 {
        self.sim.random()
    }
}
