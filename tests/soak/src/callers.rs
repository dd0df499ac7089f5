//! What an application does with a pool, well and badly.
//!
//! Owns the accounts and the claim that an answer belongs to its question.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use millpond::drivers::Any;
use millpond::testing::cancel::{cancel_after, cancel_when_woken};
use millpond::{Pool, PooledConnection, Result, params};
use tokio::time::{sleep, timeout};

use crate::ledger::Ledger;

const ACCOUNTS: i64 = 50;
const BALANCE: i64 = 1_000;
const MS: Duration = Duration::from_millis(1);

/// What differs between the databases.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dialect {
    Postgres,
    Sqlite,
}

impl Dialect {
    /// A statement that answers with `$1`, which takes its time on the server.
    fn echo(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT $1::text",
            Self::Sqlite => "SELECT $1",
        }
    }

    fn slow(self) -> &'static str {
        match self {
            Self::Postgres => "SELECT pg_sleep(0.2)",
            Self::Sqlite => {
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) \
                 SELECT max(i) FROM n"
            }
        }
    }
}

pub(crate) async fn create_accounts(pool: &Pool<Any>) -> Result<()> {
    pool.batch("CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)").await?;
    let mut transaction = pool.begin().await?;
    for id in 0..ACCOUNTS {
        let sql = format!("INSERT INTO account VALUES ({id}, {BALANCE})");
        transaction.execute(&sql, &[]).await?;
    }
    transaction.commit().await
}

/// What the accounts must add up to, and do.
pub(crate) async fn audit(pool: &Pool<Any>) -> Result<bool> {
    let rows = pool.query("SELECT CAST(sum(balance) AS BIGINT) FROM account", &[]).await?;
    Ok(rows.scalar::<i64>()? == ACCOUNTS * BALANCE)
}

/// One caller, until it is over.
pub(crate) async fn call(pool: Pool<Any>, dialect: Dialect, ledger: Arc<Ledger>) {
    while !ledger.is_over() {
        let since = Instant::now();
        let impatient = fastrand::u8(..8) == 0;
        let patience = if impatient { MS * fastrand::u32(..20) } else { MS * 8_000 };
        let acquire = pool.acquire().timeout(patience).label("caller");
        let acquired = match fastrand::u8(..10) {
            0 => cancel_after(fastrand::u64(..4), acquire).await,
            1 => timeout(MS * 20, cancel_when_woken(1, acquire)).await.ok().flatten(),
            _ => Some(acquire.await),
        };
        let outcome = match acquired {
            None => {
                ledger.given_up.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Some(Ok(conn)) => use_connection(conn, dialect, &ledger).await,
            Some(Err(error)) => Err(error),
        };
        match outcome {
            Ok(()) => drop(ledger.done.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                ledger.failed(since, impatient, &error);
                sleep(MS * 5).await;
            }
        }
    }
}

async fn use_connection(
    mut conn: PooledConnection<Any>,
    dialect: Dialect,
    ledger: &Ledger,
) -> Result<()> {
    echo(&mut conn, dialect, ledger).await?;
    match fastrand::u8(..12) {
        0..4 => transfer(&mut conn).await?,
        4 => {
            let slow = conn.query(dialect.slow(), &[]);
            let _ = timeout(MS * fastrand::u32(..10), slow).await;
        }
        5 => {
            let sql = "SELECT a.id FROM account a, account b";
            let mut rows = pin!(conn.query_stream(sql, &[]));
            for _ in 0..fastrand::u32(..100) {
                if let Some(row) = rows.next().await {
                    row?;
                }
            }
        }
        6 => {
            let mut transaction = conn.begin().await?;
            let sql = "UPDATE account SET balance = 0 WHERE id = $1";
            transaction.execute(sql, &params![fastrand::i64(..ACCOUNTS)]).await?;
            // Dropped: it never happened.
        }
        7 => {
            let begun = cancel_after(fastrand::u64(..6), conn.begin()).await;
            drop(begun.transpose()?);
        }
        8 => {
            let panicked = catch_unwind(AssertUnwindSafe(move || {
                let _conn = conn;
                resume_unwind(Box::new("a caller"));
            }));
            drop(panicked);
            return Ok(());
        }
        9 => conn.discard(),
        10 => sleep(MS * fastrand::u32(..30)).await,
        _ => {
            let token = fastrand::u64(..).to_string();
            cancel_after(fastrand::u64(..5), conn.query(dialect.echo(), &params![token])).await;
        }
    }
    Ok(())
}

async fn echo(conn: &mut PooledConnection<Any>, dialect: Dialect, ledger: &Ledger) -> Result<()> {
    let token = fastrand::u64(..).to_string();
    let rows = conn.query(dialect.echo(), &params![token.clone()]).await?;
    let answer = rows.scalar::<String>()?;
    if answer != token {
        ledger.fault(format!("asked for {token}, it got somebody else's answer: {answer}"));
    }
    Ok(())
}

async fn transfer(conn: &mut PooledConnection<Any>) -> Result<()> {
    // In one order, so that transfers do not wait for each other in a circle.
    let mut accounts = [fastrand::i64(..ACCOUNTS), fastrand::i64(..ACCOUNTS)];
    accounts.sort_unstable();
    let amount = fastrand::i64(1..50);
    let mut transaction = conn.begin().await?;
    for (account, change) in accounts.into_iter().zip([amount, -amount]) {
        let sql = "UPDATE account SET balance = balance + $1 WHERE id = $2";
        transaction.execute(sql, &params![change, account]).await?;
    }
    transaction.commit().await
}
