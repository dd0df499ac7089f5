//! A database that exists only in memory and does what a test tells it.
//!
//! Owns the [`Fake`] driver: a few dozen lines that show what a driver is, and
//! the template for authors of real ones. How the server misbehaves is in
//! [`script`]; what a pool makes of it is not known here.
//!
//! The server answers each statement with one row that repeats it, and knows
//! four statements: `BEGIN` (or `START TRANSACTION`), `COMMIT`, `ROLLBACK`, and `SET name`, which leaves
//! a session setting behind. A statement whose answer was not awaited leaves
//! that answer in the stream, and **the next statement gets it**: whoever lends
//! such a connection hands somebody else's rows out, and a test sees it.

pub mod script;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::future::{Either, select};
use futures_util::task::AtomicWaker;
use millpond_driver::{
    Cancel, Cause, ConnectContext, Credentials, Driver, Error, Fate, Outcome, Reset, Result, Rows,
    Runtime, Session, Value,
};

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
    Open,
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
        self.alive()?;
        // The oldest answer in the stream, whoever asked for it.
        let answer = self.unread.remove(0);
        self.apply(&answer);
        Ok(answer)
    }

    fn apply(&mut self, statement: &str) {
        match statement {
            "COMMIT" | "ROLLBACK" => self.transaction = None,
            _ if statement == "BEGIN" || statement.starts_with("START TRANSACTION") => {
                self.transaction = Some(Transaction::Open);
            }
            _ => {
                if let Some(name) = statement.strip_prefix("SET ") {
                    self.settings.push(name.to_owned());
                }
            }
        }
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
        conn.alive()?;
        self.server.act(Operation::Ping, &*conn.runtime).perform(&*conn.runtime).await?;
        conn.alive()
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
            (Some(Transaction::Open), _) => Session::InTransaction,
            (Some(Transaction::Failed), _) => Session::FailedTransaction,
            (None, true) => Session::Clean,
        }
    }

    /// Reads what is unread, ends the transaction, and forgets settings if
    /// asked to.
    async fn reset(&self, conn: &mut FakeConnection, to: Reset) -> Result<()> {
        conn.alive()?;
        self.server.act(Operation::Reset, &*conn.runtime).perform(&*conn.runtime).await?;
        conn.alive()?;
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

    async fn close(&self, conn: FakeConnection) {
        // A goodbye that fails still closes.
        let act = self.server.act(Operation::Close, &*conn.runtime);
        let _ = act.perform(&*conn.runtime).await;
        self.server.parted();
    }
}
