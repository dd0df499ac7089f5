//! What may be known of one connection.
//!
//! Owns the words. Decides nothing.

use std::time::{Duration, Instant};

use super::entry::{Entry, Note};

/// The facts of a connection, as hooks and operators see them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its number in the pool, in order of birth.
    pub id: u64,
    /// How long it has been open.
    pub age: Duration,
    /// How long it has been idle; of one that is lent, how long it was before.
    pub idle: Duration,
    /// How often it has been lent, counting the present loan.
    pub uses: u64,
}

impl ConnectionInfo {
    /// Of one that has just been opened.
    pub(super) fn newborn(id: u64) -> Self {
        Self { id, age: Duration::ZERO, idle: Duration::ZERO, uses: 0 }
    }

    /// Of one that has been idle until `until`.
    pub(super) fn of<C>(entry: &Entry<C>, note: &Note, now: Instant, until: Instant) -> Self {
        Self {
            id: entry.id,
            age: now.saturating_duration_since(entry.born),
            idle: until.saturating_duration_since(entry.idle_since),
            uses: note.lent() - entry.lent_before,
        }
    }
}
