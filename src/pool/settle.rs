//! Where free connections, free slots and waiting callers meet.
//!
//! Owns who is served with what, and the invariants that hold after every
//! decision. Part of the state machine: runs under the lock, starts nothing
//! itself.

use std::time::Instant;

use millpond_driver::Error;

use super::entry::{Held, Phase};
use super::events::CloseReason;
use super::slots::Index;
use super::state::State;
use super::turn::{Check, Job, Turn};
use super::waiters::Answer;

impl<C> State<C> {
    /// Serves callers in order with what is idle, has what is stale checked,
    /// opens what is missing and allowed; opens the fast path when nobody
    /// waits. Once closed, closes what is idle.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_, C>) {
        if self.closed {
            while let Some(held) = turn.shelf.take_locked() {
                self.start_close(turn, held, CloseReason::PoolClosed);
            }
            turn.fx.ebbed = true;
            self.check(turn);
            return;
        }
        self.shed(turn);
        while !self.waiters.is_empty() && !self.paused {
            let wanted = self.coming() < self.waiters.len();
            if let Some(held) = turn.shelf.take_locked() {
                let fresh = turn.shelf.is_fresh(&held.entry, turn.now);
                if let Some(reason) = self.over(turn, &held) {
                    self.start_close(turn, held, reason);
                } else if fresh && (!self.gated || held.entry.admitted) {
                    self.grant(turn, held);
                } else if wanted || turn.shelf.is_suspect(&held.entry) {
                    // Suspects are checked all at once: if they are dead, their
                    // checks must not add up.
                    let how = Check { ping: !fresh, admit: self.gated && wanted };
                    self.start_check(turn, held, how);
                } else {
                    turn.shelf.put_back_locked(held);
                    break;
                }
            } else if wanted && self.rinsed_by(turn.now).is_none() && self.may_connect(turn) {
                self.start_connect(turn);
            } else {
                break;
            }
        }
        if !self.waiters.is_empty() && !self.paused {
            if let Some(error) = self.hopeless(turn) {
                while !self.waiters.is_empty() {
                    self.fail_first(turn, &error);
                }
            }
        }
        self.replenish(turn);
        if self.waiters.is_empty() && !self.paused && self.excess(turn) == 0 {
            turn.shelf.lower();
        }
        if let at @ Some(_) = self.next_connect(turn) {
            if self.keepers.is_empty() {
                self.hire(turn, at);
            } else {
                self.keepers.plan(at, |waker| turn.fx.wake(Some(waker)));
            }
        }
        self.check(turn);
    }

    /// Hands a connection to the oldest caller. From here on the caller holds
    /// it, whether its future is polled or not.
    pub(super) fn grant(&mut self, turn: &mut Turn<'_, C>, mut held: Held<C>) {
        let borrower = self.waiters.first().expect("somebody waits");
        turn.shelf.lend(&mut held, turn.now, borrower);
        let waker = self.waiters.answer_first(Answer::Granted(held));
        turn.fx.wake(waker);
    }

    /// Has a connection checked.
    pub(super) fn start_check(&mut self, turn: &mut Turn<'_, C>, held: Held<C>, how: Check) {
        self.checking += 1;
        turn.shelf.note(&held.index).set(Phase::Checking);
        turn.fx.jobs.push(Job::Check(held, how));
    }

    pub(super) fn fail_first(&mut self, turn: &mut Turn<'_, C>, error: &Error) {
        let waker = self.waiters.answer_first(Answer::Failed(error.clone()));
        turn.fx.wake(waker);
    }

    pub(super) fn free(&mut self, turn: &mut Turn<'_, C>, index: Index) {
        turn.shelf.note(&index).set(Phase::Vacant);
        self.vacant.push(index);
    }

    /// Connections that will be free without anybody giving one back.
    pub(super) fn coming(&self) -> usize {
        self.opening + self.checking
    }

    /// When those who wait stop counting on what is being cleaned, if it would
    /// do for them all.
    pub(super) fn rinsed_by(&self, now: Instant) -> Option<Instant> {
        let enough = self.coming() + self.rinsing >= self.waiters.len() && self.rinsing > 0;
        self.rinse_by.filter(|at| enough && now < *at)
    }

    /// Connections that exist.
    pub(super) fn open(&self, turn: &Turn<'_, C>) -> usize {
        turn.shelf.slots.issued() - self.vacant.len() - self.opening
    }

    /// The invariants (ARCHITECTURE.md), after every transition in debug
    /// builds. Phases other than idle and in use change under the lock only,
    /// so what is counted here is exact.
    #[cfg(any(not(debug_assertions), millpond_loom))]
    fn check(&mut self, _turn: &Turn<'_, C>) {}

    #[cfg(all(debug_assertions, not(millpond_loom)))]
    fn check(&mut self, turn: &Turn<'_, C>) {
        let slots = &turn.shelf.slots;
        let count = |phase| slots.notes().filter(|note| note.phase() == phase).count();
        let total = self.open(turn) + self.opening;
        let ceiling = self.ceiling.max(self.rules.max_open);
        assert!(total <= ceiling, "more connections than max_open_conns");
        self.ceiling = total.max(self.rules.max_open);
        assert_eq!(count(Phase::Vacant), self.vacant.len(), "a slot was lost");
        assert_eq!(count(Phase::Opening), self.opening, "a connect was lost");
        assert_eq!(count(Phase::Checking), self.checking, "a check was lost");
        assert_eq!(count(Phase::Closing), self.closing, "a goodbye was lost");
        assert!(count(Phase::Cleaning) >= self.rinsing, "a cleaning was lost");
        assert_eq!(
            self.tally.created - self.tally.closed,
            self.open(turn) as u64,
            "created − closed = open"
        );
        assert_eq!(
            self.tally.closes.iter().sum::<u64>(),
            self.tally.closed + self.closing as u64,
            "a reason for each close"
        );
        if !self.closed && !self.paused && !self.waiters.is_empty() {
            assert!(
                turn.shelf.len() == 0 || self.coming() >= self.waiters.len(),
                "a connection lies idle while somebody waits for it"
            );
            assert!(
                self.coming() >= self.waiters.len()
                    || self.rinsed_by(turn.now).is_some()
                    || !self.may_connect(turn),
                "a caller waits though a connection may be opened"
            );
        }
    }
}
