//! Which node the next caller is sent to.
//!
//! Owns what a strategy is shown: nodes that are fit and free before those that
//! are used up, and one that has just come back only so often. Takes no lock, and
//! up to sixteen nodes no memory. Which of those shown is best the
//! [`Strategy`](super::Strategy) says.

use std::sync::Arc;
use std::time::Duration;

use millpond_driver::Driver;

use super::Inner;
use super::node::Node;
use super::route::Duty;
use super::strategy::NodeView;

/// The most nodes whose views need no allocation.
const FEW: usize = 16;

impl<D: Driver> Inner<D> {
    /// The index of the node to send a caller to, of those that serve `wanted`
    /// and are fit: one that is free, or else any; and one that has just come
    /// back only so often.
    #[inline]
    pub(super) fn pick(
        &self,
        nodes: &[Arc<Node<D>>],
        wanted: Duty,
        serves: impl Fn(usize, Duty) -> bool,
    ) -> Option<usize> {
        if nodes.len() > FEW {
            return self.pick_of_many(nodes, wanted, serves);
        }
        let random = self.hub.runtime.random();
        let drawn = (random >> 32) as u32;
        let mut views = [NodeView::new(0, Duration::ZERO); FEW];
        let mut indices = [0_u8; FEW];
        let (mut len, mut best) = (0, 0);
        for (index, node) in nodes.iter().enumerate() {
            let duty = node.gauge.duty();
            if !duty.has(wanted) || !serves(index, duty) {
                continue;
            }
            let (view, free) = node.gauge.view();
            let rank = rank(free, node.gauge.is_shown(drawn));
            if rank > best {
                // Those before it count no more.
                (best, len) = (rank, 0);
            }
            if rank == best {
                (views[len], indices[len]) = (view, index as u8);
                len += 1;
            }
        }
        let picked = match len {
            0 => return None,
            1 => 0,
            _ => self.strategy.pick(&views[..len], random.rotate_left(17)),
        };
        Some(usize::from(indices[if picked < len { picked } else { 0 }]))
    }

    #[cold]
    fn pick_of_many(
        &self,
        nodes: &[Arc<Node<D>>],
        wanted: Duty,
        serves: impl Fn(usize, Duty) -> bool,
    ) -> Option<usize> {
        let random = self.hub.runtime.random();
        let drawn = (random >> 32) as u32;
        let serving = nodes.iter().enumerate().filter(|(index, node)| {
            let duty = node.gauge.duty();
            duty.has(wanted) && serves(*index, duty)
        });
        let ranked = serving.map(|(index, node)| {
            let (view, free) = node.gauge.view();
            (index, view, rank(free, node.gauge.is_shown(drawn)))
        });
        let mut all: Vec<_> = ranked.collect();
        let best = all.iter().map(|(.., rank)| *rank).max()?;
        all.retain(|(.., rank)| *rank == best);
        let views: Vec<_> = all.iter().map(|(_, view, _)| *view).collect();
        let picked = self.strategy.pick(&views, random.rotate_left(17));
        all.get(picked).or_else(|| all.first()).map(|(index, ..)| *index)
    }
}

/// Which nodes go before others: the higher.
#[inline]
fn rank(free: bool, shown: bool) -> u8 {
    2 * u8::from(free) + u8::from(shown)
}
