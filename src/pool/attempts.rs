//! A statement on the pool, tried on one connection after another.
//!
//! Owns the time it may take in all: acquires and the waits between them share
//! one `acquire_timeout`. Whether to try again is decided in `retry`.

use std::panic::Location;
use std::time::Instant;

use millpond_driver::{Driver, Error};

use super::Pool;
use super::acquire::Acquire;
use super::events::Event;
use crate::sync::Ordering;

pub(super) struct Attempts<'a, D: Driver> {
    pool: &'a Pool<D>,
    place: &'static Location<'static>,
    since: Instant,
    retries: u32,
}

impl<'a, D: Driver> Attempts<'a, D> {
    pub(super) fn new(pool: &'a Pool<D>, place: &'static Location<'static>) -> Self {
        Self { pool, place, since: pool.shared.runtime.coarse_now(), retries: 0 }
    }

    /// The connection of the next attempt.
    pub(super) fn acquire(&self) -> Acquire<'a, D> {
        let acquire = Acquire::new(self.pool, self.place);
        if self.retries == 0 {
            return acquire;
        }
        let shared = &self.pool.shared;
        let limit = shared.rules(|rules| rules.acquire_timeout);
        let spent = shared.runtime.now().saturating_duration_since(self.since);
        acquire.timeout(limit.saturating_sub(spent))
    }

    /// Whether to try once more, after the wait that is due.
    pub(super) async fn again(&mut self, failed: Option<&Error>) -> bool {
        let Some(error) = failed else { return false };
        let shared = &self.pool.shared;
        let (retry, limit) = shared.rules(|rules| (rules.retry.clone(), rules.acquire_timeout));
        let Some(wait) = retry.after(error, self.retries, shared.runtime.random()) else {
            return false;
        };
        self.retries += 1;
        if let Some(meters) = &shared.meters {
            meters.retries.fetch_add(1, Ordering::Relaxed);
        }
        let retries = self.retries;
        shared.tell(|| Event::Retried { retries, error });
        if wait.is_zero() {
            return true;
        }
        let spent = shared.runtime.now().saturating_duration_since(self.since);
        if spent.saturating_add(wait) >= limit {
            return false;
        }
        shared.runtime.sleep_until(shared.deadline(wait)).await;
        true
    }
}
