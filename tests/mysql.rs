//! What only a real server can show, MariaDB and for the most important MySQL as
//! well, on whichever real runtime is enabled: how
//! connecting fails, what errors mean, what native use leaves behind, which
//! values come back, and what a session keeps.
#![cfg(all(
    unix,
    feature = "mysql",
    any(feature = "tokio", feature = "async-std", feature = "smol")
))]

#[path = "mysql/batches.rs"]
mod batches;
#[path = "support/begun.rs"]
mod begun;
#[path = "mysql/clusters.rs"]
mod clusters;
#[path = "mysql/conflicts.rs"]
mod conflicts;
#[path = "mysql/connecting.rs"]
mod connecting;
#[path = "mysql/dropping.rs"]
mod dropping;
#[path = "mysql/errors.rs"]
mod errors;
#[path = "mysql/health.rs"]
mod health;
#[path = "mysql/native.rs"]
mod native;
#[path = "support/outage.rs"]
mod outage;
#[path = "mysql/outages.rs"]
mod outages;
#[path = "support/pair.rs"]
mod pair;
#[path = "mysql/passwords.rs"]
mod passwords;
#[path = "mysql/positions.rs"]
mod positions;
#[path = "mysql/sessions.rs"]
mod sessions;
#[path = "support/several.rs"]
mod several;
#[path = "support/storm.rs"]
mod storm;
#[path = "support/transfers.rs"]
mod transfers;
#[path = "mysql/undone.rs"]
mod undone;
#[path = "mysql/values.rs"]
mod values;
#[path = "support/violations.rs"]
mod violations;
#[path = "support/watch.rs"]
mod watch;

use std::time::Duration;

use millpond::drivers::mysql::Mysql;
use millpond::runtime::block_on;
use millpond::{Cause, Error, Outcome, Pool};
use millpond_harness::{Server, mariadb};

/// MariaDB, and MySQL where it is there.
fn both() -> Vec<&'static Server> {
    let mut servers = vec![mariadb()];
    servers.extend(millpond_harness::mysql());
    servers
}

/// A pool of so many connections on the shared server.
async fn pool(max_open: usize) -> Pool<Mysql> {
    pool_at(&mariadb().url(), max_open).await
}

async fn pool_at(url: &str, max_open: usize) -> Pool<Mysql> {
    let driver = Mysql::from_url(url).expect("a good URL");
    Pool::builder(driver).max_open_conns(max_open).build().await.expect("a pool")
}

/// Why a pool cannot be built on this URL, given this long.
async fn refused(url: &str, limit: Duration) -> Error {
    let driver = Mysql::from_url(url).expect("a good URL");
    let built = Pool::builder(driver).connect_timeout(limit).build().await;
    let error = built.expect_err(url);
    assert!(!format!("{error:?}").contains(mariadb().password()), "{error:?}");
    error
}
