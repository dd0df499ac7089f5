//! One deadline: an acquire ends at its timeout, to the nanosecond, whatever
//! it meets, and says what it met.

use std::error::Error as _;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{Acquire, Builder, Error, ErrorKind, Phase, Pool};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// How long an acquire took that failed, and its error.
async fn vain(sim: &Sim, acquire: Acquire<'_, Fake>) -> (Duration, Error) {
    let start = sim.elapsed();
    let error = acquire.await.expect_err("no connection");
    (sim.elapsed() - start, error)
}

#[test]
fn a_wait_for_others_ends_at_the_deadline() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        sim.sleep(MILLISECOND * 7).await;
        let limit = Duration::from_nanos(250_000_001);
        let (took, error) = vain(&sim, pool.acquire().timeout(limit)).await;
        assert_eq!((took, error.kind()), (limit, ErrorKind::Timeout(Phase::Waiting)));
        assert_eq!((pool.snapshot().timeouts, pool.snapshot().waiting), (1, 0));
    });
}

#[test]
fn every_one_of_many_ends_at_its_own_deadline() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        let limits = [900, 100, 500, 300, 301, 700, 1, 100].map(|ms| MILLISECOND * ms);
        let waits = limits.map(|limit| vain(&sim, pool.acquire().timeout(limit)));
        let took = join_all(waits).await.into_iter().map(|(took, _)| took);
        assert_eq!(Vec::from_iter(took), limits);
    });
}

#[test]
fn a_connect_that_hangs_for_longer_does_not_hold_the_caller() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Hang);
        let pool = pool_of(&fake, &sim, 2).connect_timeout(SECOND * 10).build_lazy().unwrap();
        let (took, error) = vain(&sim, pool.acquire().timeout(SECOND * 3)).await;
        assert_eq!((took, error.kind()), (SECOND * 3, ErrorKind::Timeout(Phase::Connecting)));
        assert!(error.source().is_none(), "nothing has failed yet");
        assert_eq!(pool.snapshot().opening, 1, "the connect goes on");
    });
}

#[test]
fn connects_that_hang_are_given_up_and_tried_again_until_the_deadline() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Hang);
        let pool = pool_of(&fake, &sim, 2).connect_timeout(SECOND).build_lazy().unwrap();
        let (took, error) = vain(&sim, pool.acquire().timeout(SECOND * 5 / 2)).await;
        assert_eq!((took, error.kind()), (SECOND * 5 / 2, ErrorKind::Timeout(Phase::Connecting)));
        assert_eq!(error.source().unwrap().to_string(), "no answer from the database within 1s");
        assert_eq!(fake.counts().connects, 3);
    });
}

#[test]
fn a_connect_that_times_out_is_a_failure_and_a_caller_that_does_is_not() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Hang);
        let pool = pool_of(&fake, &sim, 2).connect_timeout(SECOND * 2).build_lazy().unwrap();
        let (_, error) = vain(&sim, pool.acquire().timeout(SECOND)).await;
        assert!(error.source().is_none(), "nothing is known of the database");
        assert_eq!((pool.snapshot().timeouts, pool.snapshot().connects_failed), (1, 0));
        let (_, error) = vain(&sim, pool.acquire().timeout(SECOND * 3 / 2)).await;
        assert_eq!(error.source().unwrap().to_string(), "no answer from the database within 2s");
        assert_eq!((pool.snapshot().timeouts, pool.snapshot().connects_failed), (2, 1));
    });
}

#[test]
fn a_check_that_hangs_for_longer_does_not_hold_the_caller() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).check_timeout(SECOND * 10).build().await.unwrap();
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::Hang);
        let (took, error) = vain(&sim, pool.acquire().timeout(SECOND / 2)).await;
        assert_eq!((took, error.kind()), (SECOND / 2, ErrorKind::Timeout(Phase::Checking)));
    });
}

/// A network that has dropped eight connections without a word, and a database
/// that accepts new ones.
#[test]
fn idle_connections_that_hang_do_not_add_their_checks_up() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).check_timeout(SECOND).build().await.unwrap();
        let held = join_all((0..8).map(|_| pool.acquire())).await;
        drop(held);
        assert_eq!(pool.snapshot().idle, 8);
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::Hang);
        let start = sim.elapsed();
        pool.acquire().timeout(SECOND * 3).await.unwrap();
        // One check, then the others all at once, then a connect.
        assert_eq!(sim.elapsed() - start, SECOND * 2);
    });
}

#[test]
fn a_cleaning_that_hangs_does_not_hold_a_caller_whom_an_idle_connection_could_serve() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let mut soiled = pool.acquire().await.unwrap();
        drop(pool.acquire().await.unwrap());
        sim.sleep(SECOND * 2).await;
        fake.always_reset(Act::Hang);
        soiled.query("BEGIN", &[]).await.unwrap();
        drop(soiled);
        assert_eq!((pool.snapshot().idle, pool.snapshot().cleaning), (1, 1));
        pool.acquire().timeout(SECOND * 3).await.unwrap();
    });
}

#[test]
fn a_cleaning_that_hangs_does_not_hold_a_caller_whom_a_connect_could_serve() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let mut soiled = pool.acquire().await.unwrap();
        fake.always_reset(Act::Hang);
        soiled.query("BEGIN", &[]).await.unwrap();
        drop(soiled);
        pool.acquire().timeout(SECOND * 3).await.unwrap();
    });
}

#[test]
fn a_database_that_refuses_is_the_source_of_the_timeout() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let shut = Act::Fail(Error::connect("the database is shutting down"));
        fake.next_connects([shut]).always_connect(Act::refuse());
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let (took, error) = vain(&sim, pool.acquire().timeout(SECOND * 3)).await;
        assert_eq!((took, error.kind()), (SECOND * 3, ErrorKind::Timeout(Phase::Connecting)));
        assert_eq!(error.source().unwrap().to_string(), "connection refused", "the last one");
    });
}

#[test]
fn the_timeout_of_a_call_goes_before_that_of_the_pool() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).acquire_timeout(SECOND).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        assert_eq!(vain(&sim, pool.acquire()).await.0, SECOND);
        assert_eq!(vain(&sim, pool.acquire().timeout(SECOND * 2)).await.0, SECOND * 2);
        assert_eq!(vain(&sim, pool.acquire().timeout(SECOND / 2)).await.0, SECOND / 2);
    });
}

/// From when the caller is first polled, not from when its future was made.
#[test]
fn the_timeout_starts_when_the_caller_does() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).acquire_timeout(SECOND).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        let acquire = pool.acquire();
        sim.sleep(SECOND * 5).await;
        assert_eq!(vain(&sim, acquire).await.0, SECOND);
    });
}

#[test]
fn with_no_time_an_idle_connection_is_lent_and_else_the_call_fails_at_once() {
    Sim::new(1).run(async |sim| {
        let pool =
            pool_of(&Fake::new(), &sim, 1).acquire_timeout(Duration::ZERO).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let (took, error) = vain(&sim, pool.acquire()).await;
        assert_eq!((took, error.kind()), (Duration::ZERO, ErrorKind::Timeout(Phase::Waiting)));
        drop(held);
        assert!(pool.acquire().await.is_ok());
    });
}

#[test]
fn with_no_time_a_paused_pool_says_so_at_once() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2).build().await.unwrap();
        pool.pause();
        let error = pool.acquire().timeout(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Paused));
        assert_eq!((sim.elapsed(), pool.snapshot().waiting), (Duration::ZERO, 0));
    });
}

#[test]
fn a_waiter_behind_one_that_ran_out_of_time_is_served() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut first = pin!(pool.acquire().timeout(SECOND));
        let mut second = pin!(pool.acquire().timeout(SECOND * 3));
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        // The first is not polled again: its time runs out all the same.
        sim.sleep(SECOND * 2).await;
        drop(held);
        second.await.unwrap();
        assert_eq!(sim.elapsed(), SECOND * 2);
        assert!(first.await.unwrap_err().is_timeout());
    });
}

#[test]
fn a_full_pool_says_who_has_held_a_connection_longest() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2).build().await.unwrap();
        let line = line!() + 1;
        let _oldest = pool.acquire().label("checkout").await.unwrap();
        sim.sleep(SECOND * 4).await;
        let _other = pool.acquire().label("report").await.unwrap();
        let mut ahead = pin!(pool.acquire());
        assert!(poll!(&mut ahead).is_pending());
        let (_, error) = vain(&sim, pool.acquire().timeout(MILLISECOND * 200)).await;
        let place = error.report().unwrap().oldest.as_ref().unwrap().place;
        assert_eq!((place.file(), place.line()), (file!(), line));
        assert_eq!(
            error.to_string(),
            format!(
                "no connection free within 200ms: 2 of 2 in use, 0 idle, 0 opening, 2 waiting; \
                 oldest held for 4.2s by \"checkout\" at {place}"
            )
        );
    });
}

#[test]
fn a_timeout_while_connecting_says_so() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Hang);
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        let (_, error) = vain(&sim, pool.acquire().timeout(SECOND)).await;
        assert_eq!(
            error.to_string(),
            "no connection opened within 1s: 0 of 8 in use, 0 idle, 1 opening, 1 waiting"
        );
    });
}

#[test]
fn a_timeout_under_refusals_counts_them() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::refuse(), Act::refuse()]).always_connect(Act::Hang);
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        let (_, error) = vain(&sim, pool.acquire().timeout(SECOND)).await;
        assert_eq!(
            error.to_string(),
            "no connection opened within 1s: 0 of 8 in use, 0 idle, 1 opening, 1 waiting; \
             2 connects failed in a row"
        );
        assert_eq!(error.report().unwrap().failed_connects, 2);
    });
}

#[test]
fn a_timeout_while_checking_says_so() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::Hang);
        let (_, error) = vain(&sim, pool.acquire().timeout(SECOND / 2)).await;
        assert_eq!(
            error.to_string(),
            "no connection passed its check within 500ms: \
             0 of 1 in use, 0 idle, 0 opening, 1 checking, 1 waiting"
        );
    });
}

#[test]
fn a_closed_pool_says_so_at_once_to_those_that_wait_and_those_that_come() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        pool.close().await;
        for acquire in [waiter.await, pool.acquire().await] {
            let error = acquire.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
            assert_eq!(error.to_string(), "the pool is closed");
        }
        assert_eq!(sim.elapsed(), Duration::ZERO);
    });
}

#[test]
fn a_caller_cancelled_from_outside_leaves_the_pool_usable() {
    for polls in 0..4 {
        Sim::new(polls).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::After(SECOND));
            let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
            cancel_after(polls, pool.acquire()).await;
            assert_eq!(pool.snapshot().waiting, 0);
            let conn = pool.acquire().timeout(SECOND).await.unwrap();
            assert_eq!(conn.id(), 1, "the connect under way was not wasted");
        });
    }
}

#[test]
fn a_wait_outlives_the_executor_that_kept_its_time() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
            let _held = pool.acquire().await.unwrap();
            let (world, shared) = (sim.clone(), pool.clone());
            let waiter =
                sim.task(async move { vain(&world, shared.acquire().timeout(SECOND * 3)).await });
            sim.sleep(SECOND).await;
            sim.end_executor();
            let (took, error) = waiter.await;
            assert_eq!((took, error.kind()), (SECOND * 3, ErrorKind::Timeout(Phase::Waiting)));
        });
    }
}

#[test]
fn a_connect_that_went_with_its_executor_is_made_again() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::After(SECOND));
            let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
            let (world, shared) = (sim.clone(), pool.clone());
            let waiter = sim.task(async move {
                shared.acquire().timeout(SECOND * 3).await.unwrap();
                world.elapsed()
            });
            sim.sleep(SECOND / 2).await;
            sim.end_executor();
            let served = waiter.await;
            let backoff = SECOND / 20;
            assert!(served >= SECOND * 3 / 2 && served <= SECOND * 3 / 2 + backoff, "{served:?}");
        });
    }
}

#[test]
fn deadlines_hold_where_no_task_can_be_spawned() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let full = pool_of(&fake, &sim, 1).build().await.unwrap();
            let _held = full.acquire().await.unwrap();
            let empty = pool_of(&fake, &sim, 1).build_lazy().unwrap();
            sim.drop_spawns(1.0);
            let waits = [full.acquire().timeout(SECOND), empty.acquire().timeout(SECOND * 2)];
            let ends = join_all(waits.map(|acquire| vain(&sim, acquire))).await;
            assert_eq!((ends[0].0, ends[1].0), (SECOND, SECOND * 2));
            assert_eq!(
                ends[1].1.source().unwrap().to_string(),
                "the async runtime ended before the connect did"
            );
        });
    }
}

#[test]
fn a_timeout_without_end_waits_without_end() {
    Sim::new(1).run(async |sim| {
        let pool =
            pool_of(&Fake::new(), &sim, 1).acquire_timeout(Duration::MAX).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        sim.sleep(SECOND * 3600 * 20).await;
        assert!(poll!(&mut waiter).is_pending());
        drop(held);
        assert!(waiter.await.is_ok());
    });
}

#[test]
fn limits_without_end_on_connects_and_checks_do_not_overflow() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let gate = Gate::new();
        fake.always_connect(Act::Wait(gate.clone())).always_ping(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 1)
            .connect_timeout(Duration::MAX)
            .check_timeout(Duration::MAX)
            .check_after_idle(Duration::ZERO)
            .build_lazy()
            .unwrap();
        let mut waiter = Box::pin(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        sim.sleep(SECOND).await;
        gate.open();
        drop(waiter.await.unwrap());
        drop(pool.acquire().await.unwrap());
        assert_eq!(sim.elapsed(), SECOND * 2, "one check");
    });
}

/// Who waits no time at all was in no count.
#[test]
fn whoever_has_no_time_and_fails_is_counted_and_who_only_tries_is_not() {
    Sim::new(1).run(async |sim| {
        let builder = Pool::builder(Fake::new()).max_open_conns(1).runtime(sim);
        let pool = builder.build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        assert!(pool.try_acquire().is_none());
        assert_eq!(pool.snapshot().timeouts, 0);
        let error = pool.acquire().timeout(Duration::ZERO).await.unwrap_err();
        assert!(error.is_timeout());
        assert_eq!(pool.snapshot().timeouts, 1);
    });
}
