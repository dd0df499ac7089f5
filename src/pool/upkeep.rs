//! What is done to connections as time passes: old ones are closed, and those
//! idle for too long.
//!
//! Owns when to look next, so that a pool at rest is looked at rarely. Part of
//! the state machine: runs under the lock, reads no clock.

use std::time::{Duration, Instant};

use super::entry::Phase;
use super::state::{State, earliest};
use super::turn::{Job, Turn};

/// How long connections above `max_idle_conns` may lie idle, so that a burst
/// does not close what the next one opens.
const SURPLUS_LINGER: Duration = Duration::from_secs(1);

impl<C> State<C> {
    /// A connection that expires then has been opened.
    pub(super) fn watch(&mut self, turn: &mut Turn<'_, C>, expires: Option<Instant>) {
        let at = earliest([expires, self.next_idle_out(turn)]);
        if at.is_some() {
            self.maintain_at = earliest([self.maintain_at, at]);
            self.hire(turn, at);
        }
    }

    /// Closes what has been idle or alive for too long.
    pub(super) fn maintain(&mut self, turn: &mut Turn<'_, C>) {
        turn.shelf.slots.raise();
        // From the one used last to the one used longest ago.
        let idle: Vec<_> = std::iter::from_fn(|| turn.shelf.take_locked()).collect();
        let mut next = None;
        for (depth, held) in idle.into_iter().enumerate().rev() {
            let surplus = (depth >= self.rules.max_idle).then_some(SURPLUS_LINGER);
            let limit = self.rules.max_idle_time.into_iter().chain(surplus).min();
            let until = limit.and_then(|limit| held.entry.idle_since.checked_add(limit));
            if held.entry.is_expired(turn.now) || until.is_some_and(|at| turn.now >= at) {
                turn.shelf.note(&held.index).set(Phase::Closing);
                turn.fx.jobs.push(Job::Close(held));
            } else {
                next = earliest([next, until]);
                turn.shelf.put_locked(held);
            }
        }
        for note in turn.shelf.slots.notes() {
            let live = !matches!(note.phase(), Phase::Vacant | Phase::Opening | Phase::Closing);
            if live {
                let expires = turn.shelf.at(note.expiry()).filter(|at| *at > turn.now);
                next = earliest([next, expires]);
            }
        }
        self.maintain_at = earliest([next, self.next_idle_out(turn)]);
    }

    /// When a connection that is in use now could first have been idle for too
    /// long.
    fn next_idle_out(&self, turn: &Turn<'_, C>) -> Option<Instant> {
        let open = self.open(turn);
        let surplus = (open > self.rules.max_idle).then_some(SURPLUS_LINGER);
        let idle = self.rules.max_idle_time.filter(|_| open > 0);
        let limit = surplus.into_iter().chain(idle).min()?;
        turn.now.checked_add(limit)
    }
}
