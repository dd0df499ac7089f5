//! Transactions that were given up: dropped before they had begun, or undone.
//!
//! Owns what holds for them on every database. Knows none.

use millpond::testing::cancel::cancel_after;
use millpond::{Driver, Pool};

/// Drops begins at every point, goes on with the same connection, and compares
/// what it was told with what is there. `table` has one column of integers.
pub(crate) async fn what_follows_a_dropped_begin_is_kept_if_it_is_said_to_be<D: Driver>(
    pool: &Pool<D>,
    table: &str,
) {
    let mut told = Vec::new();
    for polls in 0..12 {
        let mut conn = pool.acquire().await.unwrap();
        cancel_after(polls, conn.begin()).await;
        let insert = format!("INSERT INTO {table} VALUES ({polls})");
        if conn.execute(&insert, &[]).await.is_ok() {
            told.push(polls as i64);
        }
    }
    for polls in 0..12 {
        let mut tx = pool.begin().await.unwrap();
        cancel_after(polls, tx.begin()).await;
        let insert = format!("INSERT INTO {table} VALUES ({})", 100 + polls);
        let inserted = tx.execute(&insert, &[]).await;
        if inserted.is_ok() && tx.commit().await.is_ok() {
            told.push(100 + polls as i64);
        }
    }
    let rows = pool.query(&format!("SELECT * FROM {table} ORDER BY 1"), &[]).await.unwrap();
    let kept: Vec<i64> = rows.iter().map(|row| row.get(0).unwrap()).collect();
    assert_eq!(kept, told);
    assert!(told.contains(&0) && told.contains(&100), "{told:?}");
}

/// Each that was undone left one, nested in the one before. A statement failed in
/// one of them.
pub(crate) async fn of_levels_that_are_undone_one_savepoint_is_left_at_most<D: Driver>(
    pool: &Pool<D>,
) {
    let mut tx = pool.begin().await.unwrap();
    tx.begin().await.unwrap().rollback().await.unwrap();
    let mut failed = tx.begin().await.unwrap();
    failed.query("SELECT nonsense", &[]).await.unwrap_err();
    drop(failed);
    tx.query("SELECT 1", &[]).await.unwrap();
    tx.query("RELEASE SAVEPOINT millpond_2", &[]).await.unwrap();
    let error = tx.query("RELEASE SAVEPOINT millpond_2", &[]).await.unwrap_err();
    assert!(error.to_string().to_lowercase().contains("savepoint"), "{error}");
}
