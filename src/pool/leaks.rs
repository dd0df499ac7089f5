//! Connections that are held for too long.
//!
//! Owns when a loan is reported and what is said of it. Takes nothing away from
//! anybody, and does not know who listens.

use std::fmt;
use std::time::Instant;

use millpond_driver::Holder;

use super::entry::Phase;
use super::state::{State, earliest};
use super::turn::Turn;

/// A connection that was held for longer than `leak_after`. Told to
/// [`Builder::on_leak`](crate::Builder::on_leak) once when that is noticed, and
/// once more if it comes back after all.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leak {
    /// The connection's number in its pool.
    pub connection: u64,
    /// Who holds it, or held it, and for how long.
    pub holder: Holder,
    /// It has been given back.
    pub returned: bool,
}

impl fmt::Display for Leak {
    /// For example `connection 3 is held for 30.1s by "checkout" at
    /// src/cart.rs:41:20`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.returned { "was given back, held" } else { "is held" };
        write!(f, "connection {} {verb} {}", self.connection, self.holder)
    }
}

impl<C> State<C> {
    /// There is a connection that may be lent from now on.
    pub(super) fn watch_loans(&mut self, turn: &mut Turn<'_, C>) {
        let at = self.rules.leak_after.and_then(|limit| turn.now.checked_add(limit));
        if at.is_some() && !self.is_closed() {
            self.leaks_at = earliest([self.leaks_at, at]);
            self.hire(turn, at);
        }
    }

    /// Reports every loan that has lasted too long, once.
    pub(super) fn find_leaks(&mut self, turn: &mut Turn<'_, C>) {
        self.leaks_at = None;
        let Some(limit) = self.rules.leak_after else { return };
        // A loan that begins now.
        let mut next = turn.now.checked_add(limit).filter(|_| self.open(turn) > 0);
        let now = turn.shelf.nanos(turn.now);
        for note in turn.shelf.slots.notes() {
            let (phase, loan) = note.read();
            if phase != Phase::InUse || note.is_reported(loan) {
                continue;
            }
            let due = turn.shelf.at(note.lent_at()).and_then(|at| at.checked_add(limit));
            if due.is_some_and(|at: Instant| turn.now < at) {
                next = earliest([next, due]);
            } else if let Some(holder) = note.holder(now).filter(|_| note.read() == (phase, loan)) {
                note.report(loan);
                self.tally.leaks += 1;
                turn.fx.leaks.push(Leak { connection: note.id(), holder, returned: false });
            }
        }
        self.leaks_at = next;
    }
}
