//! The contract between a connection pool, a database and an async runtime.
//!
//! This crate owns the words the three sides share: [`Driver`], [`Runtime`],
//! [`Error`], [`Value`] and [`Row`]. It knows no database, no runtime and no
//! pool; it opens no socket and reads no clock.
//!
//! A database joins by implementing [`Driver`], a runtime by implementing
//! [`Runtime`]. Applications use the `millpond` crate, which re-exports all of
//! this.
//!
//! # Features
//!
//! None is on by default. `serde` turns rows into types that deserialize
//! (`Row::deserialize`); `chrono`, `time`, `uuid`, `rust_decimal` and
//! `serde_json` convert values from and to the types of these crates, as
//! [`FromValue`] lists.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod credentials;
mod driver;
mod error;
mod node;
mod report;
mod row;
mod runtime;
pub mod url;
mod value;

pub use credentials::Credentials;
pub use driver::{
    AccessMode, Cancel, ConnectContext, Driver, IsolationLevel, Purpose, Reset, ServerInfo,
    Session, TransactionOptions,
};
pub use error::{Cause, Code, Error, ErrorKind, Fate, Outcome, Phase, Result, Scope, Violation};
pub use node::{NodeStatus, Position, Role};
pub use report::{Holder, Report};
pub use row::{Cells, Column, ColumnIndex, Columns, Row, Rows};
pub use runtime::{BoxFuture, ByteStream, Keepalive, Runtime, SocketOptions, Target};
#[cfg(feature = "serde_json")]
pub use value::Json;
pub use value::{Date, DateTime, FromValue, Time, Timestamp, Value};
