//! The share of faults among what was met in the last ten seconds.
//!
//! Owns ten buckets of a second each; plain counts, because a moving average
//! says little when little happens. Knows no state of a node.

use std::time::Instant;

/// Seconds that are looked at.
const SECONDS: u64 = 10;
/// Fewer facts than this say nothing.
const ENOUGH: u32 = 20;

#[derive(Debug, Clone)]
pub(super) struct Window {
    start: Instant,
    buckets: [Bucket; SECONDS as usize],
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// The second it counts, from the start.
    second: u64,
    good: u32,
    bad: u32,
}

impl Window {
    pub(super) fn new(start: Instant) -> Self {
        Self { start, buckets: Default::default() }
    }

    pub(super) fn add(&mut self, bad: bool, now: Instant) {
        let bucket = self.bucket(now);
        let count = if bad { &mut bucket.bad } else { &mut bucket.good };
        *count = count.saturating_add(1);
    }

    /// So many that were no faults.
    pub(super) fn add_good(&mut self, times: u32, now: Instant) {
        let bucket = self.bucket(now);
        bucket.good = bucket.good.saturating_add(times);
    }

    fn bucket(&mut self, now: Instant) -> &mut Bucket {
        let second = self.second(now);
        let bucket = &mut self.buckets[(second % SECONDS) as usize];
        if bucket.second != second {
            *bucket = Bucket { second, ..Bucket::default() };
        }
        bucket
    }

    /// Whether half or more of what was met lately, and of enough, was faults.
    pub(super) fn is_bad(&self, now: Instant) -> bool {
        let second = self.second(now);
        let lately = self.buckets.iter().filter(|bucket| second < bucket.second + SECONDS);
        let (good, bad) = lately.fold((0_u32, 0_u32), |(good, bad), bucket| {
            (good.saturating_add(bucket.good), bad.saturating_add(bucket.bad))
        });
        good.saturating_add(bad) >= ENOUGH && bad >= good
    }

    fn second(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        Instant::now()
    }

    #[test]
    fn half_of_twenty_is_bad_and_half_of_nineteen_is_too_little() {
        let now = start();
        let mut window = Window::new(now);
        for n in 0..19 {
            window.add(n % 2 == 0, now);
        }
        assert!(!window.is_bad(now));
        window.add(false, now);
        assert!(window.is_bad(now));
        window.add(false, now);
        assert!(!window.is_bad(now), "10 of 21");
    }

    #[test]
    fn what_is_ten_seconds_old_is_forgotten() {
        let now = start();
        let mut window = Window::new(now);
        (0..20).for_each(|_| window.add(true, now));
        assert!(window.is_bad(now + Duration::from_millis(9_999)));
        assert!(!window.is_bad(now + Duration::from_secs(10)));
        window.add(true, now + Duration::from_secs(10));
        assert!(!window.is_bad(now + Duration::from_secs(10)), "its bucket counts anew");
    }
}
