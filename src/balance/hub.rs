//! Where the nodes of a cluster, its callers and its watcher hear of each other.
//!
//! Owns the signals and who is told of events. Decides nothing.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_listener::Event as Signal;
use millpond_driver::Runtime;

use super::events::Event;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Who is told what happens.
pub(super) type Listener = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

pub(super) struct Hub {
    pub(super) runtime: Arc<dyn Runtime>,
    /// What nodes may be used for has changed, or a connect has failed: callers
    /// that wait look again.
    pub(super) changed: Signal,
    /// A node has answered, or failed to.
    pub(super) news: Signal,
    /// The watcher has something to do.
    wake: Signal,
    /// The watcher looks every so often; else it is to be woken when there is
    /// something to look at.
    watching: AtomicBool,
    /// The number of the watcher; 0: there is none.
    watcher: AtomicU64,
    /// How many there have been.
    watchers: AtomicU64,
    /// When the watcher is going to look again, in nanoseconds from the start.
    planned: AtomicU64,
    start: Instant,
    closed: AtomicBool,
    /// All nodes are to be asked.
    asks_all: AtomicBool,
    /// Callers that wait for a node to be of use.
    awaiting: AtomicU32,
    listener: Option<Listener>,
}

impl Hub {
    pub(super) fn new(runtime: Arc<dyn Runtime>, listener: Option<Listener>) -> Self {
        let start = runtime.now();
        Self {
            runtime,
            changed: Signal::new(),
            news: Signal::new(),
            wake: Signal::new(),
            watching: AtomicBool::new(false),
            watcher: AtomicU64::new(0),
            watchers: AtomicU64::new(0),
            planned: AtomicU64::new(0),
            start,
            closed: AtomicBool::new(false),
            asks_all: AtomicBool::new(false),
            awaiting: AtomicU32::new(0),
            listener,
        }
    }

    /// Something is going on that the watcher is to look at until it is over.
    #[inline]
    pub(super) fn stir(&self) {
        if !self.watching.load(Ordering::SeqCst) {
            self.start_watching();
        }
    }

    #[cold]
    fn start_watching(&self) {
        if !self.watching.swap(true, Ordering::SeqCst) {
            self.hurry();
        }
    }

    /// Nothing is going on.
    pub(super) fn settle(&self) {
        self.watching.swap(false, Ordering::SeqCst);
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Acquire)
    }

    /// The watcher is to ask all nodes now.
    pub(super) fn ask_all(&self) {
        self.asks_all.store(true, Ordering::Release);
        self.hurry();
    }

    /// Whether it is to, which is asked once.
    pub(super) fn is_to_ask_all(&self) -> bool {
        self.asks_all.swap(false, Ordering::AcqRel)
    }

    /// The watcher is to look now.
    pub(super) fn hurry(&self) {
        self.wake.notify(usize::MAX);
    }

    pub(super) fn woken(&self) -> event_listener::EventListener {
        self.wake.listen()
    }

    /// Somebody waits for a node to be of use, as long as this lives.
    pub(super) fn wait(&self) -> Awaiting<'_> {
        if self.awaiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.ask_all();
        }
        Awaiting(self)
    }

    /// Whether anybody does.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaiting.load(Ordering::Relaxed) > 0
    }

    /// What nodes may be used for has changed.
    pub(super) fn tell_callers(&self) {
        self.changed.notify(usize::MAX);
    }

    /// Whether there is a watcher. There is none after its runtime has ended.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.watcher.load(Ordering::Acquire) != 0
    }

    /// Whether there is one that looks when it is to: its runtime may stand still.
    pub(super) fn is_watched_well(&self) -> bool {
        const MARGIN: Duration = Duration::from_secs(1);
        let planned = Duration::from_nanos(self.planned.load(Ordering::Acquire));
        self.is_watched() && self.runtime.now() <= self.start + planned + MARGIN
    }

    /// The number of a new watcher, if there is no other that does its work.
    pub(super) fn become_watcher(&self) -> Option<u64> {
        let other = self.watcher.load(Ordering::Acquire);
        if self.is_watched_well() {
            return None;
        }
        let number = self.watchers.fetch_add(1, Ordering::Relaxed) + 1;
        let won = self.watcher.compare_exchange(other, number, Ordering::AcqRel, Ordering::Relaxed);
        won.ok().map(|_| {
            self.plan(self.runtime.now());
            number
        })
    }

    /// Whether this is the watcher, and not another one in its place.
    pub(super) fn is_watcher(&self, number: u64) -> bool {
        self.watcher.load(Ordering::Acquire) == number
    }

    /// The watcher looks again then.
    pub(super) fn plan(&self, at: Instant) {
        let planned = at.saturating_duration_since(self.start).as_nanos();
        self.planned.store(u64::try_from(planned).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// This watcher is no more: whoever waits has another one started.
    pub(super) fn watcher_gone(&self, number: u64) {
        let gone = self.watcher.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Relaxed);
        if gone.is_ok() {
            self.watching.store(false, Ordering::SeqCst);
            self.tell_callers();
        }
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.hurry();
        self.tell_callers();
    }

    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Tells of an event. A panic of who is told is its own affair.
    pub(super) fn tell(&self, event: &Event<'_>) {
        if let Some(listener) = &self.listener {
            let _ = catch_unwind(AssertUnwindSafe(|| listener(event)));
        }
    }
}

/// Somebody who waits for a node to be of use.
pub(super) struct Awaiting<'a>(&'a Hub);

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.0.awaiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").finish_non_exhaustive()
    }
}
