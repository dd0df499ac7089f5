//! What is left of a pool that has ended, whatever it was doing: nothing. Who is
//! told of an end, and what it waits for, is in `closing.rs`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{ConnectContext, Driver, ErrorKind, Pool, Result, Rows, Value};

const SECOND: Duration = Duration::from_secs(1);

/// Nothing is open on the server, nothing opens any more, and no task or timer
/// goes on.
async fn is_over(sim: &Sim, fake: &Fake) {
    let (counts, polls) = (fake.counts(), sim.polls());
    assert_eq!(counts.live, 0);
    sim.sleep(SECOND * 7200).await;
    assert_eq!(fake.counts(), counts);
    assert!(sim.polls() - polls < 10, "something still ticks");
}

#[test]
fn a_close_while_ten_callers_connect_leaves_nothing() {
    for connect_concurrency in [4, 10] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::After(SECOND));
            let pool = Pool::builder(fake.clone())
                .max_open_conns(10)
                .connect_concurrency(connect_concurrency)
                .runtime(sim.clone())
                .build_lazy()
                .unwrap();
            let callers = (0..10).map(|_| {
                let pool = pool.clone();
                sim.task(async move { pool.acquire().await })
            });
            let callers: Vec<_> = callers.collect();
            sim.sleep(SECOND / 2).await;
            assert_eq!(pool.snapshot().opening, connect_concurrency);
            let report = pool.close().await;
            assert!(report.is_complete(), "{report}");
            for served in join_all(callers).await {
                assert_eq!(served.unwrap_err().kind(), ErrorKind::Closed);
            }
            assert_eq!(sim.elapsed(), SECOND / 2);
            let now = pool.snapshot();
            assert_eq!((now.in_use, now.idle, now.open, now.opening), (0, 0, 0, 0), "{now}");
            is_over(&sim, &fake).await;
        });
    }
}

#[test]
fn a_pool_that_ends_during_its_background_checks_leaves_nothing_behind() {
    for closes in [true, false] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let pool = Pool::builder(fake.clone())
                .max_open_conns(3)
                .health_interval(SECOND * 20)
                .runtime(sim.clone())
                .build()
                .await
                .unwrap();
            drop(join_all((0..3).map(|_| pool.acquire())).await);
            fake.always_ping(Act::Hang);
            sim.sleep(SECOND * 20 + SECOND / 2).await;
            assert_eq!(pool.snapshot().checking, 3);
            if closes {
                assert!(pool.close().await.is_complete());
            }
            drop(pool);
            // As long as a check may take.
            sim.sleep(SECOND).await;
            is_over(&sim, &fake).await;
        });
    }
}

/// A driver that somebody else can tell is gone.
struct Tracked {
    _token: Arc<()>,
}

impl Driver for Tracked {
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
}

#[test]
fn the_driver_goes_with_the_last_of_pool_and_guards() {
    for closes in [true, false] {
        Sim::new(1).run(async |sim| {
            let driver = Arc::new(());
            let lives = || Arc::strong_count(&driver) > 1;
            let pool = Pool::builder(Tracked { _token: Arc::clone(&driver) })
                .min_idle_conns(2)
                .runtime(sim.clone())
                .build()
                .await
                .unwrap();
            let held = pool.acquire().await.unwrap();
            if closes {
                pool.close().await;
            }
            drop(pool);
            sim.sleep(SECOND).await;
            assert!(lives(), "a guard still needs it");
            drop(held);
            sim.sleep(SECOND).await;
            assert!(!lives());
        });
    }
}
