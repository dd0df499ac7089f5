//! Moves money between accounts, 64 tasks at a time, while others watch the
//! sum: what an application does with a pool, on real data.
//!
//!     cargo run --example quickstart --features sqlite,tokio
//!     cargo run --example quickstart --features sqlite,smol -- sqlite://bank.db
//!     cargo run --example quickstart --features postgres,tokio -- postgres://user:password@localhost/bank
//!     cargo run --example quickstart --features mysql,async-std -- mysql://user:password@localhost/bank
//!
//! Takes the URL of a database, by default a SQLite file in a temporary folder.
//! It makes a table `account` there, in place of one that may be there already.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::try_join_all;
use millpond::drivers::Any;
use millpond::runtime::{self, Runtime};
use millpond::{Driver, Error, Pool, Result, params};

const ACCOUNTS: i64 = 100;
const OPENING_BALANCE: i64 = 1_000;
const TASKS: u64 = 64;
const TRANSFERS_EACH: u64 = 50;
const WATCHERS: u64 = 4;

fn main() -> ExitCode {
    let url = std::env::args().nth(1).unwrap_or_else(temporary_database);
    match runtime::block_on(run(&url)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut said = error.to_string();
            eprintln!("quickstart: {said}");
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                // Most errors say what their cause says.
                if !said.contains(&error.to_string()) {
                    said = error.to_string();
                    eprintln!("  because: {said}");
                }
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(url: &str) -> Result<()> {
    let pool = millpond::connect(url).await?;
    create_accounts(&pool).await?;
    let here = runtime::current().expect("block_on runs on one");
    println!("{TASKS} tasks move money between {ACCOUNTS} accounts, {WATCHERS} watch the sum");

    let progress = Arc::new(Progress::default());
    let start = here.now();
    let watchers =
        (0..WATCHERS).map(|_| task(&*here, watch_sum(pool.clone(), Arc::clone(&progress))));
    let reporter = task(&*here, report(Arc::clone(&here), Arc::clone(&progress), start));
    let movers =
        (0..TASKS).map(|seed| task(&*here, move_money(pool.clone(), Arc::clone(&progress), seed)));
    // Started together; the watchers and the reporter end when the movers have.
    let (watchers, movers): (Vec<_>, Vec<_>) = (watchers.collect(), movers.collect());
    let moved = try_join_all(movers).await;
    let elapsed = here.now() - start;
    progress.done.store(true, Ordering::Relaxed);
    try_join_all(watchers).await?;
    reporter.await;
    moved?;

    let sum = sum(&pool).await?;
    let transfers = progress.transfers.load(Ordering::Relaxed);
    println!(
        "\n{transfers} transfers in {elapsed:.2?}: {:.0} a second; the sum was read {} times",
        transfers as f64 / elapsed.as_secs_f64(),
        progress.reads.load(Ordering::Relaxed),
    );
    println!("sum of all balances: {sum}, unchanged\n\n{:#}\n", pool.snapshot());
    println!("{}", pool.close().await);
    Ok(())
}

async fn create_accounts(pool: &Pool<Any>) -> Result<()> {
    pool.batch(
        "DROP TABLE IF EXISTS account;
         CREATE TABLE account (id INTEGER PRIMARY KEY, balance BIGINT NOT NULL)",
    )
    .await?;
    let mut tx = pool.begin().await?;
    let insert = marked(pool, "INSERT INTO account VALUES (?, ?)");
    for id in 0..ACCOUNTS {
        tx.execute(&insert, &params![id, OPENING_BALANCE]).await?;
    }
    tx.commit().await
}

/// Many small transactions, each of which takes from one account and gives to
/// another.
async fn move_money(pool: Pool<Any>, progress: Arc<Progress>, seed: u64) -> Result<()> {
    let update = marked(&pool, "UPDATE account SET balance = balance + ? WHERE id = ?");
    let mut random = seed;
    for _ in 0..TRANSFERS_EACH {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let [from, to, amount] = [33, 43, 53].map(|bits| (random >> bits) as i64);
        let amount = amount % 50;
        // Everybody locks rows in the same order: else two transfers that go
        // opposite ways wait for each other.
        let mut changes = [(from % ACCOUNTS, -amount), (to % ACCOUNTS, amount)];
        changes.sort_unstable();
        let mut tx = pool.begin().await?;
        for (account, change) in changes {
            tx.execute(&update, &params![change, account]).await?;
        }
        tx.commit().await?;
        progress.transfers.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Reads the sum over and over: no reader may ever see money on its way.
async fn watch_sum(pool: Pool<Any>, progress: Arc<Progress>) -> Result<()> {
    let here = runtime::current().expect("block_on runs on one");
    while !progress.done.load(Ordering::Relaxed) {
        sum(&pool).await?;
        progress.reads.fetch_add(1, Ordering::Relaxed);
        here.sleep_until(here.now() + Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn sum(pool: &Pool<Any>) -> Result<i64> {
    // Added up here, because the databases do not agree on the type of SUM.
    let rows = pool.query("SELECT balance FROM account", &[]).await?;
    let mut sum = 0;
    for row in rows {
        sum += row.get::<i64>("balance")?;
    }
    let expected = ACCOUNTS * OPENING_BALANCE;
    if sum == expected {
        Ok(sum)
    } else {
        Err(Error::statement(format!("the sum is {sum}, and was {expected}")))
    }
}

/// A statement with the marks of the database for its parameters: PostgreSQL
/// numbers them.
fn marked(pool: &Pool<Any>, sql: &str) -> String {
    if pool.driver().name() != "postgresql" {
        return sql.to_owned();
    }
    let mut parts = sql.split('?');
    let first = parts.next().expect("split yields one at least").to_owned();
    parts.zip(1..).fold(first, |sql, (part, number)| sql + &format!("${number}") + part)
}

/// Says every half second how far it has come.
async fn report(here: Arc<dyn Runtime>, progress: Arc<Progress>, start: Instant) {
    let mut next = start;
    while !progress.done.load(Ordering::Relaxed) {
        let transfers = progress.transfers.load(Ordering::Relaxed);
        let percent = 100 * transfers / (TASKS * TRANSFERS_EACH);
        println!("{:>6.1?}  {transfers:>5} transfers, {percent:>3} %", next - start);
        next += Duration::from_millis(500);
        while !progress.done.load(Ordering::Relaxed) && here.now() < next {
            here.sleep_until(here.now() + Duration::from_millis(20)).await;
        }
    }
}

#[derive(Default)]
struct Progress {
    transfers: AtomicU64,
    reads: AtomicU64,
    done: AtomicBool,
}

/// Starts a task on the runtime; the future returned is its result.
fn task<T: Send + 'static>(
    here: &dyn Runtime,
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> {
    let (work, result) = work.remote_handle();
    here.spawn(Box::pin(work));
    result
}

fn temporary_database() -> String {
    let name = format!("millpond-quickstart-{}.db", std::process::id());
    let path = std::env::temp_dir().join(name);
    println!("no URL given: using the SQLite file {}", path.display());
    format!("sqlite://{}", path.display())
}
