//! What went wrong, and the four answers that policies read.
//!
//! Owns [`Error`], the only error type a user meets; what it may say is in the
//! folder beside it. Does not know what a database's codes mean (each driver
//! translates its own) nor what anybody does about them: retry, pool and health
//! read [`Outcome`], [`Fate`], [`Cause`] and [`Scope`] and nothing else.

mod answers;

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

pub use answers::{Cause, Code, ErrorKind, Fate, Outcome, Phase, Scope, Violation};

use crate::report::Report;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a database, a driver or a pool: one pointer wide, cheap to
/// clone.
///
/// `Display` is a lower-case fragment that says what happened; the underlying
/// error is in [`source`](StdError::source). A new error starts from the safe
/// answers, outcome unknown and connection discarded, and a driver says better.
///
/// ```
/// use millpond_driver::{Cause, Code, Error, Fate, Outcome};
///
/// let error = Error::statement("duplicate key value violates \"users_pkey\"")
///     .with_code(Code::SqlState(*b"23505"))
///     .with_cause(Cause::Caller);
/// assert_eq!(error.outcome(), Outcome::Rejected);
/// assert_eq!(error.fate(), Fate::Reusable);
/// assert_eq!(error.to_string(), "duplicate key value violates \"users_pkey\" (23505)");
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    outcome: Outcome,
    fate: Fate,
    cause: Cause,
    scope: Scope,
    code: Option<Code>,
    violation: Option<Violation>,
    message: Box<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
    report: Option<Report>,
    earlier: Option<Arc<[Error]>>,
    /// 0: as many as `earlier` says.
    attempts: u32,
    nodes: Option<Arc<Causes>>,
}

/// Why each of some nodes could not be used, by name.
type Causes = [(Box<str>, Error)];

impl Error {
    /// An error of `kind` with the safe answers: outcome unknown, connection
    /// discarded, transport at fault.
    pub fn new(kind: ErrorKind, message: impl Into<Box<str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            outcome: Outcome::Unknown,
            fate: Fate::Discard,
            cause: Cause::Transport,
            scope: Scope::Connection,
            code: None,
            message: message.into(),
            source: None,
            report: None,
            earlier: None,
            attempts: 0,
            violation: None,
            nodes: None,
        }))
    }

    /// A connection could not be opened: nothing was sent.
    pub fn connect(message: impl Into<Box<str>>) -> Self {
        Self::new(ErrorKind::Connect, message)
            .with_outcome(Outcome::NotSent)
            .with_scope(Scope::Node)
    }

    /// The database refused a statement and nothing of it took effect.
    pub fn statement(message: impl Into<Box<str>>) -> Self {
        Self::new(ErrorKind::Statement, message)
            .with_outcome(Outcome::Rejected)
            .with_fate(Fate::Reusable)
            .with_cause(Cause::Caller)
            .with_scope(Scope::Statement)
    }

    /// The connection was lost while a statement was on its way.
    pub fn lost(message: impl Into<Box<str>>) -> Self {
        Self::new(ErrorKind::Lost, message)
    }

    /// A setting is wrong: the message names the field, the value and the rule.
    pub fn config(message: impl Into<Box<str>>) -> Self {
        Self::harmless(ErrorKind::Config, message).with_cause(Cause::Config)
    }

    /// The driver cannot do this.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Self::harmless(ErrorKind::Unsupported, format!("this driver does not support {what}"))
    }

    /// A value does not convert to the asked type, or a column is not there.
    pub fn decode(message: impl Into<Box<str>>) -> Self {
        Self::harmless(ErrorKind::Decode, message)
    }

    /// The pool is closed.
    pub fn closed() -> Self {
        Self::harmless(ErrorKind::Closed, "the pool is closed").with_cause(Cause::Pool)
    }

    /// Too many callers wait already.
    pub fn overloaded(message: impl Into<Box<str>>) -> Self {
        Self::harmless(ErrorKind::Overloaded, message).with_cause(Cause::Pool)
    }

    /// No connection in time, with the pool's state at that moment.
    pub fn acquire_timeout(report: Report) -> Self {
        let mut error = Self::harmless(ErrorKind::Timeout(report.phase), report.to_string())
            .with_cause(Cause::Pool);
        error.0.report = Some(report);
        error
    }

    /// No answer within a limit, while something was on its way.
    pub fn timeout(phase: Phase, message: impl Into<Box<str>>) -> Self {
        let outcome = if phase == Phase::Statement { Outcome::Unknown } else { Outcome::NotSent };
        Self::new(ErrorKind::Timeout(phase), message)
            .with_outcome(outcome)
            .with_cause(Cause::Timeout)
    }

    /// No node of a cluster can be used, and why not, by the name of each.
    /// `what` was looked for.
    ///
    /// ```
    /// use millpond_driver::{Error, ErrorKind};
    ///
    /// let down = Error::connect("connection refused");
    /// let error = Error::no_node("replica", vec![("b".into(), down)]);
    /// assert_eq!(error.to_string(), "no replica can be used: b: connection refused");
    /// assert_eq!((error.kind(), error.nodes().len()), (ErrorKind::NoNode, 1));
    /// ```
    pub fn no_node(what: impl fmt::Display, nodes: Vec<(Box<str>, Self)>) -> Self {
        let told = nodes.iter().map(|(name, error)| {
            let (name, error) = (format!("{name}: "), error.to_string());
            // A node named as its address need not be named twice.
            if error.starts_with(&name) { error } else { name + &error }
        });
        let told = told.collect::<Vec<_>>().join("; ");
        let (first, rest) = match nodes.split_first() {
            Some(((_, first), rest)) => (first.cause(), rest),
            None => (Cause::Config, &[][..]),
        };
        // What passes on one of them may pass.
        let alike = rest.iter().all(|(_, error)| error.cause() == first);
        let passing = nodes.iter().find(|(_, error)| !error.is_permanent());
        let cause = if alike { first } else { passing.map_or(first, |(_, error)| error.cause()) };
        let message = match nodes.is_empty() {
            true => format!("no {what} can be used: the cluster has no nodes"),
            false => format!("no {what} can be used: {told}"),
        };
        let mut error =
            Self::harmless(ErrorKind::NoNode, message).with_cause(cause).with_scope(Scope::Node);
        error.0.nodes = Some(nodes.into());
        error
    }

    /// Driver code panicked; `message` is what it said.
    pub fn panicked(message: impl Into<Box<str>>) -> Self {
        Self::new(ErrorKind::Panicked, message)
    }

    /// It is not known whether a transaction was committed, because of `cause`,
    /// which becomes the source and gives all answers but the outcome.
    pub fn commit_unknown(cause: Self) -> Self {
        let mut error =
            Self::new(ErrorKind::CommitUnknown, "it is unknown whether the transaction committed")
                .with_fate(cause.fate())
                .with_cause(cause.cause())
                .with_scope(cause.scope());
        error.0.code = cause.code().cloned();
        error.with_source(cause)
    }

    /// The application gives up what it was doing, for a reason of its own,
    /// which becomes the source: how a closure leaves a transaction that is to
    /// be rolled back. If the reason comes of an error of a database, by way of its
    /// sources, the outcome, fate, cause, scope and code are that error's: a
    /// deadlock in an error of the application's is tried again as any.
    ///
    /// ```
    /// use millpond_driver::{Error, ErrorKind};
    ///
    /// let error = Error::aborted("not enough money");
    /// assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Aborted, "not enough money"));
    /// ```
    pub fn aborted(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let reason = reason.into();
        let mut error = Self::statement(reason.to_string()).with_kind(ErrorKind::Aborted);
        if let Some(met) = Self::behind(&*reason) {
            error = error
                .with_outcome(met.outcome())
                .with_fate(met.fate())
                .with_cause(met.cause())
                .with_scope(met.scope());
            error.0.code = met.code().cloned();
            error.0.violation = met.violation();
        }
        error.with_source(reason)
    }

    /// The first error of a database among this and its sources.
    fn behind<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }

    fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    fn harmless(kind: ErrorKind, message: impl Into<Box<str>>) -> Self {
        Self::new(kind, message)
            .with_outcome(Outcome::NotSent)
            .with_fate(Fate::Reusable)
            .with_cause(Cause::Caller)
            .with_scope(Scope::Statement)
    }

    /// Says whether the work took effect.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.0.outcome = outcome;
        self
    }

    /// Says what is left of the connection.
    #[must_use]
    pub fn with_fate(mut self, fate: Fate) -> Self {
        self.0.fate = fate;
        self
    }

    /// Says who or what is at fault.
    #[must_use]
    pub fn with_cause(mut self, cause: Cause) -> Self {
        self.0.cause = cause;
        self
    }

    /// Says how far the fault reaches.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.0.scope = scope;
        self
    }

    /// Adds the database's own code.
    #[must_use]
    pub fn with_code(mut self, code: Code) -> Self {
        self.0.code = Some(code);
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Says what was tried before, oldest first: this is the error of the last
    /// attempt, and each of these ended one. What they and this one say of
    /// attempts before them is kept.
    #[must_use]
    pub fn with_earlier(mut self, earlier: Vec<Self>) -> Self {
        let mut all = Vec::with_capacity(earlier.len());
        for mut error in earlier {
            all.extend(error.0.earlier.take().iter().flat_map(|before| before.iter().cloned()));
            all.push(error);
        }
        all.extend_from_slice(self.earlier());
        if !all.is_empty() {
            self.0.earlier = Some(all.into());
        }
        self
    }

    /// Says where it happened, before the message.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.0.message = format!("{place}: {}", self.0.message).into();
        self
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the work took effect.
    pub fn outcome(&self) -> Outcome {
        self.0.outcome
    }

    /// What is left of the connection.
    pub fn fate(&self) -> Fate {
        self.0.fate
    }

    /// Who or what is at fault.
    pub fn cause(&self) -> Cause {
        self.0.cause
    }

    /// How far the fault reaches.
    pub fn scope(&self) -> Scope {
        self.0.scope
    }

    /// The database's own code, if it gave one.
    pub fn code(&self) -> Option<&Code> {
        self.0.code.as_ref()
    }

    /// The message alone, without the code.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The pool's state when an acquire ran out of time.
    pub fn report(&self) -> Option<&Report> {
        self.0.report.as_ref()
    }

    /// Says which rule of the schema was broken, if one was.
    #[must_use]
    pub fn with_violation(mut self, violation: impl Into<Option<Violation>>) -> Self {
        self.0.violation = violation.into();
        self
    }

    /// Which rule of the schema the statement has broken: the same word on every
    /// database. `None`: none of those that are told apart.
    ///
    /// ```
    /// # use millpond_driver::{Error, Violation};
    /// # fn answer(error: &Error) -> u16 {
    /// match error.violation() {
    ///     Some(Violation::Unique) => 409,
    ///     Some(_) => 422,
    ///     None => 500,
    /// }
    /// # }
    /// # assert_eq!(answer(&Error::lost("gone")), 500);
    /// ```
    pub fn violation(&self) -> Option<Violation> {
        self.0.violation
    }

    /// Says how many attempts there were, where not all of the
    /// [earlier](Self::with_earlier) errors are kept.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// How often it was tried, of which this error is the end: 1 if nothing was
    /// tried again.
    pub fn attempts(&self) -> u32 {
        let kept = u32::try_from(self.earlier().len() + 1).unwrap_or(u32::MAX);
        self.0.attempts.max(kept)
    }

    /// The errors of the attempts before this one, oldest first. None if
    /// nothing was tried again. Of [many](Self::attempts) the first is kept, and
    /// the newest.
    pub fn earlier(&self) -> &[Self] {
        self.0.earlier.as_deref().unwrap_or_default()
    }

    /// Why each node of a cluster could not be used, if none could.
    pub fn nodes(&self) -> &[(Box<str>, Self)] {
        self.0.nodes.as_deref().unwrap_or_default()
    }

    /// Whether an acquire, connect or statement ran out of time.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Timeout(_))
    }

    /// Whether trying the same again cannot help until somebody changes
    /// something: wrong credentials, unknown database, wrong settings.
    pub fn is_permanent(&self) -> bool {
        matches!(self.0.cause, Cause::Auth | Cause::Config)
            || matches!(self.0.kind, ErrorKind::Unsupported)
    }
}

impl fmt::Display for Error {
    /// The message, the code, and after several attempts how each of them
    /// ended, alike ones in a row once: `failed after 4 attempts: deadlock found
    /// (1213); before that: connection reset; deadlock found (1213), 2 times`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let earlier = self.earlier();
        if !earlier.is_empty() {
            write!(f, "failed after {} attempts: ", self.attempts())?;
        }
        f.write_str(&self.0.message)?;
        if let Some(code) = &self.0.code {
            write!(f, " ({code})")?;
        }
        let texts: Vec<_> = earlier.iter().map(ToString::to_string).collect();
        let mut before = "; before that: ";
        for alike in texts.chunk_by(|one, next| one == next) {
            write!(f, "{before}{}", alike[0])?;
            if alike.len() > 1 {
                write!(f, ", {} times", alike.len())?;
            }
            before = "; ";
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("outcome", &self.0.outcome)
            .field("fate", &self.0.fate)
            .field("cause", &self.0.cause)
            .field("scope", &self.0.scope);
        if let Some(code) = &self.0.code {
            out.field("code", code);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        if let Some(earlier) = &self.0.earlier {
            out.field("earlier", earlier);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::panic::Location;
    use std::time::Duration;

    use super::*;
    use crate::report::Holder;

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn an_unclassified_error_is_unknown_and_discards() {
        let error = Error::new(ErrorKind::Lost, "gone");
        assert_eq!((error.outcome(), error.fate()), (Outcome::Unknown, Fate::Discard));
    }

    #[test]
    fn the_source_is_not_repeated_in_the_message() {
        let error = Error::connect("cannot reach db").with_source("connection refused");
        assert_eq!(error.to_string(), "cannot reach db");
        assert_eq!(error.source().expect("a source").to_string(), "connection refused");
    }

    #[test]
    fn a_timeout_says_the_state_and_who_holds_the_oldest() {
        let mut report = Report::new(Phase::Waiting, Duration::from_millis(250));
        report.max_open = Some(8);
        report.in_use = 8;
        report.waiting = 31;
        report.oldest =
            Some(Holder::new(Duration::from_millis(4200), Location::caller(), Some("checkout")));
        let text = Error::acquire_timeout(report).to_string();
        assert!(
            text.starts_with(
                "no connection free within 250ms: 8 of 8 in use, 0 idle, 0 opening, 31 waiting; \
                 oldest held for 4.2s by \"checkout\" at "
            ),
            "{text}"
        );
    }

    #[derive(Debug)]
    struct NoTransfer(Error);

    impl fmt::Display for NoTransfer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no transfer")
        }
    }

    impl StdError for NoTransfer {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    /// A deadlock looked like a wish of the caller's, and was not tried again.
    #[test]
    fn a_reason_that_comes_of_the_database_says_what_that_said() {
        let deadlock = Error::statement("deadlock")
            .with_code(Code::Number(1213))
            .with_outcome(Outcome::RolledBack)
            .with_cause(Cause::Conflict);
        for error in [Error::aborted(NoTransfer(deadlock.clone())), Error::aborted(deadlock)] {
            assert_eq!(error.kind(), ErrorKind::Aborted);
            assert_eq!((error.outcome(), error.cause()), (Outcome::RolledBack, Cause::Conflict));
            assert_eq!(error.code(), Some(&Code::Number(1213)));
        }
        assert_eq!(Error::aborted("no").cause(), Cause::Caller);
    }

    #[test]
    fn the_errors_of_earlier_attempts_are_kept_and_counted() {
        let dead = Error::lost("connection reset");
        let deadlock = Error::statement("deadlock found").with_code(Code::Number(1213));
        let error = deadlock.clone().with_earlier(vec![dead, deadlock.clone(), deadlock.clone()]);
        assert_eq!(
            error.to_string(),
            "failed after 4 attempts: deadlock found (1213); \
             before that: connection reset; deadlock found (1213), 2 times"
        );
        assert_eq!(error.earlier().len(), 3);
        assert_eq!((error.kind(), error.message()), (ErrorKind::Statement, "deadlock found"));
        assert_eq!(deadlock.clone().with_earlier(Vec::new()).to_string(), "deadlock found (1213)");
        let again = deadlock.with_earlier(vec![error.clone()]);
        assert_eq!(again.earlier().len(), 4, "those of an attempt that was several itself count");
        assert!(again.earlier().iter().all(|error| error.earlier().is_empty()));
        assert_eq!(error.with_earlier(vec![Error::closed()]).earlier().len(), 4);
    }

    #[test]
    fn an_unknown_commit_answers_as_its_cause_does() {
        let error = Error::commit_unknown(Error::lost("reset").with_cause(Cause::Shutdown));
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::CommitUnknown, Outcome::Unknown));
        assert_eq!((error.cause(), error.fate()), (Cause::Shutdown, Fate::Discard));
        assert_eq!(error.source().expect("a source").to_string(), "reset");
    }

    #[test]
    fn a_reason_of_the_application_comes_back_as_it_was() {
        let error =
            Error::aborted(std::num::ParseIntError::clone(&"x".parse::<i32>().unwrap_err()));
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Aborted, Cause::Caller));
        assert!(error.source().expect("a source").is::<std::num::ParseIntError>());
    }
}
