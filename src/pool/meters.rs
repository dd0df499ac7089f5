//! What a pool measures of its work, where `metrics_enabled` is on.
//!
//! Owns the histograms and the counts of errors. The counts that are always
//! kept are the state's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millpond_driver::{Driver, Error};

use super::events::Event;
use super::shared::Shared;
use crate::metrics::{Distribution, Histogram, Span};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// What is measured.
#[derive(Debug)]
pub(super) struct Meters {
    /// How long callers waited that were served.
    pub(super) waits: Histogram,
    /// How long connects took that succeeded.
    pub(super) connects: Histogram,
    /// How long connections were held.
    holds: Histogram,
    /// How long statements took that were awaited to their end.
    pub(super) statements: Histogram,
    /// Loans within one tick of the clock, as far as they are known.
    short_holds: AtomicU64,
    /// Statements begun.
    pub(super) begun: AtomicU64,
    /// Statements whose future or stream was dropped before its end.
    pub(super) abandoned: AtomicU64,
    /// Statements, work and transactions that were tried again.
    pub(super) retries: AtomicU64,
    /// Statements that failed, by cause.
    pub(super) errors: Counts,
    /// Connects that failed, by cause.
    pub(super) connect_errors: Counts,
}

/// Counts by cause. Errors are rare enough for a lock.
#[derive(Debug)]
pub(super) struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    pub(super) fn add(&self, error: &Error) {
        *self.0.lock().entry(error.cause().as_str()).or_default() += 1;
    }

    pub(super) fn read(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}

impl Meters {
    pub(super) fn new() -> Self {
        Self {
            waits: Histogram::new(),
            connects: Histogram::new(),
            holds: Histogram::new(),
            statements: Histogram::new(),
            short_holds: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            errors: Counts::new(),
            connect_errors: Counts::new(),
        }
    }
}

impl Meters {
    /// Records a loan that took longer than a tick and is about to end.
    #[inline]
    pub(super) fn record_hold(&self, connection: u64, held: Duration) {
        self.holds.record(connection as usize, held);
    }

    /// How long connections were held, where so many loans had ended before this
    /// is called.
    ///
    /// Loans within one tick of the clock are not recorded: they are what the
    /// recorded ones leave over. Each is recorded before it counts as ended, so
    /// what is found is never too much, and the most found so far is the truth
    /// nearest to now that does not fall.
    pub(super) fn holds(&self, ended: u64) -> Distribution {
        let recorded = self.holds.read();
        let short = ended.saturating_sub(recorded.count());
        let before = self.short_holds.fetch_max(short, Ordering::Relaxed);
        recorded.and_none(short.max(before))
    }
}

/// A statement that is under way, if anybody wants to know.
pub(super) struct Timing<'a, D: Driver> {
    shared: &'a Shared<D>,
    connection: u64,
    /// `None`: nobody does, or it has ended.
    since: Option<Instant>,
    span: Span,
}

impl<'a, D: Driver> Timing<'a, D> {
    #[inline]
    pub(super) fn start(shared: &'a Shared<D>, connection: u64) -> Self {
        let observed = shared.meters.is_some() || shared.hooks.observer.is_some();
        if let Some(meters) = &shared.meters {
            meters.begun.fetch_add(1, Ordering::Relaxed);
        }
        let span = Span::statement(shared.driver.name(), &shared.name, connection);
        Self { shared, connection, since: observed.then(|| shared.runtime.now()), span }
    }

    /// Has it run inside its span.
    #[inline]
    pub(super) fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F, D> {
        self.span.around(work)
    }

    /// It has ended, with this error or well.
    #[inline]
    pub(super) fn end(&mut self, error: Option<&Error>) {
        if let Some(error) = error {
            self.span.note(error);
        }
        let Some(since) = self.since.take() else { return };
        let (shared, connection) = (self.shared, self.connection);
        let took = shared.runtime.now().saturating_duration_since(since);
        if let Some(meters) = &shared.meters {
            meters.statements.record(connection as usize, took);
            if let Some(error) = error {
                meters.errors.add(error);
            }
        }
        shared.tell(|| Event::Statement { connection, took, error });
    }
}

impl<D: Driver> Drop for Timing<'_, D> {
    fn drop(&mut self) {
        if let (Some(_), Some(meters)) = (self.since, &self.shared.meters) {
            meters.abandoned.fetch_add(1, Ordering::Relaxed);
        }
    }
}
