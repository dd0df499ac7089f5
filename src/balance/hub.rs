//! Where the nodes of a cluster, its callers and its watcher hear of each other.
//!
//! Owns the signals and who is told of events. Decides nothing.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use event_listener::Event as Signal;
use millpond_driver::Runtime;

use super::events::Event;
use crate::sync::{AtomicBool, AtomicU32, Ordering};

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
    /// There is a watcher.
    watched: AtomicBool,
    closed: AtomicBool,
    /// All nodes are to be asked.
    asks_all: AtomicBool,
    /// Callers that wait for a node to be of use.
    awaiting: AtomicU32,
    listener: Option<Listener>,
}

impl Hub {
    pub(super) fn new(runtime: Arc<dyn Runtime>, listener: Option<Listener>) -> Self {
        Self {
            runtime,
            changed: Signal::new(),
            news: Signal::new(),
            wake: Signal::new(),
            watching: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            asks_all: AtomicBool::new(false),
            awaiting: AtomicU32::new(0),
            listener,
        }
    }

    /// Something is going on that the watcher is to look at until it is over.
    #[inline]
    pub(super) fn stir(&self) {
        if !self.watching.load(Ordering::Relaxed) {
            self.start_watching();
        }
    }

    #[cold]
    fn start_watching(&self) {
        if !self.watching.swap(true, Ordering::AcqRel) {
            self.hurry();
        }
    }

    /// Nothing is going on.
    pub(super) fn settle(&self) {
        self.watching.store(false, Ordering::Release);
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

    /// Whether there is a watcher, also after the runtime it ran on has ended.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Acquire)
    }

    /// The right to be the watcher, if there is none.
    pub(super) fn become_watcher(&self) -> bool {
        !self.watched.swap(true, Ordering::AcqRel)
    }

    pub(super) fn watcher_gone(&self) {
        self.watched.store(false, Ordering::Release);
        self.watching.store(false, Ordering::Release);
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
