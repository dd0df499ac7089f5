//! What a thread is doing for a connection: how long it may wait for a lock,
//! how long a statement may hold it, and how it is told to stop.
//!
//! Owns the two callbacks SQLite makes in the middle of a statement and the
//! signals around them. Does not know statements, rows or who waits for them.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millpond_driver::{Runtime, Session};
use rusqlite::InterruptHandle;

/// How long a wait for a lock sleeps before it looks again. The [`Gate`] wakes
/// it earlier when this process lets a lock go, so these matter between
/// processes only.
const PAUSES_MS: [u8; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];

thread_local! {
    /// The errand this thread runs; `None` on a caller's own thread, which may
    /// not wait at all.
    static ERRAND: RefCell<Option<Errand>> = const { RefCell::new(None) };
    /// Progress callbacks left to an inline statement; 0 for one that is sure to
    /// be short.
    static BUDGET: Cell<u8> = const { Cell::new(0) };
}

/// Work on a thread that may block.
pub(crate) struct Errand {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) gate: Arc<Gate>,
    /// What can stop it; opening a database cannot be stopped.
    pub(crate) stop: Option<Arc<Stop>>,
    /// How long one wait for a lock may take.
    pub(crate) patience: Duration,
}

/// Sets what this thread is doing until the guard is dropped, which brings back
/// what it did before.
pub(crate) fn begin(errand: Errand) -> Before {
    Before(ERRAND.replace(Some(errand)))
}

/// What a thread did before [`begin`].
pub(crate) struct Before(Option<Errand>);

impl Drop for Before {
    fn drop(&mut self) {
        ERRAND.set(self.0.take());
    }
}

/// Whether the errand of this thread was told to stop.
pub(crate) fn told_to_stop() -> bool {
    ERRAND.with_borrow(|errand| errand.as_ref().is_some_and(Errand::told_to_stop))
}

/// Runs a statement within the inline budget. Two callbacks, because SQLite
/// counts steps across runs of one statement: the first may come at once.
pub(crate) fn inline<T>(statement: impl FnOnce() -> T) -> T {
    BUDGET.set(2);
    let done = statement();
    BUDGET.set(0);
    done
}

/// SQLite's callback every so many steps: whether to interrupt the statement.
pub(crate) fn on_progress() -> bool {
    ERRAND.with_borrow(|errand| match errand {
        Some(errand) => errand.told_to_stop(),
        None => {
            let left = BUDGET.get();
            BUDGET.set(left.saturating_sub(1));
            left == 1
        }
    })
}

/// SQLite's callback when a lock is taken, `count` times in a row: whether to
/// try again. A caller's own thread does not wait.
pub(crate) fn on_busy(count: i32) -> bool {
    thread_local! {
        static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    ERRAND.with_borrow(|errand| {
        let Some(errand) = errand else { return false };
        if count == 0 {
            SINCE.set(Some(errand.runtime.now()));
        }
        let count = usize::try_from(count).unwrap_or(0);
        SINCE.get().is_some_and(|since| errand.wait(since, count))
    })
}

/// Repeats what SQLite refuses as busy without asking [`on_busy`], as long as
/// the errand has patience.
pub(crate) fn patiently<T>(
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let since = ERRAND.with_borrow(|errand| errand.as_ref().map(|errand| errand.runtime.now()));
    let mut count = 0;
    loop {
        match (attempt(), since) {
            (Err(error), Some(since)) if is_busy(&error) => {
                let again = ERRAND.with_borrow(|errand| {
                    errand.as_ref().is_some_and(|errand| errand.wait(since, count))
                });
                if !again {
                    return Err(error);
                }
                count += 1;
            }
            (done, _) => return done,
        }
    }
}

pub(crate) fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

impl Errand {
    fn told_to_stop(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| stop.told.load(Ordering::Relaxed))
    }

    fn wait(&self, since: Instant, count: usize) -> bool {
        let waited = self.runtime.now().saturating_duration_since(since);
        let Some(left) = self.patience.checked_sub(waited).filter(|left| !left.is_zero()) else {
            return false;
        };
        let pause = PAUSES_MS[count.min(PAUSES_MS.len() - 1)];
        self.gate.wait(left.min(Duration::from_millis(pause.into())), || self.told_to_stop());
        !self.told_to_stop()
    }
}

/// Where threads of one database wait for each other's locks. Only a hint:
/// SQLite's own locks decide, and every wait ends by itself.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    waiting: AtomicUsize,
    /// Held while a wait begins, so that whoever stops it cannot be missed.
    entry: Mutex<()>,
    changed: Condvar,
}

impl Gate {
    /// Whether nobody waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Says that a lock may be free. Missing a wait that begins just now costs
    /// that one its pause and nothing else.
    pub(crate) fn released(&self) {
        if !self.is_quiet() {
            self.changed.notify_one();
        }
    }

    fn wait(&self, pause: Duration, stopped: impl Fn() -> bool) {
        let entry = lock(&self.entry);
        if stopped() {
            return;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        drop(self.changed.wait_timeout(entry, pause));
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    fn wake_all(&self) {
        drop(lock(&self.entry));
        self.changed.notify_all();
    }
}

/// What a connection's errand can be stopped by, from anywhere.
pub(crate) struct Stop {
    running: Mutex<Running>,
    /// Read in the middle of statements.
    told: AtomicBool,
    /// The connection's state as of its last errand.
    session: AtomicU8,
    interrupt: InterruptHandle,
    gate: Arc<Gate>,
}

/// Held while an errand ends and while it is interrupted, so that an
/// interrupt cannot hit what comes after it.
struct Running {
    errand: u64,
    now: bool,
}

impl Stop {
    pub(crate) fn new(interrupt: InterruptHandle, gate: Arc<Gate>) -> Self {
        Self {
            running: Mutex::new(Running { errand: 0, now: false }),
            told: AtomicBool::new(false),
            session: AtomicU8::new(CLEAN),
            interrupt,
            gate,
        }
    }

    /// An errand is on its way; tells its number.
    pub(crate) fn start(&self) -> u64 {
        let mut running = lock(&self.running);
        running.errand += 1;
        running.now = true;
        self.told.store(false, Ordering::Relaxed);
        self.session.store(BUSY, Ordering::Release);
        running.errand
    }

    /// The errand is over and left the connection like this.
    pub(crate) fn finish(&self, session: Session) {
        let mut running = lock(&self.running);
        running.now = false;
        self.told.store(false, Ordering::Relaxed);
        let session = match session {
            Session::Clean => CLEAN,
            Session::InTransaction => IN_TRANSACTION,
            _ => CLOSED,
        };
        self.session.store(session, Ordering::Release);
    }

    /// Stops what runs, if it is the errand of this number or none is named.
    pub(crate) fn stop(&self, errand: Option<u64>) {
        let running = lock(&self.running);
        if running.now && errand.is_none_or(|errand| errand == running.errand) {
            self.told.store(true, Ordering::Relaxed);
            self.interrupt.interrupt();
            self.gate.wake_all();
        }
    }

    /// The state the last errand is in or has left.
    pub(crate) fn session(&self) -> Session {
        match self.session.load(Ordering::Acquire) {
            CLEAN => Session::Clean,
            IN_TRANSACTION => Session::InTransaction,
            BUSY => Session::Busy,
            _ => Session::Closed,
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.session()).finish()
    }
}

const CLEAN: u8 = 0;
const IN_TRANSACTION: u8 = 1;
const BUSY: u8 = 2;
const CLOSED: u8 = 3;

/// No lock here guards anything a panic could leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
