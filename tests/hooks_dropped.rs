//! Hooks that refuse, take their time or never end, while callers give up and
//! the pool closes: nothing is lost. What hooks see and decide is in `hooks.rs`.

use std::future::ready;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, pending, select};
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{BoxFuture, Builder, Error, HookConnection, Pool, Result};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// What a hook or an operation does, by number: answers, fails, takes its time,
/// never ends.
fn act(number: usize, error: Error) -> Act {
    match number % 4 {
        0 => Act::Answer,
        1 => Act::Fail(error),
        2 => Act::After(MS * 2),
        _ => Act::Hang,
    }
}

/// A hook that does so until the trouble is over.
fn hook(
    number: usize,
    sim: &Sim,
    trouble: &Arc<AtomicBool>,
) -> impl for<'a> Fn(HookConnection<'a, Fake>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static
{
    let (sim, trouble) = (sim.clone(), Arc::clone(trouble));
    move |_| match number % 4 {
        _ if !trouble.load(Ordering::Relaxed) => Box::pin(ready(Ok(()))),
        0 => Box::pin(ready(Ok(()))),
        1 => Box::pin(ready(Err(Error::statement("not this one")))),
        2 => {
            let sim = sim.clone();
            Box::pin(async move {
                sim.sleep(MS * 2).await;
                Ok(())
            })
        }
        _ => Box::pin(pending()),
    }
}

/// Connect, reset and three hooks, each in four ways: all 1 024 combinations.
#[test]
fn whatever_hooks_and_server_do_the_limit_holds_and_the_pool_recovers() {
    for combination in 0..4_usize.pow(5) {
        Sim::new(combination as u64).run(async |sim| {
            let of = |place: u32| combination / 4_usize.pow(place);
            let fake = Fake::new();
            let trouble = Arc::new(AtomicBool::new(true));
            fake.always_connect(act(of(0), Error::connect("connection refused")))
                .always_reset(act(of(1), Error::lost("connection reset by peer")));
            let pool = pool_of(&fake, &sim, 2)
                .acquire_timeout(MS * 30)
                .connect_timeout(MS * 10)
                .check_timeout(MS * 5)
                .reset_timeout(MS * 5)
                .after_connect(hook(of(2), &sim, &trouble))
                .before_acquire(hook(of(3), &sim, &trouble))
                .after_release(hook(of(4), &sim, &trouble))
                .build_lazy()
                .unwrap();
            let callers = (0..8).map(|_| sim.task(give_up_often(sim.clone(), pool.clone())));
            join_all(callers.collect::<Vec<_>>()).await;

            trouble.store(false, Ordering::Relaxed);
            fake.always_connect(Act::Answer).always_reset(Act::Answer);
            sim.sleep(SECOND * 10).await;
            let now = pool.snapshot();
            let under_way =
                [now.in_use, now.checking, now.cleaning, now.closing, now.opening, now.waiting];
            assert_eq!(under_way, [0; 6], "combination {combination}: {now}");
            let both = join_all([pool.acquire(), pool.acquire()]).await;
            assert!(both.iter().all(Result::is_ok), "combination {combination}: {both:?}");
            assert!(fake.counts().peak_live <= 2, "combination {combination}");
        });
    }
}

async fn give_up_often(sim: Sim, pool: Pool<Fake>) {
    for _ in 0..4 {
        sim.sleep(MS * sim.below(6) as u32).await;
        let acquired = cancel_after(sim.below(4), pool.acquire()).await;
        assert_within_limit(&pool);
        let Some(Ok(mut conn)) = acquired else { continue };
        {
            let patience = sim.sleep(MS * sim.below(4) as u32);
            let begin = conn.begin();
            select(pin!(begin), pin!(patience)).await;
        }
        drop(conn);
        assert_within_limit(&pool);
    }
}

fn assert_within_limit(pool: &Pool<Fake>) {
    let now = pool.snapshot();
    assert!(now.max_open.is_some_and(|max| now.open + now.opening <= max), "{now}");
    assert!(now.idle <= 2, "{now}");
}

#[test]
fn a_caller_that_leaves_during_its_hook_costs_no_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let clock = sim.clone();
        let pool = pool_of(&fake, &sim, 1)
            .before_acquire(move |_| {
                let clock = clock.clone();
                Box::pin(async move {
                    clock.sleep(MS * 10).await;
                    Ok(())
                })
            })
            .build()
            .await
            .unwrap();
        assert!(cancel_after(1, pool.acquire()).await.is_none());
        pool.acquire().timeout(MS * 5).await.unwrap_err();
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.id(), fake.counts().opened), (1, 1));
    });
}

#[test]
fn a_drain_during_a_release_hook_leaves_nothing() {
    for hangs in [true, false] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let clock = sim.clone();
            let pool = pool_of(&fake, &sim, 2)
                .reset_timeout(SECOND * 2)
                .after_release(move |_| {
                    let clock = clock.clone();
                    Box::pin(async move {
                        if hangs {
                            pending::<()>().await;
                        }
                        clock.sleep(SECOND).await;
                        Ok(())
                    })
                })
                .build()
                .await
                .unwrap();
            drop(pool.acquire().await.unwrap());
            sim.sleep(MS).await;
            let report = pool.drain(SECOND * 20).await;
            assert!(report.is_complete(), "{report}");
            assert!(sim.elapsed() <= SECOND * 2, "it took {:?}", sim.elapsed());
            assert_eq!((fake.counts().live, pool.snapshot().open), (0, 0));
        });
    }
}
