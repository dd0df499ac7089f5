//! MariaDB goes away and comes back.

use std::sync::Arc;

use millpond::runtime::block_on;
use millpond_harness::Server;

use super::outage::{CONNECTIONS, killed_under_load, restarted_while_idle};
use super::pool_at;

#[test]
fn no_caller_meets_a_connection_that_died_while_idle() {
    let server = Arc::new(Server::mariadb().start());
    block_on(async {
        let pool = pool_at(&server.url(), CONNECTIONS).await;
        restarted_while_idle(server, pool).await;
    });
}

#[test]
fn a_kill_under_load_costs_what_was_under_way_and_no_restart_of_ours() {
    let server = Arc::new(Server::mariadb().start());
    block_on(async {
        let pool = pool_at(&server.url(), CONNECTIONS).await;
        killed_under_load(server, pool).await;
    });
}
