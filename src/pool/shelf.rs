//! The idle connections, and whether one may be lent as it is.
//!
//! Owns the path that needs no lock: take the connection used last, give it
//! back. What cannot be settled here (nothing idle, somebody waiting, a
//! connection that must be checked first) goes to the state behind the lock.
//! Reads no clock: the time is passed in.

use std::time::{Duration, Instant};

use millpond_driver::Holder;

use super::entry::{Borrower, Entry, Held, Note, Phase};
use super::slots::{Index, Pop, Slots};
use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
pub(super) struct Shelf<C> {
    pub(super) slots: Slots<Box<Entry<C>>, Note>,
    /// Connections proved alive in an earlier era are suspect.
    era: AtomicU64,
    start: Instant,
    /// Later than any connection lives: "never", as an instant to compare with.
    end: Instant,
    check_after_idle: Duration,
}

/// What lay on the shelf.
#[derive(Debug)]
pub(super) enum Take<C> {
    /// Lent: noted as in use.
    Fresh(Held<C>),
    /// To be checked or retired first; noted as idle still.
    Stale(Held<C>),
    /// Nothing, or not for newcomers: somebody waits, or the pool is closed.
    Nothing,
}

impl<C> Shelf<C> {
    pub(super) fn new(start: Instant, check_after_idle: Duration) -> Self {
        Self {
            slots: Slots::new(),
            era: AtomicU64::new(0),
            start,
            end: start + Duration::from_secs(3600 * 24 * 365 * 100),
            check_after_idle,
        }
    }

    /// Lends the connection used last.
    #[inline]
    pub(super) fn take(&self, now: impl FnOnce() -> Instant, borrower: Borrower) -> Take<C> {
        let Pop::Took(index, entry) = self.slots.pop() else { return Take::Nothing };
        let held = Held { index, entry };
        let now = now();
        if !self.is_fresh(&held.entry, now) {
            return Take::Stale(held);
        }
        self.lend(&held, now, borrower);
        Take::Fresh(held)
    }

    /// Takes a clean connection back, unless somebody waits for it.
    #[inline]
    pub(super) fn put(&self, mut held: Held<C>, now: Instant) -> Result<(), Held<C>> {
        self.rest(&mut held.entry, now);
        self.note(&held.index).set(Phase::Idle);
        self.slots.push(held.index, held.entry).map_err(|(index, entry)| Held { index, entry })
    }

    /// Notes that a connection has been used until now.
    #[inline]
    pub(super) fn rest(&self, entry: &mut Entry<C>, now: Instant) {
        entry.idle_since = now;
        self.prove(entry, now);
    }

    /// Notes that a connection has answered now.
    #[inline]
    pub(super) fn prove(&self, entry: &mut Entry<C>, now: Instant) {
        let expires = entry.expires.unwrap_or(self.end);
        entry.fresh_until =
            now.checked_add(self.check_after_idle).map_or(expires, |at| at.min(expires));
    }

    /// As [`put`](Self::put), for the holder of the lock, whoever waits.
    pub(super) fn put_locked(&self, held: Held<C>) {
        self.note(&held.index).set(Phase::Idle);
        self.slots.push_locked(held.index, held.entry);
    }

    /// For the holder of the lock, with the flag raised.
    pub(super) fn take_locked(&self) -> Option<Held<C>> {
        self.slots.pop_locked().map(|(index, entry)| Held { index, entry })
    }

    #[inline]
    pub(super) fn lend(&self, held: &Held<C>, now: Instant, borrower: Borrower) {
        self.note(&held.index).lend(self.nanos(now), borrower);
    }

    /// Whether a connection may be lent without a check.
    pub(super) fn is_fresh(&self, entry: &Entry<C>, now: Instant) -> bool {
        now < entry.fresh_until && !self.is_suspect(entry)
    }

    /// Whether another connection has proved dead since this one proved alive.
    pub(super) fn is_suspect(&self, entry: &Entry<C>) -> bool {
        entry.era != self.era()
    }

    pub(super) fn era(&self) -> u64 {
        self.era.load(Ordering::Relaxed)
    }

    /// Makes every connection proved alive before now suspect.
    pub(super) fn next_era(&self) {
        self.era.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn note(&self, index: &Index) -> &Note {
        self.slots.note(index)
    }

    /// Nanoseconds since the pool's start, which is never in the future of
    /// `now` but for the tick of the coarse clock.
    #[inline]
    pub(super) fn nanos(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64
    }

    /// Who holds connections, longest first.
    pub(super) fn holders(&self, now: Instant) -> Vec<Holder> {
        let now = self.nanos(now);
        let mut holders: Vec<_> = self.slots.notes().filter_map(|note| note.holder(now)).collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
        holders
    }

    /// The instant so many nanoseconds after the pool's start.
    pub(super) fn at(&self, nanos: u64) -> Option<Instant> {
        self.start.checked_add(Duration::from_nanos(nanos))
    }
}
