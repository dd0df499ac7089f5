//! What happens in a pool, told one by one.
//!
//! Owns the words and who is told. Does not know what anybody makes of it, and
//! lets no listener harm the pool by a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use millpond_driver::{Driver, Error};

use super::leaks::Leak;
use super::shared::Shared;

/// Is told what happens in a pool. Set by
/// [`Builder::observer`](crate::Builder::observer).
///
/// Called where it happens, by callers and tasks of the pool alike and never
/// under a lock; so it must not block. A panic in it is dropped.
pub trait Observer: Send + Sync + 'static {
    /// Something has happened.
    fn on_event(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}

/// Something that has happened. Connections are named by their numbers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A connection has been opened.
    #[non_exhaustive]
    Connected {
        /// Its number.
        connection: u64,
        /// How long that took.
        took: Duration,
    },
    /// A connection could not be opened.
    #[non_exhaustive]
    ConnectFailed {
        /// Why.
        error: &'a Error,
        /// How long that took.
        took: Duration,
    },
    /// A connection has been lent.
    #[non_exhaustive]
    Acquired {
        /// Its number.
        connection: u64,
        /// How long the caller waited; zero if it had not to.
        waited: Duration,
        /// The caller's label.
        label: Option<&'static str>,
    },
    /// A caller got none.
    #[non_exhaustive]
    AcquireFailed {
        /// Why.
        error: &'a Error,
        /// The caller's label.
        label: Option<&'static str>,
    },
    /// A connection has been given back.
    #[non_exhaustive]
    Released {
        /// Its number.
        connection: u64,
        /// How long it was held, to a few milliseconds.
        held: Duration,
    },
    /// A check or hook has found that a connection is not to be lent.
    #[non_exhaustive]
    CheckFailed {
        /// Its number.
        connection: u64,
        /// What was found.
        error: &'a Error,
    },
    /// A statement has ended; a stream of rows with its last.
    #[non_exhaustive]
    Statement {
        /// The connection's number.
        connection: u64,
        /// How long that took.
        took: Duration,
        /// Why it failed, if it did.
        error: Option<&'a Error>,
    },
    /// A statement on the pool, or work under a policy, is tried again.
    #[non_exhaustive]
    Retried {
        /// How often by now.
        retries: u32,
        /// Why the last attempt failed.
        error: &'a Error,
    },
    /// A connection is closed.
    #[non_exhaustive]
    Closed {
        /// Its number.
        connection: u64,
        /// Why.
        reason: CloseReason,
    },
    /// A connection is held for too long, or has come back after that.
    Leak(&'a Leak),
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseReason {
    /// It has reached its lifetime.
    Lifetime,
    /// It has been lent `conn_max_uses` times.
    Uses,
    /// It was idle for too long.
    Idle,
    /// More were idle than `max_idle_conns`.
    Surplus,
    /// `max_open_conns` was lowered.
    Resized,
    /// It was evicted, or not retained.
    Evicted,
    /// It could not be made clean.
    Unclean,
    /// Its borrower panicked, discarded it, or met an error that condemned it.
    Discarded,
    /// It was dead.
    Dead,
    /// It has failed a check.
    FailedCheck,
    /// A hook did not want it.
    Refused,
    /// Its borrower has taken it out of the pool.
    Detached,
    /// The runtime that worked on it has ended, or a task of the pool panicked.
    RuntimeEnded,
    /// The pool was closed.
    PoolClosed,
}

impl CloseReason {
    pub(super) const ALL: [Self; 14] = [
        Self::Lifetime,
        Self::Uses,
        Self::Idle,
        Self::Surplus,
        Self::Resized,
        Self::Evicted,
        Self::Unclean,
        Self::Discarded,
        Self::Dead,
        Self::FailedCheck,
        Self::Refused,
        Self::Detached,
        Self::RuntimeEnded,
        Self::PoolClosed,
    ];

    /// In one word, as metrics name it: `failed_check`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lifetime => "lifetime",
            Self::Uses => "uses",
            Self::Idle => "idle",
            Self::Surplus => "surplus",
            Self::Resized => "resized",
            Self::Evicted => "evicted",
            Self::Unclean => "unclean",
            Self::Discarded => "discarded",
            Self::Dead => "dead",
            Self::FailedCheck => "failed_check",
            Self::Refused => "refused",
            Self::Detached => "detached",
            Self::RuntimeEnded => "runtime_ended",
            Self::PoolClosed => "pool_closed",
        }
    }
}

impl<D: Driver> Shared<D> {
    /// Tells the observer, if there is one.
    #[inline]
    pub(super) fn tell<'a>(&self, event: impl FnOnce() -> Event<'a>) {
        if let Some(observer) = &self.hooks.observer {
            tell_contained(&**observer, event());
        }
    }
}

#[cold]
fn tell_contained(observer: &dyn Observer, event: Event<'_>) {
    contained(observer, &event);
}

fn contained(observer: &dyn Observer, event: &Event<'_>) {
    let _ = catch_unwind(AssertUnwindSafe(|| observer.on_event(event)));
}

/// Two observers as one. Neither harms the other.
pub(super) struct Both<O>(pub(super) Arc<dyn Observer>, pub(super) O);

impl<O: Observer> Observer for Both<O> {
    fn on_event(&self, event: &Event<'_>) {
        contained(&*self.0, event);
        contained(&self.1, event);
    }
}
