//! What the pool does by itself as time passes: filling, replacing, trimming.

use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, Pool};

const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

#[test]
fn the_minimum_is_filled_after_build_in_parallel() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 8).min_idle_conns(5).build().await.unwrap();
        assert_eq!((pool.snapshot().idle, pool.snapshot().opening), (1, 4));
        sim.sleep(SECOND + SECOND / 10).await;
        assert_eq!(pool.snapshot().idle, 5, "four at a time, all within one connect");
    });
}

#[test]
fn the_minimum_is_filled_without_a_caller_once_the_database_is_there() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::refuse());
        let pool = pool_of(&fake, &sim, 4).min_idle_conns(2).build_lazy().unwrap();
        sim.sleep(SECOND * 10).await;
        assert_eq!(pool.snapshot().open, 0);
        fake.always_connect(Act::Answer);
        sim.sleep(SECOND * 3).await;
        assert_eq!(pool.snapshot().idle, 2);
    });
}

#[test]
fn a_fill_that_fails_is_counted_and_told_to_nobody() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).min_idle_conns(2).build().await.unwrap();
        sim.sleep(SECOND / 10).await;
        fake.always_connect(Act::refuse());
        let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        sim.sleep(SECOND * 10).await;
        let now = pool.snapshot();
        assert!(now.connects_failed >= 10, "{now:#}");
        assert_eq!((now.open, now.timeouts), (2, 0));
        drop(held);
        assert!(pool.acquire().await.is_ok());
        fake.always_connect(Act::Answer);
        let _two = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        sim.sleep(SECOND * 2).await;
        assert_eq!((pool.snapshot().in_use, pool.snapshot().idle), (2, 2));
    });
}

#[test]
fn a_minimum_of_two_is_restored_when_one_comes_back_dead() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).min_idle_conns(2).build_lazy().unwrap();
        sim.sleep(SECOND / 10).await;
        assert_eq!((pool.snapshot().idle, fake.counts().connects), (2, 2));
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::cut()]);
        conn.query("work", &[]).await.unwrap_err();
        drop(conn);
        sim.sleep(SECOND / 10).await;
        assert_eq!((pool.snapshot().idle, fake.counts().live), (2, 2));
        assert_eq!(fake.counts().connects, 3);
    });
}

#[test]
fn the_minimum_is_there_again_one_connect_after_it_broke_in_use() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).min_idle_conns(1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.always_connect(Act::After(SECOND)).next_queries([Act::cut()]);
        conn.query("work", &[]).await.unwrap_err();
        let start = sim.elapsed();
        drop(conn);
        sim.sleep(SECOND / 2).await;
        assert_eq!((pool.snapshot().open, pool.snapshot().opening), (0, 1));
        sim.sleep(SECOND - (sim.elapsed() - start)).await;
        sim.sleep(SECOND / 100).await;
        assert_eq!(pool.snapshot().idle, 1);
    });
}

#[test]
fn slow_connects_fill_the_minimum_one_by_one_and_it_stays() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 20)
            .max_idle_conns(20)
            .min_idle_conns(19)
            .connect_concurrency(1)
            .conn_max_idle_time(SECOND * 60)
            .build_lazy()
            .unwrap();
        let _held = pool.acquire().await.unwrap();
        fake.always_connect(Act::After(SECOND));
        // The second connect had begun while they were still fast.
        for filled in 1..20 {
            let open = pool.snapshot().open;
            assert!((filled..=filled + 1).contains(&open), "{open} after {filled} s");
            sim.sleep(SECOND).await;
        }
        assert_eq!(pool.snapshot().idle, 19);
        sim.sleep(SECOND * 600).await;
        let now = pool.snapshot();
        assert_eq!((now.in_use, now.idle, now.created, now.closed), (1, 19, 20, 0));
    });
}

#[test]
fn the_minimum_outlives_the_lifetimes_of_its_connections() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let pool = pool_of(&fake, &sim, 4)
                .min_idle_conns(3)
                .conn_max_lifetime(SECOND * 60)
                .build_lazy()
                .unwrap();
            sim.sleep(SECOND / 10).await;
            while sim.elapsed() < SECOND * 600 {
                assert!(pool.snapshot().idle >= 3, "at {:?}: {}", sim.elapsed(), pool.snapshot());
                sim.sleep(SECOND).await;
            }
            assert!(fake.counts().opened >= 30, "each lived for a minute at most");
            assert!(fake.counts().peak_live <= 4);
        });
    }
}

#[test]
fn borrowing_refills_the_minimum_up_to_the_limit() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).min_idle_conns(2).build().await.unwrap();
        sim.sleep(SECOND / 10).await;
        let _first = pool.acquire().await.unwrap();
        sim.sleep(SECOND / 10).await;
        assert_eq!((pool.snapshot().in_use, pool.snapshot().idle), (1, 2));
        let _second = pool.acquire().await.unwrap();
        sim.sleep(SECOND / 10).await;
        assert_eq!((pool.snapshot().in_use, pool.snapshot().idle), (2, 1));
    });
}

/// Those who only try did not look.
#[test]
fn a_connection_that_is_only_tried_for_refills_the_minimum_too() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).min_idle_conns(2).build().await.unwrap();
        sim.sleep(SECOND / 10).await;
        let _first = pool.try_acquire().expect("two are idle");
        sim.sleep(SECOND / 10).await;
        assert_eq!((pool.snapshot().in_use, pool.snapshot().idle), (1, 2));
    });
}

/// One that nobody had borrowed had a successor, for the first minute of its pool.
#[test]
fn what_nobody_has_borrowed_has_no_successor() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4)
            .conn_max_lifetime(SECOND * 30)
            .conn_max_idle_time(SECOND * 30)
            .build()
            .await
            .unwrap();
        sim.sleep(SECOND * 55).await;
        assert_eq!((fake.counts().opened, pool.snapshot().open), (1, 0));
    });
}

#[test]
fn idle_trimming_stops_at_the_minimum() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4)
            .min_idle_conns(1)
            .conn_max_idle_time(SECOND * 60)
            .build()
            .await
            .unwrap();
        let held: Vec<_> = futures_util::future::join_all((0..4).map(|_| pool.acquire())).await;
        drop(held);
        sim.sleep(SECOND * 59).await;
        assert_eq!(pool.snapshot().idle, 4);
        sim.sleep(SECOND * 600).await;
        assert_eq!((pool.snapshot().idle, fake.counts().opened), (1, 4));
    });
}

#[test]
fn nothing_is_trimmed_that_could_not_be_replaced() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).conn_max_idle_time(SECOND * 60).build().await.unwrap();
        drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
        fake.always_connect(Act::refuse());
        let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        pool.acquire().timeout(SECOND).await.unwrap_err();
        drop(held);
        sim.sleep(SECOND * 601).await;
        assert_eq!(pool.snapshot().idle, 2);
    });
}

/// Elsewhere the first caller after the end of a connection waits for a connect.
#[test]
fn a_connection_in_demand_is_replaced_before_it_retires() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 2).conn_max_lifetime(SECOND * 60).build().await.unwrap();
        let start = sim.elapsed();
        while sim.elapsed() - start < SECOND * 600 {
            let before = sim.elapsed();
            let conn = pool.acquire().await.unwrap();
            assert!(sim.elapsed() - before < SECOND / 10, "waited for a connect");
            assert!(conn.age() <= SECOND * 60);
            sim.sleep(SECOND / 4).await;
            drop(conn);
            sim.sleep(SECOND / 4).await;
        }
        assert!(fake.counts().opened >= 10, "each lived for a minute at most");
        assert!(fake.counts().peak_live <= 2);
    });
}

#[test]
fn a_connection_nobody_wants_is_not_replaced() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).conn_max_lifetime(SECOND * 300).build().await.unwrap();
        drop(pool.acquire().await.unwrap());
        sim.sleep(SECOND * 600).await;
        assert_eq!((pool.snapshot().open, fake.counts().opened), (0, 1));
    });
}

/// A pool at rest costs nothing: no timer but for the next thing that is due.
#[test]
fn a_pool_at_rest_is_looked_at_rarely() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        drop(pool.acquire().await.unwrap());
        let polls_within = async |time| {
            let before = sim.polls();
            sim.sleep(time).await;
            sim.polls() - before
        };
        let polls = polls_within(SECOND * 600).await;
        assert!(polls < 100, "{polls} polls while one connection is checked 20 times");
        let polls = polls_within(SECOND * 3600).await;
        assert!(polls < 10, "{polls} polls in an hour");
    });
}
