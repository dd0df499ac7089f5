//! The storm: thousands of futures and guards dropped at random points, and what
//! must still be true afterwards.
//!
//! Owns what is dropped and how. Knows no database: [`Sea`] gives the few
//! statements that differ, and what can be seen at the server.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{FutureExt, join_all};
use millpond::runtime::{BoxFuture, Runtime, current};
use millpond::testing::cancel::cancel_after;
use millpond::{Driver, Pool, PooledConnection, Result, params};

const CALLERS: u64 = 8;
const ROUNDS: u64 = 300;
/// Fewer than callers, so that what one drops is what another gets.
pub(crate) const CONNECTIONS: usize = 4;
/// How long a statement that nobody awaits may go on at the server.
const CALM: Duration = Duration::from_secs(1);

/// A database to storm over.
pub(crate) trait Sea: Send + Sync + 'static {
    type Driver: Driver;

    /// Answers `own 7` to the parameter 7.
    const ECHO: &'static str;
    /// Inserts its parameter into the table `half`.
    const INSERT: &'static str = "INSERT INTO half VALUES (?)";
    /// Takes a few milliseconds.
    const SLOW: &'static str;
    /// Has thousands of rows.
    const MANY: &'static str;

    /// Uses the client behind the connection, and drops what it began there.
    fn native<'a>(
        &'a self,
        conn: &'a mut PooledConnection<Self::Driver>,
        random: &'a mut Random,
    ) -> BoxFuture<'a, ()>;

    /// Statements of ours that run at the server.
    fn running(&self) -> usize;

    /// Transactions that are open at the server.
    fn transactions(&self) -> usize;

    /// Sessions that the server holds for us.
    fn sessions(&self) -> usize;
}

/// Storms over a new database.
///
/// # Panics
///
/// When a connection or a slot is lost, somebody gets another's rows, a
/// transaction is torn or left open, a statement goes on, or a session stays.
pub(crate) async fn storm<S: Sea>(sea: S, pool: Pool<S::Driver>) {
    let (sea, here) = (Arc::new(sea), current().expect("inside block_on"));
    pool.batch("CREATE TABLE half (pair INTEGER)").await.unwrap();
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let caller = Caller { sea: Arc::clone(&sea), pool: pool.clone(), number };
            let (task, done) = caller.drop_everything().remote_handle();
            here.spawn(Box::pin(task));
            done
        })
        .collect();
    join_all(callers).await;

    until(&*here, CALM, "statements that nobody awaits go on", || sea.running() == 0).await;
    until(&*here, CALM, "a transaction was left open", || sea.transactions() == 0).await;
    let held = join_all((0..CONNECTIONS).map(|_| pool.acquire())).await;
    assert!(held.iter().all(Result::is_ok), "a slot was lost");
    drop(held);
    let torn = "SELECT count(*) FROM (SELECT pair FROM half GROUP BY pair HAVING count(*) <> 2) t";
    let rows = pool.query(torn, &[]).await.unwrap();
    assert_eq!(rows.scalar::<i64>().unwrap(), 0, "transactions were torn");
    let report = pool.close().await;
    assert!(report.is_complete(), "{report}");
    let now = pool.snapshot();
    assert_eq!((now.open, now.in_use, now.opening, now.waiting), (0, 0, 0, 0), "{now}");
    assert_eq!((now.acquired, now.created), (now.released, now.closed), "{now}");
    until(&*here, CALM * 5, "a session stays at the server", || sea.sessions() == 0).await;
}

struct Caller<S: Sea> {
    sea: Arc<S>,
    pool: Pool<S::Driver>,
    number: u64,
}

impl<S: Sea> Caller<S> {
    async fn drop_everything(self) {
        let mut random = Random(self.number + 1);
        for round in 0..ROUNDS {
            let own = (self.number * ROUNDS + round) as i64;
            self.drop_something(own, &mut random).await;
            let rows = self.pool.query(S::ECHO, &params![own]).await.unwrap();
            assert_eq!(rows.scalar::<String>().unwrap(), format!("own {own}"), "another's row");
        }
    }

    async fn drop_something(&self, own: i64, random: &mut Random) {
        let pool = &self.pool;
        let polls = random.below(8);
        match random.below(12) {
            0 => drop(cancel_after(polls, pool.query(S::SLOW, &[])).await),
            1 => drop(cancel_after(polls, pool.query(S::ECHO, &params![-1])).await),
            2 => drop(cancel_after(polls, pool.begin()).await),
            3 => drop(cancel_after(polls, self.write_pair(own)).await),
            4 => {
                let commit = async { self.written_pair(own).await?.commit().await };
                let mut transaction = pin!(commit);
                drop(cancel_after(polls + random.below(20), transaction.as_mut()).await);
            }
            5 => {
                let mut rows = pin!(pool.query_stream(S::MANY, &[]));
                let read = random.below(2000);
                let reading = async { rows.by_ref().take(read as usize).count().await };
                let _ = cancel_after(polls * 20, reading).await;
            }
            // The borrower panics, with a statement in flight or a transaction open.
            6 => {
                let panicking = async {
                    let mut conn = pool.acquire().await.unwrap();
                    drop(cancel_after(polls, conn.query(S::SLOW, &[])).await);
                    resume_unwind(Box::new("a borrower panics"));
                };
                AssertUnwindSafe(panicking).catch_unwind().await.unwrap_err();
            }
            7 => {
                let panicking = async {
                    let _transaction = self.written_pair(own).await.unwrap();
                    resume_unwind(Box::new("a borrower panics"));
                };
                AssertUnwindSafe(panicking).catch_unwind().await.unwrap_err();
            }
            // The guard is dropped where there is no runtime.
            8 => {
                let mut conn = pool.acquire().await.unwrap();
                drop(cancel_after(polls, conn.query(S::SLOW, &[])).await);
                elsewhere(conn);
            }
            9 => elsewhere(self.written_pair(own).await.unwrap()),
            // The same borrower goes on, through the pool's connection or natively.
            10 => {
                let mut conn = pool.acquire().await.unwrap();
                drop(cancel_after(polls, conn.query(S::SLOW, &[])).await);
                self.sea.native(&mut conn, random).await;
            }
            _ => {
                let mut conn = pool.acquire().await.unwrap();
                self.sea.native(&mut conn, random).await;
                // Its own rows, or an error: never another answer.
                if let Ok(rows) = conn.query(S::ECHO, &params![own]).await {
                    let answer = rows.scalar::<String>().unwrap();
                    assert_eq!(answer, format!("own {own}"), "another's row");
                }
            }
        }
    }

    /// Writes two rows of one pair, or none.
    async fn write_pair(&self, pair: i64) -> Result<()> {
        self.written_pair(pair).await?.commit().await
    }

    async fn written_pair(&self, pair: i64) -> Result<millpond::Transaction<'_, S::Driver>> {
        let mut transaction = self.pool.begin().await?;
        transaction.execute(S::INSERT, &params![pair]).await?;
        transaction.execute(S::INSERT, &params![pair]).await?;
        Ok(transaction)
    }
}

/// Numbers by chance, the same ones in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// Drops a value on a thread that has no runtime.
fn elsewhere(value: impl Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| drop(value));
    });
}

/// Asks until it is so.
async fn until(here: &dyn Runtime, limit: Duration, otherwise: &str, so: impl Fn() -> bool) {
    let end = here.now() + limit;
    while !so() {
        assert!(here.now() < end, "{otherwise}");
        here.sleep_until(here.now() + Duration::from_millis(5)).await;
    }
}
