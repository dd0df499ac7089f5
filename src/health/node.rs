//! Whether a node is used, left alone, or tried again: out at once, back by
//! probes, slowly.
//!
//! A state machine: facts, time and randomness come in, a [`Decision`] goes
//! out. Knows neither pool nor task, so that whoever watches one node or many
//! can drive it, and tests can in no time.

use std::fmt;
use std::time::{Duration, Instant};

use super::fact::Fact;
use super::window::Window;

/// How far a node may be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// It answers.
    Up,
    /// It answers, and has no room for more connections.
    Degraded,
    /// It is out, and is left alone for a while.
    Ejected,
    /// It is not relied on yet: probes decide. The first state of all.
    Probing,
    /// It is on its way out of use, for good.
    Draining,
}

impl State {
    /// Whether the node is to be used.
    pub fn is_serving(self) -> bool {
        matches!(self, Self::Up | Self::Degraded)
    }

    /// The state in one word: `up`, `degraded`, `ejected`, `probing`,
    /// `draining`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Ejected => "ejected",
            Self::Probing => "probing",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a node went out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Too many faults in a row.
    Faults,
    /// Half or more of what it was asked failed. It may still be of use where
    /// there is no better one.
    Rate,
    /// A connect was refused, and a probe confirmed it.
    Refused,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faults => "too many faults in a row",
            Self::Rate => "half or more of what it was asked failed",
            Self::Refused => "a refused connect was confirmed",
        })
    }
}

/// What a [`Node`] goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// Faults in a row before it is out. Default: 3.
    pub unhealthy_after: u32,
    /// Successful probes in a row before it is back. Default: 1.
    pub healthy_after: u32,
    /// The time between probes, give or take 20 %. Default: 5 seconds.
    pub interval: Duration,
    /// The same while it is out. Default: 200 milliseconds, or `interval` if
    /// that is less.
    pub recovery_interval: Option<Duration>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            unhealthy_after: 3,
            healthy_after: 1,
            interval: Duration::from_secs(5),
            recovery_interval: None,
        }
    }
}

impl Rules {
    fn recovery_interval(&self) -> Duration {
        self.recovery_interval.unwrap_or_else(|| self.interval.min(Duration::from_millis(200)))
    }
}

/// What follows from the facts so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The state from now on.
    pub state: State,
    /// When to probe next; `None`: no more.
    pub probe_at: Option<Instant>,
}

/// The longest time between probes.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The first time out, without jitter. Each further one is twice as long.
const EJECTION: Duration = Duration::from_secs(1);
/// The longest; with a quarter more it is a minute.
const EJECTION_CAP: Duration = Duration::from_secs(48);
/// So long in use takes one ejection back.
const FORGIVEN: Duration = Duration::from_secs(30);
/// How long a node that has come back takes less than its share.
const SLOW_START: Duration = Duration::from_secs(10);
/// The share it starts with.
const FIRST_SHARE: f64 = 0.1;
/// The share of a node without room for more connections.
const DEGRADED_SHARE: f64 = 0.5;
/// How long a node counts as full after it has said so. Twice as long each time.
const FULL: Duration = Duration::from_millis(500);
/// The longest.
const FULL_CAP: Duration = Duration::from_secs(30);

/// The health of one node.
///
/// ```
/// use millpond::health::{Fact, Node, Rules, State};
/// # use millpond::{runtime::Runtime, testing::sim::Sim};
/// # let sim = Sim::new(1);
/// let mut node = Node::new(Rules::default(), sim.now());
/// assert_eq!(node.probed(Fact::Succeeded, sim.now(), sim.random()).state, State::Up);
/// for _ in 0..3 {
///     node.met(Fact::Failed, sim.now(), sim.random());
/// }
/// assert_eq!(node.state(), State::Ejected);
/// assert_eq!(node.weight(sim.now()), 0.0);
/// ```
#[derive(Debug, Clone)]
pub struct Node {
    rules: Rules,
    state: State,
    /// In this state since.
    since: Instant,
    /// In use since, if it is.
    joined: Instant,
    /// When to probe next.
    probe_at: Instant,
    probed_at: Option<Instant>,
    /// Faults in a row.
    faults: u32,
    /// Successful probes in a row, while it is out.
    successes: u32,
    /// A connect was refused: if the next probe's is too, the node is out.
    suspect: bool,
    window: Window,
    /// How often it went out, less what was forgiven.
    ejections: u32,
    reason: Option<Reason>,
    /// Out until.
    until: Instant,
    /// How often in a row it was full.
    overloads: u32,
    /// Full until.
    full_until: Instant,
}

impl Node {
    /// A node of which nothing is known: to be probed at once. Intervals of more than
    /// a day count as a day.
    pub fn new(mut rules: Rules, now: Instant) -> Self {
        rules.interval = rules.interval.min(LONGEST);
        rules.recovery_interval = rules.recovery_interval.map(|often| often.min(LONGEST));
        Self {
            rules,
            state: State::Probing,
            since: now,
            joined: now,
            probe_at: now,
            probed_at: None,
            faults: 0,
            successes: 0,
            suspect: false,
            window: Window::new(now),
            ejections: 0,
            reason: None,
            until: now,
            overloads: 0,
            full_until: now,
        }
    }

    /// Something was met on the node by those who use it. Faults of one
    /// connection count once, or one dead connection looks like a dead node.
    pub fn met(&mut self, fact: Fact, now: Instant, random: u64) -> Decision {
        self.tick(now);
        // Of a node that is out, only probes tell news.
        if self.state.is_serving() && !self.count(fact, false, now, random) && fact.is_fault() {
            // Worth a look of our own, but not one for each of a thousand callers.
            let again = self.probed_at.map(|at| at + self.rules.recovery_interval());
            self.probe_at = self.probe_at.min(again.map_or(now, |again| again.max(now)));
        }
        self.decision()
    }

    /// Those who use the node were answered so often since the last fact.
    pub(crate) fn answered(&mut self, times: u32, now: Instant) {
        self.tick(now);
        if self.state.is_serving() && times > 0 {
            self.window.add_good(times - 1, now);
            self.count(Fact::Succeeded, false, now, 0);
        }
    }

    /// There is a reason to probe now, though no fault was met.
    pub(crate) fn hint(&mut self, now: Instant) {
        if self.state.is_serving() {
            self.probe_at = self.probe_at.min(now);
        }
    }

    /// The node is needed, for there is no other: it is not left alone any longer.
    pub(crate) fn recall(&mut self, now: Instant) {
        if self.state == State::Ejected {
            let again = self.probed_at.map_or(now, |at| at + self.rules.recovery_interval());
            self.enter(State::Probing, now);
            self.probe_at = again.max(now);
        }
    }

    /// A probe has ended.
    pub fn probed(&mut self, fact: Fact, now: Instant, random: u64) -> Decision {
        self.tick(now);
        self.probed_at = Some(now);
        match self.state {
            State::Up | State::Degraded => {
                let was_suspect = self.suspect;
                if !self.count(fact, true, now, random) {
                    let confirm = self.suspect && !was_suspect;
                    let wait = spread(self.rules.interval, SHARE, random);
                    self.probe_at = if confirm { now } else { now + wait };
                }
            }
            State::Probing => self.tried(fact, now, random),
            // Asked before its time: it is left alone until then all the same.
            State::Ejected if fact.is_fault() => self.faults = self.faults.saturating_add(1),
            State::Ejected => self.faults = 0,
            State::Draining => {}
        }
        self.decision()
    }

    /// Time has passed: a node that was left alone may be tried again.
    pub fn tick(&mut self, now: Instant) -> Decision {
        if self.state == State::Ejected && now >= self.until {
            self.enter(State::Probing, now);
        }
        self.decision()
    }

    /// Takes the node out of use for good.
    pub fn drain(&mut self, now: Instant) -> Decision {
        if self.state != State::Draining {
            self.enter(State::Draining, now);
        }
        self.decision()
    }

    /// The state, and when to probe next.
    pub fn decision(&self) -> Decision {
        let probe_at = Some(self.probe_at).filter(|_| self.state != State::Draining);
        Decision { state: self.state, probe_at }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// When it began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Faults since the last success.
    pub fn faults(&self) -> u32 {
        self.faults
    }

    /// Why the node is out, if it has been in use.
    pub fn reason(&self) -> Option<Reason> {
        self.reason.filter(|_| matches!(self.state, State::Ejected | State::Probing))
    }

    /// How often the node went out; one is taken back for each 30 seconds in
    /// use.
    pub fn ejections(&self, now: Instant) -> u32 {
        if !self.state.is_serving() {
            return self.ejections;
        }
        let served = now.saturating_duration_since(self.joined);
        let forgiven = u32::try_from(served.as_secs() / FORGIVEN.as_secs()).unwrap_or(u32::MAX);
        self.ejections.saturating_sub(forgiven)
    }

    /// The part of its share that the node is to be given, from 0 to 1: nothing
    /// while it is out, a tenth when it comes back, all of it ten seconds later.
    pub fn weight(&self, now: Instant) -> f64 {
        let served = now.saturating_duration_since(self.joined).as_secs_f64();
        let ramp = (FIRST_SHARE + (1.0 - FIRST_SHARE) * served / SLOW_START.as_secs_f64()).min(1.0);
        match self.state {
            State::Up => ramp,
            State::Degraded => ramp * DEGRADED_SHARE,
            State::Ejected | State::Probing | State::Draining => 0.0,
        }
    }

    /// Counts a fact of a node in use. Whether the node is out now.
    fn count(&mut self, fact: Fact, probed: bool, now: Instant, random: u64) -> bool {
        let confirmed = self.suspect && probed && fact == Fact::Refused;
        match fact {
            Fact::Succeeded => {
                self.faults = 0;
                self.window.add(false, now);
                if self.state == State::Degraded && now >= self.full_until {
                    self.enter(State::Up, now);
                }
            }
            Fact::Overloaded => {
                self.faults = 0;
                self.full(now);
                if self.state == State::Up {
                    self.enter(State::Degraded, now);
                }
            }
            Fact::Failed | Fact::Refused => {
                self.faults = self.faults.saturating_add(1);
                self.window.add(true, now);
                let reason = if self.faults >= self.rules.unhealthy_after {
                    Some(Reason::Faults)
                } else if confirmed {
                    Some(Reason::Refused)
                } else {
                    self.window.is_bad(now).then_some(Reason::Rate)
                };
                if let Some(reason) = reason {
                    self.eject(reason, now, random);
                    return true;
                }
            }
        }
        // Other faults neither confirm a refusal nor, between probes, deny it.
        self.suspect = match fact {
            Fact::Refused => true,
            Fact::Failed => self.suspect && !probed,
            Fact::Succeeded | Fact::Overloaded => false,
        };
        false
    }

    /// A probe of a node that is out has ended.
    fn tried(&mut self, fact: Fact, now: Instant, random: u64) {
        let mut wait = spread(self.rules.recovery_interval(), SHARE, random);
        match fact {
            Fact::Succeeded => {
                self.faults = 0;
                self.successes += 1;
                if self.successes >= self.rules.healthy_after {
                    self.joined = now;
                    self.enter(State::Up, now);
                    wait = spread(self.rules.interval, SHARE, random);
                }
            }
            Fact::Overloaded => {
                self.faults = 0;
                self.successes = 0;
                self.full(now);
                wait = wait.max(self.full_until - now);
            }
            Fact::Failed | Fact::Refused => {
                self.faults = self.faults.saturating_add(1);
                self.successes = 0;
            }
        }
        self.probe_at = now + wait;
    }

    /// The node has no room for more connections.
    fn full(&mut self, now: Instant) {
        if now.saturating_duration_since(self.full_until) > FULL_CAP {
            self.overloads = 0;
        }
        self.full_until = now + doubled(FULL, self.overloads, FULL_CAP);
        self.overloads = self.overloads.saturating_add(1);
    }

    fn eject(&mut self, reason: Reason, now: Instant, random: u64) {
        let before = self.ejections(now);
        self.ejections = before.saturating_add(1);
        self.reason = Some(reason);
        self.until = now + spread(doubled(EJECTION, before, EJECTION_CAP), 0.25, random);
        self.probe_at = self.until;
        self.window = Window::new(now);
        self.enter(State::Ejected, now);
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.successes = 0;
        self.suspect = false;
    }
}

/// How far the time between probes is spread, either way.
const SHARE: f64 = 0.2;

/// `first`, doubled so often, up to `cap`.
fn doubled(first: Duration, times: u32, cap: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(cap)
}

/// A time around `middle`, up to `share` of it less or more.
fn spread(middle: Duration, share: f64, random: u64) -> Duration {
    let unit = (random >> 11) as f64 / ((1_u64 << 53) - 1) as f64;
    middle.mul_f64(1.0 - share + 2.0 * share * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);
    /// Draws the middle of every spread.
    const MIDDLE: u64 = u64::MAX / 2;

    fn start() -> Instant {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        Instant::now()
    }

    fn up(rules: Rules, now: Instant) -> Node {
        let mut node = Node::new(rules, now);
        for _ in 0..rules.healthy_after {
            node.probed(Fact::Succeeded, now, MIDDLE);
        }
        assert_eq!(node.state(), State::Up);
        node
    }

    /// Put out by faults, as often as it takes.
    fn eject(node: &mut Node, now: Instant, random: u64) -> Duration {
        while node.state().is_serving() {
            node.met(Fact::Failed, now, random);
        }
        assert_eq!(node.state(), State::Ejected);
        node.decision().probe_at.expect("to be tried again") - now
    }

    #[test]
    fn no_interval_is_too_long_to_be_added_to_a_time() {
        let now = start();
        let endless = Some(Duration::MAX);
        let rules =
            Rules { interval: Duration::MAX, recovery_interval: endless, ..Rules::default() };
        let mut node = up(rules, now);
        assert!(node.probed(Fact::Succeeded, now, u64::MAX).probe_at > Some(now));
        eject(&mut node, now, u64::MAX);
        let later = now + SECOND * 2;
        node.tick(later);
        assert!(node.probed(Fact::Failed, later, u64::MAX).probe_at > Some(later));
    }

    #[test]
    fn three_faults_in_a_row_put_it_out_and_a_success_between_them_does_not() {
        let now = start();
        let mut node = up(Rules::default(), now);
        for fact in [Fact::Failed, Fact::Failed, Fact::Succeeded, Fact::Failed, Fact::Failed] {
            assert_eq!(node.met(fact, now, MIDDLE).state, State::Up);
        }
        assert_eq!(node.met(Fact::Failed, now, MIDDLE).state, State::Ejected);
        assert_eq!((node.reason(), node.faults()), (Some(Reason::Faults), 3));
    }

    #[test]
    fn half_of_twenty_within_ten_seconds_put_it_out() {
        let now = start();
        let mut node = up(Rules::default(), now);
        for n in 0..9 {
            let at = now + SECOND * n;
            assert_eq!(node.met(Fact::Succeeded, at, MIDDLE).state, State::Up);
            assert_eq!(node.met(Fact::Failed, at, MIDDLE).state, State::Up);
        }
        assert_eq!(node.met(Fact::Failed, now + SECOND * 9, MIDDLE).state, State::Up);
        assert_eq!(node.met(Fact::Succeeded, now + SECOND * 9, MIDDLE).state, State::Up);
        assert_eq!(node.met(Fact::Failed, now + SECOND * 9, MIDDLE).state, State::Ejected);
        assert_eq!(node.reason(), Some(Reason::Rate));
    }

    #[test]
    fn a_refused_connect_is_confirmed_at_once_by_one_probe_and_no_other() {
        let now = start();
        let mut node = up(Rules { unhealthy_after: 9, ..Rules::default() }, now);
        let later = now + SECOND;
        assert_eq!(node.met(Fact::Refused, later, MIDDLE).probe_at, Some(later));
        assert_eq!(node.met(Fact::Refused, later, MIDDLE).state, State::Up, "by a probe alone");
        let mut denied = node.clone();
        assert_eq!(denied.probed(Fact::Succeeded, later, MIDDLE).state, State::Up);
        assert_eq!(
            denied.probed(Fact::Refused, later, MIDDLE).state,
            State::Up,
            "a first one again"
        );
        assert_eq!(node.probed(Fact::Refused, later, MIDDLE).state, State::Ejected);
        assert_eq!(node.reason(), Some(Reason::Refused));
    }

    #[test]
    fn a_fault_met_by_callers_is_looked_into_at_once_and_not_once_for_each() {
        let now = start();
        let mut node = up(Rules { unhealthy_after: 99, ..Rules::default() }, now);
        let later = now + SECOND;
        assert_eq!(node.met(Fact::Failed, later, MIDDLE).probe_at, Some(later));
        node.probed(Fact::Succeeded, later, MIDDLE);
        assert_eq!(node.met(Fact::Failed, later, MIDDLE).probe_at, Some(later + MS * 200));
    }

    #[test]
    fn it_is_out_for_a_second_doubled_each_time_give_or_take_a_quarter_up_to_a_minute() {
        let now = start();
        let mut times = [0, MIDDLE, u64::MAX].map(|random| {
            let mut node = up(Rules::default(), now);
            let mut at = now;
            let mut times = Vec::new();
            for _ in 0..40 {
                let out = eject(&mut node, at, random);
                times.push(out.as_millis());
                at += out;
                assert_eq!(node.probed(Fact::Succeeded, at, random).state, State::Up);
            }
            times
        });
        times.iter_mut().for_each(|times| times.truncate(8));
        let middle = [1000, 2000, 4000, 8000, 16_000, 32_000, 48_000, 48_000];
        assert_eq!(times[0], middle.map(|time| time * 3 / 4));
        assert_eq!(times[1].iter().map(|time| (time + 5) / 10 * 10).collect::<Vec<_>>(), middle);
        assert_eq!(times[2], middle.map(|time| time * 5 / 4));
    }

    #[test]
    fn thirty_seconds_in_use_take_one_ejection_back() {
        let now = start();
        let mut node = up(Rules::default(), now);
        for _ in 0..3 {
            let back = now + eject(&mut node, now, MIDDLE);
            node.probed(Fact::Succeeded, back, MIDDLE);
            node.joined = now;
        }
        let at = |seconds| node.ejections(now + Duration::from_secs(seconds));
        assert_eq!((at(29), at(30), at(60), at(3600)), (3, 2, 1, 0));
        let after_a_minute = eject(&mut node.clone(), now + SECOND * 60, 0);
        assert_eq!(after_a_minute, MS * 1500, "the second time, and a quarter less");
    }

    #[test]
    fn it_is_left_alone_while_it_is_out_then_probed_often_until_it_answers() {
        let now = start();
        let mut node = up(Rules { healthy_after: 2, ..Rules::default() }, now);
        let back = now + eject(&mut node, now, MIDDLE);
        // Whoever asks by hand learns how it is, and it stays out.
        let early = node.probed(Fact::Succeeded, back - MS, MIDDLE);
        assert_eq!((early.state, early.probe_at), (State::Ejected, Some(back)));
        assert_eq!(node.tick(back).state, State::Probing);
        let mut at = back;
        for fact in [Fact::Failed, Fact::Succeeded, Fact::Failed, Fact::Succeeded] {
            let decision = node.probed(fact, at, 0);
            assert_eq!((decision.state, decision.probe_at), (State::Probing, Some(at + MS * 160)));
            at += MS * 160;
        }
        assert_eq!(node.probed(Fact::Succeeded, at, 0).state, State::Up);
        assert_eq!(node.decision().probe_at, Some(at + SECOND * 4));
    }

    #[test]
    fn what_callers_meet_on_a_node_that_is_out_changes_nothing() {
        let now = start();
        let mut node = up(Rules::default(), now);
        let back = now + eject(&mut node, now, MIDDLE);
        for at in [now, back] {
            let before = node.tick(at);
            for fact in [Fact::Succeeded, Fact::Failed, Fact::Refused, Fact::Overloaded] {
                assert_eq!(node.met(fact, at, MIDDLE), before);
            }
        }
    }

    #[test]
    fn it_starts_with_a_tenth_and_has_all_of_its_share_ten_seconds_later() {
        let now = start();
        let mut node = Node::new(Rules::default(), now);
        assert!(node.weight(now).abs() < f64::EPSILON, "unknown yet");
        let now = now + SECOND * 3;
        node.probed(Fact::Succeeded, now, MIDDLE);
        for (after, weight) in [(0, 0.1), (5, 0.55), (10, 1.0), (99, 1.0)] {
            let got = node.weight(now + Duration::from_secs(after));
            assert!((got - weight).abs() < 1e-9, "{got} after {after} s");
        }
        eject(&mut node, now + SECOND * 20, MIDDLE);
        assert!(node.weight(now + SECOND * 99).abs() < f64::EPSILON);
    }

    #[test]
    fn a_full_node_is_degraded_not_out_for_longer_each_time() {
        let now = start();
        let mut node = up(Rules::default(), now);
        let mut at = now + SECOND * 20;
        for full in [500, 1000, 2000] {
            for _ in 0..2 {
                assert_eq!(node.clone().met(Fact::Overloaded, at, MIDDLE).state, State::Degraded);
            }
            assert_eq!(node.met(Fact::Overloaded, at, MIDDLE).state, State::Degraded);
            assert!((node.weight(at) - 0.5).abs() < 1e-9);
            at += MS * (full - 1);
            assert_eq!(node.met(Fact::Succeeded, at, MIDDLE).state, State::Degraded);
            at += MS;
            assert_eq!(node.met(Fact::Succeeded, at, MIDDLE).state, State::Up);
        }
        for _ in 0..1000 {
            assert_eq!(node.probed(Fact::Overloaded, at, MIDDLE).state, State::Degraded);
        }
        for _ in 0..3 {
            node.met(Fact::Failed, at, MIDDLE);
        }
        assert_eq!(node.state(), State::Ejected, "faults count as ever");
    }

    #[test]
    fn a_full_node_that_is_out_is_not_asked_more_often_than_it_can_bear() {
        let now = start();
        let mut node = Node::new(Rules::default(), now);
        let mut at = now;
        for wait in [500, 1000, 2000, 4000] {
            let decision = node.probed(Fact::Overloaded, at, MIDDLE);
            assert_eq!(decision.probe_at, Some(at + MS * wait));
            assert_eq!(decision.state, State::Probing);
            at += MS * wait;
        }
    }

    #[test]
    fn a_drained_node_is_out_for_good_and_asked_nothing() {
        let now = start();
        let mut node = up(Rules::default(), now);
        assert_eq!(node.drain(now).probe_at, None);
        for fact in FACTS {
            node.met(fact, now, MIDDLE);
            node.probed(fact, now, MIDDLE);
            node.tick(now + SECOND * 3600);
            assert_eq!((node.state(), node.since()), (State::Draining, now));
        }
    }

    const FACTS: [Fact; 4] = [Fact::Succeeded, Fact::Failed, Fact::Refused, Fact::Overloaded];

    /// One thing that happens to a node.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        Met(Fact),
        Probed(Fact),
        Wait(Duration),
    }

    /// What a node has been through, remembered in the plainest way.
    #[derive(Clone)]
    struct Witness {
        now: Instant,
        node: Node,
        /// Faults in a row, as far as they count.
        faults: u32,
        /// Successful probes in a row since it is being tried.
        successes: u32,
        /// A refused connect that no success has followed.
        refused: bool,
        /// Facts of the last ten seconds, since it came into use.
        lately: Vec<(u64, bool)>,
        /// From when its seconds are counted.
        start: Instant,
    }

    impl Witness {
        fn new(rules: Rules, now: Instant) -> Self {
            let node = Node::new(rules, now);
            Self {
                now,
                node,
                faults: 0,
                successes: 0,
                refused: false,
                lately: Vec::new(),
                start: now,
            }
        }

        fn step(&mut self, step: Step, random: u64) {
            let before = self.node.tick(self.now);
            let (fact, probed) = match step {
                Step::Wait(time) => {
                    self.now += time;
                    let after = self.node.tick(self.now);
                    let due = before.probe_at.is_some_and(|at| at <= self.now);
                    let tried = (before.state, after.state) == (State::Ejected, State::Probing);
                    assert!(after.state == before.state && !tried || tried && due, "{before:?}");
                    return;
                }
                Step::Met(fact) => (fact, false),
                Step::Probed(fact) => (fact, true),
            };
            let after = match probed {
                true => self.node.probed(fact, self.now, random),
                false => self.node.met(fact, self.now, random),
            };
            let confirmed = self.refused && probed && fact == Fact::Refused;
            if before.state.is_serving() {
                if fact != Fact::Overloaded {
                    self.lately.push((self.second(), fact.is_fault()));
                }
                self.refused |= fact == Fact::Refused;
            }
            match fact {
                Fact::Succeeded | Fact::Overloaded => (self.faults, self.refused) = (0, false),
                Fact::Failed | Fact::Refused => self.faults += 1,
            }
            if before.state == State::Probing && probed {
                self.successes = if fact == Fact::Succeeded { self.successes + 1 } else { 0 };
            }
            self.judge(before, after, confirmed);
        }

        fn second(&self) -> u64 {
            self.now.duration_since(self.start).as_secs()
        }

        fn judge(&mut self, before: Decision, after: Decision, confirmed: bool) {
            let rules = self.node.rules;
            let wait = after.probe_at.expect("never forgotten").saturating_duration_since(self.now);
            assert!(wait <= rules.interval.mul_f64(1.2).max(SECOND * 60), "{wait:?}");
            let weight = self.node.weight(self.now);
            assert!((0.0..=1.0).contains(&weight) && (weight > 0.0) == after.state.is_serving());
            match (before.state, after.state) {
                (State::Up | State::Degraded, State::Ejected) => {
                    let now = self.second();
                    self.lately.retain(|(second, _)| now < second + 10);
                    let bad = self.lately.iter().filter(|(_, bad)| *bad).count();
                    let rate = self.lately.len() >= 20 && bad * 2 >= self.lately.len();
                    assert!(self.faults >= rules.unhealthy_after || confirmed || rate);
                    assert!((MS * 750..=SECOND * 60).contains(&wait), "{wait:?}");
                    self.start = self.now;
                    (self.successes, self.refused) = (0, false);
                    self.lately.clear();
                }
                (State::Up | State::Degraded, state) => {
                    assert!(state.is_serving() && self.faults < rules.unhealthy_after);
                }
                (State::Probing, State::Up) => {
                    assert_eq!(self.successes, rules.healthy_after);
                    (self.successes, self.faults, self.refused) = (0, 0, false);
                    self.lately.clear();
                }
                (State::Probing, state) => {
                    assert_eq!(state, State::Probing);
                    assert!(self.successes < rules.healthy_after);
                }
                (from, to) => assert_eq!(from, to),
            }
        }
    }

    #[test]
    fn every_short_history_keeps_the_rules() {
        fn all(witness: &Witness, steps: &[Step], left: u32) {
            if left > 0 {
                for step in steps {
                    let mut next = witness.clone();
                    next.step(*step, MIDDLE);
                    all(&next, steps, left - 1);
                }
            }
        }
        let steps = [
            Step::Met(Fact::Succeeded),
            Step::Met(Fact::Failed),
            Step::Met(Fact::Refused),
            Step::Met(Fact::Overloaded),
            Step::Probed(Fact::Succeeded),
            Step::Probed(Fact::Failed),
            Step::Probed(Fact::Refused),
            Step::Probed(Fact::Overloaded),
            Step::Wait(MS * 1300),
        ];
        let now = start();
        for (unhealthy_after, healthy_after) in [(1, 1), (2, 2), (3, 1)] {
            let rules = Rules { unhealthy_after, healthy_after, ..Rules::default() };
            let fresh = Witness::new(rules, now);
            all(&fresh, &steps, 4);
            let mut used = fresh;
            (0..healthy_after).for_each(|_| used.step(Step::Probed(Fact::Succeeded), MIDDLE));
            all(&used, &steps, 5);
        }
    }

    #[test]
    fn long_random_histories_keep_the_rules() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let rules = Rules {
                unhealthy_after: random.u32(1..6),
                healthy_after: random.u32(1..4),
                interval: MS * random.u32(1..20_000),
                recovery_interval: random.bool().then_some(MS),
            };
            let mut witness = Witness::new(rules, start());
            // Some worlds are mostly good, some mostly bad.
            let good = random.f64();
            for _ in 0..400 {
                let fact = match random.f64() < good {
                    true => Fact::Succeeded,
                    false => FACTS[random.usize(..FACTS.len())],
                };
                let step = match random.u32(..4) {
                    0 => Step::Wait(MS * random.u32(..2_000)),
                    1 => Step::Probed(fact),
                    _ => Step::Met(fact),
                };
                witness.step(step, random.u64(..));
            }
        }
    }
}
