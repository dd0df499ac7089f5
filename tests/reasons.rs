//! What is told of a connection's end, and of what went before: the reason that
//! was, each thing told once, nothing told that was not.

#[path = "support/reasons.rs"]
mod reasons;

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, CloseReason, Error, Event, Pool, Reset};
use reasons::reasons;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

#[test]
fn a_refusal_of_after_release_is_counted_as_one() {
    Sim::new(1).run(async |sim| {
        let (builder, seen) = reasons(pool_of(&Fake::new(), &sim, 1));
        let pool = builder
            .after_release(|_| Box::pin(ready(Err(Error::statement("not this one")))))
            .build()
            .await
            .unwrap();
        drop(pool.acquire().await.unwrap());
        sim.sleep(MS).await;
        assert_eq!(*seen.lock().unwrap(), [CloseReason::Refused]);
    });
}

#[test]
fn a_clean_connection_that_comes_back_to_a_closed_pool_was_not_unclean() {
    Sim::new(1).run(async |sim| {
        let (builder, seen) = reasons(pool_of(&Fake::new(), &sim, 1));
        let pool = builder.reset(Reset::Session).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        pool.close().await;
        drop(conn);
        sim.sleep(MS).await;
        assert_eq!(*seen.lock().unwrap(), [CloseReason::PoolClosed]);
    });
}

#[test]
fn a_check_that_the_close_interrupts_has_not_failed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let (builder, seen) = reasons(pool_of(&fake, &sim, 1));
        let pool = builder.build().await.unwrap();
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::Hang);
        let mut acquire = pin!(pool.acquire());
        assert!(acquire.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        pool.close().await;
        sim.sleep(MS).await;
        assert_eq!(*seen.lock().unwrap(), [CloseReason::PoolClosed]);
    });
}

#[test]
fn loans_told_and_ends_of_loans_told_are_as_many() {
    Sim::new(1).run(async |sim| {
        let (lent, back) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (l, b) = (Arc::clone(&lent), Arc::clone(&back));
        let pool = pool_of(&Fake::new(), &sim, 1)
            .observer(move |event: &Event<'_>| match event {
                Event::Acquired { .. } => drop(l.fetch_add(1, Ordering::Relaxed)),
                Event::Released { .. } => drop(b.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            })
            .build()
            .await
            .unwrap();
        drop(pool.acquire().await.unwrap().detach());
        let counts = (lent.load(Ordering::Relaxed), back.load(Ordering::Relaxed));
        let snapshot = pool.snapshot();
        assert_eq!(counts, (snapshot.acquired as usize, snapshot.released as usize));
    });
}

#[test]
fn connections_told_open_are_told_closed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_ping(Act::Fail(Error::lost("reset by peer")));
        let open: Arc<Mutex<Vec<String>>> = Arc::default();
        let writer = Arc::clone(&open);
        let closes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&closes);
        pool_of(&fake, &sim, 1)
            .observer(move |event: &Event<'_>| match event {
                Event::Connected { .. } => writer.lock().unwrap().push("open".to_owned()),
                Event::Closed { .. } => drop(writer.lock().unwrap().pop()),
                _ => {}
            })
            .before_close(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                Box::pin(ready(Ok(())))
            })
            .build()
            .await
            .unwrap_err();
        sim.sleep(SECOND).await;
        assert!(open.lock().unwrap().is_empty(), "told open and never closed");
    });
}

#[test]
fn a_retain_that_panics_is_no_runtime_that_ended() {
    Sim::new(1).run(async |sim| {
        let (builder, seen) = reasons(pool_of(&Fake::new(), &sim, 1));
        let pool = builder.build().await.unwrap();
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.retain(|_, _| std::panic::resume_unwind(Box::new("on purpose")))
        }));
        sim.sleep(MS).await;
        assert_ne!(*seen.lock().unwrap(), [CloseReason::RuntimeEnded]);
    });
}

#[test]
fn a_connect_that_the_close_interrupts_is_no_failed_connect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Hang);
        let failed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&failed);
        let pool = pool_of(&fake, &sim, 1)
            .observer(move |event: &Event<'_>| {
                if let Event::ConnectFailed { .. } = event {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build_lazy()
            .unwrap();
        let _ = pool.try_acquire();
        sim.sleep(MS).await;
        pool.close().await;
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().connects_failed, failed.load(Ordering::Relaxed)), (0, 0));
    });
}

#[test]
fn what_a_hook_of_a_return_said_can_be_learned() {
    Sim::new(1).run(async |sim| {
        let words: Arc<Mutex<String>> = Arc::default();
        let writer = Arc::clone(&words);
        let pool = pool_of(&Fake::new(), &sim, 1)
            .after_release(|_| Box::pin(ready(Err(Error::statement("the reason why")))))
            .observer(move |event: &Event<'_>| *writer.lock().unwrap() += &format!("{event:?}"))
            .build()
            .await
            .unwrap();
        drop(pool.acquire().await.unwrap());
        sim.sleep(MS).await;
        assert!(words.lock().unwrap().contains("the reason why"), "{words:?}");
    });
}
