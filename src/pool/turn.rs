//! What goes into a visit under the pool's lock, and what comes out of it.
//!
//! Owns the words between the state machine and those who call it: the facts
//! of a [`Turn`], the [`Effects`] it leaves behind, and the answers. Decides
//! nothing and carries nothing out; knows neither driver nor runtime.

use std::task::Waker;
use std::time::{Duration, Instant};

use millpond_driver::Error;

use super::entry::{Borrower, Held};
use super::events::CloseReason;
use super::leaks::Leak;
use super::shelf::Shelf;
use super::slots::Index;
use super::waiters::Ticket;

/// One visit under the lock: the facts that come in, the effects that go out.
#[derive(Debug)]
pub(super) struct Turn<'a, C> {
    pub(super) shelf: &'a Shelf<C>,
    pub(super) now: Instant,
    /// The executor that a task spawned now would run on. `None` in a hurried
    /// turn: a state that needs it asks for a full one.
    pub(super) executor: Option<u64>,
    pub(super) random: u64,
    pub(super) fx: &'a mut Effects<C>,
}

/// Collected under the lock, carried out after it.
#[derive(Debug)]
pub(super) struct Effects<C> {
    /// The first waker has a place of its own: a hand-over allocates nothing.
    first: Option<Waker>,
    more: Vec<Waker>,
    pub(super) jobs: Vec<Job<C>>,
    /// A closed pool has changed: whoever waits for its end looks again.
    pub(super) ebbed: bool,
    /// A full turn is wanted, to hire a keeper.
    pub(super) unkept: bool,
    /// Connections that are held for too long.
    pub(super) leaks: Vec<Leak>,
    /// What is no longer needed, to be dropped after the lock is gone: an error
    /// may carry anything.
    pub(super) waste: Vec<Error>,
    /// Connections that leave the pool, and why.
    pub(super) closed: Vec<(u64, CloseReason)>,
}

/// Work for a task of the pool.
#[derive(Debug)]
pub(super) enum Job<C> {
    /// Open a connection for this slot.
    Connect(Index),
    /// Find out whether the connection may be lent.
    Check(Held<C>, Check),
    /// Say goodbye.
    Close(Held<C>),
    /// Keep the pool's time, as the keeper of this number.
    Keep(u64),
}

impl<C> Default for Effects<C> {
    fn default() -> Self {
        Self {
            first: None,
            more: Vec::new(),
            jobs: Vec::new(),
            ebbed: false,
            unkept: false,
            leaks: Vec::new(),
            waste: Vec::new(),
            closed: Vec::new(),
        }
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

/// How far a connection is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Check {
    /// The database is to answer.
    pub(super) ping: bool,
    /// The application is asked whether it may be lent.
    pub(super) admit: bool,
}

/// How `State::enter` ended.
#[derive(Debug)]
pub(super) enum Entered<C> {
    Served(Held<C>),
    Queued(Ticket),
    /// In the queue, and tasks are to be started: look again after that, for a
    /// runtime that is ending drops them unseen.
    QueuedAndStarting(Ticket),
    Refused(Error),
    /// Nothing at hand, and the caller does not wait.
    NotNow,
}

/// What `State::look` found.
#[derive(Debug)]
pub(super) enum Look {
    Answered,
    Wait,
    /// Nobody keeps the time on this executor: the caller does, as the keeper
    /// of this number.
    StandIn(u64),
}

/// A caller that comes in.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    pub(super) borrower: Borrower,
    /// How long it waits; zero: not at all. `None`: as the pool is set.
    pub(super) patience: Option<Duration>,
    /// Taken if the caller is queued.
    pub(super) waker: &'a mut Option<Waker>,
}

/// What the pool was doing with a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Checking,
    /// `quick`: one round trip, after which the connection is free.
    Cleaning {
        quick: bool,
    },
    Closing,
}
