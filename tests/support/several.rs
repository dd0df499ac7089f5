//! Several statements at a time, and transactions in transactions, on a real
//! server.
//!
//! Knows no database: the statements that differ are passed in.

use futures_util::future::join_all;
use millpond::testing::cancel::cancel_after;
use millpond::{Driver, Pool, Session};

const TASKS: i64 = 5_000;

/// A batch dropped after each number of polls leaves no reply, and nothing
/// running, to the next borrower.
pub(crate) async fn dropped_anywhere<D: Driver>(pool: Pool<D>, batch: &str) {
    for round in 0..300 {
        let polls = round % 12;
        if round % 2 == 0 {
            drop(cancel_after(polls, pool.batch(batch)).await);
        } else {
            let mut conn = pool.acquire().await.unwrap();
            drop(cancel_after(polls, conn.batch(batch)).await);
        }
        for own in [round, round + 1000] {
            let rows = pool.query(&format!("SELECT {own}"), &[]).await.unwrap();
            assert_eq!(rows.scalar::<u64>().unwrap(), own, "another's answer");
        }
    }
    let now = pool.snapshot();
    assert_eq!((now.open, now.in_use, now.waiting), (1, 0, 0), "{now}");
}

/// Thousands of tasks set two values with one batch each and read them with one
/// statement, on a few connections.
pub(crate) async fn set_and_read<D: Driver>(
    pool: Pool<D>,
    set: impl Fn(i64, i64) -> String,
    read: &str,
) {
    let tasks = (0..TASKS).map(|own| {
        let (pool, batch) = (&pool, set(own, -own));
        async move {
            let mut conn = pool.acquire().await.unwrap();
            conn.batch(&batch).await.unwrap();
            let rows = conn.query(read, &[]).await.unwrap();
            assert_eq!(rows.scalar::<String>().unwrap(), format!("{own} {}", -own));
        }
    });
    join_all(tasks).await;
    let now = pool.snapshot();
    assert_eq!((now.in_use, now.waiting, now.overloads, now.timeouts), (0, 0, 0, 0), "{now}");
}

/// What ends a savepoint ends no transaction: the session says so, and the next
/// borrower finds nothing of it.
pub(crate) async fn savepoints<D: Driver>(pool: Pool<D>) {
    pool.batch("CREATE TABLE unsaved (n INTEGER)").await.unwrap();
    for rolls_back in [true, false] {
        let mut tx = pool.begin().await.unwrap();
        tx.execute("INSERT INTO unsaved VALUES (1)", &[]).await.unwrap();
        let mut inner = tx.begin().await.unwrap();
        inner.execute("INSERT INTO unsaved VALUES (2)", &[]).await.unwrap();
        if rolls_back { inner.rollback().await } else { inner.commit().await }.unwrap();
        assert_eq!(pool.driver().session(&tx), Session::InTransaction);
        let rows = tx.query("SELECT count(*) FROM unsaved", &[]).await.unwrap();
        assert_eq!(rows.scalar::<i64>().unwrap(), if rolls_back { 1 } else { 2 });
        drop(tx);
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::Clean);
        let rows = conn.query("SELECT count(*) FROM unsaved", &[]).await.unwrap();
        assert_eq!(rows.scalar::<i64>().unwrap(), 0);
    }
    pool.batch("DROP TABLE unsaved").await.unwrap();
}
