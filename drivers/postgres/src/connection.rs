//! A connection: the client, and what is known of its session.
//!
//! Owns the mark of what may be in flight, and the explanation of what went
//! wrong. Does not know how a connection is opened, nor what is run on it.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use millpond_driver::{Cancel, Error, Fate, Outcome, Result, Role, Runtime, Session};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error;
use crate::link::Link;
use crate::notifications::Notifications;
use crate::place::Asks;
use crate::pooler::Pooler;
use crate::statements::Statements;
use crate::way::{self, Way};

/// A connection to a PostgreSQL server.
///
/// Statements go through the driver, or natively: it dereferences to the
/// [`tokio_postgres::Client`]. Whatever was done natively is judged right when
/// the connection is given back, dropped futures and half-done `COPY`s
/// included. Only a stream of rows that is kept beyond that must be dropped: it
/// holds up what comes after it.
///
/// ```no_run
/// # async fn doc(conn: &mut millpond_postgres::PostgresConnection) -> Result<(), tokio_postgres::Error> {
/// let transaction = conn.client_mut().transaction().await?;
/// let copied = transaction.copy_in::<_, &[u8]>("COPY notes FROM STDIN").await?;
/// # Ok(())
/// # }
/// ```
pub struct PostgresConnection {
    /// Before the client, so that its task is told before it is left alone.
    leash: Leash,
    pub(crate) client: Client,
    pub(crate) statements: Statements,
    /// One of the three below: what may be in flight.
    mark: AtomicU8,
    /// An error has told that the connection is lost.
    doomed: bool,
    pub(crate) read_only: bool,
    /// How much the server has turned out to answer of its place.
    pub(crate) asks: Asks,
    /// Asked for with the first status, or when the session is to refuse writes.
    pub(crate) pooler: Pooler,
    version: Box<str>,
    way: Arc<Way>,
}

/// Everything that was begun through the client has ended.
const SETTLED: u8 = 0;
/// The client was lent out.
const LENT: u8 = 1;
/// A statement of the driver runs, or its future was dropped.
const RUNNING: u8 = 2;

/// What went wrong with a statement.
pub(crate) enum Fault {
    Client(tokio_postgres::Error),
    Ours(Error),
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Client(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl PostgresConnection {
    pub(crate) fn new(
        client: Client,
        link: Arc<Link>,
        version: &str,
        way: Way,
        statement_cache: usize,
    ) -> Self {
        Self {
            leash: Leash { link, closing: false },
            client,
            statements: Statements::new(statement_cache),
            mark: AtomicU8::new(SETTLED),
            doomed: false,
            read_only: false,
            asks: Asks::All,
            pooler: Pooler::Unknown,
            version: version.into(),
            way: Arc::new(way),
        }
    }

    /// The client, by name: the pooled connection's own methods hide some of
    /// its.
    pub fn client(&self) -> &Client {
        self
    }

    /// The client, for what takes it whole, such as `transaction()`.
    pub fn client_mut(&mut self) -> &mut Client {
        self
    }

    /// What `NOTIFY` sends to the channels that the connection listens to from
    /// now on, until the connection ends. A stream made earlier ends.
    ///
    /// Up to 1024 notifications wait for the stream; what it listens to is
    /// settings of the session: `LISTEN` before or after, and `UNLISTEN *`
    /// before the connection is given back.
    ///
    /// ```no_run
    /// # use futures_util::StreamExt;
    /// # async fn doc(conn: &mut millpond_postgres::PostgresConnection) -> millpond_driver::Result<()> {
    /// let mut notifications = conn.notifications();
    /// conn.client().batch_execute("LISTEN orders").await.map_err(millpond_postgres::error)?;
    /// while let Some(notification) = notifications.next().await {
    ///     println!("{}", notification?.payload());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn notifications(&mut self) -> Notifications {
        Notifications::of(&self.leash.link)
    }

    /// Whether the server follows another one, as it last told: with the first
    /// statement after a promotion it tells anew. `false` where it never does,
    /// before PostgreSQL 14, and behind a [pooler](crate#poolers), which may repeat
    /// what another server told it.
    pub fn in_hot_standby(&self) -> bool {
        self.is_standby() == Some(true)
    }

    fn is_standby(&self) -> Option<bool> {
        if self.may_be_pooled() { None } else { self.leash.link.is_standby() }
    }

    pub(crate) fn role(&self) -> Option<Role> {
        let standby = self.is_standby()?;
        Some(if standby { Role::Replica } else { Role::Primary })
    }

    /// The number of its process at the server, as the login told it; 0 for none.
    pub(crate) fn process(&self) -> u32 {
        self.leash.link.process()
    }

    /// Whether what the login told is to be taken for a pooler's.
    pub(crate) fn may_be_pooled(&self) -> bool {
        self.pooler.is_likely(self.process())
    }

    /// Takes the number of the process that has answered a statement.
    pub(crate) fn meet(&mut self, process: Option<i32>) {
        // Once is enough: sessions that are shared are never one's own.
        if self.pooler != Pooler::There {
            self.pooler = Pooler::judge(self.process(), process);
        }
    }

    pub(crate) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.way.runtime)
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn session(&self) -> Session {
        let link = &self.leash.link;
        if self.doomed || self.client.is_closed() {
            return Session::Closed;
        }
        if link.owed() > 0 {
            return Session::Busy;
        }
        match self.mark.load(Ordering::Relaxed) {
            SETTLED => {}
            // The mark stays: whoever holds the client may go on with it.
            _ if link.is_quiet() => {}
            RUNNING => return Session::Busy,
            // A request, or the task has not gone to sleep yet after one.
            _ => return Session::Unverified,
        }
        match link.status() {
            _ if link.may_be_cancelled() => Session::Unverified,
            b'I' if link.is_doubtful() => Session::Unverified,
            b'I' => Session::Clean,
            b'T' => Session::InTransaction,
            b'E' => Session::FailedTransaction,
            _ => Session::Unverified,
        }
    }

    /// Waits until nothing is in flight. Stops what does not end by itself: a
    /// request to cancel that came before its statement has had no effect.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        let link = Arc::clone(&self.leash.link);
        let mut alive = link.written().await;
        let mut patience = match *self.mark.get_mut() {
            // Whoever noticed a statement of the driver's has it cancelled.
            RUNNING => Duration::from_millis(20),
            _ => Duration::ZERO,
        };
        while alive && !link.is_quiet() {
            let runtime = &self.way.runtime;
            let pause = runtime.sleep_until(runtime.now() + patience);
            match select(pin!(link.settled()), pause).await {
                Either::Left((settled, _)) => alive = settled,
                Either::Right(_) => {
                    // Undelivered: another follows.
                    let _ = self.cancel().run().await;
                    patience = (patience * 2).max(Duration::from_millis(20));
                }
            }
        }
        if !alive {
            self.doomed = true;
            return Err(link.lost().with_outcome(Outcome::NotSent));
        }
        if link.may_be_cancelled() {
            self.doomed = true;
            return Err(Error::lost("a request to cancel may stop whatever comes next")
                .with_outcome(Outcome::NotSent));
        }
        self.done();
        Ok(())
    }

    /// Proves that answers still belong to their questions, where that is in
    /// doubt: a `COPY` that fails before its data may be answered twice.
    pub(crate) async fn prove(&mut self) -> Result<()> {
        const SQL: &str = "SELECT 'here'";
        if !self.leash.link.is_doubtful() {
            return Ok(());
        }
        let answer = self.run(async |client| client.simple_query(SQL).await).await?;
        let here = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0) == Some("here"),
            _ => false,
        };
        if !answer.iter().any(here) {
            self.doomed = true;
            return Err(Error::lost("an answer belongs to another question"));
        }
        self.leash.link.trust();
        Ok(())
    }

    /// Runs work on the client.
    ///
    /// # Cancellation
    ///
    /// The mark stays, by which [`session`](Self::session) knows.
    pub(crate) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T> {
        let sent = self.begin().await?;
        match work(&self.client).await {
            Ok(done) => {
                self.done();
                Ok(done)
            }
            Err(error) => Err(Box::pin(self.explain(error.into(), sent)).await),
        }
    }

    /// Marks that a statement runs. Gives what the explanation of an error needs.
    pub(crate) async fn begin(&mut self) -> Result<u32> {
        let link = &self.leash.link;
        if self.doomed || self.client.is_closed() {
            self.doomed = true;
            // The client may be closed a moment before its task has told why.
            link.over().await;
            return Err(link.lost().with_outcome(Outcome::NotSent));
        }
        *self.mark.get_mut() = RUNNING;
        Ok(link.sent())
    }

    /// Its answer is here, and with it those of all before it.
    pub(crate) fn done(&mut self) {
        *self.mark.get_mut() = SETTLED;
    }

    /// The error a user meets, once the session is known again.
    #[cold]
    pub(crate) async fn explain(&mut self, fault: Fault, sent: u32) -> Error {
        let link = Arc::clone(&self.leash.link);
        let (mut error, closed) = match fault {
            Fault::Ours(error) => (error, false),
            Fault::Client(native) => {
                let closed = native.is_closed();
                (error::error(native), closed)
            }
        };
        if closed {
            // The task tells why, and then ends.
            link.over().await;
            error = link.lost();
            if link.sent() == sent {
                error = error.with_outcome(Outcome::NotSent);
            }
        }
        match error.fate() {
            Fate::Discard => self.doomed = true,
            // The error comes a moment before the server is ready again.
            _ if !link.settled().await => self.doomed = true,
            _ => {
                self.done();
                if link.status() != b'E' {
                    error = error.with_fate(Fate::Reusable);
                }
            }
        }
        error
    }

    /// The first bytes of the tag of the last statement that completed.
    pub(crate) fn tag(&self) -> [u8; 8] {
        self.leash.link.tag()
    }

    /// Whether the last statement was a rollback, whatever it was meant to be.
    pub(crate) fn has_rolled_back(&self) -> bool {
        self.leash.link.tag() == *b"ROLLBACK"
    }

    /// `I`, `T` or `E`.
    pub(crate) fn status(&self) -> u8 {
        self.leash.link.status()
    }

    pub(crate) fn cancel(&self) -> Cancel {
        let (way, link) = (Arc::clone(&self.way), Arc::clone(&self.leash.link));
        Cancel::new(way::cancel(self.client.cancel_token(), way, link))
    }

    /// Says goodbye and waits until that has left.
    pub(crate) async fn close(self) {
        let Self { mut leash, client, .. } = self;
        leash.closing = true;
        drop(client);
        leash.link.over().await;
    }
}

impl Deref for PostgresConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        if self.mark.load(Ordering::Relaxed) == SETTLED {
            self.mark.store(LENT, Ordering::Relaxed);
        }
        &self.client
    }
}

impl DerefMut for PostgresConnection {
    fn deref_mut(&mut self) -> &mut Client {
        *self.mark.get_mut() = LENT.max(*self.mark.get_mut());
        &mut self.client
    }
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnection")
            .field("server", &self.way.target)
            .field("version", &self.version)
            .field("session", &self.session())
            .field("statements", &self.statements.len())
            .finish_non_exhaustive()
    }
}

/// Holds the task of a connection. The client's end has the task say goodbye, but
/// only once all answers are here.
struct Leash {
    link: Arc<Link>,
    /// The goodbye is on its way, and nobody waits for it any more when this is
    /// dropped.
    closing: bool,
}

impl Drop for Leash {
    fn drop(&mut self) {
        // A request in the queue would be sent and waited for as well.
        if self.closing || !self.link.is_quiet() {
            self.link.abandon();
        }
    }
}
