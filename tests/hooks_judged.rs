//! What a hook says is taken for what it is: a dead connection for a dead one, a
//! slow hook for a slow hook.

#[path = "support/reasons.rs"]
mod reasons;

use std::future::{Future, pending, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::Fake;
use millpond::testing::sim::Sim;
use millpond::{Builder, CloseReason, Error, Pool};
use reasons::reasons;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

async fn fill(pool: &Pool<Fake>, count: usize) {
    drop(join_all((0..count).map(|_| pool.acquire())).await);
}

#[test]
fn a_hook_that_takes_too_long_says_nothing_of_the_database() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let calls = AtomicUsize::new(0);
        let (builder, seen) = reasons(pool_of(&fake, &sim, 3));
        let pool = builder
            .reset_timeout(MS * 10)
            .check_after_idle(SECOND * 60)
            .after_release(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
                3 => Box::pin(pending()),
                _ => Box::pin(ready(Ok(()))),
            })
            .build()
            .await
            .unwrap();
        fill(&pool, 3).await;
        sim.sleep(MS).await;
        drop(pool.acquire().await.unwrap());
        sim.sleep(MS * 20).await;
        assert_eq!(*seen.lock().unwrap(), [CloseReason::Refused]);
        drop(pool.acquire().await.unwrap());
        assert_eq!(fake.counts().pings, 1, "only the one of the build: none is suspect");
    });
}

#[test]
fn a_hook_that_meets_a_dead_connection_makes_the_others_suspect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let pool = pool_of(&fake, &sim, 10)
            .before_acquire(move |mut conn| {
                counted.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move { conn.query("SET tenant", &[]).await.map(drop) })
            })
            .build()
            .await
            .unwrap();
        fill(&pool, 10).await;
        calls.store(0, Ordering::Relaxed);
        fake.restart();
        drop(pool.acquire().await.unwrap());
        assert!(calls.load(Ordering::Relaxed) <= 3, "{calls:?} dead ones, one after the other");
    });
}

#[test]
fn an_error_that_condemns_a_connection_counts_in_a_hook_too() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1)
            .after_release(|mut conn| {
                Box::pin(async move {
                    let _ = conn.query("UNLISTEN *", &[]).await;
                    Ok(())
                })
            })
            .build()
            .await
            .unwrap();
        let conn = pool.acquire().await.unwrap();
        fake.restart();
        drop(conn);
        sim.sleep(MS).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.query("mine", &[]).await.expect("not the one that the pool saw die");
    });
}

#[test]
fn the_time_it_was_lent_is_no_idle_time() {
    Sim::new(1).run(async |sim| {
        let idle = Arc::new(OnceLock::new());
        let seen = Arc::clone(&idle);
        let pool = pool_of(&Fake::new(), &sim, 1)
            .before_close(move |conn| {
                let _ = seen.set(conn.info().idle);
                Box::pin(ready(Ok(())))
            })
            .build()
            .await
            .unwrap();
        let conn = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 10).await;
        conn.discard();
        sim.sleep(MS).await;
        let idle = *idle.get().unwrap();
        assert!(idle < SECOND, "never idle, and said to be for {idle:?}");
    });
}

#[test]
fn a_refusal_that_is_over_stops_no_trimming() {
    Sim::new(1).run(async |sim| {
        let calls = AtomicUsize::new(0);
        let pool = pool_of(&Fake::new(), &sim, 2)
            .conn_max_idle_time(SECOND * 10)
            .before_acquire(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
                1 => Box::pin(ready(Err(Error::statement("not this one")))),
                _ => Box::pin(ready(Ok(()))),
            })
            .build()
            .await
            .unwrap();
        let first = pool.acquire().await.unwrap();
        // A new one is refused; the first comes back and serves.
        let mut second = pin!(pool.acquire());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        sim.sleep(Duration::from_micros(1)).await;
        drop(first);
        drop(second.await.unwrap());
        for _ in 0..10 {
            drop(pool.acquire().await.unwrap());
        }
        sim.sleep(SECOND * 600).await;
        assert_eq!(pool.snapshot().open, 0, "admitted ten times since, idle for ten minutes");
    });
}

#[test]
fn a_hook_that_takes_too_long_is_named_in_the_error() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1)
            .acquire_timeout(MS * 50)
            .check_timeout(MS * 10)
            .before_acquire(|_| Box::pin(pending()))
            .build()
            .await
            .unwrap();
        let error = pool.acquire().await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("hook"), "{source}");
    });
}
