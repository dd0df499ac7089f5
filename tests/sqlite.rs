//! What only a real SQLite can show, on whichever real runtime is enabled: a
//! thousand statements whose futures are dropped at random points lose nothing
//! and leave nothing open, and everybody gets their own rows.
#![cfg(all(
    any(feature = "sqlite", feature = "sqlite-system"),
    any(feature = "tokio", feature = "async-std", feature = "smol")
))]

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_util::StreamExt;
use futures_util::future::{FutureExt, join_all};
use millpond::drivers::sqlite::Sqlite;
use millpond::runtime::{block_on, current};
use millpond::{Pool, Result, params};

const CALLERS: u64 = 8;
const ROUNDS: u64 = 125;
const MAX_OPEN: usize = 4;

/// Counts up to twenty thousand: long enough to go to a thread that may block.
const HEAVY: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
     SELECT count(*) FROM n";

#[test]
fn a_thousand_dropped_statements_lose_nothing() {
    block_on(async {
        let path = std::env::temp_dir().join(format!("millpond-dropped-{}.db", std::process::id()));
        let pool =
            Pool::builder(Sqlite::file(&path)).max_open_conns(MAX_OPEN).build().await.unwrap();
        // Each transaction writes two rows of one pair, or none.
        pool.batch("DROP TABLE IF EXISTS half; CREATE TABLE half (pair INTEGER)").await.unwrap();
        let here = current().expect("inside block_on");
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (task, done) = drop_statements(pool.clone(), caller).remote_handle();
                here.spawn(Box::pin(task));
                done
            })
            .collect();
        join_all(callers).await;

        let mut held = Vec::new();
        for number in 0..MAX_OPEN as i64 {
            let mut conn = pool.acquire().await.expect("no slot was lost");
            let rows = conn.query("SELECT ?", &params![number]).await.unwrap();
            assert_eq!(rows.scalar::<i64>().unwrap(), number);
            let open = conn.with(|conn| Ok(!conn.is_autocommit())).await.unwrap();
            assert!(!open, "a transaction was left open");
            held.push(conn);
        }
        let torn =
            "SELECT count(*) FROM (SELECT pair FROM half GROUP BY pair HAVING count(*) <> 2)";
        assert_eq!(held[0].query(torn, &[]).await.unwrap().scalar::<i64>().unwrap(), 0);
        drop(held);
        let report = pool.close().await;
        assert!(report.is_complete(), "{report}");
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    });
}

#[test]
fn a_stream_on_the_pool_gives_its_connection_back_at_its_end_or_half_way() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).max_open_conns(1).build().await.unwrap();
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
             SELECT i FROM n";
        for (rows, read) in [(1_000, 1_000), (1_000_000, 7)] {
            let params = params![rows];
            let mut stream = pin!(pool.query_stream(sql, &params));
            for expected in 1..=read {
                let row = stream.next().await.expect("a row").unwrap();
                assert_eq!(row.get::<i64>(0).unwrap(), expected);
            }
            if rows == read {
                assert!(stream.next().await.is_none());
            }
        }
        let rows = pool.query("SELECT ?", &params!["mine"]).await.unwrap();
        assert_eq!(rows.scalar::<String>().unwrap(), "mine");
    });
}

#[test]
fn a_stream_on_the_pool_ends_with_its_error() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).build().await.unwrap();
        let mut stream = pin!(pool.query_stream("SELECT 1 FROM nowhere", &[]));
        let error = stream.next().await.expect("an item").unwrap_err();
        assert!(error.to_string().starts_with("no such table: nowhere"), "{error}");
        assert!(stream.next().await.is_none());
    });
}

async fn drop_statements(pool: Pool<Sqlite>, caller: u64) {
    let mut random = caller + 1;
    let mut below = move |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % limit
    };
    for round in 0..ROUNDS {
        let pair = (caller * ROUNDS + round) as i64;
        let polls = below(6);
        match below(4) {
            0 => drop(drop_after(polls, pool.query(HEAVY, &[])).await),
            1 => drop(drop_after(polls, pool.query("SELECT ?", &params![-1])).await),
            2 => drop(drop_after(polls, pool.begin()).await),
            _ => drop(drop_after(polls, write_pair(&pool, pair)).await),
        }
        let rows = pool.query("SELECT ?", &params![pair]).await.unwrap();
        assert_eq!(rows.scalar::<i64>().unwrap(), pair, "somebody else's row");
    }
}

async fn write_pair(pool: &Pool<Sqlite>, pair: i64) -> Result<()> {
    let mut tx = pool.begin().await?;
    tx.execute("INSERT INTO half VALUES (?)", &params![pair]).await?;
    tx.execute("INSERT INTO half VALUES (?)", &params![pair]).await?;
    tx.commit().await
}

/// Polls a future so many times and drops it where it stands then.
async fn drop_after<F: Future>(polls: u64, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
