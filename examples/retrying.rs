//! Two tasks read a counter and write it back, raised by one: a transaction that
//! conflicts with the other's, and is repeated until it does not. On SQLite it
//! conflicts when it begins, before any work: one that writes excludes others.
//!
//!     cargo run --example retrying --features sqlite,tokio
//!     cargo run --example retrying --features postgres,tokio -- postgres://user:password@localhost/shop
//!
//! Takes the URL of a database, by default a SQLite file in a temporary folder.
//! It makes a table `counter` there, in place of one that may be there already.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::try_join;
use millpond::drivers::Any;
use millpond::{Driver, Error, IsolationLevel, Pool, Result, Retry, TransactionOptions, runtime};

const EACH: i64 = 50;

fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(temporary_database);
    runtime::block_on(run(&url))
}

async fn run(url: &str) -> Result<()> {
    let pool = millpond::connect(url).await?;
    pool.batch(
        "DROP TABLE IF EXISTS counter;
         CREATE TABLE counter (n BIGINT NOT NULL);
         INSERT INTO counter VALUES (0)",
    )
    .await?;
    // Conflicts are what is shown here, so no budget stops their repetition.
    let policy = Retry::new().max_attempts(50).budget(None);
    let attempts = AtomicU64::new(0);
    try_join(count(&pool, &policy, &attempts), count(&pool, &policy, &attempts)).await?;

    let counter = pool.query("SELECT n FROM counter", &[]).await?.scalar::<i64>()?;
    println!("counter: {counter}, the work was begun {} times", attempts.into_inner());

    // What the application itself refuses is rolled back and not repeated.
    let refused = pool
        .transaction(&policy, |tx| {
            Box::pin(async {
                tx.execute("UPDATE counter SET n = n - 1000", &[]).await?;
                let left: i64 = tx.query("SELECT n FROM counter", &[]).await?.scalar()?;
                if left < 0 { Err(Error::aborted(format!("{} short", -left))) } else { Ok(left) }
            })
        })
        .await;
    println!("refused: {}", refused.expect_err("there is not so much"));
    Ok(())
}

/// Raises the counter, one at a time.
async fn count(pool: &Pool<Any>, policy: &Retry, attempts: &AtomicU64) -> Result<()> {
    let here = runtime::current().expect("block_on runs on one");
    // SQLite knows no other level.
    let level = match pool.driver().name() {
        "sqlite" => TransactionOptions::new(),
        _ => TransactionOptions::new().isolation(IsolationLevel::Serializable),
    };
    for _ in 0..EACH {
        pool.transaction(policy, |tx| {
            attempts.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                let n: i64 = tx.query("SELECT n FROM counter", &[]).await?.scalar()?;
                // The other one reads the same now.
                here.sleep_until(here.now() + Duration::from_millis(1)).await;
                tx.execute(&format!("UPDATE counter SET n = {}", n + 1), &[]).await
            })
        })
        .options(level.clone())
        .await?;
    }
    Ok(())
}

fn temporary_database() -> String {
    let name = format!("millpond-retrying-{}.db", std::process::id());
    format!("sqlite://{}?busy_timeout=0ms", std::env::temp_dir().join(name).display())
}
