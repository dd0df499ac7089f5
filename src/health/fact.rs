//! What an error says of the node behind it.
//!
//! Owns which errors count. Does not know what follows from them.

use millpond_driver::{Cause, Error, ErrorKind, Fate, Outcome};

/// Something met on a node that says how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fact {
    /// It answered.
    Succeeded,
    /// A connection was lost, could not be opened, or did not answer in time.
    Failed,
    /// Nobody took the connection at all.
    Refused,
    /// It has no room for more connections: those that are open go on.
    Overloaded,
}

impl Fact {
    /// What an error says of the node; `None`: nothing.
    ///
    /// Faults of the transport, connects that fail and time limits of ours
    /// count. A pool that is full, paused or closed, a statement that is refused
    /// or cancelled, a limit of the server that ended one session: these say
    /// nothing.
    ///
    /// ```
    /// use millpond::{Cause, Error, Phase, health::Fact};
    ///
    /// assert_eq!(Fact::of(&Error::lost("connection reset by peer")), Some(Fact::Failed));
    /// assert_eq!(Fact::of(&Error::connect("connection refused")), Some(Fact::Refused));
    /// assert_eq!(Fact::of(&Error::statement("no such table")), None);
    /// ```
    pub fn of(error: &Error) -> Option<Self> {
        let connecting = error.kind() == ErrorKind::Connect;
        match error.cause() {
            Cause::Pool => None,
            Cause::Overload => Some(Self::Overloaded),
            Cause::Transport if connecting => Some(Self::Refused),
            Cause::Transport | Cause::Shutdown | Cause::Starting => Some(Self::Failed),
            // A limit of the server comes as its answer, or as a session it ended.
            Cause::Timeout => error.is_timeout().then_some(Self::Failed),
            _ => connecting.then_some(Self::Failed),
        }
    }

    /// The same for an error of a probe, which asks for nothing but an answer:
    /// a refusal is one, and whatever else keeps it from getting one counts.
    pub(crate) fn of_probe(error: &Error) -> Self {
        let answered = matches!(error.outcome(), Outcome::Rejected | Outcome::RolledBack)
            && error.fate() != Fate::Discard;
        match Self::of(error) {
            Some(fact) => fact,
            None if answered || error.kind() == ErrorKind::Decode => Self::Succeeded,
            None => Self::Failed,
        }
    }

    /// Whether it counts against the node.
    pub(crate) fn is_fault(self) -> bool {
        matches!(self, Self::Failed | Self::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_driver::{Phase, Report, Scope};
    use std::time::Duration;

    #[test]
    fn faults_of_the_transport_failed_connects_and_our_own_limits_count() {
        for (error, fact) in [
            (Error::lost("reset"), Fact::Failed),
            (Error::lost("57P01").with_cause(Cause::Shutdown), Fact::Failed),
            (Error::connect("refused"), Fact::Refused),
            (Error::connect("starting").with_cause(Cause::Starting), Fact::Failed),
            (Error::connect("denied").with_cause(Cause::Auth), Fact::Failed),
            (Error::timeout(Phase::Connecting, "silent"), Fact::Failed),
            (Error::timeout(Phase::Statement, "silent"), Fact::Failed),
            (Error::panicked("oh"), Fact::Failed),
            (Error::connect("1040").with_cause(Cause::Overload), Fact::Overloaded),
        ] {
            assert_eq!(Fact::of(&error), Some(fact), "{error}");
            assert_eq!(Fact::of_probe(&error), fact, "{error}");
        }
    }

    #[test]
    fn the_pool_statements_and_the_servers_limits_on_a_session_say_nothing() {
        let exhausted = Report::new(Phase::Waiting, Duration::from_secs(1));
        let cancelled = Error::statement("57014").with_cause(Cause::Timeout);
        for error in [
            Error::acquire_timeout(exhausted),
            Error::overloaded("many wait"),
            Error::closed(),
            Error::statement("no such table"),
            Error::statement("deadlock").with_cause(Cause::Conflict),
            Error::statement("read only").with_cause(Cause::WrongRole).with_scope(Scope::Node),
            Error::lost("57P05: idle for too long").with_cause(Cause::Timeout),
            Error::decode("no such column"),
            cancelled,
        ] {
            assert_eq!(Fact::of(&error), None, "{error}");
        }
    }

    #[test]
    fn to_a_probe_a_refused_statement_is_an_answer_and_silence_is_none() {
        assert_eq!(Fact::of_probe(&Error::statement("permission denied")), Fact::Succeeded);
        assert_eq!(Fact::of_probe(&Error::decode("the server told no status")), Fact::Succeeded);
        let vault = Error::statement("no token").with_outcome(Outcome::NotSent);
        assert_eq!(Fact::of_probe(&vault), Fact::Failed);
    }
}
