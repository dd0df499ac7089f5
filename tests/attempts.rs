//! A statement on the pool, tried on one connection after another: what a dead
//! connection costs, and how long it may take in all.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Error, Outcome, Pool};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_stream_on_the_pool_survives_a_restart_within_the_unchecked_second() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone())
            .max_open_conns(10)
            .runtime(sim.clone())
            .build_lazy()
            .unwrap();
        drop(join_all((0..10).map(|_| pool.acquire())).await);
        fake.restart();
        let rows: Vec<_> = pin!(pool.query_stream("mine", &[])).try_collect().await.unwrap();
        assert_eq!(rows.len(), 1);
    });
}

/// A caller with little patience does not sleep through a pause longer than that.
#[test]
fn a_pause_before_a_retry_ends_with_the_callers_time() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let unsent = Error::lost("closed by the server").with_outcome(Outcome::NotSent);
            let pool = Pool::builder(fake.clone())
                .acquire_timeout(MS * 100)
                .retry_interval(SECOND * 60)
                .max_open_conns(2)
                .runtime(sim.clone())
                .build()
                .await
                .unwrap();
            fake.always_query(Act::Fail(unsent));
            pool.query("mine", &[]).await.unwrap_err();
            assert!(sim.elapsed() <= MS * 100, "took {:?}", sim.elapsed());
        });
    }
}

#[test]
fn a_stream_that_has_given_a_row_is_not_begun_again() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).runtime(sim).build().await.unwrap();
        let mut rows = pin!(pool.query_stream("mine", &[]));
        assert!(rows.try_next().await.unwrap().is_some());
        fake.restart();
        assert!(rows.try_next().await.unwrap().is_none());
        assert_eq!(fake.statements(), ["mine"]);
    });
}

/// The first retry follows at once, so a dead connection costs no patience.
#[test]
fn what_is_left_of_the_time_is_what_the_next_acquire_gets() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone())
            .max_open_conns(1)
            .acquire_timeout(SECOND)
            .runtime(sim.clone())
            .build()
            .await
            .unwrap();
        let held = pool.acquire().await.unwrap();
        let waiting = sim.task({
            let pool = pool.clone();
            async move { pool.query("mine", &[]).await.map(drop) }
        });
        sim.sleep(MS * 700).await;
        fake.restart().always_connect(Act::Hang);
        drop(held);
        let error = waiting.await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(sim.elapsed(), SECOND, "700 ms for the first connection, the rest for another");
    });
}

#[test]
fn a_statement_that_gets_no_second_connection_says_what_was_wrong_with_the_first() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let builder = Pool::builder(fake.clone()).max_open_conns(1).runtime(sim.clone());
        let pool = builder.acquire_timeout(Duration::ZERO).build().await.unwrap();
        let unsent = Error::lost("told by the first").with_outcome(Outcome::NotSent);
        fake.always_query(Act::Fail(unsent));
        let error = pool.query("mine", &[]).await.unwrap_err();
        assert!(error.to_string().contains("told by the first"), "{error}");
        pool.reconfigure(|config| config.acquire_timeout(SECOND)).unwrap();
        sim.sleep(SECOND).await;
        let held = pool.acquire().await.unwrap();
        let query = sim.task({
            let pool = pool.clone();
            async move { pool.query("mine", &[]).await }
        });
        sim.sleep(MS).await;
        fake.always_connect(Act::Hang);
        drop(held);
        let error = query.await.unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("told by the first"), "{error}");
    });
}
