//! A database connection pool that explains itself, heals itself, and runs on
//! every async runtime.
//!
//! ```
//! use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
//!
//! Sim::new(1).run(async |sim| {
//!     let pool = Pool::builder(Fake::new()).max_open_conns(8).runtime(sim).build().await?;
//!     let mut conn = pool.acquire().label("greeting").await?;
//!     let rows = conn.query("hello", &[]).await?;
//!     assert_eq!(rows.scalar::<String>()?, "hello");
//!     Ok::<_, millpond::Error>(())
//! })?;
//! # Ok::<_, millpond::Error>(())
//! ```
//!
//! Over a real database the runtime is found by itself:
//! `Pool::builder(driver).build().await?` inside a tokio runtime, or anywhere
//! with the feature `smol` or `async-std`.
//!
//! # What to expect
//!
//! - **Fair.** Callers are served strictly in order of arrival.
//! - **One deadline.** An acquire ends within its timeout, whatever it meets.
//! - **Clean.** Nobody gets a connection with somebody else's transaction, rows
//!   or unread answer on it. Futures may be dropped anywhere.
//! - **Explained.** An error says what the pool was doing, what the database
//!   last said, and who holds the connections.
//!
//! # Features
//!
//! None is on by default. Databases: `postgres`, `mysql`, `sqlite`. Runtimes:
//! `tokio`, `async-std`, `smol`. TLS: `rustls`, `native-tls`. Types: `serde`, `serde_json`, `chrono`, `time`, `uuid`,
//! `rust_decimal`. Observation: `tracing`, `metrics`. Tools: `fake` and `testing`, a scripted database and a
//! simulator for tests. Features only add; none changes what others do.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod balance;
mod config;
pub mod drivers;
pub mod health;
pub mod metrics;
#[cfg(any(feature = "metrics", feature = "tracing"))]
pub mod observers;
mod pool;
mod registry;
pub mod retry;
pub mod runtime;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

pub use balance::{Cluster, ClusterConfig, Route};
pub use config::{IdleOrder, PoolConfig};
pub use drivers::{connect, connect_cluster};
#[cfg(feature = "serde_json")]
pub use millpond_driver::Json;
pub use millpond_driver::{
    AccessMode, BoxFuture, Cancel, Cause, Cells, Code, Column, ColumnIndex, Columns,
    ConnectContext, Credentials, Date, DateTime, Driver, Error, ErrorKind, Fate, FromValue, Holder,
    IsolationLevel, NodeStatus, Outcome, Phase, Position, Purpose, Report, Reset, Result, Role,
    Row, Rows, Scope, ServerInfo, Session, Time, Timestamp, TransactionOptions, Value, Violation,
    params,
};
pub use pool::{
    Acquire, Builder, CloseReason, CloseReport, ConnectionInfo, Event, HookConnection, Leak, Lent,
    Observer, Pool, PooledConnection, RetriedTransaction, Snapshot, Transaction, WeakPool,
};
pub use registry::{PoolRegistry, RegistryReport};
pub use retry::Retry;

/// Long-form documents.
pub mod _docs {
    #[doc = include_str!("../feature-matrix.md")]
    pub mod feature_matrix {}
}
