//! What has been seen: how much was done, what disturbed it, what is wrong.
//!
//! Decides whether an error is explained. Causes nothing itself.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millpond::{Cause, Error};

/// How long after its end a disturbance explains errors: connections that it
/// broke are noticed when they are used.
const AFTERMATH: Duration = Duration::from_secs(4);

pub(crate) struct Ledger {
    start: Instant,
    pub(crate) over: AtomicBool,
    pub(crate) done: AtomicU64,
    pub(crate) given_up: AtomicU64,
    pub(crate) explained: AtomicU64,
    disturbed: AtomicU64,
    /// Nanoseconds from the start to the end of the last disturbance.
    calm_since: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            explained: AtomicU64::new(0),
            disturbed: AtomicU64::new(0),
            calm_since: AtomicU64::new(0),
            faults: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// A disturbance begins.
    pub(crate) fn disturb(&self) {
        self.disturbed.fetch_add(1, Ordering::SeqCst);
    }

    /// It has ended.
    pub(crate) fn calm(&self) {
        let now = self.start.elapsed().as_nanos() as u64;
        self.calm_since.fetch_max(now, Ordering::SeqCst);
        self.disturbed.fetch_sub(1, Ordering::SeqCst);
    }

    fn is_disturbed(&self, since: Instant) -> bool {
        let calm_since =
            self.start + Duration::from_nanos(self.calm_since.load(Ordering::SeqCst)) + AFTERMATH;
        self.disturbed.load(Ordering::SeqCst) > 0 || since < calm_since
    }

    /// An operation begun then has failed. `impatient`: its caller gave it so
    /// little time that running out of it is no fault.
    pub(crate) fn failed(&self, since: Instant, impatient: bool, error: &Error) {
        let conflict = matches!(error.cause(), Cause::Conflict | Cause::LockTimeout);
        if conflict || (impatient && error.is_timeout()) || self.is_disturbed(since) {
            self.explained.fetch_add(1, Ordering::Relaxed);
        } else {
            self.fault(format!("an error that nothing explains: {error:?}"));
        }
    }

    pub(crate) fn fault(&self, what: String) {
        self.over.store(true, Ordering::Relaxed);
        self.faults.lock().expect("no holder panics").push(what);
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        std::mem::take(&mut self.faults.lock().expect("no holder panics"))
    }
}
