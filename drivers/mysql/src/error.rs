//! What the errors of MySQL and MariaDB mean for retry, pool and health.
//!
//! Owns the translation of numbers and of what the client says. Does not know
//! which statement failed: whoever ran it says what surrounds it.

use std::io;

use millpond_driver::{Cause, Code, Error, Fate, Outcome, Scope, Violation};
use mysql_async::{DriverError, Error as Native, IoError, LocalInfileError, ServerError};

/// What the client's error means, where nothing is known but the error: for
/// applications that use the client itself.
///
/// Errors that only a connect can give count as such. For the rest a
/// transaction is taken to be open, so that a fate is never too good.
pub fn error(native: Native) -> Error {
    let around = Around { in_transaction: true, ..Around::default() };
    match &native {
        Native::Server(server) if Refusal::of(server).is_some() => connect(native, "the server"),
        Native::Driver(
            DriverError::NoClientSslFlagFromServer
            | DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled,
        )
        | Native::Url(_) => connect(native, "the server"),
        Native::Io(IoError::Io(io)) if io.kind() == io::ErrorKind::ConnectionRefused => {
            connect(native, "the server")
        }
        _ => judge(native, around),
    }
}

/// What went wrong around a statement, before it is judged.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The client or the server said so.
    Native(Native),
    /// So did they, once an answer had come: to the statement itself, or to
    /// another before it in the same text.
    Later(Native),
    /// It is ours to say, and left the connection as it was.
    Ours(Error),
}

impl From<Native> for Fault {
    fn from(error: Native) -> Self {
        Self::Native(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// Which of the two families of servers answers. Some numbers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Family {
    #[default]
    Unknown,
    Mysql,
    Mariadb,
}

/// What surrounds a failure.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Around {
    pub(crate) family: Family,
    /// A transaction was open, as far as anybody knows.
    pub(crate) in_transaction: bool,
    /// The session or the transaction refuses writes because it was asked to.
    pub(crate) read_only: bool,
}

/// Why a server turns a login away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refusal(Cause);

impl Refusal {
    /// Of the numbers that come with a login; they mean the same if they come
    /// later, but for what has been sent by then.
    fn of(server: &ServerError) -> Option<Self> {
        Some(Self(match server.code {
            // Too many connections: of the server, of the user.
            1040 | 1203 => Cause::Overload,
            1226 if server.message.contains("_connections") => Cause::Overload,
            // Wrong password or user, host not allowed, locked or expired account.
            1045 | 1129 | 1130 | 1698 | 1820 | 1862 | 3118 | 4151 => Cause::Auth,
            // The server insists on TLS; an authentication the client lacks.
            3159 | 1251 | 1275 => Cause::Config,
            _ => return None,
        }))
    }
}

/// A failure of a statement.
#[cold]
pub(crate) fn judge(native: Native, around: Around) -> Error {
    match native {
        Native::Server(server) => refused(server, around),
        Native::Driver(DriverError::ConnectionClosed | DriverError::PoolDisconnected) => closed(),
        Native::Driver(
            error @ (DriverError::Params(_)
            | DriverError::MixedParams
            | DriverError::StmtParamsMismatch { .. }
            | DriverError::StmtParamsNumberExceedsLimit { .. }
            | DriverError::PacketTooLarge
            | DriverError::LocalInfile(
                LocalInfileError::NoHandler | LocalInfileError::PathIsNotInTheWhiteList(_),
            )),
        ) => Error::statement(error.to_string())
            // The client gives the connection up over its own refusals.
            .with_fate(Fate::Discard)
            .with_source(error),
        Native::Io(IoError::Io(error)) if was_closed(&error) => closed(),
        native => Error::lost("the connection was lost while a statement was on its way")
            .with_source(native),
    }
}

fn refused(server: ServerError, around: Around) -> Error {
    let (outcome, fate, cause, scope) = meaning(&server, around);
    // Nothing to roll back where nothing was begun.
    let fate = match fate {
        Fate::NeedsRollback if !around.in_transaction => Fate::Reusable,
        fate => fate,
    };
    Error::statement(&*server.message)
        .with_code(Code::Number(server.code.into()))
        .with_violation(violation(server.code))
        .with_outcome(outcome)
        .with_fate(fate)
        .with_cause(cause)
        .with_scope(scope)
        .with_source(server)
}

fn violation(code: u16) -> Option<Violation> {
    Some(match code {
        1022 | 1062 | 1169 | 1586 => Violation::Unique,
        1216 | 1217 | 1451 | 1452 => Violation::ForeignKey,
        // No value is given, and there is no default, as well.
        1048 | 1263 | 1364 => Violation::NotNull,
        // MySQL's, MariaDB's.
        3819 | 4025 => Violation::Check,
        _ => return None,
    })
}

fn meaning(server: &ServerError, around: Around) -> (Outcome, Fate, Cause, Scope) {
    use Cause::{
        Auth, Caller, Conflict, Corrupt, LockTimeout, Overload, Shutdown, StaleStatement, Starting,
        Timeout, Transport, WrongRole,
    };
    use Fate::{Discard, NeedsRollback, Reusable};
    use Outcome::{NotSent, Rejected, RolledBack, Unknown};
    use Scope::{Connection, Node, Statement, Transaction};

    let says = |text: &str| server.message.contains(text);
    match server.code {
        // A deadlock: the server has rolled back. Galera also at commit. But
        // MariaDB leaves a transaction open that waited for a lock of GET_LOCK,
        // and a SIGNAL may give any number.
        1213 if around.in_transaction => (Rejected, NeedsRollback, Conflict, Transaction),
        1213 => (RolledBack, Reusable, Conflict, Transaction),
        // Undoes the statement only; the transaction stays open with its writes.
        1205 | 3572 => (Rejected, NeedsRollback, LockTimeout, Transaction),
        // MariaDB: a row has changed since the snapshot.
        1020 => (Rejected, NeedsRollback, Conflict, Transaction),
        1412 | 1689 | 3058 | 3132 => (Rejected, NeedsRollback, Conflict, Transaction),
        1613 | 1614 | 3101 => (RolledBack, NeedsRollback, Conflict, Transaction),
        1206 | 1637 => (Rejected, NeedsRollback, Overload, Transaction),
        // A hook of the group replication failed at commit.
        3100 => (Unknown, Discard, Conflict, Transaction),

        // Other options share this number.
        1290 if says("read-only") || says("read_only") => {
            (Rejected, NeedsRollback, WrongRole, Node)
        }
        1792 if around.read_only => (Rejected, Reusable, Caller, Statement),
        1792 | 1836 => (Rejected, NeedsRollback, WrongRole, Node),
        // Galera: the node is not in the primary component.
        1047 if says("WSREP") => (Rejected, Reusable, Starting, Node),

        1053 => (Unknown, Discard, Shutdown, Node),
        3168 | 3032 => (Rejected, Discard, Shutdown, Node),
        1042 | 1043 | 1152 | 1156 | 1158..=1161 | 1184 => (Unknown, Discard, Transport, Connection),
        // The session was killed.
        1927 | 3169 => (Unknown, Discard, Transport, Connection),
        // MySQL has hung up for idleness before the command came; in MariaDB the
        // number means something else.
        4031 if around.family == Family::Mysql => (NotSent, Discard, Transport, Connection),
        // The server closes after a packet that is too large.
        1153 => (Rejected, Discard, Caller, Statement),

        // KILL QUERY, and limits on the time of a statement.
        1317 | 1969 | 3024 => (Rejected, NeedsRollback, Timeout, Statement),
        1615 => (Rejected, Reusable, StaleStatement, Statement),
        // The client keeps the handle, and would be told the same again.
        1243 => (Rejected, Discard, StaleStatement, Statement),
        1040 | 1203 | 1226 | 1461 => (Rejected, Reusable, Overload, Node),
        1037 | 1038 | 1041 => (Rejected, NeedsRollback, Overload, Node),
        1044 | 1045 | 1049 | 1142 | 1143 | 1227 | 1370 | 1698 => {
            (Rejected, Reusable, Auth, Statement)
        }
        // No room on the disk, a crashed table, a corrupt index.
        1021 | 1034 | 1194 | 1195 | 1712 => (Rejected, NeedsRollback, Corrupt, Node),
        _ => (Rejected, Reusable, Caller, Statement),
    }
}

/// A connection that could not be opened. What somebody must change is
/// permanent, what passes by itself is not. `place` says where.
#[cold]
pub(crate) fn connect(native: Native, place: &str) -> Error {
    let failed = |why: &str, cause| {
        Error::connect(format!("cannot connect to {place}: {why}")).with_cause(cause)
    };
    match native {
        Native::Server(server) => {
            let cause = match Refusal::of(&server) {
                Some(Refusal(cause)) => cause,
                None => match server.code {
                    1044 | 1049 => Cause::Auth,
                    1053 | 3032 | 3168 => Cause::Shutdown,
                    _ => Cause::Transport,
                },
            };
            failed(&server.message, cause)
                .with_code(Code::Number(server.code.into()))
                .with_source(server)
        }
        Native::Driver(DriverError::NoClientSslFlagFromServer) => {
            failed("TLS is asked for, and the server does not offer it", Cause::Config)
        }
        Native::Driver(
            error @ (DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled),
        ) => failed(&error.to_string(), Cause::Config).with_source(error),
        Native::Io(IoError::Io(error)) => {
            let (why, cause) = reason(&error);
            failed(&why, cause).with_source(error)
        }
        Native::Url(error) => failed(&error.to_string(), Cause::Config),
        #[cfg(feature = "rustls")]
        Native::Io(IoError::Tls(error)) => {
            failed(&format!("TLS: {error}"), Cause::Config).with_source(error)
        }
        native => failed(FOREIGN, Cause::Config).with_source(native),
    }
}

const FOREIGN: &str = "what answers there does not speak MySQL's protocol";

/// Why an attempt to connect came to nothing.
fn reason(error: &io::Error) -> (String, Cause) {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};

    #[cfg(feature = "rustls")]
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return (format!("TLS: {tls}"), Cause::Config);
    }
    let text = error.to_string();
    match error.kind() {
        // A packet that is none.
        UnexpectedEof if text.starts_with("can't parse") => (FOREIGN.to_owned(), Cause::Config),
        UnexpectedEof => (CLOSED.to_owned(), Cause::Transport),
        // In the middle of a packet.
        Other if text == "bytes remaining on stream" => (CLOSED.to_owned(), Cause::Transport),
        // Tokio's word for a runtime that ends.
        Other if text.contains("being shutdown") => (text, Cause::Transport),
        Other | InvalidData => (FOREIGN.to_owned(), Cause::Config),
        // A path that is too long for a socket.
        InvalidInput => (text, Cause::Config),
        _ => (text, Cause::Transport),
    }
}

const CLOSED: &str = "the server closed the connection";

/// Whether the client found the connection closed before it sent anything.
fn was_closed(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Native>());
    matches!(inner, Some(Native::Driver(DriverError::ConnectionClosed)))
}

/// The connection is gone: nothing was sent.
#[cold]
pub(crate) fn closed() -> Error {
    Error::lost("the connection is closed").with_outcome(Outcome::NotSent)
}

/// An answer is owed to somebody who no longer waits for it.
#[cold]
pub(crate) fn abandoned() -> Error {
    Error::lost("an earlier statement on this connection was abandoned; it takes no other")
        .with_outcome(Outcome::NotSent)
        .with_cause(Cause::Caller)
}

/// A statement runs on one server, and its address leads to another.
#[cold]
pub(crate) fn elsewhere(place: &str) -> Error {
    Error::connect(format!("the statement was not stopped: {place} leads to another server now"))
        .with_cause(Cause::Transport)
}

/// The connection answers other questions than it is asked.
#[cold]
pub(crate) fn out_of_step() -> Error {
    Error::lost("the connection lost its place: an answer was another statement's")
        .with_outcome(Outcome::NotSent)
        .with_cause(Cause::Caller)
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;

    use Cause::*;
    use Fate::*;
    use Outcome::*;
    use Scope::*;

    use super::*;

    type Meaning = (Outcome, Fate, Cause, Scope);

    fn server(code: u16, message: &str) -> Native {
        let state = "HY000".to_owned();
        Native::Server(ServerError { code, message: message.to_owned(), state })
    }

    fn read(error: &Error) -> Meaning {
        (error.outcome(), error.fate(), error.cause(), error.scope())
    }

    fn judged(code: u16, message: &str, around: Around) -> Meaning {
        let error = judge(server(code, message), around);
        assert_eq!(error.code(), Some(&Code::Number(code.into())));
        assert_eq!(error.message(), message);
        read(&error)
    }

    const INSIDE: Around =
        Around { family: Family::Mariadb, in_transaction: true, read_only: false };
    const OUTSIDE: Around = Around { in_transaction: false, ..INSIDE };

    #[test]
    fn every_number_of_a_statement_means_what_the_table_says() {
        let table: &[(&[u16], &str, Meaning)] = &[
            (&[1213], "", (Rejected, NeedsRollback, Conflict, Transaction)),
            (&[1205, 3572], "", (Rejected, NeedsRollback, LockTimeout, Transaction)),
            (&[1412, 1689, 3058, 3132], "", (Rejected, NeedsRollback, Conflict, Transaction)),
            (&[1613, 1614, 3101], "", (RolledBack, NeedsRollback, Conflict, Transaction)),
            (&[1206, 1637], "", (Rejected, NeedsRollback, Overload, Transaction)),
            (&[3100], "", (Unknown, Discard, Conflict, Transaction)),
            (&[1290], "running with the --read-only option", ROLE),
            (&[1290], "running with the --super-read-only option", ROLE),
            (&[1290], "running with the --secure-file-priv option", CALLER),
            (&[1792, 1836], "", ROLE),
            (&[1047], "WSREP has not yet prepared node", (Rejected, Reusable, Starting, Node)),
            (&[1047], "Unknown command", CALLER),
            (&[1053], "", (Unknown, Discard, Shutdown, Node)),
            (&[3168, 3032], "", (Rejected, Discard, Shutdown, Node)),
            (&[1042, 1043, 1152, 1156, 1158, 1159, 1160, 1161, 1184, 1927, 3169], "", GONE),
            (&[1153], "", (Rejected, Discard, Caller, Statement)),
            (&[1317, 1969, 3024], "", (Rejected, NeedsRollback, Timeout, Statement)),
            (&[1615], "", (Rejected, Reusable, StaleStatement, Statement)),
            (&[1243], "", (Rejected, Discard, StaleStatement, Statement)),
            (&[1226, 1461], "", (Rejected, Reusable, Overload, Node)),
            (&[1044, 1049, 1142, 1227], "", (Rejected, Reusable, Auth, Statement)),
            (&[1021, 1194], "", (Rejected, NeedsRollback, Corrupt, Node)),
            (&[1062, 1048, 1064, 1146, 1452], "", CALLER),
        ];
        for &(codes, message, expected) in table {
            for &code in codes {
                assert_eq!(judged(code, message, INSIDE), expected, "{code} {message}");
            }
        }
    }

    const ROLE: Meaning = (Rejected, NeedsRollback, WrongRole, Node);
    const CALLER: Meaning = (Rejected, Reusable, Caller, Statement);
    const GONE: Meaning = (Unknown, Discard, Transport, Connection);

    #[test]
    fn outside_a_transaction_nothing_needs_a_rollback() {
        for code in [1205, 1317, 1290, 1836, 1412] {
            assert_ne!(judged(code, "--read-only", OUTSIDE).1, NeedsRollback, "{code}");
        }
    }

    #[test]
    fn a_deadlock_proves_a_rollback_only_where_nothing_can_be_left_open() {
        assert_eq!(judged(1213, "", OUTSIDE), (RolledBack, Reusable, Conflict, Transaction));
        assert_eq!(read(&error(server(1213, ""))).1, NeedsRollback);
    }

    #[test]
    fn a_number_that_differs_between_the_families_is_read_by_family() {
        let mysql = Around { family: Family::Mysql, ..INSIDE };
        assert_eq!(judged(4031, "", mysql), (NotSent, Discard, Transport, Connection));
        assert_eq!(judged(4031, "", INSIDE), CALLER);
        assert_eq!(read(&error(server(4031, ""))), CALLER);
    }

    #[test]
    fn a_write_where_none_was_wanted_is_the_callers_fault() {
        assert_eq!(judged(1792, "", Around { read_only: true, ..INSIDE }), CALLER);
    }

    #[test]
    fn a_login_turned_away_was_not_sent_and_says_whether_it_may_be_tried_again() {
        let table = [
            (1040, "Too many connections", Overload),
            (1203, "max_user_connections", Overload),
            (1226, "has exceeded the 'max_user_connections' resource", Overload),
            (1045, "Access denied for user", Auth),
            (1044, "Access denied for user to database", Auth),
            (1049, "Unknown database", Auth),
            (1129, "Host is blocked", Auth),
            (1130, "Host is not allowed", Auth),
            (1053, "Server shutdown in progress", Shutdown),
            (1158, "Got an error reading communication packets", Transport),
            (3159, "Connections using insecure transport are prohibited", Config),
        ];
        for (code, message, cause) in table {
            let error = connect(server(code, message), "db:3306");
            assert_eq!(read(&error), (NotSent, Discard, cause, Node), "{code}");
            assert_eq!(error.message(), format!("cannot connect to db:3306: {message}"));
            assert_eq!(error.is_permanent(), matches!(cause, Auth | Config), "{code}");
        }
        assert_eq!(error(server(1040, "")).outcome(), NotSent);
        assert_eq!(error(server(1045, "")).outcome(), NotSent);
    }

    #[test]
    fn what_the_client_says_of_a_connect_is_told_apart() {
        let io = |kind, text: &str| Native::from(io::Error::new(kind, text.to_owned()));
        let table = [
            (io(io::ErrorKind::ConnectionRefused, "refused"), Transport, "refused"),
            (io(io::ErrorKind::UnexpectedEof, "connection closed"), Transport, CLOSED),
            (io(io::ErrorKind::UnexpectedEof, "tls handshake eof"), Transport, CLOSED),
            (io(io::ErrorKind::Other, "bytes remaining on stream"), Transport, CLOSED),
            (io(io::ErrorKind::UnexpectedEof, "can't parse: too short"), Config, FOREIGN),
            (io(io::ErrorKind::InvalidInput, "path too long"), Config, "path too long"),
            (io(io::ErrorKind::Other, "packets out of sync"), Config, FOREIGN),
            (Native::Driver(DriverError::PacketOutOfOrder), Config, FOREIGN),
            (Native::Driver(DriverError::NoClientSslFlagFromServer), Config, "does not offer"),
        ];
        for (native, cause, text) in table {
            let error = connect(native, "db:3306");
            assert_eq!((error.outcome(), error.cause()), (NotSent, cause), "{error}");
            assert!(error.message().contains(text), "{error}");
        }
        let refused = error(io(io::ErrorKind::ConnectionRefused, "refused"));
        assert_eq!(read(&refused), (NotSent, Discard, Transport, Node));
    }

    #[test]
    fn a_connection_lost_on_the_way_is_unknown_and_one_found_closed_was_not_sent() {
        for kind in [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset] {
            let lost = judge(io::Error::new(kind, CLOSED).into(), INSIDE);
            assert_eq!(read(&lost), GONE);
            assert!(lost.source().is_some());
        }
        let closed = Native::Driver(DriverError::ConnectionClosed);
        let found = io::Error::new(io::ErrorKind::UnexpectedEof, closed);
        assert_eq!(read(&judge(found.into(), INSIDE)), (NotSent, Discard, Transport, Connection));
        for broken in
            [DriverError::PacketOutOfOrder, DriverError::UnexpectedPacket { payload: vec![] }]
        {
            assert_eq!(read(&judge(broken.into(), INSIDE)), GONE);
        }
    }

    #[test]
    fn a_file_that_broke_off_may_have_been_loaded_as_far_as_it_went() {
        let broken = LocalInfileError::ReadError(io::ErrorKind::Other.into());
        assert_eq!(read(&judge(broken.into(), OUTSIDE)), GONE);
        let refused = judge(LocalInfileError::NoHandler.into(), OUTSIDE);
        assert_eq!(read(&refused), (Rejected, Discard, Caller, Statement));
    }

    #[test]
    fn what_the_client_refuses_itself_is_the_callers_and_costs_the_connection() {
        let error = judge(DriverError::MixedParams.into(), OUTSIDE);
        assert_eq!(read(&error), (Rejected, Discard, Caller, Statement));
    }
}
