//! Trying again: what is repeated and what is not, when, how often, and what is
//! said in the end. On the simulator, so every wait is exact.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::retry::{Budget, Replay};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{
    Cause, Error, ErrorKind, Lent, Outcome, Phase, Pool, Result, RetriedTransaction, Retry, retry,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn refused() -> Error {
    Error::connect("connection refused")
}

fn unsent() -> Error {
    Error::lost("closed by the server").with_outcome(Outcome::NotSent)
}

fn conflict() -> Error {
    Error::statement("deadlock found").with_cause(Cause::Conflict).with_outcome(Outcome::RolledBack)
}

/// How often an operation that always fails so is attempted, and what comes out.
async fn attempts(sim: &Sim, policy: &Retry, error: &Error) -> (u32, Error) {
    let mut made = 0;
    let failed = retry::run(sim, policy, || {
        made += 1;
        async { Err::<(), _>(error.clone()) }
    });
    let error = failed.await.unwrap_err();
    (made, error)
}

async fn pool_of(sim: &Sim, fake: &Fake, connections: usize) -> Pool<Fake> {
    let builder = Pool::builder(fake.clone()).max_open_conns(connections).runtime(sim.clone());
    let pool = builder.build().await.unwrap();
    // All of them, so that a retry may meet one that is dead as well.
    drop(join_all((0..connections).map(|_| pool.acquire())).await);
    pool
}

#[test]
fn the_first_attempt_counts() {
    Sim::new(1).run(async |sim| {
        for most in [1, 2, 3, 7] {
            let policy = Retry::new().max_attempts(most);
            assert_eq!(attempts(&sim, &policy, &refused()).await.0, most);
        }
    });
}

#[test]
fn what_succeeds_is_not_repeated() {
    Sim::new(1).run(async |sim| {
        let (mut made, policy) = (0, Retry::new());
        let done = retry::run(&sim, &policy, || {
            made += 1;
            std::future::ready(Ok(made))
        });
        assert_eq!(done.await.unwrap(), 1);
        assert_eq!(sim.elapsed(), Duration::ZERO);
    });
}

/// The first try-again loop of many an application repeats a syntax error too.
#[test]
fn what_would_fail_again_is_tried_once() {
    Sim::new(1).run(async |sim| {
        let policy = Retry::new().replay(Replay::Idempotent);
        for error in [
            Error::statement("syntax error"),
            Error::statement("duplicate key").with_outcome(Outcome::RolledBack),
            Error::statement("cancelled").with_cause(Cause::Timeout),
            Error::connect("wrong password").with_cause(Cause::Auth),
            Error::config("no such mode"),
            Error::unsupported("that"),
            Error::decode("no such column"),
            Error::closed(),
            Error::overloaded("too many wait"),
            Error::statement("damaged page").with_cause(Cause::Corrupt),
            Error::aborted("not enough money"),
        ] {
            let (made, last) = attempts(&sim, &policy, &error).await;
            assert_eq!((made, last.to_string()), (1, error.to_string()));
        }
    });
}

/// An INSERT whose answer was lost may be in the table.
#[test]
fn what_may_have_taken_effect_is_repeated_only_if_that_does_no_harm() {
    Sim::new(1).run(async |sim| {
        let lost = Error::lost("connection reset by peer");
        let late = Error::timeout(Phase::Statement, "no answer within 5s");
        for error in [lost, late] {
            assert_eq!(attempts(&sim, &Retry::new(), &error).await.0, 1);
            let idempotent = Retry::new().replay(Replay::Idempotent);
            assert_eq!(attempts(&sim, &idempotent, &error).await.0, 3);
        }
    });
}

#[test]
fn callers_that_failed_together_come_back_apart() {
    Sim::new(1).run(async |sim| {
        let policy = Retry::new().max_attempts(2).initial_interval(SECOND).budget(None);
        let callers = (0..100).map(|_| {
            let (policy, here) = (policy.clone(), sim.clone());
            sim.task(async move {
                let _ = attempts(&here, &policy, &refused()).await;
                here.elapsed()
            })
        });
        let back: BTreeSet<Duration> =
            join_all(callers.collect::<Vec<_>>()).await.into_iter().collect();
        assert!(back.len() > 90, "{} of 100 at different times", back.len());
        let (first, last) = (*back.first().unwrap(), *back.last().unwrap());
        assert!(first < MS * 100 && last > MS * 900 && last <= SECOND, "{first:?} to {last:?}");
    });
}

#[test]
fn waits_grow_and_stay_below_the_longest_also_the_first() {
    for seed in 0..50 {
        Sim::new(seed).run(async |sim| {
            let policy = Retry::new()
                .max_attempts(8)
                .initial_interval(MS * 100)
                .multiplier(4.0)
                .max_interval(MS * 300);
            let at = RefCell::new(Vec::new());
            let failed = retry::run(&sim, &policy, || {
                at.borrow_mut().push(sim.elapsed());
                async { Err::<(), _>(refused()) }
            });
            failed.await.unwrap_err();
            let waits: Vec<_> = at.borrow().windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(waits[0] <= MS * 100, "{waits:?}");
            assert!(waits.iter().all(|wait| *wait <= MS * 300), "{waits:?}");
            assert!(waits[1..].iter().any(|wait| *wait > MS * 100), "{waits:?}");
        });
    }
}

#[test]
fn no_attempt_begins_after_the_time_for_all_is_over() {
    for seed in 0..50 {
        Sim::new(seed).run(async |sim| {
            let policy = Retry::new()
                .max_attempts(1000)
                .initial_interval(SECOND)
                .max_interval(SECOND * 2)
                .timeout(SECOND * 5)
                .budget(None);
            let last = Cell::new(Duration::ZERO);
            let failed = retry::run(&sim, &policy, || {
                last.set(sim.elapsed());
                async {
                    sim.sleep(MS * 300).await;
                    Err::<(), _>(refused())
                }
            });
            let error = failed.await.unwrap_err();
            assert!(last.get() < SECOND * 5, "the last began at {:?}", last.get());
            assert!(sim.elapsed() < SECOND * 5 + MS * 300, "waited in vain: {:?}", sim.elapsed());
            assert!(error.earlier().len() > 1, "{error}");
        });
    }
}

/// A wait is a timer of the runtime: it holds up no thread and ends when dropped.
#[test]
fn a_wait_that_is_dropped_is_over() {
    Sim::new(1).run(async |sim| {
        let policy = Retry::new().initial_interval(SECOND).max_interval(SECOND);
        let mut made = 0;
        let running = retry::run(&sim, &policy, || {
            made += 1;
            async { Err::<(), _>(refused()) }
        });
        assert!(cancel_after(1, running).await.is_none());
        assert_eq!((made, sim.elapsed()), (1, Duration::ZERO));
    });
}

#[test]
fn every_attempts_error_is_kept() {
    Sim::new(1).run(async |sim| {
        let errors = [refused(), unsent(), conflict().with_source("the server said so")];
        let mut next = errors.into_iter();
        let policy = Retry::new();
        let failed = retry::run(&sim, &policy, || {
            std::future::ready(Err::<(), _>(next.next().expect("three attempts")))
        });
        let error = failed.await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed after 3 attempts: deadlock found; \
             before that: connection refused; closed by the server"
        );
        let kinds: Vec<_> = error.earlier().iter().map(Error::kind).collect();
        assert_eq!(kinds, [ErrorKind::Connect, ErrorKind::Lost]);
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Statement, Cause::Conflict));
        assert_eq!(error.outcome(), Outcome::RolledBack);
        let source = std::error::Error::source(&error).expect("the last one's own");
        assert_eq!(source.to_string(), "the server said so");
    });
}

#[test]
fn a_policy_that_is_not_valid_is_refused_before_the_first_attempt() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&sim, &Fake::new(), 1).await;
        for policy in [
            Retry::new().max_attempts(0),
            Retry::new().initial_interval(Duration::ZERO),
            Retry::new().max_interval(Duration::ZERO),
            Retry::new().multiplier(f64::NAN),
            Retry::new().multiplier(0.5),
            Retry::new().multiplier(f64::INFINITY),
            Retry::new().timeout(Duration::ZERO),
        ] {
            let (made, error) = attempts(&sim, &policy, &refused()).await;
            assert_eq!((made, error.kind()), (0, ErrorKind::Config), "{error}");
            let ran = pool.run(&policy, |_| Box::pin(async { panic!("an attempt") }));
            let ran: Result<()> = ran.await;
            assert_eq!(ran.unwrap_err().kind(), ErrorKind::Config);
            let ran = pool.transaction(&policy, |_| Box::pin(async { panic!("an attempt") }));
            let ran: Result<()> = ran.await;
            assert_eq!(ran.unwrap_err().kind(), ErrorKind::Config);
            // A loop of one's own makes its first attempt by itself, and no more.
            let error = policy.attempts(&sim).next(refused()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Connect);
        }
    });
}

/// Of multipliers and intervals that are valid, none makes waits that are
/// negative, or none at all.
#[test]
fn the_largest_numbers_make_no_hot_loop() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let policy = Retry::new()
                .max_attempts(20)
                .multiplier(f64::MAX)
                .max_interval(SECOND * 60)
                .timeout(Duration::MAX);
            let policy = policy.budget(None);
            assert_eq!(attempts(&sim, &policy, &refused()).await.0, 20);
            assert!(sim.elapsed() > SECOND * 200, "{:?}", sim.elapsed());
        });
    }
}

/// With three attempts for each request, an outage would get three times the
/// load.
#[test]
fn an_outage_gets_little_more_than_one_attempt_for_each_request() {
    Sim::new(1).run(async |sim| {
        let policy = Retry::new();
        let made = Arc::new(AtomicU64::new(0));
        let mut callers = Vec::new();
        for _ in 0..6_000 {
            sim.sleep(MS * 10).await;
            let (policy, here, made) = (policy.clone(), sim.clone(), Arc::clone(&made));
            callers.push(sim.task(async move {
                let failed = retry::run(&here, &policy, || {
                    made.fetch_add(1, Ordering::Relaxed);
                    async { Err::<(), _>(refused()) }
                });
                failed.await.unwrap_err();
            }));
        }
        assert!(sim.elapsed() >= SECOND * 60);
        join_all(callers).await;
        let (reserve, made) = (10.0, made.load(Ordering::Relaxed) as f64);
        assert!(made <= 6_000.0 * 1.10 + reserve, "{made} attempts for 6000 requests");
        assert!(made >= 6_000.0 + reserve, "the reserve is there to be used");
    });
}

#[test]
fn what_is_refused_by_the_budget_says_so() {
    Sim::new(1).run(async |sim| {
        let budget = Budget::new();
        let policy = Retry::new().max_attempts(100).budget(budget.clone());
        let (made, error) = attempts(&sim, &policy, &conflict()).await;
        assert_eq!((made, error.earlier().len()), (11, 10), "the reserve is ten");
        assert_eq!(error.message(), "no budget for another attempt: deadlock found");
        assert_eq!(error.outcome(), Outcome::RolledBack);
        // Another policy with the same budget has none left either.
        let other = Retry::new().budget(budget);
        assert_eq!(attempts(&sim, &other, &conflict()).await.0, 1);
    });
}

#[test]
fn successes_fill_the_budget_of_a_loop_of_ones_own() {
    Sim::new(1).run(async |sim| {
        let policy = Retry::new().max_attempts(100);
        assert_eq!(attempts(&sim, &policy, &conflict()).await.0, 11);
        for _ in 0..20 {
            policy.attempts(&sim).succeeded();
        }
        assert_eq!(attempts(&sim, &policy, &conflict()).await.0, 3);
    });
}

#[test]
fn a_loop_of_ones_own_goes_on_as_the_policy_says() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 1).await;
        let deadlock = Act::Fail(conflict());
        fake.next_queries([deadlock.clone(), deadlock]);
        let policy = Retry::new();
        let mut attempts = policy.attempts(&sim);
        let rows: Result<_> = async {
            loop {
                match pool.query("mine", &[]).await {
                    Ok(rows) => break Ok(rows),
                    Err(error) => attempts.next(error).await?,
                }
            }
        }
        .await;
        assert_eq!(rows.unwrap().len(), 1);
        assert_eq!(fake.statements(), ["mine"; 3]);
    });
}

#[test]
fn work_on_a_dead_connection_is_repeated_on_another_at_once() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 2).await;
        fake.restart();
        let policy = Retry::new();
        let rows = pool.run(&policy, |conn| Box::pin(conn.query("mine", &[]))).await.unwrap();
        assert_eq!((rows.len(), sim.elapsed()), (1, Duration::ZERO));
        assert_eq!(fake.statements(), ["mine"]);
    });
}

/// That the second statement was not sent says nothing of the first.
#[test]
fn work_of_which_a_statement_took_effect_is_not_repeated() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 2).await;
        let policy = Retry::new();
        let work = pool.run(&policy, |conn| {
            Box::pin(async {
                conn.execute("one", &[]).await?;
                fake.restart();
                conn.execute("two", &[]).await
            })
        });
        assert_eq!(work.await.unwrap_err().outcome(), Outcome::NotSent);
        assert_eq!(fake.statements(), ["one"]);
        // Nor does what another database answers.
        let work = pool.run(&policy, |conn| {
            Box::pin(async {
                conn.execute("three", &[]).await?;
                Err::<(), _>(refused())
            })
        });
        work.await.unwrap_err();
        // What is done past the pool is taken to have had an effect.
        let work = pool.run(&policy, |conn| {
            Box::pin(async {
                conn.native_query("four").await?;
                Err::<(), _>(unsent())
            })
        });
        work.await.unwrap_err();
        assert_eq!(fake.statements(), ["one", "three", "four"]);
    });
}

#[test]
fn idempotent_work_is_repeated_whole() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 2).await;
        fake.next_queries([Act::Answer, Act::cut()]);
        let policy = Retry::new().replay(Replay::Idempotent);
        let work = pool.run(&policy, |conn| {
            Box::pin(async {
                conn.execute("one", &[]).await?;
                conn.execute("two", &[]).await
            })
        });
        work.await.unwrap();
        assert_eq!(fake.statements(), ["one", "two", "one", "two"]);
    });
}

#[test]
fn a_statement_that_was_refused_is_repeated_where_that_helps() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 2).await;
        let refusal = |cause| Act::Fail(Error::statement("no").with_cause(cause));
        let (policy, idempotent) = (Retry::new(), Retry::new().replay(Replay::Idempotent));
        let locked = Cause::LockTimeout;
        for (cause, policy, attempts) in [
            (Cause::WrongRole, &policy, 2),
            (Cause::Overload, &policy, 2),
            (Cause::Starting, &policy, 2),
            (Cause::StaleStatement, &policy, 2),
            (Cause::Conflict, &policy, 2),
            (locked, &policy, 1),
            (locked, &idempotent, 2),
            (Cause::Caller, &idempotent, 1),
        ] {
            let before = fake.counts().queries;
            fake.next_queries([refusal(cause)]);
            let ran = pool.run(policy, |conn| Box::pin(conn.query("mine", &[]))).await;
            let made = fake.counts().queries - before;
            assert_eq!((made, ran.is_ok()), (attempts, attempts == 2), "{cause:?}");
        }
    });
}

#[test]
fn a_wait_holds_no_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 1).await;
        let refusal = Error::statement("no").with_cause(Cause::Overload);
        fake.next_queries([Act::Fail(refusal.clone()), Act::Answer, Act::Fail(refusal)]);
        let own = pool.clone();
        let waiting = sim.task(async move {
            let policy = Retry::new().initial_interval(SECOND);
            own.run(&policy, |conn| Box::pin(conn.query("mine", &[]))).await?;
            own.transaction(&policy, |tx| Box::pin(tx.query("mine", &[]))).await
        });
        while fake.counts().queries < 4 {
            sim.sleep(MS).await;
            let free = pool.acquire().timeout(MS).await;
            assert!(free.is_ok(), "{:?}", fake.statements());
        }
        waiting.await.unwrap();
        assert!(sim.elapsed() > MS * 10, "it never waited: {:?}", sim.elapsed());
    });
}

/// The pool's own limit holds as well, and its refusal is no reason to try again.
#[test]
fn waiting_for_connections_takes_no_longer_than_all_attempts_may() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 1).await;
        let held = pool.acquire().await.unwrap();
        for (limit, expected) in [(MS * 100, MS * 100), (SECOND * 60, SECOND * 30)] {
            let (policy, before) = (Retry::new().timeout(limit), sim.elapsed());
            let work = pool.run(&policy, |conn| Box::pin(conn.query("mine", &[])));
            assert!(work.await.unwrap_err().is_timeout());
            assert_eq!(sim.elapsed() - before, expected);
        }
        drop(held);
    });
}

#[test]
fn both_forms_run_in_spawned_tasks_with_what_they_borrow() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 1).await;
        let here = sim.clone();
        let task = sim.task(async move {
            let policy = Retry::new();
            let (name, mut calls) = (String::from("mine"), 0);
            let run = retry::run(&here, &policy, || async { pool.query(&name, &[]).await });
            run.await?;
            retry::run(&here, &policy, async || pool.query(&name, &[]).await).await?;
            pool.run(&policy, |conn| {
                calls += 1;
                Box::pin(async { conn.query(&name, &[]).await })
            })
            .await?;
            pool.transaction(&policy, |tx| {
                calls += 1;
                let name = &name;
                Box::pin(async move { tx.query(name, &[]).await })
            })
            .await?;
            let mut attempts = policy.attempts(&here);
            loop {
                match pool.query(&name, &[]).await {
                    Ok(_) => break Ok::<_, Error>(calls),
                    Err(error) => attempts.next(error).await?,
                }
            }
        });
        assert_eq!(task.await.unwrap(), 2);
        assert_eq!(fake.statements().iter().filter(|sql| *sql == "mine").count(), 5);
    });
}

#[test]
fn policies_are_shared_between_threads() {
    fn is_shared<T: Send + Sync + Clone>() {}
    fn is_send<T: Send>() {}
    is_shared::<Retry>();
    is_shared::<Budget>();
    is_send::<retry::Attempts<'static>>();
    is_send::<Lent<'static, Fake>>();
    is_send::<RetriedTransaction<'static, Fake, u64>>();
}

#[test]
fn the_errors_of_a_statement_on_the_pool_are_kept_too() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&sim, &fake, 2).await;
        fake.always_query(Act::Fail(unsent()));
        let error = pool.query("mine", &[]).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed after 4 attempts: closed by the server; \
             before that: closed by the server, 3 times"
        );
    });
}

#[test]
fn a_database_that_comes_late_is_waited_for() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::refuse());
            let builder = Pool::builder(fake.clone()).wait_for_database(SECOND * 60);
            let pool = sim.task(builder.runtime(sim.clone()).build());
            sim.sleep(SECOND * 20).await;
            let tried = fake.counts().connects;
            assert!((20..=100).contains(&tried), "{tried} connects in 20 seconds");
            let starting = Error::connect("starting up").with_cause(Cause::Starting);
            let full = Error::connect("too many connections").with_cause(Cause::Overload);
            fake.next_connects([Act::Fail(starting), Act::Fail(full), Act::Answer, Act::Answer]);
            fake.next_pings([Act::cut()]);
            let pool = pool.await.unwrap();
            assert!(sim.elapsed() < SECOND * 25, "{:?}", sim.elapsed());
            assert_eq!((fake.counts().live, pool.snapshot().idle), (1, 1));
        });
    }
}

#[test]
fn what_waiting_does_not_mend_fails_at_once() {
    Sim::new(1).run(async |sim| {
        for error in [
            Error::connect("wrong password").with_cause(Cause::Auth),
            Error::connect("no such mode").with_cause(Cause::Config),
        ] {
            let fake = Fake::new();
            fake.always_connect(Act::Fail(error.clone()));
            let builder = Pool::builder(fake.clone()).wait_for_database(SECOND * 60);
            let failed = builder.runtime(sim.clone()).build().await.unwrap_err();
            assert_eq!(failed.to_string(), error.to_string());
            assert_eq!((fake.counts().connects, sim.elapsed()), (1, Duration::ZERO));
        }
    });
}

#[test]
fn a_database_that_never_comes_is_given_up_at_the_limit_with_nothing_left_open() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            // Refuses, never answers, is lost while it is proved; over and over.
            fake.next_connects([Act::refuse(), Act::Hang, Act::Answer, Act::refuse()]);
            fake.always_ping(Act::Hang);
            let builder = Pool::builder(fake.clone()).wait_for_database(SECOND * 20);
            let error = builder.runtime(sim.clone()).build().await.unwrap_err();
            assert!(sim.elapsed() <= SECOND * 20, "{:?}", sim.elapsed());
            assert!(sim.elapsed() >= SECOND * 18, "{:?}", sim.elapsed());
            assert_eq!(error.earlier().len() as u64 + 1, fake.counts().connects, "{error}");
            assert!(error.earlier().len() >= 4, "{error}");
            assert_eq!(fake.counts().live, 0, "an attempt leaves nothing open");
        });
    }
}

#[test]
fn a_pool_that_waits_for_its_database_may_be_dropped() {
    for polls in 0..8 {
        Sim::new(polls).run(async |sim| {
            let fake = Fake::new();
            fake.next_connects([Act::refuse(), Act::After(MS)]);
            fake.always_ping(Act::After(MS));
            let builder = Pool::builder(fake.clone()).wait_for_database(SECOND * 20);
            let built = cancel_after(polls, builder.runtime(sim.clone()).build()).await;
            drop(built);
            sim.sleep(SECOND * 5).await;
            assert_eq!(fake.counts().live, 0);
        });
    }
}
