//! A statement on the pool, tried on one connection after another.
//!
//! Owns the time it may take in all: acquires and the waits between them share
//! one `acquire_timeout`. Whether to try again is decided in `retry`; here only
//! a connection that proved dead before anything was sent is a reason.

use std::panic::Location;
use std::time::{Duration, Instant};

use millpond_driver::{Driver, Result};

use super::Pool;
use super::acquire::Acquire;
use super::connection::PooledConnection;
use super::events::Event;
use super::shared::Shared;
use crate::retry::{Course, Facts, Work, is_death_before_use};
use crate::sync::Ordering;

pub(super) struct Attempts<'a, D: Driver> {
    pool: &'a Pool<D>,
    place: &'static Location<'static>,
    since: Instant,
    course: Course,
}

impl<'a, D: Driver> Attempts<'a, D> {
    pub(super) fn new(pool: &'a Pool<D>, place: &'static Location<'static>) -> Self {
        let since = pool.shared.runtime.coarse_now();
        Self { pool, place, since, course: Course::default() }
    }

    /// The connection of the next attempt.
    pub(super) async fn acquire(&mut self) -> Result<PooledConnection<D>> {
        let mut acquire = Acquire::new(self.pool, self.place);
        if self.course.retries() > 0 {
            let limit = self.pool.shared.rules(|rules| rules.acquire_timeout);
            acquire = acquire.timeout(self.left_of(limit));
        }
        acquire.await.map_err(|error| self.course.last(error))
    }

    /// What the statement ends with, or `None`, after the wait that is due, if
    /// it is to be tried once more.
    pub(super) async fn settle<T>(&mut self, result: Result<T>) -> Option<Result<T>> {
        let error = match result {
            Err(error) if is_death_before_use(&error) => error,
            Err(error) => return Some(Err(self.course.last(error))),
            Ok(value) => return Some(Ok(value)),
        };
        let shared = &self.pool.shared;
        let (policy, limit) = shared.rules(|rules| (rules.retry.clone(), rules.acquire_timeout));
        let now = shared.runtime.now();
        let facts = Facts { now, left: self.left_of(limit), random: shared.runtime.random() };
        let wait = match self.course.next(&policy, error, Work::Whole, &facts) {
            Ok(wait) => wait,
            Err(error) => return Some(Err(error)),
        };
        shared.note_retry(&self.course);
        if !wait.is_zero() {
            shared.runtime.sleep_until(shared.deadline(wait)).await;
        }
        None
    }

    fn left_of(&self, limit: Duration) -> Duration {
        let now = self.pool.shared.runtime.now();
        limit.saturating_sub(now.saturating_duration_since(self.since))
    }
}

impl<D: Driver> Shared<D> {
    /// Something is tried again: it is counted, and told.
    pub(super) fn note_retry(&self, course: &Course) {
        let Some(error) = course.newest() else { return };
        if let Some(meters) = &self.meters {
            meters.retries.fetch_add(1, Ordering::Relaxed);
        }
        self.tell(|| Event::Retried { retries: course.retries(), error });
    }
}
