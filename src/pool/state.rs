//! Who waits, which slots are vacant, what the database last said: every
//! decision of the pool that needs the lock.
//!
//! A state machine without clock, future, driver or randomness: what it needs
//! of them comes in with each [`Turn`], and what is to be done goes out as the
//! turn's [`Effects`], to be carried out after the lock is gone. So no foreign
//! code (driver, waker, drop of a connection) ever runs under the lock.
//!
//! Every way in ends in [`settle`](State::settle), the single place where free
//! connections, free slots and waiting callers meet.

use std::task::Waker;
use std::time::{Duration, Instant};

use millpond_driver::{Error, Fate, Phase as TimeoutPhase, Report};

use super::effects::{Effects, Job};
use super::entry::{Borrower, Entry, Held, Phase};
use super::shelf::Shelf;
use super::slots::{Index, MAX_SLOTS};
use super::waiters::{Answer, Ticket, Waiters};
use crate::config::Settings;

/// Backoff of connects while the database does not accept them: the delay
/// before attempt `n` is drawn from `0 .. min(CAP, FIRST·2ⁿ)` (full jitter, as
/// in AWS's "Exponential Backoff and Jitter", 2015).
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// After a refusal that only a person can lift, such as a wrong password:
/// servers lock accounts that keep trying.
const BACKOFF_PERMANENT: Duration = Duration::from_secs(5);
/// How long connections above `max_idle_conns` may lie idle, so that a burst
/// does not close what the next one opens.
const SURPLUS_LINGER: Duration = Duration::from_secs(1);

/// One visit under the lock: the facts that come in, the effects that go out.
#[derive(Debug)]
pub(super) struct Turn<'a, C> {
    pub(super) shelf: &'a Shelf<C>,
    pub(super) now: Instant,
    /// The executor that a task spawned now would run on.
    pub(super) executor: u64,
    pub(super) random: u64,
    pub(super) fx: &'a mut Effects<C>,
}

#[derive(Debug)]
pub(super) struct State<C> {
    rules: Settings,
    waiters: Waiters<Held<C>>,
    /// Slots without a connection, opening or otherwise.
    vacant: Vec<Index>,
    opening: usize,
    checking: usize,
    /// Connections whose cleaning is one round trip: as good as free.
    rinsing: usize,
    outage: Outage,
    closed: bool,
    keepers: Vec<Keeper>,
    keepers_hired: u64,
    /// When the idle connections are to be looked through.
    maintain_at: Option<Instant>,
    births: u64,
    tally: Tally,
}

/// Sums since the pool's start.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) created: u64,
    pub(super) closed: u64,
    pub(super) connects_failed: u64,
    pub(super) timeouts: u64,
    pub(super) overloads: u64,
}

/// What connects have met since the last success.
#[derive(Debug, Default)]
struct Outage {
    failures: u32,
    /// No attempt before this.
    until: Option<Instant>,
    last: Option<Error>,
}

/// Who keeps the time for the callers of one executor: a background task, or
/// a caller that stands in for it.
#[derive(Debug)]
struct Keeper {
    number: u64,
    executor: u64,
    /// When it means to look again; `None` until its first look.
    at: Option<Instant>,
    waker: Option<Waker>,
}

/// How [`State::enter`] ended.
#[derive(Debug)]
pub(super) enum Entered<C> {
    Served(Held<C>),
    Queued(Ticket),
    /// In the queue, and tasks are to be started: look again after that, for a
    /// runtime that is ending drops them unseen.
    QueuedAndStarting(Ticket),
    Refused(Error),
    /// Nothing at hand, and the caller does not wait.
    NotNow,
}

/// What [`State::look`] found.
#[derive(Debug)]
pub(super) enum Look {
    Answered,
    Wait,
    /// Nobody keeps the time on this executor: the caller does, as the keeper
    /// of this number.
    StandIn(u64),
}

/// A caller that comes in.
#[derive(Debug)]
pub(super) struct Caller<'a> {
    pub(super) borrower: Borrower,
    pub(super) patience: Patience,
    /// Taken if the caller is queued.
    pub(super) waker: &'a mut Option<Waker>,
}

/// How long a caller is willing to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Not at all.
    None,
    Until(Instant),
    Endless,
}

/// What the pool was doing with a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    Checking,
    /// `quick`: one round trip, after which the connection is free.
    Cleaning { quick: bool },
    Closing,
}

impl<C> State<C> {
    pub(super) fn new(rules: Settings) -> Self {
        Self {
            rules,
            waiters: Waiters::new(),
            vacant: Vec::new(),
            opening: 0,
            checking: 0,
            rinsing: 0,
            outage: Outage::default(),
            closed: false,
            keepers: Vec::new(),
            keepers_hired: 0,
            maintain_at: None,
            births: 0,
            tally: Tally::default(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Callers in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.len()
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    pub(super) fn max_open(&self) -> usize {
        self.rules.max_open
    }

    /// The error of the last connect, while connects fail.
    pub(super) fn last_error(&self) -> Option<&Error> {
        self.outage.last.as_ref()
    }

    // Callers come and go.

    /// A caller comes in, perhaps with an idle connection in hand that must be
    /// checked first.
    pub(super) fn enter(
        &mut self,
        turn: &mut Turn<'_, C>,
        caller: Caller<'_>,
        stale: Option<Held<C>>,
    ) -> Entered<C> {
        turn.shelf.slots.raise();
        if let Some(held) = stale {
            turn.shelf.put_locked(held);
        }
        if self.closed {
            self.settle(turn);
            return Entered::Refused(Error::closed());
        }
        let deadline = match caller.patience {
            Patience::Until(deadline) => Some(deadline),
            Patience::None | Patience::Endless => None,
        };
        let ticket = self.waiters.join(caller.borrower, deadline);
        self.settle(turn);
        if self.waiters.is_answered(&ticket) {
            return match self.waiters.leave(ticket).0 {
                Answer::Granted(held) => Entered::Served(held),
                Answer::Failed(error) => Entered::Refused(error),
                Answer::Pending | Answer::Expired => unreachable!("settle grants or fails"),
            };
        }
        let turned_away = if let Some(error) = self.hopeless(turn) {
            Entered::Refused(error)
        } else if caller.patience == Patience::None {
            Entered::NotNow
        } else if self.waiters.len() > self.rules.max_waiters {
            self.tally.overloads += 1;
            Entered::Refused(Error::overloaded(format!(
                "{} callers wait for a connection already (max_waiters)",
                self.rules.max_waiters
            )))
        } else {
            self.waiters.set_waker(&ticket, caller.waker.take());
            self.hire(turn, deadline);
            return if turn.fx.jobs.is_empty() {
                Entered::Queued(ticket)
            } else {
                Entered::QueuedAndStarting(ticket)
            };
        };
        self.waiters.leave(ticket);
        self.settle(turn);
        turned_away
    }

    /// A caller that was woken, or was never told, looks for its answer.
    /// `waker` is exchanged for the one kept before.
    pub(super) fn look(
        &mut self,
        turn: &mut Turn<'_, C>,
        ticket: &Ticket,
        waker: &mut Option<Waker>,
    ) -> Look {
        if self.waiters.is_answered(ticket) {
            return Look::Answered;
        }
        *waker = self.waiters.set_waker(ticket, waker.take());
        // Whoever kept the time or opened a connection for us may have gone
        // with its runtime.
        let office = self.stand_in(turn.executor);
        self.settle(turn);
        match office {
            _ if self.waiters.is_answered(ticket) => {
                if let Some(number) = office {
                    self.dismiss(number);
                }
                Look::Answered
            }
            Some(number) => Look::StandIn(number),
            None => Look::Wait,
        }
    }

    /// A caller leaves with its answer.
    pub(super) fn collect(&mut self, ticket: Ticket) -> Answer<Held<C>> {
        let (answer, _) = self.waiters.leave(ticket);
        if matches!(answer, Answer::Expired) {
            self.tally.timeouts += 1;
        }
        answer
    }

    /// A caller gives up. What it was handed goes to the next one. Returns its
    /// waker, to be dropped after the lock is gone.
    pub(super) fn abandon(&mut self, turn: &mut Turn<'_, C>, ticket: Ticket) -> Option<Waker> {
        let (answer, waker) = self.waiters.leave(ticket);
        match answer {
            Answer::Granted(held) => self.put(turn, held),
            Answer::Pending | Answer::Failed(_) | Answer::Expired => self.settle(turn),
        }
        waker
    }

    // Connections come back.

    /// A clean connection is free: new, checked, cleaned, or given back.
    pub(super) fn put(&mut self, turn: &mut Turn<'_, C>, mut held: Held<C>) {
        let unwanted = self.waiters.is_empty() && self.rules.max_idle == 0;
        if self.closed || unwanted || held.entry.is_expired(turn.now) {
            self.retire(turn, held);
            return;
        }
        held.entry.idle_since = turn.now;
        if self.waiters.is_empty() {
            turn.shelf.put_locked(held);
        } else {
            self.grant(turn, held);
        }
        self.settle(turn);
    }

    /// A connection is to be closed. Its slot stays taken until that is done.
    pub(super) fn retire(&mut self, turn: &mut Turn<'_, C>, held: Held<C>) {
        turn.shelf.note(&held.index).set(Phase::Closing);
        turn.fx.jobs.push(Job::Close(held));
        self.settle(turn);
    }

    /// A connection has proved dead: it is closed, and all that were idle with
    /// it are suspect.
    pub(super) fn bury(&mut self, turn: &mut Turn<'_, C>, held: Held<C>) {
        turn.shelf.next_era();
        self.retire(turn, held);
    }

    /// A connection that was in use goes to be cleaned.
    pub(super) fn soil(&mut self, turn: &mut Turn<'_, C>, index: &Index, quick: bool) {
        turn.shelf.note(index).set(Phase::Cleaning);
        self.rinsing += usize::from(quick);
    }

    /// Checking or cleaning has ended; what became of the connection follows.
    pub(super) fn done(&mut self, work: Work) {
        match work {
            Work::Checking => self.checking -= 1,
            Work::Cleaning { quick } => self.rinsing -= usize::from(quick),
            Work::Closing => {}
        }
    }

    /// A connection is closed and its slot vacant.
    pub(super) fn vacate(&mut self, turn: &mut Turn<'_, C>, index: Index) {
        self.tally.closed += 1;
        self.free(turn, index);
        self.settle(turn);
    }

    // Connects start and end.

    /// Takes a slot for a connection to be opened.
    pub(super) fn reserve(&mut self, turn: &mut Turn<'_, C>) -> Option<Index> {
        let index = self.vacant.pop().or_else(|| turn.shelf.slots.issue())?;
        turn.shelf.note(&index).set(Phase::Opening);
        self.opening += 1;
        Some(index)
    }

    /// A connect has succeeded.
    pub(super) fn opened(&mut self, turn: &mut Turn<'_, C>, index: Index, conn: C) {
        self.opening -= 1;
        self.outage = Outage::default();
        self.births += 1;
        self.tally.created += 1;
        // Between 80 and 100 % of the limit, so that connections born together
        // do not die together.
        let expires = self
            .rules
            .max_lifetime
            .and_then(|limit| turn.now.checked_add(limit - fraction(limit / 5, turn.random)));
        let note = turn.shelf.note(&index);
        note.set_expiry(expires.map(|at| turn.shelf.nanos(at)));
        note.set(Phase::Idle);
        let entry = Box::new(Entry {
            conn,
            id: self.births,
            born: turn.now,
            expires,
            idle_since: turn.now,
            era: turn.shelf.era(),
            in_flight: false,
            fate: Fate::Reusable,
        });
        self.put(turn, Held { index, entry });
        let idle_out = self.rules.max_idle_time.and_then(|limit| turn.now.checked_add(limit));
        let surplus = (self.open(turn) > self.rules.max_idle)
            .then(|| turn.now.checked_add(SURPLUS_LINGER))
            .flatten();
        if let Some(at) = earliest([expires, idle_out, surplus]) {
            self.maintain_at = earliest([self.maintain_at, Some(at)]);
            self.hire(turn, Some(at));
        }
    }

    /// A connect has failed.
    pub(super) fn open_failed(&mut self, turn: &mut Turn<'_, C>, index: Index, error: Error) {
        self.open_ended(turn, index, &error);
        if error.is_permanent() && !self.waiters.is_empty() {
            // The caller it was for is told; with nothing open, everyone is.
            self.fail_first(turn, &error);
            while self.open(turn) == 0 && self.opening == 0 && !self.waiters.is_empty() {
                self.fail_first(turn, &error);
            }
        }
        self.settle(turn);
    }

    /// A connect was dropped before it ended: its runtime has gone. Counts as
    /// failed, so that a runtime that drops everything is not asked in a loop.
    pub(super) fn open_lost(&mut self, turn: &mut Turn<'_, C>, index: Index) {
        let error = Error::connect("the async runtime ended before the connect did");
        self.open_ended(turn, index, &error);
        self.lost(turn);
    }

    fn open_ended(&mut self, turn: &mut Turn<'_, C>, index: Index, error: &Error) {
        self.opening -= 1;
        self.tally.connects_failed += 1;
        self.free(turn, index);
        let delay = if error.is_permanent() {
            BACKOFF_PERMANENT
        } else {
            let doubled = BACKOFF_FIRST.saturating_mul(1 << self.outage.failures.min(16));
            fraction(doubled.min(BACKOFF_CAP), turn.random)
        };
        self.outage = Outage {
            failures: self.outage.failures.saturating_add(1),
            until: turn.now.checked_add(delay),
            last: Some(error.clone()),
        };
    }

    // A runtime has ended and taken a task of ours with it. Nothing is started
    // here, for the context may be that runtime; callers are woken to go on
    // from their own.

    /// A task was dropped, and the connection it worked on with it.
    pub(super) fn conn_lost(&mut self, turn: &mut Turn<'_, C>, index: Index, work: Work) {
        self.done(work);
        self.tally.closed += 1;
        self.free(turn, index);
        self.lost(turn);
    }

    /// A keeper was dropped. Returns its waker, to be dropped after the lock is
    /// gone.
    pub(super) fn keeper_lost(&mut self, turn: &mut Turn<'_, C>, number: u64) -> Option<Waker> {
        let gone = self.dismiss(number)?;
        self.lost(turn);
        gone.waker
    }

    fn lost(&mut self, turn: &mut Turn<'_, C>) {
        self.waiters.nudge(|waker| turn.fx.wake(Some(waker)));
        turn.fx.ebbed |= self.closed;
    }

    // Time passes.

    /// The office of keeper for this executor, if nobody holds it.
    pub(super) fn stand_in(&mut self, executor: u64) -> Option<u64> {
        if self.keepers.iter().any(|keeper| keeper.executor == executor) {
            return None;
        }
        self.keepers_hired += 1;
        let number = self.keepers_hired;
        self.keepers.push(Keeper { number, executor, at: None, waker: None });
        Some(number)
    }

    /// Makes sure that a keeper of this executor looks by `at`. One on another
    /// executor is no help: that executor may have stopped turning.
    fn hire(&mut self, turn: &mut Turn<'_, C>, at: Option<Instant>) {
        match self.stand_in(turn.executor) {
            Some(number) => turn.fx.jobs.push(Job::Keep(number)),
            None => {
                if let Some(at) = at {
                    self.plan(turn, at);
                }
            }
        }
    }

    /// Has the keepers look at `at` at the latest.
    fn plan(&mut self, turn: &mut Turn<'_, C>, at: Instant) {
        for keeper in &mut self.keepers {
            if keeper.at.is_some_and(|planned| at < planned) {
                keeper.at = Some(at);
                turn.fx.wake(keeper.waker.take());
            }
        }
    }

    fn dismiss(&mut self, number: u64) -> Option<Keeper> {
        let at = self.keepers.iter().position(|keeper| keeper.number == number)?;
        Some(self.keepers.swap_remove(at))
    }

    /// A keeper looks: expires callers, starts connects whose backoff is over,
    /// trims. Returns when to look again, or `None` when there is nothing to
    /// keep time for and the keeper may go. `waker` is exchanged for the one
    /// kept before.
    pub(super) fn tick(
        &mut self,
        turn: &mut Turn<'_, C>,
        number: u64,
        waker: &mut Option<Waker>,
    ) -> Option<Instant> {
        let keeper = self.keepers.iter_mut().find(|keeper| keeper.number == number)?;
        std::mem::swap(&mut keeper.waker, waker);
        if let Some(at) = keeper.at.filter(|at| turn.now < *at) {
            return Some(at);
        }
        self.waiters.expire(turn.now, |waker| turn.fx.wake(Some(waker)));
        if self.maintain_at.is_some_and(|at| turn.now >= at) {
            self.maintain(turn);
        }
        self.settle(turn);
        let next = earliest([self.waiters.deadline(), self.next_connect(turn), self.maintain_at]);
        if next.is_none() && self.waiters.is_empty() {
            *waker = self.dismiss(number).and_then(|keeper| keeper.waker);
            return None;
        }
        // Callers without a deadline may wait on nothing that time changes.
        let next = next.or_else(|| turn.now.checked_add(Duration::from_secs(3600)));
        if let Some(keeper) = self.keepers.iter_mut().find(|keeper| keeper.number == number) {
            keeper.at = next;
        }
        next
    }

    /// When the next connect may be tried, if only backoff holds it.
    fn next_connect(&self, turn: &Turn<'_, C>) -> Option<Instant> {
        let wanted = self.waiters.len() > self.coming()
            && self.open(turn) + self.opening < self.rules.max_open;
        self.outage.until.filter(|at| wanted && turn.now < *at)
    }

    /// Closes what has been idle or alive for too long.
    fn maintain(&mut self, turn: &mut Turn<'_, C>) {
        turn.shelf.slots.raise();
        // From the one used last to the one used longest ago.
        let idle: Vec<_> = std::iter::from_fn(|| turn.shelf.take_locked()).collect();
        let mut next = None;
        for (depth, held) in idle.into_iter().enumerate().rev() {
            let surplus = (depth >= self.rules.max_idle).then_some(SURPLUS_LINGER);
            let limit = self.rules.max_idle_time.into_iter().chain(surplus).min();
            let until = limit.and_then(|limit| held.entry.idle_since.checked_add(limit));
            if held.entry.is_expired(turn.now) || until.is_some_and(|at| turn.now >= at) {
                turn.shelf.note(&held.index).set(Phase::Closing);
                turn.fx.jobs.push(Job::Close(held));
            } else {
                next = earliest([next, until]);
                turn.shelf.put_locked(held);
            }
        }
        for note in turn.shelf.slots.notes() {
            let live = !matches!(note.phase(), Phase::Vacant | Phase::Opening | Phase::Closing);
            if live {
                let expires = turn.shelf.at(note.expiry()).filter(|at| *at > turn.now);
                next = earliest([next, expires]);
            }
        }
        // Those in use now may come back and then be idle or surplus.
        let open = self.open(turn);
        let surplus = (open > self.rules.max_idle).then_some(SURPLUS_LINGER);
        let idle = self.rules.max_idle_time.filter(|_| open > 0);
        let again = surplus.into_iter().chain(idle).min();
        self.maintain_at = earliest([next, again.and_then(|limit| turn.now.checked_add(limit))]);
    }

    // Closing.

    /// No connection is lent any more: callers are told, the idle are closed.
    pub(super) fn close(&mut self, turn: &mut Turn<'_, C>) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.maintain_at = None;
        turn.shelf.slots.raise();
        while !self.waiters.is_empty() {
            self.fail_first(turn, &Error::closed());
        }
        for keeper in &mut self.keepers {
            keeper.at = None;
            turn.fx.wake(keeper.waker.take());
        }
        self.settle(turn);
    }

    // What a caller that ran out of time is told.

    /// The state in numbers, for the error of one who has waited `waited`.
    pub(super) fn report(&self, shelf: &Shelf<C>, now: Instant, waited: Duration) -> Report {
        let phase = if self.opening > 0 || self.outage.failures > 0 {
            TimeoutPhase::Connecting
        } else if self.checking > 0 {
            TimeoutPhase::Checking
        } else {
            TimeoutPhase::Waiting
        };
        let mut report = Report::new(phase, waited);
        report.max_open = Some(self.rules.max_open).filter(|max| *max < MAX_SLOTS);
        report.waiting = self.waiters.len() + 1;
        report.failed_connects = self.outage.failures;
        let count = |phase| shelf.slots.notes().filter(|note| note.phase() == phase).count();
        report.in_use = count(Phase::InUse);
        report.idle = count(Phase::Idle);
        report.opening = count(Phase::Opening);
        report.checking = count(Phase::Checking);
        report.cleaning = count(Phase::Cleaning);
        report.closing = count(Phase::Closing);
        report.oldest = shelf.holders(now).into_iter().next();
        report
    }

    // Where connections, slots and callers meet.

    /// Serves callers in order with what is idle, has what is stale checked,
    /// opens what is missing and allowed; opens the fast path when nobody
    /// waits. Once closed, closes what is idle.
    fn settle(&mut self, turn: &mut Turn<'_, C>) {
        if self.closed {
            while let Some(held) = turn.shelf.take_locked() {
                turn.shelf.note(&held.index).set(Phase::Closing);
                turn.fx.jobs.push(Job::Close(held));
            }
            turn.fx.ebbed = true;
            self.check(turn);
            return;
        }
        while !self.waiters.is_empty() {
            let wanted = self.coming() < self.waiters.len();
            if let Some(held) = turn.shelf.take_locked() {
                if held.entry.is_expired(turn.now) {
                    turn.shelf.note(&held.index).set(Phase::Closing);
                    turn.fx.jobs.push(Job::Close(held));
                } else if turn.shelf.is_fresh(&held.entry, turn.now) {
                    self.grant(turn, held);
                } else if wanted {
                    self.checking += 1;
                    turn.shelf.note(&held.index).set(Phase::Checking);
                    turn.fx.jobs.push(Job::Check(held));
                } else {
                    turn.shelf.put_locked(held);
                    break;
                }
            } else if wanted && self.may_connect(turn) {
                let Some(index) = self.reserve(turn) else { break };
                turn.fx.jobs.push(Job::Connect(index));
            } else {
                break;
            }
        }
        if self.waiters.is_empty() {
            turn.shelf.slots.lower();
        } else if let Some(at) = self.next_connect(turn) {
            self.plan(turn, at);
        }
        self.check(turn);
    }

    /// Hands a connection to the oldest caller. From here on the caller holds
    /// it, whether its future is polled or not.
    fn grant(&mut self, turn: &mut Turn<'_, C>, held: Held<C>) {
        let borrower = self.waiters.first().expect("somebody waits");
        turn.shelf.lend(&held, turn.now, borrower);
        let waker = self.waiters.answer_first(Answer::Granted(held));
        turn.fx.wake(waker);
    }

    fn fail_first(&mut self, turn: &mut Turn<'_, C>, error: &Error) {
        let waker = self.waiters.answer_first(Answer::Failed(error.clone()));
        turn.fx.wake(waker);
    }

    fn may_connect(&self, turn: &Turn<'_, C>) -> bool {
        // While the database is down, one attempt at a time.
        let at_once = if self.outage.failures > 0 { 1 } else { self.rules.connect_concurrency };
        self.opening < at_once
            && self.open(turn) + self.opening < self.rules.max_open
            && self.outage.until.is_none_or(|at| turn.now >= at)
    }

    /// The error for a newcomer whom neither a connect nor a return can serve
    /// before somebody changes something.
    fn hopeless(&self, turn: &Turn<'_, C>) -> Option<Error> {
        let held_back = self.outage.until.is_some_and(|at| turn.now < at);
        let nothing_open = self.open(turn) == 0 && self.opening == 0;
        self.outage.last.clone().filter(|error| held_back && nothing_open && error.is_permanent())
    }

    fn free(&mut self, turn: &mut Turn<'_, C>, index: Index) {
        turn.shelf.note(&index).set(Phase::Vacant);
        self.vacant.push(index);
    }

    /// Connections that will be free without anybody giving one back.
    fn coming(&self) -> usize {
        self.opening + self.checking + self.rinsing
    }

    /// Connections that exist.
    fn open(&self, turn: &Turn<'_, C>) -> usize {
        turn.shelf.slots.issued() - self.vacant.len() - self.opening
    }

    /// The invariants (ARCHITECTURE.md), after every transition in debug
    /// builds. Phases other than idle and in use change under the lock only,
    /// so what is counted here is exact.
    #[cfg(any(not(debug_assertions), millpond_loom))]
    fn check(&self, _turn: &Turn<'_, C>) {}

    #[cfg(all(debug_assertions, not(millpond_loom)))]
    fn check(&self, turn: &Turn<'_, C>) {
        let slots = &turn.shelf.slots;
        let count = |phase| slots.notes().filter(|note| note.phase() == phase).count();
        assert!(slots.issued() <= self.rules.max_open, "more slots than max_open_conns");
        assert_eq!(count(Phase::Vacant), self.vacant.len(), "a slot was lost");
        assert_eq!(count(Phase::Opening), self.opening, "a connect was lost");
        assert_eq!(count(Phase::Checking), self.checking, "a check was lost");
        assert!(count(Phase::Cleaning) >= self.rinsing, "a cleaning was lost");
        assert_eq!(
            self.tally.created - self.tally.closed,
            self.open(turn) as u64,
            "created − closed = open"
        );
        if !self.closed && !self.waiters.is_empty() {
            assert!(
                slots.len() == 0 || self.coming() >= self.waiters.len(),
                "a connection lies idle while somebody waits for it"
            );
            assert!(
                self.coming() >= self.waiters.len() || !self.may_connect(turn),
                "a caller waits though a connection may be opened"
            );
        }
    }
}

fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}

/// A part of `whole`, uniform in `0 ..= whole`, by the random number given.
fn fraction(whole: Duration, random: u64) -> Duration {
    whole.mul_f64((random >> 11) as f64 / (1_u64 << 53) as f64)
}
