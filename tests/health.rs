//! What the pool finds out by itself about connections that nobody uses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::drivers::fake::{Act, Fake};
use millpond::runtime::Runtime;
use millpond::testing::sim::Sim;
use millpond::{
    Builder, ConnectContext, Driver, Error, Pool, PooledConnection, Result, Rows, Session, Value,
};

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

#[test]
fn a_caller_queues_behind_a_background_check() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).health_interval(SECOND * 20).build().await.unwrap();
        fake.always_ping(Act::After(SECOND / 2));
        sim.sleep(SECOND * 20 + SECOND / 4).await;
        assert_eq!(pool.snapshot().checking, 1);
        let conn = pool.acquire().await.unwrap();
        let due = SECOND * 20 + SECOND / 2;
        let late = sim.elapsed().checked_sub(due).expect("not before its check has ended");
        assert!(late <= SECOND / 100, "{late:?}");
        assert_eq!((conn.id(), fake.counts().opened), (1, 1));
    });
}

#[test]
fn checks_of_all_idle_connections_at_once_starve_nobody() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).health_interval(SECOND * 20).build().await.unwrap();
        drop(hold(&pool, 4).await);
        let before = fake.counts().pings;
        fake.always_ping(Act::After(SECOND / 2));
        sim.sleep(SECOND * 20 + SECOND / 4).await;
        assert_eq!(pool.snapshot().checking, 4);
        let start = sim.elapsed();
        let held = hold(&pool, 4).await;
        assert!(sim.elapsed() - start <= SECOND / 2);
        assert_eq!(fake.counts().pings - before, 4, "each was checked once");
        let mut ids = Vec::from_iter(held.iter().map(|conn| conn.id()));
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3, 4]);
    });
}

/// A server that closes what it has not heard of for so long.
struct Impatient {
    limit: Duration,
}

struct Line {
    runtime: Arc<dyn Runtime>,
    heard: Instant,
}

impl Impatient {
    fn hears(&self, line: &mut Line) -> Result<()> {
        let now = line.runtime.now();
        if now - line.heard >= self.limit {
            return Err(Error::lost("closed for inactivity"));
        }
        line.heard = now;
        Ok(())
    }
}

impl Driver for Impatient {
    type Connection = Line;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<Line> {
        Ok(Line { runtime: Arc::clone(cx.runtime()), heard: cx.runtime().now() })
    }

    async fn ping(&self, line: &mut Line) -> Result<()> {
        self.hears(line)
    }

    async fn query(&self, line: &mut Line, sql: &str, _: &[Value]) -> Result<Rows> {
        self.hears(line)?;
        Ok(Rows::one("echo", sql))
    }

    fn session(&self, _: &Line) -> Session {
        Session::Clean
    }
}

/// A pool of one over a server that closes after 700 ms. Nothing but the checks
/// in the background could notice.
async fn over_an_impatient_server(sim: &Sim, health_interval: Duration) -> Pool<Impatient> {
    Pool::builder(Impatient { limit: SECOND * 7 / 10 })
        .max_open_conns(1)
        .min_idle_conns(1)
        .health_interval(health_interval)
        .check_after_idle(SECOND * 3600)
        .runtime(sim.clone())
        .build()
        .await
        .unwrap()
}

#[test]
fn checks_more_often_than_the_server_closes_keep_a_connection_open() {
    Sim::new(1).run(async |sim| {
        let pool = over_an_impatient_server(&sim, SECOND / 2).await;
        for _ in 0..10 {
            sim.sleep(SECOND * 6 / 5).await;
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!(conn.id(), 1);
            conn.query("mine", &[]).await.unwrap();
        }
    });
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_replaced() {
    Sim::new(1).run(async |sim| {
        let pool = over_an_impatient_server(&sim, SECOND).await;
        sim.sleep(SECOND * 6 / 5).await;
        assert_eq!((pool.snapshot().idle, pool.snapshot().closed), (1, 1));
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(conn.id(), 2);
        conn.query("mine", &[]).await.unwrap();
    });
}
