//! Transactions that deadlock, and are repeated.

use millpond::runtime::block_on;

use super::transfers::move_money;
use super::{both, pool_at};

#[test]
fn every_transfer_is_made_once_whatever_it_conflicts_with() {
    for server in both() {
        let url = server.new_database("transfers");
        block_on(async {
            move_money(pool_at(&url, 16).await, |_| "?".to_owned()).await;
        });
    }
}
