//! What becomes of a connection that its borrower gives back.
//!
//! Decides from what the driver says of the session and what the pool has
//! seen; carries it out. A connection is lent again only at a clean boundary,
//! and the borrower never waits for that.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond_driver::{Driver, Fate, Reset, Session};

use super::entry::Held;
use super::events::{CloseReason, Event};
use super::leaks::Leak;
use super::shared::Shared;
use super::shelf::Put;
use super::state::State;
use super::tasks::{Cleaning, Then};
use super::turn::{Check, Work};

/// What the pool knows of a connection that comes back.
#[derive(Debug, Clone, Copy)]
struct Facts {
    session: Session,
    /// The worst that an error on it has said.
    fate: Fate,
    /// An error on it said that the peer has gone.
    dead: bool,
    /// A statement of the pool's was not awaited to its end.
    in_flight: bool,
    /// The borrower is unwinding from a panic.
    panicking: bool,
    /// How far every connection is reset.
    reset: Reset,
}

/// What is to become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Lend it again.
    Keep,
    /// Reset it in the background, after stopping what runs on it.
    Clean { cancel: bool, reset: Reset },
    /// Close it. `dead`: the peer has gone, so the idle ones are suspect.
    Close { cancel: bool, dead: bool },
}

#[inline]
fn judge(facts: Facts) -> Verdict {
    let busy = facts.session == Session::Busy || facts.in_flight;
    match facts.session {
        Session::Closed => Verdict::Close { cancel: false, dead: true },
        _ if facts.panicking || facts.fate == Fate::Discard => {
            Verdict::Close { cancel: busy && !facts.dead, dead: facts.dead }
        }
        // The driver looked: a statement not awaited has left nothing behind.
        Session::Clean if facts.reset == Reset::Boundary => Verdict::Keep,
        Session::Clean | Session::InTransaction | Session::FailedTransaction => {
            Verdict::Clean { cancel: false, reset: facts.reset }
        }
        Session::Busy => Verdict::Clean { cancel: true, reset: facts.reset },
        // Nobody knows what is in flight: an answer might be another's.
        Session::Unverified if facts.in_flight => Verdict::Close { cancel: true, dead: false },
        Session::Unverified => Verdict::Clean { cancel: false, reset: facts.reset },
        // A state this pool has not heard of.
        _ => Verdict::Close { cancel: true, dead: false },
    }
}

impl<D: Driver> Shared<D> {
    /// The driver's word on a session; one that panics over it has lost it.
    pub(super) fn session(&self, conn: &D::Connection) -> Session {
        catch_unwind(AssertUnwindSafe(|| self.driver.session(conn))).unwrap_or(Session::Closed)
    }

    #[inline]
    pub(super) fn release(self: &Arc<Self>, mut held: Held<D::Connection>) {
        let verdict = judge(Facts {
            session: self.session(&held.entry.conn),
            fate: held.entry.fate,
            dead: held.entry.dead,
            in_flight: held.entry.in_flight,
            panicking: std::thread::panicking(),
            reset: self.live.reset(),
        });
        let now = self.runtime.coarse_now();
        held.entry.idle_since = now;
        let note = self.shelf.note(&held.index);
        if note.is_reported(note.lent()) {
            self.note_return(&held);
        }
        let (id, lent_at) = (held.entry.id, held.entry.lent_at);
        self.tell(|| Event::Released { connection: id, held: span(lent_at, now) });
        self.measure(id, lent_at, now);
        self.give_back(held, verdict, now);
    }

    #[inline]
    fn give_back(self: &Arc<Self>, mut held: Held<D::Connection>, verdict: Verdict, now: Instant) {
        let unhindered = self.live.keeps_idle() && self.hooks.after_release.is_none();
        if verdict == Verdict::Keep && unhindered && !held.entry.is_expired(now) {
            held.entry.refresh();
            match self.shelf.put(held, now) {
                Put::Idle => return,
                Put::Evicted => return self.turn(State::sweep),
                Put::Refused(refused) => held = refused,
            }
        }
        self.part_with(held, verdict, now);
    }

    #[cold]
    fn part_with(self: &Arc<Self>, mut held: Held<D::Connection>, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Keep if self.hooks.after_release.is_some() => {
                self.wash(held, false, Then::Keep);
            }
            Verdict::Keep => {
                held.entry.refresh();
                self.hurried_turn(now, |state, turn| state.put(turn, held));
            }
            Verdict::Clean { cancel, reset } => self.wash(held, cancel, Then::Reset(reset)),
            Verdict::Close { cancel: true, .. } => self.wash(held, true, Then::Close),
            Verdict::Close { dead: true, .. } => {
                self.turn(|state, turn| state.bury(turn, held, CloseReason::Dead));
            }
            Verdict::Close { .. } => {
                self.turn(|state, turn| state.retire(turn, held, CloseReason::Discarded));
            }
        }
    }

    /// Puts back an idle connection that somebody has looked at, if it was left
    /// clean.
    pub(super) fn put_back(self: &Arc<Self>, held: Held<D::Connection>, work: Work) {
        let session = self.session(&held.entry.conn);
        let facts = Facts {
            session,
            fate: Fate::Reusable,
            dead: false,
            in_flight: false,
            panicking: false,
            reset: Reset::Boundary,
        };
        let reset = match judge(facts) {
            Verdict::Clean { cancel: false, reset } => reset,
            verdict => {
                return self.turn(|state, turn| {
                    state.done(work);
                    match verdict {
                        Verdict::Keep => {
                            state.checked(turn, held, Check { ping: false, admit: false });
                        }
                        _ => state.retire(turn, held, CloseReason::Unclean),
                    }
                });
            }
        };
        let how = Cleaning { cancel: None, then: Then::Reset(reset) };
        self.turn(|state, turn| {
            state.done(work);
            state.soil(turn, &held.index, how.is_quick());
        });
        self.start_cleaning(held, how);
    }

    fn wash(self: &Arc<Self>, held: Held<D::Connection>, cancel: bool, then: Then) {
        let ask = || self.driver.cancel(&held.entry.conn);
        let cancel = if cancel { catch_unwind(AssertUnwindSafe(ask)).ok().flatten() } else { None };
        let how = Cleaning { cancel, then };
        let quick = how.is_quick();
        self.turn(|state, turn| state.soil(turn, &held.index, quick));
        self.start_cleaning(held, how);
    }

    /// Records how long a connection was held that is about to be given back.
    /// Short loans are the ones that must not cost much, and are not recorded.
    #[inline]
    pub(super) fn measure(&self, connection: u64, lent_at: Instant, now: Instant) {
        if let Some(meters) = self.meters.as_ref().filter(|_| now != lent_at) {
            meters.record_hold(connection, span(lent_at, now));
        }
    }

    /// Tells that a loan has ended, if it was reported as a leak.
    #[cold]
    pub(super) fn note_return(&self, held: &Held<D::Connection>) {
        let note = self.shelf.note(&held.index);
        if !note.is_reported(note.lent()) {
            return;
        }
        let now = self.runtime.coarse_now();
        if let Some(holder) = note.holder(self.shelf.nanos(now)) {
            self.tell_of(&Leak { connection: held.entry.id, holder, returned: true });
        }
    }
}

/// How long a loan lasted; the coarse clock may be behind the other.
pub(super) fn span(lent_at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(lent_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAN: Facts = Facts {
        session: Session::Clean,
        fate: Fate::Reusable,
        dead: false,
        in_flight: false,
        panicking: false,
        reset: Reset::Boundary,
    };

    #[test]
    fn only_a_clean_session_is_kept_as_it_is() {
        for session in [
            Session::InTransaction,
            Session::FailedTransaction,
            Session::Busy,
            Session::Unverified,
            Session::Closed,
        ] {
            assert_ne!(judge(Facts { session, ..CLEAN }), Verdict::Keep, "{session:?}");
        }
        assert_eq!(judge(CLEAN), Verdict::Keep);
    }

    #[test]
    fn a_busy_session_is_cancelled_before_it_is_reset() {
        let verdict = judge(Facts { session: Session::Busy, ..CLEAN });
        assert_eq!(verdict, Verdict::Clean { cancel: true, reset: Reset::Boundary });
    }

    #[test]
    fn a_statement_left_in_flight_on_an_unverified_session_is_never_reused() {
        let verdict = judge(Facts { session: Session::Unverified, in_flight: true, ..CLEAN });
        assert_eq!(verdict, Verdict::Close { cancel: true, dead: false });
    }

    #[test]
    fn a_panic_closes_whatever_the_session_says() {
        for session in [Session::Clean, Session::InTransaction, Session::Unverified] {
            let verdict = judge(Facts { session, panicking: true, ..CLEAN });
            assert!(matches!(verdict, Verdict::Close { .. }), "{session:?}");
        }
    }

    #[test]
    fn a_peer_that_has_gone_makes_the_idle_suspect() {
        let verdict = judge(Facts { fate: Fate::Discard, dead: true, ..CLEAN });
        assert_eq!(verdict, Verdict::Close { cancel: false, dead: true });
    }

    #[test]
    fn a_session_reset_is_done_on_clean_sessions_too() {
        let verdict = judge(Facts { reset: Reset::Session, ..CLEAN });
        assert_eq!(verdict, Verdict::Clean { cancel: false, reset: Reset::Session });
    }
}
