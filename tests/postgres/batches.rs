//! Batches, savepoints, and returns over a network that has gone silent.

use std::time::Duration;

use millpond::Pool;
use millpond::drivers::postgres::Postgres;
use millpond::runtime::{block_on, current};
use millpond_harness::{Proxy, postgres};

use super::several::{dropped_anywhere, savepoints, set_and_read};
use super::{pool, until};

#[test]
fn a_batch_dropped_anywhere_leaves_nothing_to_the_next_borrower() {
    block_on(async {
        let batch = "SELECT 'theirs'; SELECT pg_sleep(0.002); SELECT generate_series(1, 500)";
        dropped_anywhere(pool(1).await, batch).await;
    });
}

#[test]
fn five_thousand_tasks_with_two_statements_each_get_their_own_answers() {
    block_on(async {
        let set = |one, other| {
            format!(
                "SET millpond.one = '{one}'; SELECT set_config('millpond.other', '{other}', false)"
            )
        };
        let read =
            "SELECT current_setting('millpond.one') || ' ' || current_setting('millpond.other')";
        set_and_read(pool(8).await, set, read).await;
    });
}

#[test]
fn a_rollback_to_a_savepoint_leaves_the_transaction_open() {
    block_on(async { savepoints(pool(1).await).await });
}

/// The rollback gets no answer, and neither does the goodbye.
#[test]
fn a_return_over_a_dead_network_is_bounded_and_holds_nobody_up() {
    block_on(async {
        let here = current().expect("inside block_on");
        let proxy = Proxy::to(postgres().address());
        let url = format!("{}?sslmode=disable", postgres().url_at(proxy.address()));
        let limit = Duration::from_millis(300);
        let driver = Postgres::from_url(&url).unwrap();
        let pool =
            Pool::builder(driver).max_open_conns(1).reset_timeout(limit).build().await.unwrap();
        let soiled = pool.begin().await.unwrap();
        proxy.stall();
        let start = here.now();
        drop(soiled);
        assert!(here.now() - start < limit, "the borrower waited");
        until(|| pool.snapshot().open == 0).await;
        assert!(here.now() - start < Duration::from_secs(3));
        proxy.pass();
        let rows = pool.query("SELECT 7", &[]).await.unwrap();
        assert_eq!(rows.scalar::<i64>().unwrap(), 7);
    });
}
