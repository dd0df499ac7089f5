//! A primary of MariaDB and its replica, and the cluster on them.
//!
//! Owns how they are set up. Knows no load.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use millpond::balance::Member;
use millpond::drivers::mysql::Mysql;
use millpond::{Cluster, Pool};
use millpond_harness::Server;

use crate::load::TABLES;
use crate::site::NAMES;

/// A primary `a` and its replica `b`.
pub(crate) struct Pair {
    pub(crate) a: Server,
    pub(crate) b: Server,
    /// What the cluster has told, and when.
    told: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Pair {
    pub(crate) fn start() -> Self {
        let a = Server::mariadb().replicated().start();
        a.sql(TABLES);
        // Who switches it must be more than the user of the tests, who is bound by it.
        a.sql("CREATE DEFINER = root@localhost PROCEDURE demote() SET GLOBAL read_only = 1");
        let b = a.replica();
        Self { a, b, told: Arc::default() }
    }

    pub(crate) async fn cluster(&self) -> Cluster<Mysql> {
        let told = Arc::clone(&self.told);
        let mut builder = Cluster::builder().on_event(move |event| {
            told.lock().expect("no panic").push((Instant::now(), event.to_string()));
        });
        for (name, server) in NAMES.iter().zip([&self.a, &self.b]) {
            let driver = Mysql::from_url(&server.url()).expect("a URL of the harness");
            let pool = Pool::builder(driver).max_open_conns(10);
            builder = builder.member(Member::new(*name, pool));
        }
        builder.build().await.expect("a cluster")
    }

    /// Has the primary refuse writes, and go on.
    pub(crate) fn demote(&self) {
        self.a.sql("CALL demote()");
    }

    pub(crate) fn told_since(&self, start: Instant) -> Vec<String> {
        let told = self.told.lock().expect("no panic");
        let since = told.iter().filter(|(at, _)| *at >= start);
        since.map(|(at, line)| format!("{:>5} ms: {line}", (*at - start).as_millis())).collect()
    }
}
