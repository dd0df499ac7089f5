//! The application's own code in the life of a connection: when it runs, what
//! it sees, what its refusal does, and that its panic does no more.

use std::future::ready;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::runtime::Runtime;
use millpond::testing::sim::Sim;
use millpond::{
    BoxFuture, Builder, Cause, ConnectionInfo, Error, ErrorKind, Fate, HookConnection, Pool, Reset,
    Result,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// What hooks were called, with what facts, in order.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<(&'static str, ConnectionInfo)>>>);

impl Diary {
    fn hooks(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().unwrap().iter().map(|(hook, info)| (*hook, info.id)).collect()
    }

    fn last(&self, hook: &str) -> ConnectionInfo {
        let diary = self.0.lock().unwrap();
        diary.iter().rev().find(|(other, _)| *other == hook).expect(hook).1
    }
}

/// A hook that writes itself down and refuses nothing.
fn write(
    diary: &Diary,
    hook: &'static str,
) -> impl for<'a> Fn(HookConnection<'a, Fake>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static
{
    let diary = diary.clone();
    move |conn| {
        diary.0.lock().unwrap().push((hook, conn.info()));
        Box::pin(ready(Ok(())))
    }
}

/// All four hooks, each of which writes itself down.
fn observed(builder: Builder<Fake>, diary: &Diary) -> Builder<Fake> {
    builder
        .after_connect(write(diary, "after_connect"))
        .before_acquire(write(diary, "before_acquire"))
        .after_release(write(diary, "after_release"))
        .before_close(write(diary, "before_close"))
}

/// A hook that panics, before there is a future or inside it.
fn panics<'a>(early: bool, _conn: HookConnection<'a, Fake>) -> BoxFuture<'a, Result<()>> {
    if early {
        resume_unwind(Box::new("the hook"));
    }
    Box::pin(async { resume_unwind(Box::new("the hook")) })
}

fn refusal() -> Error {
    Error::statement("not this one")
}

#[test]
fn hooks_run_in_the_order_of_a_connections_life() {
    Sim::new(1).run(async |sim| {
        let diary = Diary::default();
        let pool = observed(pool_of(&Fake::new(), &sim, 1), &diary).build_lazy().unwrap();
        for _ in 0..2 {
            pool.query("work", &[]).await.unwrap();
            sim.sleep(MS).await;
        }
        pool.close().await;
        let life = ["after_connect", "before_acquire", "after_release"];
        let life = life.into_iter().chain(["before_acquire", "after_release", "before_close"]);
        assert_eq!(diary.hooks(), life.map(|hook| (hook, 1)).collect::<Vec<_>>());
    });
}

#[test]
fn hooks_see_age_idle_time_and_uses() {
    Sim::new(1).run(async |sim| {
        let diary = Diary::default();
        let pool = observed(pool_of(&Fake::new(), &sim, 1), &diary).build_lazy().unwrap();
        pool.query("work", &[]).await.unwrap();
        sim.sleep(MS * 400).await;
        let conn = pool.acquire().await.unwrap();
        sim.sleep(MS * 200).await;
        assert_eq!((conn.info().idle, conn.info().uses), (MS * 400, 2));
        drop(conn);
        sim.sleep(MS).await;
        let born = diary.last("after_connect");
        assert_eq!((born.age, born.idle, born.uses), (Duration::ZERO, Duration::ZERO, 0));
        let lent = diary.last("before_acquire");
        assert_eq!((lent.age, lent.idle, lent.uses), (MS * 400, MS * 400, 1));
        let back = diary.last("after_release");
        assert_eq!((back.age, back.idle, back.uses), (MS * 600, Duration::ZERO, 2));
    });
}

#[test]
fn after_connect_runs_once_for_each_connection_before_anybody_sees_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_query(Act::After(MS * 5));
        let pool = pool_of(&fake, &sim, 2)
            .after_connect(|mut conn| {
                Box::pin(async move { conn.query("SET role", &[]).await.map(drop) })
            })
            .build_lazy()
            .unwrap();
        for _ in 0..4 {
            let both = join_all([pool.acquire(), pool.acquire()]).await;
            for conn in both {
                assert_eq!(conn.unwrap().settings(), ["role"]);
            }
        }
        assert_eq!(fake.statements(), ["SET role", "SET role"]);
    });
}

#[test]
fn after_connect_makes_a_session_ready_again_that_was_reset() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1)
            .reset(Reset::Session)
            .after_connect(|mut conn| Box::pin(async move { conn.batch("SET role").await }))
            .build_lazy()
            .unwrap();
        for _ in 0..3 {
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), conn.settings()), (1, &["role".to_owned()][..]));
            conn.query("SET mine", &[]).await.unwrap();
        }
    });
}

#[test]
fn a_refusal_of_after_connect_is_the_error_of_the_connect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1)
            .after_connect(|_| Box::pin(ready(Err(refusal().with_cause(Cause::Auth)))))
            .build_lazy()
            .unwrap();
        let error = pool.acquire().await.unwrap_err();
        assert_eq!(error.to_string(), refusal().to_string(), "permanent, so at once");
        let builder = pool_of(&fake, &sim, 1).after_connect(|_| Box::pin(ready(Err(refusal()))));
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.to_string(), refusal().to_string());
        sim.sleep(MS).await;
        assert_eq!((fake.counts().live, pool.snapshot().connects_failed), (0, 1));
    });
}

#[test]
fn a_hook_that_never_ends_is_bounded_by_the_limit_of_what_it_is_part_of() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1)
            .connect_timeout(SECOND)
            .after_connect(|_| Box::pin(std::future::pending()))
            .build_lazy()
            .unwrap();
        let error = pool.acquire().timeout(SECOND * 2).await.unwrap_err();
        assert!(error.is_timeout());
        sim.sleep(SECOND).await;
        assert_eq!(fake.counts().live, 0);
        let pool = pool_of(&fake, &sim, 1)
            .reset_timeout(SECOND)
            .after_release(|_| Box::pin(std::future::pending()))
            .before_close(|_| Box::pin(std::future::pending()))
            .build_lazy()
            .unwrap();
        drop(pool.acquire().await.unwrap());
        sim.sleep(SECOND * 2 + MS).await;
        assert_eq!((pool.snapshot().open, fake.counts().live), (0, 0));
    });
}

/// Hooks refuse by number; `calls` counts them.
fn every_second_call(calls: &Arc<AtomicUsize>) -> bool {
    calls.fetch_add(1, Ordering::Relaxed) % 2 == 1
}

#[test]
fn a_connection_that_before_acquire_refuses_is_closed_and_the_next_one_serves() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let pool = pool_of(&fake, &sim, 3)
            .before_acquire({
                let calls = Arc::clone(&calls);
                move |conn| {
                    let refuses = conn.info().uses > 0 && every_second_call(&calls);
                    Box::pin(ready(if refuses { Err(refusal()) } else { Ok(()) }))
                }
            })
            .build_lazy()
            .unwrap();
        for _ in 0..20 {
            pool.query("work", &[]).await.expect("one of them is admitted");
            sim.sleep(MS).await;
        }
        let calls = calls.load(Ordering::Relaxed);
        assert_eq!(fake.counts().opened as usize, 1 + calls / 2, "one for each that was refused");
        assert_eq!(pool.snapshot().open, 1);
    });
}

#[test]
fn a_permanent_refusal_goes_to_the_caller_and_says_whether_the_connection_is_kept() {
    for (fate, left) in [(Fate::Reusable, 1), (Fate::Discard, 0)] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let pool = pool_of(&fake, &sim, 1)
                .before_acquire(move |_| {
                    let refusal = refusal().with_cause(Cause::Auth).with_fate(fate);
                    Box::pin(ready(Err(refusal)))
                })
                .build_lazy()
                .unwrap();
            let before = sim.elapsed();
            let error = pool.acquire().await.unwrap_err();
            assert_eq!((error.to_string(), sim.elapsed()), (refusal().to_string(), before));
            sim.sleep(MS).await;
            assert_eq!((pool.snapshot().idle, fake.counts().live as usize), (left, left));
        });
    }
}

/// A pool whose hook refuses everything must not open and close as fast as it
/// can.
#[test]
fn new_connections_that_are_refused_one_after_the_other_are_opened_ever_more_slowly() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4)
            .before_acquire(|_| Box::pin(ready(Err(refusal()))))
            .build_lazy()
            .unwrap();
        let error = pool.acquire().timeout(SECOND * 10).await.unwrap_err();
        let source = std::error::Error::source(&error).expect("the refusal");
        assert_eq!(source.to_string(), "the hook before_acquire refused a new connection");
        let opened = fake.counts().opened;
        assert!((10..60).contains(&opened), "{opened} in ten seconds");
        sim.sleep(SECOND).await;
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn before_acquire_is_asked_for_each_loan_also_when_one_caller_follows_another() {
    Sim::new(1).run(async |sim| {
        let asked = Arc::new(AtomicUsize::new(0));
        let pool = pool_of(&Fake::new(), &sim, 2)
            .health_interval(MS * 50)
            .before_acquire({
                let asked = Arc::clone(&asked);
                move |_| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    Box::pin(ready(Ok(())))
                }
            })
            .build_lazy()
            .unwrap();
        let callers = (0..20).map(|_| {
            let (pool, sim) = (pool.clone(), sim.clone());
            sim.clone().task(async move {
                let conn = pool.acquire().await.unwrap();
                sim.sleep(MS * 10).await;
                drop(conn);
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await;
        }
        sim.sleep(SECOND).await;
        let now = pool.snapshot();
        assert_eq!((asked.load(Ordering::Relaxed), now.acquired), (20, 20));
    });
}

#[test]
fn a_connection_that_after_release_refuses_is_closed() {
    Sim::new(1).run(async |sim| {
        let calls = Arc::new(AtomicUsize::new(0));
        let pool = pool_of(&Fake::new(), &sim, 1)
            .after_release(move |_| {
                let refuses = every_second_call(&calls);
                Box::pin(ready(if refuses { Err(refusal()) } else { Ok(()) }))
            })
            .build_lazy()
            .unwrap();
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(pool.acquire().await.unwrap().id());
        }
        assert_eq!(ids, [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    });
}

#[test]
fn after_release_sees_a_clean_session() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1)
            .after_release(|mut conn| {
                Box::pin(async move {
                    let rows = conn.query("hook", &[]).await?;
                    assert_eq!(rows.scalar::<String>()?, "hook");
                    Ok(())
                })
            })
            .build_lazy()
            .unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.query("BEGIN", &[]).await.unwrap();
        drop(conn);
        assert_eq!(pool.acquire().await.unwrap().id(), 1);
        assert_eq!(fake.statements(), ["BEGIN", "hook"]);
    });
}

#[test]
fn a_hook_that_leaves_a_transaction_open_refuses_the_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let builder = pool_of(&fake, &sim, 1)
            .after_connect(|mut conn| Box::pin(async move { conn.batch("BEGIN").await }));
        let error = builder.build().await.unwrap_err();
        assert_eq!(error.to_string(), "a hook left the session as InTransaction");
        let pool = pool_of(&fake, &sim, 1)
            .after_release(|mut conn| Box::pin(async move { conn.batch("BEGIN").await }))
            .build()
            .await
            .unwrap();
        drop(pool.acquire().await.unwrap());
        assert_eq!(pool.acquire().await.unwrap().info().uses, 1, "another");
    });
}

#[test]
fn a_hook_that_drops_its_statement_half_way_refuses_the_connection() {
    Sim::new(1).run(async |sim| {
        for unverified in [false, true] {
            let fake = Fake::new();
            if unverified {
                fake.unverified();
            }
            let pool = pool_of(&fake, &sim, 1)
                .after_release(|mut conn| {
                    Box::pin(async move {
                        let query = conn.query("abandoned", &[]);
                        millpond::testing::cancel::cancel_after(1, query).await;
                        Ok(())
                    })
                })
                .build_lazy()
                .unwrap();
            let conn = pool.acquire().await.unwrap();
            fake.always_query(Act::After(MS * 5));
            drop(conn);
            let mut conn = pool.acquire().await.unwrap();
            let rows = conn.query("mine", &[]).await.unwrap();
            assert_eq!(rows.scalar::<String>().unwrap(), "mine");
        }
    });
}

/// Panics before there is a future, and inside it.
#[test]
fn a_panic_in_any_hook_counts_as_a_refusal_and_costs_one_connection() {
    for early in [true, false] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let error = pool_of(&fake, &sim, 1)
                .after_connect(move |conn| panics(early, conn))
                .build()
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Panicked);
            assert_eq!(error.to_string(), "a hook panicked: the hook");

            let pool = pool_of(&fake, &sim, 1)
                .before_acquire(move |conn| panics(early, conn))
                .build()
                .await
                .unwrap();
            let error = pool.acquire().timeout(SECOND).await.unwrap_err();
            assert!(error.is_timeout());

            let pool = pool_of(&fake, &sim, 1)
                .after_release(move |conn| panics(early, conn))
                .before_close(move |conn| panics(early, conn))
                .on_leak(|_| resume_unwind(Box::new("the listener")))
                .leak_after(MS * 10)
                .build()
                .await
                .unwrap();
            for uses in [1, 1] {
                let conn = pool.acquire().await.unwrap();
                assert_eq!(conn.info().uses, uses);
                sim.sleep(MS * 40).await;
            }
            assert_eq!(pool.snapshot().leaks, 2);
            assert!(pool.drain(SECOND).await.is_complete());
            sim.sleep(SECOND * 3).await;
            assert_eq!(fake.counts().live, 0);
        });
    }
}

#[test]
fn before_close_is_called_before_the_goodbye_whatever_the_reason() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let closed = Arc::new(AtomicUsize::new(0));
        let pool = pool_of(&fake, &sim, 4)
            .conn_max_idle_time(SECOND)
            .before_close({
                let (closed, fake) = (Arc::clone(&closed), fake.clone());
                move |_| {
                    let so_far = closed.fetch_add(1, Ordering::Relaxed);
                    assert_eq!(fake.counts().goodbyes as usize, so_far);
                    Box::pin(ready(Err(refusal())))
                }
            })
            .build_lazy()
            .unwrap();
        pool.acquire().await.unwrap().discard();
        sim.sleep(MS).await;
        drop(pool.acquire().await.unwrap());
        sim.sleep(SECOND * 2).await;
        drop(pool.acquire().await.unwrap());
        pool.evict();
        sim.sleep(MS).await;
        drop(pool.acquire().await.unwrap());
        pool.close().await;
        assert_eq!((closed.load(Ordering::Relaxed), fake.counts().live), (4, 0));
    });
}

#[test]
fn a_pool_without_hooks_spawns_no_task_for_a_loan() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let before = sim.polls();
        for _ in 0..100 {
            drop(pool.acquire().await.unwrap());
        }
        assert_eq!(sim.polls(), before, "at {:?}", sim.now());
    });
}

#[test]
fn a_try_in_vain_has_a_connection_admitted_for_a_later_one() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2)
            .before_acquire(|_| Box::pin(std::future::ready(Ok(()))))
            .build()
            .await
            .unwrap();
        assert!(pool.try_acquire().is_none(), "the hook has not been asked");
        sim.sleep(MS).await;
        assert!(pool.try_acquire().is_some());
        sim.sleep(MS).await;
        assert!(pool.acquire().timeout(Duration::ZERO).await.is_err());
        sim.sleep(MS).await;
        assert!(pool.acquire().timeout(Duration::ZERO).await.is_ok());
    });
}
