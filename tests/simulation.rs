//! Whole pools in a simulated world, by the thousand: random latency, refusal,
//! silence, panic and death, callers cancelled at every await point, runtimes
//! that end, hooks that refuse, panic and hang, an operator who resizes, pauses
//! and evicts. The state machine checks its invariants after every transition;
//! here is checked what a user and the server see.
//!
//! `MILLPOND_SEEDS=2000` sets how many seeds are run, `MILLPOND_SEED=7` repeats
//! one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use millpond::drivers::fake::{Fake, Faults};
use millpond::runtime::Runtime;
use millpond::testing::cancel::{cancel_after, cancel_when_woken};
use millpond::testing::sim::Sim;
use millpond::{
    BoxFuture, Builder, Cause, Driver, Error, ErrorKind, Fate, HookConnection, IdleOrder, Pool,
    PooledConnection, Reset, Result, Session,
};

/// What the fake driver says when it is told to panic.
const SCRIPTED: &str = "the fake driver was told to panic";
const MS: Duration = Duration::from_millis(1);

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|n: String| n.parse::<u64>().expect(name));
    match number("MILLPOND_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("MILLPOND_SEEDS").unwrap_or(150)).collect(),
    }
}

/// What one world is like. Drawn from its seed.
struct World {
    max_open: usize,
    reset: Reset,
    hides_state: bool,
    runtimes_end: bool,
    /// An operator is at work.
    operated: bool,
    /// The application has hooks.
    hooked: bool,
    /// Hooks misbehave.
    trouble: Arc<AtomicBool>,
}

/// The most connections an operator allows.
const MOST: usize = 6;

impl World {
    fn drawn(sim: &Sim) -> Self {
        Self {
            max_open: 1 + sim.below(5) as usize,
            reset: if sim.one_in(4) { Reset::Session } else { Reset::Boundary },
            hides_state: sim.one_in(5),
            runtimes_end: sim.one_in(3),
            operated: sim.one_in(2),
            hooked: sim.one_in(3),
            trouble: Arc::new(AtomicBool::new(true)),
        }
    }

    /// The most connections that may exist at any time; the operator has one
    /// more in hand that is not the pool's.
    fn most(&self) -> usize {
        if self.operated { MOST + 1 } else { self.max_open }
    }

    fn equip(&self, sim: &Sim, builder: Builder<Fake>) -> Builder<Fake> {
        if !self.hooked {
            return builder;
        }
        let builder = builder
            .after_connect(self.hook(sim, 10))
            .after_release(self.hook(sim, 10))
            .before_close(self.hook(sim, 3));
        match sim.one_in(2) {
            true => builder.before_acquire(self.hook(sim, 20)),
            false => builder,
        }
    }

    /// A hook that misbehaves now and then.
    fn hook(
        &self,
        sim: &Sim,
        one_in: u64,
    ) -> impl for<'a> Fn(HookConnection<'a, Fake>) -> BoxFuture<'a, Result<()>> + Send + Sync + 'static
    {
        let (sim, trouble) = (sim.clone(), Arc::clone(&self.trouble));
        move |conn| {
            let behaves = !trouble.load(Ordering::Relaxed) || !sim.one_in(one_in);
            Box::pin(call(sim.clone(), behaves, conn))
        }
    }
}

#[test]
fn nothing_is_lost_and_nobody_gets_anybody_elses_rows() {
    silence_scripted_panics();
    for seed in seeds() {
        Sim::new(seed).run(history);
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    silence_scripted_panics();
    let run = |seed| {
        let sim = Sim::new(seed);
        sim.run(history);
        (sim.history(), sim.elapsed())
    };
    for seed in seeds().into_iter().take(20) {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    if seeds().len() > 1 {
        assert_ne!(run(0), run(1));
    }
}

async fn history(sim: Sim) {
    let world = World::drawn(&sim);
    let fake = Fake::new();
    if world.hides_state {
        fake.unverified();
    }
    fake.faults(Faults::each(MS * (1 + sim.below(40) as u32), 12 + sim.below(60) as u32));
    let told = Arc::new(AtomicU64::new(0));
    let pool = world
        .equip(&sim, Pool::builder(fake.clone()))
        .max_open_conns(world.max_open)
        .max_idle_conns(sim.below(world.max_open as u64 + 1) as usize)
        .conn_max_lifetime(MS * (sim.below(3) * 700) as u32)
        .conn_max_idle_time(Duration::ZERO)
        .check_after_idle(MS * (sim.below(3) * 30) as u32)
        .acquire_timeout(MS * 400)
        .connect_timeout(MS * 150)
        .check_timeout(MS * 80)
        .reset_timeout(MS * 120)
        .connect_concurrency(1 + sim.below(3) as usize)
        .max_waiters(4 + sim.below(10) as usize)
        .reset(world.reset)
        .idle_order(if sim.one_in(4) { IdleOrder::Fifo } else { IdleOrder::Lifo })
        .conn_max_uses(sim.below(3) * 7)
        .leak_after(MS * (sim.below(2) * 60) as u32)
        .on_leak({
            let told = Arc::clone(&told);
            move |leak| {
                told.fetch_add(u64::from(!leak.returned), Ordering::Relaxed);
            }
        })
        .runtime(sim.clone())
        .build_lazy()
        .expect("the settings agree");

    let callers: Vec<_> = (0..8)
        .map(|caller| sim.task(use_pool(sim.clone(), pool.clone(), caller, world.reset)))
        .collect();
    let trouble = sim.task(make_trouble(sim.clone(), fake.clone(), world.runtimes_end));
    if world.operated {
        operate(&sim, &pool).await;
    }
    for caller in callers {
        caller.await;
    }
    trouble.await;
    assert_eq!(pool.snapshot().leaks, told.load(Ordering::Relaxed));
    world.trouble.store(false, Ordering::Relaxed);
    pool.resize(world.max_open).expect("as before");
    pool.resume();

    recovers(&sim, &fake, &pool, &world).await;
    let report = pool.drain(Duration::from_secs(60)).await;
    assert!(report.is_complete(), "{report}");
    assert_eq!(fake.counts().live, 0, "a connection outlived its pool");
}

/// One caller: acquires, does something, gives back, dropped at any point.
async fn use_pool(sim: Sim, pool: Pool<Fake>, caller: u64, reset: Reset) {
    for round in 0..20 {
        sim.sleep(MS * sim.below(30) as u32).await;
        if sim.one_in(10) {
            drop(pool.try_acquire());
            continue;
        }
        let acquire = pool.acquire().timeout(MS * sim.below(500) as u32).label("caller");
        let acquired = match sim.below(6) {
            0 => cancel_after(sim.below(4), acquire).await,
            1 => cancel_when_woken(1 + sim.below(3), acquire).await,
            _ => Some(acquire.await),
        };
        let Some(acquired) = acquired else { continue };
        match acquired {
            Ok(mut conn) => {
                if sim.one_in(15) {
                    panic_with(conn);
                } else {
                    let token = format!("token {caller}.{round}");
                    work(&sim, &pool, &mut conn, &token, reset).await;
                }
            }
            Err(error) => assert!(
                error.is_timeout()
                    || error.kind() == ErrorKind::Overloaded
                    || error.message() == REFUSED,
                "no other permanent fault was scripted: {error}"
            ),
        }
        let now = pool.snapshot();
        assert!(now.open + now.opening <= MOST, "{now:?}");
        assert_eq!(now.created - now.closed, now.open as u64, "{now:?}");
        assert_eq!(now.acquired - now.released, now.in_use as u64, "{now:?}");
    }
}

async fn work(
    sim: &Sim,
    pool: &Pool<Fake>,
    conn: &mut PooledConnection<Fake>,
    token: &str,
    reset: Reset,
) {
    let session = pool.driver().session(conn);
    assert!(matches!(session, Session::Clean | Session::Unverified), "lent {session:?}");
    if reset == Reset::Session {
        assert!(conn.settings().is_empty(), "lent with somebody's settings");
    }
    for step in 0..1 + sim.below(3) {
        let token = format!("{token}.{step}");
        let patience = MS * sim.below(200) as u32;
        match sim.below(8) {
            0 => drop(within(sim, patience, conn.query("BEGIN", &[])).await),
            1 => drop(within(sim, patience, conn.query("SET colour", &[])).await),
            2 => dropped(sim, conn.query(&token, &[])).await,
            3 => dropped(sim, conn.native_query(&token)).await,
            4 => drop(within(sim, patience, conn.query("COMMIT", &[])).await),
            _ => {
                // A borrower that goes on after a dropped future reads its own
                // leftovers; what counts is that nobody else does.
                if pool.driver().session(conn) == Session::Busy {
                    return;
                }
                match within(sim, patience, conn.query(&token, &[])).await {
                    Some(Ok(rows)) => {
                        let answer = rows.scalar::<String>().expect("one row of text");
                        let mine = token.split_once('.').expect("caller and round").0;
                        assert!(
                            answer.starts_with(mine) || !answer.starts_with("token"),
                            "asked {token}, got {answer}"
                        );
                    }
                    Some(Err(_)) | None => return,
                }
            }
        }
    }
}

/// A caller that panics while it holds a connection.
fn panic_with(conn: PooledConnection<Fake>) {
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        let _conn = conn;
        std::panic::panic_any(SCRIPTED);
    }));
    assert!(panicked.is_err());
}

/// What a hook says that refuses for good.
const REFUSED: &str = "not for this caller";

/// A hook: it runs a statement of its own, or it refuses, panics, hangs, or
/// leaves something behind.
async fn call(sim: Sim, behaves: bool, mut conn: HookConnection<'_, Fake>) -> Result<()> {
    if behaves {
        let rows = conn.query("hook", &[]).await?;
        assert_eq!(rows.scalar::<String>()?, "hook");
        return Ok(());
    }
    match sim.below(7) {
        0 => Err(Error::statement("not this one")),
        1 => Err(Error::statement(REFUSED).with_cause(Cause::Auth)),
        2 => Err(Error::statement(REFUSED).with_cause(Cause::Auth).with_fate(Fate::Discard)),
        3 => std::panic::panic_any(SCRIPTED),
        4 => std::future::pending().await,
        5 => conn.batch("BEGIN").await,
        _ => {
            dropped(&sim, conn.query("abandoned", &[])).await;
            Ok(())
        }
    }
}

/// Does at random what an operator can do to a running pool.
async fn operate(sim: &Sim, pool: &Pool<Fake>) {
    let weak = pool.downgrade();
    for _ in 0..30 {
        sim.sleep(MS * sim.below(60) as u32).await;
        match sim.below(9) {
            0 | 1 => pool.resize(1 + sim.below(MOST as u64) as usize).expect("a good limit"),
            2 => {
                pool.pause();
                sim.sleep(MS * sim.below(80) as u32).await;
                pool.resume();
            }
            3 => drop(pool.evict()),
            4 => drop(pool.evict_one(1 + sim.below(20))),
            5 => drop(catch_unwind(AssertUnwindSafe(|| {
                pool.retain(|_, _| match sim.below(6) {
                    0 => std::panic::panic_any(SCRIPTED),
                    dice => dice > 2,
                })
            }))),
            6 => {
                if let Some(conn) = pool.try_acquire() {
                    drop(pool.add(conn.detach()));
                }
            }
            7 => {
                let wait = MS * (50 + sim.below(400) as u32);
                let min_idle = sim.below(3) as usize;
                // Refused where it contradicts the size of the moment.
                let _ = pool.reconfigure(|config| {
                    config.acquire_timeout(wait).min_idle_conns(min_idle).max_idle_conns(2)
                });
            }
            _ => drop(weak.upgrade().expect("the pool is there").snapshot()),
        }
    }
}

/// Restarts the server, ends the runtime, drops spawns; leaves a sound world.
async fn make_trouble(sim: Sim, fake: Fake, runtimes_end: bool) {
    for _ in 0..10 {
        sim.sleep(MS * sim.below(150) as u32).await;
        match sim.below(4) {
            0 => drop(fake.restart()),
            1 if runtimes_end => sim.end_executor(),
            2 if runtimes_end => sim.drop_spawns(0.3),
            _ => sim.drop_spawns(0.0),
        }
    }
    sim.drop_spawns(0.0);
}

/// With the trouble over, every slot serves again and the counts agree.
async fn recovers(sim: &Sim, fake: &Fake, pool: &Pool<Fake>, world: &World) {
    fake.faults(Faults::none());
    // Every limit on what was still under way has passed by then.
    sim.sleep(Duration::from_secs(10)).await;
    let mut held = Vec::new();
    for _ in 0..world.max_open {
        let mut conn = pool
            .acquire()
            .timeout(Duration::from_secs(30))
            .await
            .unwrap_or_else(|error| panic!("the pool lost a slot: {error}"));
        let rows = conn.query("mine", &[]).await.expect("the server is well");
        assert_eq!(rows.scalar::<String>().expect("one row of text"), "mine");
        held.push(conn);
    }
    let counts = fake.counts();
    assert_eq!(counts.live, world.max_open as u64, "more live than the pool knows of");
    assert!(counts.peak_live <= world.most() as u64, "more live at a time than max_open_conns");
    let now = pool.snapshot();
    assert_eq!((now.in_use, now.open, now.waiting), (world.max_open, world.max_open, 0), "{now:?}");
    drop(held);
    sim.sleep(Duration::from_secs(10)).await;
    let now = pool.snapshot();
    assert_eq!((now.in_use, now.checking + now.cleaning + now.closing), (0, 0), "{now:?}");
}

/// The answer to `work`, unless it takes longer than `limit` or the driver
/// panics, which reaches the caller as in any library.
async fn within<T>(sim: &Sim, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let work = AssertUnwindSafe(work).catch_unwind();
    match select(pin!(work), sim.sleep_until(sim.now() + limit)).await {
        Either::Left((answer, _)) => answer.ok(),
        Either::Right(_) => None,
    }
}

/// Polls `work` once or not at all and drops it.
async fn dropped<T>(sim: &Sim, work: impl Future<Output = T>) {
    cancel_after(sim.below(2), AssertUnwindSafe(work).catch_unwind()).await;
}

/// Panics of the script are part of the history and not worth a line each.
fn silence_scripted_panics() {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let scripted =
                info.payload().downcast_ref::<&str>().is_some_and(|words| *words == SCRIPTED);
            if !scripted {
                print(info);
            }
        }));
    });
}
