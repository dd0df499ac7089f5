//! What goes wrong, for how long, and what is looked at.
//!
//! Owns the scenarios and the list of strategies. How servers and requests
//! behave is `queueing`'s.

use std::time::Duration;

use millpond::balance::{
    Builder, LeastConnections, LeastCost, RoundRobin, TwoChoices, WeightedRandom,
};
use millpond::testing::sim::Sim;

use crate::queueing::{FORTY, Fleet, Modelled, ONE, World};

type Set = fn(Builder<Modelled>) -> Builder<Modelled>;

pub(crate) const STRATEGIES: [(&str, Set); 5] = [
    ("LeastCost", |it| it.strategy(LeastCost)),
    ("TwoChoices", |it| it.strategy(TwoChoices)),
    ("LeastConnections", |it| it.strategy(LeastConnections)),
    ("RoundRobin", |it| it.strategy(RoundRobin::new())),
    ("WeightedRandom", |it| it.strategy(WeightedRandom)),
];

/// Three servers that are alike, the first of which goes wrong for a while.
pub(crate) struct Scenario {
    pub(crate) title: &'static str,
    fleet: Fleet,
    /// Requests in a second.
    rate: f64,
    /// Whether a few statements take very long, on any server.
    mixed: bool,
    fault: fn(&Modelled),
    /// Seconds with the fault, and after it.
    during: u32,
    after: u32,
    /// The figures are those of requests that came in so many seconds from the
    /// onset on.
    seen: u32,
}

/// Seconds before it goes wrong, the first of which fills the pools.
pub(crate) const ONSET: u32 = 5;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        title: "All are well: one process, 2000 requests/s",
        fleet: ONE,
        rate: 2000.0,
        mixed: false,
        fault: |_| {},
        during: 30,
        after: 0,
        seen: 30,
    },
    Scenario {
        title: "One is 10 times slower: one process, 2000 requests/s",
        fleet: ONE,
        rate: 2000.0,
        mixed: false,
        fault: |server| server.slow(10.0),
        during: 15,
        after: 20,
        seen: 15,
    },
    Scenario {
        title: "One is 10 times slower: 40 processes, 2000 requests/s",
        fleet: FORTY,
        rate: 2000.0,
        mixed: false,
        fault: |server| server.slow(10.0),
        during: 15,
        after: 20,
        seen: 15,
    },
    Scenario {
        title: "One is 3 times slower: 40 processes, 2000 requests/s",
        fleet: FORTY,
        rate: 2000.0,
        mixed: false,
        fault: |server| server.slow(3.0),
        during: 15,
        after: 20,
        seen: 15,
    },
    Scenario {
        title: "One is 20 times slower for 10 s, then well for 10 s: one process, 2000 requests/s",
        fleet: ONE,
        rate: 2000.0,
        mixed: false,
        fault: |server| server.slow(20.0),
        during: 10,
        after: 10,
        seen: 20,
    },
    Scenario {
        title: "One fails at once for 10 s of 60: one process, 2000 requests/s, no retries",
        fleet: ONE,
        rate: 2000.0,
        mixed: false,
        fault: |server| server.fail(1.0),
        during: 10,
        after: 45,
        seen: 55,
    },
    Scenario {
        title: "All are well, one statement in 10,000 takes 2 s: one process, 3000 requests/s",
        fleet: ONE,
        rate: 3000.0,
        mixed: true,
        fault: |_| {},
        during: 30,
        after: 0,
        seen: 30,
    },
];

/// What callers saw of a strategy in a scenario.
pub(crate) struct Seen {
    pub(crate) strategy: &'static str,
    /// In milliseconds: the 50th, 95th, 99th and 99.9th.
    pub(crate) percentiles: [f64; 4],
    /// Of the requests while the fault lasted, those sent to the first server.
    pub(crate) share: f64,
    pub(crate) errors: f64,
    /// The share of the first server in each half of a second, from the start to
    /// the end.
    pub(crate) shares: Vec<f64>,
}

impl Scenario {
    pub(crate) fn run(&self, strategy: &'static str, set: Set, seed: u64) -> Seen {
        let seconds = |count: u32| Duration::from_secs(count.into());
        Sim::new(seed).run(async |sim| {
            let world = World::new(&sim, self.fleet, set).await;
            if self.mixed {
                world.servers.iter().for_each(Modelled::mix);
            }
            world.load(self.rate, seconds(ONSET) - sim.elapsed()).await;
            (self.fault)(&world.servers[0]);
            world.load(self.rate, seconds(self.during)).await;
            world.servers[0].heal();
            world.load(self.rate, seconds(self.after)).await;
            let answers = world.answers().await;

            let (onset, end) = (f64::from(ONSET), f64::from(ONSET + self.during + self.after));
            let seen = answers.between(onset, onset + f64::from(self.seen));
            let halves = (0..(2.0 * end) as u32).map(|half| f64::from(half) / 2.0);
            Seen {
                strategy,
                percentiles: seen.percentiles([0.5, 0.95, 0.99, 0.999]),
                share: answers.between(onset, onset + f64::from(self.during)).share(0),
                errors: seen.errors(),
                shares: halves.map(|at| answers.between(at, at + 0.5).share(0)).collect(),
            }
        })
    }

    /// The whole of it, in seconds.
    pub(crate) fn length(&self) -> u32 {
        ONSET + self.during + self.after
    }

    /// From when to when there is a fault.
    pub(crate) fn fault(&self) -> (u32, u32) {
        (ONSET, ONSET + self.during)
    }
}
