//! How many retries a set of callers may afford.
//!
//! Owns the arithmetic of tokens. Does not know what is retried; time is passed
//! in.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::Mutex;

/// What limits retries in proportion to successes, so that a database in
/// trouble gets little more work than it had before. Clones share it.
///
/// A retry takes a token, a success adds a tenth of one, and so does every
/// tenth of a second; 100 are kept at most, and it starts with 10. First
/// attempts are free: it is no circuit breaker.
#[derive(Clone)]
pub struct Budget(Arc<Mutex<Bucket>>);

impl Budget {
    /// A budget of its own.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Bucket { tokens: RESERVE, filled: None })))
    }

    /// Takes a token for a retry, if there is one.
    pub(crate) fn spend(&self, now: Instant) -> bool {
        self.0.lock().spend(now)
    }

    /// Something succeeded.
    pub(crate) fn earn(&self, now: Instant) {
        self.0.lock().earn(now);
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = f64::from(self.0.lock().tokens) / f64::from(TOKEN);
        f.debug_struct("Budget").field("tokens", &tokens).finish()
    }
}

// In thousandths of a token: of these, time adds one each millisecond.
const TOKEN: u32 = 1000;
const SUCCESS: u32 = TOKEN / 10;
const RESERVE: u32 = TOKEN * 10;
const MOST: u32 = TOKEN * 100;

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    /// Until when time has been counted.
    filled: Option<Instant>,
}

impl Bucket {
    fn spend(&mut self, now: Instant) -> bool {
        self.fill(now);
        let left = self.tokens.checked_sub(TOKEN);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }

    fn earn(&mut self, now: Instant) {
        self.fill(now);
        self.add(SUCCESS);
    }

    fn fill(&mut self, now: Instant) {
        let filled = self.filled.get_or_insert(now);
        let passed = now.saturating_duration_since(*filled).as_millis();
        let whole = u64::try_from(passed).unwrap_or(u64::MAX);
        // What is left of a millisecond counts next time.
        *filled += Duration::from_millis(whole);
        self.add(u32::try_from(whole).unwrap_or(MOST));
    }

    fn add(&mut self, tokens: u32) {
        self.tokens = self.tokens.saturating_add(tokens).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_reserve_is_spent_and_comes_back_with_time() {
        let (budget, start) = (Budget::new(), start());
        let spent = (0..20).filter(|_| budget.spend(start)).count();
        assert_eq!(spent, 10);
        assert!(!budget.spend(start + Duration::from_millis(999)));
        assert!(budget.spend(start + Duration::from_secs(1)));
        assert!(!budget.spend(start + Duration::from_secs(1)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..200).filter(|_| budget.spend(later)).count(), 100, "kept at most");
    }

    #[test]
    fn ten_successes_pay_for_a_retry() {
        let (budget, start) = (Budget::new(), start());
        while budget.spend(start) {}
        for _ in 0..9 {
            budget.earn(start);
        }
        assert!(!budget.spend(start));
        budget.earn(start);
        assert!(budget.clone().spend(start));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Spend,
        Earn,
        Pass(Duration),
        Back(Duration),
    }

    fn step() -> impl Strategy<Value = Step> {
        let time = || (0_u64..3_000_000).prop_map(Duration::from_micros);
        prop_oneof![
            4 => Just(Step::Spend),
            3 => Just(Step::Earn),
            2 => time().prop_map(Step::Pass),
            1 => time().prop_map(Step::Back),
        ]
    }

    proptest! {
        /// Whatever happens in which order, also when callers' clocks disagree.
        #[test]
        fn no_more_is_spent_than_was_there_and_came(
            steps in proptest::collection::vec(step(), 0..400),
        ) {
            let start = start() + Duration::from_secs(3600);
            let (mut now, mut latest) = (start, None::<Instant>);
            let mut first = None;
            let mut bucket = Bucket { tokens: RESERVE, filled: None };
            let (mut spent, mut earned) = (0_u64, 0_u64);
            for step in steps {
                match step {
                    Step::Spend => spent += u64::from(bucket.spend(now)),
                    Step::Earn => {
                        bucket.earn(now);
                        earned += 1;
                    }
                    Step::Pass(time) => now += time,
                    Step::Back(time) => now -= time,
                }
                if matches!(step, Step::Spend | Step::Earn) {
                    first.get_or_insert(now);
                    latest = latest.max(Some(now));
                }
                prop_assert!(bucket.tokens <= MOST);
                let passed = latest.zip(first).map_or(Duration::ZERO, |(to, from)| to - from);
                let came = earned * u64::from(SUCCESS) + passed.as_millis() as u64;
                prop_assert!(spent * u64::from(TOKEN) <= u64::from(RESERVE) + came);
            }
        }
    }
}
