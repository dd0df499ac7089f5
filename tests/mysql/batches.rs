//! Batches and savepoints.

use millpond::runtime::block_on;

use super::several::{dropped_anywhere, savepoints, set_and_read};
use super::{both, pool_at};

#[test]
fn a_batch_dropped_anywhere_leaves_nothing_to_the_next_borrower() {
    block_on(async {
        for server in both() {
            let batch = "SELECT 'theirs'; SELECT SLEEP(0.002); SELECT 1 UNION SELECT 2; DO 1";
            dropped_anywhere(pool_at(&server.url(), 1).await, batch).await;
        }
    });
}

#[test]
fn five_thousand_tasks_with_two_statements_each_get_their_own_answers() {
    block_on(async {
        for server in both() {
            let set = |one, other| format!("SET @one = {one}; SET @other = {other}");
            let read = "SELECT CONCAT(@one, ' ', @other)";
            set_and_read(pool_at(&server.url(), 8).await, set, read).await;
        }
    });
}

#[test]
fn a_rollback_to_a_savepoint_leaves_the_transaction_open() {
    block_on(async {
        for server in both() {
            savepoints(pool_at(&server.url(), 1).await).await;
        }
    });
}
