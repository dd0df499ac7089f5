//! The unit: what two uncontended atomic swaps cost here. No pool can take and
//! give back for less.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::ns_each;
use crate::table::median;

const PAIRS: usize = 1_000_000;

/// Nanoseconds per pair, the median of as many rounds.
pub(crate) fn pair_ns(rounds: usize) -> f64 {
    let word = AtomicU64::new(0);
    median((0..rounds).map(|_| {
        let start = Instant::now();
        for value in 0..PAIRS as u64 {
            black_box(word.swap(value, Ordering::Acquire));
            black_box(word.swap(value, Ordering::Release));
        }
        ns_each(start.elapsed(), PAIRS)
    }))
}
