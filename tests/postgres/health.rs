//! How a checker sees PostgreSQL.

use std::sync::Arc;

use millpond::Role;
use millpond::health::State;
use millpond::runtime::block_on;
use millpond_harness::Server;

use super::pool_at;
use super::standby::standby;
use super::watch::{once, stopped_and_frozen, watch};

#[test]
fn a_server_that_stops_or_falls_silent_is_out_until_it_is_back() {
    let server = Arc::new(Server::postgres().start());
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        stopped_and_frozen(server, pool).await;
    });
}

#[test]
fn a_standby_is_up_and_takes_no_writes_until_it_is_promoted() {
    let server = standby();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        let health = watch(&pool).await;
        let before = health.status();
        assert_eq!((before.role, before.writable), (Role::Replica, Some(false)), "{before}");
        assert!(health.answer().1.contains("\"role\":\"replica\",\"writable\":false"));
        pool.query("SELECT pg_promote()", &[]).await.unwrap();
        let after = once(&health, |status| status.writable == Some(true)).await;
        assert_eq!((after.role, after.state), (Role::Primary, State::Up), "{after}");
        assert_eq!(after.failures, before.failures);
    });
}
