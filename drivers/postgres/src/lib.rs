//! PostgreSQL for the millpond connection pool.
//!
//! Owns the driver [`Postgres`] on [`tokio_postgres`], which it re-exports.
//! Knows no pool and no runtime: the [contract](millpond_driver)'s runtime dials,
//! sleeps and spawns, so it works alike on tokio, async-std and smol.
//!
//! ```no_run
//! use millpond_driver::{ConnectContext, Driver, params};
//! use millpond_postgres::Postgres;
//!
//! # async fn doc(cx: ConnectContext<'_>) -> millpond_driver::Result<()> {
//! let driver = Postgres::from_url("postgres://shop:secret@localhost/orders")?;
//! let mut conn = driver.connect(&cx).await?;
//! let rows = driver.query(&mut conn, "SELECT name FROM users WHERE id = $1", &params![7]).await?;
//! let name: String = rows.scalar()?;
//!
//! let rows = conn.client().query("SELECT 1::int4", &[]).await.map_err(millpond_postgres::error)?;
//! let one: i32 = rows[0].get(0);
//! # Ok(())
//! # }
//! ```
//!
//! # Never anybody else's rows
//!
//! The stream under the client is watched: which transaction status the server
//! last told, and how many answers it owes. Together with the task that moves
//! the bytes this tells without a round trip whether anything is in flight,
//! whoever began it, through the driver or past it. A connection that is given
//! back clean costs nothing; another is settled, or its statement stopped.
//!
//! # Round trips
//!
//! A statement is prepared when it is first seen, which takes one more round trip
//! than later, and the most recent 100 are kept. Statements without parameters
//! that give no rows are not prepared: one round trip always, as for `BEGIN`,
//! `COMMIT`, `ROLLBACK` and batches. A statement that no longer fits because a
//! table was altered is prepared and run again, unless in a transaction.
//!
//! # Values
//!
//! | value | as a parameter | from a column of |
//! | --- | --- | --- |
//! | bool | itself | `bool` |
//! | i64 | itself, in range or refused before it is sent | `int2`, `int4`, `int8`, `oid` |
//! | f64 | itself | `float4`, `float8` |
//! | decimal, u64 | text | `numeric`, as decimal |
//! | text | text, of whatever type the statement wants | `text`, `varchar`, `bpchar`, `name`, `xml`, `citext`, enums |
//! | bytes | itself, to `bytea` only | `bytea` |
//! | date, time, datetime, timestamp | text | `date`, `time`, `timestamp`, `timestamptz` |
//! | uuid | itself | `uuid` |
//! | json | text | `json`, `jsonb` |
//! | array | text | arrays of the above; of more dimensions as lists of lists |
//! | null | itself | any; and `void` |
//!
//! "Text" is sent as text and read by the server as it reads a literal, so
//! `"1 day"` is an `interval` where one is wanted. A datetime where a
//! `timestamptz` is wanted is one in the session's time zone. Domains are as the
//! type under them. Other types, such as `interval`, `money`, `inet`, ranges and
//! composites, and infinite dates, have no neutral value: cast them to text in
//! the statement, or read them with the client.
//!
//! `last_insert_id` does not exist: `RETURNING` the column.
//!
//! # URLs
//!
//! `postgres://user:password@host:port,host:port/database?name=value`, with these
//! parameters, named as libpq names them:
//!
//! | name | value |
//! | --- | --- |
//! | `host`, `hostaddr`, `port`, `user`, `password`, `dbname` | as in the URL itself |
//! | `application_name` | default: the program's name |
//! | `options` | `-c name=value` settings of the session |
//! | `sslmode` | `disable`, `prefer`, `require`, `verify-ca`, `verify-full`; see [`TlsMode`] |
//! | `sslrootcert` | a file, or `system`, which asks for `verify-full` |
//! | `sslcert`, `sslkey` | files |
//! | `channel_binding` | `disable`, `prefer`, `require` |
//! | `target_session_attrs` | `any`, `read-write`, `read-only`, `primary`, `standby`, `prefer-standby` |
//! | `connect_timeout` | for each address: `5s`, `250ms`; a bare number is seconds. In `millpond::connect` the pool's, for all of them |
//! | `keepalives`, `keepalives_idle`, `keepalives_interval`, `keepalives_count` | `0` or `1`; durations; a number |
//! | `tcp_user_timeout` | a duration; a bare number is milliseconds |
//! | `statement_cache` | how many prepared statements a connection keeps |
//!
//! Environment variables and password files are not read.
//!
//! # TLS
//!
//! By rustls with the feature `rustls`, by the system's library with
//! `native-tls`; with both, by rustls. Root certificates are the system's unless
//! a file is given. Logins are bound to the server's certificate (SCRAM channel
//! binding) where the server offers it. A Unix socket is never encrypted.
//!
//! # Passwords that change
//!
//! A connect that is given credentials logs in with them, and the next one does
//! not. Sessions go on when the password that they were opened with is good no
//! more, and so does stopping their statements, which needs no login. Where the
//! database is named by default, it is that of the user who logs in.
//!
//! # In a cluster
//!
//! From PostgreSQL 14 on the server tells each session its role, and a promotion
//! with the first answer after it, so `role` costs nothing. `status` is one
//! round trip, for which no privilege is needed. The cluster is the system
//! identifier; where calling `pg_control_system` was forbidden it is unknown. A
//! standby knows its timeline from its primary and tells it those who may read
//! all statistics (`pg_read_all_stats`). It tells how many bytes it has not
//! replayed while it receives from its primary. Whether writes are taken is the
//! server's own setting, of `default_transaction_read_only`, for this user.
//!
//! A server that does not tell of its log, as Aurora does not, is asked for its
//! role alone, and has no positions.
//!
//! A position is a place in the write-ahead log, as `0/16B3748`. A standby is
//! asked whether it has replayed what is before it, after 1 ms at first and every
//! 20 ms in the end; a primary once. Of a timeline it says nothing: a primary that took over may
//! have come past a place before which a write was lost.
//!
//! # Poolers
//!
//! Behind a pooler that gives a client one session of the server after another,
//! such as PgBouncer, a session cannot be made to refuse writes: the setting would
//! stay there for others. The driver knows a pooler by the number of the server's
//! process, which is another than the login told, and then answers that it cannot.
//! What the pooler told at the login is not believed either, as it may be another
//! server's: `role` is unknown, and `target_session_attrs` takes a round trip. The
//! `status` is the server's, of whichever session answers. A pooler that gives a
//! client one session for good cannot be told from others, and is taken for one.
//!
//! # Limits
//!
//! - Logins by password (SCRAM, MD5, plain) and by certificate; none by Kerberos.
//! - `prefer` does not fall back to an unencrypted connection when the handshake
//!   or the server's rules refuse an encrypted one.
//! - `COPY` with the client's data goes through the client: `copy_in`, `copy_out`.
//! - A stream of rows that was made natively and is kept after its connection was
//!   given back holds up the next borrower until it is dropped.
//! - A statement is known by its text, so text with values written into it is
//!   prepared anew each time: use parameters.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod connection;
mod dial;
mod driver;
mod error;
mod link;
mod notifications;
mod options;
mod place;
mod pooler;
mod query;
mod sniff;
mod statements;
mod stream;
mod task;
mod tls;
mod url;
mod value;
mod way;
mod wire;

pub use tokio_postgres;

pub use connection::PostgresConnection;
pub use driver::Postgres;
pub use error::error;
pub use notifications::Notifications;
pub use options::TargetSession;
pub use tls::TlsMode;
