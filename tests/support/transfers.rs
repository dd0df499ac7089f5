//! Money moved between a few accounts by many tasks, so that they get in each
//! other's way, and what must be true when all is done.
//!
//! Knows no database; the marks of its parameters are given.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::{FutureExt, join_all};
use millpond::retry::Budget;
use millpond::{
    Driver, Error, IsolationLevel, Outcome, Pool, Result, Retry, TransactionOptions, params,
};

const TASKS: i64 = 16;
const TRANSFERS_EACH: i64 = 30;
const ACCOUNTS: i64 = 8;
const BALANCE: i64 = 1000;

/// What was done for it.
#[derive(Debug, Default)]
struct Tally {
    /// Transactions asked for.
    requests: AtomicU64,
    /// Times that one was begun.
    attempts: AtomicU64,
    /// Transactions that were given up, and asked for again.
    given_up: AtomicU64,
}

/// Moves money on this pool; `mark` gives the mark of parameter 1, 2, ….
///
/// # Panics
///
/// When a transfer is lost or made twice, money appears or goes, nothing ever
/// conflicts, or more is tried than the budget allows.
pub(crate) async fn move_money<D: Driver>(pool: Pool<D>, mark: fn(usize) -> String) {
    pool.batch(
        "DROP TABLE IF EXISTS account; DROP TABLE IF EXISTS journal;
         CREATE TABLE account (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
         CREATE TABLE journal (transfer BIGINT PRIMARY KEY)",
    )
    .await
    .unwrap();
    let insert = format!("INSERT INTO account VALUES ({}, {})", mark(1), mark(2));
    for id in 0..ACCOUNTS {
        pool.execute(&insert, &params![id, BALANCE]).await.unwrap();
    }
    let here = millpond::runtime::current().expect("inside block_on");
    let (tally, start) = (Arc::new(Tally::default()), here.now());
    let policy = Retry::new().max_attempts(20).budget(Budget::new());
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (pool, policy, tally) = (pool.clone(), policy.clone(), Arc::clone(&tally));
            let work = async move {
                for number in 0..TRANSFERS_EACH {
                    let transfer = task * TRANSFERS_EACH + number;
                    while let Err(error) = make(&pool, &policy, &tally, mark, transfer).await {
                        assert_ne!(error.outcome(), Outcome::Unknown, "{error:?}");
                        tally.given_up.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            let (work, done) = work.remote_handle();
            here.spawn(Box::pin(work));
            done
        })
        .collect();
    join_all(tasks).await;

    let made = pool.query("SELECT transfer FROM journal ORDER BY transfer", &[]).await.unwrap();
    let made: Vec<i64> = made.into_iter().map(|row| row.get(0).unwrap()).collect();
    assert_eq!(made, (0..TASKS * TRANSFERS_EACH).collect::<Vec<_>>());
    let balances = pool.query("SELECT balance FROM account", &[]).await.unwrap();
    let sum: i64 = balances.into_iter().map(|row| row.get::<i64>(0).unwrap()).sum();
    assert_eq!(sum, ACCOUNTS * BALANCE, "money appeared or went");

    let [requests, attempts] =
        [&tally.requests, &tally.attempts].map(|count| count.load(Ordering::Relaxed));
    let retries = attempts - requests;
    let successes = (TASKS * TRANSFERS_EACH) as u64;
    let allowed = 10 + successes / 10 + (here.now() - start).as_secs() + 1;
    println!("{requests} transactions, {retries} retries of {allowed} allowed, {tally:?}");
    assert!(retries > 0, "nothing conflicted");
    assert!(retries <= allowed, "{retries} retries of {allowed} allowed");
}

/// One transfer. One in four reads first what it changes, and all lock the
/// accounts in their own order.
async fn make<D: Driver>(
    pool: &Pool<D>,
    policy: &Retry,
    tally: &Tally,
    mark: fn(usize) -> String,
    transfer: i64,
) -> Result<()> {
    tally.requests.fetch_add(1, Ordering::Relaxed);
    let mut begun = 0;
    let note = format!("INSERT INTO journal VALUES ({})", mark(1));
    let update =
        format!("UPDATE account SET balance = balance + {} WHERE id = {}", mark(1), mark(2));
    let read = format!("SELECT balance FROM account WHERE id = {}", mark(1));
    let reads = transfer % 4 == 0;
    let from = transfer % ACCOUNTS;
    let to = (from + 1 + transfer / ACCOUNTS % (ACCOUNTS - 1)) % ACCOUNTS;
    let level = match reads {
        true => TransactionOptions::new().isolation(IsolationLevel::Serializable),
        false => TransactionOptions::new(),
    };
    let made = pool
        .transaction(policy, |tx| {
            begun += 1;
            let (note, update, read) = (&note, &update, &read);
            Box::pin(async move {
                tx.execute(note, &params![transfer]).await?;
                for (account, change) in [(from, -1), (to, 1)] {
                    if reads {
                        tx.query(read, &params![account]).await?;
                    }
                    tx.execute(update, &params![change, account]).await?;
                }
                Ok::<_, Error>(())
            })
        })
        .options(level)
        .await;
    tally.attempts.fetch_add(begun, Ordering::Relaxed);
    made
}
