//! What SQLite's errors mean for retry, pool and health.
//!
//! Owns the translation of result codes. Does not know which statement failed:
//! whoever ran it says what the transaction was like before and after.

use std::io;
use std::path::Path;

use millpond_driver::{Cause, Code, Error, Fate, Outcome, Scope, Violation};
use rusqlite::ffi;

// Codes that older systems' headers lack.
const SQLITE_ERROR_RETRY: i32 = ffi::SQLITE_ERROR | 2 << 8;
#[cfg(test)]
const SQLITE_BUSY_TIMEOUT: i32 = ffi::SQLITE_BUSY | 3 << 8;

/// What went wrong around a statement, before it is judged.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite said so.
    Sqlite(rusqlite::Error),
    /// It never reached SQLite, or is ours to say.
    Ours(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// What surrounds a failure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around {
    /// A transaction was open before.
    pub(crate) was_open: bool,
    /// It is open still.
    pub(crate) is_open: bool,
    /// The session refuses writes because it was asked to.
    pub(crate) read_only: bool,
}

impl Fault {
    /// The error a user meets.
    pub(crate) fn judge(self, around: Around) -> Error {
        match self {
            Self::Ours(error) => error,
            Self::Sqlite(error) => judge(error, around),
        }
    }
}

#[cold]
fn judge(error: rusqlite::Error, around: Around) -> Error {
    let Some((code, message)) = code_of(&error) else { return misuse(error) };
    let (cause, scope) = cause_of(code, around);
    // A failure that ends the transaction ends all of it. One that leaves it open
    // undid its own statement only.
    let gone = around.was_open && !around.is_open;
    let outcome = match code & 0xff {
        ffi::SQLITE_IOERR => Outcome::Unknown,
        _ if gone => Outcome::RolledBack,
        _ => Outcome::Rejected,
    };
    let hopeless = around.is_open && scope == Scope::Transaction;
    let fate = match code & 0xff {
        ffi::SQLITE_IOERR | ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_CANTOPEN => {
            Fate::Discard
        }
        // The database must be opened anew to write again.
        ffi::SQLITE_READONLY if code != ffi::SQLITE_READONLY => Fate::Discard,
        _ if hopeless => Fate::NeedsRollback,
        _ => Fate::Reusable,
    };
    Error::statement(message)
        .with_code(Code::Number(code))
        .with_violation(violation(code))
        .with_outcome(outcome)
        .with_fate(fate)
        .with_cause(cause)
        .with_scope(scope)
        .with_source(error)
}

fn violation(code: i32) -> Option<Violation> {
    Some(match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE
        | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
        | ffi::SQLITE_CONSTRAINT_ROWID => Violation::Unique,
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => Violation::ForeignKey,
        ffi::SQLITE_CONSTRAINT_NOTNULL => Violation::NotNull,
        ffi::SQLITE_CONSTRAINT_CHECK => Violation::Check,
        _ => return None,
    })
}

/// Who is at fault, and whether the transaction can go on.
fn cause_of(code: i32, around: Around) -> (Cause, Scope) {
    match code & 0xff {
        // SQLite gives up at once where waiting could only deadlock: a reader that
        // wants to write. Nothing but a new transaction helps.
        ffi::SQLITE_BUSY if around.is_open && code != ffi::SQLITE_BUSY_RECOVERY => {
            (Cause::Conflict, Scope::Transaction)
        }
        ffi::SQLITE_BUSY | ffi::SQLITE_PROTOCOL => (Cause::LockTimeout, Scope::Statement),
        // 6 itself is a conflict of a connection with itself, a mistake.
        ffi::SQLITE_LOCKED if code != ffi::SQLITE_LOCKED => (Cause::LockTimeout, Scope::Statement),
        ffi::SQLITE_READONLY if code == ffi::SQLITE_READONLY_DBMOVED => {
            (Cause::Transport, Scope::Node)
        }
        ffi::SQLITE_READONLY if around.read_only => (Cause::Caller, Scope::Statement),
        ffi::SQLITE_READONLY => (Cause::WrongRole, Scope::Node),
        ffi::SQLITE_ABORT => (Cause::Conflict, Scope::Transaction),
        ffi::SQLITE_INTERRUPT => (Cause::Timeout, Scope::Statement),
        ffi::SQLITE_SCHEMA => (Cause::StaleStatement, Scope::Statement),
        ffi::SQLITE_IOERR | ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_FULL => {
            (Cause::Corrupt, Scope::Node)
        }
        ffi::SQLITE_CANTOPEN => (Cause::Transport, Scope::Node),
        ffi::SQLITE_NOMEM => (Cause::Overload, Scope::Node),
        ffi::SQLITE_PERM | ffi::SQLITE_AUTH => (Cause::Auth, Scope::Statement),
        _ if code == SQLITE_ERROR_RETRY => (Cause::StaleStatement, Scope::Statement),
        _ => (Cause::Caller, Scope::Statement),
    }
}

/// The extended result code and SQLite's message.
fn code_of(error: &rusqlite::Error) -> Option<(i32, String)> {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            let text = message.clone().unwrap_or_else(|| known_text(code));
            Some((code.extended_code, text))
        }
        #[cfg(feature = "bundled")]
        rusqlite::Error::SqlInputError { error, msg, offset, .. } => {
            Some((error.extended_code, format!("{msg} at byte {offset}")))
        }
        _ => None,
    }
}

fn known_text(code: &ffi::Error) -> String {
    ffi::code_to_str(code.extended_code).to_owned()
}

/// What rusqlite itself refuses: always the caller's statement.
fn misuse(error: rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::MultipleStatement => {
            Error::statement("several statements in one query, which runs one; batch runs them all")
        }
        error => Error::statement(error.to_string()).with_source(error),
    }
}

/// A statement that writes, in a transaction or session that must not.
#[cold]
pub(crate) fn read_only_transaction() -> Error {
    Error::statement("this statement may write, and the transaction is read-only")
        .with_code(Code::Number(ffi::SQLITE_READONLY))
}

/// A statement that was told to stop before it did anything.
#[cold]
pub(crate) fn stopped() -> Error {
    Error::statement("interrupted")
        .with_code(Code::Number(ffi::SQLITE_INTERRUPT))
        .with_cause(Cause::Timeout)
}

/// The connection is gone: nothing was sent.
#[cold]
pub(crate) fn gone() -> Error {
    Error::lost("the connection is closed").with_outcome(Outcome::NotSent)
}

/// A database that could not be opened. What somebody must change is permanent,
/// what passes by itself is not.
#[cold]
pub(crate) fn open(error: rusqlite::Error, place: &str, file: Option<&Path>) -> Error {
    let code = code_of(&error).map(|(code, _)| code);
    let primary = code.map_or(ffi::SQLITE_ERROR, |code| code & 0xff);
    let (why, cause) = match primary {
        ffi::SQLITE_NOTADB => ("the file is not a database".to_owned(), Cause::Config),
        ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM | ffi::SQLITE_AUTH => match file.map(why_not) {
            Some(Err(passing)) => (passing, Cause::Transport),
            Some(Ok(Some(why))) => (why, Cause::Config),
            Some(Ok(None)) | None => ("SQLite cannot open it".to_owned(), Cause::Config),
        },
        ffi::SQLITE_CORRUPT => ("the file is damaged".to_owned(), Cause::Corrupt),
        ffi::SQLITE_BUSY | ffi::SQLITE_PROTOCOL => ("it is locked".to_owned(), Cause::LockTimeout),
        ffi::SQLITE_READONLY => ("it cannot be written".to_owned(), Cause::Config),
        _ => {
            (code_of(&error).map_or_else(|| error.to_string(), |(_, text)| text), Cause::Transport)
        }
    };
    let opened = Error::connect(format!("cannot open {place}: {why}")).with_cause(cause);
    let opened = match code {
        Some(code) => opened.with_code(Code::Number(code)),
        None => opened,
    };
    opened.with_source(error)
}

/// Asks the operating system why a file does not open: `Ok` with what somebody
/// must change, if it knows, `Err` with what may pass.
fn why_not(file: &Path) -> Result<Option<String>, String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.exists()) {
        return Ok(Some("its folder does not exist".to_owned()));
    }
    if file.is_dir() {
        return Ok(Some("it is a folder".to_owned()));
    }
    match std::fs::File::open(file) {
        Ok(_) => Ok(None),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Ok(Some("the file does not exist".to_owned())),
            io::ErrorKind::PermissionDenied => Ok(Some("permission denied".to_owned())),
            _ => Err(error.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTSIDE: Around = Around { was_open: false, is_open: false, read_only: false };
    const INSIDE: Around = Around { was_open: true, is_open: true, read_only: false };
    const ENDED: Around = Around { was_open: true, is_open: false, read_only: false };

    fn judged(code: i32, around: Around) -> (Outcome, Fate, Cause, Scope) {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        let error = Fault::Sqlite(error).judge(around);
        assert_eq!(error.code(), Some(&Code::Number(code)));
        (error.outcome(), error.fate(), error.cause(), error.scope())
    }

    #[test]
    fn a_lock_outside_a_transaction_may_be_tried_again() {
        use {Cause::*, Fate::*, Outcome::*, Scope::*};
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_RECOVERY,
            SQLITE_BUSY_TIMEOUT,
            ffi::SQLITE_LOCKED_SHAREDCACHE,
            ffi::SQLITE_PROTOCOL,
        ] {
            assert_eq!(judged(code, OUTSIDE), (Rejected, Reusable, LockTimeout, Statement));
        }
    }

    #[test]
    fn a_lock_inside_a_transaction_is_a_conflict_that_needs_a_new_one() {
        use {Cause::*, Fate::*, Outcome::*, Scope::*};
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_BUSY_SNAPSHOT] {
            assert_eq!(judged(code, INSIDE), (Rejected, NeedsRollback, Conflict, Transaction));
        }
    }

    #[test]
    fn a_statement_that_took_the_transaction_along_says_so() {
        for code in [ffi::SQLITE_INTERRUPT, ffi::SQLITE_FULL, ffi::SQLITE_ABORT_ROLLBACK] {
            let (outcome, fate, ..) = judged(code, ENDED);
            assert_eq!((outcome, fate), (Outcome::RolledBack, Fate::Reusable), "{code}");
        }
        assert_eq!(judged(ffi::SQLITE_INTERRUPT, INSIDE).0, Outcome::Rejected);
    }

    #[test]
    fn a_damaged_file_discards_the_connection_and_tells_of_the_node() {
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_IOERR_READ] {
            let (_, fate, cause, scope) = judged(code, OUTSIDE);
            assert_eq!((fate, cause, scope), (Fate::Discard, Cause::Corrupt, Scope::Node));
        }
        assert_eq!(judged(ffi::SQLITE_IOERR_WRITE, ENDED).0, Outcome::Unknown);
    }

    #[test]
    fn a_moved_file_discards_and_a_read_only_one_is_the_wrong_node() {
        let moved = judged(ffi::SQLITE_READONLY_DBMOVED, OUTSIDE);
        assert_eq!((moved.1, moved.3), (Fate::Discard, Scope::Node));
        let (_, fate, cause, _) = judged(ffi::SQLITE_READONLY, OUTSIDE);
        assert_eq!((fate, cause), (Fate::Reusable, Cause::WrongRole));
        let asked = Around { read_only: true, ..OUTSIDE };
        assert_eq!(judged(ffi::SQLITE_READONLY, asked).2, Cause::Caller);
    }

    #[test]
    fn a_constraint_is_the_callers_and_leaves_the_transaction_usable() {
        let unique = judged(ffi::SQLITE_CONSTRAINT_UNIQUE, INSIDE);
        let expected = (Outcome::Rejected, Fate::Reusable, Cause::Caller, Scope::Statement);
        assert_eq!(unique, expected);
    }

    #[test]
    fn a_changed_schema_is_a_stale_statement() {
        for code in [ffi::SQLITE_SCHEMA, SQLITE_ERROR_RETRY] {
            assert_eq!(judged(code, OUTSIDE).2, Cause::StaleStatement);
        }
    }
}
