//! What a borrower leaves behind, and that the next one never meets it:
//! transactions, statements in flight, settings, panics, drivers that cannot
//! tell or fail to clean.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{
    Builder, ConnectContext, Driver, Error, Fate, Pool, PooledConnection, Reset, Result, Rows,
    Session, Value,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A pool in which the next borrower can only get what the last one had.
fn one(fake: &Fake, sim: &Sim) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(1).runtime(sim.clone())
}

/// Borrows and returns the rows of a statement of one's own.
async fn assert_own_answer(pool: &Pool<Fake>) {
    let mut conn = pool.acquire().await.unwrap();
    assert_eq!(answer(&mut conn, "mine").await, "mine");
}

async fn answer<D: Driver>(conn: &mut PooledConnection<D>, sql: &str) -> String {
    conn.query(sql, &[]).await.unwrap().scalar().unwrap()
}

// Transactions.

#[test]
fn a_transaction_left_open_is_rolled_back_before_the_next_borrower() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.query("BEGIN", &[]).await.unwrap();
        drop(conn);
        let conn = pool.acquire().await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::Clean);
        assert_eq!((conn.id(), fake.counts().resets), (1, 1));
    });
}

#[test]
fn a_failed_transaction_is_rolled_back_before_the_next_borrower() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.native_query("BEGIN").await.unwrap();
        fake.next_queries([Act::reject()]);
        conn.native_query("no such table").await.unwrap_err();
        assert_eq!(pool.driver().session(&conn), Session::FailedTransaction);
        drop(conn);
        let conn = pool.acquire().await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::Clean);
        assert_eq!((conn.id(), fake.counts().resets), (1, 1));
    });
}

#[test]
fn a_clean_connection_is_lent_again_without_a_round_trip() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        for _ in 0..10 {
            assert_own_answer(&pool).await;
        }
        let counts = fake.counts();
        assert_eq!((counts.opened, counts.pings, counts.resets), (1, 1, 0));
    });
}

// Statements in flight.

#[test]
fn after_a_dropped_query_the_next_borrower_gets_its_own_answer() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Hang]);
        assert!(cancel_after(1, conn.query("yours", &[])).await.is_none());
        drop(conn);
        assert_own_answer(&pool).await;
        assert_eq!((fake.counts().cancels, fake.counts().opened), (1, 1));
    });
}

#[test]
fn after_a_dropped_native_query_the_next_borrower_gets_its_own_answer() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Hang]);
        assert!(cancel_after(1, conn.native_query("yours")).await.is_none());
        drop(conn);
        assert_own_answer(&pool).await;
        assert_eq!((fake.counts().cancels, fake.counts().opened), (1, 1));
    });
}

#[test]
fn a_query_dropped_unpolled_leaves_nothing_to_clean() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        drop(conn.query("yours", &[]));
        drop(conn);
        assert_eq!(pool.snapshot().idle, 1);
        assert_eq!((fake.counts().queries, fake.counts().cancels), (0, 0));
    });
}

#[test]
fn after_a_stream_dropped_half_way_the_next_borrower_gets_its_own_answer() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Hang]);
        {
            let mut rows = Box::pin(conn.query_stream("yours", &[]));
            assert!(cancel_after(1, rows.next()).await.is_none());
        }
        drop(conn);
        assert_own_answer(&pool).await;
        assert_eq!((fake.counts().cancels, fake.counts().opened), (1, 1));
    });
}

/// The row has come, the end has not: a driver that cannot look might have
/// more on the wire.
#[test]
fn a_stream_not_read_to_its_end_is_in_flight() {
    Sim::new(1).run(async |sim| {
        for (read_to_the_end, opened) in [(true, 1), (false, 2)] {
            let fake = Fake::new();
            let pool = one(fake.unverified(), &sim).build().await.unwrap();
            let mut conn = pool.acquire().await.unwrap();
            {
                let mut rows = Box::pin(conn.query_stream("yours", &[]));
                rows.next().await.unwrap().unwrap();
                if read_to_the_end {
                    assert!(rows.next().await.is_none());
                }
            }
            drop(conn);
            assert_own_answer(&pool).await;
            assert_eq!(fake.counts().opened, opened);
        }
    });
}

/// The borrower reads the dropped statement's answer as its own; the answer to
/// its last statement is then the one left over.
#[test]
fn what_a_borrower_does_natively_after_a_dropped_query_is_cleaned_too() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Hang]);
        assert!(cancel_after(1, conn.query("yours", &[])).await.is_none());
        assert_eq!(conn.native_query("more").await.unwrap(), "yours");
        drop(conn);
        assert_own_answer(&pool).await;
        assert_eq!((fake.counts().cancels, fake.counts().opened), (1, 1));
    });
}

// Resets that do not work.

#[test]
fn a_reset_that_fails_closes_the_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::reject());
        let pool = one(&fake, &sim).build().await.unwrap();
        drop(pool.begin().await.unwrap());
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, Duration::ZERO));
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (1, 1));
    });
}

#[test]
fn a_reset_that_hangs_is_given_up_at_its_timeout() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::Hang);
        let pool = one(&fake, &sim).reset_timeout(SECOND * 3).build().await.unwrap();
        drop(pool.begin().await.unwrap());
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, SECOND * 3));
        assert_eq!(fake.counts().live, 1);
    });
}

/// Each step had the whole of it.
#[test]
fn the_reset_and_the_hooks_after_it_have_one_timeout_together() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::After(SECOND * 2));
        let pool = one(&fake, &sim)
            .reset_timeout(SECOND * 3)
            .after_release(|_| Box::pin(std::future::pending()))
            .build()
            .await
            .unwrap();
        drop(pool.begin().await.unwrap());
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, SECOND * 3));
    });
}

#[test]
fn a_reset_that_panics_closes_the_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::Panic);
        let pool = one(&fake, &sim).build().await.unwrap();
        drop(pool.begin().await.unwrap());
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, Duration::ZERO));
        assert_eq!(fake.counts().live, 1);
    });
}

#[test]
fn cleaning_that_is_dropped_with_its_executor_gives_the_slot_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::Hang);
        let pool = one(&fake, &sim).build().await.unwrap();
        drop(pool.begin().await.unwrap());
        sim.sleep(MS).await;
        assert_eq!(pool.snapshot().cleaning, 1);
        sim.end_executor();
        assert_eq!((pool.snapshot().open, fake.counts().live), (0, 0));
        assert_own_answer(&pool).await;
    });
}

#[test]
fn cleaning_that_a_runtime_refuses_gives_the_slot_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let tx = pool.begin().await.unwrap();
        sim.drop_spawns(1.0);
        drop(tx);
        assert_eq!((pool.snapshot().open, fake.counts().live), (0, 0));
        sim.drop_spawns(0.0);
        assert_own_answer(&pool).await;
    });
}

// Drivers that cannot tell.

#[test]
fn an_unverified_connection_is_reset_after_each_use_and_kept() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(fake.unverified(), &sim).build().await.unwrap();
        for uses in 1..=3 {
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), answer(&mut conn, "mine").await), (1, "mine".to_owned()));
            drop(conn);
            sim.sleep(MS).await;
            assert_eq!(fake.counts().resets, uses);
        }
    });
}

#[test]
fn an_unverified_connection_with_a_statement_in_flight_is_never_lent_again() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(fake.unverified(), &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Hang]);
        assert!(cancel_after(1, conn.query("yours", &[])).await.is_none());
        drop(conn);
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, Duration::ZERO));
        assert_eq!((fake.counts().cancels, fake.counts().resets), (1, 0));
    });
}

/// The later statement has read the answer of the dropped one, so its own is
/// still on the wire: its end proves nothing.
#[test]
fn a_later_statement_does_not_make_up_for_a_dropped_one() {
    Sim::new(1).run(async |sim| {
        let log = Log::default();
        let pool = Pool::builder(Plain { log, hangs: Some("yours"), refuses: false })
            .max_open_conns(1)
            .runtime(sim.clone())
            .build()
            .await
            .unwrap();
        let mut conn = pool.acquire().await.unwrap();
        assert!(cancel_after(1, conn.query("yours", &[])).await.is_none());
        assert_eq!(answer(&mut conn, "more").await, "yours");
        drop(conn);
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(answer(&mut conn, "mine").await, "mine", "another borrower's answer");
        assert_eq!(conn.id(), 2);
    });
}

#[test]
fn a_connection_that_one_round_trip_cleans_is_waited_for() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.unverified().always_reset(Act::After(MS * 10));
        let pool = one(&fake, &sim).max_open_conns(8).build().await.unwrap();
        for uses in 0..5 {
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), sim.elapsed()), (1, MS * 10 * uses));
            conn.query("mine", &[]).await.unwrap();
        }
        assert_eq!(fake.counts().opened, 1);
    });
}

#[test]
fn the_borrower_does_not_wait_for_cleaning() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::After(SECOND));
        let pool = one(&fake, &sim).build().await.unwrap();
        drop(pool.begin().await.unwrap());
        assert_eq!((pool.snapshot().cleaning, sim.elapsed()), (1, Duration::ZERO));
        drop(pool.acquire().await.unwrap());
        assert_eq!(sim.elapsed(), SECOND);
    });
}

// Settings.

#[test]
fn a_session_reset_clears_what_the_last_borrower_set() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).reset(Reset::Session).build().await.unwrap();
        pool.execute("SET role", &[]).await.unwrap();
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), conn.settings().len()), (1, 0));
    });
}

#[test]
fn a_boundary_reset_keeps_what_the_last_borrower_set() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).reset(Reset::Boundary).build().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("SET role", &[]).await.unwrap();
        drop(tx);
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), conn.settings()), (1, &["role".to_owned()][..]));
        assert_eq!(fake.counts().resets, 1);
    });
}

// Ends of a loan.

#[test]
fn a_panic_of_the_borrower_closes_the_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        let borrower = sim.task(async move {
            let _conn = conn;
            panic!("the borrower panics");
        });
        AssertUnwindSafe(borrower).catch_unwind().await.unwrap_err();
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, Duration::ZERO));
        assert_eq!(fake.counts().live, 1);
    });
}

#[test]
fn a_guard_may_be_dropped_outside_any_runtime() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let clean = pool.acquire().await.unwrap();
        std::thread::scope(|threads| threads.spawn(|| drop(clean)).join().unwrap());
        assert_eq!(pool.snapshot().idle, 1);
        let unclean = pool.begin().await.unwrap();
        std::thread::scope(|threads| threads.spawn(|| drop(unclean)).join().unwrap());
        assert_own_answer(&pool).await;
        assert_eq!((fake.counts().opened, fake.counts().resets), (1, 1));
    });
}

#[test]
fn a_discarded_connection_is_closed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        pool.acquire().await.unwrap().discard();
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, Duration::ZERO));
        assert_eq!(fake.counts().goodbyes, 1);
    });
}

#[test]
fn a_noted_error_decides_by_its_fate() {
    Sim::new(1).run(async |sim| {
        for (fate, id) in [(Fate::Reusable, 1), (Fate::Discard, 2)] {
            let fake = Fake::new();
            let pool = one(&fake, &sim).build().await.unwrap();
            let mut conn = pool.acquire().await.unwrap();
            conn.note_error(&Error::statement("told by the client").with_fate(fate));
            // The worst that was said stays.
            conn.note_error(&Error::statement("harmless"));
            drop(conn);
            assert_eq!(pool.acquire().await.unwrap().id(), id, "{fate:?}");
        }
    });
}

#[test]
fn a_refused_statement_keeps_the_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        fake.next_queries([Act::reject()]);
        pool.query("no such table", &[]).await.unwrap_err();
        assert_eq!(pool.acquire().await.unwrap().id(), 1);
        assert_eq!(fake.counts().resets, 0);
    });
}

#[test]
fn who_waits_for_a_connection_that_is_lost_gets_a_fresh_one() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        let waiter = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.unwrap().id() }
        });
        sim.sleep(MS).await;
        fake.next_queries([Act::cut()]);
        conn.query("mine", &[]).await.unwrap_err();
        drop(conn);
        assert_eq!((waiter.await, sim.elapsed()), (2, MS));
        assert_eq!(fake.counts().live, 1);
    });
}

// Drivers of others.

type Log = Arc<Mutex<Vec<String>>>;

/// What a third party writes at least, over a client that answers in order of
/// asking: who reads after a dropped statement reads that one's answer.
struct Plain {
    log: Log,
    /// The statement whose answer does not come before the next one is sent.
    hangs: Option<&'static str>,
    /// Refuses `ROLLBACK` outside a transaction, as some databases do.
    refuses: bool,
}

impl Driver for Plain {
    type Connection = Vec<String>;

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    async fn ping(&self, _: &mut Vec<String>) -> Result<()> {
        Ok(())
    }

    async fn query(&self, unread: &mut Vec<String>, sql: &str, _: &[Value]) -> Result<Rows> {
        self.log.lock().unwrap().push(sql.to_owned());
        if self.refuses && sql == "ROLLBACK" {
            return Err(Error::statement("there is no transaction"));
        }
        unread.push(sql.to_owned());
        if self.hangs == Some(sql) {
            std::future::pending::<()>().await;
        }
        Ok(Rows::one("echo", unread.remove(0)))
    }
}

#[test]
fn a_driver_of_three_functions_is_cleaned_by_a_rollback_after_each_use() {
    for refuses in [false, true] {
        Sim::new(1).run(async |sim| {
            let log = Log::default();
            let plain = Plain { log: Arc::clone(&log), hangs: None, refuses };
            let pool = Pool::builder(plain).runtime(sim.clone()).build().await.unwrap();
            for sql in ["first", "second"] {
                let mut conn = pool.acquire().await.unwrap();
                assert_eq!((conn.id(), answer(&mut conn, sql).await), (1, sql.to_owned()));
            }
            sim.sleep(MS).await;
            assert_eq!(*log.lock().unwrap(), ["first", "ROLLBACK", "second", "ROLLBACK"]);
            assert_eq!((pool.snapshot().idle, pool.snapshot().created), (1, 1));
        });
    }
}

/// A driver that does not survive being asked for the state of a session.
struct Speechless;

impl Driver for Speechless {
    type Connection = ();

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<()> {
        Ok(())
    }

    async fn ping(&self, (): &mut ()) -> Result<()> {
        Ok(())
    }

    async fn query(&self, (): &mut (), sql: &str, _: &[Value]) -> Result<Rows> {
        Ok(Rows::one("echo", sql))
    }

    fn session(&self, (): &()) -> Session {
        panic!("no word on the session");
    }
}

#[test]
fn a_session_that_panics_counts_as_closed() {
    Sim::new(1).run(async |sim| {
        let pool = Pool::builder(Speechless).max_open_conns(1).runtime(sim).build().await.unwrap();
        for id in 1..=3 {
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), answer(&mut conn, "mine").await), (id, "mine".to_owned()));
        }
        assert!(pool.snapshot().open <= 1);
    });
}

/// A driver whose connections panic when they are dropped.
struct Fragile;

struct Shard;

impl Drop for Shard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a connection panics when it is dropped");
        }
    }
}

impl Driver for Fragile {
    type Connection = Shard;

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<Shard> {
        Ok(Shard)
    }

    async fn ping(&self, _: &mut Shard) -> Result<()> {
        Ok(())
    }

    async fn query(&self, _: &mut Shard, sql: &str, _: &[Value]) -> Result<Rows> {
        match sql {
            "hang" => std::future::pending().await,
            _ => Ok(Rows::one("echo", sql)),
        }
    }
}

#[test]
fn a_connection_that_panics_when_dropped_does_not_cost_the_slot() {
    Sim::new(1).run(async |sim| {
        let pool =
            Pool::builder(Fragile).max_open_conns(1).runtime(sim.clone()).build().await.unwrap();
        pool.acquire().await.unwrap().discard();

        let mut conn = pool.acquire().await.unwrap();
        assert!(cancel_after(1, conn.query("hang", &[])).await.is_none());
        drop(conn);

        let conn = pool.acquire().await.unwrap();
        sim.drop_spawns(1.0);
        drop(conn);
        sim.drop_spawns(0.0);

        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (4, Duration::ZERO));
        drop(conn);
        let report = pool.drain(SECOND).await;
        assert!(report.is_complete(), "{report}");
    });
}

// Everything at once.

#[test]
fn a_query_dropped_anywhere_a_thousand_times_mixes_up_no_answer() {
    for hides_state in [false, true] {
        Sim::new(7).run(async |sim| {
            let fake = Fake::new();
            if hides_state {
                fake.unverified();
            }
            let pool = one(&fake, &sim).build_lazy().unwrap();
            for round in 0..1000 {
                let theirs = format!("theirs {round}");
                let mut conn = pool.acquire().await.unwrap();
                fake.next_queries([Act::After(MS * sim.below(3) as u32)]);
                if sim.one_in(2) {
                    cancel_after(sim.below(3), conn.query(&theirs, &[])).await;
                } else {
                    cancel_after(sim.below(3), conn.native_query(&theirs)).await;
                }
                drop(conn);
                let mine = format!("mine {round}");
                let answer = answer(&mut pool.acquire().await.unwrap(), &mine).await;
                assert_eq!(answer, mine);
            }
        });
    }
}

#[test]
fn a_panic_in_the_driver_that_the_caller_survives_leaves_nothing_behind() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build_lazy().unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Panic]);
        assert!(AssertUnwindSafe(conn.query("panic", &[])).catch_unwind().await.is_err());
        drop(conn);
        assert_eq!(answer(&mut pool.acquire().await.unwrap(), "mine").await, "mine");
    });
}

#[test]
fn what_runs_on_a_discarded_connection_is_stopped() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one(&fake, &sim).build_lazy().unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Hang]);
        cancel_after(1, conn.query("long", &[])).await;
        conn.discard();
        sim.sleep(MS).await;
        assert_eq!((fake.counts().cancels, fake.counts().live), (1, 0));
    });
}
