//! A pooled connection's facts: the private ones its holder carries, and the
//! note beside its slot that anyone may read.
//!
//! Knows no database and decides nothing; the ledger does.

use std::any::Any;
use std::panic::Location;
use std::time::{Duration, Instant};

use millpond_driver::{Cause, Error, Fate, Holder};

use super::slots::{Index, StaticRef};
use super::transaction::Depth;
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};

/// A connection on its way between slots, waiters, tasks and guards, with the
/// right to its slot.
#[derive(Debug)]
pub(super) struct Held<C> {
    pub(super) index: Index,
    pub(super) entry: Box<Entry<C>>,
}

/// A connection and what its holder knows of it.
#[derive(Debug)]
pub(super) struct Entry<C> {
    pub(super) conn: C,
    /// Unique in the pool, in order of birth.
    pub(super) id: u64,
    pub(super) born: Instant,
    /// How often connections of its slot had been lent before it.
    pub(super) lent_before: u64,
    /// Drawn once at birth.
    pub(super) expires: Option<Instant>,
    /// When it was last lent (coarse clock, mostly).
    pub(super) lent_at: Instant,
    /// When it was last given back (coarse clock).
    pub(super) idle_since: Instant,
    /// When it was last checked in the background.
    pub(super) checked_at: Option<Instant>,
    /// Until when it may be lent without a check, by age and idleness.
    pub(super) fresh_until: Instant,
    /// The era in which it was last proved alive.
    pub(super) era: u64,
    /// A statement was started through the pool and its answer not awaited.
    pub(super) in_flight: bool,
    /// The worst that an error on it has said.
    pub(super) fate: Fate,
    /// An error on it said that the peer has gone.
    pub(super) dead: bool,
    /// The application has let it be lent, and that has not been made use of.
    pub(super) admitted: bool,
    /// Its session refuses writes: whatever is done on it is as good twice.
    pub(super) reads_only: bool,
    /// How deep it is in transactions begun through the pool.
    pub(super) depth: Depth,
    /// What the application has attached to it.
    pub(super) attached: Vec<Box<dyn Any + Send + Sync>>,
}

impl<C> Entry<C> {
    pub(super) fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| now >= at)
    }

    /// Takes an error on it into account.
    pub(super) fn note(&mut self, error: &Error) {
        self.fate = error.fate().max(self.fate);
        self.dead |= error.fate() == Fate::Discard && is_death(error);
        self.depth.note(error);
    }

    /// Forgets what the last borrower left, now that it is cleaned.
    pub(super) fn refresh(&mut self) {
        self.in_flight = false;
        self.fate = Fate::Reusable;
        self.depth = Depth::default();
    }
}

/// Whether an error says that the peer has gone, and perhaps all connections
/// to it.
pub(super) fn is_death(error: &Error) -> bool {
    matches!(error.cause(), Cause::Transport | Cause::Shutdown | Cause::Timeout)
}

/// Where a slot stands. Exactly one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Vacant,
    Opening,
    Idle,
    InUse,
    Checking,
    Cleaning,
    Closing,
}

impl Phase {
    const ALL: [Self; 7] = [
        Self::Vacant,
        Self::Opening,
        Self::Idle,
        Self::InUse,
        Self::Checking,
        Self::Cleaning,
        Self::Closing,
    ];
}

/// What anyone may read of a slot. Only the holder of the slot's index writes,
/// so plain stores suffice.
#[derive(Debug)]
pub(super) struct Note {
    /// Phase in the low bits, times lent above: one word, so that a reader
    /// sees both from the same moment.
    word: AtomicU64,
    /// When it was lent, in nanoseconds since the pool's start.
    lent_at: AtomicU64,
    /// When its connection expires, likewise; `u64::MAX` for never.
    expires: AtomicU64,
    /// The number of its connection.
    id: AtomicU64,
    /// Its connection is not kept once lent so often, counted as in `word`.
    good_for: AtomicU64,
    /// The loan that was reported as a leak, counted likewise.
    reported: AtomicU64,
    /// The loans before its connection was born.
    before: AtomicU64,
    /// Its successor has been asked for. Written under the lock.
    renewed: AtomicBool,
    place: StaticRef<Location<'static>>,
    labelled: AtomicBool,
    label: Mutex<Option<&'static str>>,
}

const PHASE_BITS: u32 = 3;
const PHASE_MASK: u64 = (1 << PHASE_BITS) - 1;

impl Default for Note {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(Phase::Vacant as u64),
            lent_at: AtomicU64::new(0),
            expires: AtomicU64::new(u64::MAX),
            id: AtomicU64::new(0),
            good_for: AtomicU64::new(u64::MAX),
            reported: AtomicU64::new(0),
            before: AtomicU64::new(0),
            renewed: AtomicBool::new(false),
            place: StaticRef::none(),
            labelled: AtomicBool::new(false),
            label: Mutex::new(None),
        }
    }
}

impl Note {
    /// Phase, and how often connections of this slot have been lent.
    pub(super) fn read(&self) -> (Phase, u64) {
        // Acquire: who sees a loan sees when it began.
        let word = self.word.load(Ordering::Acquire);
        (Phase::ALL[(word & PHASE_MASK) as usize], word >> PHASE_BITS)
    }

    pub(super) fn phase(&self) -> Phase {
        self.read().0
    }

    #[inline]
    pub(super) fn set(&self, phase: Phase) {
        let word = self.word.load(Ordering::Relaxed);
        self.word.store((word & !PHASE_MASK) | phase as u64, Ordering::Relaxed);
    }

    /// Notes that the connection is in use from now on, by whom.
    #[inline]
    pub(super) fn lend(&self, at: u64, to: Borrower) {
        self.lent_at.store(at, Ordering::Relaxed);
        self.place.set(to.place);
        // The lock is touched only by those who use labels.
        if to.label.is_some() || self.labelled.load(Ordering::Relaxed) {
            *self.label.lock() = to.label;
            self.labelled.store(to.label.is_some(), Ordering::Relaxed);
        }
        let lent = self.lent() + 1;
        self.word.store((lent << PHASE_BITS) | Phase::InUse as u64, Ordering::Release);
    }

    /// How often connections of this slot have been lent.
    #[inline]
    pub(super) fn lent(&self) -> u64 {
        self.word.load(Ordering::Relaxed) >> PHASE_BITS
    }

    /// Notes that a connection is to be opened for this slot.
    pub(super) fn conceive(&self) {
        self.good_for.store(u64::MAX, Ordering::Relaxed);
        self.set(Phase::Opening);
    }

    /// Notes that a connection of this number is born, which expires then and
    /// may be lent so often.
    pub(super) fn begin(&self, id: u64, expires: Option<u64>, max_uses: Option<u64>) {
        self.id.store(id, Ordering::Relaxed);
        self.expires.store(expires.unwrap_or(u64::MAX), Ordering::Relaxed);
        // It may have been evicted before it was born.
        if let Some(uses) = max_uses.filter(|_| !self.is_evicted()) {
            self.good_for.store(self.lent().saturating_add(uses), Ordering::Relaxed);
        }
        self.before.store(self.lent(), Ordering::Relaxed);
        self.renewed.store(false, Ordering::Relaxed);
    }

    /// Whether its connection has been lent.
    pub(super) fn was_lent(&self) -> bool {
        self.lent() > self.before.load(Ordering::Relaxed)
    }

    pub(super) fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// Notes that the connection is not to be lent again. Under the lock.
    pub(super) fn evict(&self) {
        self.good_for.store(0, Ordering::Relaxed);
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.good_for.load(Ordering::Relaxed) == 0
    }

    /// Whether the connection has been lent as often as it may be.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.lent() >= self.good_for.load(Ordering::Relaxed)
    }

    /// Notes that a loan has been reported as a leak.
    pub(super) fn report(&self, loan: u64) {
        self.reported.store(loan, Ordering::Relaxed);
    }

    /// Whether that loan has been.
    #[inline]
    pub(super) fn is_reported(&self, loan: u64) -> bool {
        self.reported.load(Ordering::Relaxed) == loan
    }

    /// Notes that its successor has been asked for.
    pub(super) fn renew(&self) {
        self.renewed.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_renewed(&self) -> bool {
        self.renewed.load(Ordering::Relaxed)
    }

    /// Nanoseconds since the pool's start; `u64::MAX` for never.
    pub(super) fn expiry(&self) -> u64 {
        self.expires.load(Ordering::Relaxed)
    }

    /// When it was lent, in nanoseconds since the pool's start.
    pub(super) fn lent_at(&self) -> u64 {
        self.lent_at.load(Ordering::Relaxed)
    }

    /// Who holds the connection, if it is in use. `now` is in nanoseconds since
    /// the pool's start.
    pub(super) fn holder(&self, now: u64) -> Option<Holder> {
        if self.phase() != Phase::InUse {
            return None;
        }
        let place = self.place.get()?;
        let held = Duration::from_nanos(now.saturating_sub(self.lent_at()));
        Some(Holder::new(held, place, *self.label.lock()))
    }
}

/// Who borrows: the place of the call of `acquire`, and its label.
#[derive(Debug, Clone, Copy)]
pub(super) struct Borrower {
    pub(super) place: &'static Location<'static>,
    pub(super) label: Option<&'static str>,
}
