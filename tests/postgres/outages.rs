//! PostgreSQL goes away and comes back.

use std::sync::Arc;

use millpond::runtime::block_on;
use millpond_harness::{Server, postgres};

use super::outage::{CONNECTIONS, killed_under_load, killed_while_idle, restarted_while_idle};
use super::{pool, pool_at};

#[test]
fn no_caller_meets_a_connection_that_died_while_idle() {
    let server = Arc::new(Server::postgres().start());
    block_on(async {
        let pool = pool_at(&server.url(), CONNECTIONS).await;
        restarted_while_idle(server, pool).await;
    });
}

#[test]
fn a_kill_under_load_costs_what_was_under_way_and_no_restart_of_ours() {
    let server = Arc::new(Server::postgres().start());
    block_on(async {
        let pool = pool_at(&server.url(), CONNECTIONS).await;
        killed_under_load(server, pool).await;
    });
}

#[test]
fn idle_sessions_that_the_server_ended_are_met_by_nobody() {
    block_on(async {
        let kill = |pid| drop(postgres().sql(&format!("SELECT pg_terminate_backend({pid})")));
        killed_while_idle(pool(CONNECTIONS).await, "SELECT pg_backend_pid()", kill).await;
    });
}
