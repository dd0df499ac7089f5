//! The storm: tasks that ask, give up at random points, ask again, and compare.
//!
//! Owns what is dropped and when, and what is counted. Knows no pool: [`Pool`]
//! is what each gives.

use std::error;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// Connections of every pool, and twice as many tasks.
pub(crate) const SIZE: usize = 4;
const TASKS: usize = 2 * SIZE;

/// Longer than any answer takes of a pool that works. A task that has waited so
/// long in vain counts an error and ends.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) type Failure = Box<dyn error::Error + Send + Sync>;

/// A pool under the storm.
pub(crate) trait Pool: Clone + Send + Sync + 'static {
    /// A borrowed connection; dropping it gives it back.
    type Connection: Send;

    fn acquire(&self) -> impl Future<Output = Result<Self::Connection, Failure>> + Send;

    /// The text that a statement answers with.
    fn ask(
        conn: &mut Self::Connection,
        sql: &str,
    ) -> impl Future<Output = Result<String, Failure>> + Send;

    /// The same past the pool, on the client itself. The peers know no other way.
    fn ask_client(
        conn: &mut Self::Connection,
        sql: &str,
    ) -> impl Future<Output = Result<String, Failure>> + Send {
        Self::ask(conn, sql)
    }
}

/// How a statement is written that answers with a text, after so many seconds.
pub(crate) type Question = fn(&str, f64) -> String;

/// Who asks after a future was dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Next {
    /// The connection was given back with the drop: whoever borrows it next.
    Borrower,
    /// First the one who dropped it, on the same client, and then the next.
    Same,
}

/// What became of the questions of one kind of asker.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) asked: u64,
    pub(crate) dropped: u64,
    pub(crate) wrong: u64,
    pub(crate) errors: u64,
    /// An example.
    pub(crate) error: Option<String>,
}

impl Tally {
    fn count(&mut self, own: &str, answer: Option<Result<String, Failure>>) {
        self.asked += 1;
        match answer {
            None => self.dropped += 1,
            Some(Ok(text)) => self.wrong += u64::from(text != own),
            Some(Err(error)) => {
                self.errors += 1;
                self.error.get_or_insert_with(|| explain(&*error));
            }
        }
    }

    /// Counts what a patient asker got. Whether there was anything.
    fn hear(&mut self, own: &str, answer: Result<Result<String, Failure>, Elapsed>) -> bool {
        let heard = answer.is_ok();
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer in {PATIENCE:?}").into()));
        self.count(own, Some(answer));
        heard
    }

    fn add(&mut self, other: Self) {
        self.asked += other.asked;
        self.dropped += other.dropped;
        self.wrong += other.wrong;
        self.errors += other.errors;
        self.error = self.error.take().or(other.error);
    }
}

/// What a storm left.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Questions to a connection fresh from the pool.
    pub(crate) borrowed: Tally,
    /// Questions of whoever had dropped one just before.
    pub(crate) same: Tally,
}

/// Runs the storm. A seed repeats every choice, though not the server's timing.
pub(crate) async fn rage<P: Pool>(
    pool: &P,
    question: Question,
    next: Next,
    rounds: usize,
    seed: u64,
) -> Outcome {
    let tasks = (0..TASKS).map(|task| {
        let random = Rng::with_seed(seed.wrapping_mul(1_000) + task as u64);
        tokio::spawn(ask_and_drop(pool.clone(), question, next, rounds, task, random))
    });
    let mut outcome = Outcome::default();
    for end in join_all(tasks).await {
        let end = end.expect("a storm does not panic");
        outcome.borrowed.add(end.borrowed);
        outcome.same.add(end.same);
    }
    outcome
}

async fn ask_and_drop<P: Pool>(
    pool: P,
    question: Question,
    next: Next,
    rounds: usize,
    task: usize,
    mut random: Rng,
) -> Outcome {
    let mut outcome = Outcome::default();
    for round in 0..rounds {
        let seconds = if random.u8(..8) == 0 { 0.01 } else { 0.0 };
        let lost = format!("lost {task} {round}");
        let slow = question(&lost, seconds);
        match next {
            Next::Borrower => {
                let answer = drop_somewhere(&mut random, ask(&pool, &slow)).await;
                outcome.borrowed.count(&lost, answer);
            }
            Next::Same => {
                if let Ok(Ok(mut conn)) = timeout(PATIENCE, pool.acquire()).await {
                    let asking = P::ask_client(&mut conn, &slow);
                    let answer = drop_somewhere(&mut random, asking).await;
                    outcome.same.count(&lost, answer);
                    let own = format!("same {task} {round}");
                    let sql = question(&own, 0.0);
                    let answer = timeout(PATIENCE, P::ask_client(&mut conn, &sql)).await;
                    if !outcome.same.hear(&own, answer) {
                        break;
                    }
                }
            }
        }
        let own = format!("own {task} {round}");
        let answer = timeout(PATIENCE, ask(&pool, &question(&own, 0.0))).await;
        if !outcome.borrowed.hear(&own, answer) {
            break;
        }
    }
    outcome
}

/// Drops a long statement on every connection, so that what the server still
/// does afterwards can be counted.
///
/// One after the other: MariaDB, told in one moment to stop several sleepers,
/// gets round to some of them only after two seconds, whoever tells it.
pub(crate) async fn leave_behind<P: Pool>(pool: &P, question: Question, next: Next) {
    let conns = join_all((0..SIZE).map(|_| timeout(PATIENCE, pool.acquire()))).await;
    let conns = conns.into_iter().flatten().flatten();
    let moments = (1..).map(|n| Duration::from_millis(100) * n);
    let asked = conns.zip(moments).map(|(mut conn, moment)| async move {
        let sql = question("nobody reads this", 5.0);
        // An answer in that time is an error, of a connection long lost.
        let _ = match next {
            Next::Borrower => timeout(moment, P::ask(&mut conn, &sql)).await,
            Next::Same => timeout(moment, P::ask_client(&mut conn, &sql)).await,
        };
    });
    join_all(asked).await;
}

async fn ask<P: Pool>(pool: &P, sql: &str) -> Result<String, Failure> {
    let mut conn = pool.acquire().await?;
    P::ask(&mut conn, sql).await
}

/// Runs a future for a random number of polls or microseconds. tokio's timer
/// counts milliseconds, so the microseconds are spent polling.
async fn drop_somewhere<F: Future>(random: &mut Rng, future: F) -> Option<F::Output> {
    let (mut polls, mut time) = (u32::MAX, Duration::MAX);
    if random.bool() {
        polls = random.u32(1..5);
    } else {
        // As often some microseconds as some hundred.
        let most = 1 << random.u32(1..12);
        time = Duration::from_micros(random.u64(..most));
    }
    let start = Instant::now();
    let mut future = pin!(future);
    let mut polled = 0;
    let dropping = poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        polled += 1;
        if polled >= polls || start.elapsed() >= time {
            return Poll::Ready(None);
        }
        if time < Duration::MAX {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    });
    // Of a pool that stalls, nothing is polled again.
    timeout(PATIENCE, dropping).await.ok().flatten()
}

fn explain(error: &dyn error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}
