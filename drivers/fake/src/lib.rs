//! A database that exists only in memory and does what a test tells it.
//!
//! Owns the [`Fake`] driver, whose `impl Driver` is the template for authors of real
//! ones. How the server misbehaves is in
//! [`script`]; what a pool makes of it is not known here.
//!
//! The server answers each statement with one row that repeats it, and knows four
//! beside writes: `BEGIN` (or `START TRANSACTION`), `COMMIT`, `ROLLBACK`, and `SET
//! name`, which leaves a session setting behind. A statement whose answer was not awaited leaves
//! that answer in the stream, and **the next statement gets it**: whoever lends
//! such a connection hands somebody else's rows out, and a test sees it.
//!
//! What begins with `INSERT`, `UPDATE`, `DELETE` or `CREATE` is a write. It moves
//! the end of the server's log on by one, in a transaction with its `COMMIT`, and
//! is refused on a session that is read-only and on a server that takes no
//! writes. Several servers become a cluster by commands, from
//! [`Fake::becomes`] to [`Fake::follow`].

mod node;
pub mod script;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::task::AtomicWaker;
use millpond_driver::{
    Cancel, Cause, ConnectContext, Credentials, Driver, Error, Fate, NodeStatus, Outcome, Position,
    Reset, Result, Role, Rows, Runtime, Scope, Session, Value,
};
use node::Node;

pub use script::{Act, Counts, Faults, Gate};
use script::{Operation, Server};

/// The driver, and the handle by which a test commands the server. Clones
/// share one server.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    server: Arc<Server>,
}

impl Fake {
    /// A server that answers at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the next connects do, one after another; then as
    /// [`always_connect`](Self::always_connect) says.
    pub fn next_connects(&self, acts: impl IntoIterator<Item = Act>) -> &Self {
        self.server.next(Operation::Connect, acts);
        self
    }

    /// What connects do from now on.
    pub fn always_connect(&self, act: Act) -> &Self {
        self.server.always(Operation::Connect, act);
        self
    }

    /// What the next pings do.
    pub fn next_pings(&self, acts: impl IntoIterator<Item = Act>) -> &Self {
        self.server.next(Operation::Ping, acts);
        self
    }

    /// What pings do from now on.
    pub fn always_ping(&self, act: Act) -> &Self {
        self.server.always(Operation::Ping, act);
        self
    }

    /// What the next questions for the status do, in place of a ping, which
    /// they are else.
    pub fn next_status(&self, acts: impl IntoIterator<Item = Act>) -> &Self {
        self.server.next(Operation::Status, acts);
        self
    }

    /// What questions for the status do from now on.
    pub fn always_status(&self, act: Act) -> &Self {
        self.server.always(Operation::Status, act);
        self
    }

    /// What the next statements do.
    pub fn next_queries(&self, acts: impl IntoIterator<Item = Act>) -> &Self {
        self.server.next(Operation::Query, acts);
        self
    }

    /// What statements do from now on.
    pub fn always_query(&self, act: Act) -> &Self {
        self.server.always(Operation::Query, act);
        self
    }

    /// What questions for the position do from now on.
    pub fn always_position(&self, act: Act) -> &Self {
        self.server.always(Operation::Position, act);
        self
    }

    /// What questions whether a position has been reached do from now on,
    /// before the server waits for it.
    pub fn always_reached(&self, act: Act) -> &Self {
        self.server.always(Operation::Reached, act);
        self
    }

    /// What resets do from now on.
    pub fn always_reset(&self, act: Act) -> &Self {
        self.server.always(Operation::Reset, act);
        self
    }

    /// What goodbyes do from now on.
    pub fn always_close(&self, act: Act) -> &Self {
        self.server.always(Operation::Close, act);
        self
    }

    /// Random trouble, drawn from the runtime's random numbers.
    pub fn faults(&self, faults: Faults) -> &Self {
        self.server.set_faults(faults);
        self
    }

    /// The server restarts: every connection is dead, and none knows it before
    /// it is used.
    pub fn restart(&self) -> &Self {
        self.server.restart();
        self
    }

    /// Sessions that cannot tell their state from now on, as with a client
    /// that hides it.
    pub fn unverified(&self) -> &Self {
        self.server.hide_state();
        self
    }

    /// The statements that have reached the server, in order.
    pub fn statements(&self) -> Vec<String> {
        self.server.statements()
    }

    /// The credentials that each connect was given, in order, refused ones
    /// included. All are as good as none to this server.
    pub fn logins(&self) -> Vec<Option<Credentials>> {
        self.server.logins()
    }

    /// What has happened on the server so far.
    pub fn counts(&self) -> Counts {
        self.server.counts()
    }

    fn node(&self) -> &Arc<Node> {
        &self.server.node
    }
}

/// A connection to a [`Fake`] server.
#[derive(Debug)]
pub struct FakeConnection {
    server: Arc<Server>,
    runtime: Arc<dyn Runtime>,
    /// The server's number for it, from 1.
    id: u64,
    /// How often the server had restarted when it was opened.
    born: u64,
    transaction: Option<Transaction>,
    settings: Vec<String>,
    read_only: bool,
    /// The role, as the last answer told it.
    role: Option<Role>,
    /// Statements sent whose answers have not been read.
    unread: Vec<String>,
    /// Shared with cancel handles.
    stop: Arc<Stop>,
}

/// Ends the statement that is awaited.
#[derive(Debug, Default)]
struct Stop {
    told: AtomicBool,
    waiting: AtomicWaker,
}

impl Stop {
    fn tell(&self) {
        self.told.store(true, Ordering::SeqCst);
        self.waiting.wake();
    }

    async fn told(&self) {
        poll_fn(|cx| {
            self.waiting.register(cx.waker());
            if self.told.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Transaction {
    Open { writes: Vec<String> },
    Failed,
}

impl FakeConnection {
    /// The server's number for this connection, from 1.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The settings that `SET` has left on this session.
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    /// Whether the session refuses writes because it was asked to.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Runs a statement past the pool, as an application does with the client
    /// behind a pooled connection.
    ///
    /// # Errors
    ///
    /// As the server is told.
    ///
    /// # Cancellation
    ///
    /// Leaves the answer unread.
    pub async fn native_query(&mut self, sql: &str) -> Result<String> {
        // Known without sending: the client sees that the peer has gone.
        self.alive().map_err(|error| error.with_outcome(Outcome::NotSent))?;
        self.unread.push(sql.to_owned());
        self.server.received(sql);
        // One that came too late for the last statement does not hit this one.
        self.stop.told.store(false, Ordering::SeqCst);
        let act = self.server.act(Operation::Query, &*self.runtime);
        let done = match select(pin!(act.perform(&*self.runtime)), pin!(self.stop.told())).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => Err(Error::statement("cancelled").with_cause(Cause::Timeout)),
        };
        if let Err(error) = done {
            return Err(self.refused(error));
        }
        // The oldest answer in the stream, whoever asked for it.
        let answer = self.unread[0].clone();
        let applied = self.apply(&answer);
        // It may have gone after it did what it was asked, and before it said so.
        self.alive()?;
        self.role = self.server.node.told_role();
        applied.map_err(|error| self.refused(error))?;
        Ok(self.unread.remove(0))
    }

    fn apply(&mut self, statement: &str) -> Result<()> {
        let node = &self.server.node;
        match statement {
            "COMMIT" => {
                if let Some(Transaction::Open { writes }) = self.transaction.take() {
                    if !writes.is_empty() && !node.is_writable() {
                        return Err(not_here().with_outcome(Outcome::RolledBack));
                    }
                    node.wrote(writes);
                }
            }
            "ROLLBACK" => self.transaction = None,
            _ if statement == "BEGIN" || statement.starts_with("START TRANSACTION") => {
                self.transaction = Some(Transaction::Open { writes: Vec::new() });
            }
            _ if is_write(statement) => {
                if self.read_only || !node.is_writable() {
                    return Err(not_here());
                }
                match &mut self.transaction {
                    Some(Transaction::Open { writes }) => writes.push(statement.to_owned()),
                    Some(Transaction::Failed) => {}
                    None => node.wrote(vec![statement.to_owned()]),
                }
            }
            _ => {
                if let Some(name) = statement.strip_prefix("SET ") {
                    self.settings.push(name.to_owned());
                }
            }
        }
        Ok(())
    }

    /// One round trip that is no statement.
    async fn ask(&mut self, operation: Operation) -> Result<()> {
        self.alive()?;
        self.server.act(operation, &*self.runtime).perform(&*self.runtime).await?;
        self.alive()?;
        self.role = self.server.node.told_role();
        Ok(())
    }

    /// The answer is an error, which ends what can be done in a transaction.
    fn refused(&mut self, error: Error) -> Error {
        if error.fate() == Fate::Discard {
            return error;
        }
        self.unread.remove(0);
        if self.transaction.is_none() {
            return error;
        }
        self.transaction = Some(Transaction::Failed);
        error.with_fate(Fate::NeedsRollback)
    }

    fn alive(&self) -> Result<()> {
        if self.server.restarts() == self.born {
            Ok(())
        } else {
            Err(Error::lost("the server closed the connection"))
        }
    }
}

fn is_write(statement: &str) -> bool {
    let word = statement.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    ["INSERT", "UPDATE", "DELETE", "CREATE"].contains(&word)
}

/// Says what real drivers say of a write where none is taken.
fn not_here() -> Error {
    Error::statement("cannot execute in a read-only transaction")
        .with_cause(Cause::WrongRole)
        .with_scope(Scope::Node)
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        self.server.left();
    }
}

impl Driver for Fake {
    type Connection = FakeConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<FakeConnection> {
        let runtime = Arc::clone(cx.runtime());
        let server = Arc::clone(&self.server);
        server.asked_by(cx.credentials());
        let act = server.act(Operation::Connect, &*runtime);
        act.perform(&*runtime).await.map_err(|error| error.with_outcome(Outcome::NotSent))?;
        let (id, born) = server.arrived();
        Ok(FakeConnection {
            role: server.node.told_role(),
            read_only: false,
            server,
            runtime,
            id,
            born,
            transaction: None,
            settings: Vec::new(),
            unread: Vec::new(),
            stop: Arc::default(),
        })
    }

    async fn ping(&self, conn: &mut FakeConnection) -> Result<()> {
        conn.ask(Operation::Ping).await
    }

    async fn query(&self, conn: &mut FakeConnection, sql: &str, _: &[Value]) -> Result<Rows> {
        let answer = conn.native_query(sql).await?;
        Ok(Rows::one("echo", answer).with_affected(1))
    }

    fn name(&self) -> &'static str {
        "fake"
    }

    /// Nanoseconds, and every way of being unclean has its own answer.
    fn session(&self, conn: &FakeConnection) -> Session {
        if self.server.hides_state() {
            return Session::Unverified;
        }
        match (&conn.transaction, conn.unread.is_empty()) {
            (_, false) => Session::Busy,
            (Some(Transaction::Open { .. }), _) => Session::InTransaction,
            (Some(Transaction::Failed), _) => Session::FailedTransaction,
            (None, true) => Session::Clean,
        }
    }

    /// Reads what is unread, ends the transaction, and forgets settings if
    /// asked to.
    async fn reset(&self, conn: &mut FakeConnection, to: Reset) -> Result<()> {
        conn.ask(Operation::Reset).await?;
        conn.unread.clear();
        conn.transaction = None;
        if to == Reset::Session {
            conn.settings.clear();
        }
        Ok(())
    }

    fn cancel(&self, conn: &FakeConnection) -> Option<Cancel> {
        let server = Arc::clone(&self.server);
        let stop = Arc::clone(&conn.stop);
        Some(Cancel::new(async move {
            stop.tell();
            server.cancelled();
            Ok(())
        }))
    }

    async fn status(&self, conn: &mut FakeConnection) -> Result<NodeStatus> {
        conn.ask(Operation::Status).await?;
        Ok(self.server.node.status())
    }

    /// Costs no round trip here.
    async fn set_read_only(&self, conn: &mut FakeConnection, read_only: bool) -> Result<()> {
        conn.alive()?;
        conn.read_only = read_only;
        Ok(())
    }

    fn role(&self, conn: &FakeConnection) -> Option<Role> {
        conn.role
    }

    /// The end of the log, as a number.
    async fn position(&self, conn: &mut FakeConnection) -> Result<Position> {
        conn.ask(Operation::Position).await?;
        Ok(Position::new(self.server.node.position().to_string()))
    }

    async fn reached(
        &self,
        conn: &mut FakeConnection,
        position: &Position,
        limit: Duration,
    ) -> Result<bool> {
        const PAUSE: Duration = Duration::from_millis(1);

        let wanted: u128 = position.as_str().parse().map_err(|_| {
            Error::config(format!("a position of this server is a number, not `{position}`"))
        })?;
        let runtime = Arc::clone(&conn.runtime);
        let end = runtime.now().checked_add(limit);
        conn.ask(Operation::Reached).await?;
        loop {
            if self.server.node.position() >= wanted {
                return Ok(true);
            }
            let now = runtime.now();
            if end.is_some_and(|end| now >= end) {
                return Ok(false);
            }
            let next = now + PAUSE;
            runtime.sleep_until(end.map_or(next, |end| end.min(next))).await;
            conn.alive()?;
        }
    }

    async fn close(&self, conn: FakeConnection) {
        // A goodbye that fails still closes.
        let act = self.server.act(Operation::Close, &*conn.runtime);
        let _ = act.perform(&*conn.runtime).await;
        self.server.parted();
    }
}
