//! How old connections get and how long they lie idle. How the ages are spread
//! and what a maximum of idle ones does is in `checking.rs`, how the minimum is
//! kept in `upkeep.rs`.

use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::Fake;
use millpond::testing::sim::Sim;
use millpond::{Builder, Pool, PooledConnection};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// As many connections at once.
async fn hold(pool: &Pool<Fake>, count: usize) -> Vec<PooledConnection<Fake>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(pool.acquire().await.unwrap());
    }
    held
}

/// Has as many connections lie idle.
async fn fill(pool: &Pool<Fake>, count: usize) {
    drop(hold(pool, count).await);
    assert_eq!(pool.snapshot().idle, count);
}

#[test]
fn an_expired_connection_is_closed_while_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1)
            .conn_max_lifetime(SECOND * 600)
            .conn_max_idle_time(Duration::ZERO)
            .build_lazy()
            .unwrap();
        fill(&pool, 1).await;
        sim.sleep(SECOND * 479).await;
        assert_eq!(fake.counts().live, 1);
        sim.sleep(SECOND * 122).await;
        assert_eq!((fake.counts().live, pool.snapshot().open), (0, 0));
    });
}

#[test]
fn a_connection_is_the_same_until_it_expires() {
    Sim::new(1).run(async |sim| {
        let pool =
            pool_of(&Fake::new(), &sim, 1).conn_max_lifetime(SECOND * 600).build_lazy().unwrap();
        while sim.elapsed() < SECOND * 478 {
            assert_eq!(pool.acquire().await.unwrap().id(), 1);
            sim.sleep(SECOND).await;
        }
        sim.sleep(SECOND * 122).await;
        assert_ne!(pool.acquire().await.unwrap().id(), 1);
    });
}

/// Elsewhere the end is drawn anew at each return, and comes early.
#[test]
fn the_end_is_drawn_once_at_birth() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 1)
                .conn_max_lifetime(SECOND * 1000)
                .build_lazy()
                .unwrap();
            for _ in 0..799 {
                assert_eq!(pool.acquire().await.unwrap().id(), 1);
                sim.sleep(SECOND).await;
            }
        });
    }
}

/// The χ² of ten equal parts exceeds 21.7 once in a hundred times.
#[test]
fn lifetimes_are_uniform_over_the_last_fifth_also_below_a_second() {
    for longest in [SECOND * 1000, SECOND / 2] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let pool = pool_of(&fake, &sim, 1000)
                .max_idle_conns(1000)
                .connect_concurrency(1000)
                .conn_max_lifetime(longest)
                .conn_max_idle_time(Duration::ZERO)
                .health_interval(Duration::ZERO)
                .build_lazy()
                .unwrap();
            let held = join_all((0..1000).map(|_| pool.acquire())).await;
            assert_eq!(sim.elapsed(), Duration::ZERO, "born together");
            drop(held);
            sim.sleep(longest * 4 / 5 - Duration::from_nanos(1)).await;
            let mut left = fake.counts().live;
            assert_eq!(left, 1000);
            let mut chi_squared = 0.0;
            for _ in 0..10 {
                sim.sleep(longest / 50).await;
                let ended = (left - fake.counts().live) as f64;
                left = fake.counts().live;
                chi_squared += (ended - 100.0).powi(2) / 100.0;
            }
            sim.sleep(MS).await;
            assert_eq!(fake.counts().live, 0);
            assert!(chi_squared < 21.7, "{chi_squared} within {longest:?}");
        });
    }
}

#[test]
fn a_lifetime_of_zero_is_unlimited() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1)
            .conn_max_lifetime(Duration::ZERO)
            .conn_max_idle_time(Duration::ZERO)
            .build_lazy()
            .unwrap();
        fill(&pool, 1).await;
        sim.sleep(HOUR * 20).await;
        assert_eq!(pool.acquire().await.unwrap().id(), 1);
    });
}

#[test]
fn idle_ones_are_closed_at_their_time_and_those_in_use_are_not() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).conn_max_idle_time(SECOND * 60).build_lazy().unwrap();
        let mut held = hold(&pool, 3).await;
        held.truncate(1);
        sim.sleep(SECOND * 60 - MS).await;
        assert_eq!(fake.counts().live, 3);
        sim.sleep(MS * 2).await;
        assert_eq!(fake.counts().live, 1);
        sim.sleep(SECOND * 600).await;
        held[0].query("mine", &[]).await.unwrap();
    });
}

#[test]
fn use_restarts_the_idle_time() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 5).conn_max_idle_time(SECOND * 60).build_lazy().unwrap();
        fill(&pool, 5).await;
        sim.sleep(SECOND * 40).await;
        drop(hold(&pool, 2).await);
        sim.sleep(SECOND * 21).await;
        assert_eq!(fake.counts().live, 2, "three were idle for a minute");
        sim.sleep(SECOND * 38).await;
        assert_eq!(fake.counts().live, 2);
        sim.sleep(SECOND * 2).await;
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn bursts_in_a_row_open_nothing_anew() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 5).max_idle_conns(2).build_lazy().unwrap();
        for _ in 0..50 {
            fill(&pool, 5).await;
            sim.sleep(MS * 300).await;
        }
        assert_eq!(fake.counts().opened, 5);
    });
}

#[test]
fn a_guard_may_be_held_for_as_long_as_it_takes() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).conn_max_lifetime(SECOND * 60).build_lazy().unwrap();
        let mut conn = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 3600).await;
        conn.query("mine", &[]).await.expect("never reclaimed");
    });
}
