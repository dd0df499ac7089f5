//! Transactions that deadlock or cannot be serialized, and are repeated.

use millpond::runtime::block_on;
use millpond_harness::Server;

use super::pool_at;
use super::transfers::move_money;

#[test]
fn every_transfer_is_made_once_whatever_it_conflicts_with() {
    // By default a deadlock is looked for after a second.
    let server = Server::postgres().setting("deadlock_timeout", "10ms").start();
    block_on(async {
        let pool = pool_at(&server.url(), 16).await;
        move_money(pool, |number| format!("${number}::bigint")).await;
    });
}
