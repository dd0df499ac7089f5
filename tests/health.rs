//! What the pool finds out by itself about connections that nobody uses.

use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, Pool, PooledConnection};

const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// As many connections, in the order in which they were opened.
async fn hold(pool: &Pool<Fake>, count: usize) -> Vec<PooledConnection<Fake>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(pool.acquire().await.unwrap());
    }
    held
}

#[test]
fn an_idle_connection_is_checked_each_health_interval() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).health_interval(SECOND * 20).build().await.unwrap();
        let before = fake.counts().pings;
        sim.sleep(SECOND * 19).await;
        assert_eq!(fake.counts().pings, before);
        sim.sleep(SECOND * 2).await;
        assert_eq!(fake.counts().pings, before + 1);
        sim.sleep(SECOND * 60).await;
        assert_eq!(fake.counts().pings, before + 4);
        assert_eq!(pool.snapshot().open, 1);
    });
}

#[test]
fn a_connection_in_use_or_just_used_is_left_alone() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).health_interval(SECOND * 20).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let before = fake.counts().pings;
        sim.sleep(SECOND * 100).await;
        drop(held);
        sim.sleep(SECOND * 19).await;
        assert_eq!(fake.counts().pings, before);
        sim.sleep(SECOND * 2).await;
        assert_eq!(fake.counts().pings, before + 1);
    });
}

#[test]
fn with_health_interval_zero_nothing_is_checked_in_the_background() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).health_interval(Duration::ZERO).build().await.unwrap();
        let before = fake.counts().pings;
        sim.sleep(SECOND * 500).await;
        assert_eq!((fake.counts().pings, pool.snapshot().idle), (before, 1));
    });
}

#[test]
fn the_minimum_is_alive_again_before_a_caller_comes() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).min_idle_conns(3).build().await.unwrap();
        sim.sleep(SECOND).await;
        fake.restart();
        sim.sleep(SECOND * 35).await;
        let now = pool.snapshot();
        assert_eq!((now.idle, now.created, now.closed), (3, 6, 3));
    });
}

#[test]
fn a_check_that_hangs_ends_and_holds_nobody_up() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).health_interval(SECOND * 20).build().await.unwrap();
        fake.always_ping(Act::Hang);
        sim.sleep(SECOND * 20 + SECOND / 2).await;
        assert_eq!(pool.snapshot().checking, 1);
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().open, pool.snapshot().closed), (0, 1));
        pool.acquire().await.unwrap();
    });
}

/// A check is no use: elsewhere a keepalive makes idle connections immortal.
#[test]
fn checks_keep_no_connection_from_being_trimmed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4)
            .health_interval(SECOND * 7)
            .conn_max_idle_time(SECOND * 60)
            .build()
            .await
            .unwrap();
        drop(hold(&pool, 4).await);
        let work = async |times| {
            for _ in 0..times {
                sim.sleep(SECOND * 9 / 10).await;
                drop(pool.acquire().await.unwrap());
            }
        };
        work(66).await;
        assert_eq!(pool.snapshot().open, 4);
        work(2).await;
        assert_eq!(pool.snapshot().open, 1, "one does all the work, the others were idle");
    });
}

#[test]
fn the_connection_used_last_is_lent_first_whatever_was_checked_since() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3)
            .health_interval(SECOND * 10)
            .check_after_idle(SECOND * 3600)
            .build()
            .await
            .unwrap();
        for conn in hold(&pool, 3).await {
            sim.sleep(SECOND).await;
            drop(conn);
        }
        sim.sleep(SECOND * 100).await;
        let order = hold(&pool, 3).await.iter().map(|conn| conn.id()).collect::<Vec<_>>();
        assert_eq!(order, [3, 2, 1]);
    });
}
