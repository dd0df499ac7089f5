//! Whether to try again, and when: by what an error says of its effect, never
//! by its text.
//!
//! A pure decision: randomness comes in as an argument, and nobody sleeps
//! here. Knows neither pool nor statement.

use std::time::Duration;

use millpond_driver::{Error, Fate, Outcome};

/// Trying again what did not happen.
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    /// How often, after the first attempt.
    pub(crate) max_retries: u32,
    /// The longest wait before a retry.
    pub(crate) interval: Duration,
}

impl Retry {
    /// How long to wait before what failed so is tried again, after so many
    /// retries; `None`: it is not.
    ///
    /// Only what was not sent is repeated, for nothing else is certain to
    /// happen once. The first retry follows at once: one dead connection says
    /// nothing of the database. From then on the wait is drawn from
    /// `0 ..= interval`, so that callers that failed together come back apart.
    pub(crate) fn after(&self, error: &Error, retries: u32, random: u64) -> Option<Duration> {
        let connection_was_dead = error.outcome() == Outcome::NotSent
            && error.fate() == Fate::Discard
            && !error.is_permanent();
        (connection_was_dead && retries < self.max_retries).then(|| match retries {
            0 => Duration::ZERO,
            _ => fraction(self.interval, random),
        })
    }
}

/// A part of `whole`, uniform in `0 ..= whole`, by the random number given.
pub(crate) fn fraction(whole: Duration, random: u64) -> Duration {
    whole.mul_f64((random >> 11) as f64 / ((1_u64 << 53) - 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_driver::Cause;

    const RETRY: Retry = Retry { max_retries: 3, interval: Duration::from_secs(1) };

    fn dead() -> Error {
        Error::lost("closed by the server").with_outcome(Outcome::NotSent)
    }

    #[test]
    fn what_was_not_sent_is_tried_again_so_often() {
        let waits = [0, 1, 2, 3].map(|retries| RETRY.after(&dead(), retries, u64::MAX));
        let interval = Some(RETRY.interval);
        assert_eq!(waits, [Some(Duration::ZERO), interval, interval, None]);
    }

    #[test]
    fn the_wait_is_any_part_of_the_interval() {
        assert_eq!(RETRY.after(&dead(), 1, 0), Some(Duration::ZERO));
        assert_eq!(RETRY.after(&dead(), 1, u64::MAX / 2), Some(RETRY.interval / 2));
    }

    #[test]
    fn what_may_have_happened_or_was_refused_is_not_repeated() {
        for error in [
            Error::lost("closed by the server"),
            dead().with_outcome(Outcome::Rejected),
            dead().with_outcome(Outcome::RolledBack),
            dead().with_fate(Fate::Reusable),
            Error::connect("wrong password").with_cause(Cause::Auth),
        ] {
            assert_eq!(RETRY.after(&error, 0, 0), None, "{error}");
        }
    }
}
