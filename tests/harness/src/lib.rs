//! Real servers for tests, and the ways in which networks and servers fail.
//!
//! Starts PostgreSQL, MariaDB and MySQL in temporary folders on free ports of
//! the loopback interface, stops, kills and freezes them ([`Server`]), has them
//! follow and succeed each other ([`Server::replica`], [`Galera`]), stands between
//! a client and its server ([`Proxy`]), and pretends to be one ([`Impostor`]). Knows neither the pool nor its drivers, uses no async runtime
//! and no database client: it administers the servers with their own programs,
//! so that a test sees no client and no feature but those it asked for.
//!
//! ```no_run
//! use millpond_harness::{Proxy, Server, postgres};
//!
//! // The server that all tests of this process share, started on first use.
//! let url = postgres().url();
//! assert_eq!(postgres().sql("SELECT 1 + 1"), [["2"]]);
//!
//! // One of one's own, to do harm to.
//! let server = Server::postgres().setting("max_connections", "20").start();
//! server.kill();
//! server.start_again();
//!
//! // The same server through a line that can be cut.
//! let proxy = Proxy::to(server.address());
//! let url = server.url_at(proxy.address());
//! proxy.reset();
//!
//! // Two, of which one succeeds the other.
//! let primary = Server::mariadb().replicated().start();
//! let replica = primary.replica();
//! replica.catch_up(&primary);
//! primary.kill();
//! replica.promote();
//! primary.follow(&replica);
//! ```
//!
//! No server outlives the test process, however that ends.
//!
//! Where programs and signals are others than those of Unix this crate is empty.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "threads and the real clock are what is under test")]

mod engine;
mod galera;
mod impostor;
mod listener;
mod mariadb;
mod mysql;
mod pgbouncer;
mod place;
mod port;
mod postgres;
mod proxy;
mod server;
mod supervisor;
mod template;
mod tls;

use std::sync::OnceLock;

pub use galera::Galera;
pub use impostor::Impostor;
pub use port::{Port, closed_port};
pub use proxy::{Cut, Fault, Proxy};
pub use server::{Builder, Server};

/// The PostgreSQL server that the tests of this process share.
///
/// # Panics
///
/// When PostgreSQL is not installed or does not start; the message says what to
/// do.
pub fn postgres() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::postgres().start())
}

/// The MariaDB server that the tests of this process share.
///
/// # Panics
///
/// When MariaDB is not installed or does not start; the message says what to do.
pub fn mariadb() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::mariadb().start())
}

/// The MySQL server that the tests of this process share; none unless the
/// environment variable `MILLPOND_MYSQL` names the folder where
/// `scripts/mysql-server` unpacked it.
///
/// # Panics
///
/// When it is there and does not start; the message says why.
pub fn mysql() -> Option<&'static Server> {
    static SHARED: OnceLock<Option<Server>> = OnceLock::new();
    SHARED.get_or_init(|| Server::mysql().map(Builder::start)).as_ref()
}
