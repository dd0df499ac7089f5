//! What PostgreSQL's errors mean for retry, pool and health.
//!
//! Owns the translation of SQLSTATE codes and of the client's own errors. Does
//! not know the session: whoever ran the statement says whether the transaction
//! is still good.

use std::error::Error as StdError;
use std::io;

use millpond_driver::{Cause, Code, Error, Fate, Outcome, Phase, Scope, Violation};
use tokio_postgres::error::{DbError, ErrorPosition, Severity};

use crate::sniff::NotPostgres;

/// Translates an error of the client, met by native access.
///
/// What the server said of itself is judged by its code; [`source`] then is a
/// [`DbError`], which has the detail, the hint and the name of a violated
/// constraint. The session is not looked at: an error says that the
/// transaction needs a rollback although there may be none.
///
/// ```no_run
/// # async fn doc(conn: &millpond_postgres::PostgresConnection) -> millpond_driver::Result<()> {
/// let rows = conn.client().query("SELECT 1", &[]).await.map_err(millpond_postgres::error)?;
/// # Ok(())
/// # }
/// ```
///
/// [`source`]: std::error::Error::source
#[cold]
pub fn error(native: tokio_postgres::Error) -> Error {
    if native.is_closed() {
        return lost(None, None).with_source(native);
    }
    // The client keeps its kinds to itself, but for their text.
    let text = native.to_string();
    let source = match native.into_source() {
        Some(source) => match source.downcast::<DbError>() {
            Ok(server) => return of_server(*server),
            Err(source) => match source.downcast::<Error>() {
                Ok(ours) => return *ours,
                Err(source) => Some(source),
            },
        },
        None => None,
    };
    let said = with_reason(&text, source.as_deref());
    let error = match text.split(' ').collect::<Vec<_>>()[..] {
        ["error", "serializing" | "encoding", ..] | ["expected", ..] => {
            Error::statement(said).with_outcome(Outcome::NotSent)
        }
        ["error", "deserializing", ..] | ["invalid", "column", ..] | ["query", "returned", ..] => {
            Error::decode(said)
        }
        ["invalid", "configuration", ..] | ["invalid", "connection", ..] => Error::config(said),
        ["authentication", ..] => Error::connect(said).with_cause(Cause::Auth),
        ["error", "performing", ..] => Error::connect(said),
        ["timeout", ..] => Error::timeout(Phase::Connecting, said),
        _ => Error::lost(said),
    };
    match source {
        Some(source) => error.with_source(source),
        None => error,
    }
}

fn with_reason(text: &str, source: Option<&(dyn StdError + Send + Sync)>) -> String {
    match source {
        Some(source) => format!("{text}: {source}"),
        None => text.to_owned(),
    }
}

/// What the server answered to a statement.
#[cold]
pub(crate) fn of_server(server: DbError) -> Error {
    let fatal = is_fatal(&server);
    let code = server.code().code();
    // The text is in the server's language; the routine is not.
    let answers = match (code, server.routine()) {
        ("0A000", Some("RevalidateCachedQuery")) => STALE,
        // Parameters were forgotten, of a statement that was not prepared first.
        ("08P01", Some("exec_bind_message")) if !fatal => MISCOUNTED,
        _ => judge(code, fatal),
    };
    Error::statement(server.message())
        .with_code(state(code))
        .with_violation(violation(code))
        .with_outcome(answers.outcome)
        .with_fate(answers.fate)
        .with_cause(answers.cause)
        .with_scope(answers.scope)
        .with_source(server)
}

/// Whether the server refused a statement before it ran: code that it runs would
/// be named as the place of the error.
#[cold]
pub(crate) fn came_before(error: &Error) -> bool {
    let server = error.source().and_then(|source| source.downcast_ref::<DbError>());
    server.is_some_and(|server| {
        // A mistake in its own text, not in what its code has the server run.
        let is_own = matches!(server.position(), Some(ErrorPosition::Original(_)))
            && server.code().code().starts_with("42");
        server.where_().is_none() && (is_own || error.cause() == Cause::StaleStatement)
    })
}

/// The error of what may have committed a part of its work before.
#[cold]
pub(crate) fn after_commit(error: Error) -> Error {
    match error.outcome() {
        Outcome::Rejected | Outcome::RolledBack => error.with_outcome(Outcome::Unknown),
        _ => error,
    }
}

fn violation(code: &str) -> Option<Violation> {
    Some(match code {
        "23505" => Violation::Unique,
        "23001" | "23503" => Violation::ForeignKey,
        "23502" => Violation::NotNull,
        "23514" => Violation::Check,
        "23P01" => Violation::Exclusion,
        _ => return None,
    })
}

/// What kept a session from being opened.
#[cold]
pub(crate) fn refused(native: tokio_postgres::Error) -> Error {
    if let Some(server) = native.as_db_error() {
        let (message, code) = (server.message().to_owned(), server.code().code().to_owned());
        let error =
            Error::connect(message).with_code(state(&code)).with_cause(cause_of_refusal(&code));
        return match native.into_source() {
            Some(source) => error.with_source(source),
            None => error,
        };
    }
    if native.is_closed() {
        return Error::connect("the server closed the connection during the login");
    }
    if find::<NotPostgres>(&native).is_some() {
        return Error::connect(NotPostgres.to_string()).with_cause(Cause::Config);
    }
    let text = native.to_string();
    let reason = native.source().map(ToString::to_string).unwrap_or_default();
    match &*text {
        "invalid configuration" if reason == "password missing" => {
            Error::connect("the server asks for a password, and none is given")
                .with_cause(Cause::Auth)
        }
        "authentication error" => {
            Error::connect(format!("the login failed: {reason}")).with_cause(Cause::Auth)
        }
        "unexpected message from server" | "error parsing response from server" => {
            Error::connect(NotPostgres.to_string()).with_cause(Cause::Config)
        }
        _ => match native.into_source() {
            Some(source) => {
                Error::connect(format!("the connection broke during the login: {source}"))
                    .with_source(source)
            }
            None => Error::connect(text),
        },
    }
}

/// A failure of the network before the login.
#[cold]
pub(crate) fn unreachable(failure: io::Error) -> Error {
    Error::connect(failure.to_string()).with_source(failure)
}

/// The connection is gone. `end` is why its task ended, `warning` the last thing
/// the server warned of: a server that dies in haste says so only there.
#[cold]
pub(crate) fn lost(end: Option<&Error>, warning: Option<&Error>) -> Error {
    let warning = warning.filter(|warning| class(warning) == Some("57P"));
    // The end as the network saw it says less than the server.
    let reason = end.filter(|end| end.code().is_some()).or(warning).or(end);
    match reason {
        Some(reason) => {
            let error = Error::lost(format!("the connection is gone: {}", reason.message()))
                .with_cause(reason.cause())
                .with_scope(reason.scope())
                .with_source(reason.clone());
            match reason.code() {
                Some(code) => error.with_code(code.clone()),
                None => error,
            }
        }
        None => Error::lost("the server closed the connection"),
    }
}

fn class(error: &Error) -> Option<&str> {
    match error.code() {
        Some(Code::SqlState(state)) => std::str::from_utf8(&state[..3]).ok(),
        _ => None,
    }
}

/// Whether the server closes the connection after this.
fn is_fatal(server: &DbError) -> bool {
    matches!(server.parsed_severity(), Some(Severity::Fatal | Severity::Panic))
}

fn state(code: &str) -> Code {
    Code::SqlState(code.as_bytes().try_into().unwrap_or(*b"XX000"))
}

fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut inner = error.source();
    while let Some(error) = inner {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        inner = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => match held.downcast_ref::<T>() {
                Some(found) => return Some(found),
                None => held.source(),
            },
            None => error.source(),
        };
    }
    None
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answers {
    outcome: Outcome,
    fate: Fate,
    cause: Cause,
    scope: Scope,
}

const fn answers(outcome: Outcome, fate: Fate, cause: Cause, scope: Scope) -> Answers {
    Answers { outcome, fate, cause, scope }
}

/// A prepared statement no longer fits, or is not there.
const STALE: Answers =
    answers(Outcome::Rejected, Fate::NeedsRollback, Cause::StaleStatement, Scope::Statement);

/// A statement was given fewer or more values than it has parameters.
const MISCOUNTED: Answers =
    answers(Outcome::Rejected, Fate::NeedsRollback, Cause::Caller, Scope::Statement);

/// The answers to an error with this code.
fn judge(code: &str, fatal: bool) -> Answers {
    use Fate::{Discard, NeedsRollback};
    use Outcome::{NotSent, Rejected, RolledBack, Unknown};
    use Scope::{Connection, Node, Statement, Transaction};

    let found = match (code, &code[..2.min(code.len())]) {
        // Proxies and foreign servers raise these as well.
        ("08007", _) | ("40003", _) => answers(Unknown, Discard, Cause::Transport, Transaction),
        (_, "08") => answers(Unknown, Discard, Cause::Transport, Connection),
        ("25006", _) => answers(Rejected, NeedsRollback, Cause::WrongRole, Node),
        ("25P02", _) => answers(Rejected, NeedsRollback, Cause::Caller, Transaction),
        ("25P03", _) => answers(RolledBack, Discard, Cause::Timeout, Connection),
        ("26000" | "42P05", _) => STALE,
        ("3D000", _) | (_, "28") if fatal => answers(NotSent, Discard, Cause::Auth, Node),
        ("40002", _) => answers(RolledBack, NeedsRollback, Cause::Caller, Transaction),
        (_, "40") => answers(RolledBack, NeedsRollback, Cause::Conflict, Transaction),
        ("53300", _) if fatal => answers(NotSent, Discard, Cause::Overload, Node),
        (_, "53") => answers(Rejected, NeedsRollback, Cause::Overload, Node),
        ("55P03" | "55006", _) => answers(Rejected, NeedsRollback, Cause::LockTimeout, Statement),
        ("57014", _) => answers(Rejected, NeedsRollback, Cause::Timeout, Statement),
        // One may be a kill; the server stops before it answers, a proxy may not.
        ("57P01", _) => answers(Unknown, Discard, Cause::Shutdown, Connection),
        ("57P02", _) => answers(Unknown, Discard, Cause::Shutdown, Node),
        ("57P03", _) => answers(NotSent, Discard, Cause::Starting, Node),
        ("57P04", _) => answers(Unknown, Discard, Cause::Transport, Connection),
        ("57P05", _) => answers(Unknown, Discard, Cause::Timeout, Connection),
        ("XX001" | "XX002" | "58000" | "58030", _) => {
            answers(RolledBack, NeedsRollback, Cause::Corrupt, Node)
        }
        (_, "XX") => answers(RolledBack, NeedsRollback, Cause::Caller, Transaction),
        ("72000", _) => answers(RolledBack, NeedsRollback, Cause::Conflict, Transaction),
        _ if fatal => answers(Unknown, Discard, Cause::Transport, Connection),
        _ => answers(Rejected, NeedsRollback, Cause::Caller, Statement),
    };
    if fatal { Answers { fate: Discard, ..found } } else { found }
}

/// Why a login was refused.
fn cause_of_refusal(code: &str) -> Cause {
    match (code, &code[..2.min(code.len())]) {
        ("3D000" | "42501", _) | (_, "28") => Cause::Auth,
        (_, "53") => Cause::Overload,
        ("57P03", _) => Cause::Starting,
        (_, "57") => Cause::Shutdown,
        // A parameter of the startup message.
        (_, "22" | "42" | "55") => Cause::Config,
        _ => Cause::Transport,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_table_has_its_answers() {
        use Fate::{Discard, NeedsRollback};
        use Outcome::{Rejected, RolledBack, Unknown};

        for (code, outcome, fate, cause) in [
            ("08000", Unknown, Discard, Cause::Transport),
            ("08003", Unknown, Discard, Cause::Transport),
            ("08006", Unknown, Discard, Cause::Transport),
            ("08007", Unknown, Discard, Cause::Transport),
            ("08P01", Unknown, Discard, Cause::Transport),
            ("23505", Rejected, NeedsRollback, Cause::Caller),
            ("23P01", Rejected, NeedsRollback, Cause::Caller),
            ("25006", Rejected, NeedsRollback, Cause::WrongRole),
            ("25P02", Rejected, NeedsRollback, Cause::Caller),
            ("25P03", RolledBack, Discard, Cause::Timeout),
            ("26000", Rejected, NeedsRollback, Cause::StaleStatement),
            ("42P05", Rejected, NeedsRollback, Cause::StaleStatement),
            ("0A000", Rejected, NeedsRollback, Cause::Caller),
            ("40000", RolledBack, NeedsRollback, Cause::Conflict),
            ("40001", RolledBack, NeedsRollback, Cause::Conflict),
            ("40002", RolledBack, NeedsRollback, Cause::Caller),
            ("40003", Unknown, Discard, Cause::Transport),
            ("40P01", RolledBack, NeedsRollback, Cause::Conflict),
            ("53000", Rejected, NeedsRollback, Cause::Overload),
            ("53100", Rejected, NeedsRollback, Cause::Overload),
            ("53200", Rejected, NeedsRollback, Cause::Overload),
            ("53400", Rejected, NeedsRollback, Cause::Overload),
            ("55006", Rejected, NeedsRollback, Cause::LockTimeout),
            ("55P03", Rejected, NeedsRollback, Cause::LockTimeout),
            ("57014", Rejected, NeedsRollback, Cause::Timeout),
            ("57P02", Unknown, Discard, Cause::Shutdown),
            ("58000", RolledBack, NeedsRollback, Cause::Corrupt),
            ("58030", RolledBack, NeedsRollback, Cause::Corrupt),
            // A file that the statement names.
            ("58P01", Rejected, NeedsRollback, Cause::Caller),
            ("72000", RolledBack, NeedsRollback, Cause::Conflict),
            ("XX000", RolledBack, NeedsRollback, Cause::Caller),
            ("XX001", RolledBack, NeedsRollback, Cause::Corrupt),
            ("XX002", RolledBack, NeedsRollback, Cause::Corrupt),
            ("42601", Rejected, NeedsRollback, Cause::Caller),
        ] {
            let judged = judge(code, false);
            assert_eq!(
                (judged.outcome, judged.fate, judged.cause),
                (outcome, fate, cause),
                "{code}"
            );
        }
    }

    #[test]
    fn a_fatal_error_costs_the_connection_whatever_its_code() {
        use Outcome::{NotSent, RolledBack, Unknown};

        for (code, outcome, cause) in [
            ("25P03", RolledBack, Cause::Timeout),
            ("28000", NotSent, Cause::Auth),
            ("28P01", NotSent, Cause::Auth),
            ("3D000", NotSent, Cause::Auth),
            ("40001", RolledBack, Cause::Conflict),
            ("53300", NotSent, Cause::Overload),
            ("57P01", Unknown, Cause::Shutdown),
            ("57P03", NotSent, Cause::Starting),
            ("57P04", Unknown, Cause::Transport),
            ("57P05", Unknown, Cause::Timeout),
            ("22023", Unknown, Cause::Transport),
        ] {
            let judged = judge(code, true);
            let expected = (outcome, Fate::Discard, cause);
            assert_eq!((judged.outcome, judged.fate, judged.cause), expected, "{code}");
        }
    }

    #[test]
    fn a_refused_login_says_who_must_change_something() {
        for (code, cause) in [
            ("28P01", Cause::Auth),
            ("28000", Cause::Auth),
            ("3D000", Cause::Auth),
            ("42501", Cause::Auth),
            ("53300", Cause::Overload),
            ("57P03", Cause::Starting),
            ("57P01", Cause::Shutdown),
            ("42704", Cause::Config),
            ("22023", Cause::Config),
            ("08P01", Cause::Transport),
        ] {
            assert_eq!(cause_of_refusal(code), cause, "{code}");
        }
    }

    #[test]
    fn the_end_of_a_connection_is_told_by_the_server_rather_than_the_network() {
        let server = |code: &[u8; 5], cause| {
            Error::statement("going down").with_code(Code::SqlState(*code)).with_cause(cause)
        };
        let shutdown = server(b"57P01", Cause::Shutdown);
        let reset = Error::lost("connection reset");
        let chatter = server(b"01000", Cause::Caller);
        for (end, warning, said, cause) in [
            (Some(&shutdown), None, "the connection is gone: going down (57P01)", Cause::Shutdown),
            (
                Some(&reset),
                Some(&shutdown),
                "the connection is gone: going down (57P01)",
                Cause::Shutdown,
            ),
            (
                Some(&reset),
                Some(&chatter),
                "the connection is gone: connection reset",
                Cause::Transport,
            ),
            (None, Some(&chatter), "the server closed the connection", Cause::Transport),
        ] {
            let error = lost(end, warning);
            assert_eq!((error.to_string(), error.cause()), (said.to_owned(), cause));
            assert_eq!((error.outcome(), error.fate()), (Outcome::Unknown, Fate::Discard));
        }
    }
}
