//! Runs statements on a connection, on whatever thread it is called.
//!
//! Decides which statements may run on the caller's thread: those that only
//! read, as long as they stay within a budget. Does not know threads, waiting
//! or futures.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::time::Duration;

use millpond_driver::{Cause, Columns, Error, Outcome, Result, Row, Rows, Runtime, Session, Value};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, ErrorCode, Statement, StatementStatus};

use crate::error::{Around, Fault};
use crate::options::DEFAULT_INLINE_STEPS;
use crate::statement::{Shape, Shapes, Verb};
use crate::{error, value, work};

/// Longer than any tick of a coarse clock, so that no quick statement that
/// happens to straddle one is taken for a slow one.
const SLOW: Duration = Duration::from_millis(11);

/// A connection and what is known of its statements.
pub(crate) struct Engine {
    pub(crate) conn: Connection,
    shapes: Shapes,
    /// Steps of SQLite's machine a caller's thread may be held for; 0: none.
    inline_steps: u32,
    /// The session was asked to refuse writes.
    read_only: bool,
    /// In a transaction that was begun read-only: the changes made before it.
    guard: Cell<Option<u64>>,
}

/// How far several statements have come.
#[derive(Debug, Default)]
struct Progress {
    /// A transaction was open before the one that is next.
    was_open: bool,
    /// What some of them did stays.
    is_kept: bool,
}

/// What a statement left beside its rows.
struct Ran {
    columns: Columns,
    /// Rows changed, if it may have changed any.
    affected: Option<u64>,
    insert_id: Option<u64>,
}

impl Engine {
    pub(crate) fn new(
        conn: Connection,
        capacity: usize,
        inline_steps: u32,
    ) -> rusqlite::Result<Self> {
        conn.set_prepared_statement_cache_capacity(capacity);
        let mut engine = Self {
            conn,
            shapes: Shapes::new(capacity),
            inline_steps,
            read_only: false,
            guard: Cell::new(None),
        };
        engine.hook()?;
        Ok(engine)
    }

    /// Installs the callbacks that inline statements rely on.
    fn hook(&mut self) -> rusqlite::Result<()> {
        // Without a budget it still carries the order to stop into a statement.
        let steps = if self.inline_steps == 0 { DEFAULT_INLINE_STEPS } else { self.inline_steps };
        let steps = i32::try_from(steps).unwrap_or(i32::MAX);
        // Its result is nothing in some versions of rusqlite.
        let _ = self.conn.progress_handler(steps, Some(work::on_progress));
        self.conn.busy_handler(Some(work::on_busy))
    }

    /// Puts back what `PRAGMA busy_timeout` replaces.
    pub(crate) fn after_errand(&mut self) -> rusqlite::Result<()> {
        self.conn.busy_handler(Some(work::on_busy))
    }

    /// Forgets and puts back what a user's closure may have changed. A statement
    /// it left running makes the connection useless.
    pub(crate) fn after_closure(&mut self) -> bool {
        self.shapes.forget();
        self.hook().is_ok() && !self.conn.is_busy()
    }

    pub(crate) fn session(&self) -> Session {
        if self.conn.is_autocommit() { Session::Clean } else { Session::InTransaction }
    }

    /// Runs a statement here if it is one that may and it stays within its
    /// budget. `None`: it must run on a thread that may block.
    ///
    /// Safe inside a transaction too: an interrupted statement that only reads
    /// rolls nothing back.
    pub(crate) fn try_inline(
        &mut self,
        sql: &str,
        params: &[Value],
        runtime: &dyn Runtime,
    ) -> Option<Result<Rows>> {
        if self.inline_steps == 0 || Verb::of(sql) != Verb::Read {
            return None;
        }
        let was_open = !self.conn.is_autocommit();
        match work::inline(|| self.read_inline(sql, params, runtime)) {
            Ok(rows) => rows.map(Ok),
            Err(Fault::Sqlite(error)) if is_interrupt(&error) => {
                self.shapes.weigh(sql, true);
                None
            }
            Err(Fault::Sqlite(error)) if work::is_busy(&error) => None,
            Err(fault) => Some(Err(self.judge(fault, was_open))),
        }
    }

    fn read_inline(
        &mut self,
        sql: &str,
        params: &[Value],
        runtime: &dyn Runtime,
    ) -> Result<Option<Rows>, Fault> {
        // Behind a lock SQLite cannot see that its schema is stale, and calls a new
        // table unknown. So mistakes too are for those who can wait to tell.
        let Ok(mut statement) = self.conn.prepare_cached(sql) else { return Ok(None) };
        let known = self.shapes.find(sql, &statement);
        if !statement.readonly() || known.is_some_and(|shape| shape.heavy) {
            return Ok(None);
        }
        value::bind(&mut statement, params)?;
        // A single step may be long too, as that of `count(*)` over a large table.
        let started = known.is_none_or(Shape::is_due).then(|| runtime.coarse_now());
        let mut rows = Vec::with_capacity(4);
        let columns = match read(&mut statement, known, |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })? {
            Seen::Known(shape) => shape.columns.clone(),
            Seen::New(shape) => self.shapes.learn(sql, shape),
        };
        if let Some(started) = started {
            if runtime.coarse_now().saturating_duration_since(started) > SLOW {
                self.shapes.weigh(sql, true);
            }
        }
        Ok(Some(Rows::new(columns, rows)))
    }

    /// Runs a statement to its end and collects its rows.
    pub(crate) fn query(
        &mut self,
        sql: &str,
        params: &[Value],
        runtime: &dyn Runtime,
    ) -> Result<Rows> {
        let mut rows = Vec::new();
        let ran = self.run(sql, params, runtime, |row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        let mut rows = Rows::new(ran.columns, rows);
        if let Some(affected) = ran.affected {
            rows = rows.with_affected(affected);
        }
        if let Some(id) = ran.insert_id {
            rows = rows.with_last_insert_id(id);
        }
        Ok(rows)
    }

    /// Runs a statement and hands out its rows until `each` breaks.
    pub(crate) fn stream(
        &mut self,
        sql: &str,
        params: &[Value],
        runtime: &dyn Runtime,
        each: impl FnMut(Row) -> ControlFlow<()>,
    ) -> Result<()> {
        self.run(sql, params, runtime, each).map(drop)
    }

    fn run(
        &mut self,
        sql: &str,
        params: &[Value],
        runtime: &dyn Runtime,
        each: impl FnMut(Row) -> ControlFlow<()>,
    ) -> Result<Ran> {
        let was_open = !self.conn.is_autocommit();
        self.run_unjudged(sql, params, runtime, each).map_err(|fault| self.judge(fault, was_open))
    }

    fn run_unjudged(
        &mut self,
        sql: &str,
        params: &[Value],
        runtime: &dyn Runtime,
        each: impl FnMut(Row) -> ControlFlow<()>,
    ) -> Result<Ran, Fault> {
        let verb = Verb::of(sql);
        if verb == Verb::Empty {
            return Err(Fault::Ours(Error::statement("the statement is empty")));
        }
        let before = self.conn.total_changes();
        if !verb.is_cached() {
            let mut statement = self.conn.prepare(sql).map_err(|error| self.several(sql, error))?;
            self.allow(&statement)?;
            value::bind(&mut statement, params)?;
            let columns = match read(&mut statement, None, each)? {
                Seen::Known(shape) => shape.columns.clone(),
                Seen::New(shape) => shape.columns,
            };
            return Ok(self.ran(verb, &statement, columns, before));
        }
        let mut statement =
            self.conn.prepare_cached(sql).map_err(|error| self.several(sql, error))?;
        self.allow(&statement)?;
        value::bind(&mut statement, params)?;
        statement.reset_status(StatementStatus::VmStep);
        let started = runtime.now();
        let known = self.shapes.find(sql, &statement);
        let columns = match read(&mut statement, known, each)? {
            Seen::Known(shape) => shape.columns.clone(),
            Seen::New(shape) => self.shapes.learn(sql, shape),
        };
        let slow = runtime.now().saturating_duration_since(started) > SLOW;
        let steps = statement.get_status(StatementStatus::VmStep);
        self.shapes.weigh(sql, slow || i64::from(steps) > i64::from(self.inline_steps));
        Ok(self.ran(verb, &statement, columns, before))
    }

    /// What keeps a statement from being prepared: if the first of several can be,
    /// that there are several, not what is wrong with the next.
    #[cold]
    fn several(&self, sql: &str, error: rusqlite::Error) -> rusqlite::Error {
        match Batch::new(&self.conn, sql).next() {
            Ok(Some(_)) => rusqlite::Error::MultipleStatement,
            _ => error,
        }
    }

    fn ran(&self, verb: Verb, statement: &Statement<'_>, columns: Columns, before: u64) -> Ran {
        // SQLite's count of changes stays as it was when a statement makes none.
        let changed = self.conn.total_changes() != before;
        let affected = if changed { self.conn.changes() } else { 0 };
        let inserted = verb == Verb::Insert && affected > 0;
        Ran {
            columns,
            affected: (!statement.readonly()).then_some(affected),
            insert_id: if inserted { self.conn.last_insert_rowid().try_into().ok() } else { None },
        }
    }

    /// Runs several statements, whatever rows they give.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<()> {
        let mut progress = Progress::default();
        self.batch_unjudged(sql, &mut progress).map_err(|fault| {
            let error = self.judge(fault, progress.was_open);
            // Of the whole it is not true that it had no effect.
            if progress.is_kept { error.with_outcome(Outcome::Unknown) } else { error }
        })
    }

    fn batch_unjudged(&mut self, sql: &str, progress: &mut Progress) -> Result<(), Fault> {
        let mut batch = Batch::new(&self.conn, sql);
        let mut is_first = true;
        loop {
            progress.was_open = !self.conn.is_autocommit();
            // What ran before this is kept already, by itself or by a commit.
            progress.is_kept |= !is_first && !progress.was_open;
            is_first = false;
            let Some(mut statement) = batch.next()? else { return Ok(()) };
            if work::told_to_stop() {
                return Err(Fault::Ours(error::stopped()));
            }
            self.allow(&statement)?;
            drain(&mut statement)?;
        }
    }

    /// Runs one of the driver's own statements, which have no parameters.
    pub(crate) fn command(&mut self, sql: &str) -> Result<()> {
        let was_open = !self.conn.is_autocommit();
        self.command_unjudged(sql).map_err(|error| self.judge(error.into(), was_open))
    }

    fn command_unjudged(&self, sql: &str) -> rusqlite::Result<()> {
        let mut statement = self.conn.prepare_cached(sql)?;
        drain(&mut statement)
    }

    /// The same on a caller's thread: `None` if it would have to wait.
    pub(crate) fn command_inline(&mut self, sql: &str) -> Option<Result<()>> {
        let was_open = !self.conn.is_autocommit();
        match self.command_unjudged(sql) {
            Err(error) if work::is_busy(&error) => None,
            done => Some(done.map_err(|error| self.judge(error.into(), was_open))),
        }
    }

    /// Commits. Where SQLite is busy the transaction stays open, so the commit
    /// alone is repeated.
    pub(crate) fn commit(&mut self) -> Result<()> {
        let was_open = !self.conn.is_autocommit();
        work::patiently(|| self.command_unjudged("COMMIT")).map_err(|error| {
            match work::is_busy(&error) {
                true => self.judge(error.into(), was_open).with_cause(Cause::LockTimeout),
                false => self.judge(error.into(), was_open),
            }
        })
    }

    /// Whether the transaction that begins refuses statements that write.
    pub(crate) fn guard(&self, reads: bool) {
        self.guard.set(reads.then(|| self.conn.total_changes()));
    }

    fn is_guarded(&self) -> bool {
        if self.conn.is_autocommit() {
            self.guard.set(None);
        }
        self.guard.get().is_some()
    }

    /// Whether a transaction begun read-only lets a statement through.
    fn allow(&self, statement: &Statement<'_>) -> Result<(), Fault> {
        if self.is_guarded() && !statement.readonly() {
            return Err(Fault::Ours(error::read_only_transaction()));
        }
        Ok(())
    }

    /// Whether the open transaction has only read, so that its end is no work.
    pub(crate) fn has_only_read(&self) -> bool {
        self.is_guarded() && self.guard.get() == Some(self.conn.total_changes())
    }

    /// Whether the session takes writes.
    pub(crate) fn is_writable(&self) -> bool {
        !self.read_only && !self.conn.is_readonly("main").unwrap_or(true)
    }

    /// Makes the session refuse writes, or take them again.
    pub(crate) fn set_read_only(&mut self, read_only: bool) -> Result<()> {
        let set = if read_only { "ON" } else { "OFF" };
        self.conn
            .execute_batch(&format!("PRAGMA query_only = {set}"))
            .map_err(|error| self.judge(error.into(), false))?;
        self.read_only = read_only;
        Ok(())
    }

    pub(crate) fn judge(&self, fault: Fault, was_open: bool) -> Error {
        let is_open = !self.conn.is_autocommit();
        fault.judge(Around { was_open, is_open, read_only: self.read_only })
    }
}

/// The shape of a statement that has been stepped.
enum Seen<'a> {
    Known(&'a Shape),
    New(Shape),
}

impl<'a> Seen<'a> {
    fn of(statement: &Statement<'_>, known: Option<&'a Shape>) -> Self {
        match known {
            Some(known) if known.fits(statement) => Self::Known(known),
            _ => Self::New(Shape::of(statement)),
        }
    }

    fn shape(&self) -> &Shape {
        match self {
            Self::Known(shape) => shape,
            Self::New(shape) => shape,
        }
    }
}

/// Steps through a bound statement until `each` breaks.
fn read<'a>(
    statement: &mut Statement<'_>,
    known: Option<&'a Shape>,
    mut each: impl FnMut(Row) -> ControlFlow<()>,
) -> Result<Seen<'a>, Fault> {
    let mut rows = statement.raw_query();
    let Some(mut row) = rows.next()? else {
        drop(rows);
        return Ok(Seen::of(statement, known));
    };
    let seen = Seen::of(row.as_ref(), known);
    let Shape { columns, kinds, .. } = seen.shape();
    loop {
        let mut values = Vec::with_capacity(kinds.len());
        for (index, kind) in kinds.iter().enumerate() {
            values.push(kind.decode(row.get_ref(index)?));
        }
        if each(Row::new(columns.clone(), values)).is_break() {
            break;
        }
        match rows.next()? {
            Some(next) => row = next,
            None => break,
        }
    }
    drop(rows);
    Ok(seen)
}

fn drain(statement: &mut Statement<'_>) -> rusqlite::Result<()> {
    let mut rows = statement.raw_query();
    while rows.next()?.is_some() {}
    Ok(())
}

fn is_interrupt(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
}
