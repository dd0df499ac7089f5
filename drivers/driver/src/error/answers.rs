//! The words in which an error says what happened, and what follows from it.
//!
//! Owns the sets of answers. Does not know the error that carries them.

use std::fmt;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong.
    Config,
    /// A connection could not be opened.
    Connect,
    /// The database refused a statement.
    Statement,
    /// The connection was lost while a statement was on its way.
    Lost,
    /// Whether a transaction was committed is not known.
    CommitUnknown,
    /// The application gave up, for a reason of its own.
    Aborted,
    /// Time ran out in this phase.
    Timeout(Phase),
    /// The pool is closed.
    Closed,
    /// Too many callers wait already.
    Overloaded,
    /// No node of a cluster can be used.
    NoNode,
    /// A value does not convert, or a column is not there.
    Decode,
    /// The driver cannot do this.
    Unsupported,
    /// Driver code panicked.
    Panicked,
}

/// Where time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Waiting for a connection: all were in use.
    Waiting,
    /// Opening a connection.
    Connecting,
    /// Checking an idle connection.
    Checking,
    /// Running a statement.
    Statement,
    /// Waiting for the end of a pause.
    Paused,
}

/// Did the work take effect?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// Nothing left us, or the server refused the connection: repeat freely.
    NotSent,
    /// The server refused this statement; nothing of it took effect.
    Rejected,
    /// The whole transaction is gone.
    RolledBack,
    /// Not known: it may have taken effect.
    Unknown,
}

/// What is left of the connection? Ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Fate {
    /// As good as before.
    Reusable,
    /// Good after a rollback.
    NeedsRollback,
    /// To be closed.
    Discard,
}

/// Who or what is at fault?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The network, or a peer that went away.
    Transport,
    /// The server is shutting down.
    Shutdown,
    /// The server is starting.
    Starting,
    /// The node does not take writes.
    WrongRole,
    /// The server has no room for more connections.
    Overload,
    /// A conflict with another transaction: deadlock, serialization.
    Conflict,
    /// A lock was not free in time.
    LockTimeout,
    /// A time limit of ours or of the server.
    Timeout,
    /// A prepared statement no longer fits.
    StaleStatement,
    /// Credentials, permission, or an unknown database.
    Auth,
    /// Damaged data or a failing disk.
    Corrupt,
    /// A wrong setting: URL, TLS mode, limits.
    Config,
    /// The caller's statement or value.
    Caller,
    /// The pool itself: full, closed, overloaded. Says nothing of the database.
    Pool,
}

impl Cause {
    /// In one word, as metrics name it: `lock_timeout`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transport => "transport",
            Self::Shutdown => "shutdown",
            Self::Starting => "starting",
            Self::WrongRole => "wrong_role",
            Self::Overload => "overload",
            Self::Conflict => "conflict",
            Self::LockTimeout => "lock_timeout",
            Self::Timeout => "timeout",
            Self::StaleStatement => "stale_statement",
            Self::Auth => "auth",
            Self::Corrupt => "corrupt",
            Self::Config => "config",
            Self::Caller => "caller",
            Self::Pool => "pool",
        }
    }
}

/// How far does the fault reach?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// One statement.
    Statement,
    /// The transaction.
    Transaction,
    /// This connection.
    Connection,
    /// The whole server.
    Node,
}

/// A rule of the schema that a statement has broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// Something is there already that may be there once, as a primary key.
    Unique,
    /// It refers to what is not there, or what it takes away is referred to.
    ForeignKey,
    /// A value is missing.
    NotNull,
    /// A condition of the table's does not hold.
    Check,
    /// It overlaps with what is there already.
    Exclusion,
}

/// A database's own error code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// Five characters of the SQL standard.
    SqlState([u8; 5]),
    /// A number.
    Number(i32),
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SqlState(state) => f.write_str(&String::from_utf8_lossy(state)),
            Self::Number(number) => number.fmt(f),
        }
    }
}
