//! How far a replica is behind.
//!
//! Owns the history of where the primary stood when, and what follows from it.
//! Asks nobody, knows no clock and no node.
//!
//! A server's own answer in seconds lies: on a primary that is idle it grows
//! for ever, and after a pause it tells the pause. So places in the log go
//! first: what the primary had written when it was asked before the replica
//! was, and the replica has replayed, is no lag, whatever the seconds say.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millpond_driver::NodeStatus;

/// So many places are remembered.
const PLACES: usize = 256;

/// Where the primary stood, oldest first, growing.
#[derive(Debug, Default)]
pub(super) struct History {
    places: VecDeque<Place>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    position: u128,
    /// When it was first heard that the primary stood there.
    from: Instant,
    /// When it was last heard.
    to: Instant,
}

impl History {
    /// The primary has answered that it stands there.
    pub(super) fn note(&mut self, answered: Instant, position: u128) {
        match self.places.back_mut() {
            Some(last) if last.position == position => {
                last.to = answered;
                return;
            }
            // Another primary, which has less.
            Some(last) if last.position > position => self.places.clear(),
            _ => {}
        }
        if self.places.len() == PLACES {
            self.places.pop_front();
        }
        self.places.push_back(Place { position, from: answered, to: answered });
    }

    /// How old what is read on a replica may be that said this when it was
    /// asked; `None`: nobody knows.
    pub(super) fn lag(&self, told: &NodeStatus, asked: Instant) -> Option<Duration> {
        let Some(position) = told.position.filter(|_| !self.places.is_empty()) else {
            return match told.lag_bytes {
                Some(0) => Some(Duration::ZERO),
                _ => told.lag,
            };
        };
        let since = |when: Instant| asked.saturating_duration_since(when);
        let reached = self.places.iter().take_while(|place| place.position <= position).count();
        // What it has not reached was written before it was heard of,
        let missing = self.places.get(reached).filter(|place| place.from <= asked);
        let Some(missing) = missing else { return Some(Duration::ZERO) };
        let least = since(missing.from);
        // and after the primary was last heard of without it.
        let most = reached.checked_sub(1).map(|last| since(self.places[last].to));
        let said = told.lag.unwrap_or(least).max(least);
        Some(most.map_or(said, |most| said.min(most)))
    }
}

/// Whether a node is too far behind, which it is no more only when it has come
/// clearly closer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Laggard(bool);

impl Laggard {
    /// Whether it is, now that it is so far behind.
    pub(super) fn judge(&mut self, lag: Option<Duration>, limit: Option<Duration>) -> bool {
        self.0 = match (lag, limit) {
            (Some(lag), Some(limit)) if self.0 => lag > limit.mul_f64(0.8),
            (Some(lag), Some(limit)) => lag > limit,
            // Not a word of it is no reason.
            _ => false,
        };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        Instant::now()
    }

    fn replica(position: u128, said: Duration) -> NodeStatus {
        let mut told = NodeStatus::default();
        told.position = Some(position);
        told.lag_bytes = Some(0);
        told.lag = Some(said);
        told
    }

    #[test]
    fn on_an_idle_primary_nothing_lags_whatever_the_seconds_say() {
        let now = start();
        let mut history = History::default();
        for second in 0..60 {
            let asked = now + SECOND * second;
            history.note(asked, 100);
            let lag = history.lag(&replica(100, SECOND * second), asked);
            assert_eq!(lag, Some(Duration::ZERO));
        }
        // It writes, and the replica was asked a moment before that arrived.
        let asked = now + SECOND * 60;
        history.note(asked, 200);
        let lag = history.lag(&replica(100, SECOND * 60), asked);
        assert_eq!(lag, Some(SECOND), "no more than since the last word of the primary");
        let before = asked - SECOND / 2;
        assert_eq!(history.lag(&replica(100, SECOND * 60), before), Some(Duration::ZERO));
        assert_eq!(history.lag(&replica(200, SECOND * 62), asked), Some(Duration::ZERO));
    }

    #[test]
    fn what_stands_still_while_the_primary_goes_on_lags_more_and_more() {
        let now = start();
        let mut history = History::default();
        (0..100_u32).for_each(|n| history.note(now + SECOND * n, 100 + u128::from(n)));
        let asked = now + SECOND * 99;
        for behind in [1, 10, 50] {
            let told = replica(199 - behind, Duration::ZERO);
            let lag = history.lag(&told, asked).expect("known").as_secs();
            assert_eq!(lag, behind as u64 - 1, "written since, at least");
            let told = replica(199 - behind, Duration::MAX);
            let lag = history.lag(&told, asked).expect("known").as_secs();
            assert_eq!(lag, behind as u64, "and at most");
        }
    }

    #[test]
    fn without_a_primary_that_tells_its_place_bytes_go_before_seconds() {
        let (history, now) = (History::default(), start());
        let mut told = replica(7, SECOND * 9);
        assert_eq!(history.lag(&told, now), Some(Duration::ZERO));
        told.lag_bytes = Some(10);
        assert_eq!(history.lag(&told, now), Some(SECOND * 9));
        told.lag_bytes = None;
        assert_eq!(history.lag(&told, now), Some(SECOND * 9));
        assert_eq!(history.lag(&NodeStatus::default(), now), None);
    }

    #[test]
    fn places_of_a_primary_that_is_no_more_are_forgotten() {
        let now = start();
        let mut history = History::default();
        history.note(now, 500);
        history.note(now + SECOND, 300);
        let lag = history.lag(&replica(300, SECOND * 5), now + SECOND * 2);
        assert_eq!(lag, Some(Duration::ZERO));
    }

    #[test]
    fn one_that_lags_is_taken_back_only_when_it_is_clearly_closer() {
        let limit = Some(SECOND * 10);
        let mut laggard = Laggard::default();
        let mut judge = |seconds| laggard.judge(Some(SECOND * seconds), limit);
        let judged = [10, 11, 9, 8, 9, 10, 11].map(&mut judge);
        assert_eq!(judged, [false, true, true, false, false, false, true]);
        assert!(!laggard.judge(None, limit) && !laggard.judge(Some(SECOND * 99), None));
    }
}
