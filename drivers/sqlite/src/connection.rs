//! A connection, wherever it is: at rest, or away with an errand.
//!
//! Owns the way to a thread that may block and back. A future that is dropped
//! leaves its errand running; the connection comes home by itself. Does not
//! know what an errand does.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_channel::oneshot;
use millpond_driver::{Cancel, Error, Fate, Outcome, Result, Rows, Runtime, Session, Value};

use crate::error;
use crate::execute::Engine;
use crate::work::{self, Errand, Gate, Stop};

/// A connection to a SQLite database.
///
/// Statements go through the driver; [`with`](Self::with) lends the
/// [`rusqlite::Connection`] itself.
///
/// Dropped while a statement runs, it stops that and is closed; dropped at
/// rest, it is closed on a thread that may block, because the last connection
/// of a database writes its log back.
pub struct SqliteConnection {
    place: Place,
    stop: Arc<Stop>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) gate: Arc<Gate>,
    busy_timeout: Duration,
    /// Statements run on callers' threads since the last yield.
    streak: u8,
}

/// After so many statements on a caller's thread its task lets others run: a
/// loop over quick reads would never wait for anything, and on a runtime of one
/// thread nothing else would ever run.
const LONGEST_STREAK: u8 = 8;

enum Place {
    Here(Box<Engine>),
    /// With the errand of this number, which sends it home when it is done.
    Away(u64, oneshot::Receiver<Box<Engine>>),
    Gone,
}

impl SqliteConnection {
    pub(crate) fn new(
        engine: Engine,
        runtime: Arc<dyn Runtime>,
        gate: Arc<Gate>,
        busy_timeout: Duration,
    ) -> Self {
        let stop = Arc::new(Stop::new(engine.conn.get_interrupt_handle(), Arc::clone(&gate)));
        Self { place: Place::Here(Box::new(engine)), stop, runtime, gate, busy_timeout, streak: 0 }
    }

    /// Runs a closure on the [`rusqlite::Connection`], on a thread that may
    /// block.
    ///
    /// The closure may do what rusqlite can: its own transactions, functions,
    /// hooks. Afterwards the connection is asked in which state it was left, so
    /// an open transaction is noticed. Progress and busy handlers are the
    /// driver's, and are put back.
    ///
    /// ```no_run
    /// # async fn doc(conn: &mut millpond_sqlite::SqliteConnection) -> millpond_driver::Result<()> {
    /// let pages: i64 = conn
    ///     .with(|sqlite| sqlite.query_row("PRAGMA page_count", [], |row| row.get(0)))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The closure's, translated; the connection is closed; the closure
    /// panicked, or left a statement running, which close it.
    ///
    /// # Cancellation
    ///
    /// The closure runs to its end, and the connection is busy until then.
    pub async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.on_thread(|engine, _| {
            let was_open = !engine.conn.is_autocommit();
            let done = work(&mut engine.conn);
            if !engine.after_closure() {
                return Err(Error::lost("the closure left a statement running"));
            }
            // A transaction that is open no more may have been committed in there.
            done.map_err(|error| match engine.judge(error.into(), was_open) {
                error if error.outcome() == Outcome::RolledBack => {
                    error.with_outcome(Outcome::Unknown)
                }
                error => error,
            })
        })
        .await
    }

    /// Lets other tasks run, once in a while.
    pub(crate) async fn breathe(&mut self) {
        if self.streak < LONGEST_STREAK {
            self.streak += 1;
            return;
        }
        self.streak = 0;
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Runs a statement here if the connection is here and the statement may.
    pub(crate) fn try_inline(&mut self, sql: &str, params: &[Value]) -> Option<Result<Rows>> {
        let Place::Here(engine) = &mut self.place else { return None };
        let rows = engine.try_inline(sql, params, &*self.runtime);
        self.gate.released();
        rows
    }

    /// Runs a statement that [`try_inline`](Self::try_inline) did not.
    pub(crate) async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows> {
        if let Place::Away(..) = self.place {
            self.settle().await?;
            if let Some(rows) = self.try_inline(sql, params) {
                return rows;
            }
        }
        let (sql, params) = (sql.to_owned(), params.to_vec());
        self.on_thread(move |engine, runtime| engine.query(&sql, &params, runtime)).await
    }

    /// Ends, on this thread, a transaction that has only read.
    pub(crate) fn end_reading(&mut self, sql: &str) -> Result<()> {
        let Place::Here(engine) = &mut self.place else { return Err(error::gone()) };
        let ended = engine.command(sql);
        self.gate.released();
        ended
    }

    /// Closes on a thread that may block.
    pub(crate) async fn close(&mut self) {
        self.interrupt();
        if self.settle().await.is_ok() {
            // An errand whose error discards the connection closes it there.
            if let Ok(answer) = self.send(|_, _| Err::<(), _>(error::gone())) {
                let _ = answer.await;
                let _ = self.settle().await;
            }
        }
    }

    /// The connection itself, once it has come home.
    ///
    /// # Cancellation
    ///
    /// Changes nothing.
    pub(crate) async fn settle(&mut self) -> Result<&mut Engine> {
        if let Place::Away(_, home) = &mut self.place {
            self.place = home.await.map_or(Place::Gone, Place::Here);
        }
        match &mut self.place {
            Place::Here(engine) => Ok(engine),
            _ => Err(error::gone()),
        }
    }

    /// Runs work on a thread that may block and waits for it.
    ///
    /// # Cancellation
    ///
    /// The work goes on; the connection is busy until it is done.
    pub(crate) async fn on_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Engine, &dyn Runtime) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.settle().await?;
        let mut answer = self.send(work)?;
        let home = self.settle().await;
        match answer.try_recv() {
            Ok(Some(answer)) => answer,
            _ => home.and_then(|_| Err(unable())),
        }
    }

    /// Sends a connection that is here away with work.
    pub(crate) fn send<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Engine, &dyn Runtime) -> Result<T> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T>>> {
        let Place::Here(engine) = std::mem::replace(&mut self.place, Place::Gone) else {
            return Err(error::gone());
        };
        let (done, answer) = oneshot::channel();
        let (home, back) = oneshot::channel();
        self.place = Place::Away(self.stop.start(), back);
        let mut trip = Trip {
            engine: Some(engine),
            home: Some(home),
            stop: Arc::clone(&self.stop),
            gate: Arc::clone(&self.gate),
        };
        let runtime = Arc::clone(&self.runtime);
        let patience = self.busy_timeout;
        self.runtime.spawn_blocking(Box::new(move || {
            let answer = trip.run(runtime, patience, work);
            // Before the connection is home, where its owner looks for both.
            let _ = done.send(answer);
            drop(trip);
        }));
        Ok(answer)
    }

    pub(crate) fn session(&self) -> Session {
        match &self.place {
            Place::Here(engine) => engine.session(),
            Place::Away(..) => self.stop.session(),
            Place::Gone => Session::Closed,
        }
    }

    /// Stops the errand that is under way, or, if none is, whichever is under
    /// way when the handle is used.
    pub(crate) fn cancel(&self) -> Cancel {
        let stop = Arc::clone(&self.stop);
        let errand = self.errand();
        Cancel::new(async move {
            stop.stop(errand);
            Ok(())
        })
    }

    /// Stops the errand that is under way.
    pub(crate) fn interrupt(&self) {
        if let Some(errand) = self.errand() {
            self.stop.stop(Some(errand));
        }
    }

    /// What stops the errand that is under way.
    pub(crate) fn stopper(&self) -> (Arc<Stop>, Option<u64>) {
        (Arc::clone(&self.stop), self.errand())
    }

    fn errand(&self) -> Option<u64> {
        match self.place {
            Place::Away(errand, _) => Some(errand),
            _ => None,
        }
    }
}

impl Drop for SqliteConnection {
    fn drop(&mut self) {
        // Nobody can ask for its answer any more.
        self.interrupt();
        if let Place::Here(engine) = std::mem::replace(&mut self.place, Place::Gone) {
            let gate = Arc::clone(&self.gate);
            self.runtime.spawn_blocking(Box::new(move || {
                drop(engine);
                gate.released();
            }));
        }
    }
}

impl fmt::Debug for SqliteConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteConnection").field(&self.session()).finish()
    }
}

/// A connection on its way: comes home when dropped, whatever happened, and is
/// closed if nobody waits for it any more.
struct Trip {
    engine: Option<Box<Engine>>,
    home: Option<oneshot::Sender<Box<Engine>>>,
    stop: Arc<Stop>,
    gate: Arc<Gate>,
}

impl Trip {
    fn run<T>(
        &mut self,
        runtime: Arc<dyn Runtime>,
        patience: Duration,
        work: impl FnOnce(&mut Engine, &dyn Runtime) -> Result<T>,
    ) -> Result<T> {
        let Some(engine) = &mut self.engine else { return Err(error::gone()) };
        let _errand = work::begin(Errand {
            runtime: Arc::clone(&runtime),
            gate: Arc::clone(&self.gate),
            stop: Some(Arc::clone(&self.stop)),
            patience,
        });
        if work::told_to_stop() {
            return Err(error::stopped());
        }
        let answer = catch_unwind(AssertUnwindSafe(|| work(engine, &*runtime)))
            .unwrap_or_else(|panic| Err(Error::panicked(message(&*panic))));
        let lost = matches!(&answer, Err(error) if error.fate() == Fate::Discard);
        if lost || engine.after_errand().is_err() {
            self.engine = None;
        }
        answer
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        let engine = self.engine.take();
        self.stop.finish(engine.as_deref().map_or(Session::Closed, Engine::session));
        self.gate.released();
        if let (Some(engine), Some(home)) = (engine, self.home.take()) {
            // With nobody at home it is closed here, where that may block.
            drop(home.send(engine));
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}

#[cold]
fn unable() -> Error {
    Error::lost("the runtime has ended and runs nothing any more").with_outcome(Outcome::NotSent)
}
