//! How long things take, measured without a lock and in bounded memory.
//!
//! Owns the histogram and what is read from it. Does not know what is
//! measured, nor any clock.

use std::fmt;
// Not from `sync`: nothing is ordered by these counters, so there is nothing
// for the model checker to find, and it is slow with thousands of atomics.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Durations of one kind since the pool's start.
///
/// Median and percentile are read from a histogram and are within 2 % of the
/// truth; the others are exact. All are taken at one moment, but for what is
/// being recorded at that very moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timings {
    /// How many there were.
    pub count: u64,
    /// All of them together.
    pub total: Duration,
    /// Half of them took no longer.
    pub median: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Timings {
    /// The mean; zero if there were none.
    pub fn mean(&self) -> Duration {
        let nanos = self.total.as_nanos().checked_div(u128::from(self.count)).unwrap_or(0);
        Duration::from_nanos(nanos as u64)
    }
}

impl fmt::Display for Timings {
    /// For example `1200: half within 80µs, 99 % within 2.1ms, all within 7ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        let Self { count, median, p99, max, .. } = self;
        write!(f, "{count}: half within {median:.1?}, 99 % within {p99:.1?}, all within {max:.1?}")
    }
}

/// Steps between two powers of two: a value is known to 1 part in 32.
const STEPS: u64 = 1 << STEP_BITS;
const STEP_BITS: u32 = 5;
/// Values of up to this many bits are told apart: 2⁴⁰ ns are 18 minutes.
const BITS: u32 = 40;
const BUCKETS: usize = ((BITS - STEP_BITS + 1) as usize) << STEP_BITS;

/// A log-linear histogram of nanoseconds, as in HdrHistogram (Gil Tene, 2012):
/// the width of a bucket grows with the value, so the error is relative.
pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    total: AtomicU64,
    max: AtomicU64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            total: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(nanos, Ordering::Relaxed);
        self.max.fetch_max(nanos, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Timings {
        let counts: Vec<u64> =
            self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let percentile = |percent: u64| {
            // The first bucket with so many at or below it.
            let rank = (count * percent).div_ceil(100).max(1);
            let mut below = 0;
            let at = counts.iter().position(|count| {
                below += count;
                below >= rank
            });
            Duration::from_nanos(at.map_or(0, middle).min(max))
        };
        Timings {
            count,
            total: Duration::from_nanos(self.total.load(Ordering::Relaxed)),
            median: percentile(50),
            p99: percentile(99),
            max: Duration::from_nanos(max),
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histogram").field(&self.read()).finish()
    }
}

/// The bucket of a value: exact below `STEPS`, then by the leading bits.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min((1 << BITS) - 1);
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEP_BITS;
    ((u64::from(shift) << STEP_BITS) + (nanos >> shift)) as usize
}

/// The value in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * STEPS {
        return bucket;
    }
    let shift = (bucket >> STEP_BITS) - 1;
    (((bucket & (STEPS - 1)) + STEPS) << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_told_within_two_percent() {
        let mut nanos = 1_u64;
        while nanos < 1 << (BITS - 1) {
            for value in [nanos, nanos + 1, nanos * 4 / 3] {
                let error = middle(bucket(value)).abs_diff(value);
                assert!(error * 50 <= value, "{value} is told as {}", middle(bucket(value)));
            }
            nanos = nanos * 5 / 4 + 1;
        }
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        for at in 0..BUCKETS {
            assert_eq!(bucket(middle(at)), at);
        }
    }

    #[test]
    fn percentiles_are_of_all_that_was_recorded() {
        let histogram = Histogram::new();
        assert_eq!(histogram.read(), Timings::default());
        for ms in 1..=100 {
            histogram.record(Duration::from_millis(ms));
        }
        let read = histogram.read();
        let near = |told: Duration, ms: u64| {
            let truth = Duration::from_millis(ms);
            told.abs_diff(truth) * 50 <= truth
        };
        assert!(near(read.median, 50) && near(read.p99, 99), "{read}");
        assert_eq!((read.count, read.max), (100, Duration::from_millis(100)));
        assert_eq!(read.mean(), Duration::from_micros(50_500));
    }

    #[test]
    fn nothing_is_said_to_have_taken_longer_than_the_longest() {
        let histogram = Histogram::new();
        histogram.record(Duration::from_nanos(1_000_001));
        let read = histogram.read();
        assert!(read.median <= read.max && read.p99 <= read.max, "{read:?}");
        histogram.record(Duration::MAX);
        assert_eq!(histogram.read().count, 2);
    }
}
