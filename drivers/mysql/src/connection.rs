//! A connection, and what is known of its state without asking.
//!
//! Owns the marks: a statement in flight, a client that was lent, what the last
//! answer said of the transaction. A connection with a mark is never called
//! clean. Does not know how a statement runs.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use millpond_driver::{Code, Error, Fate, Outcome, Result, Runtime, ServerInfo, Session};
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, Params};

use crate::answer;
use crate::error::{self, Around, Family, Fault};
use crate::reactor::{self, Reactor, Watch};
use crate::text;

/// A connection to a MySQL or MariaDB server.
///
/// Dereferences to the client's own [`mysql_async::Conn`]. Where the names of
/// the two meet, as they do on a pooled connection, [`client`](Self::client)
/// lends the client by name:
///
/// ```no_run
/// # use millpond_mysql::{MysqlConnection, mysql_async};
/// # async fn f(conn: &mut MysqlConnection) -> mysql_async::Result<()> {
/// use mysql_async::prelude::*;
///
/// let ids: Vec<u64> = conn.client().query("SELECT id FROM orders").await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancellation
///
/// The client loses its place when one of its futures is dropped, and hides it
/// when it is used again: its next answers are those of earlier questions. So a
/// statement of the driver's that is dropped costs the connection, and a
/// connection whose client was lent answers a question that nobody else asks
/// before it is trusted again. What a borrower does with a client that has lost
/// its place is not seen until then.
///
/// Dropping the connection closes its socket without a goodbye.
pub struct MysqlConnection {
    client: Option<Conn>,
    reactor: Reactor,
    watch: Watch,
    server: Server,
    /// What it was opened with.
    login: Opts,
    standing: Standing,
    /// Set before anything is sent, cleared when its answer has been read. What
    /// is dropped in between leaves it set, for good.
    in_flight: bool,
    /// The client was lent since it last proved to be in step.
    lent: bool,
    /// The client was lent since the session was set up, and may have undone that.
    was_lent: bool,
    /// Counts what may have changed the database in use.
    epoch: u64,
    /// The connection failed.
    lost: bool,
    /// The session refuses writes because it was asked to.
    pub(crate) read_only: bool,
    /// Whether the server is a node of Galera, once it was asked. It has a
    /// provider from its start or never.
    pub(crate) galera: Option<bool>,
    /// The server knows no variables of global transaction identifiers.
    pub(crate) knows_no_gtids: bool,
    /// Never the same twice on a server, as far as chance allows.
    nonce: (u64, u64),
}

/// Who answers.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) family: Family,
    /// As the server writes it.
    pub(crate) version: Box<str>,
    /// Which it is of those that one address may lead to.
    pub(crate) node: Box<str>,
}

/// What is known of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// What the server said with its last answer.
    Told(StatusFlags),
    /// Open, and only good for a rollback.
    Failed,
    Unknown,
}

impl MysqlConnection {
    pub(crate) fn new(
        client: Conn,
        reactor: Reactor,
        server: Server,
        login: Opts,
        runtime: &Arc<dyn Runtime>,
    ) -> Self {
        let mut conn = Self {
            client: Some(client),
            watch: reactor.watch(runtime),
            reactor,
            server,
            login,
            standing: Standing::Unknown,
            in_flight: false,
            lent: false,
            was_lent: false,
            epoch: 0,
            lost: false,
            read_only: false,
            galera: None,
            knows_no_gtids: false,
            nonce: (runtime.random(), 0),
        };
        conn.listen();
        conn
    }

    /// The client, for what it can do and the driver does not show. The
    /// connection proves that it is in step before the driver or another
    /// borrower uses it again, which costs a round trip. Whatever the client does
    /// to what every session begins with, another borrower has it as it was, which
    /// costs one more where the driver was used in between.
    pub fn client(&mut self) -> &mut Conn {
        self.lent = true;
        self.was_lent = true;
        self.epoch += 1;
        self.client.as_mut().expect(HERE)
    }

    /// Before a statement is sent: as text it may change the database in use.
    pub(crate) fn foresee(&mut self, sql: &str, params: &Params) {
        if matches!(params, Params::Empty) && text::may_change_the_database(sql) {
            self.epoch += 1;
        }
    }

    /// Statements prepared in another run in another database, perhaps.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The client has none that it keeps.
    pub(crate) fn forget_statements(&mut self) {
        self.epoch = 0;
    }

    /// Nobody but the driver has changed what it set up, or a statement by name.
    pub(crate) fn is_set_up(&self) -> bool {
        !self.was_lent
    }

    pub(crate) fn was_set_up(&mut self) {
        self.was_lent = false;
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn login(&self) -> &Opts {
        &self.login
    }

    /// Its client has logged in as somebody else since.
    pub(crate) fn is_somebody_else(&self) -> bool {
        self.opts().user() != self.login.user()
    }

    pub(crate) fn server_info(&self) -> ServerInfo {
        let system = if self.server.family == Family::Mariadb { "mariadb" } else { "mysql" };
        ServerInfo::new(system, self.server.version.to_string())
    }

    /// It failed, or the runtime that its socket lives on has ended.
    fn is_gone(&self) -> bool {
        self.lost || self.watch.has_ended()
    }

    pub(crate) fn session(&self) -> Session {
        if self.is_gone() {
            return Session::Closed;
        }
        if self.in_flight || self.is_disconnected() {
            return Session::Busy;
        }
        match self.standing {
            _ if self.lent => Session::Unverified,
            Standing::Told(flags) if flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS) => {
                Session::InTransaction
            }
            // The next statement begins a transaction that nobody asked for.
            Standing::Told(flags) if !flags.contains(StatusFlags::SERVER_STATUS_AUTOCOMMIT) => {
                Session::Unverified
            }
            Standing::Told(_) if self.was_lent => Session::Unverified,
            Standing::Told(_) => Session::Clean,
            Standing::Failed => Session::FailedTransaction,
            Standing::Unknown => Session::Unverified,
        }
    }

    /// Takes the connection for one call: marks it, and lends what the call
    /// works with. [`finish`](Self::finish) takes the mark away.
    pub(crate) fn start(&mut self) -> Result<(&Reactor, &mut Conn)> {
        if self.is_gone() {
            return Err(error::closed());
        }
        let client = self.client.as_mut().expect(HERE);
        if self.in_flight || client.is_disconnected() {
            return Err(error::abandoned());
        }
        self.in_flight = true;
        Ok((&self.reactor, client))
    }

    /// As [`start`](Self::start), once a client that was lent is known to be in
    /// step.
    pub(crate) async fn ready(&mut self) -> Result<(&Reactor, &mut Conn)> {
        if self.lent {
            Box::pin(self.prove("")).await?;
        }
        self.start()
    }

    /// What a call that has begun goes on with.
    pub(crate) fn goes_on(&mut self) -> (&Reactor, &mut Conn) {
        (&self.reactor, self.client.as_mut().expect(HERE))
    }

    /// Ends what `start` began. `sql` is the text of what was run.
    pub(crate) fn finish<T>(&mut self, ended: Result<T, Fault>, sql: &str) -> Result<T> {
        match ended {
            Ok(value) => {
                self.in_flight = false;
                self.listen();
                Ok(value)
            }
            Err(fault) => Err(self.fail(fault, sql)),
        }
    }

    /// As [`finish`](Self::finish), for what a transaction may run: asks what has
    /// become of it, where the error does not say.
    pub(crate) async fn end<T>(&mut self, ended: Result<T, Fault>, sql: &str) -> Result<T> {
        match self.finish(ended, sql) {
            Err(error) if self.may_be_undone(&error) => Err(Box::pin(self.find_out(error)).await),
            ended => ended,
        }
    }

    #[cold]
    fn fail(&mut self, fault: Fault, sql: &str) -> Error {
        self.in_flight = false;
        let (native, answered) = match fault {
            Fault::Ours(error) => return error,
            Fault::Native(native) => (native, false),
            Fault::Later(native) => (native, true),
        };
        // Every error that is not the server's closes the client's stream, and
        // some of the server's are its last words.
        let fatal = native.is_fatal();
        let mut error = error::judge(native, self.around());
        if !self.standing.is_open() && may_have_had_effect(&error, answered, sql) {
            error = error.with_outcome(Outcome::Unknown);
        }
        self.lost = fatal || error.fate() == Fate::Discard;
        self.standing = self.standing.after(&error, sql);
        error
    }

    /// Whether an error may have taken the whole transaction along: by version
    /// and setting, `innodb_rollback_on_timeout` among them, the server rolls
    /// back the statement or all of it, and does not say which. A deadlock takes
    /// it along nearly always, of whatever runs in it.
    fn may_be_undone(&self, error: &Error) -> bool {
        let Some(&Code::Number(number)) = error.code() else { return false };
        let stands = error.outcome() == Outcome::Rejected && error.fate() == Fate::NeedsRollback;
        stands
            && match number {
                1213 => true,
                1020 | 1205 | 1206 => self.standing == Standing::Failed,
                _ => false,
            }
    }

    /// Asks the server in a round trip that changes nothing.
    async fn find_out(&mut self, error: Error) -> Error {
        const SQL: &str = "DO 0";
        let Ok((reactor, client)) = self.start() else { return error };
        let asked = reactor.run(client.query_drop(SQL)).await;
        match self.finish(asked.map_err(Fault::Native), SQL) {
            Err(_) => error.with_fate(Fate::Discard),
            Ok(()) if self.session() == Session::InTransaction => {
                self.standing = Standing::Failed;
                error
            }
            Ok(()) => error.with_outcome(Outcome::RolledBack).with_fate(Fate::Reusable),
        }
    }

    fn around(&self) -> Around {
        let (in_transaction, read_only) = match self.standing {
            Standing::Told(flags) => (
                flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS),
                flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS_READONLY),
            ),
            Standing::Failed | Standing::Unknown => (true, false),
        };
        let read_only = read_only || self.read_only;
        Around { family: self.server.family, in_transaction, read_only }
    }

    /// Takes what the last answer says of the session. It says nothing where a
    /// refusal was expected, which leaves all as it was.
    fn listen(&mut self) {
        if let Some(ok) = self.client.as_ref().expect(HERE).last_ok_packet() {
            self.standing = Standing::Told(ok.status_flags());
        }
    }

    /// Proves that answers belong to questions, by one that nobody else asks,
    /// after the statements in `first`. All of it is one round trip.
    pub(crate) async fn prove(&mut self, first: &str) -> Result<()> {
        self.nonce.1 += 1;
        let nonce = format!("{:016x}{:x}", self.nonce.0, self.nonce.1);
        let sql = format!("{first}SELECT '{nonce}'");
        let (reactor, client) = self.start()?;
        let ended = reactor.run(answer::last_text(client, &sql)).await;
        let echo = self.finish(ended.map_err(Fault::Native), &sql)?;
        if echo.as_deref() != Some(&*nonce) {
            self.lost = true;
            return Err(error::out_of_step());
        }
        self.lent = false;
        Ok(())
    }

    /// The client, for a goodbye: unless something is in flight, which would
    /// have to be read to its end first.
    pub(crate) fn part(mut self) -> Option<(Reactor, Conn)> {
        if matches!(self.session(), Session::Busy | Session::Closed) {
            return None;
        }
        let client = self.client.take()?;
        Some((self.reactor.clone(), client))
    }
}

impl Server {
    pub(crate) fn new(version: &str, node: &str) -> Self {
        let family = if version.contains("MariaDB") { Family::Mariadb } else { Family::Mysql };
        Self { family, version: version.into(), node: node.into() }
    }
}

/// It is taken by [`MysqlConnection::part`] only, with the connection.
const HERE: &str = "a connection has its client until it is closed";

impl Standing {
    /// A transaction is open for certain.
    fn is_open(self) -> bool {
        match self {
            Self::Told(flags) => flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS),
            Self::Failed => true,
            Self::Unknown => false,
        }
    }

    /// What is left to know after an error, which says nothing of the
    /// transaction itself.
    fn after(self, error: &Error, sql: &str) -> Self {
        match self {
            Self::Told(flags)
                if flags.contains(StatusFlags::SERVER_STATUS_AUTOCOMMIT)
                    && text::cannot_begin_or_end(sql) =>
            {
                let open = flags.contains(StatusFlags::SERVER_STATUS_IN_TRANS);
                match (error.outcome(), error.fate()) {
                    (Outcome::Rejected, _) if !open => self,
                    (Outcome::Rejected, Fate::Reusable) => self,
                    (Outcome::Rejected, Fate::NeedsRollback) => Self::Failed,
                    (Outcome::RolledBack, Fate::Reusable) => {
                        Self::Told(flags & StatusFlags::SERVER_STATUS_AUTOCOMMIT)
                    }
                    _ => Self::Unknown,
                }
            }
            _ => Self::Unknown,
        }
    }
}

/// Whether a part of what was run may be committed, though the error says that
/// its statement is undone. `answered`: an answer had come before the error.
fn may_have_had_effect(error: &Error, answered: bool, sql: &str) -> bool {
    /// Of a call itself: its text, its procedure, its arguments, its right.
    const BEFORE_IT_RAN: [i32; 4] = [1064, 1305, 1318, 1370];
    if !matches!(error.outcome(), Outcome::Rejected | Outcome::RolledBack) {
        return false;
    }
    if answered && text::may_be_several(sql) {
        return true;
    }
    match error.code() {
        Some(Code::Number(number)) => !BEFORE_IT_RAN.contains(number) && text::runs_others(sql),
        // The client's own refusal.
        _ => false,
    }
}

impl Deref for MysqlConnection {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.client.as_ref().expect(HERE)
    }
}

impl DerefMut for MysqlConnection {
    fn deref_mut(&mut self) -> &mut Conn {
        self.client()
    }
}

impl Drop for MysqlConnection {
    fn drop(&mut self) {
        let _entered = reactor::nowhere();
        self.client = None;
    }
}

impl fmt::Debug for MysqlConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlConnection")
            .field("id", &self.client.as_ref().map(Conn::id))
            .field("server", &self.server)
            .field("session", &self.session())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Standing = Standing::Told(StatusFlags::SERVER_STATUS_AUTOCOMMIT);

    fn open() -> Standing {
        let flags = StatusFlags::SERVER_STATUS_AUTOCOMMIT | StatusFlags::SERVER_STATUS_IN_TRANS;
        Standing::Told(flags)
    }

    fn refusal(fate: Fate) -> Error {
        Error::statement("no").with_fate(fate)
    }

    #[test]
    fn a_refused_statement_leaves_the_transaction_as_it_was() {
        use Fate::{NeedsRollback, Reusable};

        for sql in ["SELECT 1", "  insert into t values (1);", "update t set n = 1;\n"] {
            assert_eq!(IDLE.after(&refusal(Reusable), sql), IDLE, "{sql}");
            assert_eq!(open().after(&refusal(Reusable), sql), open(), "{sql}");
            assert_eq!(open().after(&refusal(NeedsRollback), sql), Standing::Failed, "{sql}");
        }
        let deadlock = refusal(Reusable).with_outcome(Outcome::RolledBack);
        assert_eq!(open().after(&deadlock, "UPDATE t SET n = 1"), IDLE);
    }

    #[test]
    fn what_might_have_begun_or_ended_one_makes_it_unknown() {
        for sql in
            ["CALL p()", "BEGIN; SELECT x", "SELECT 1; SELECT x", "CREATE TABLE t (n INT)", "", "é"]
        {
            let refusal = refusal(Fate::Reusable);
            assert_eq!(IDLE.after(&refusal, sql), Standing::Unknown, "{sql}");
        }
    }

    #[test]
    fn without_autocommit_a_refused_statement_may_have_begun_one() {
        let told = Standing::Told(StatusFlags::empty());
        let refusal = refusal(Fate::Reusable);
        assert_eq!(told.after(&refusal, "SELECT 1"), Standing::Unknown);
    }
}
