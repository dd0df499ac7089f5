//! SQLite for the millpond connection pool.
//!
//! Owns the driver [`Sqlite`] on [`rusqlite`], which it re-exports. Knows no
//! pool and no runtime: it asks the runtime of the [contract](millpond_driver)
//! for threads that may block, and for nothing else.
//!
//! # Where statements run
//!
//! SQLite is a library, not a server: a statement runs on the thread that calls
//! it. Moving each to a thread that may block costs many times a point read, and
//! running all of them on the caller's thread stops an async runtime whenever
//! one is long or waits. So:
//!
//! - A statement that only reads (`SELECT`, `WITH`, `VALUES`) runs on the
//!   caller's thread, without waiting for locks and within a budget of steps.
//!   Where it would wait, or exceeds its budget, it is run again from the start
//!   on a thread that may block. A statement that was too long last time goes
//!   there at once, until it is quick again.
//! - `BEGIN` runs on the caller's thread if it need not wait, as does the end of
//!   a transaction that was begun read-only.
//! - Everything else, and closures on the [`rusqlite::Connection`], run on a
//!   thread that may block.
//!
//! A dropped future loses nothing: its statement goes on, the connection is busy
//! until it ends, and is as usable as before. Waits for a lock between
//! connections of one driver end when the lock is let go, not at the next poll.
//!
//! # Values
//!
//! | value | stored as | read back by the declared type |
//! | --- | --- | --- |
//! | null, i64, f64, text, bytes | SQLite's own | the storage class, whatever is declared |
//! | bool | integer 0 or 1 | `BOOLEAN`, `BOOL` |
//! | date | text `2024-02-29` | `DATE` |
//! | time | text `13:45:07.250000` | `TIME` |
//! | datetime | text `2024-02-29 13:45:07` | `DATETIME` |
//! | timestamp | the same, in UTC | `TIMESTAMP` |
//! | uuid | 16 bytes | `UUID` |
//! | json | text | `JSON` |
//! | decimal | text | as stored: in a `DECIMAL` or `NUMERIC` column SQLite makes it a float, so keep decimals in `TEXT` |
//! | u64 above `i64::MAX`, NaN, arrays | refused, naming the parameter | |
//!
//! Moments are written as SQLite's functions write them, so they compare as text
//! with `datetime('now')`. On reading, a `DATETIME` or `TIMESTAMP` with `Z` or
//! `+02:00` is a timestamp. What does not fit the declared type, and columns
//! that are expressions, come as they are stored; text that is not UTF-8 comes
//! as bytes. `last_insert_id` is the row id of the last `INSERT`; tables without
//! row ids have none, and leave it as it was.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection;
mod driver;
mod error;
mod execute;
mod open;
mod options;
mod statement;
mod stream;
mod url;
mod value;
mod work;

pub use rusqlite;

pub use connection::SqliteConnection;
pub use driver::Sqlite;
pub use options::{JournalMode, Mode, Synchronous};
