//! What a caller is told of a pool that had nothing for it in time.
//!
//! Owns the words. Does not know how a pool finds them out.

use std::fmt;
use std::panic::Location;
use std::time::Duration;

use crate::error::Phase;

/// The pool's state when an acquire ran out of time. Carried by
/// [`Error::report`](crate::Error::report).
///
/// Counts are connections, but for `waiting`, which counts callers, the one
/// that gave up included.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// What the caller was waiting for.
    pub phase: Phase,
    /// How long it waited.
    pub waited: Duration,
    /// The most connections the pool may have, if limited.
    pub max_open: Option<usize>,
    /// Lent to callers.
    pub in_use: usize,
    /// Free.
    pub idle: usize,
    /// Being opened.
    pub opening: usize,
    /// Being checked before use.
    pub checking: usize,
    /// Being cleaned after use.
    pub cleaning: usize,
    /// Being closed.
    pub closing: usize,
    /// Callers in the queue.
    pub waiting: usize,
    /// Connects that have failed since the last success.
    pub failed_connects: u32,
    /// Who has held a connection longest.
    pub oldest: Option<Holder>,
}

impl Report {
    /// An empty report; fill in what is known.
    pub fn new(phase: Phase, waited: Duration) -> Self {
        Self {
            phase,
            waited,
            max_open: None,
            in_use: 0,
            idle: 0,
            opening: 0,
            checking: 0,
            cleaning: 0,
            closing: 0,
            waiting: 0,
            failed_connects: 0,
            oldest: None,
        }
    }
}

impl fmt::Display for Report {
    /// For example `no connection free within 250ms: 8 of 8 in use, 0 idle, 0
    /// opening, 31 waiting; oldest held for 4.2s by "checkout" at
    /// src/cart.rs:41:20`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.phase {
            Phase::Connecting => "no connection opened",
            Phase::Checking => "no connection passed its check",
            Phase::Paused => "the pool is paused, nothing lent",
            Phase::Waiting | Phase::Statement => "no connection free",
        };
        write!(f, "{what} within {:?}: {}", self.waited, self.in_use)?;
        if let Some(max) = self.max_open {
            write!(f, " of {max}")?;
        }
        write!(f, " in use, {} idle, {} opening", self.idle, self.opening)?;
        for (count, name) in
            [(self.checking, "checking"), (self.cleaning, "cleaning"), (self.closing, "closing")]
        {
            if count > 0 {
                write!(f, ", {count} {name}")?;
            }
        }
        write!(f, ", {} waiting", self.waiting)?;
        if self.failed_connects > 0 {
            write!(f, "; {} connects failed in a row", self.failed_connects)?;
        }
        match &self.oldest {
            Some(holder) => write!(f, "; oldest held {holder}"),
            None => Ok(()),
        }
    }
}

/// Who holds a connection: how long, where it was taken, and the label given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Since it was taken, to a few milliseconds.
    pub held: Duration,
    /// The call of `acquire`.
    pub place: &'static Location<'static>,
    /// The label of that call.
    pub label: Option<&'static str>,
}

impl Holder {
    /// A holder.
    pub fn new(
        held: Duration,
        place: &'static Location<'static>,
        label: Option<&'static str>,
    ) -> Self {
        Self { held, place, label }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for {:?}", self.held)?;
        if let Some(label) = self.label {
            write!(f, " by {label:?}")?;
        }
        write!(f, " at {}", self.place)
    }
}
