//! A simulated runtime: one thread, a virtual clock, a seed.
//!
//! Owns the order in which tasks run and the time they see, both drawn from
//! the seed, so that a history with its every race can be repeated. When
//! nothing is ready the clock jumps to the next timer; when there is none, the
//! run is stuck, and that is a failure. Knows nothing of pools or databases.
//!
//! The shape is FoundationDB's ("Testing Distributed Systems w/ Deterministic
//! Simulation", 2014), at the size that a pool needs.

mod join;

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use millpond_driver::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};

pub use join::JoinHandle;

/// The tick of the simulated coarse clock.
const TICK: Duration = Duration::from_millis(4);

/// A test that takes longer is stuck, whatever timers still tick in it.
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);

/// A simulated runtime. Clones share it.
///
/// ```
/// use std::time::Duration;
/// use millpond::{runtime::Runtime, testing::sim::Sim};
///
/// let sim = Sim::new(7);
/// let hour = Duration::from_secs(3600);
/// let elapsed = sim.run(async |sim| {
///     let start = sim.now();
///     sim.sleep(hour).await;
///     sim.now() - start
/// });
/// assert_eq!(elapsed, hour);
/// ```
#[derive(Clone)]
pub struct Sim(Arc<World>);

struct World {
    seed: u64,
    start: Instant,
    state: Mutex<State>,
    /// Apart from the state, so that waking needs no other lock.
    ready: Arc<Mutex<Vec<TaskId>>>,
}

struct State {
    elapsed: Duration,
    random: fastrand::Rng,
    tasks: BTreeMap<TaskId, Task>,
    last_id: TaskId,
    timers: BTreeMap<(Instant, u64), Waker>,
    last_timer: u64,
    executor: u64,
    dropped_spawns: f64,
    history: u64,
    polls: u64,
}

type TaskId = u64;
const MAIN: TaskId = 0;

struct Task {
    /// `None` while it is being polled.
    future: Option<BoxFuture<'static, ()>>,
    /// The executor it runs on; `None`: the test's own.
    executor: Option<u64>,
}

impl Sim {
    /// A world whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an instant can be made in no other way")]
        let start = Instant::now();
        Self(Arc::new(World {
            seed,
            start,
            state: Mutex::new(State {
                elapsed: Duration::ZERO,
                random: fastrand::Rng::with_seed(seed),
                tasks: BTreeMap::new(),
                last_id: MAIN,
                timers: BTreeMap::new(),
                last_timer: 0,
                executor: 1,
                dropped_spawns: 0.0,
                history: 0,
                polls: 0,
            }),
            ready: Arc::default(),
        }))
    }

    /// Runs a test to its end. Tasks still running then are dropped.
    ///
    /// # Panics
    ///
    /// If the test waits and nothing can ever wake it, or for a virtual day.
    /// The message says how to repeat the run.
    pub fn run<R>(&self, test: impl AsyncFnOnce(Self) -> R) -> R {
        let _replay = ReplayOnPanic(self.0.seed);
        let mut main = pin!(test(self.clone()));
        self.wake(MAIN);
        let result = loop {
            let Some(id) = self.next_ready() else {
                let waiting = self.state().tasks.len();
                assert!(
                    self.advance() && self.elapsed() <= LONGEST_RUN,
                    "stuck: the test waits and nothing wakes it ({waiting} tasks wait as well)"
                );
                continue;
            };
            let waker = self.waker(id);
            let mut cx = Context::from_waker(&waker);
            if id == MAIN {
                if let Poll::Ready(result) = main.as_mut().poll(&mut cx) {
                    break result;
                }
            } else {
                self.poll_task(id, &mut cx);
            }
        };
        self.drop_tasks(|_| true);
        result
    }

    /// Runs a future beside the test, as a caller on a runtime of its own that
    /// outlives [`end_executor`](Self::end_executor).
    ///
    /// # Panics
    ///
    /// Awaiting the handle panics if the task did.
    pub fn task<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        let (task, handle) = join::joinable(future);
        self.insert(Box::pin(task), None);
        handle
    }

    /// Sleeps for a time.
    pub async fn sleep(&self, time: Duration) {
        self.sleep_until(self.now() + time).await;
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.state().elapsed
    }

    /// A random number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.state().random.u64(0..limit)
    }

    /// True in one case of `cases`.
    pub fn one_in(&self, cases: u64) -> bool {
        self.below(cases) == 0
    }

    /// From now on a spawn drops its task unseen in this share of cases, as a
    /// runtime does that is shutting down.
    pub fn drop_spawns(&self, share: f64) {
        self.state().dropped_spawns = share;
    }

    /// The runtime ends and another takes its place: every task spawned
    /// through [`Runtime::spawn`] is dropped where it stands.
    pub fn end_executor(&self) {
        let ended = {
            let mut state = self.state();
            state.executor += 1;
            state.executor - 1
        };
        self.drop_tasks(|task| task.executor.is_some_and(|executor| executor <= ended));
    }

    /// A number that two runs share exactly if they took the same course.
    pub fn history(&self) -> u64 {
        self.state().history
    }

    /// How many times a task has been polled so far.
    pub fn polls(&self) -> u64 {
        self.state().polls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn insert(&self, future: BoxFuture<'static, ()>, executor: Option<u64>) {
        let id = {
            let mut state = self.state();
            state.last_id += 1;
            let id = state.last_id;
            state.tasks.insert(id, Task { future: Some(future), executor });
            id
        };
        self.wake(id);
    }

    fn waker(&self, task: TaskId) -> Waker {
        Waker::from(Arc::new(TaskWaker { task, ready: Arc::clone(&self.0.ready) }))
    }

    fn wake(&self, task: TaskId) {
        lock(&self.0.ready).push(task);
    }

    /// One of the ready tasks, by chance.
    fn next_ready(&self) -> Option<TaskId> {
        let mut state = self.state();
        let mut ready = lock(&self.0.ready);
        ready.sort_unstable();
        ready.dedup();
        if ready.is_empty() {
            return None;
        }
        let at = state.random.usize(0..ready.len());
        let id = ready.swap_remove(at);
        state.polls += 1;
        state.history = (state.history ^ id).wrapping_mul(0x0100_0000_01b3).rotate_left(5);
        Some(id)
    }

    fn poll_task(&self, id: TaskId, cx: &mut Context<'_>) {
        let taken = self.state().tasks.get_mut(&id).and_then(|task| task.future.take());
        let Some(mut future) = taken else { return };
        // As on the real runtimes, a panic ends the task and nothing else.
        let done =
            catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx).is_ready())).unwrap_or(true);
        let leftover = {
            let mut state = self.state();
            match state.tasks.get_mut(&id) {
                Some(task) if !done => {
                    task.future = Some(future);
                    None
                }
                _ => {
                    state.tasks.remove(&id);
                    Some(future)
                }
            }
        };
        drop(leftover);
    }

    /// Jumps to the next timer. False if there is none.
    fn advance(&self) -> bool {
        let due = {
            let mut state = self.state();
            let Some((&(at, _), _)) = state.timers.first_key_value() else { return false };
            state.elapsed = state.elapsed.max(at - self.0.start);
            let later = state.timers.split_off(&(at, u64::MAX));
            std::mem::replace(&mut state.timers, later)
        };
        due.into_values().for_each(Waker::wake);
        true
    }

    fn drop_tasks(&self, which: impl Fn(&Task) -> bool) {
        let dropped: Vec<Task> = {
            let mut state = self.state();
            let ids: Vec<_> =
                state.tasks.iter().filter(|(_, task)| which(task)).map(|(&id, _)| id).collect();
            ids.into_iter().filter_map(|id| state.tasks.remove(&id)).collect()
        };
        drop(dropped);
    }
}

impl Runtime for Sim {
    fn now(&self) -> Instant {
        self.0.start + self.elapsed()
    }

    fn coarse_now(&self) -> Instant {
        let nanos = self.elapsed().as_nanos() as u64;
        let tick = TICK.as_nanos() as u64;
        self.0.start + Duration::from_nanos(nanos - nanos % tick)
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let sim = self.clone();
        let mut timer: Option<Timer> = None;
        Box::pin(poll_fn(move |cx| {
            if sim.now() >= deadline {
                return Poll::Ready(());
            }
            drop(timer.replace(Timer::set(&sim, deadline, cx.waker().clone())));
            Poll::Pending
        }))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        let (drops, executor) = {
            let mut state = self.state();
            let share = state.dropped_spawns;
            (share > 0.0 && state.random.f64() < share, state.executor)
        };
        if drops {
            drop(task);
        } else {
            self.insert(task, Some(executor));
        }
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.insert(Box::pin(async move { job() }), Some(self.executor()));
    }

    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async { Err(no_network()) })
    }

    fn connect<'a>(
        &'a self,
        _target: &'a Target,
        _options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async { Err(no_network()) })
    }

    fn random(&self) -> u64 {
        self.state().random.u64(..)
    }

    fn executor(&self) -> u64 {
        self.state().executor
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}

fn no_network() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "the simulator has no network")
}

/// A timer that is set, and unset when dropped.
struct Timer {
    sim: Sim,
    key: (Instant, u64),
}

impl Timer {
    fn set(sim: &Sim, deadline: Instant, waker: Waker) -> Self {
        let mut state = sim.state();
        state.last_timer += 1;
        let key = (deadline, state.last_timer);
        state.timers.insert(key, waker);
        Self { sim: sim.clone(), key }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let waker = self.sim.state().timers.remove(&self.key);
        drop(waker);
    }
}

struct TaskWaker {
    task: TaskId,
    ready: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        lock(&self.ready).push(self.task);
    }
}

/// Says how to repeat the run when it fails.
struct ReplayOnPanic(u64);

impl Drop for ReplayOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The program is named as the file of the test, and a hash.
            let program = std::env::current_exe().unwrap_or_default();
            let program = program.file_stem().unwrap_or_default().to_string_lossy();
            let test = program.rsplit_once('-').map_or(&*program, |(test, _)| test);
            eprintln!(
                "the simulation failed with seed {seed}; to repeat it: \
                 MILLPOND_SEED={seed} cargo test -p millpond --test {test}",
                seed = self.0
            );
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
