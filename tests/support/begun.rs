//! Transactions whose begin was dropped on its way.
//!
//! Owns the claim: what the same borrower does next is part of none of them.
//! Knows no database.

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
