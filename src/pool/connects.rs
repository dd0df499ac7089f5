//! When connections are opened, and who is told when they cannot be.
//!
//! Owns the slots on their way from vacant to open, and whom a failed connect
//! concerns. Part of the state machine: runs under the lock, opens nothing
//! itself.

use std::time::{Duration, Instant};

use millpond_driver::{Error, ErrorKind, Fate};

use super::entry::{Entry, Held, Phase};
use super::slots::Index;
use super::state::State;
use super::transaction::Depth;
use super::turn::{Job, Turn};
use crate::retry::fraction;

/// A connection that has just been opened, and its number.
#[derive(Debug)]
pub(super) struct Newborn<C> {
    pub(super) conn: C,
    pub(super) id: u64,
    /// How long that took.
    pub(super) took: Duration,
    /// It was told to refuse writes.
    pub(super) reads_only: bool,
}

impl<C> State<C> {
    /// Takes a slot for a connection to be opened.
    pub(super) fn reserve(&mut self, turn: &mut Turn<'_, C>) -> Option<Index> {
        let index = self.vacant.pop().or_else(|| turn.shelf.slots.issue())?;
        turn.shelf.note(&index).conceive();
        self.opening += 1;
        Some(index)
    }

    /// Has a connection opened. Called where [`may_connect`](Self::may_connect)
    /// says so.
    pub(super) fn start_connect(&mut self, turn: &mut Turn<'_, C>) {
        if let Some(index) = self.reserve(turn) {
            turn.fx.jobs.push(Job::Connect(index));
        }
    }

    /// A connect has succeeded.
    pub(super) fn opened(&mut self, turn: &mut Turn<'_, C>, index: Index, newborn: Newborn<C>) {
        self.opening -= 1;
        turn.fx.waste.extend(self.outage.over());
        if !self.gated {
            turn.fx.waste.extend(self.failed_check.take());
        }
        let held = self.install(turn, index, newborn);
        let expires = held.entry.expires;
        self.put(turn, held);
        self.watch(turn, expires);
        self.watch_loans(turn);
    }

    /// A connection takes its slot.
    pub(super) fn install(
        &mut self,
        turn: &mut Turn<'_, C>,
        index: Index,
        Newborn { conn, id, reads_only, .. }: Newborn<C>,
    ) -> Held<C> {
        self.tally.created += 1;
        // Between 80 and 100 % of the limit, so that connections born together
        // do not die together.
        let expires = self
            .rules
            .max_lifetime
            .and_then(|limit| turn.now.checked_add(limit - fraction(limit / 5, turn.random)));
        let note = turn.shelf.note(&index);
        note.begin(id, expires.map(|at| turn.shelf.far_nanos(at)), self.rules.max_uses);
        note.set(Phase::Idle);
        let entry = Box::new(Entry {
            conn,
            id,
            born: turn.now,
            lent_before: note.lent(),
            expires,
            lent_at: turn.now,
            idle_since: turn.now,
            checked_at: None,
            fresh_until: turn.now,
            era: turn.shelf.era(),
            in_flight: false,
            fate: Fate::Reusable,
            dead: false,
            admitted: false,
            reads_only,
            depth: Depth::default(),
            attached: Vec::new(),
        });
        Held { index, entry }
    }

    /// The database takes connections again.
    pub(super) fn answers_again(&mut self, turn: &mut Turn<'_, C>) {
        turn.fx.waste.extend(self.outage.over());
        self.settle(turn);
    }

    /// A connect has failed.
    pub(super) fn open_failed(&mut self, turn: &mut Turn<'_, C>, index: Index, error: Error) {
        self.open_ended(turn, index, &error);
        if error.is_permanent() && !self.waiters.is_empty() && !self.paused {
            // The caller it was for is told; if nothing is left, settle tells all.
            self.fail_first(turn, &error);
        }
        self.settle(turn);
        turn.fx.waste.push(error);
    }

    /// A connect was dropped before it ended: its runtime has gone. Counts as
    /// failed, so that a runtime that drops everything is not asked in a loop.
    pub(super) fn open_lost(&mut self, turn: &mut Turn<'_, C>, index: Index) {
        let error = Error::connect("the async runtime ended before the connect did");
        self.open_ended(turn, index, &error);
        self.lost(turn);
    }

    fn open_ended(&mut self, turn: &mut Turn<'_, C>, index: Index, error: &Error) {
        self.opening -= 1;
        self.free(turn, index);
        // Cut short by the close, it says nothing of the database.
        if error.kind() != ErrorKind::Closed {
            self.tally.connects_failed += 1;
            let before = self.outage.failed(error.clone(), turn.now, turn.random);
            turn.fx.waste.extend(before);
        }
    }

    /// When the next connect may be tried, if only backoff holds it.
    pub(super) fn next_connect(&self, turn: &Turn<'_, C>) -> Option<Instant> {
        let has_room = self.open(turn) + self.opening < self.rules.max_open;
        let wanted = self.waiters.len() > self.coming() || self.lacks_idle(turn);
        if !has_room || !wanted || self.paused {
            return None;
        }
        // Both may hold it; whichever lasts longer.
        self.outage.until(turn.now).max(self.rinsed_by(turn.now))
    }

    pub(super) fn may_connect(&self, turn: &Turn<'_, C>) -> bool {
        !self.paused
            && self.opening < self.outage.at_once(self.rules.connect_concurrency)
            && self.open(turn) + self.opening < self.rules.max_open
            && self.outage.until(turn.now).is_none()
    }

    /// The error for callers whom neither a connect nor a return can serve
    /// before somebody changes something.
    pub(super) fn hopeless(&self, turn: &Turn<'_, C>) -> Option<Error> {
        let refusal = self.outage.refusal(turn.now)?;
        let some_left = turn
            .shelf
            .slots
            .notes()
            .any(|note| !matches!(note.phase(), Phase::Vacant | Phase::Closing));
        (!some_left).then(|| refusal.clone())
    }
}
