//! What is to be done once the pool's lock is gone.
//!
//! Owns the list of wakers and jobs that a visit under the lock leaves behind.
//! Does not carry them out; knows neither driver nor runtime.

use std::task::Waker;

use super::entry::Held;
use super::slots::Index;

/// Collected under the lock, carried out after it.
#[derive(Debug)]
pub(super) struct Effects<C> {
    /// The first waker has a place of its own: a hand-over allocates nothing.
    first: Option<Waker>,
    more: Vec<Waker>,
    pub(super) jobs: Vec<Job<C>>,
    /// A closed pool has changed: whoever waits for its end looks again.
    pub(super) ebbed: bool,
}

/// Work for a task of the pool.
#[derive(Debug)]
pub(super) enum Job<C> {
    /// Open a connection for this slot.
    Connect(Index),
    /// Prove that the connection is alive.
    Check(Held<C>),
    /// Say goodbye.
    Close(Held<C>),
    /// Keep the pool's time, as the keeper of this number.
    Keep(u64),
}

impl<C> Default for Effects<C> {
    fn default() -> Self {
        Self { first: None, more: Vec::new(), jobs: Vec::new(), ebbed: false }
    }
}

impl<C> Effects<C> {
    pub(super) fn wake(&mut self, waker: Option<Waker>) {
        match waker {
            Some(waker) if self.first.is_some() => self.more.push(waker),
            Some(waker) => self.first = Some(waker),
            None => {}
        }
    }

    /// The wakers, in the order in which their owners were answered.
    pub(super) fn take_wakers(&mut self) -> impl Iterator<Item = Waker> + use<C> {
        self.first.take().into_iter().chain(std::mem::take(&mut self.more))
    }
}
