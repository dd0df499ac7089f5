//! Clusters on a primary and a replica.

use millpond::runtime::block_on;
use millpond_harness::Server;

use super::pair;

fn servers() -> (Server, Server) {
    let primary = Server::mariadb().replicated().start();
    let replica = primary.replica();
    (primary, replica)
}

#[test]
fn what_was_written_is_read_on_the_replica_after_its_position() {
    let (primary, replica) = servers();
    block_on(pair::reads_its_own_writes(&primary, &replica));
}

#[test]
fn writes_go_on_on_the_replica_that_is_promoted() {
    let (primary, replica) = servers();
    block_on(pair::writes_where_the_primary_is_by_then(&primary, &replica));
}
