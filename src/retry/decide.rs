//! Which errors are worth another attempt.
//!
//! Owns the table of the module above. Knows how an error came to be, not when
//! to try again nor how often.

use millpond_driver::{Cause, Error, ErrorKind, Fate, Outcome};

/// What may be repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Replay {
    /// Only what certainly had no effect.
    #[default]
    NoEffect,
    /// Also what may have taken effect: the application knows that twice is as
    /// good as once, as for anything that only reads.
    Idempotent,
}

/// What an error speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// All that an attempt did.
    Whole,
    /// The end of an attempt that may have taken effect before.
    Part,
    /// A statement of a transaction, or its commit: all of it is repeated.
    Transaction,
    /// What was done on a session that refuses writes: it is as good twice.
    Harmless,
}

/// Whether an attempt that ended so is repeated, as far as its effect is
/// concerned.
pub(crate) fn may_repeat(error: &Error, replay: Replay, work: Work) -> bool {
    let idempotent = replay == Replay::Idempotent || work == Work::Harmless;
    if is_hopeless(error) || (work == Work::Part && !idempotent) {
        return false;
    }
    match error.outcome() {
        Outcome::NotSent | Outcome::RolledBack => true,
        Outcome::Rejected => match error.cause() {
            // It was the caller who wanted to write where nobody can.
            Cause::WrongRole => work != Work::Harmless,
            Cause::Conflict | Cause::Overload | Cause::Starting | Cause::StaleStatement => true,
            Cause::LockTimeout => idempotent || work == Work::Transaction,
            _ => false,
        },
        // A transaction whose commit was not sent is gone with its connection.
        _ => {
            let uncommitted = work == Work::Transaction && error.kind() != ErrorKind::CommitUnknown;
            idempotent || uncommitted
        }
    }
}

/// Whether the same would fail in the same way.
fn is_hopeless(error: &Error) -> bool {
    let lasting = matches!(error.cause(), Cause::Caller | Cause::Corrupt | Cause::Pool);
    lasting || error.is_permanent()
}

/// Whether a connection proved dead before it was used. One that was lent
/// without a check says nothing of the database.
pub(crate) fn is_death_before_use(error: &Error) -> bool {
    error.outcome() == Outcome::NotSent
        && error.fate() == Fate::Discard
        && !error.is_permanent()
        && !matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_driver::Phase;

    const OUTCOMES: [Outcome; 4] =
        [Outcome::NotSent, Outcome::Rejected, Outcome::RolledBack, Outcome::Unknown];

    /// Whether each outcome is repeated with this cause.
    fn row(cause: Cause, replay: Replay, work: Work) -> [bool; 4] {
        OUTCOMES.map(|outcome| {
            let error = Error::lost("so").with_cause(cause).with_outcome(outcome);
            may_repeat(&error, replay, work)
        })
    }

    #[test]
    fn an_operation_is_repeated_if_it_had_no_effect() {
        for cause in [
            Cause::Conflict,
            Cause::WrongRole,
            Cause::Overload,
            Cause::Starting,
            Cause::StaleStatement,
        ] {
            let repeated = row(cause, Replay::NoEffect, Work::Whole);
            assert_eq!(repeated, [true, true, true, false], "{cause:?}");
        }
        for cause in [Cause::Transport, Cause::Shutdown, Cause::Timeout, Cause::LockTimeout] {
            let repeated = row(cause, Replay::NoEffect, Work::Whole);
            assert_eq!(repeated, [true, false, true, false], "{cause:?}");
        }
    }

    #[test]
    fn an_idempotent_operation_is_repeated_though_it_may_have_taken_effect() {
        for work in [Work::Whole, Work::Part, Work::Transaction] {
            for cause in [Cause::Conflict, Cause::LockTimeout, Cause::Overload] {
                let repeated = row(cause, Replay::Idempotent, work);
                assert_eq!(repeated, [true; 4], "{cause:?} {work:?}");
            }
            let repeated = row(Cause::Transport, Replay::Idempotent, work);
            assert_eq!(repeated, [true, false, true, true], "{work:?}");
        }
    }

    #[test]
    fn a_transaction_is_repeated_as_long_as_it_is_not_committed() {
        for cause in [Cause::Conflict, Cause::LockTimeout, Cause::WrongRole] {
            let repeated = row(cause, Replay::NoEffect, Work::Transaction);
            assert_eq!(repeated, [true; 4], "{cause:?}");
        }
        let repeated = row(Cause::Transport, Replay::NoEffect, Work::Transaction);
        assert_eq!(repeated, [true, false, true, true]);
    }

    #[test]
    fn a_commit_whose_outcome_is_unknown_is_repeated_only_if_that_does_no_harm() {
        let error = Error::commit_unknown(Error::lost("connection reset"));
        for work in [Work::Whole, Work::Part, Work::Transaction] {
            assert!(!may_repeat(&error, Replay::NoEffect, work), "{work:?}");
            assert!(may_repeat(&error, Replay::Idempotent, work), "{work:?}");
        }
    }

    #[test]
    fn what_would_fail_again_is_never_repeated() {
        for cause in [Cause::Caller, Cause::Auth, Cause::Config, Cause::Corrupt, Cause::Pool] {
            for replay in [Replay::NoEffect, Replay::Idempotent] {
                for work in [Work::Whole, Work::Part, Work::Transaction] {
                    assert_eq!(row(cause, replay, work), [false; 4], "{cause:?} {replay:?}");
                }
            }
        }
        for error in [Error::unsupported("that"), Error::decode("no such column"), Error::closed()]
        {
            assert!(!may_repeat(&error, Replay::Idempotent, Work::Whole), "{error}");
        }
    }

    #[test]
    fn what_is_done_on_a_session_that_refuses_writes_is_as_good_twice() {
        let repeated = row(Cause::Transport, Replay::NoEffect, Work::Harmless);
        assert_eq!(repeated, [true, false, true, true]);
        let repeated = row(Cause::WrongRole, Replay::Idempotent, Work::Harmless);
        assert_eq!(repeated, [true, false, true, true], "a write would be refused again");
    }

    #[test]
    fn work_of_which_a_part_is_done_is_repeated_only_if_idempotent() {
        for outcome in OUTCOMES {
            let error = Error::lost("so").with_cause(Cause::Conflict).with_outcome(outcome);
            assert!(!may_repeat(&error, Replay::NoEffect, Work::Part), "{outcome:?}");
        }
    }

    #[test]
    fn only_a_connection_that_was_open_can_die_before_its_use() {
        let dead = Error::lost("closed by the server").with_outcome(Outcome::NotSent);
        assert!(is_death_before_use(&dead));
        for error in [
            Error::lost("closed by the server"),
            dead.clone().with_outcome(Outcome::Rejected),
            dead.clone().with_outcome(Outcome::RolledBack),
            dead.with_fate(Fate::Reusable),
            Error::connect("connection refused"),
            Error::connect("wrong password").with_cause(Cause::Auth),
            Error::timeout(Phase::Connecting, "no answer"),
        ] {
            assert!(!is_death_before_use(&error), "{error}");
        }
    }
}
