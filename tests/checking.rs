//! Which idle connections are lent, which are checked first, which are closed.

use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::{JoinHandle, Sim};
use millpond::{Builder, Error, ErrorKind, Phase, Pool, PooledConnection, Result};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The resolution of the pool's clock where it needs no lock.
const TICK: Duration = Duration::from_millis(4);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// A pool with one idle connection that is due for a check.
async fn stale(fake: &Fake, sim: &Sim, max_open: usize) -> Pool<Fake> {
    let pool = pool_of(fake, sim, max_open).build().await.unwrap();
    sim.sleep(SECOND).await;
    pool
}

/// A caller beside the test, in the queue when this returns.
async fn caller(sim: &Sim, pool: &Pool<Fake>) -> JoinHandle<Result<PooledConnection<Fake>>> {
    let pool = pool.clone();
    let caller = sim.task(async move { pool.acquire().await });
    sim.sleep(MS).await;
    caller
}

/// Pings since the one that proved the first connection.
fn checks(fake: &Fake) -> u64 {
    fake.counts().pings - 1
}

// When.

#[test]
fn a_connection_is_checked_once_it_was_idle_for_check_after_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        sim.sleep(SECOND - TICK).await;
        drop(pool.acquire().await.unwrap());
        assert_eq!(checks(&fake), 0);
        sim.sleep(SECOND).await;
        drop(pool.acquire().await.unwrap());
        assert_eq!(checks(&fake), 1);
        assert_eq!(fake.counts().opened, 1);
    });
}

#[test]
fn the_interval_starts_anew_with_every_use() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        for _ in 0..10 {
            sim.sleep(MS * 900).await;
            drop(pool.acquire().await.unwrap());
        }
        assert_eq!(checks(&fake), 0);
    });
}

#[test]
fn the_interval_starts_with_the_return_and_not_with_the_loan() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 10).await;
        drop(conn);
        sim.sleep(MS * 900).await;
        drop(pool.acquire().await.unwrap());
        assert_eq!(checks(&fake), 0);
    });
}

/// Checked for a caller that left, it need not be checked for the next.
#[test]
fn the_interval_starts_anew_with_a_check() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = stale(&fake, &sim, 1).await;
        fake.always_ping(Act::After(MS * 500));
        pool.acquire().timeout(MS * 100).await.unwrap_err();
        sim.sleep(MS * 400 + MS * 900).await;
        let before = sim.elapsed();
        drop(pool.acquire().await.unwrap());
        assert_eq!((checks(&fake), sim.elapsed()), (1, before));
    });
}

#[test]
fn with_check_after_idle_zero_every_connection_is_checked() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let builder = pool_of(&fake, &sim, 1).check_after_idle(Duration::ZERO);
        let pool = builder.build().await.unwrap();
        for _ in 0..5 {
            drop(pool.acquire().await.unwrap());
        }
        assert_eq!(checks(&fake), 5);
    });
}

// What a check finds.

#[test]
fn a_dead_idle_connection_is_replaced_within_the_same_acquire() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = stale(&fake, &sim, 1).await;
        fake.restart();
        let mut conn = pool.acquire().await.unwrap();
        conn.query("SELECT 1", &[]).await.unwrap();
        assert_eq!(sim.elapsed(), SECOND);
        assert_eq!((fake.counts().opened, fake.counts().live), (2, 1));
    });
}

#[test]
fn after_a_restart_no_caller_sees_a_connection_from_before() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).build().await.unwrap();
        drop(join_all((0..8).map(|_| pool.acquire())).await);
        sim.sleep(SECOND + TICK).await;
        fake.restart();
        let uses = (0..50).map(|_| async {
            let mut conn = pool.acquire().await.unwrap();
            conn.query("SELECT 1", &[]).await.unwrap();
        });
        join_all(uses).await;
        assert!(fake.counts().peak_live <= 8);
    });
}

#[test]
fn one_dead_connection_makes_the_others_suspect_though_just_used() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build().await.unwrap();
        let [first, second, third] = [
            pool.acquire().await.unwrap(),
            pool.acquire().await.unwrap(),
            pool.acquire().await.unwrap(),
        ];
        drop(first);
        sim.sleep(SECOND * 2).await;
        fake.next_pings([Act::FailAfter(MS * 100, Error::lost("connection reset by peer"))]);
        let waiter = caller(&sim, &pool).await;
        drop(second);
        drop(third);
        let served = waiter.await.unwrap();
        assert_eq!((served.id(), checks(&fake)), (2, 1));
        drop(pool.acquire().await.unwrap());
        assert_eq!(checks(&fake), 1, "nothing is known yet");
        sim.sleep(MS * 100).await;
        let suspect = pool.acquire().await.unwrap();
        assert_eq!((suspect.id(), checks(&fake)), (3, 2));
        drop(suspect);
        drop(pool.acquire().await.unwrap());
        assert_eq!(checks(&fake), 2, "proved, it is suspect no more");
    });
}

/// Nobody knows whether its borrower has used it.
#[test]
fn a_connection_on_loan_while_another_died_is_checked_once_it_is_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let [idle, lent] = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        drop(idle);
        sim.sleep(SECOND * 2).await;
        fake.restart();
        assert_eq!(pool.acquire().await.unwrap().id(), 3);
        let replaced = pool.acquire().await.unwrap();
        drop(lent);
        let mut conn = pool.acquire().await.unwrap();
        conn.query("SELECT 1", &[]).await.unwrap();
        assert_eq!((replaced.id(), conn.id()), (3, 4));
    });
}

/// As the one before, with somebody in the queue.
#[test]
fn a_connection_on_loan_while_another_died_is_checked_before_a_waiter_gets_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let [idle, lent] = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        drop(idle);
        sim.sleep(SECOND * 2).await;
        fake.restart();
        let replaced = pool.acquire().await.unwrap();
        let waiter = caller(&sim, &pool).await;
        drop(lent);
        let mut conn = waiter.await.unwrap();
        conn.query("SELECT 1", &[]).await.unwrap();
        assert_eq!((replaced.id(), conn.id()), (3, 4));
    });
}

#[test]
fn a_cleaning_that_finds_its_peer_dead_makes_the_idle_suspect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let [mut unclean, idle] = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        unclean.query("BEGIN", &[]).await.unwrap();
        fake.always_reset(Act::cut());
        drop(idle);
        drop(unclean);
        sim.sleep(MS).await;
        assert_eq!(pool.acquire().await.unwrap().id(), 2);
        assert_eq!((checks(&fake), fake.counts().live), (1, 1));
    });
}

#[test]
fn a_check_without_an_answer_ends_at_check_timeout_and_closes() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = stale(&fake, &sim, 1).await;
        fake.next_pings([Act::Hang]);
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, SECOND * 2));
        assert_eq!((fake.counts().live, fake.counts().peak_live), (1, 1));
    });
}

#[test]
fn a_ping_that_panics_closes_the_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = stale(&fake, &sim, 1).await;
        fake.next_pings([Act::Panic]);
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), sim.elapsed()), (2, SECOND));
        assert_eq!((fake.counts().live, fake.counts().peak_live), (1, 1));
    });
}

// Whom a check concerns.

#[test]
fn a_check_that_fails_keeps_the_place_of_who_waits_for_it() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let pool = stale(&fake, &sim, 1).await;
            fake.next_pings([Act::FailAfter(MS * 100, Error::lost("gone"))]);
            fake.always_connect(Act::After(MS * 50));
            let first = caller(&sim, &pool).await;
            let second = caller(&sim, &pool).await;
            let held = first.await.unwrap();
            assert_eq!((held.id(), sim.elapsed()), (2, SECOND + MS * 150));
            assert_eq!(pool.snapshot().waiting, 1);
            drop(held);
            assert_eq!(second.await.unwrap().id(), 2);
        });
    }
}

#[test]
fn who_gives_up_during_a_check_costs_no_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = stale(&fake, &sim, 1).await;
        fake.next_pings([Act::After(MS * 500)]);
        let error = pool.acquire().timeout(MS * 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Checking));
        assert_eq!(sim.elapsed(), SECOND + MS * 100);
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().idle, fake.counts().opened, fake.counts().live), (1, 1, 1));
    });
}

#[test]
fn what_is_being_checked_for_who_gave_up_is_not_lent_before_it_has_passed() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let pool = stale(&fake, &sim, 1).await;
            fake.next_pings([Act::After(MS * 500)]);
            cancel_after(1, pool.acquire()).await;
            sim.sleep(MS * 100).await;
            assert!(pool.try_acquire().is_none());
            let conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), sim.elapsed(), checks(&fake)), (1, SECOND + MS * 500, 1));
        });
    }
}

#[test]
fn a_check_that_hangs_holds_nobody_else_up() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = stale(&fake, &sim, 2).await;
        fake.next_pings([Act::Hang]);
        let before = sim.elapsed();
        let uses = (0..10).map(|_| async { drop(pool.acquire().await.unwrap()) });
        join_all(uses).await;
        assert_eq!((sim.elapsed(), pool.snapshot().checking), (before, 1));
        assert_eq!(fake.counts().opened, 2);
    });
}

// Age.

#[test]
fn a_connection_that_expired_on_loan_is_not_lent_again() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).conn_max_lifetime(SECOND * 10).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        let waiter = caller(&sim, &pool).await;
        sim.sleep(SECOND * 11).await;
        drop(conn);
        assert_eq!(waiter.await.unwrap().id(), 2);
        assert_eq!(fake.counts().peak_live, 1);
    });
}

/// The task that would have closed it has gone with its runtime.
#[test]
fn an_expired_connection_is_not_lent_though_nobody_has_closed_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).conn_max_lifetime(SECOND * 10).build().await.unwrap();
        sim.end_executor();
        sim.sleep(SECOND * 11).await;
        assert_eq!((pool.snapshot().idle, fake.counts().live), (1, 1));
        assert!(pool.try_acquire().is_none());
        assert_eq!(pool.acquire().await.unwrap().id(), 2);
    });
}

#[test]
fn lifetimes_are_spread_over_the_last_fifth_of_the_limit() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 200)
            .max_idle_conns(200)
            .conn_max_lifetime(SECOND * 1000)
            .conn_max_idle_time(Duration::ZERO)
            .build()
            .await
            .unwrap();
        drop(join_all((0..200).map(|_| pool.acquire())).await);
        sim.sleep(SECOND * 799 - sim.elapsed()).await;
        let mut left = vec![fake.counts().live];
        for _ in 0..4 {
            sim.sleep(SECOND * 50).await;
            left.push(fake.counts().live);
        }
        sim.sleep(SECOND * 2).await;
        assert_eq!((left[0], fake.counts().live), (200, 0));
        for quarter in left.windows(2) {
            let closed = quarter[0] - quarter[1];
            assert!((30..=70).contains(&closed), "{closed} of 200 in a quarter: {left:?}");
        }
    });
}

// How many are kept.

#[test]
fn with_max_idle_zero_none_is_kept() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).max_idle_conns(0).build().await.unwrap();
        // A new one lingers, for whoever it was opened for may come back.
        sim.sleep(MS * 1100).await;
        assert_eq!(fake.counts().live, 0);
        let two = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        assert_eq!(fake.counts().live, 2);
        drop(two);
        sim.sleep(MS).await;
        assert_eq!((fake.counts().live, pool.snapshot().open), (0, 0));
    });
}

#[test]
fn with_max_idle_zero_a_return_still_serves_who_waits() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).max_idle_conns(0).build_lazy().unwrap();
        let conn = pool.acquire().await.unwrap();
        let waiter = caller(&sim, &pool).await;
        drop(conn);
        assert_eq!(waiter.await.unwrap().id(), 1);
    });
}

#[test]
fn what_is_above_max_idle_stays_for_a_second() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).max_idle_conns(1).build().await.unwrap();
        drop(join_all((0..4).map(|_| pool.acquire())).await);
        sim.sleep(MS * 990).await;
        assert_eq!(pool.snapshot().idle, 4);
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().idle, fake.counts().live), (1, 1));
    });
}
