//! How a checker sees MariaDB.

use std::sync::Arc;

use millpond::health::State;
use millpond::runtime::block_on;
use millpond_harness::Server;

use super::pool_at;
use super::watch::{once, stopped_and_frozen, watch};

#[test]
fn a_server_that_stops_or_falls_silent_is_out_until_it_is_back() {
    let server = Arc::new(Server::mariadb().start());
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        stopped_and_frozen(server, pool).await;
    });
}

#[test]
fn a_server_that_takes_no_writes_is_up_and_says_so() {
    let server = Server::mariadb().start();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        let health = watch(&pool).await;
        assert_eq!(health.status().writable, Some(true));
        for (read_only, writable) in [("ON", false), ("OFF", true)] {
            let sql = format!("SET GLOBAL read_only = {read_only}");
            pool.query(&sql, &[]).await.unwrap();
            let status = once(&health, |status| status.writable == Some(writable)).await;
            assert_eq!(status.state, State::Up, "{status}");
        }
    });
}
