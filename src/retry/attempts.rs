//! The attempts of one operation, from the first to the last.
//!
//! Owns the count, the time and the errors so far. What is attempted is
//! somebody else's, and so is whether an error is worth another attempt.

use std::fmt;
use std::time::{Duration, Instant};

use millpond_driver::{Cause, Error, Result, Runtime};

use super::decide::{Work, is_death_before_use, may_repeat};
use super::{Retry, fraction};

/// What the first wait after a conflict is drawn from: the other transaction is
/// about to end.
const CONFLICT: Duration = Duration::from_millis(1);

/// Longer than anybody waits, and not beyond what a clock can say.
const YEAR: Duration = Duration::from_secs(3600 * 24 * 365);

/// The attempts of one operation. Made by [`Retry::attempts`], for a loop of
/// one's own.
#[must_use = "attempts are counted by it"]
pub struct Attempts<'a> {
    policy: &'a Retry,
    runtime: &'a dyn Runtime,
    since: Instant,
    course: Course,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(policy: &'a Retry, runtime: &'a dyn Runtime) -> Self {
        Self { policy, runtime, since: runtime.now(), course: Course::default() }
    }

    /// Waits for as long as is due after this error, if the operation is to be
    /// attempted once more.
    ///
    /// # Errors
    ///
    /// The error as it is, with those of the [earlier](Error::earlier) attempts,
    /// if this one was the last: because of what it says, because there were
    /// enough, because the next would begin too late, because the budget is
    /// spent, or because the policy is not [valid](Retry::validate).
    ///
    /// # Cancellation
    ///
    /// Dropping the future forgets the error; the attempt counts.
    pub async fn next(&mut self, error: Error) -> Result<()> {
        let wait = self.decide(error, Work::Whole)?;
        self.rest(wait).await;
        Ok(())
    }

    /// The operation succeeded, which its budget is told. One that is never
    /// told grows with time only.
    pub fn succeeded(self) {
        if let Some(budget) = &self.policy.budget {
            budget.earn(self.runtime.now());
        }
    }

    /// How long to wait before another attempt, by what the error speaks of;
    /// an error if there is none.
    pub(crate) fn decide(&mut self, error: Error, work: Work) -> Result<Duration> {
        let now = self.runtime.now();
        let left = self.left(now);
        if left.is_zero() || !self.policy.faults().is_empty() {
            return Err(self.course.last(error));
        }
        let facts = Facts { now, left, random: self.runtime.random() };
        self.course.next(self.policy, error, work, &facts)
    }

    /// Waits for so long.
    pub(crate) async fn rest(&self, wait: Duration) {
        if !wait.is_zero() {
            self.runtime.sleep_until(self.runtime.now() + wait).await;
        }
    }

    pub(crate) fn course(&self) -> &Course {
        &self.course
    }

    /// How long from now the last attempt may begin.
    pub(crate) fn left(&self, now: Instant) -> Duration {
        self.policy.timeout.saturating_sub(now.saturating_duration_since(self.since))
    }
}

impl fmt::Debug for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempts")
            .field("policy", &self.policy)
            .field("failed", &self.course.earlier)
            .finish_non_exhaustive()
    }
}

/// What a decision needs from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) now: Instant,
    /// How long from now another attempt may begin.
    pub(crate) left: Duration,
    pub(crate) random: u64,
}

/// What has been tried.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// The first and the newest.
    earlier: Vec<Error>,
    retries: u32,
}

/// So many earlier errors are kept. A database may be away for days.
const KEPT: usize = 16;

impl Course {
    /// How often it was tried again.
    pub(crate) fn retries(&self) -> u32 {
        self.retries
    }

    /// The error that is made up for by another attempt.
    pub(crate) fn newest(&self) -> Option<&Error> {
        self.earlier.last()
    }

    /// How long to wait before what failed so is tried again; an error if it is
    /// not.
    pub(crate) fn next(
        &mut self,
        policy: &Retry,
        error: Error,
        work: Work,
        facts: &Facts,
    ) -> Result<Duration> {
        let retries = self.retries();
        let enough = retries.saturating_add(1) >= policy.max_attempts;
        if enough || !may_repeat(&error, policy.replay, work) {
            return Err(self.last(error));
        }
        let wait = self.wait(policy, &error, facts.random);
        if !wait.is_zero() && wait >= facts.left {
            return Err(self.last(error.within("no time for another attempt")));
        }
        if policy.budget.as_ref().is_some_and(|budget| !budget.spend(facts.now)) {
            return Err(self.last(error.within("no budget for another attempt")));
        }
        if self.earlier.len() == KEPT {
            self.earlier.remove(1);
        }
        self.earlier.push(error);
        self.retries = retries.saturating_add(1);
        Ok(wait)
    }

    /// The error of the last attempt, with all before it.
    pub(crate) fn last(&mut self, error: Error) -> Error {
        if self.earlier.is_empty() {
            return error;
        }
        let attempts = std::mem::take(&mut self.retries).saturating_add(1);
        error.with_earlier(std::mem::take(&mut self.earlier)).with_attempts(attempts)
    }

    fn wait(&self, policy: &Retry, error: &Error, random: u64) -> Duration {
        let retries = self.retries();
        if retries == 0 && is_death_before_use(error) {
            return Duration::ZERO;
        }
        let first = match error.cause() {
            Cause::Conflict => policy.initial_interval.min(CONFLICT),
            _ => policy.initial_interval,
        };
        fraction(policy.interval(first, retries).min(YEAR), random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_driver::Outcome;

    const SECOND: Duration = Duration::from_secs(1);

    fn dead() -> Error {
        Error::lost("closed by the server").with_outcome(Outcome::NotSent)
    }

    #[test]
    fn of_a_thousand_attempts_the_first_error_and_the_newest_are_kept() {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as now")]
        let facts = Facts { now: Instant::now(), left: Duration::MAX, random: 0 };
        let policy = Retry::of_pool(u32::MAX - 1, Duration::ZERO, SECOND);
        let mut course = Course::default();
        for number in 0..1_000 {
            let error = dead().within(number.to_string());
            course.next(&policy, error, Work::Whole, &facts).unwrap();
        }
        let error = course.last(dead());
        assert_eq!((error.attempts(), error.earlier().len()), (1_001, KEPT));
        let said = error.to_string();
        assert!(said.starts_with("failed after 1001 attempts: closed"), "{said}");
        assert!(said.contains("0: closed") && said.contains("999: closed"), "{said}");
    }

    /// The longest waits between attempts that fail so.
    fn waits(policy: &Retry, error: &Error, random: u64) -> Vec<Duration> {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as now")]
        let facts = Facts { now: Instant::now(), left: Duration::MAX, random };
        let mut course = Course::default();
        let next = || course.next(policy, error.clone(), Work::Whole, &facts).ok();
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_was_not_sent_is_tried_again_so_often() {
        let policy = Retry::of_pool(3, SECOND, SECOND);
        assert_eq!(waits(&policy, &dead(), u64::MAX), [Duration::ZERO, SECOND, SECOND]);
        assert_eq!(waits(&policy, &dead(), u64::MAX / 2)[1..], [SECOND / 2, SECOND / 2]);
        assert!(waits(&Retry::of_pool(0, SECOND, SECOND), &dead(), 0).is_empty());
        let never = Retry::of_pool(2, Duration::ZERO, SECOND);
        assert_eq!(waits(&never, &dead(), u64::MAX), [Duration::ZERO; 2]);
    }

    #[test]
    fn a_conflict_is_over_sooner_than_an_outage() {
        let policy = Retry::new().max_attempts(4);
        let ms = Duration::from_millis(1);
        let refused = Error::connect("connection refused");
        assert_eq!(waits(&policy, &refused, u64::MAX), [ms * 10, ms * 20, ms * 40]);
        let conflict = Error::statement("deadlock").with_cause(Cause::Conflict);
        assert_eq!(waits(&policy, &conflict, u64::MAX), [ms, ms * 2, ms * 4]);
        assert_eq!(waits(&policy, &conflict, 0), [Duration::ZERO; 3]);
    }

    #[test]
    fn no_wait_is_beyond_what_a_clock_can_say() {
        let policy = Retry::new().multiplier(f64::MAX).max_interval(Duration::MAX);
        let waits = waits(&policy, &Error::connect("connection refused"), u64::MAX);
        assert_eq!(waits, [Duration::from_millis(10), YEAR]);
    }
}
