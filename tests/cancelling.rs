//! Callers that give up, at every moment, and foreign code that panics or calls
//! back: the pool loses nothing, keeps nobody waiting and does not lock up.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::{join_all, select};
use futures_util::{FutureExt, poll};
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::cancel::{cancel_after, cancel_when_woken};
use millpond::testing::sim::Sim;
use millpond::{
    Builder, ConnectContext, Driver, Error, Pool, PooledConnection, Result, Rows, Value,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// Nothing is under way, nobody waits, and a caller is served.
async fn assert_usable<D: Driver>(pool: &Pool<D>) {
    let now = pool.snapshot();
    let under_way = [now.in_use, now.checking, now.cleaning, now.closing, now.opening, now.waiting];
    assert_eq!(under_way, [0; 6], "{now}");
    let mut conn = pool.acquire().timeout(SECOND * 60).await.unwrap();
    let rows = conn.query("mine", &[]).await.unwrap();
    assert_eq!(rows.scalar::<String>().unwrap(), "mine");
}

// Callers that give up.

/// Drops acquires after each number of polls, and after being woken for what
/// they will not take, in a situation that `set_up` makes and lasts 10 ms.
fn dropped_at_every_poll(set_up: impl AsyncFn(&Sim, &Fake) -> Pool<Fake>) {
    for polls in 0..=5 {
        for unpolled_when_woken in [false, true] {
            Sim::new(polls).run(async |sim| {
                let fake = Fake::new();
                let pool = set_up(&sim, &fake).await;
                let acquire = pool.acquire();
                let acquired = if unpolled_when_woken {
                    cancel_when_woken(polls, acquire).await
                } else {
                    cancel_after(polls, acquire).await
                };
                drop(acquired.transpose().unwrap());
                assert_eq!(pool.snapshot().waiting, 0);
                sim.sleep(SECOND / 2).await;
                assert_usable(&pool).await;
                assert!(fake.counts().opened <= 1);
            });
        }
    }
}

#[test]
fn an_acquire_dropped_at_any_poll_leaves_an_idle_pool_usable() {
    dropped_at_every_poll(async |sim, fake| pool_of(fake, sim, 1).build().await.unwrap());
}

#[test]
fn an_acquire_dropped_at_any_poll_leaves_a_busy_pool_usable() {
    dropped_at_every_poll(async |sim, fake| {
        let pool = pool_of(fake, sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let clock = sim.clone();
        drop(sim.task(async move {
            clock.sleep(MS * 10).await;
            drop(held);
        }));
        pool
    });
}

#[test]
fn an_acquire_dropped_at_any_poll_leaves_a_connecting_pool_usable() {
    dropped_at_every_poll(async |sim, fake| {
        fake.always_connect(Act::After(MS * 10));
        pool_of(fake, sim, 1).build_lazy().unwrap()
    });
}

#[test]
fn an_acquire_dropped_at_any_poll_leaves_a_checking_pool_usable() {
    dropped_at_every_poll(async |sim, fake| {
        let pool = pool_of(fake, sim, 1).build().await.unwrap();
        fake.always_ping(Act::After(MS * 10));
        sim.sleep(SECOND * 2).await;
        pool
    });
}

#[test]
fn a_caller_that_gives_up_is_not_counted_as_waiting() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        let mut callers: Vec<_> = (0..3).map(|_| Box::pin(pool.acquire())).collect();
        for caller in &mut callers {
            assert!(poll!(caller).is_pending());
        }
        for left in [2, 1, 0] {
            drop(callers.remove(left / 2));
            assert_eq!(pool.snapshot().waiting, left);
        }
    });
}

#[test]
fn a_caller_that_gives_up_passes_on_what_it_was_handed() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let (mut first, mut second) = (Box::pin(pool.acquire()), Box::pin(pool.acquire()));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        drop(held);
        assert!(poll!(&mut second).is_pending(), "it was the first one's turn");
        drop(first);
        assert!(poll!(&mut second).is_ready());
    });
}

#[test]
fn five_thousand_callers_that_give_up_leave_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut callers: Vec<_> = (0..5_000).map(|_| Box::pin(pool.acquire())).collect();
        for caller in &mut callers {
            assert!(poll!(caller).is_pending());
        }
        let mut next = Box::pin(pool.acquire());
        assert!(poll!(&mut next).is_pending());
        assert_eq!(pool.snapshot().waiting, 5_001);
        while !callers.is_empty() {
            drop(callers.swap_remove(sim.below(callers.len() as u64) as usize));
        }
        assert_eq!(pool.snapshot().waiting, 1);
        drop(held);
        assert!(poll!(&mut next).is_ready());
        drop(next);
        assert_usable(&pool).await;
        assert_eq!(fake.counts().opened, 1);
    });
}

#[test]
fn a_caller_that_panics_with_two_connections_returns_both_slots() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let caller = sim.task({
            let pool = pool.clone();
            async move {
                let _two = join_all([pool.acquire(), pool.acquire()]).await;
                panic!("the caller panics");
            }
        });
        AssertUnwindSafe(caller).catch_unwind().await.unwrap_err();
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().open, fake.counts().live), (0, 0));
        let again = join_all([pool.acquire(), pool.acquire()]).await;
        assert!(again.iter().all(Result::is_ok));
    });
}

/// Each of the server's operations answers, fails, takes its time or never
/// ends: all 1 024 combinations.
#[test]
fn whatever_the_server_does_the_limit_holds_and_the_pool_recovers() {
    for combination in 0..4_usize.pow(5) {
        Sim::new(combination as u64).run(async |sim| {
            let fake = Fake::new();
            let act = |operation: u32, error: Error| match combination / 4_usize.pow(operation) % 4
            {
                0 => Act::Answer,
                1 => Act::Fail(error),
                2 => Act::After(MS * 2),
                _ => Act::Hang,
            };
            let lost = || Error::lost("connection reset by peer");
            fake.always_connect(act(0, Error::connect("connection refused")))
                .always_ping(act(1, lost()))
                .always_query(act(2, lost()))
                .always_reset(act(3, lost()))
                .always_close(act(4, lost()));
            let pool = pool_of(&fake, &sim, 2)
                .acquire_timeout(MS * 30)
                .connect_timeout(MS * 10)
                .check_timeout(MS * 5)
                .reset_timeout(MS * 5)
                .check_after_idle(MS * 3)
                .build_lazy()
                .unwrap();
            join_all((0..4).map(|_| sim.task(give_up_often(sim.clone(), pool.clone())))).await;

            fake.always_connect(Act::Answer)
                .always_ping(Act::Answer)
                .always_query(Act::Answer)
                .always_reset(Act::Answer)
                .always_close(Act::Answer);
            sim.sleep(SECOND * 10).await;
            assert_usable(&pool).await;
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
        if sim.one_in(3) {
            drop(cancel_after(1, conn.begin()).await);
        }
        {
            let patience = sim.sleep(MS * sim.below(4) as u32);
            let query = conn.query("any", &[]);
            select(pin!(query), pin!(patience)).await;
        }
        drop(conn);
        assert_within_limit(&pool);
    }
}

fn assert_within_limit(pool: &Pool<Fake>) {
    let now = pool.snapshot();
    assert!(now.max_open.is_some_and(|max| now.open + now.opening <= max), "{now}");
}

// Foreign code. What locks up here would have run under the pool's lock.

/// A waker that looks at the pool when it is woken and when it is dropped.
struct Curious {
    pool: Pool<Fake>,
    woken: AtomicUsize,
}

impl Curious {
    fn new(pool: &Pool<Fake>) -> Arc<Self> {
        Arc::new(Self { pool: pool.clone(), woken: AtomicUsize::new(0) })
    }

    fn woken(&self) -> usize {
        self.woken.load(Ordering::Relaxed)
    }
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        self.pool.snapshot();
        self.woken.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Curious {
    fn drop(&mut self) {
        self.pool.snapshot();
    }
}

/// A waker that panics when it is woken.
struct Panicking;

impl Wake for Panicking {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

/// Polls by hand, with a waker that nobody but the pool keeps.
fn poll_with<F: Future + Unpin>(
    future: &mut F,
    waker: Arc<impl Wake + Send + Sync + 'static>,
) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(waker)))
}

#[test]
fn a_waker_may_call_the_pool_when_a_connection_is_handed_over() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let curious = Curious::new(&pool);
        let mut caller = pool.acquire();
        assert!(poll_with(&mut caller, Arc::clone(&curious)).is_pending());
        drop(held);
        assert_eq!(curious.woken(), 1);
        assert!(poll_with(&mut caller, curious).is_ready());
    });
}

#[test]
fn a_waker_may_call_the_pool_when_it_is_replaced_or_given_up() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut caller = pool.acquire();
        for _ in 0..3 {
            assert!(poll_with(&mut caller, Curious::new(&pool)).is_pending());
        }
        drop(caller);
        drop(held);
        assert_usable(&pool).await;
    });
}

#[test]
fn a_waker_may_call_the_pool_when_time_is_up_or_the_pool_closes() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        let late = Curious::new(&pool);
        let mut hasty = pool.acquire().timeout(SECOND);
        assert!(poll_with(&mut hasty, Arc::clone(&late)).is_pending());
        sim.sleep(SECOND * 2).await;
        assert_eq!(late.woken(), 1);
        assert!(poll_with(&mut hasty, Arc::clone(&late)).is_ready());

        let told = Curious::new(&pool);
        let mut patient = pool.acquire();
        assert!(poll_with(&mut patient, Arc::clone(&told)).is_pending());
        pool.close().await;
        assert!(told.woken() >= 1);
        assert!(poll_with(&mut patient, told).is_ready());
    });
}

/// A caller whose runtime has dropped the pool's keeper keeps the time itself,
/// with its own waker.
#[test]
fn a_waker_that_keeps_the_pools_time_may_call_the_pool() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        sim.drop_spawns(1.0);
        sim.end_executor();
        for polls in 1..=3 {
            let curious = Curious::new(&pool);
            let mut caller = pool.acquire().timeout(SECOND);
            for _ in 0..polls {
                assert!(poll_with(&mut caller, Curious::new(&pool)).is_pending());
            }
            assert!(poll_with(&mut caller, Arc::clone(&curious)).is_pending());
            sim.sleep(SECOND).await;
            assert!(curious.woken() >= 1, "it kept its own time");
            drop(caller);
        }
        sim.drop_spawns(0.0);
        drop(held);
        assert_usable(&pool).await;
    });
}

#[test]
fn a_waker_that_panics_does_not_cost_the_connection_it_was_woken_for() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut caller = pool.acquire();
        assert!(poll_with(&mut caller, Arc::new(Panicking)).is_pending());
        // Whether the panic comes out is left open.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(held)));
        drop(caller);
        assert_usable(&pool).await;
    });
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_waiting() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        let mut first = pool.acquire().timeout(SECOND);
        let mut second = pool.acquire().timeout(SECOND);
        let other = Curious::new(&pool);
        assert!(poll_with(&mut first, Arc::new(Panicking)).is_pending());
        assert!(poll_with(&mut second, Arc::clone(&other)).is_pending());
        sim.sleep(SECOND * 2).await;
        assert_eq!(other.woken(), 1, "its time was up a second ago");
        assert!(poll_with(&mut second, other).is_ready());
    });
}

/// The newcomer has a connect started and wakes the caller that keeps the time,
/// to have it look earlier. That waker's panic must leave the newcomer neither
/// a place in the queue nor a slot in which nothing opens.
#[test]
fn a_waker_that_panics_costs_neither_a_slot_nor_a_place_in_the_queue() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        sim.end_executor();
        sim.drop_spawns(1.0);
        let mut keeper = pool.acquire();
        assert!(poll_with(&mut keeper, Arc::new(Panicking)).is_pending());
        sim.drop_spawns(0.0);
        fake.always_connect(Act::After(MS * 10));
        held.into_iter().for_each(PooledConnection::discard);
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().opening, pool.snapshot().open), (1, 0));

        let mut newcomer = pool.acquire().timeout(SECOND);
        let _ = catch_unwind(AssertUnwindSafe(|| poll_with(&mut newcomer, Curious::new(&pool))));
        drop((newcomer, keeper));
        sim.sleep(SECOND).await;
        assert_usable(&pool).await;
    });
}

/// A driver whose connections look at their pool when they are dropped.
#[derive(Default)]
struct Nosy {
    pool: Arc<OnceLock<Pool<Self>>>,
}

struct NosyConnection(Arc<OnceLock<Pool<Nosy>>>);

impl Drop for NosyConnection {
    fn drop(&mut self) {
        if let Some(pool) = self.0.get() {
            pool.snapshot();
        }
    }
}

impl Driver for Nosy {
    type Connection = NosyConnection;

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<NosyConnection> {
        Ok(NosyConnection(Arc::clone(&self.pool)))
    }

    async fn ping(&self, _: &mut NosyConnection) -> Result<()> {
        Err(Error::lost("no pulse"))
    }

    async fn query(&self, _: &mut NosyConnection, sql: &str, _: &[Value]) -> Result<Rows> {
        match sql {
            "cut" => Err(Error::lost("cut")),
            "hang" => std::future::pending().await,
            _ => Ok(Rows::one("echo", sql)),
        }
    }
}

#[test]
fn a_connection_may_call_its_pool_when_it_is_dropped() {
    Sim::new(1).run(async |sim| {
        let driver = Nosy::default();
        let home = Arc::clone(&driver.pool);
        let pool =
            Pool::builder(driver).max_open_conns(1).runtime(sim.clone()).build_lazy().unwrap();
        assert!(home.set(pool.clone()).is_ok());
        let borrow = async || -> PooledConnection<Nosy> { pool.acquire().await.unwrap() };

        borrow().await.discard();
        borrow().await.query("cut", &[]).await.unwrap_err();
        cancel_after(1, borrow().await.query("hang", &[])).await;
        drop(borrow().await);
        sim.sleep(SECOND * 2).await;
        assert_eq!(borrow().await.id(), 5, "the fourth had lain idle and failed its check");
        let held = borrow().await;
        sim.drop_spawns(1.0);
        drop(held);
        sim.drop_spawns(0.0);
        assert_eq!(borrow().await.id(), 6);

        let report = pool.drain(SECOND).await;
        assert!(report.is_complete(), "{report}");
    });
}
