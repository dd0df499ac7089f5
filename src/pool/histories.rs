//! Every short history of the state machine.
//!
//! A test of its own kind: no runtime, no driver, no randomness. All sequences
//! of steps up to a length are taken, the invariants are checked after each
//! step, and every history must be able to end well.

use std::panic::Location;
use std::time::{Duration, Instant};

use millpond_driver::{Error, Fate};

use super::connects::Newborn;
use super::entry::{Borrower, Held};
use super::events::CloseReason;
use super::shelf::{Put, Shelf, Take};
use super::slots::Index;
use super::state::State;
use super::turn::{Caller, Effects, Entered, Job, Turn, Work};
use super::waiters::{Answer, Ticket};
use crate::config::PoolConfig;

const LENGTH: u32 = 6;
const MAX_OPEN: usize = 2;

/// What may happen next. Steps that find nothing to do end the history.
#[derive(Debug, Clone, Copy)]
enum Step {
    Enter,
    Try,
    LeaveFirst,
    LeaveLast,
    Release,
    Discard,
    Succeed,
    Fail,
    Wait,
    Evict,
    /// The limit goes down to one, or up again.
    Resize,
    /// A pause begins or ends.
    Pause,
}

const STEPS: [Step; 12] = [
    Step::Enter,
    Step::Try,
    Step::LeaveFirst,
    Step::LeaveLast,
    Step::Release,
    Step::Discard,
    Step::Succeed,
    Step::Fail,
    Step::Wait,
    Step::Evict,
    Step::Resize,
    Step::Pause,
];

struct World {
    shelf: Shelf<u64>,
    state: State<u64>,
    now: Instant,
    waiting: Vec<Ticket>,
    borrowed: Vec<Held<u64>>,
    jobs: Vec<Job<u64>>,
}

impl World {
    fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as a start")]
        let now = Instant::now();
        let settings = PoolConfig::new().max_open_conns(MAX_OPEN).max_waiters(3);
        let settings = settings.resolve().expect("the settings agree");
        Self {
            shelf: Shelf::new(now, &settings, false),
            state: State::new(settings, false),
            now,
            waiting: Vec::new(),
            borrowed: Vec::new(),
            jobs: Vec::new(),
        }
    }

    fn turn<R>(&mut self, visit: impl FnOnce(&mut State<u64>, &mut Turn<'_, u64>) -> R) -> R {
        let mut fx = Effects::default();
        let mut turn = Turn {
            shelf: &self.shelf,
            now: self.now,
            executor: Some(0),
            random: u64::MAX,
            fx: &mut fx,
        };
        let result = visit(&mut self.state, &mut turn);
        let jobs = fx.jobs.into_iter().filter(|job| !matches!(job, Job::Keep(_)));
        self.jobs.extend(jobs);
        result
    }

    /// False: there is nothing to do it to.
    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Enter => self.enter(Duration::MAX),
            Step::Try => self.enter(Duration::ZERO),
            Step::LeaveFirst if !self.waiting.is_empty() => self.leave(0),
            Step::LeaveLast if self.waiting.len() > 1 => self.leave(self.waiting.len() - 1),
            Step::Release if !self.borrowed.is_empty() => {
                let held = self.borrowed.remove(0);
                match self.shelf.put(held, self.now) {
                    Put::Idle => {}
                    Put::Evicted => self.turn(State::sweep),
                    Put::Refused(held) => self.turn(|state, turn| state.put(turn, held)),
                }
            }
            Step::Discard if !self.borrowed.is_empty() => {
                let held = self.borrowed.remove(0);
                self.turn(|state, turn| state.retire(turn, held, CloseReason::Discarded));
            }
            Step::Succeed | Step::Fail if !self.jobs.is_empty() => {
                let job = self.jobs.remove(0);
                self.finish(job, matches!(step, Step::Succeed));
            }
            Step::Evict => drop(self.turn(|state, turn| state.evict(turn, None))),
            Step::Resize => {
                let mut rules = self.state.rules.clone();
                rules.max_open = 1 + MAX_OPEN - rules.max_open;
                self.turn(|state, turn| state.reconfigure(turn, rules));
            }
            Step::Pause if self.state.paused => self.turn(State::resume),
            Step::Pause => self.turn(State::pause),
            Step::Wait => self.now += Duration::from_millis(1100),
            _ => return false,
        }
        self.collect();
        true
    }

    fn enter(&mut self, patience: Duration) {
        let borrower = Borrower { place: Location::caller(), label: None };
        let stale = match self.shelf.take(|| self.now, borrower) {
            Take::Fresh(held) => return self.borrowed.push(held),
            Take::Stale(held) => Some(held),
            Take::Nothing => None,
        };
        let waker = &mut None;
        let caller = Caller { borrower, patience: Some(patience), waker };
        match self.turn(|state, turn| state.enter(turn, caller, stale)) {
            Entered::Served(held) => self.borrowed.push(held),
            Entered::Queued(ticket) | Entered::QueuedAndStarting(ticket) => {
                self.waiting.push(ticket);
            }
            Entered::Refused(_) | Entered::NotNow => {}
        }
    }

    fn leave(&mut self, at: usize) {
        let ticket = self.waiting.remove(at);
        self.turn(|state, turn| drop(state.abandon(turn, ticket)));
    }

    /// Callers in order of arrival take what they were handed.
    fn collect(&mut self) {
        for ticket in std::mem::take(&mut self.waiting) {
            let mut ticket = Some(ticket);
            let answer = self.state.collect(&mut ticket);
            self.waiting.extend(ticket);
            let Some(answer) = answer else { continue };
            assert!(self.waiting.is_empty(), "served before one who came earlier");
            match answer {
                Answer::Granted(held) => self.borrowed.push(held),
                answer => panic!("nothing else was told: {answer:?}"),
            }
        }
    }

    fn finish(&mut self, job: Job<u64>, well: bool) {
        match job {
            Job::Connect(index) if well => {
                self.turn(|state, turn| {
                    state.opened(
                        turn,
                        index,
                        Newborn { conn: 7, id: 1, took: Duration::ZERO, reads_only: false },
                    )
                });
            }
            Job::Connect(index) => {
                self.turn(|state, turn| {
                    state.open_failed(turn, index, Error::connect("refused"));
                });
            }
            Job::Check(held, how) => self.turn(|state, turn| {
                state.done(Work::Checking);
                if well {
                    state.checked(turn, held, how);
                } else {
                    state.bury(turn, held, CloseReason::FailedCheck);
                }
            }),
            Job::Close(Held { index, .. }) => self.vacate(index),
            Job::Keep(_) => unreachable!("not kept"),
        }
    }

    fn vacate(&mut self, index: Index) {
        self.turn(|state, turn| state.vacate(turn, index));
    }

    /// With everything going well from here, everybody is served and every
    /// slot is free again.
    fn ends_well(mut self) {
        self.turn(State::resume);
        for _ in 0..100 {
            self.now += Duration::from_secs(2);
            // What the keeper would do.
            self.turn(|state, turn| state.settle(turn));
            self.collect();
            while !self.jobs.is_empty() {
                self.take(Step::Succeed);
            }
            if self.waiting.is_empty() && self.borrowed.is_empty() {
                break;
            }
            self.take(Step::Release);
        }
        assert!(self.waiting.is_empty(), "a caller waits for ever");
        let held: Vec<_> = std::iter::from_fn(|| self.shelf.take_locked()).collect();
        assert!(held.iter().all(|held| held.entry.fate == Fate::Reusable));
        assert_eq!(held.len() + self.state.vacant.len(), self.shelf.slots.issued());
    }
}

#[test]
fn every_short_history_keeps_the_invariants_and_ends_well() {
    let mut histories = 0;
    for number in 0..(STEPS.len() as u64).pow(LENGTH) {
        let mut world = World::new();
        let mut digits = number;
        let mut complete = true;
        for _ in 0..LENGTH {
            let step = STEPS[(digits % STEPS.len() as u64) as usize];
            digits /= STEPS.len() as u64;
            complete &= world.take(step);
            if !complete {
                break;
            }
        }
        // One that ends early is the beginning of another that is complete.
        if complete {
            histories += 1;
            world.ends_well();
        }
    }
    assert!(histories > 10_000, "only {histories} histories are possible");
}
