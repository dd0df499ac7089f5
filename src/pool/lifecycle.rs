//! What an operator does to a running pool: other limits, a pause, connections
//! put out and taken in.
//!
//! Owns which connections have to go when a limit is lowered or somebody says
//! so. Part of the state machine: runs under the lock, closes nothing itself.

use millpond_driver::{Error, ErrorKind};

use super::connects::Newborn;
use super::entry::{Held, Note, Phase};
use super::events::CloseReason;
use super::slots::Index;
use super::state::State;
use super::turn::Turn;
use crate::config::Settings;

impl<C> State<C> {
    /// Other settings are in force from now on.
    pub(super) fn reconfigure(&mut self, turn: &mut Turn<'_, C>, rules: Settings) {
        if self.is_closed() {
            return;
        }
        let reset_changes = self.rules.reset != rules.reset;
        self.rules = rules;
        turn.shelf.set_check_after_idle(self.rules.check_after_idle);
        turn.shelf.raise();
        for mut held in turn.shelf.take_all_locked() {
            if reset_changes {
                self.start_close(turn, held, CloseReason::Evicted);
                continue;
            }
            // By the time of its last use and the new rule.
            let idle_since = held.entry.idle_since;
            turn.shelf.prove(&mut held.entry, idle_since);
            turn.shelf.put_locked(held);
        }
        if reset_changes {
            // Those that are cleaned or checked were left so, too.
            let away = |phase| matches!(phase, Phase::Checking | Phase::Cleaning);
            turn.shelf.slots.notes().filter(|note| away(note.phase())).for_each(Note::evict);
        }
        self.leaks_at = Some(turn.now);
        self.maintain_at = Some(turn.now);
        self.hire(turn, Some(turn.now));
        self.settle(turn);
    }

    /// Nothing is lent and nothing opened until [`resume`](Self::resume).
    pub(super) fn pause(&mut self, turn: &mut Turn<'_, C>) {
        if !self.is_closed() {
            self.paused = true;
            turn.shelf.raise();
            self.settle(turn);
        }
    }

    pub(super) fn resume(&mut self, turn: &mut Turn<'_, C>) {
        self.paused = false;
        self.settle(turn);
    }

    /// How many connections there are above the limit, but for those on their
    /// way out. One that is being opened counts once it is there, for it may
    /// fail.
    pub(super) fn excess(&self, turn: &Turn<'_, C>) -> usize {
        (self.open(turn) - self.closing).saturating_sub(self.rules.max_open)
    }

    /// Closes idle connections above the limit; those in use follow when they
    /// are given back.
    pub(super) fn shed(&mut self, turn: &mut Turn<'_, C>) {
        let excess = self.excess(turn);
        if excess == 0 {
            return;
        }
        turn.shelf.raise();
        let idle = turn.shelf.take_all_locked();
        for (n, held) in idle.into_iter().enumerate() {
            if n < excess {
                self.start_close(turn, held, CloseReason::Resized);
            } else {
                turn.shelf.put_locked(held);
            }
        }
    }

    /// Has all connections closed, or the one of this number: idle ones now, the
    /// others when they are given back or opened, and never lent again. Returns
    /// how many.
    pub(super) fn evict(&mut self, turn: &mut Turn<'_, C>, only: Option<u64>) -> usize {
        let mut evicted = 0;
        for note in turn.shelf.slots.notes() {
            let concerned = match note.phase() {
                Phase::Vacant | Phase::Closing => false,
                // It may have logged in already, but has no number yet.
                Phase::Opening => only.is_none(),
                _ => only.is_none_or(|id| id == note.id()),
            };
            if concerned {
                note.evict();
                evicted += 1;
            }
        }
        turn.shelf.count_eviction();
        self.sweep(turn);
        evicted
    }

    /// Closes what lies idle and is not to be lent again.
    pub(super) fn sweep(&mut self, turn: &mut Turn<'_, C>) {
        turn.shelf.raise();
        for held in turn.shelf.take_all_locked() {
            match self.over(turn, &held) {
                Some(reason) => self.start_close(turn, held, reason),
                None => turn.shelf.put_locked(held),
            }
        }
        self.settle(turn);
    }

    /// The numbers of the idle connections.
    pub(super) fn idle(&mut self, turn: &mut Turn<'_, C>) -> Vec<u64> {
        turn.shelf.raise();
        let mut numbers = Vec::new();
        for held in turn.shelf.take_all_locked() {
            numbers.push(held.entry.id);
            turn.shelf.put_locked(held);
        }
        self.settle(turn);
        numbers
    }

    /// Takes an idle connection off the shelf, if it still lies there.
    pub(super) fn take_idle(&mut self, turn: &mut Turn<'_, C>, id: u64) -> Option<Held<C>> {
        turn.shelf.raise();
        let mut found = None;
        for held in turn.shelf.take_all_locked() {
            if held.entry.id == id {
                found = Some(held);
            } else {
                turn.shelf.put_locked(held);
            }
        }
        if let Some(held) = &found {
            turn.shelf.note(&held.index).set(Phase::Checking);
            self.checking += 1;
        }
        self.settle(turn);
        found
    }

    /// A connection has left the pool with its borrower.
    pub(super) fn detached(&mut self, turn: &mut Turn<'_, C>, index: Index) {
        let id = turn.shelf.note(&index).id();
        self.count_close(turn, id, CloseReason::Detached);
        self.tally.closed += 1;
        self.free(turn, index);
        turn.fx.ebbed |= self.is_closed();
        self.settle(turn);
    }

    /// A connection that the application has opened joins the idle. It is
    /// checked before it is lent.
    ///
    /// # Errors
    ///
    /// There is no room, or the pool is closed.
    pub(super) fn add(
        &mut self,
        turn: &mut Turn<'_, C>,
        newborn: Newborn<C>,
    ) -> Result<(), (C, Error)> {
        if self.is_closed() {
            return Err((newborn.conn, Error::closed()));
        }
        let most = self.rules.max_open;
        let index = match self.open(turn) + self.opening < most {
            true => self.reserve(turn),
            false => None,
        };
        let Some(index) = index else {
            let full = format!("the pool is full: it has {most} connections (max_open_conns)");
            return Err((newborn.conn, Error::new(ErrorKind::Overloaded, full)));
        };
        self.opening -= 1;
        let mut held = self.install(turn, index, newborn);
        held.entry.era = turn.shelf.era().wrapping_sub(1);
        let expires = held.entry.expires;
        self.put(turn, held);
        self.watch(turn, expires);
        self.watch_loans(turn);
        Ok(())
    }
}
