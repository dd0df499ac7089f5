//! Uses that are rare, in which the promises hold all the same.

use std::future::{Future, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, Driver, Error, Leak, Pool, Reset, Session, WeakPool};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

struct Panics;
impl Drop for Panics {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
}

#[derive(Debug)]
struct Curious(Arc<OnceLock<WeakPool<Fake>>>);
impl std::fmt::Display for Curious {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("curious")
    }
}
impl std::error::Error for Curious {}
impl Drop for Curious {
    fn drop(&mut self) {
        if let Some(pool) = self.0.get().and_then(WeakPool::upgrade) {
            let _ = pool.snapshot();
        }
    }
}

#[test]
fn a_stale_connection_that_retain_kept_is_checked_before_it_is_lent() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).health_interval(Duration::ZERO).build().await.unwrap();
        sim.sleep(SECOND * 60).await;
        fake.restart();
        let mut acquire = pin!(pool.acquire());
        let mut cx = Context::from_waker(Waker::noop());
        pool.retain(|_, _| {
            assert!(acquire.as_mut().poll(&mut cx).is_pending());
            true
        });
        let mut conn = acquire.await.unwrap();
        conn.query("mine", &[]).await.expect("idle for a minute, so it was checked");
    });
}

#[test]
fn a_transaction_that_retain_left_open_is_not_lent() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        pool.retain(|_, conn| {
            let mut cx = Context::from_waker(Waker::noop());
            let _ = pin!(conn.native_query("BEGIN")).poll(&mut cx);
            true
        });
        let conn = pool.acquire().await.unwrap();
        assert_eq!(fake.session(&conn), Session::Clean);
    });
}

#[test]
fn a_loan_is_reported_on_time_when_the_limit_is_lowered() {
    Sim::new(1).run(async |sim| {
        let told: Arc<Mutex<Vec<(Duration, Leak)>>> = Arc::default();
        let pool = pool_of(&Fake::new(), &sim, 1)
            .leak_after(SECOND * 60)
            .on_leak({
                let (told, sim) = (Arc::clone(&told), sim.clone());
                move |leak: &Leak| told.lock().unwrap().push((sim.elapsed(), leak.clone()))
            })
            .build()
            .await
            .unwrap();
        let _held = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 30).await;
        pool.reconfigure(|config| config.leak_after(SECOND * 20)).unwrap();
        sim.sleep(SECOND * 60).await;
        let at = told.lock().unwrap()[0].0;
        assert!(at < SECOND * 31, "held for longer already, told only at {at:?}");
    });
}

#[test]
fn an_attached_value_that_panics_when_dropped_costs_no_slot() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.attach(Panics);
        conn.discard();
        sim.sleep(SECOND * 3).await;
        assert_eq!((pool.snapshot().open, fake.counts().live), (0, 0), "{}", pool.snapshot());
        pool.acquire().timeout(SECOND).await.expect("the slot came back");
    });
}

#[test]
fn an_attached_value_that_panics_when_detached_costs_no_slot() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.attach(Panics);
        let detached =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || drop(conn.detach())));
        drop(detached);
        sim.sleep(SECOND * 3).await;
        assert_eq!(pool.snapshot().open, 0, "{}", pool.snapshot());
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn what_an_error_carries_is_not_dropped_under_the_lock() {
    let (done, ended) = mpsc::channel();
    #[expect(clippy::disallowed_methods, reason = "a deadlock must not hang the test")]
    std::thread::spawn(move || {
        Sim::new(1).run(async |sim| {
            let weak = Arc::new(OnceLock::new());
            let (inner, calls) = (Arc::clone(&weak), AtomicUsize::new(0));
            let pool = pool_of(&Fake::new(), &sim, 2)
                .before_acquire(move |_| {
                    let answer = match calls.fetch_add(1, Ordering::Relaxed) {
                        0 => Err(Error::statement("no").with_source(Curious(Arc::clone(&inner)))),
                        _ => Ok(()),
                    };
                    Box::pin(ready(answer))
                })
                .build()
                .await
                .unwrap();
            weak.set(pool.downgrade()).unwrap_or_else(|_| unreachable!());
            drop(pool.acquire().await.unwrap());
            drop(pool.acquire().await.unwrap());
        });
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(5)).expect("a deadlock");
}

#[test]
fn a_try_in_vain_has_one_ready_for_the_next_also_where_none_is_kept_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).max_idle_conns(0).build_lazy().unwrap();
        let mut got = false;
        for _ in 0..10 {
            got |= pool.try_acquire().is_some();
            sim.sleep(MS * 10).await;
        }
        assert!(got, "{} opened for nothing", fake.counts().connects);
    });
}

#[test]
fn a_reset_asked_for_holds_for_those_that_are_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        pool.acquire().await.unwrap().query("SET tenant=1", &[]).await.unwrap();
        pool.reconfigure(|config| config.reset(Reset::Session)).unwrap();
        let conn = pool.acquire().await.unwrap();
        assert!(conn.settings().is_empty(), "{:?}", conn.settings());
    });
}

#[test]
fn a_cleaning_is_waited_for_a_tenth_of_a_second_whatever_else_comes_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::After(SECOND * 2));
        let pool = pool_of(&fake, &sim, 30).reset(Reset::Session).build().await.unwrap();
        let mut held = join_all((0..20).map(|_| pool.acquire())).await;
        drop(held.pop());
        let since = sim.elapsed();
        let waited = sim.task({
            let (pool, sim) = (pool.clone(), sim.clone());
            async move {
                let _conn = pool.acquire().await.unwrap();
                sim.elapsed() - since
            }
        });
        while let Some(conn) = held.pop() {
            sim.sleep(MS * 90).await;
            drop(conn);
        }
        let waited = waited.await;
        assert!(waited < MS * 200, "{waited:?}, and there was room for ten more");
    });
}

#[test]
fn a_shorter_check_after_idle_holds_for_those_that_are_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1)
            .check_after_idle(SECOND * 3600)
            .health_interval(Duration::ZERO)
            .build()
            .await
            .unwrap();
        pool.reconfigure(|config| config.check_after_idle(SECOND)).unwrap();
        sim.sleep(SECOND * 300).await;
        drop(pool.acquire().await.unwrap());
        assert_eq!(fake.counts().pings, 2, "one of the build, one after five minutes");
    });
}

#[test]
fn the_table_of_everything_has_everything() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        pool.pause();
        let table = format!("{:#}", pool.snapshot());
        assert!(table.contains("leaks") && table.contains("paused"), "{table}");
    });
}
