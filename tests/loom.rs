//! The real pool under the model checker: every interleaving of a few threads,
//! up to a bound on preemptions.
//!
//! Owns the claims that one simulated thread cannot test: the stack, its flag,
//! and the hand-over between a thread that gives back and one that goes to
//! sleep. A lost wake-up is a deadlock, which loom reports. Knows nothing of
//! time: the clock stands still.
//!
//! What loom does not see: the `Arc`s, `OnceLock`s and events of the pool stay
//! std's and event-listener's, each one indivisible step here. An event wakes
//! under a lock of its own, where loom must not change threads, so futures
//! that wait for one are polled with a waker outside the model ([`Bell`]).
#![cfg(millpond_loom)]

use std::fmt;
use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread::{self, JoinHandle};
use millpond::drivers::fake::{Act, Fake};
use millpond::runtime::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};
use millpond::{ErrorKind, Pool, PoolConfig, PooledConnection, Snapshot};

/// A runtime whose time stands still. A task runs on the thread that spawns
/// it, as far as it gets; one that waits for time is kept until the end.
#[derive(Clone)]
struct Still {
    now: Instant,
    asleep: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
    /// The pool survives the panic of a task, and loom reports by panic.
    panicked: Bell,
}

impl Still {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        let now = Instant::now();
        Self { now, asleep: Arc::default(), panicked: Bell::default() }
    }

    /// Polls the tasks that sleep, as if all were woken.
    fn stir(&self) {
        let asleep = std::mem::take(&mut *self.asleep.lock().unwrap());
        asleep.into_iter().for_each(|task| self.spawn(task));
    }

    /// Drops the tasks that sleep. They hold the pool, which holds this
    /// runtime: without it, every history explored would stay in memory.
    fn end(&self) {
        let asleep = std::mem::take(&mut *self.asleep.lock().unwrap());
        drop(asleep);
        assert!(!self.panicked.rang(), "a task of the pool panicked");
    }
}

impl fmt::Debug for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Still")
    }
}

impl Runtime for Still {
    fn now(&self) -> Instant {
        self.now
    }

    fn sleep_until(&self, _: Instant) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn spawn(&self, mut task: BoxFuture<'static, ()>) {
        match catch_unwind(AssertUnwindSafe(|| poll(task.as_mut()))) {
            Ok(Poll::Pending) => self.asleep.lock().unwrap().push(task),
            Ok(Poll::Ready(())) => {}
            Err(_) => self.panicked.ring(),
        }
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        job();
    }

    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(pending())
    }

    fn connect<'a>(
        &'a self,
        _: &'a Target,
        _: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(pending())
    }

    fn random(&self) -> u64 {
        0
    }
}

/// Polls once; whoever asked does not wait to be woken.
fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Remembers that it was rung. Clones are one bell, and no business of loom's.
#[derive(Debug, Clone, Default)]
struct Bell(Arc<std::sync::atomic::AtomicBool>);

impl Bell {
    fn ring(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn rang(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

/// A pool that threads race over.
struct Scene {
    pool: Pool<Fake>,
    runtime: Still,
    /// Which connections somebody holds, by their number.
    lent: [AtomicBool; 4],
}

/// Explores every history of `race` over a new pool that has nothing open, and
/// looks at what each leaves behind.
fn explore(config: PoolConfig, race: impl Fn(&Arc<Scene>) + Send + Sync + 'static) {
    loom::model(move || {
        let runtime = Still::new();
        let pool = Pool::builder(Fake::new()).config(config.clone()).runtime(runtime.clone());
        let pool = pool.build_lazy().unwrap();
        let lent = [(); 4].map(|()| AtomicBool::new(false));
        let scene = Arc::new(Scene { pool, runtime: runtime.clone(), lent });
        race(&scene);
        let now = scene.look();
        assert_eq!((now.open, now.waiting), (now.idle, 0), "at rest, all is idle: {now}");
        // And all that is idle can be had, or loom reports a deadlock.
        scene.have(now.idle);
        drop(scene);
        runtime.end();
    });
}

fn pool_of(connections: usize) -> PoolConfig {
    PoolConfig::new().max_open_conns(connections)
}

impl Scene {
    /// Holds so many connections at a time. Then they are open and idle, so
    /// that threads meet on the fast path.
    fn have(&self, connections: usize) {
        let all: Vec<_> = (0..connections).map(|_| self.acquire()).collect();
        drop(all);
    }

    fn acquire(&self) -> PooledConnection<Fake> {
        block_on(self.pool.acquire()).unwrap()
    }

    /// Shows that nobody else holds the connection, and gives it back.
    fn give_back(&self, conn: PooledConnection<Fake>) {
        let mine = &self.lent[conn.id() as usize - 1];
        assert!(!mine.swap(true, Ordering::Relaxed), "one connection, two borrowers");
        mine.store(false, Ordering::Relaxed);
        drop(conn);
    }

    fn borrow(&self) {
        self.give_back(self.acquire());
    }

    /// The pool in numbers, which add up at any moment.
    fn look(&self) -> Snapshot {
        let now = self.pool.snapshot();
        let parts = now.in_use + now.idle + now.checking + now.cleaning + now.closing;
        assert_eq!(now.open, parts, "{now:?}");
        assert_eq!(now.created - now.closed, now.open as u64, "{now:?}");
        assert_eq!(now.acquired - now.released, now.in_use as u64, "{now:?}");
        assert!(now.open + now.opening <= now.max_open.unwrap(), "{now:?}");
        let most = self.pool.driver().counts().peak_live;
        assert!(most <= now.max_open.unwrap() as u64, "{most} at the server at a time");
        now
    }

    fn thread(self: &Arc<Self>, act: impl FnOnce(&Self) + 'static) -> JoinHandle<()> {
        let scene = Arc::clone(self);
        thread::spawn(move || act(&scene))
    }
}

fn borrow_from_each(threads: usize, scene: &Arc<Scene>) {
    let others: Vec<_> = (1..threads).map(|_| scene.thread(Scene::borrow)).collect();
    scene.borrow();
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn two_threads_share_one_connection() {
    explore(pool_of(1), |scene| {
        scene.have(1);
        borrow_from_each(2, scene);
    });
}

#[test]
fn three_threads_share_one_connection() {
    explore(pool_of(1), |scene| {
        scene.have(1);
        borrow_from_each(3, scene);
    });
}

#[test]
fn three_threads_share_two_connections() {
    explore(pool_of(2), |scene| {
        scene.have(2);
        borrow_from_each(3, scene);
    });
}

#[test]
fn threads_that_find_nothing_open_share_what_is_opened() {
    explore(pool_of(1), |scene| borrow_from_each(2, scene));
}

#[test]
fn threads_that_find_a_connection_to_be_checked_share_it() {
    explore(pool_of(1).check_after_idle(Duration::ZERO), |scene| {
        scene.have(1);
        borrow_from_each(2, scene);
    });
}

/// One thread looks at the top of the stack and what is below; the other takes
/// all and gives back in another order, the same one last.
#[test]
fn a_top_that_left_and_came_back_fools_nobody() {
    explore(pool_of(3), |scene| {
        scene.have(3);
        let other = scene.thread(Scene::borrow);
        let mut held: Vec<_> = std::iter::from_fn(|| scene.pool.try_acquire()).take(3).collect();
        held.rotate_left(1);
        held.into_iter().for_each(|conn| scene.give_back(conn));
        other.join().unwrap();
    });
}

#[test]
fn a_discarded_connection_is_replaced_for_who_waits() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let waiter = scene.thread(Scene::borrow);
        held.discard();
        waiter.join().unwrap();
        assert_eq!(scene.look().created, 2);
    });
}

#[test]
fn a_caller_dropped_at_any_moment_passes_its_turn_on() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let fickle = scene.thread(|scene| drop(poll(pin!(scene.pool.acquire()))));
        let patient = scene.thread(Scene::borrow);
        scene.give_back(held);
        fickle.join().unwrap();
        patient.join().unwrap();
    });
}

#[test]
fn a_newcomer_never_overtakes_who_waits() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let mut waiting = pin!(scene.pool.acquire());
        assert!(poll(waiting.as_mut()).is_pending());
        let giver = scene.thread(|scene| scene.give_back(held));
        let newcomer = scene.thread(|scene| {
            assert!(scene.pool.try_acquire().is_none(), "out of turn");
        });
        let conn = block_on(waiting).unwrap();
        newcomer.join().unwrap();
        giver.join().unwrap();
        scene.give_back(conn);
    });
}

#[test]
fn a_caller_that_does_not_wait_takes_nothing_from_those_who_do() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let waiter = scene.thread(Scene::borrow);
        let hasty = scene.thread(|scene| {
            if let Some(conn) = scene.pool.try_acquire() {
                scene.give_back(conn);
            }
        });
        scene.give_back(held);
        waiter.join().unwrap();
        hasty.join().unwrap();
    });
}

#[test]
fn a_close_that_meets_a_return_sees_the_connection_end() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let giver = scene.thread(|scene| scene.give_back(held));
        let bell = Bell::default();
        let waker = Waker::from(Arc::new(bell.clone()));
        let mut drain = pin!(scene.pool.drain(Duration::MAX));
        let mut ended = drain.as_mut().poll(&mut Context::from_waker(&waker));
        giver.join().unwrap();
        if ended.is_pending() {
            assert!(bell.rang(), "nobody tells the closer");
            ended = poll(drain);
        }
        let Poll::Ready(report) = ended else { panic!("closed, and the closer waits on") };
        assert!(report.is_complete(), "{report}");
        let counts = scene.pool.driver().counts();
        assert_eq!((counts.live, counts.goodbyes), (0, 1));
    });
}

#[test]
fn a_close_leaves_nobody_waiting_and_serves_nobody_after() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let caller = scene.thread(|scene| match block_on(scene.pool.acquire()) {
            Ok(conn) => scene.give_back(conn),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
        });
        let giver = scene.thread(|scene| scene.give_back(held));
        let _ = poll(pin!(scene.pool.close()));
        assert!(scene.pool.try_acquire().is_none());
        assert_eq!(block_on(scene.pool.acquire()).unwrap_err().kind(), ErrorKind::Closed);
        caller.join().unwrap();
        giver.join().unwrap();
        assert_eq!(scene.pool.driver().counts().live, 0, "a connection outlives the pool");
    });
}

#[test]
fn a_close_that_meets_a_connect_ends_it() {
    explore(pool_of(1), |scene| {
        scene.pool.driver().always_connect(Act::Hang);
        let caller = scene.thread(|scene| drop(poll(pin!(scene.pool.acquire()))));
        let _ = poll(pin!(scene.pool.close()));
        caller.join().unwrap();
        scene.runtime.stir();
        assert_eq!(scene.look().opening, 0, "a connect outlives the pool");
    });
}

#[test]
fn the_last_of_two_handles_dropped_at_once_closes_the_pool() {
    loom::model(|| {
        let (runtime, server) = (Still::new(), Fake::new());
        let builder = Pool::builder(server.clone()).runtime(runtime.clone());
        let one = block_on(builder.build()).unwrap();
        let two = one.clone();
        let other = thread::spawn(move || drop(two));
        drop(one);
        other.join().unwrap();
        assert_eq!(server.counts().live, 0, "nobody has closed it");
        runtime.end();
    });
}

#[test]
fn a_snapshot_amid_loans_and_returns_adds_up() {
    explore(pool_of(1), |scene| {
        scene.have(1);
        let borrowers = [scene.thread(Scene::borrow), scene.thread(Scene::borrow)];
        let [before, after] = [scene.look(), scene.look()];
        assert_eq!((before.open, after.open), (1, 1));
        assert!(before.acquired <= after.acquired && before.released <= after.released);
        for borrower in borrowers {
            borrower.join().unwrap();
        }
        assert_eq!(scene.look().released, 3);
    });
}

#[test]
fn a_snapshot_amid_opening_and_closing_adds_up() {
    explore(pool_of(1), |scene| {
        let borrower = scene.thread(|scene| scene.acquire().discard());
        scene.look();
        scene.look();
        borrower.join().unwrap();
        assert_eq!(scene.look().closed, 1);
    });
}

#[test]
fn a_report_amid_loans_adds_up_and_names_a_borrower() {
    explore(pool_of(1), |scene| {
        scene.have(1);
        let borrower = scene.thread(|scene| {
            scene.give_back(block_on(scene.pool.acquire().label("lender")).unwrap());
        });
        match block_on(scene.pool.acquire().timeout(Duration::ZERO)) {
            Ok(conn) => scene.give_back(conn),
            Err(error) => {
                let report = error.report().unwrap();
                assert_eq!(report.in_use + report.idle, 1, "{report}");
                if let Some(holder) = &report.oldest {
                    assert_eq!(holder.place.file(), file!());
                }
            }
        }
        borrower.join().unwrap();
    });
}

/// The return either finds the path closed, or lies where the eviction looks, or
/// sees that there was one.
#[test]
fn an_eviction_that_meets_a_return_leaves_nothing_of_what_was_there() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let giver = scene.thread(|scene| scene.give_back(held));
        assert_eq!(scene.pool.evict(), 1);
        giver.join().unwrap();
        let now = scene.look();
        assert_eq!((now.open, now.closed), (0, 1), "{now:?}");
    });
}

#[test]
fn an_eviction_that_meets_loans_leaves_nothing_of_what_was_there() {
    explore(pool_of(2), |scene| {
        scene.have(2);
        let borrower = scene.thread(Scene::borrow);
        assert_eq!(scene.pool.evict(), 2);
        borrower.join().unwrap();
        assert!(scene.look().closed >= 2);
        assert!(scene.acquire().id() > 2);
    });
}

#[test]
fn a_pause_that_meets_a_return_and_a_caller_ends_with_the_caller_served() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let giver = scene.thread(|scene| scene.give_back(held));
        let caller = scene.thread(Scene::borrow);
        scene.pool.pause();
        scene.pool.resume();
        giver.join().unwrap();
        caller.join().unwrap();
    });
}

#[test]
fn a_weak_handle_that_meets_the_last_drop_gives_an_open_pool_or_none() {
    loom::model(|| {
        let (runtime, server) = (Still::new(), Fake::new());
        let builder = Pool::builder(server.clone()).runtime(runtime.clone());
        let pool = block_on(builder.build()).unwrap();
        let weak = pool.downgrade();
        let other = thread::spawn(move || drop(pool));
        if let Some(pool) = weak.upgrade() {
            assert!(!pool.is_closed());
        }
        other.join().unwrap();
        assert_eq!(server.counts().live, 0);
        assert!(weak.upgrade().is_none());
        runtime.end();
    });
}

#[test]
fn what_is_evicted_is_not_lent_to_a_caller_that_comes_after() {
    explore(pool_of(1), |scene| {
        let held = scene.acquire();
        let giver = scene.thread(|scene| scene.give_back(held));
        scene.pool.evict();
        if let Some(conn) = scene.pool.try_acquire() {
            assert_ne!(conn.id(), 1, "put out before this caller came");
        }
        giver.join().unwrap();
    });
}
