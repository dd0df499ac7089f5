//! How loans end: by a return, an abort, a panic, a word of the driver or of the
//! borrower. What is cleaned before the next borrower is in `cleaning.rs`.

use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_core::Stream;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, TryStreamExt, poll, stream};
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{
    Builder, ConnectContext, Driver, Error, Fate, Pool, PooledConnection, Reset, Result, Row, Rows,
    Session, Value,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of<D: Driver>(driver: D, sim: &Sim, max_open: usize) -> Builder<D> {
    Pool::builder(driver).max_open_conns(max_open).runtime(sim.clone())
}

async fn answer<D: Driver>(conn: &mut PooledConnection<D>, sql: &str) -> String {
    conn.query(sql, &[]).await.unwrap().scalar().unwrap()
}

/// Nothing is known of a session but that it answered: a statement refused in a
/// stream had the connection cancelled and closed.
#[test]
fn a_statement_refused_in_a_stream_costs_no_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.unverified();
        let pool = pool_of(fake.clone(), &sim, 1).build().await.unwrap();
        fake.next_queries([Act::reject()]);
        {
            let mut rows = pin!(pool.query_stream("nonsense", &[]));
            rows.next().await.expect("an item").unwrap_err();
        }
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), fake.counts().cancels), (1, 0));
    });
}

#[test]
fn a_stream_that_owns_its_connection_gives_it_back_at_its_end_or_half_way() {
    fn is_owned<T: Send + 'static>(whole: T) -> T {
        whole
    }
    Sim::new(1).run(async |sim| {
        let pool = pool_of(Fake::new(), &sim, 1).build().await.unwrap();
        for reads_on in [true, false] {
            let conn = pool.acquire().await.unwrap();
            let mut rows = pin!(is_owned(conn.into_stream("SELECT 1".into(), Vec::new())));
            let row = rows.next().await.expect("a row").unwrap();
            assert_eq!(row.get::<String>(0).unwrap(), "SELECT 1");
            assert_eq!(pool.snapshot().in_use, 1);
            if reads_on {
                assert!(rows.next().await.is_none());
                assert_eq!(pool.snapshot().idle, 1);
            }
        }
        assert_eq!(answer(&mut pool.acquire().await.unwrap(), "mine").await, "mine");
    });
}

// Aborts and panics.

#[test]
fn a_caller_aborted_with_two_connections_returns_both() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(fake.clone(), &sim, 2).build().await.unwrap();
        let work = async {
            let two = join_all([pool.acquire(), pool.acquire()]).await;
            assert!(two.iter().all(Result::is_ok));
            pending::<()>().await;
        };
        {
            let mut work = pin!(work);
            assert!(poll!(&mut work).is_pending());
            sim.sleep(MS).await;
            assert!(poll!(&mut work).is_pending());
            assert_eq!(pool.snapshot().in_use, 2);
        }
        assert_eq!((pool.snapshot().idle, fake.counts().opened), (2, 2));
    });
}

/// Rows that were collected cost nothing; a stream takes its connection along.
#[test]
fn a_panic_while_rows_are_read_costs_no_slot() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(fake.clone(), &sim, 1).build().await.unwrap();
        for (streams, id) in [(false, 1), (true, 2)] {
            let reader = sim.task({
                let pool = pool.clone();
                async move {
                    if streams {
                        let mut rows = pin!(pool.query_stream("mine", &[]));
                        panic!("reading {:?}", rows.next().await);
                    }
                    panic!("reading {:?}", pool.query("mine", &[]).await);
                }
            });
            AssertUnwindSafe(reader).catch_unwind().await.unwrap_err();
            let mut conn = pool.acquire().timeout(SECOND).await.unwrap();
            assert_eq!((conn.id(), answer(&mut conn, "mine").await), (id, "mine".to_owned()));
        }
        assert_eq!((fake.counts().live, fake.counts().peak_live), (1, 1));
    });
}

#[test]
fn after_a_dropped_batch_the_next_borrower_gets_its_own_answer() {
    for hides_state in [false, true] {
        for polls in 0..3 {
            Sim::new(polls).run(async |sim| {
                let fake = Fake::new();
                if hides_state {
                    fake.unverified();
                }
                let pool = pool_of(fake.clone(), &sim, 1).build().await.unwrap();
                fake.next_queries([Act::After(MS)]);
                cancel_after(polls, pool.batch("first; second")).await;
                let mut conn = pool.acquire().await.unwrap();
                assert_eq!(answer(&mut conn, "mine").await, "mine");
            });
        }
    }
}

// What the borrower says.

#[test]
fn a_fatal_error_told_by_the_borrower_closes_without_a_round_trip() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(fake.clone(), &sim, 1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        let before = fake.counts();
        conn.note_error(&Error::statement("out of sync").with_fate(Fate::Discard));
        drop(conn);
        sim.sleep(MS).await;
        let now = fake.counts();
        assert_eq!((now.live, now.goodbyes), (0, 1));
        assert_eq!(
            (now.pings, now.resets, now.queries),
            (before.pings, before.resets, before.queries)
        );
    });
}

// What the driver says.

/// A database whose sessions are what their borrower wrote into them, and whose
/// resets change nothing, yet succeed.
struct Written;

impl Driver for Written {
    type Connection = Session;

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<Session> {
        Ok(Session::Clean)
    }

    async fn ping(&self, _: &mut Session) -> Result<()> {
        Ok(())
    }

    async fn query(&self, _: &mut Session, sql: &str, _: &[Value]) -> Result<Rows> {
        Ok(Rows::one("echo", sql))
    }

    fn session(&self, conn: &Session) -> Session {
        *conn
    }

    async fn reset(&self, _: &mut Session, _: Reset) -> Result<()> {
        Ok(())
    }
}

#[test]
fn a_connection_that_its_driver_calls_closed_is_never_idle() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(Written, &sim, 1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        *conn = Session::Closed;
        drop(conn);
        assert_eq!(pool.snapshot().idle, 0);
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().open, pool.snapshot().closed), (0, 1));

        let mut conn = pool.acquire().await.unwrap();
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        *conn = Session::Closed;
        drop(conn);
        assert_eq!((waiter.await.unwrap().id(), sim.elapsed()), (3, MS));
    });
}

#[test]
fn a_reset_that_leaves_a_transaction_open_is_not_believed() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(Written, &sim, 1).build().await.unwrap();
        for (id, left) in [
            (1, Session::InTransaction),
            (2, Session::FailedTransaction),
            (3, Session::Busy),
            (4, Session::Clean),
        ] {
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), *conn), (id, Session::Clean));
            *conn = left;
        }
        assert_eq!(pool.acquire().await.unwrap().id(), 4);
    });
}

#[test]
fn a_waiter_gets_another_connection_when_the_one_given_back_fails_its_reset() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::reject());
        let pool = pool_of(fake.clone(), &sim, 1).build().await.unwrap();
        let soiled = pool.begin().await.unwrap();
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        drop(soiled);
        let mut conn = waiter.await.unwrap();
        assert_eq!((conn.id(), answer(&mut conn, "mine").await), (2, "mine".to_owned()));
        assert_eq!((sim.elapsed(), fake.counts().peak_live), (Duration::ZERO, 1));
    });
}

/// However a connection is proved and cleaned, it goes round.
#[test]
fn each_way_of_recycling_serves_twenty_times_running() {
    for reset in [Reset::Boundary, Reset::Session] {
        for check_after_idle in [Duration::ZERO, SECOND] {
            for hides_state in [false, true] {
                Sim::new(1).run(async |sim| {
                    let fake = Fake::new();
                    if hides_state {
                        fake.unverified();
                    }
                    let pool = pool_of(fake.clone(), &sim, 1)
                        .reset(reset)
                        .check_after_idle(check_after_idle)
                        .build()
                        .await
                        .unwrap();
                    for round in 0..20 {
                        let mut conn = pool.acquire().await.unwrap();
                        assert_eq!(answer(&mut conn, "mine").await, "mine");
                        assert!(reset == Reset::Boundary || conn.settings().is_empty());
                        assert_eq!(fake.counts().opened, 1, "round {round}");
                        conn.query("SET role", &[]).await.unwrap();
                        conn.query("BEGIN", &[]).await.unwrap();
                    }
                });
            }
        }
    }
}

/// A database that answers with so many rows and then, if it is to, with an end
/// of the connection.
struct Answers {
    rows: usize,
    breaks: bool,
}

impl Answers {
    fn rows(&self) -> Rows {
        let one = Rows::one("n", 1_i64);
        Rows::new(one.columns().clone(), one.iter().cloned().cycle().take(self.rows).collect())
    }
}

impl Driver for Answers {
    type Connection = ();

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<()> {
        Ok(())
    }

    async fn ping(&self, (): &mut ()) -> Result<()> {
        Ok(())
    }

    async fn query(&self, (): &mut (), _: &str, _: &[Value]) -> Result<Rows> {
        Ok(self.rows())
    }

    fn query_stream<'a>(
        &'a self,
        (): &'a mut (),
        _: &'a str,
        _: &'a [Value],
    ) -> impl Stream<Item = Result<Row>> + Send + 'a {
        let end = self.breaks.then(|| Err(Error::lost("connection reset by peer")));
        stream::iter(self.rows()).map(Ok).chain(stream::iter(end))
    }

    fn session(&self, (): &()) -> Session {
        Session::Clean
    }
}

#[test]
fn a_stream_that_ends_with_the_loss_of_its_connection_closes_it() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(Answers { rows: 2, breaks: true }, &sim, 1).build().await.unwrap();
        for round in 0..10 {
            let (rows, end) = if round % 2 == 0 {
                read(pool.query_stream("any", &[])).await
            } else {
                read(pool.acquire().await.unwrap().query_stream("any", &[])).await
            };
            assert_eq!((rows, end.unwrap().message()), (2, "connection reset by peer"));
        }
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().created, pool.snapshot().closed), (10, 10));
    });
}

/// How many rows there are, and the error after them.
async fn read(rows: impl Stream<Item = Result<Row>>) -> (usize, Option<Error>) {
    let mut rows = pin!(rows);
    let mut count = 0;
    loop {
        match rows.try_next().await {
            Ok(Some(_)) => count += 1,
            Ok(None) => return (count, None),
            Err(error) => return (count, Some(error)),
        }
    }
}

#[test]
fn an_answer_without_rows_keeps_its_connection() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(Answers { rows: 0, breaks: false }, &sim, 1).build().await.unwrap();
        for _ in 0..3 {
            let mut conn = pool.acquire().await.unwrap();
            let rows = conn.query("SELECT", &[]).await.unwrap();
            conn.note_error(&rows.scalar::<i64>().unwrap_err());
            assert_eq!((rows.len(), conn.id()), (0, 1));
        }
        assert_eq!((pool.snapshot().idle, pool.snapshot().closed), (1, 0));
    });
}
