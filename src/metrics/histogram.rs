//! How long things take, measured without a lock and in bounded memory.
//!
//! Owns the histogram and what is read from it. Does not know what is
//! measured, nor any clock.

use std::fmt;
// Not from `sync`: nothing is ordered by these counters, so there is nothing
// for the model checker to find, and it is slow with thousands of atomics.
use std::sync::OnceLock;
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
///
/// In parts, so that those who record at the same time write to different
/// memory; a part is made when it is first written to.
pub(crate) struct Histogram {
    parts: [OnceLock<Box<Part>>; PARTS],
}

const PARTS: usize = 16;

struct Part {
    buckets: [AtomicU64; BUCKETS],
    total: AtomicU64,
    max: AtomicU64,
}

impl Part {
    #[cold]
    fn new() -> Box<Self> {
        Box::new(Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            total: AtomicU64::new(0),
            max: AtomicU64::new(0),
        })
    }
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { parts: [const { OnceLock::new() }; PARTS] }
    }

    /// Records a duration. Those with different numbers, modulo a few, do not
    /// get in each other's way.
    #[inline]
    pub(crate) fn record(&self, by: usize, duration: Duration) {
        // Not as_nanos, whose 128 bits cost more than all the rest.
        let nanos = duration.as_secs().saturating_mul(1_000_000_000);
        let nanos = nanos.saturating_add(u64::from(duration.subsec_nanos()));
        let part = &self.parts[by % PARTS];
        let part = part.get().unwrap_or_else(|| part.get_or_init(Part::new));
        part.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        part.total.fetch_add(nanos, Ordering::Relaxed);
        if nanos > part.max.load(Ordering::Relaxed) {
            part.max.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    /// All that has been recorded.
    pub(crate) fn read(&self) -> Distribution {
        let mut all =
            Distribution { counts: vec![0; BUCKETS].into(), total: 0, max: Duration::ZERO };
        for part in self.parts.iter().filter_map(OnceLock::get) {
            for (sum, count) in all.counts.iter_mut().zip(&part.buckets) {
                *sum += count.load(Ordering::Relaxed);
            }
            all.total += part.total.load(Ordering::Relaxed);
            all.max = all.max.max(Duration::from_nanos(part.max.load(Ordering::Relaxed)));
        }
        all
    }
}

/// How durations of one kind are spread: a histogram, read at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// By bucket.
    counts: Box<[u64]>,
    /// In nanoseconds.
    total: u64,
    max: Duration,
}

impl Distribution {
    /// The same with so many more that took no time.
    pub(crate) fn and_none(mut self, more: u64) -> Self {
        if let Some(shortest) = self.counts.first_mut() {
            *shortest += more;
        }
        self
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn total(&self) -> Duration {
        Duration::from_nanos(self.total)
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The duration that this share of them did not exceed, from 0 to 1, within
    /// 2 %. Zero if there were none; shares beyond the ends are taken for them.
    pub fn quantile(&self, share: f64) -> Duration {
        let count = self.count();
        // The first bucket with so many at or below it. NaN becomes 0.
        let rank = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).clamp(1, count.max(1));
        let mut below = 0;
        let at = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        });
        Duration::from_nanos(at.map_or(0, middle)).min(self.max)
    }

    /// How many took no longer than each of these bounds, which ascend. A bucket
    /// counts as below a bound if its middle is.
    pub fn cumulative(&self, bounds: &[Duration]) -> Vec<u64> {
        let mut sum = 0;
        let mut buckets = self.counts.iter().enumerate().peekable();
        let below = |bound: &Duration| {
            while let Some((_, count)) =
                buckets.next_if(|(at, _)| Duration::from_nanos(middle(*at)) <= *bound)
            {
                sum += count;
            }
            sum
        };
        bounds.iter().map(below).collect()
    }

    /// What has come since an earlier reading of the same. The longest of them is
    /// known to 2 % if it is not the longest of all.
    pub fn since(&self, earlier: &Self) -> Self {
        let pairs = self.counts.iter().zip(&earlier.counts);
        let counts: Box<[u64]> = pairs.map(|(now, then)| now.saturating_sub(*then)).collect();
        let max = if self.max > earlier.max {
            self.max
        } else {
            let last = counts.iter().rposition(|count| *count > 0);
            Duration::from_nanos(last.map_or(0, middle)).min(self.max)
        };
        Self { counts, total: self.total.saturating_sub(earlier.total), max }
    }

    /// Adds those of another.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The same in a few numbers.
    pub fn timings(&self) -> Timings {
        Timings {
            count: self.count(),
            total: self.total(),
            median: self.quantile(0.5),
            p99: self.quantile(0.99),
            max: self.max,
        }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histogram").field(&self.read().timings()).finish()
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
        assert_eq!(histogram.read().timings(), Timings::default());
        for ms in 1..=100 {
            histogram.record(ms as usize, Duration::from_millis(ms));
        }
        let read = histogram.read().timings();
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
        histogram.record(0, Duration::from_nanos(1_000_001));
        let read = histogram.read().timings();
        assert!(read.median <= read.max && read.p99 <= read.max, "{read:?}");
        histogram.record(0, Duration::MAX);
        assert_eq!(histogram.read().count(), 2);
    }

    #[test]
    fn cumulative_counts_end_with_all_there_are() {
        let histogram = Histogram::new();
        assert_eq!(histogram.read().cumulative(&[Duration::MAX]), [0]);
        for ms in [1, 2, 3, 400] {
            histogram.record(0, Duration::from_millis(ms));
        }
        let bounds = [500, 1_500, 2_500, 10_000, 1_000_000].map(Duration::from_micros);
        assert_eq!(histogram.read().cumulative(&bounds), [0, 1, 2, 3, 4]);
    }

    /// Durations as they come: of one size, of all sizes, most short and some
    /// long, all the same.
    fn durations(random: &mut fastrand::Rng) -> Vec<u64> {
        let count = random.usize(1..3_000);
        let (shape, around) = (random.u8(0..4), 1 << random.u32(0..36));
        let one = |random: &mut fastrand::Rng| match shape {
            0 => random.u64(0..=2 * around),
            1 => random.u64(..) >> random.u32(25..64),
            2 if random.u8(..) == 0 => around.saturating_mul(random.u64(1..1_000)),
            2 => around + random.u64(0..=around / 8),
            _ => around,
        };
        (0..count).map(|_| one(random).min((1 << BITS) - 1)).collect()
    }

    #[test]
    fn quantiles_agree_with_hdrhistogram_and_sums_are_exact() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let ours = Histogram::new();
            let mut theirs = hdrhistogram::Histogram::<u64>::new_with_max(1 << BITS, 3).unwrap();
            let durations = durations(&mut random);
            for nanos in &durations {
                ours.record(random.usize(..), Duration::from_nanos(*nanos));
                theirs.record(*nanos).unwrap();
            }
            let read = ours.read();
            let exact = (durations.len() as u64, durations.iter().sum::<u64>());
            assert_eq!((read.count(), read.total().as_nanos() as u64), exact, "seed {seed}");
            assert_eq!(read.max().as_nanos() as u64, *durations.iter().max().unwrap());
            for share in [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0] {
                let (told, truth) =
                    (read.quantile(share).as_nanos() as u64, theirs.value_at_quantile(share));
                let error = told.abs_diff(truth);
                assert!(
                    error * 100 <= truth * 3,
                    "seed {seed}: {share} is {truth}, told as {told}"
                );
            }
        }
    }

    #[test]
    fn what_many_threads_record_at_once_is_all_there() {
        const EACH: u64 = 20_000;
        let histogram = Histogram::new();
        std::thread::scope(|scope| {
            for by in 0..4 {
                let histogram = &histogram;
                // Two of them share a part.
                scope.spawn(move || {
                    for nanos in 0..EACH {
                        histogram.record(by % 3, Duration::from_nanos(nanos));
                    }
                });
            }
        });
        let read = histogram.read();
        assert_eq!((read.count(), read.total), (4 * EACH, 4 * EACH * (EACH - 1) / 2));
    }

    #[test]
    fn what_came_since_an_earlier_reading_is_told_apart() {
        let histogram = Histogram::new();
        histogram.record(0, Duration::from_secs(9));
        let earlier = histogram.read();
        assert_eq!(histogram.read().since(&earlier).timings(), Timings::default());
        histogram.record(1, Duration::from_millis(2));
        let since = histogram.read().since(&earlier).timings();
        assert_eq!((since.count, since.total), (1, Duration::from_millis(2)));
        assert!(since.max.abs_diff(since.total) * 50 <= since.total, "{since}");
    }

    #[test]
    fn a_share_that_is_none_is_taken_for_the_nearest() {
        let histogram = Histogram::new();
        histogram.record(0, Duration::from_millis(7));
        let read = histogram.read();
        for share in [f64::NAN, -1.0, 0.0, 1.0, f64::INFINITY] {
            assert_eq!(read.quantile(share), read.max());
        }
    }
}
