//! Whether to try again, and when: by what an error says of its effect, never
//! by its text.
//!
//! Owns [`Retry`], the policy, and [`run`], which applies it to any operation.
//! The decisions are pure: time and randomness come in as arguments. Knows
//! neither pool nor statement, and waits on the [`Runtime`] it is given.
//!
//! What is repeated, by the [`Outcome`](crate::Outcome) and the
//! [`Cause`](crate::Cause) of the error:
//!
//! | | not sent | rejected | rolled back | unknown |
//! | --- | --- | --- | --- | --- |
//! | an operation | yes | if that passes: a conflict, a stale statement, the wrong role, no room, a server that starts | yes | no |
//! | one that is [idempotent](Replay::Idempotent) | yes | those, and a lock not free in time | yes | yes |
//! | a transaction before its commit | yes | those, all of it | yes | yes, for it was not committed |
//! | its commit | yes | those, all of it | yes | no, unless verified or idempotent |
//!
//! Nothing is repeated that would fail the same way again: what the
//! application, its credentials, its settings or damaged data are the cause of,
//! and what the pool itself refused.

mod attempts;
mod budget;
mod decide;

use std::fmt;
use std::time::Duration;

use millpond_driver::{Error, Result, Runtime};

pub use attempts::Attempts;
pub use budget::Budget;
pub use decide::Replay;

pub(crate) use attempts::{Course, Facts};
pub(crate) use decide::{Work, is_death_before_use};

/// Runs an operation until it succeeds, fails for good, or the policy ends it.
///
/// The operation is any that returns this crate's [`Error`], with a pool or
/// without. An error that says [not sent](crate::Outcome::NotSent), rejected or
/// rolled back must say so of all that the operation did: one of several
/// statements without a transaction goes through
/// [`Pool::run`](crate::Pool::run), which knows, or is
/// [idempotent](Replay::Idempotent).
///
/// ```
/// # use millpond::{Error, retry, testing::sim::Sim};
/// use millpond::Retry;
///
/// # Sim::new(1).run(async |sim| {
/// let mut tries = 0;
/// let greeting = retry::run(&sim, &Retry::new(), || {
///     tries += 1;
///     let connected = tries == 3;
///     async move { connected.then_some("hello").ok_or(Error::connect("connection refused")) }
/// })
/// .await?;
/// assert_eq!((greeting, tries), ("hello", 3));
/// # Ok::<_, millpond::Error>(())
/// # })?;
/// # Ok::<_, millpond::Error>(())
/// ```
///
/// # Errors
///
/// That of the last attempt, with those of the [earlier](Error::earlier) ones;
/// [`ErrorKind::Config`](crate::ErrorKind::Config) before the first if the
/// policy is not valid.
///
/// # Cancellation
///
/// Dropping the future drops the attempt under way, and no other follows.
pub async fn run<T, F, Fut>(runtime: &dyn Runtime, policy: &Retry, mut operation: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    policy.validate()?;
    let mut attempts = policy.attempts(runtime);
    loop {
        match operation().await {
            Ok(value) => {
                attempts.succeeded();
                return Ok(value);
            }
            Err(error) => attempts.next(error).await?,
        }
    }
}

/// How often, how long and how fast to try again.
///
/// Waits grow from one to the next, and each is drawn anew from zero to what it
/// has grown to, so that callers that failed together come back apart. Clones
/// share the budget.
///
/// ```
/// use millpond::Retry;
///
/// let policy = Retry::new().max_attempts(0).multiplier(f64::NAN);
/// assert_eq!(
///     policy.validate().unwrap_err().to_string(),
///     "invalid retry policy: max_attempts = 0: must be at least 1; \
///      multiplier = NaN: must be a finite number of at least 1"
/// );
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Retry {
    max_attempts: u32,
    initial_interval: Duration,
    multiplier: f64,
    max_interval: Duration,
    timeout: Duration,
    replay: Replay,
    budget: Option<Budget>,
}

impl Retry {
    /// All defaults.
    pub fn new() -> Self {
        Self {
            max_attempts: 3,
            initial_interval: Duration::from_millis(10),
            multiplier: 2.0,
            max_interval: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            replay: Replay::default(),
            budget: Some(Budget::new()),
        }
    }

    /// That of a pool for single statements: waits do not grow, and only dead
    /// connections come to it, which a pool meets in bursts and not for long.
    pub(crate) fn of_pool(max_retries: u32, interval: Duration, timeout: Duration) -> Self {
        Self {
            max_attempts: max_retries.saturating_add(1),
            initial_interval: interval,
            multiplier: 1.0,
            max_interval: interval,
            timeout,
            replay: Replay::NoEffect,
            budget: None,
        }
    }

    /// For a database that is about to come: as often as `limit` allows. An
    /// attempt only connects, which is as good twice.
    pub(crate) fn of_first_connect(limit: Duration) -> Self {
        Self {
            max_attempts: u32::MAX,
            initial_interval: Duration::from_millis(50),
            timeout: limit,
            replay: Replay::Idempotent,
            budget: None,
            ..Self::new()
        }
    }

    /// The most attempts, the first included. Default: 3.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// What the first wait is drawn from, but for two cases: a connection that
    /// proved dead is replaced at once, and after a conflict with another
    /// transaction it is a millisecond, if that is less. Default: 10
    /// milliseconds.
    pub fn initial_interval(mut self, interval: Duration) -> Self {
        self.initial_interval = interval;
        self
    }

    /// By how much waits grow. Default: 2.
    pub fn multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = multiplier;
        self
    }

    /// The longest wait. Default: 1 second.
    pub fn max_interval(mut self, interval: Duration) -> Self {
        self.max_interval = interval;
        self
    }

    /// How long after the first attempt the last may begin, and the longest
    /// that all attempts wait for connections of a pool. It interrupts none.
    /// Default: 30 seconds.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// What may be repeated. Default: [`Replay::NoEffect`].
    pub fn replay(mut self, replay: Replay) -> Self {
        self.replay = replay;
        self
    }

    /// What limits retries in proportion to successes. Default: one of this
    /// policy and its clones, so keep one policy for a database: a new one for
    /// each call has a reserve of its own and limits nothing. `None`: nothing does.
    pub fn budget(mut self, budget: impl Into<Option<Budget>>) -> Self {
        self.budget = budget.into();
        self
    }

    /// Checks the policy. Called by whatever runs an operation under it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), listing every fault with
    /// field, value and rule.
    pub fn validate(&self) -> Result<()> {
        let faults = self.faults();
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::config(format!("invalid retry policy: {}", faults.join("; "))))
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |name: &str, value: &dyn fmt::Debug, rule: &str| {
            faults.push(format!("{name} = {value:?}: must {rule}"));
        };
        if self.max_attempts == 0 {
            fault("max_attempts", &0, "be at least 1");
        }
        if self.initial_interval.is_zero() {
            fault("initial_interval", &self.initial_interval, "be above 0");
        }
        // Not a number is below nothing.
        if !(self.multiplier >= 1.0 && self.multiplier.is_finite()) {
            fault("multiplier", &self.multiplier, "be a finite number of at least 1");
        }
        if self.max_interval < self.initial_interval {
            let rule = format!("not be below initial_interval ({:?})", self.initial_interval);
            fault("max_interval", &self.max_interval, &rule);
        }
        if self.timeout.is_zero() {
            fault("timeout", &self.timeout, "be above 0");
        }
        faults
    }

    /// For a loop of one's own around an operation that starts now.
    ///
    /// ```
    /// # use millpond::{Pool, Retry, drivers::fake::{Act, Fake}, testing::sim::Sim};
    /// # Sim::new(1).run(async |sim| {
    /// # let server = Fake::new();
    /// # let pool = Pool::builder(server.clone()).runtime(sim.clone()).build().await?;
    /// # server.next_queries([Act::Fail(
    /// #     millpond::Error::statement("deadlock").with_cause(millpond::Cause::Conflict),
    /// # )]);
    /// let policy = Retry::new();
    /// let mut attempts = policy.attempts(&sim);
    /// let rows = loop {
    ///     match pool.query("UPDATE account SET balance = 0", &[]).await {
    ///         Ok(rows) => break rows,
    ///         Err(error) => attempts.next(error).await?,
    ///     }
    /// };
    /// attempts.succeeded();
    /// # assert_eq!((rows.len(), server.counts().queries), (1, 2));
    /// # Ok::<_, millpond::Error>(())
    /// # })?;
    /// # Ok::<_, millpond::Error>(())
    /// ```
    pub fn attempts<'a>(&'a self, runtime: &'a dyn Runtime) -> Attempts<'a> {
        Attempts::new(self, runtime)
    }

    /// What the wait before retry `retry`, counted from 0, is drawn from.
    fn interval(&self, first: Duration, retry: u32) -> Duration {
        let exponent = i32::try_from(retry).unwrap_or(i32::MAX);
        let grown = first.as_secs_f64() * self.multiplier.powi(exponent);
        // So that what is no number, or none that a duration can be, is the most.
        if grown < self.max_interval.as_secs_f64() {
            Duration::try_from_secs_f64(grown).unwrap_or(self.max_interval)
        } else {
            self.max_interval
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

/// A part of `whole`, uniform in `0 ..= whole`, by the random number given.
pub(crate) fn fraction(whole: Duration, random: u64) -> Duration {
    let part = (random >> 11) as f64 / ((1_u64 << 53) - 1) as f64;
    Duration::try_from_secs_f64(whole.as_secs_f64() * part).unwrap_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let policy = Retry::new();
        assert_eq!((policy.max_attempts, policy.multiplier), (3, 2.0));
        assert_eq!((policy.initial_interval, policy.max_interval), (MS * 10, MS * 1000));
        assert_eq!((policy.timeout, policy.replay), (MS * 30_000, Replay::NoEffect));
        assert!(policy.budget.is_some() && policy.validate().is_ok());
    }

    #[test]
    fn intervals_grow_to_the_longest_and_stay_there() {
        let policy = Retry::new().max_interval(MS * 50);
        let intervals = [0, 1, 2, 3, 40_000, u32::MAX].map(|n| policy.interval(MS * 10, n));
        assert_eq!(intervals, [10, 20, 40, 50, 50, 50].map(|n| MS * n));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let policy = Retry::new()
            .max_attempts(0)
            .initial_interval(Duration::ZERO)
            .multiplier(0.5)
            .timeout(Duration::ZERO);
        assert_eq!(
            policy.validate().expect_err("four faults").to_string(),
            "invalid retry policy: max_attempts = 0: must be at least 1; \
             initial_interval = 0ns: must be above 0; \
             multiplier = 0.5: must be a finite number of at least 1; \
             timeout = 0ns: must be above 0"
        );
        let policy = Retry::new().initial_interval(MS * 3000);
        assert_eq!(
            policy.validate().expect_err("a fault").to_string(),
            "invalid retry policy: max_interval = 1s: must not be below initial_interval (3s)"
        );
        for multiplier in [f64::NAN, f64::INFINITY, -2.0, 0.0] {
            assert!(Retry::new().multiplier(multiplier).validate().is_err(), "{multiplier}");
        }
    }

    proptest! {
        /// Also of one that is not valid: no panic, no overflow, no negative wait.
        #[test]
        fn no_wait_is_longer_than_the_longest(
            (first, most) in (any::<Duration>(), any::<Duration>()),
            multiplier in any::<f64>(),
            (retry, random) in (any::<u32>(), any::<u64>()),
        ) {
            let policy = Retry::new().multiplier(multiplier).max_interval(most);
            let interval = policy.interval(first, retry);
            prop_assert!(interval <= most);
            prop_assert!(fraction(interval, random) <= interval.saturating_add(MS));
        }
    }

    #[test]
    fn a_part_is_uniform_from_nothing_to_all() {
        assert_eq!(fraction(MS, 0), Duration::ZERO);
        assert_eq!(fraction(MS * 2, u64::MAX / 2), MS);
        assert_eq!(fraction(MS, u64::MAX), MS);
        assert_eq!(fraction(Duration::MAX, u64::MAX), Duration::MAX);
    }
}
