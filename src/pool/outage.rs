//! When the database may be asked for a connection again.
//!
//! Owns what connects have met since the last success, and the backoff shared
//! by all of them. A pure decision: time and randomness come in as arguments.

use std::time::{Duration, Instant};

use millpond_driver::{Cause, Error};

use crate::retry::fraction;

/// Bounds of the backoff: the delay before attempt `n` is drawn from
/// `0 ..= min(CAP, FIRST·2ⁿ)` (full jitter, as in AWS's "Exponential Backoff
/// and Jitter", 2015).
const FIRST: Duration = Duration::from_millis(50);
const CAP: Duration = Duration::from_secs(1);
/// After a refusal that only a person can lift, such as a wrong password:
/// servers lock accounts that keep trying.
const PERMANENT: Duration = Duration::from_secs(5);

/// What connects have met since the last success.
#[derive(Debug, Default)]
pub(super) struct Outage {
    failures: u32,
    /// No attempt before this.
    until: Option<Instant>,
    last: Option<Error>,
    /// New connections in a row that the application did not want lent.
    refusals: u32,
    /// The last failure was one of those.
    by_refusal: bool,
}

impl Outage {
    /// A connect has failed. Returns the error kept before.
    pub(super) fn failed(&mut self, error: Error, now: Instant, random: u64) -> Option<Error> {
        let delay = if error.is_permanent() {
            PERMANENT
        } else {
            // 2⁵ times the first is above the cap.
            let most = (FIRST * (1 << self.failures.min(5))).min(CAP);
            // A server that is full has to refuse each attempt: soon not more than
            // two in a second.
            let least = if error.cause() == Cause::Overload { most / 2 } else { Duration::ZERO };
            least + fraction(most - least, random)
        };
        self.failures = self.failures.saturating_add(1);
        self.until = now.checked_add(delay);
        self.by_refusal = false;
        self.last.replace(error)
    }

    /// A connect has succeeded. Returns the error kept before.
    pub(super) fn over(&mut self) -> Option<Error> {
        let refusals = self.refusals;
        std::mem::replace(self, Self { refusals, ..Self::default() }).last
    }

    /// The application does not want a new connection lent: as if it had not
    /// been opened, or one after the other would be.
    pub(super) fn refused(&mut self, error: Error, now: Instant, random: u64) -> Option<Error> {
        self.failures = self.failures.max(self.refusals);
        self.refusals = self.refusals.saturating_add(1);
        let before = self.failed(error, now, random);
        self.by_refusal = true;
        before
    }

    /// It lets one be lent: an outage that it made itself is over.
    pub(super) fn admitted(&mut self) -> Option<Error> {
        self.refusals = 0;
        if self.by_refusal { self.over() } else { None }
    }

    /// Connects that have failed in a row.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// The error of the last one.
    pub(super) fn last(&self) -> Option<&Error> {
        self.last.as_ref()
    }

    /// When the next attempt may be made, if not now.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|at| now < *at)
    }

    /// How many attempts may be under way at a time: one while the database is
    /// down, so that it is not stormed when it comes back.
    pub(super) fn at_once(&self, otherwise: usize) -> usize {
        if self.failures > 0 { 1 } else { otherwise }
    }

    /// The refusal in force that waiting does not lift.
    pub(super) fn refusal(&self, now: Instant) -> Option<&Error> {
        self.last().filter(|error| error.is_permanent() && self.until(now).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        Instant::now()
    }

    #[test]
    fn the_longest_delay_doubles_from_50_ms_to_a_second() {
        let now = now();
        let mut outage = Outage::default();
        let longest: Vec<_> = (0..8)
            .map(|_| {
                outage.failed(Error::connect("refused"), now, u64::MAX);
                outage.until(now).expect("backed off") - now
            })
            .collect();
        let ms = [50, 100, 200, 400, 800, 1000, 1000, 1000].map(Duration::from_millis);
        assert_eq!(longest, ms);
    }

    #[test]
    fn the_shortest_delay_is_none_at_all() {
        let now = now();
        let mut outage = Outage::default();
        outage.failed(Error::connect("refused"), now, 0);
        assert_eq!(outage.until(now), None);
    }

    /// Half of all waits were shorter than half a second, as long as it lasted.
    #[test]
    fn a_server_that_is_full_is_soon_asked_twice_a_second_at_most() {
        let now = now();
        let mut outage = Outage::default();
        let shortest = (0..8).map(|_| {
            outage.failed(Error::connect("full").with_cause(Cause::Overload), now, 0);
            outage.until(now).expect("backed off") - now
        });
        let ms = [25, 50, 100, 200, 400, 500, 500, 500].map(Duration::from_millis);
        assert_eq!(shortest.collect::<Vec<_>>(), ms);
    }

    #[test]
    fn a_refusal_that_waiting_does_not_lift_is_kept_for_five_seconds() {
        let now = now();
        let mut outage = Outage::default();
        outage.failed(Error::connect("denied").with_cause(Cause::Auth), now, 0);
        assert!(outage.refusal(now + Duration::from_millis(4999)).is_some());
        assert!(outage.refusal(now + PERMANENT).is_none());
    }

    #[test]
    fn one_attempt_at_a_time_until_one_succeeds() {
        let mut outage = Outage::default();
        assert_eq!(outage.at_once(4), 4);
        outage.failed(Error::connect("refused"), now(), 0);
        assert_eq!(outage.at_once(4), 1);
        outage.over();
        assert_eq!(outage.at_once(4), 4);
    }
}
