//! What all handles, guards and tasks of a pool share.
//!
//! Owns the order of things: facts are gathered, the lock is taken, the state
//! decides, the lock is gone, effects are carried out. Decides nothing itself.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_listener::Event as Signal;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use millpond_driver::{Driver, Error, Phase, Reset, Result, Runtime};

use super::entry::Held;
use super::events::Event;
use super::hooks::Hooks;
use super::leaks::Leak;
use super::meters::Meters;
use super::probe::{Aside, close_aside};
use super::shelf::Shelf;
#[cfg(all(debug_assertions, not(millpond_loom)))]
use super::snapshot::Snapshot;
use super::state::State;
use super::turn::{Effects, Turn};
use super::waiters::{Answer, Ticket};
use crate::config::Settings;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

pub(super) struct Shared<D: Driver> {
    pub(super) driver: D,
    pub(super) name: String,
    pub(super) runtime: Arc<dyn Runtime>,
    pub(super) hooks: Hooks<D>,
    pub(super) live: Live,
    pub(super) shelf: Shelf<D::Connection>,
    /// What is measured, if anything is.
    pub(super) meters: Option<Meters>,
    /// Where the database is asked how it is.
    pub(super) aside: Aside<D::Connection>,
    state: Mutex<State<D::Connection>>,
    /// The pool has been closed: tasks stop what they do.
    pub(super) closing: Signal,
    /// A closed pool has changed.
    ebbed: Signal,
    /// Handles of the application. The last one closes the pool.
    handles: AtomicUsize,
    /// Connections opened so far, by which they are numbered.
    births: AtomicU64,
}

/// Settings that are read without the lock.
#[derive(Debug)]
pub(super) struct Live {
    min_idle: AtomicUsize,
    keeps_idle: AtomicBool,
    resets_sessions: AtomicBool,
}

impl Live {
    fn new(rules: &Settings) -> Self {
        let live = Self {
            min_idle: AtomicUsize::new(0),
            keeps_idle: AtomicBool::new(false),
            resets_sessions: AtomicBool::new(false),
        };
        live.set(rules);
        live
    }

    pub(super) fn set(&self, rules: &Settings) {
        self.min_idle.store(rules.min_idle, Ordering::Relaxed);
        self.keeps_idle.store(rules.max_idle > 0, Ordering::Relaxed);
        self.resets_sessions.store(rules.reset == Reset::Session, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn min_idle(&self) -> usize {
        self.min_idle.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn keeps_idle(&self) -> bool {
        self.keeps_idle.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn reset(&self) -> Reset {
        match self.resets_sessions.load(Ordering::Relaxed) {
            true => Reset::Session,
            false => Reset::Boundary,
        }
    }
}

impl<D: Driver> Shared<D> {
    /// The state behind one handle.
    pub(super) fn new(
        driver: D,
        runtime: Arc<dyn Runtime>,
        settings: Settings,
        hooks: Hooks<D>,
        name: String,
    ) -> Self {
        let gated = hooks.before_acquire.is_some();
        let shelf = Shelf::new(runtime.now(), &settings, gated);
        let live = Live::new(&settings);
        let meters = settings.metrics_enabled.then(Meters::new);
        let state = Mutex::new(State::new(settings, gated));
        Self {
            driver,
            name,
            runtime,
            hooks,
            live,
            shelf,
            meters,
            aside: Aside::new(),
            state,
            closing: Signal::new(),
            ebbed: Signal::new(),
            handles: AtomicUsize::new(1),
            births: AtomicU64::new(0),
        }
    }

    /// The number of a connection that has just been opened.
    pub(super) fn next_id(&self) -> u64 {
        self.births.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Has others opened if, after a loan, fewer than `min_idle_conns` are idle.
    #[inline]
    pub(super) fn keep_minimum(self: &Arc<Self>) {
        if self.shelf.slots.len() < self.live.min_idle() {
            self.turn(State::settle);
        }
    }

    /// Lets the state decide, then carries out what it decided.
    pub(super) fn turn<R>(
        self: &Arc<Self>,
        visit: impl FnOnce(&mut State<D::Connection>, &mut Turn<'_, D::Connection>) -> R,
    ) -> R {
        self.turn_at(self.runtime.now(), Some(self.runtime.executor()), visit)
    }

    /// As [`turn`](Self::turn), on the way that every release takes while
    /// callers wait: at the coarse time, and without asking which executor
    /// this is, which costs as much as all the rest.
    pub(super) fn hurried_turn<R>(
        self: &Arc<Self>,
        now: Instant,
        visit: impl FnOnce(&mut State<D::Connection>, &mut Turn<'_, D::Connection>) -> R,
    ) -> R {
        self.turn_at(now, None, visit)
    }

    fn turn_at<R>(
        self: &Arc<Self>,
        now: Instant,
        executor: Option<u64>,
        visit: impl FnOnce(&mut State<D::Connection>, &mut Turn<'_, D::Connection>) -> R,
    ) -> R {
        let mut fx = Effects::default();
        let mut turn =
            Turn { shelf: &self.shelf, now, executor, random: self.runtime.random(), fx: &mut fx };
        let result = visit(&mut self.state.lock(), &mut turn);
        for waker in fx.take_wakers() {
            // One that panics keeps nothing from the others.
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
        for job in fx.jobs {
            self.start(job);
        }
        if fx.ebbed {
            self.ebbed.notify(usize::MAX);
        }
        for leak in &fx.leaks {
            self.tell_of(leak);
        }
        for (connection, reason) in fx.closed {
            self.tell(|| Event::Closed { connection, reason });
        }
        if fx.unkept {
            self.turn(State::settle);
        }
        result
    }

    /// What a caller has been answered, if it has been; it then leaves the
    /// queue.
    pub(super) fn answer(
        &self,
        ticket: &mut Option<Ticket>,
    ) -> Option<Answer<Held<D::Connection>>> {
        self.state.lock().collect(ticket)
    }

    /// Looks at the state without changing it.
    pub(super) fn read<R>(&self, look: impl FnOnce(&State<D::Connection>) -> R) -> R {
        look(&self.state.lock())
    }

    /// The settings in force.
    pub(super) fn rules<R>(&self, look: impl FnOnce(&Settings) -> R) -> R {
        self.read(|state| look(&state.rules))
    }

    /// Tells the application of a connection held for too long.
    pub(super) fn tell_of(&self, leak: &Leak) {
        self.tell(|| Event::Leak(leak));
        if let Some(listener) = &self.hooks.on_leak {
            // Its panic is its own affair.
            let _ = catch_unwind(AssertUnwindSafe(|| listener(leak)));
        }
    }

    /// Another handle, unless the last one is gone. Whether there is one.
    pub(super) fn revive_handle(&self) -> bool {
        let more = |handles: usize| (handles > 0).then(|| handles + 1);
        self.handles.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn add_handle(&self) {
        self.handles.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn drop_handle(self: &Arc<Self>) {
        if self.handles.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.close();
        }
    }

    pub(super) fn close(self: &Arc<Self>) {
        self.turn(State::close);
        self.closing.notify(usize::MAX);
        close_aside(self);
    }

    /// Waits until a closed pool satisfies `done`, or for so long.
    pub(super) async fn wait_for_end(
        &self,
        limit: Option<Duration>,
        done: impl Fn(&State<D::Connection>) -> bool,
    ) {
        let deadline = limit.and_then(|limit| self.runtime.now().checked_add(limit));
        let ebb = async {
            loop {
                let ebbed = self.ebbed.listen();
                if self.read(&done) {
                    return;
                }
                ebbed.await;
            }
        };
        match deadline {
            Some(deadline) => {
                select(pin!(ebb), self.runtime.sleep_until(deadline)).await;
            }
            None => ebb.await,
        }
    }

    /// Runs driver code for a task of the pool: bounded in time, ended by the
    /// pool's close, a panic turned into an error.
    pub(super) async fn attempt<T>(
        &self,
        phase: Phase,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let late =
            || Error::timeout(phase, format!("no answer from the database within {limit:?}"));
        self.bounded(limit, work, late).await
    }

    /// The same for any code, with an error of its own for what takes too long.
    pub(super) async fn bounded<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T>>,
        late: impl FnOnce() -> Error,
    ) -> Result<T> {
        let closing = self.closing.listen();
        if self.read(State::is_closed) {
            return Err(Error::closed());
        }
        let deadline = self.deadline(limit);
        let work = pin!(AssertUnwindSafe(work).catch_unwind());
        let stop = select(self.runtime.sleep_until(deadline), closing);
        match select(work, stop).await {
            Either::Left((Ok(result), _)) => result,
            Either::Left((Err(panic), _)) => {
                Err(Error::panicked(panic_message("the driver", &*panic)))
            }
            Either::Right((Either::Left(_), _)) => Err(late()),
            Either::Right((Either::Right(_), _)) => Err(Error::closed()),
        }
    }

    /// The end of an attempt that starts now and may take `limit`; one beyond
    /// what the clock can say is far away.
    pub(super) fn deadline(&self, limit: Duration) -> Instant {
        const FAR: Duration = Duration::from_secs(3600 * 24 * 365);
        let now = self.runtime.now();
        now.checked_add(limit).unwrap_or_else(|| now + FAR)
    }
}

/// Guards, callers and tasks hold what is shared, so a pool that is dropped has
/// none of them left, and its books are closed. So it is in every test.
#[cfg(all(debug_assertions, not(millpond_loom)))]
impl<D: Driver> Drop for Shared<D> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let now = self.read(|state| Snapshot::take(state, &self.shelf));
        let left = (now.open, now.opening, now.waiting);
        assert_eq!(left, (0, 0, 0), "a pool has ended with something left: {now:?}");
        assert_eq!((now.created, now.acquired), (now.closed, now.released), "{now:?}");
    }
}

impl<D: Driver> fmt::Debug for Shared<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("driver", &self.driver.name()).finish_non_exhaustive()
    }
}

/// Who panicked, and what the panic said, if it said anything in words.
pub(super) fn panic_message(who: &str, panic: &(dyn std::any::Any + Send)) -> String {
    let words = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("{who} panicked: {}", words.unwrap_or("no message"))
}
