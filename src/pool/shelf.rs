//! The idle connections, and whether one may be lent as it is.
//!
//! Owns the path that needs no lock: take the connection used last, give it
//! back. What cannot be settled here (nothing idle, somebody waiting, a
//! connection that must be checked first) goes to the state behind the lock.
//! Reads no clock: the time is passed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millpond_driver::Holder;

use super::entry::{Borrower, Entry, Held, Note, Phase};
use super::slots::{Index, Pop, Slots};
use crate::config::{IdleOrder, Settings};
use crate::sync::{AtomicU64, Mutex, Ordering};

#[derive(Debug)]
pub(super) struct Shelf<C> {
    pub(super) slots: Slots<Box<Entry<C>>, Note>,
    /// The idle connections where the one idle longest is lent first. Then the
    /// stack is empty and its flag raised.
    queue: Option<Mutex<VecDeque<Held<C>>>>,
    /// Whether the fast path may ever be open.
    express: bool,
    /// Connections proved alive in an earlier era are suspect.
    era: AtomicU64,
    /// How often connections have been evicted.
    evictions: AtomicU64,
    start: Instant,
    /// Later than any connection lives: "never", as an instant to compare with.
    end: Instant,
    /// In nanoseconds.
    check_after_idle: AtomicU64,
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

/// What became of a connection given back.
#[derive(Debug)]
pub(super) enum Put<C> {
    /// It lies idle.
    Idle,
    /// It lies idle, and was evicted at that very moment.
    Evicted,
    /// Here it is again: somebody waits, or it is not to be lent again.
    Refused(Held<C>),
}

impl<C> Shelf<C> {
    /// An empty shelf. `gated`: none is lent without a word of the application.
    pub(super) fn new(start: Instant, settings: &Settings, gated: bool) -> Self {
        let queue = match settings.idle_order {
            IdleOrder::Lifo => None,
            IdleOrder::Fifo => Some(Mutex::new(VecDeque::new())),
        };
        let shelf = Self {
            slots: Slots::new(),
            express: queue.is_none() && !gated,
            queue,
            era: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            start,
            end: start + Duration::from_secs(3600 * 24 * 365 * 100),
            check_after_idle: AtomicU64::new(0),
        };
        shelf.set_check_after_idle(settings.check_after_idle);
        if !shelf.express {
            shelf.raise();
        }
        shelf
    }

    pub(super) fn set_check_after_idle(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.check_after_idle.store(nanos, Ordering::Relaxed);
    }

    /// Closes the fast path. For the holder of the lock.
    pub(super) fn raise(&self) {
        self.slots.raise();
    }

    /// Opens the fast path, where there is one. For the holder of the lock.
    pub(super) fn lower(&self) {
        if self.express {
            self.slots.lower();
        }
    }

    /// How many lie here at this moment.
    pub(super) fn len(&self) -> usize {
        match &self.queue {
            None => self.slots.len(),
            Some(queue) => queue.lock().len(),
        }
    }

    /// Lends the connection used last.
    #[inline]
    pub(super) fn take(&self, now: impl FnOnce() -> Instant, borrower: Borrower) -> Take<C> {
        let Pop::Took(index, entry) = self.slots.pop() else { return Take::Nothing };
        let mut held = Held { index, entry };
        let now = now();
        if !self.is_fresh(&held.entry, now) || self.note(&held.index).is_spent() {
            return Take::Stale(held);
        }
        self.lend(&mut held, now, borrower);
        Take::Fresh(held)
    }

    /// Takes a clean connection back, unless somebody waits for it.
    #[inline]
    pub(super) fn put(&self, mut held: Held<C>, now: Instant) -> Put<C> {
        self.rest(&mut held.entry, now);
        let evictions = self.evictions.load(Ordering::Acquire);
        let note = self.note(&held.index);
        if note.is_spent() {
            return Put::Refused(held);
        }
        note.set(Phase::Idle);
        match self.slots.push(held.index, held.entry) {
            // Whoever evicts after the look above finds it on the stack, or has
            // counted before this. Not the note again: it is another's by now.
            Ok(()) if self.evictions.load(Ordering::Relaxed) != evictions => Put::Evicted,
            Ok(()) => Put::Idle,
            Err((index, entry)) => Put::Refused(Held { index, entry }),
        }
    }

    /// Notes, after those concerned are marked and before the flag is raised,
    /// that connections are evicted.
    pub(super) fn count_eviction(&self) {
        self.evictions.fetch_add(1, Ordering::Release);
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
        let check_after_idle = Duration::from_nanos(self.check_after_idle.load(Ordering::Relaxed));
        entry.fresh_until = now.checked_add(check_after_idle).map_or(expires, |at| at.min(expires));
    }

    /// As [`put`](Self::put), for the holder of the lock, whoever waits.
    pub(super) fn put_locked(&self, held: Held<C>) {
        self.note(&held.index).set(Phase::Idle);
        match &self.queue {
            None => self.slots.push_locked(held.index, held.entry),
            Some(queue) => queue.lock().push_back(held),
        }
    }

    /// Undoes the [`take_locked`](Self::take_locked) just made.
    pub(super) fn put_back_locked(&self, held: Held<C>) {
        match &self.queue {
            None => self.put_locked(held),
            Some(queue) => queue.lock().push_front(held),
        }
    }

    /// Takes the one to be lent next. For the holder of the lock, with the flag
    /// raised.
    pub(super) fn take_locked(&self) -> Option<Held<C>> {
        match &self.queue {
            None => self.slots.pop_locked().map(|(index, entry)| Held { index, entry }),
            Some(queue) => queue.lock().pop_front(),
        }
    }

    /// Takes all, from the one used longest ago to the one used last: so they
    /// are to be put back. For the holder of the lock, with the flag raised.
    pub(super) fn take_all_locked(&self) -> Vec<Held<C>> {
        let mut all: Vec<_> = std::iter::from_fn(|| self.take_locked()).collect();
        if self.queue.is_none() {
            all.reverse();
        }
        all
    }

    /// Puts a connection among the others by when it was last used. For the
    /// holder of the lock, with the flag raised.
    pub(super) fn insert_locked(&self, held: Held<C>) {
        let Some(queue) = &self.queue else {
            let mut used_later = Vec::new();
            while let Some(top) = self.take_locked() {
                if top.entry.idle_since <= held.entry.idle_since {
                    self.put_locked(top);
                    break;
                }
                used_later.push(top);
            }
            self.put_locked(held);
            used_later.into_iter().rev().for_each(|held| self.put_locked(held));
            return;
        };
        self.note(&held.index).set(Phase::Idle);
        let mut queue = queue.lock();
        let at = queue.partition_point(|other| other.entry.idle_since <= held.entry.idle_since);
        queue.insert(at, held);
    }

    #[inline]
    pub(super) fn lend(&self, held: &mut Held<C>, now: Instant, borrower: Borrower) {
        held.entry.lent_at = now;
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

    /// The same for a time that may be centuries away.
    pub(super) fn far_nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
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
