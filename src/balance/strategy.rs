//! Which of several nodes gets the next caller.
//!
//! Owns the trait and the strategies there are. Pure over what it is shown:
//! which nodes may serve at all is decided before, and time, health and roles
//! are not seen here.

use std::fmt;
use std::time::Duration;

use crate::sync::{AtomicU64, Ordering};

/// A node that may serve the caller, as a [`Strategy`] sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct NodeView {
    /// Callers that use it or wait for it, through this cluster.
    pub load: u32,
    /// The share it is to be given beside others, above 0. (One that has just
    /// come back is shown to few callers, and then as any other.)
    pub weight: f32,
    /// How long its statements take in the mean: the last seconds count, and a
    /// fault counts as a second at least. Of a node of which nothing is known,
    /// as long as on the others.
    pub cost: Duration,
}

impl NodeView {
    /// A node with this many callers, of weight 1, whose statements take so
    /// long. For tests of strategies.
    pub fn new(load: u32, cost: Duration) -> Self {
        Self { load, weight: 1.0, cost }
    }

    /// The same node with another weight.
    #[must_use]
    pub fn weight(mut self, weight: f32) -> Self {
        self.weight = weight;
        self
    }

    /// What one more caller adds to, by the share it is to be given.
    #[inline]
    fn relative_load(&self) -> f32 {
        (self.load as f32 + 1.0) / self.weight
    }

    /// How long one more caller may expect to be served, compared with others.
    #[inline]
    fn expected(&self) -> f32 {
        // A cost of nothing must not make the load count for nothing.
        self.relative_load() * (self.cost.as_nanos() as f32).max(1.0)
    }
}

/// Chooses between nodes.
///
/// ```
/// use millpond::balance::{NodeView, Strategy};
///
/// /// The first one that is not busy.
/// #[derive(Debug)]
/// struct InOrder;
///
/// impl Strategy for InOrder {
///     fn pick(&self, nodes: &[NodeView], _random: u64) -> usize {
///         nodes.iter().position(|node| node.load == 0).unwrap_or(0)
///     }
/// }
/// ```
pub trait Strategy: fmt::Debug + Send + Sync + 'static {
    /// Which of these nodes gets the next caller, of which there is at least
    /// one. An index that there is not counts as the first.
    ///
    /// Called for each caller, by all of them at once: it must not block. A
    /// choice is to be made by `random` and not by the order of the nodes where
    /// they are alike, or all who choose at the same time choose the same.
    fn pick(&self, nodes: &[NodeView], random: u64) -> usize;
}

/// The node that may be expected to answer first: load by weight, times how
/// long its statements take. The default.
///
/// Compares all nodes up to 16, of more two by chance. A slow node shows in its
/// mean, not in its peaks, so that one slow statement of a caller's is no
/// verdict on the node; and many processes with few callers each see it as one
/// with many does.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastCost;

/// Of more nodes than this, two are compared.
const FEW: usize = 16;

impl Strategy for LeastCost {
    #[inline]
    fn pick(&self, nodes: &[NodeView], random: u64) -> usize {
        match nodes.len() {
            0..=FEW => least(nodes, random, NodeView::expected),
            _ => better_of_two(nodes, random),
        }
    }
}

/// The node with the fewest callers for its weight. Blind to slowness where
/// many processes hold few connections each.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastConnections;

impl Strategy for LeastConnections {
    #[inline]
    fn pick(&self, nodes: &[NodeView], random: u64) -> usize {
        least(nodes, random, NodeView::relative_load)
    }
}

/// One node after the other, from a random one on. One with less weight is
/// passed over now and then.
#[derive(Debug, Default)]
pub struct RoundRobin {
    /// The turn, from a random start; 0 before the first.
    turn: AtomicU64,
}

impl RoundRobin {
    /// Its first turn is drawn by the first caller.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Strategy for RoundRobin {
    fn pick(&self, nodes: &[NodeView], random: u64) -> usize {
        if self.turn.load(Ordering::Relaxed) == 0 {
            let start = (random >> 1) | 1;
            let _ = self.turn.compare_exchange(0, start, Ordering::Relaxed, Ordering::Relaxed);
        }
        let most = nodes.iter().fold(0.0, |most, node| node.weight.max(most));
        let mut chance = random;
        for _ in 0..nodes.len() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let index = (turn % nodes.len() as u64) as usize;
            if unit(chance) * most <= nodes[index].weight {
                return index;
            }
            chance = chance.rotate_left(13).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
        heaviest(nodes)
    }
}

/// The better of two nodes drawn by chance, by the measure of [`LeastCost`].
/// Mitzenmacher, "The power of two choices in randomized load balancing", 2001.
#[derive(Debug, Clone, Copy, Default)]
pub struct TwoChoices;

impl Strategy for TwoChoices {
    #[inline]
    fn pick(&self, nodes: &[NodeView], random: u64) -> usize {
        better_of_two(nodes, random)
    }
}

/// A node by chance, in proportion to its weight. Knows no load.
#[derive(Debug, Clone, Copy, Default)]
pub struct WeightedRandom;

impl Strategy for WeightedRandom {
    fn pick(&self, nodes: &[NodeView], random: u64) -> usize {
        let total: f32 = nodes.iter().map(|node| node.weight).sum();
        let mut left = unit(random) * total;
        for (index, node) in nodes.iter().enumerate() {
            left -= node.weight;
            if left < 0.0 {
                return index;
            }
        }
        heaviest(nodes)
    }
}

/// The node with the least of it; of those alike, any.
#[inline]
fn least(nodes: &[NodeView], random: u64, measure: impl Fn(&NodeView) -> f32) -> usize {
    let len = nodes.len();
    let mut index = part(random as u32, len);
    let (mut best, mut least) = (index, f32::INFINITY);
    for _ in 0..len {
        let measured = measure(&nodes[index]);
        if measured < least {
            (best, least) = (index, measured);
        }
        index += 1;
        if index == len {
            index = 0;
        }
    }
    best
}

#[inline]
fn better_of_two(nodes: &[NodeView], random: u64) -> usize {
    let len = nodes.len();
    if len < 2 {
        return 0;
    }
    let one = part(random as u32, len);
    let other = (one + 1 + part((random >> 32) as u32, len - 1)) % len;
    if nodes[other].expected() < nodes[one].expected() { other } else { one }
}

fn heaviest(nodes: &[NodeView]) -> usize {
    let heavier = |best: usize, index: usize| match nodes[index].weight > nodes[best].weight {
        true => index,
        false => best,
    };
    (0..nodes.len()).fold(0, heavier)
}

/// A number below `len`: Lemire, "Fast random integer generation in an
/// interval", 2019, without the correction, for which `len` is too small.
#[inline]
fn part(random: u32, len: usize) -> usize {
    ((u64::from(random) * len as u64) >> 32) as usize
}

/// From 0 to 1, without 1.
fn unit(random: u64) -> f32 {
    (random >> 40) as f32 / (1_u32 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop_assert, proptest};

    const MS: Duration = Duration::from_millis(1);

    /// A fixed sequence that looks like chance (Steele and others, 2014).
    fn chances() -> impl Iterator<Item = u64> {
        (1_u64..).map(|n| {
            let mut z = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        })
    }

    /// The share that each node gets of 30,000 picks, in percent.
    fn shares(strategy: &dyn Strategy, nodes: &[NodeView]) -> Vec<u32> {
        let mut picked = vec![0; nodes.len()];
        chances().take(30_000).for_each(|random| picked[strategy.pick(nodes, random)] += 1);
        picked.iter().map(|count| (count + 150) / 300).collect()
    }

    fn all() -> [Box<dyn Strategy>; 5] {
        [
            Box::new(LeastCost),
            Box::new(LeastConnections),
            Box::new(RoundRobin::new()),
            Box::new(TwoChoices),
            Box::new(WeightedRandom),
        ]
    }

    #[test]
    fn nodes_that_are_alike_get_alike_from_every_strategy() {
        for strategy in all() {
            for count in [1_usize, 2, 3, 5, 40] {
                let nodes = vec![NodeView::new(0, MS); count];
                for share in shares(&*strategy, &nodes) {
                    let fair = 100.0 / count as f64;
                    assert!((f64::from(share) - fair).abs() <= 1.0, "{strategy:?}, {count} nodes");
                }
            }
        }
    }

    #[test]
    fn the_cheapest_is_the_one_with_the_least_load_by_weight_and_time() {
        let quick = NodeView::new(5, MS);
        let slow = NodeView::new(0, MS * 10);
        assert_eq!(LeastCost.pick(&[quick, slow], 7), 0);
        assert_eq!(LeastCost.pick(&[NodeView::new(10, MS), slow], 7), 1);
        assert_eq!(LeastConnections.pick(&[quick, slow], 7), 1);
        let heavy = NodeView::new(3, MS).weight(3.0);
        assert_eq!(LeastCost.pick(&[heavy, NodeView::new(1, MS)], 7), 0);
        assert_eq!(LeastConnections.pick(&[NodeView::new(1, MS), heavy], 7), 1);
    }

    #[test]
    fn two_choices_never_choose_the_worst_of_all() {
        let nodes = [NodeView::new(0, MS), NodeView::new(9, MS * 9), NodeView::new(1, MS)];
        assert_eq!(shares(&TwoChoices, &nodes)[1], 0);
    }

    #[test]
    fn of_many_nodes_the_least_cost_compares_two() {
        let mut nodes = vec![NodeView::new(3, MS); 17];
        nodes[4].load = 0;
        let share = shares(&LeastCost, &nodes)[4];
        assert!((9..=14).contains(&share), "two of seventeen: {share} %");
    }

    #[test]
    fn turns_go_round_and_weigh_from_a_random_node() {
        let nodes = [NodeView::new(0, MS); 3];
        let turns = RoundRobin::new();
        let first = turns.pick(&nodes, 12_345);
        for step in 1..9 {
            assert_eq!(turns.pick(&nodes, 0), (first + step) % 3);
        }
        let starts: std::collections::BTreeSet<_> =
            chances().take(50).map(|random| RoundRobin::new().pick(&nodes, random)).collect();
        assert_eq!(starts.len(), 3);
        let nodes = [NodeView::new(0, MS), NodeView::new(0, MS).weight(0.25)];
        let shares = shares(&RoundRobin::new(), &nodes);
        assert!((18..=22).contains(&shares[1]), "{shares:?}");
    }

    #[test]
    fn chance_goes_by_weight() {
        let nodes = [NodeView::new(9, MS * 9).weight(3.0), NodeView::new(0, MS)];
        let shares = shares(&WeightedRandom, &nodes);
        assert!((73..=77).contains(&shares[0]), "{shares:?}");
    }

    proptest! {
        /// Whatever it is shown, also what no cluster shows.
        #[test]
        fn every_pick_is_one_of_the_nodes(
            nodes in proptest::collection::vec((any::<u32>(), any::<f32>(), any::<Duration>()), 1..40),
            random in any::<u64>(),
        ) {
            let view = |&(load, weight, cost)| NodeView { load, weight, cost };
            let nodes: Vec<_> = nodes.iter().map(view).collect();
            for strategy in all() {
                prop_assert!(strategy.pick(&nodes, random) < nodes.len(), "{strategy:?}");
            }
        }
    }
}
