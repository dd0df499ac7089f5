//! The runtime that a pool was built on ends, as with each test of a program:
//! the pool goes on on the next one.

use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, Driver, Pool, PooledConnection, Session};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

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

/// The one text of the answer to a statement.
async fn ask(conn: &mut PooledConnection<Fake>, statement: &str) -> String {
    conn.query(statement, &[]).await.unwrap().scalar().unwrap()
}

/// How long it takes, and what comes out of it.
async fn timed<T>(sim: &Sim, work: impl Future<Output = T>) -> (Duration, T) {
    let start = sim.elapsed();
    let result = work.await;
    (sim.elapsed() - start, result)
}

/// Elsewhere the first test of a program takes the pool of all others with it.
#[test]
fn a_pool_outlives_the_runtime_it_was_built_on() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build().await.unwrap();
        for _ in 0..5 {
            sim.end_executor();
            let mut held = hold(&pool, 3).await;
            ask(&mut held[0], "BEGIN").await;
            drop(held);
            sim.sleep(SECOND * 2).await;
        }
        assert_eq!((pool.snapshot().open, fake.counts().peak_live), (3, 3));
    });
}

#[test]
fn a_guard_dropped_after_its_runtime_ended_gives_its_slot_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let mut held = hold(&pool, 2).await;
        ask(&mut held[0], "BEGIN").await;
        sim.end_executor();
        drop(held);
        for conn in hold(&pool, 2).await {
            assert_eq!(pool.driver().session(&conn), Session::Clean);
        }
    });
}

/// Whoever waits for a task that the runtime took with it has it done anew.
async fn ends_under(sim: &Sim, fake: &Fake, pool: &Pool<Fake>) -> Duration {
    let waiter = sim.task({
        let (sim, pool) = (sim.clone(), pool.clone());
        async move {
            let (took, conn) = timed(&sim, pool.acquire().timeout(SECOND * 2)).await;
            assert_eq!(ask(&mut conn.expect("served"), "mine").await, "mine");
            took
        }
    });
    sim.sleep(MS * 10).await;
    sim.end_executor();
    let took = waiter.await;
    assert_eq!(fake.counts().live, 1);
    took
}

#[test]
fn a_caller_goes_on_when_the_runtime_ends_during_its_connect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::Hang]);
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let took = ends_under(&sim, &fake, &pool).await;
        assert!(took <= MS * 60, "after a backoff at most: {took:?}");
    });
}

#[test]
fn a_caller_goes_on_when_the_runtime_ends_during_its_check() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        fill(&pool, 1).await;
        sim.sleep(SECOND * 2).await;
        fake.next_pings([Act::Hang]);
        assert_eq!(ends_under(&sim, &fake, &pool).await, MS * 10);
    });
}

#[test]
fn a_caller_goes_on_when_the_runtime_ends_during_a_cleaning() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        fake.always_reset(Act::Hang);
        ask(&mut pool.acquire().await.unwrap(), "BEGIN").await;
        assert_eq!(ends_under(&sim, &fake, &pool).await, MS * 10);
    });
}

#[test]
fn a_caller_goes_on_when_the_runtime_ends_during_a_goodbye() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_close(Act::Hang);
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        pool.acquire().await.unwrap().discard();
        assert_eq!(ends_under(&sim, &fake, &pool).await, MS * 10);
    });
}

#[test]
fn lifetimes_hold_after_the_runtime_has_ended() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).conn_max_lifetime(SECOND * 60).build_lazy().unwrap();
        fill(&pool, 2).await;
        sim.end_executor();
        sim.sleep(SECOND * 61).await;
        let conn = pool.acquire().await.unwrap();
        assert!(conn.id() > 2, "no connection older than its lifetime is lent");
    });
}
