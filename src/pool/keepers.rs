//! Who keeps the pool's time: at most one keeper for each executor in use.
//!
//! One is the rule. A second is hired where callers wait on another executor,
//! for the first one's may have stopped turning. Knows nothing of what is due.

use std::task::Waker;
use std::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Keepers {
    list: Vec<Keeper>,
    hired: u64,
}

#[derive(Debug)]
struct Keeper {
    number: u64,
    executor: u64,
    /// When it means to look again; `None` until its first look.
    at: Option<Instant>,
    waker: Option<Waker>,
}

/// What a keeper that looks is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// To look now.
    Due,
    /// To look again then.
    NotBefore(Instant),
    /// To go: the office is another's.
    Dismissed,
}

impl Keepers {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Fills the office on an executor, if nobody holds it; returns the number
    /// of its new holder.
    pub(super) fn hire(&mut self, executor: u64) -> Option<u64> {
        if self.list.iter().any(|keeper| keeper.executor == executor) {
            return None;
        }
        self.hired += 1;
        self.list.push(Keeper { number: self.hired, executor, at: None, waker: None });
        Some(self.hired)
    }

    /// Empties an office. Returns whether it was held, and the holder's waker,
    /// to be dropped after the lock is gone.
    pub(super) fn dismiss(&mut self, number: u64) -> (bool, Option<Waker>) {
        match self.list.iter().position(|keeper| keeper.number == number) {
            Some(at) => (true, self.list.swap_remove(at).waker),
            None => (false, None),
        }
    }

    /// A keeper looks. `waker` is exchanged for the one it left before.
    pub(super) fn duty(&mut self, number: u64, now: Instant, waker: &mut Option<Waker>) -> Duty {
        let Some(keeper) = self.list.iter_mut().find(|keeper| keeper.number == number) else {
            return Duty::Dismissed;
        };
        std::mem::swap(&mut keeper.waker, waker);
        match keeper.at {
            Some(at) if now < at => Duty::NotBefore(at),
            _ => Duty::Due,
        }
    }

    /// A keeper that has looked will do so again at `at`.
    pub(super) fn sleeps_until(&mut self, number: u64, at: Instant) {
        if let Some(keeper) = self.list.iter_mut().find(|keeper| keeper.number == number) {
            keeper.at = Some(at);
        }
    }

    /// Has all of them look at `at` at the latest. `None`: at once.
    pub(super) fn plan(&mut self, at: Option<Instant>, mut wake: impl FnMut(Waker)) {
        for keeper in &mut self.list {
            if keeper.at.is_some_and(|planned| at.is_none_or(|at| at < planned)) {
                keeper.at = at;
                if let Some(waker) = keeper.waker.take() {
                    wake(waker);
                }
            }
        }
    }
}
