//! What is done to connections as time passes: old ones are closed, and those
//! idle for too long; the others are checked now and then.
//!
//! Owns when to look next, so that a pool at rest is looked at rarely. Part of
//! the state machine: runs under the lock, reads no clock.

use std::time::{Duration, Instant};

use super::entry::{Held, Phase};
use super::events::CloseReason;
use super::state::{State, earliest};
use super::turn::{Check, Turn};

/// How long connections above `max_idle_conns` may lie idle, so that a burst
/// does not close what the next one opens.
const SURPLUS_LINGER: Duration = Duration::from_secs(1);

/// How long before its end a connection has its successor opened.
const RENEW_BEFORE: Duration = Duration::from_secs(2);
/// A connection lent within this time is in demand.
const IN_DEMAND: Duration = Duration::from_secs(60);

impl<C> State<C> {
    /// A connection that expires then has been opened.
    pub(super) fn watch(&mut self, turn: &mut Turn<'_, C>, expires: Option<Instant>) {
        let renew = expires.and_then(|at| at.checked_sub(RENEW_BEFORE)).map(|at| at.max(turn.now));
        self.look_at(turn, earliest([renew, expires, self.next_idle_out(turn)]));
    }

    /// A connection is back among the idle, as if it had not been away.
    pub(super) fn rewatch(&mut self, turn: &mut Turn<'_, C>, idle_since: Instant) {
        let idle_out = self.rules.max_idle_time.and_then(|limit| idle_since.checked_add(limit));
        self.look_at(turn, earliest([idle_out, self.next_idle_out(turn)]));
    }

    fn look_at(&mut self, turn: &mut Turn<'_, C>, at: Option<Instant>) {
        if at.is_some() && !self.is_closed() {
            self.maintain_at = earliest([self.maintain_at, at]);
            self.hire(turn, at);
        }
    }

    /// Closes what has been idle or alive for too long, has successors opened
    /// for those in demand, and has checked what nobody used for a while.
    pub(super) fn maintain(&mut self, turn: &mut Turn<'_, C>) {
        turn.shelf.raise();
        // What cannot be replaced now is not trimmed.
        let trims = self.outage.failures() == 0;
        let idle = turn.shelf.take_all_locked();
        let mut next = None;
        let depths = (0..idle.len()).rev();
        // How many have been used since, and the connection.
        for (depth, held) in depths.zip(idle) {
            let surplus = (depth >= self.rules.max_idle).then_some(SURPLUS_LINGER);
            let idle = self.rules.max_idle_time.filter(|_| depth >= self.rules.min_idle);
            let limit = idle.into_iter().chain(surplus).min().filter(|_| trims);
            let until = limit.and_then(|limit| held.entry.idle_since.checked_add(limit));
            let answered = held.entry.checked_at.max(Some(held.entry.idle_since));
            let check = answered.zip(self.rules.health_interval);
            let check = check.and_then(|(answered, interval)| answered.checked_add(interval));
            let idle_out = until.filter(|at| turn.now >= *at).map(|_| match surplus {
                Some(_) => CloseReason::Surplus,
                None => CloseReason::Idle,
            });
            if let Some(reason) = self.over(turn, &held).or(idle_out) {
                self.start_close(turn, held, reason);
            } else if check.is_some_and(|at| turn.now >= at) {
                self.start_check(turn, held, Check { ping: true, admit: false });
            } else {
                next = earliest([next, until, check]);
                turn.shelf.put_locked(held);
            }
        }
        self.maintain_at = earliest([next, self.renew(turn), self.next_idle_out(turn)]);
    }

    /// Opens a successor for each connection that is about to expire and in
    /// demand, so that no caller waits for the connect. Returns when to look
    /// again.
    fn renew(&mut self, turn: &mut Turn<'_, C>) -> Option<Instant> {
        let mut next = None;
        let mut due = 0;
        for note in turn.shelf.slots.notes() {
            let live = !matches!(note.phase(), Phase::Vacant | Phase::Opening | Phase::Closing);
            let Some(expires) = turn.shelf.at(note.expiry()).filter(|at| live && *at > turn.now)
            else {
                continue;
            };
            let lead = expires.checked_sub(RENEW_BEFORE).unwrap_or(turn.now);
            if note.is_renewed() || turn.now < lead {
                let at = if note.is_renewed() { expires } else { lead };
                next = earliest([next, Some(at)]);
                continue;
            }
            next = earliest([next, Some(expires)]);
            let lent = turn.shelf.at(note.lent_at()).filter(|_| note.was_lent());
            let idle = lent.map_or(Duration::MAX, |at| turn.now.saturating_duration_since(at));
            if note.phase() == Phase::InUse || idle < IN_DEMAND {
                note.renew();
                due += 1;
            }
        }
        for _ in 0..due {
            if self.may_connect(turn) {
                self.start_connect(turn);
            }
        }
        next
    }

    /// Opens connections until `min_idle_conns` are idle or on their way.
    pub(super) fn replenish(&mut self, turn: &mut Turn<'_, C>) {
        while self.lacks_idle(turn) && self.may_connect(turn) {
            self.start_connect(turn);
        }
    }

    /// Whether fewer are idle, or about to be, than `min_idle_conns`.
    pub(super) fn lacks_idle(&self, turn: &Turn<'_, C>) -> bool {
        let spare = turn.shelf.len() + self.coming() + self.rinsing;
        let spare = spare.saturating_sub(self.waiters.len());
        spare < self.rules.min_idle
    }

    /// Puts a connection back among the idle by when it was last used: one that
    /// was only checked does not come before those that callers use.
    pub(super) fn shelve(&self, turn: &mut Turn<'_, C>, held: Held<C>) {
        turn.shelf.raise();
        turn.shelf.insert_locked(held);
    }

    /// When a connection that is in use now could first have been idle for so
    /// long that something is due.
    fn next_idle_out(&self, turn: &Turn<'_, C>) -> Option<Instant> {
        let open = self.open(turn);
        let surplus = (open > self.rules.max_idle).then_some(SURPLUS_LINGER);
        let idle = [self.rules.max_idle_time, self.rules.health_interval];
        let idle = idle.into_iter().flatten().filter(|_| open > 0);
        let limit = surplus.into_iter().chain(idle).min()?;
        turn.now.checked_add(limit)
    }
}
