//! Opens a database and makes a connection ready.
//!
//! Owns where a database is and what keeps one in memory alive. Blocks: it is
//! called on a thread that may.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use millpond_driver::{Error, Result, Runtime};
use rusqlite::{Connection, OpenFlags};

use crate::error;
use crate::execute::Engine;
use crate::options::{JournalMode, Mode, Named, Options, Synchronous};
use crate::work::{self, Errand, Gate};

/// A database and what its connections share.
pub(crate) struct Database {
    place: Place,
    pub(crate) gate: Arc<Gate>,
    /// Keeps a database in memory from ending with its last connection. Locked
    /// while a connection opens: the journal mode is changed by one at a time.
    anchor: Mutex<Option<Connection>>,
}

enum Place {
    File(PathBuf),
    /// A database in memory: its name among those of this process.
    Memory(String),
}

impl Database {
    pub(crate) fn file(path: PathBuf) -> Self {
        Self::at(if path == Path::new(":memory:") { Place::memory() } else { Place::File(path) })
    }

    pub(crate) fn memory() -> Self {
        Self::at(Place::memory())
    }

    fn at(place: Place) -> Self {
        Self { place, gate: Arc::default(), anchor: Mutex::new(None) }
    }

    pub(crate) fn open(&self, options: &Options, runtime: &Arc<dyn Runtime>) -> Result<Engine> {
        let _errand = work::begin(Errand {
            runtime: Arc::clone(runtime),
            gate: Arc::clone(&self.gate),
            stop: None,
            patience: options.busy_timeout,
        });
        if let (Place::Memory(_), Mode::ReadOnly) = (&self.place, options.mode) {
            return Err(Error::config("mode: a database in memory that nobody writes is empty"));
        }
        let mut anchor = work::lock(&self.anchor);
        if let (Place::Memory(_), None) = (&self.place, &*anchor) {
            *anchor = Some(self.connect(options).map_err(|error| self.refused(error))?);
        }
        let conn = self.connect(options).map_err(|error| self.refused(error))?;
        let engine =
            Engine::new(conn, options.statement_cache, options.inline_steps).and_then(|engine| {
                self.prepare(&engine.conn, options).map(|journal| (engine, journal))
            });
        let (engine, journal) = engine.map_err(|error| self.refused(error))?;
        self.check(&engine.conn, options, &journal)?;
        Ok(engine)
    }

    fn connect(&self, options: &Options) -> rusqlite::Result<Connection> {
        let plain = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        match &self.place {
            Place::File(path) => {
                Connection::open_with_flags(path, plain | mode_flags(options.mode))
            }
            Place::Memory(name) => Connection::open_with_flags(
                format!("file:/{name}?vfs=memdb"),
                plain | OpenFlags::SQLITE_OPEN_URI | mode_flags(Mode::ReadWriteCreate),
            ),
        }
    }

    /// Settles the connection and reads the file for the first time. Tells the
    /// journal mode.
    fn prepare(&self, conn: &Connection, options: &Options) -> rusqlite::Result<String> {
        let foreign_keys = if options.foreign_keys { "ON" } else { "OFF" };
        conn.execute_batch(&format!("PRAGMA foreign_keys = {foreign_keys}"))?;
        let writable = options.mode != Mode::ReadOnly && !conn.is_readonly("main")?;
        let asked = match &self.place {
            Place::File(_) if writable => options.journal_mode.or(Some(JournalMode::Wal)),
            _ => None,
        };
        let journal: String = match asked {
            None => conn.query_row("PRAGMA journal_mode", [], |row| row.get(0))?,
            Some(asked) => {
                let change = format!("PRAGMA journal_mode = {}", asked.name());
                work::patiently(|| conn.query_row(&change, [], |row| row.get(0)))?
            }
        };
        let relaxed = (journal == JournalMode::Wal.name()).then_some(Synchronous::Normal);
        if let Some(synchronous) = options.synchronous.or(relaxed) {
            conn.execute_batch(&format!("PRAGMA synchronous = {}", synchronous.name()))?;
        }
        // Opens the log and loads the schema, so that no caller's thread has to, and
        // finds out whether this is a database.
        work::patiently(|| {
            conn.query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get::<_, i64>(0))
        })?;
        Ok(journal)
    }

    /// Whether the connection is what was asked for: SQLite gives less rather
    /// than an error.
    fn check(&self, conn: &Connection, options: &Options, journal: &str) -> Result<()> {
        let Place::File(_) = &self.place else { return Ok(()) };
        if options.mode == Mode::ReadOnly {
            return Ok(());
        }
        if conn.is_readonly("main").unwrap_or(true) {
            return Err(Error::config(format!(
                "cannot open {self:?} for writing: permission denied; mode=ro opens it for reading"
            )));
        }
        match options.journal_mode {
            Some(asked) if asked.name() != journal => Err(Error::config(format!(
                "journal_mode: {self:?} does not take {:?} and stays with {journal:?}",
                asked.name()
            ))),
            _ => Ok(()),
        }
    }

    fn refused(&self, error: rusqlite::Error) -> Error {
        let file = match &self.place {
            Place::File(path) => Some(&**path),
            Place::Memory(_) => None,
        };
        error::open(error, &format!("{self:?}"), file)
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => path.fmt(f),
            Place::Memory(_) => f.write_str("a database in memory"),
        }
    }
}

impl Place {
    /// A name no other driver of this process has drawn.
    fn memory() -> Self {
        Self::Memory(format!("millpond-{:016x}", RandomState::new().build_hasher().finish()))
    }
}

fn mode_flags(mode: Mode) -> OpenFlags {
    match mode {
        Mode::ReadOnly => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Mode::ReadWrite => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Mode::ReadWriteCreate => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    }
}
