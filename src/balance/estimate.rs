//! How long the statements of a node take, in the mean of the last seconds.
//!
//! Owns the arithmetic: what was measured goes in once in a while, and what is
//! to be expected comes out. Knows neither clock nor node.

use std::time::Duration;

/// So long ago, what was measured counts for a third.
const MEMORY: Duration = Duration::from_secs(5);
/// So long without a measurement, what is believed counts for a third.
const DOUBT: Duration = Duration::from_secs(1);
/// So long without one, a third is left of what sets it apart from the others.
const FORGETTING: Duration = Duration::from_secs(2);
/// A node that nothing is known of any more is thought this much better than the
/// best, or a lone caller, who finds no node busy, would never try it again.
const HOPE: f64 = 0.9;

/// What is believed of one node, as a mean in which what is older counts less.
///
/// The mean and not the peak: a caller's one slow statement says little of the
/// node. And of a node that nothing is heard of for a while the belief fades:
/// it drifts to what the best of the others takes, so that the node is tried
/// again, and what is measured then counts in full.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Estimate {
    /// In seconds; without meaning while nothing was measured.
    mean: f64,
    /// How much of the memory it stands for, up to 1.
    trust: f64,
    known: bool,
}

impl Estimate {
    /// Adds what was measured in the time that has passed. That counts for the
    /// time and not for how often it was measured: of a node that has become
    /// slow little is asked, and what it took before must not outvote that.
    pub(super) fn add(&mut self, sum: Duration, count: u64, passed: Duration) {
        if count == 0 {
            self.trust *= fading(passed, DOUBT);
            return;
        }
        let kept = fading(passed, MEMORY);
        // Also what was measured in no time counts.
        let (old, new) = (self.trust * kept, (1.0 - kept).max(f64::EPSILON));
        let measured = sum.as_secs_f64() / count as f64;
        self.mean = (self.mean * old + measured * new) / (old + new);
        self.trust = old + new;
        self.known = true;
    }

    /// Lets what nobody has confirmed drift to a little less than the best of the
    /// others takes.
    pub(super) fn drift(&mut self, best: f64, passed: Duration) {
        let hoped = best * HOPE;
        if self.mean > hoped {
            self.mean = hoped + (self.mean - hoped) * fading(passed, FORGETTING);
        }
    }

    /// In seconds; `None`: nothing was ever measured.
    pub(super) fn mean(&self) -> Option<f64> {
        self.known.then_some(self.mean)
    }
}

/// What is to be expected of a node right after a fault, until the next look: as
/// if nothing else had been met there since the last.
pub(super) fn alarmed(expected: Duration, fault: Duration, tick: Duration) -> Duration {
    expected + fault.saturating_sub(expected).mul_f64(1.0 - fading(tick, MEMORY))
}

/// What is left after so long of what is a third after `span`.
fn fading(passed: Duration, span: Duration) -> f64 {
    (-passed.as_secs_f64() / span.as_secs_f64()).exp()
}

/// What was measured on each node since the last time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sample {
    pub(super) sum: Duration,
    pub(super) count: u64,
}

/// Brings the estimates of all nodes up to date; what each may be expected to
/// take.
pub(super) fn update(
    nodes: &mut [(&mut Estimate, Sample)],
    passed: Duration,
) -> Vec<Option<Duration>> {
    for (estimate, Sample { sum, count }) in nodes.iter_mut() {
        estimate.add(*sum, *count, passed);
    }
    let means: Vec<Option<f64>> = nodes.iter().map(|(estimate, _)| estimate.mean()).collect();
    let mut expected = Vec::with_capacity(nodes.len());
    for (index, (estimate, sample)) in nodes.iter_mut().enumerate() {
        let others = means.iter().enumerate().filter(|(other, _)| *other != index);
        let others: Vec<f64> = others.filter_map(|(_, mean)| *mean).collect();
        let best = others.iter().copied().reduce(f64::min);
        if let Some(best) = best.filter(|_| sample.count == 0 && estimate.known) {
            estimate.drift(best, passed);
        }
        let mean = estimate.mean().or_else(|| median(others));
        expected.push(mean.and_then(|mean| Duration::try_from_secs_f64(mean).ok()));
    }
    expected
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(250);
    const MS: Duration = Duration::from_millis(1);

    fn sample(each: Duration, count: u32) -> Sample {
        Sample { sum: each * count, count: count.into() }
    }

    /// A node among two that take a millisecond, with so much measured in each
    /// of so many ticks; in tenths of a millisecond.
    fn after(estimate: &mut Estimate, ticks: u32, told: Sample) -> u128 {
        let mut peers = [Estimate::default(); 2];
        let [one, two] = &mut peers;
        let mut last = None;
        for _ in 0..ticks {
            let peer = sample(MS, 100);
            let mut nodes = [(&mut *estimate, told), (&mut *one, peer), (&mut *two, peer)];
            last = update(&mut nodes, TICK)[0];
        }
        (last.expect("known").as_micros() + 50) / 100
    }

    #[test]
    fn a_node_that_is_slow_from_now_on_shows_within_a_second() {
        let mut estimate = Estimate::default();
        assert_eq!(after(&mut estimate, 40, sample(MS, 100)), 10);
        let slow = after(&mut estimate, 4, sample(MS * 10, 100));
        assert!(slow > 25, "{slow}");
        let slower = after(&mut estimate, 36, sample(MS * 10, 100));
        assert!(slower > 85, "{slower}");
    }

    /// What was measured counted by how often: after a second of little use a
    /// node that took ten times as long showed twice as slow.
    #[test]
    fn a_node_that_is_asked_less_because_it_is_slow_shows_as_soon() {
        let mut estimate = Estimate::default();
        after(&mut estimate, 40, sample(MS, 1000));
        let slow = after(&mut estimate, 8, sample(MS * 10, 4));
        assert!((36..45).contains(&slow), "after two seconds of five: {slow}");
    }

    #[test]
    fn what_is_measured_after_a_long_rest_weighs_no_more_than_after_a_short_one() {
        let mut estimate = Estimate::default();
        estimate.add(MS * 100, 100, Duration::from_secs(3600));
        let slow = after(&mut estimate, 20, sample(MS * 10, 100));
        assert!((60..75).contains(&slow), "after five seconds: {slow}");
        let mut fresh = Estimate::default();
        fresh.add(MS, 1, Duration::ZERO);
        assert_eq!(fresh.mean(), Some(0.001));
    }

    #[test]
    fn one_slow_statement_among_many_hardly_counts() {
        let mut estimate = Estimate::default();
        after(&mut estimate, 40, sample(MS, 100));
        let two_seconds = Sample { sum: MS * 2099, count: 100 };
        let shown = after(&mut estimate, 1, two_seconds);
        assert!(shown < 22, "{shown}");
    }

    #[test]
    fn what_nobody_confirms_drifts_below_the_best_of_the_others_and_then_counts_little() {
        let mut estimate = Estimate::default();
        after(&mut estimate, 40, sample(MS * 10, 100));
        let nothing = Sample::default();
        let soon = after(&mut estimate, 4, nothing);
        assert!((55..70).contains(&soon), "{soon}");
        let later = after(&mut estimate, 40, nothing);
        assert_eq!(later, 9, "so that it is tried within eleven seconds");
        let tried = after(&mut estimate, 1, sample(MS, 1));
        assert_eq!(tried, 10, "what is measured now counts in full");
    }

    #[test]
    fn of_a_node_never_heard_of_as_much_is_expected_as_of_the_others() {
        assert_eq!(after(&mut Estimate::default(), 1, Sample::default()), 10);
        let mut alone = Estimate::default();
        assert_eq!(update(&mut [(&mut alone, Sample::default())], TICK), [None]);
    }

    #[test]
    fn a_fault_shows_before_the_next_look_and_further_ones_add_up() {
        let once = alarmed(MS * 5, MS * 1000, TICK);
        assert!((MS * 50..MS * 60).contains(&once), "{once:?}");
        assert!(alarmed(once, MS * 1000, TICK) > MS * 95);
        assert_eq!(alarmed(MS * 1500, MS * 1000, TICK), MS * 1500);
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_two() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
