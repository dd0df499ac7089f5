//! MySQL and MariaDB for the millpond connection pool.
//!
//! Owns the driver [`Mysql`] on [`mysql_async`], which it re-exports. Knows no
//! pool.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use millpond_driver::{ConnectContext, Driver, Result, Runtime, Value};
//! # async fn f(runtime: &Arc<dyn Runtime>, soon: std::time::Instant) -> Result<()> {
//! use millpond_mysql::Mysql;
//!
//! let orders = Mysql::from_url("mysql://app:secret@db.example/orders?ssl-mode=required")?;
//! let mut conn = orders.connect(&ConnectContext::new(runtime, soon)).await?;
//! let rows = orders.query(&mut conn, "SELECT price FROM item WHERE id = ?", &[Value::I64(7)]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Runtimes
//!
//! The client's sockets need a tokio reactor. A connection that is opened
//! inside a tokio runtime lives on that runtime's, and dies with it. On
//! async-std and smol it runs mysql_async against one background reactor thread,
//! which watches the sockets of all connections; everything else happens where
//! the future is polled.
//!
//! # Statements
//!
//! Without parameters a statement is sent as text, which is one round trip. With
//! parameters, written `?`, it is prepared, and kept prepared. Of several sets
//! of rows, as a procedure gives them, the first is returned and the others are
//! read and dropped.
//!
//! # What a dropped future costs
//!
//! MySQL's protocol has no way to tell which answer belongs to which question,
//! and the client goes on reading wherever it was. A statement whose future or
//! stream is dropped half-way is therefore stopped with `KILL QUERY` and its
//! connection is closed. See [`MysqlConnection`] for what this means when the
//! client is used directly.
//!
//! # Passwords that change
//!
//! A connect that is given credentials logs in with them, and the next one does
//! not. `KILL QUERY` needs a connection of its own; it logs in with what this
//! driver last logged in with for the same user, or with what the session was
//! opened with if nobody has come since. Where the server takes that no more,
//! nothing is stopped: the connection is closed, and its statement ends when the
//! server notices. The same login clears a session, `Reset::Session`, where the
//! driver names no database or the server is too old to do it otherwise.
//!
//! Tokens that have to be sent as they are, as those of cloud providers, need
//! TLS and `enable_cleartext_plugin` among the client's own options.
//!
//! # In a cluster
//!
//! `status` is one round trip. The position is the number of transactions in the
//! log, by their global identifiers. The nodes of a Galera cluster are peers,
//! which take writes while they are ready and in the primary component; only they
//! have a name for their cluster.
//!
//! A node with a channel that runs, or tries to connect, is a replica, also if it
//! takes writes, as each node of a ring does. One that takes writes is a primary
//! if it has no channel, or none that runs: `STOP SLAVE` and `read_only = 0` make
//! one. So set `read_only` on replicas, or one that is stopped by hand looks like
//! a primary.
//!
//! To see the channels takes a privilege: `REPLICATION CLIENT`, MariaDB's `SLAVE
//! MONITOR`. Without it lag is unknown. Of MariaDB it is known whether a channel
//! replays, which makes a replica; else the role is unknown, as it is always of
//! MySQL, which tells nothing of its channels to others. A node whose role is
//! unknown and that takes writes may be given some: grant the privilege, or set
//! `read_only` on all replicas.
//!
//! Positions are MariaDB's, as `0-1-42`, or MySQL's sets, as
//! `3e11fa47-…:1-5`, for which the server must log (`log_bin`), and MySQL must
//! name transactions (`gtid_mode`). They are those of the node, and so after all
//! that any session has committed there. The server does the waiting. MariaDB does
//! not wait where writes are taken and nobody is followed. In Galera there are
//! none: each of its nodes names transactions by itself.
//!
//! # Values
//!
//! | value | as a parameter | read back from |
//! | --- | --- | --- |
//! | bool | 0 or 1 | `TINYINT(1)`, which is `BOOL`, where it is 0 or 1; `BIT(1)` |
//! | i64, u64 | integer | all integer types, `YEAR`, longer `BIT` |
//! | f64 | double | `DOUBLE`, `FLOAT` (as text the server sends six digits of it) |
//! | decimal | text | `DECIMAL` |
//! | text | text | `CHAR`, `VARCHAR`, `TEXT`, `ENUM`, `SET`; MariaDB's `JSON`, `UUID` and `INET6` |
//! | bytes | bytes | `BINARY`, `VARBINARY`, `BLOB`; text that is not UTF-8 |
//! | date, time, datetime | their own | `DATE`, `TIME`, `DATETIME` |
//! | timestamp | a moment of UTC | `TIMESTAMP`: sessions are in UTC |
//! | uuid | its 16 bytes, for `BINARY(16)` | bytes; for `CHAR(36)` and MariaDB's `UUID` give text |
//! | json | text | MySQL's `JSON` |
//! | array, NaN, years beyond 9999 | refused, naming the parameter | |
//!
//! Zero dates (`0000-00-00`), days that no calendar has, and a `TIME` below zero
//! or of 24 hours and more come as text. A type without a value, such as
//! `GEOMETRY`, is an error when it is read. A decimal is compared with a
//! `DECIMAL` column as the server compares texts with numbers; `CAST(? AS
//! DECIMAL(20, 2))` makes it exact.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod connection;
mod driver;
mod error;
mod gtid;
mod login;
mod options;
mod place;
mod reactor;
mod status;
mod text;
mod url;
mod value;

pub use mysql_async;

pub use connection::MysqlConnection;
pub use error::error;
pub use options::{Mysql, Tls};
