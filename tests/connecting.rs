//! How connections are opened: who is told what when they cannot be, and how
//! often the database is asked.

use std::error::Error as _;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::{JoinHandle, Sim};
use millpond::{Builder, Cause, Error, ErrorKind, Phase, Pool, PooledConnection, Result};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// The longest pause between two connects.
const LONGEST_BACKOFF: Duration = SECOND;

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// A caller beside the test, in the queue when this returns.
async fn caller(sim: &Sim, pool: &Pool<Fake>) -> JoinHandle<Result<PooledConnection<Fake>>> {
    let pool = pool.clone();
    let caller = sim.task(async move { pool.acquire().await });
    sim.sleep(MS / 10).await;
    caller
}

fn denied() -> Error {
    Error::connect("password authentication failed").with_cause(Cause::Auth)
}

// Building.

#[test]
fn build_fails_at_once_with_what_the_database_said() {
    for (act, words, permanent) in [
        (Act::refuse(), "connection refused", false),
        (Act::deny(), "password authentication failed", true),
    ] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(act);
            let error = pool_of(&fake, &sim, 4).build().await.unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::Connect, words));
            assert_eq!(error.is_permanent(), permanent);
            assert_eq!((sim.elapsed(), fake.counts().connects), (Duration::ZERO, 1));
        });
    }
}

#[test]
fn build_fails_after_connect_timeout_when_the_connect_hangs() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Hang);
        let builder = pool_of(&fake, &sim, 4).connect_timeout(SECOND * 3);
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        assert_eq!(sim.elapsed(), SECOND * 3);
    });
}

/// Dial and proof share one limit.
#[test]
fn build_fails_after_connect_timeout_when_the_first_ping_hangs() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND * 2)).always_ping(Act::Hang);
        let builder = pool_of(&fake, &sim, 4).connect_timeout(SECOND * 3);
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        assert_eq!((sim.elapsed(), fake.counts().live), (SECOND * 3, 0));
    });
}

#[test]
fn build_fails_with_a_panic_of_the_driver_as_an_error() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Panic);
        let error = pool_of(&fake, &sim, 4).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panicked);
        assert_eq!(
            error.message(),
            "the driver panicked: the fake driver was told to panic",
            "what it said is kept"
        );
    });
}

#[test]
fn a_build_that_is_dropped_leaves_no_connection() {
    for polls in 0..4 {
        Sim::new(polls).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::After(SECOND)).always_ping(Act::After(SECOND));
            cancel_after(polls, pool_of(&fake, &sim, 4).build()).await;
            sim.sleep(SECOND * 10).await;
            assert_eq!(fake.counts().live, 0);
        });
    }
}

#[test]
fn build_lazy_works_with_the_database_down() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::refuse());
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        sim.sleep(SECOND * 60).await;
        assert_eq!(fake.counts().connects, 0, "the first acquire connects");
        fake.always_connect(Act::Answer);
        pool.query("SELECT 1", &[]).await.unwrap();
    });
}

// Refusals that pass.

#[test]
fn one_refusal_that_passes_is_retried_and_hidden() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.next_connects([Act::refuse()]);
            let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
            pool.acquire().await.unwrap();
            assert!(sim.elapsed() <= MS * 50, "took {:?}", sim.elapsed());
            assert_eq!(fake.counts().connects, 2);
        });
    }
}

#[test]
fn a_database_that_comes_back_serves_a_waiter_within_the_backoff() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::refuse());
            let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
            let waiter = caller(&sim, &pool).await;
            sim.sleep(MS * 300 - sim.elapsed()).await;
            fake.always_connect(Act::Answer);
            waiter.await.unwrap();
            assert!(sim.elapsed() >= MS * 300);
            assert!(sim.elapsed() <= MS * 300 + LONGEST_BACKOFF, "took {:?}", sim.elapsed());
        });
    }
}

#[test]
fn callers_whose_connects_are_refused_all_end_at_their_deadline() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::refuse());
        let pool = pool_of(&fake, &sim, 2).acquire_timeout(SECOND * 2).build_lazy().unwrap();
        let callers = (0..6).map(|_| async {
            let error = pool.acquire().await.unwrap_err();
            assert_eq!(sim.elapsed(), SECOND * 2);
            error
        });
        for error in join_all(callers).await {
            assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
            let said = error.source().expect("the refusal").to_string();
            assert_eq!(said, "connection refused");
        }
        let now = pool.snapshot();
        assert_eq!((now.open, now.opening, now.waiting, now.timeouts), (0, 0, 0, 6));
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn a_waiter_is_served_by_a_return_while_connects_are_refused() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        fake.always_connect(Act::refuse());
        let waiter = caller(&sim, &pool).await;
        sim.sleep(SECOND).await;
        let before = sim.elapsed();
        drop(held);
        assert_eq!(waiter.await.unwrap().id(), 1);
        assert_eq!(sim.elapsed(), before);
    });
}

/// Four connects are under way when the first refusal comes; from then on one.
#[test]
fn one_connect_at_a_time_while_the_database_is_down() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::FailAfter(MS * 10, Error::connect("connection refused")));
        let pool = pool_of(&fake, &sim, 20).build_lazy().unwrap();
        let mut callers = Vec::new();
        for _ in 0..20 {
            callers.push(caller(&sim, &pool).await);
        }
        sim.sleep(MS * 15).await;
        let mut seen = 0;
        for _ in 0..5_000 {
            let opening = pool.snapshot().opening;
            assert!(opening <= 1, "{opening} at a time");
            seen += opening;
            sim.sleep(MS).await;
        }
        assert!(seen > 0, "it does try");
    });
}

/// Pauses are drawn from up to a second: one in half a second on average.
#[test]
fn many_waiters_do_not_storm_a_database_that_is_down() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::refuse());
            let pool = pool_of(&fake, &sim, 50).acquire_timeout(SECOND * 60).build_lazy().unwrap();
            join_all((0..50).map(|_| pool.acquire())).await;
            assert_eq!(sim.elapsed(), SECOND * 60);
            let connects = fake.counts().connects;
            assert!((60..=170).contains(&connects), "{connects} connects in a minute");
        });
    }
}

// Refusals that do not.

#[test]
fn a_permanent_refusal_is_told_to_the_caller_at_once() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::deny());
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        let error = pool.acquire().await.unwrap_err();
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Connect, Cause::Auth));
        assert_eq!((sim.elapsed(), fake.counts().connects), (Duration::ZERO, 1));
    });
}

#[test]
fn a_permanent_refusal_is_told_to_everyone_when_nothing_is_open() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::FailAfter(MS * 100, denied()));
        let pool = pool_of(&fake, &sim, 8).connect_concurrency(2).build_lazy().unwrap();
        for result in join_all((0..6).map(|_| pool.acquire())).await {
            assert_eq!(result.unwrap_err().cause(), Cause::Auth);
        }
        assert_eq!((sim.elapsed(), fake.counts().connects), (MS * 100, 2));
    });
}

#[test]
fn newcomers_get_a_permanent_refusal_for_five_seconds_without_a_connect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::deny());
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        pool.acquire().await.unwrap_err();
        for _ in 0..5 {
            assert_eq!(pool.acquire().await.unwrap_err().cause(), Cause::Auth);
            assert!(pool.try_acquire().is_none());
            assert_eq!(fake.counts().connects, 1);
            sim.sleep(SECOND).await;
        }
        fake.always_connect(Act::Answer);
        pool.acquire().await.unwrap();
        assert_eq!((sim.elapsed(), fake.counts().connects), (SECOND * 5, 2));
    });
}

#[test]
fn a_permanent_refusal_is_told_to_one_caller_while_others_may_be_served() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).connect_concurrency(1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        fake.always_connect(Act::deny());
        let told = caller(&sim, &pool).await;
        let others = [caller(&sim, &pool).await, caller(&sim, &pool).await];
        assert_eq!(told.await.unwrap_err().cause(), Cause::Auth);
        assert_eq!((pool.snapshot().waiting, fake.counts().connects), (2, 2));
        drop(held);
        for other in others {
            assert_eq!(other.await.unwrap().id(), 1);
        }
        assert!(sim.elapsed() < SECOND);
    });
}

/// Otherwise newcomers are told at once, and those before them are not.
#[test]
fn a_permanent_refusal_is_told_to_who_waits_once_the_last_connection_is_gone() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).connect_concurrency(1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        fake.always_connect(Act::deny());
        let told = caller(&sim, &pool).await;
        let waiter = caller(&sim, &pool).await;
        assert_eq!(told.await.unwrap_err().cause(), Cause::Auth);
        sim.sleep(SECOND).await;
        let before = sim.elapsed();
        held.discard();
        assert_eq!(waiter.await.unwrap_err().cause(), Cause::Auth);
        assert_eq!((sim.elapsed(), fake.counts().connects), (before, 2));
    });
}

/// A connection that is being closed serves nobody.
#[test]
fn a_permanent_refusal_is_told_to_everyone_while_the_last_connection_says_goodbye() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        fake.always_close(Act::Hang).always_connect(Act::FailAfter(MS * 100, denied()));
        pool.acquire().await.unwrap().discard();
        for result in join_all((0..6).map(|_| pool.acquire())).await {
            assert_eq!(result.unwrap_err().cause(), Cause::Auth);
        }
        assert_eq!(sim.elapsed(), MS * 100);
    });
}

// The slot.

#[test]
fn a_connect_that_hangs_does_not_cost_its_slot() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::Hang]);
        let pool = pool_of(&fake, &sim, 1).connect_timeout(SECOND).build_lazy().unwrap();
        pool.acquire().await.unwrap();
        let took = sim.elapsed();
        assert!((SECOND..=SECOND + MS * 50).contains(&took), "took {took:?}");
    });
}

#[test]
fn a_connect_that_panics_does_not_cost_its_slot() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::Panic]);
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        pool.acquire().await.unwrap();
        assert!(sim.elapsed() <= MS * 50);
    });
}

#[test]
fn a_connect_that_outlives_its_caller_lands_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        let error = pool.acquire().timeout(MS * 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        assert_eq!((sim.elapsed(), pool.snapshot().opening), (MS * 100, 1));
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().idle, fake.counts().connects), (1, 1));
        assert!(pool.try_acquire().is_some());
    });
}

/// The runtime takes the connect with it; the caller, on another, lives on.
#[test]
fn a_connect_dropped_with_its_runtime_does_not_cost_its_slot() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::After(SECOND));
            let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
            let waiter = caller(&sim, &pool).await;
            sim.sleep(MS * 100 - sim.elapsed()).await;
            sim.end_executor();
            waiter.await.unwrap();
            let took = sim.elapsed();
            let again = MS * 1100;
            assert!((again..=again + MS * 50).contains(&took), "took {took:?}");
            assert_eq!(fake.counts().peak_live, 1);
        });
    }
}

#[test]
fn a_try_in_vain_has_a_connection_opened_for_a_later_one() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 100));
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        assert!(pool.try_acquire().is_none());
        let error = pool.acquire().timeout(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        assert_eq!((sim.elapsed(), pool.snapshot().waiting), (Duration::ZERO, 0));
        sim.sleep(MS * 100).await;
        assert!(pool.try_acquire().is_some());
        assert_eq!(fake.counts().connects, 1);
    });
}

// How many.

#[test]
fn no_more_connects_at_a_time_than_connect_concurrency() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 100));
        let pool = pool_of(&fake, &sim, 10).connect_concurrency(3).build_lazy().unwrap();
        let mut callers = Vec::new();
        for _ in 0..10 {
            callers.push(caller(&sim, &pool).await);
        }
        let mut openings = Vec::new();
        for _ in 0..4 {
            openings.push(pool.snapshot().opening);
            sim.sleep(MS * 100).await;
        }
        assert_eq!(openings, [3, 3, 3, 1]);
        assert_eq!(pool.snapshot().in_use, 10);
    });
}

/// Elsewhere each of the fifty opens its own. Here the first four connections
/// serve all of them while the next four are being opened: eight.
#[test]
fn a_burst_of_short_uses_opens_few_connections() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 150));
        let pool = pool_of(&fake, &sim, 50).build_lazy().unwrap();
        let uses = (0..50).map(|_| async {
            let conn = pool.acquire().await.unwrap();
            sim.sleep(MS * 2).await;
            drop(conn);
        });
        join_all(uses).await;
        assert!(sim.elapsed() < MS * 200, "took {:?}", sim.elapsed());
        sim.sleep(MS * 500).await;
        assert!(fake.counts().opened <= 10, "{} opened", fake.counts().opened);
        assert_eq!(fake.counts().opened, 8);
    });
}

// Sharing.

#[test]
fn callers_with_less_patience_than_a_connect_takes_share_one_connect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 10).build_lazy().unwrap();
        for _ in 0..9 {
            pool.acquire().timeout(MS * 100).await.unwrap_err();
        }
        assert!(pool.acquire().timeout(MS * 100).await.is_ok());
        assert_eq!(fake.counts().connects, 1);
    });
}

#[test]
fn first_callers_connect_side_by_side() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 100));
        let pool = pool_of(&fake, &sim, 10).build_lazy().unwrap();
        let held = join_all((0..4).map(|_| pool.acquire())).await;
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(sim.elapsed(), MS * 100);
    });
}

#[test]
fn a_hanging_connect_holds_up_one_caller_and_no_more() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::Hang]);
        let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
        let first = caller(&sim, &pool).await;
        let second = caller(&sim, &pool).await;
        let mut third = caller(&sim, &pool).await;
        let served = [first.await.unwrap(), second.await.unwrap()];
        assert!(sim.elapsed() < MS && poll!(&mut third).is_pending());
        drop(served);
        assert!(third.await.is_ok() && sim.elapsed() < MS, "a return serves it");
    });
}

#[test]
fn a_connect_overtaken_by_a_return_lies_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let held = pool.acquire().await.unwrap();
        fake.always_connect(Act::After(MS * 100));
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        drop(held);
        let served = waiter.await.unwrap();
        assert_eq!((served.id(), sim.elapsed()), (1, Duration::ZERO));
        sim.sleep(MS * 101).await;
        assert_eq!((pool.snapshot().in_use, pool.snapshot().idle), (1, 1));
    });
}

#[test]
fn build_has_one_limit_for_connect_and_ping_together() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND * 3)).always_ping(Act::After(SECOND * 3));
        let built = pool_of(&fake, &sim, 4).build().await;
        assert_eq!((sim.elapsed(), built.unwrap_err().is_timeout()), (SECOND * 5, true));
        sim.sleep(MS).await;
        assert_eq!(fake.counts().live, 0);
    });
}
