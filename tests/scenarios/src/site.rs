//! The servers of a scenario and the cluster on them.
//!
//! Owns how they are set up: a primary and two standbys of PostgreSQL, each
//! behind a line that can fail. Knows no load.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millpond::balance::{Builder, Member};
use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Pool, PoolConfig};
use millpond_harness::{Proxy, Server};

use crate::load::TABLES;

/// The names of the nodes, in the order of the servers.
pub(crate) const NAMES: [&str; 3] = ["a", "b", "c"];

/// A primary `a` and its standbys `b` and `c`.
pub(crate) struct Trio {
    pub(crate) servers: Vec<Server>,
    pub(crate) proxies: Vec<Proxy>,
    /// What the cluster has told, and when.
    pub(crate) told: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Trio {
    pub(crate) fn start() -> Self {
        Self::with(|builder| builder)
    }

    /// With settings of the primary, which its standbys have too.
    pub(crate) fn with(
        set: impl FnOnce(millpond_harness::Builder) -> millpond_harness::Builder,
    ) -> Self {
        let primary = set(Server::postgres()).start();
        primary.sql(TABLES);
        let (b, c) = std::thread::scope(|scope| {
            let (b, c) = (scope.spawn(|| primary.replica()), scope.spawn(|| primary.replica()));
            (b.join().expect("a standby"), c.join().expect("a standby"))
        });
        let servers = vec![primary, b, c];
        let proxies = servers.iter().map(|server| Proxy::to(server.address())).collect();
        Self { servers, proxies, told: Arc::default() }
    }

    /// Has the primary acknowledge only what a standby has, so that what is lost
    /// is not the servers' loss. A standby that is promoted does not.
    pub(crate) fn synchronous(self) -> Self {
        let set = "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (*)'";
        self.servers[0].sql(set);
        self.servers[0].sql("SELECT pg_reload_conf()");
        self
    }

    pub(crate) fn builder(&self) -> Builder<Postgres> {
        self.builder_with(|config| config)
    }

    /// With settings of the pools.
    pub(crate) fn builder_with(&self, set: impl Fn(PoolConfig) -> PoolConfig) -> Builder<Postgres> {
        let told = Arc::clone(&self.told);
        let mut builder = Cluster::builder().on_event(move |event| {
            told.lock().expect("no panic").push((Instant::now(), event.to_string()));
        });
        for (index, name) in NAMES.iter().enumerate() {
            let url = self.servers[index].url_at(self.proxies[index].address());
            let driver = Postgres::from_url(&url).expect("a URL of the harness");
            let config = set(PoolConfig::new().max_open_conns(10));
            builder = builder.member(Member::new(*name, Pool::builder(driver).config(config)));
        }
        builder
    }

    /// The cluster, in use for long enough that no node has just come.
    pub(crate) async fn cluster(&self) -> Cluster<Postgres> {
        self.builder().build().await.expect("a cluster")
    }

    /// What is told of harm done: for the notes.
    pub(crate) fn told_since(&self, start: Instant) -> Vec<String> {
        let told = self.told.lock().expect("no panic");
        let since = told.iter().filter(|(at, _)| *at >= start);
        since.map(|(at, line)| format!("{:>5} ms: {line}", (*at - start).as_millis())).collect()
    }
}

/// Does what blocks, on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("it does not panic")
}

pub(crate) async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}
