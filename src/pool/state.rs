//! Who waits, which slots are vacant, what the database last said: every
//! decision of the pool that needs the lock.
//!
//! A state machine without clock, future, driver or randomness: what it needs
//! of them comes in with each [`Turn`], and what is to be done goes out as the
//! turn's effects, to be carried out after the lock is gone. So no foreign code
//! (driver, waker, drop of a connection) ever runs under the lock.
//!
//! Every way in ends in [`settle`](State::settle), the single place where free
//! connections, free slots and waiting callers meet.

use std::task::Waker;
use std::time::{Duration, Instant};

use millpond_driver::{Error, Fate};

use super::entry::{Held, Phase, is_death};
use super::events::CloseReason;
use super::keepers::{Duty, Keepers};
use super::outage::Outage;
use super::slots::Index;
use super::turn::{Caller, Check, Entered, Job, Look, Turn, Work};
use super::waiters::{Answer, Ticket, Waiters};
use crate::config::Settings;

/// How often a keeper looks that has nothing planned.
const IDLE_WATCH: Duration = Duration::from_secs(3600);
/// How long callers wait for a connection that one round trip makes clean,
/// before another is opened for them.
const RINSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct State<C> {
    pub(super) rules: Settings,
    pub(super) waiters: Waiters<Held<C>>,
    /// Slots without a connection, opening or otherwise.
    pub(super) vacant: Vec<Index>,
    pub(super) opening: usize,
    pub(super) checking: usize,
    pub(super) closing: usize,
    /// Connections whose cleaning is one round trip.
    pub(super) rinsing: usize,
    /// Until then those are as good as free.
    pub(super) rinse_by: Option<Instant>,
    pub(super) outage: Outage,
    /// What the last check met that failed, until a connection is opened.
    pub(super) failed_check: Option<Error>,
    /// None is lent without a word of the application.
    pub(super) gated: bool,
    pub(super) paused: bool,
    pub(super) closed: bool,
    /// How many there may be while those above a lowered limit go.
    #[cfg(all(debug_assertions, not(millpond_loom)))]
    pub(super) ceiling: usize,
    pub(super) keepers: Keepers,
    /// When the idle connections are to be looked through.
    pub(super) maintain_at: Option<Instant>,
    /// When the loans are to be looked through.
    pub(super) leaks_at: Option<Instant>,
    pub(super) tally: Tally,
}

/// What is known of a connection that is offered.
#[derive(Debug, Clone, Copy)]
struct Proof {
    /// It has just answered, or was just used.
    alive: bool,
    /// The application lets it be lent.
    admitted: bool,
}

/// Sums since the pool's start.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) created: u64,
    pub(super) closed: u64,
    pub(super) connects_failed: u64,
    pub(super) timeouts: u64,
    pub(super) overloads: u64,
    pub(super) leaks: u64,
    /// Connections closed or being closed, by reason.
    pub(super) closes: [u64; CloseReason::ALL.len()],
}

impl<C> State<C> {
    /// `gated`: none is lent without a word of the application.
    pub(super) fn new(rules: Settings, gated: bool) -> Self {
        Self {
            #[cfg(all(debug_assertions, not(millpond_loom)))]
            ceiling: rules.max_open,
            rules,
            waiters: Waiters::new(),
            vacant: Vec::new(),
            opening: 0,
            checking: 0,
            closing: 0,
            rinsing: 0,
            rinse_by: None,
            outage: Outage::default(),
            failed_check: None,
            gated,
            paused: false,
            closed: false,
            keepers: Keepers::default(),
            maintain_at: None,
            leaks_at: None,
            tally: Tally::default(),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
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
        turn.shelf.raise();
        if let Some(held) = stale {
            turn.shelf.put_back_locked(held);
        }
        if self.closed {
            self.settle(turn);
            return Entered::Refused(Error::closed());
        }
        let patience = match caller.patience {
            Some(limit) => limit,
            None => self.rules.acquire_timeout,
        };
        let deadline = turn.now.checked_add(patience).filter(|_| !patience.is_zero());
        let ticket = self.waiters.join(caller.borrower, deadline);
        self.settle(turn);
        if self.waiters.is_answered(&ticket) {
            return match self.waiters.leave(ticket).0 {
                Answer::Granted(held) => Entered::Served(held),
                Answer::Failed(error) => Entered::Refused(error),
                Answer::Pending | Answer::Expired => unreachable!("settle grants or fails"),
            };
        }
        let turned_away = if patience.is_zero() {
            // One that only tries has no waker, and no time to run out of.
            self.tally.timeouts += u64::from(caller.waker.is_some());
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
        let office = turn.executor.and_then(|executor| self.keepers.hire(executor));
        self.settle(turn);
        match office {
            _ if self.waiters.is_answered(ticket) => {
                if let Some(number) = office {
                    self.keepers.dismiss(number);
                }
                Look::Answered
            }
            Some(number) => Look::StandIn(number),
            None => Look::Wait,
        }
    }

    /// A caller leaves with its answer, if there is one.
    pub(super) fn collect(&mut self, ticket: &mut Option<Ticket>) -> Option<Answer<Held<C>>> {
        let ticket = ticket.take_if(|ticket| self.waiters.is_answered(ticket))?;
        let (answer, _) = self.waiters.leave(ticket);
        if matches!(answer, Answer::Expired) {
            self.tally.timeouts += 1;
        }
        Some(answer)
    }

    /// A caller gives up. What it was handed goes to the next one. Returns its
    /// waker, to be dropped after the lock is gone.
    pub(super) fn abandon(&mut self, turn: &mut Turn<'_, C>, ticket: Ticket) -> Option<Waker> {
        let (answer, waker) = self.waiters.leave(ticket);
        match answer {
            Answer::Granted(held) => self.put(turn, held),
            Answer::Failed(error) => {
                turn.fx.waste.push(error);
                self.settle(turn);
            }
            Answer::Pending | Answer::Expired => self.settle(turn),
        }
        waker
    }

    // Connections come back.

    /// A clean connection is free: new, cleaned, or given back.
    pub(super) fn put(&mut self, turn: &mut Turn<'_, C>, mut held: Held<C>) {
        turn.shelf.rest(&mut held.entry, turn.now);
        self.offer(turn, held, Proof { alive: true, admitted: false });
    }

    /// A connection has passed its check.
    pub(super) fn checked(&mut self, turn: &mut Turn<'_, C>, mut held: Held<C>, how: Check) {
        if how.ping {
            held.entry.era = turn.shelf.era();
            held.entry.checked_at = Some(turn.now);
            turn.shelf.prove(&mut held.entry, turn.now);
        }
        if how.admit {
            turn.fx.waste.extend(self.outage.admitted());
            turn.fx.waste.extend(self.failed_check.take());
        }
        self.rewatch(turn, held.entry.idle_since);
        self.offer(turn, held, Proof { alive: how.ping || how.admit, admitted: how.admit });
    }

    /// A check has failed, or been refused.
    pub(super) fn note_failed_check(&mut self, turn: &mut Turn<'_, C>, error: Error) {
        turn.fx.waste.extend(self.failed_check.replace(error));
    }

    /// A connection that nobody uses goes to the oldest caller, or back among
    /// the idle.
    fn offer(&mut self, turn: &mut Turn<'_, C>, mut held: Held<C>, proof: Proof) {
        // A new one lingers, or whoever tries in vain would never succeed.
        let is_new = turn.shelf.note(&held.index).lent() == held.entry.lent_before;
        let unwanted = self.waiters.is_empty() && self.rules.max_idle == 0 && !is_new;
        let reason = match () {
            () if self.closed => Some(CloseReason::PoolClosed),
            () if self.excess(turn) > 0 => Some(CloseReason::Resized),
            () if unwanted => Some(CloseReason::Surplus),
            () => self.over(turn, &held),
        };
        if let Some(reason) = reason {
            self.retire(turn, held, reason);
            return;
        }
        held.entry.admitted = proof.admitted;
        let doubtful = !proof.alive || turn.shelf.is_suspect(&held.entry);
        if self.waiters.is_empty() || self.paused || doubtful {
            self.shelve(turn, held);
        } else if self.gated && !proof.admitted {
            self.start_check(turn, held, Check { ping: false, admit: true });
        } else {
            self.grant(turn, held);
        }
        self.settle(turn);
    }

    /// The application does not want a connection lent. It is closed and the
    /// next one tried, unless the refusal is permanent: then the caller is told,
    /// and the connection kept if the refusal says that it is good.
    pub(super) fn refused(&mut self, turn: &mut Turn<'_, C>, held: Held<C>, refusal: Error) {
        if refusal.is_permanent() {
            if !self.waiters.is_empty() && !self.paused {
                self.fail_first(turn, &refusal);
            }
            if refusal.fate() == Fate::Reusable {
                self.offer(turn, held, Proof { alive: true, admitted: false });
                turn.fx.waste.push(refusal);
                return;
            }
        } else if turn.shelf.note(&held.index).lent() == held.entry.lent_before {
            // One after the other would be opened only to be refused.
            let error = Error::connect("the hook before_acquire refused a new connection");
            let error = error.with_source(refusal.clone());
            turn.fx.waste.extend(self.outage.refused(error, turn.now, turn.random));
        }
        if is_death(&refusal) {
            turn.shelf.next_era();
        }
        self.note_failed_check(turn, refusal);
        self.retire(turn, held, CloseReason::Refused);
    }

    /// Why a connection is not to be lent again, if it has lived or served for as
    /// long as it may.
    pub(super) fn over(&self, turn: &Turn<'_, C>, held: &Held<C>) -> Option<CloseReason> {
        let note = turn.shelf.note(&held.index);
        match () {
            () if held.entry.is_expired(turn.now) => Some(CloseReason::Lifetime),
            () if note.is_evicted() => Some(CloseReason::Evicted),
            () if note.is_spent() => Some(CloseReason::Uses),
            () => None,
        }
    }

    /// A connection is to be closed. Its slot stays taken until that is done.
    pub(super) fn retire(&mut self, turn: &mut Turn<'_, C>, held: Held<C>, reason: CloseReason) {
        self.start_close(turn, held, reason);
        self.settle(turn);
    }

    pub(super) fn start_close(
        &mut self,
        turn: &mut Turn<'_, C>,
        held: Held<C>,
        reason: CloseReason,
    ) {
        self.count_close(turn, held.entry.id, reason);
        self.closing += 1;
        turn.shelf.note(&held.index).set(Phase::Closing);
        turn.fx.jobs.push(Job::Close(held));
    }

    /// Counts that a connection leaves the pool, and has it told.
    pub(super) fn count_close(&mut self, turn: &mut Turn<'_, C>, id: u64, reason: CloseReason) {
        self.tally.closes[reason as usize] += 1;
        turn.fx.closed.push((id, reason));
    }

    /// A connection has proved dead: it is closed, and all that were idle with
    /// it are suspect.
    pub(super) fn bury(&mut self, turn: &mut Turn<'_, C>, held: Held<C>, reason: CloseReason) {
        turn.shelf.next_era();
        self.retire(turn, held, reason);
    }

    /// A connection that was in use goes to be cleaned.
    pub(super) fn soil(&mut self, turn: &mut Turn<'_, C>, index: &Index, quick: bool) {
        turn.shelf.note(index).set(Phase::Cleaning);
        if quick {
            // Others that come back meanwhile prolong nobody's wait.
            if self.rinsing == 0 {
                self.rinse_by = turn.now.checked_add(RINSE);
            }
            self.rinsing += 1;
        }
    }

    /// Checking or cleaning has ended; what became of the connection follows.
    pub(super) fn done(&mut self, work: Work) {
        match work {
            Work::Checking => self.checking -= 1,
            Work::Cleaning { quick } => self.rinsing -= usize::from(quick),
            Work::Closing => self.closing -= 1,
        }
    }

    /// A connection is closed and its slot vacant.
    pub(super) fn vacate(&mut self, turn: &mut Turn<'_, C>, index: Index) {
        self.closing -= 1;
        self.tally.closed += 1;
        self.free(turn, index);
        self.settle(turn);
    }

    // A runtime has ended and taken a task of ours with it. Nothing is started
    // here, for the context may be that runtime; callers are woken to go on
    // from their own.

    /// A task was dropped, and the connection it worked on with it.
    pub(super) fn conn_lost(&mut self, turn: &mut Turn<'_, C>, index: Index, work: Work) {
        self.done(work);
        if !matches!(work, Work::Closing) {
            let id = turn.shelf.note(&index).id();
            self.count_close(turn, id, CloseReason::RuntimeEnded);
        }
        self.tally.closed += 1;
        self.free(turn, index);
        self.lost(turn);
    }

    /// A keeper was dropped. Returns its waker, to be dropped after the lock is
    /// gone.
    pub(super) fn keeper_lost(&mut self, turn: &mut Turn<'_, C>, number: u64) -> Option<Waker> {
        let (held_office, waker) = self.keepers.dismiss(number);
        if held_office {
            self.lost(turn);
        }
        waker
    }

    pub(super) fn lost(&mut self, turn: &mut Turn<'_, C>) {
        self.waiters.nudge(|waker| turn.fx.wake(Some(waker)));
        turn.fx.ebbed |= self.closed;
    }

    // Time passes.

    /// Makes sure that a keeper of this executor looks by `at`.
    pub(super) fn hire(&mut self, turn: &mut Turn<'_, C>, at: Option<Instant>) {
        let Some(executor) = turn.executor else {
            turn.fx.unkept = true;
            return;
        };
        match self.keepers.hire(executor) {
            Some(number) => turn.fx.jobs.push(Job::Keep(number)),
            None if at.is_some() => self.keepers.plan(at, |waker| turn.fx.wake(Some(waker))),
            None => {}
        }
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
        match self.keepers.duty(number, turn.now, waker) {
            Duty::Due => {}
            Duty::NotBefore(at) => return Some(at),
            Duty::Dismissed => return None,
        }
        self.waiters.expire(turn.now, |waker| turn.fx.wake(Some(waker)));
        if self.maintain_at.is_some_and(|at| turn.now >= at) {
            self.maintain(turn);
        }
        if self.leaks_at.is_some_and(|at| turn.now >= at) {
            self.find_leaks(turn);
        }
        self.settle(turn);
        let upkeep = earliest([self.maintain_at, self.leaks_at]);
        let next = earliest([self.waiters.deadline(), self.next_connect(turn), upkeep]);
        if next.is_none() && self.waiters.is_empty() {
            (_, *waker) = self.keepers.dismiss(number);
            return None;
        }
        // Callers without a deadline keep the keeper: what they wait for may
        // yet need its time.
        let next = next.or_else(|| turn.now.checked_add(IDLE_WATCH))?;
        self.keepers.sleeps_until(number, next);
        Some(next)
    }

    // Closing.

    /// No connection is lent any more: callers are told, the idle are closed.
    pub(super) fn close(&mut self, turn: &mut Turn<'_, C>) {
        if self.closed {
            return;
        }
        self.closed = true;
        self.maintain_at = None;
        self.leaks_at = None;
        turn.shelf.raise();
        while !self.waiters.is_empty() {
            self.fail_first(turn, &Error::closed());
        }
        self.keepers.plan(None, |waker| turn.fx.wake(Some(waker)));
        self.settle(turn);
    }
}

pub(super) fn earliest<const N: usize>(times: [Option<Instant>; N]) -> Option<Instant> {
    times.into_iter().flatten().min()
}
