//! How a database is opened and a connection behaves.
//!
//! Owns the options, their defaults and their names. Does not open anything,
//! and does not know where the database is.

use std::time::Duration;

/// Steps of SQLite's machine a statement may run on the caller's thread: some
/// tens of microseconds.
pub(crate) const DEFAULT_INLINE_STEPS: u32 = 1000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) busy_timeout: Duration,
    pub(crate) journal_mode: Option<JournalMode>,
    pub(crate) synchronous: Option<Synchronous>,
    pub(crate) foreign_keys: bool,
    pub(crate) statement_cache: usize,
    pub(crate) inline_steps: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mode: Mode::ReadWriteCreate,
            busy_timeout: Duration::from_secs(5),
            journal_mode: None,
            synchronous: None,
            foreign_keys: true,
            statement_cache: 100,
            inline_steps: DEFAULT_INLINE_STEPS,
        }
    }
}

/// What a connection may do with the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Mode {
    /// Read it (`mode=ro`).
    ReadOnly,
    /// Read and write it, if it exists (`mode=rw`).
    ReadWrite,
    /// Read and write it, and create it first if it does not exist
    /// (`mode=rwc`).
    #[default]
    ReadWriteCreate,
}

/// How SQLite makes transactions atomic: `PRAGMA journal_mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JournalMode {
    /// A write-ahead log: readers and a writer do not wait for each other.
    Wal,
    /// A rollback journal, deleted at each commit.
    Delete,
    /// A rollback journal, truncated at each commit.
    Truncate,
    /// A rollback journal, overwritten at each commit.
    Persist,
    /// A rollback journal in memory: a crash may damage the file.
    Memory,
    /// None: no rollback, and a crash may damage the file.
    Off,
}

/// How often SQLite waits for the disk: `PRAGMA synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// Never.
    Off,
    /// At the critical moments. With a write-ahead log, a power cut may undo
    /// the last transactions and damages nothing.
    Normal,
    /// At each commit.
    Full,
    /// At each commit, and for the folder too.
    Extra,
}

/// A choice with names, as in URLs and in SQLite's own settings.
pub(crate) trait Named: Copy + PartialEq + Sized + 'static {
    const NAMES: &[(&str, Self)];

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, choice)| *choice == self).map_or("", |(name, _)| name)
    }
}

impl Named for Mode {
    const NAMES: &[(&str, Self)] =
        &[("ro", Self::ReadOnly), ("rw", Self::ReadWrite), ("rwc", Self::ReadWriteCreate)];
}

impl Named for JournalMode {
    const NAMES: &[(&str, Self)] = &[
        ("wal", Self::Wal),
        ("delete", Self::Delete),
        ("truncate", Self::Truncate),
        ("persist", Self::Persist),
        ("memory", Self::Memory),
        ("off", Self::Off),
    ];
}

impl Named for Synchronous {
    const NAMES: &[(&str, Self)] = &[
        ("off", Self::Off),
        ("normal", Self::Normal),
        ("full", Self::Full),
        ("extra", Self::Extra),
    ];
}
