//! The contract between a connection pool, a database and an async runtime.
//!
//! This crate owns the words the three sides share: [`Driver`], [`Runtime`],
//! [`Error`], [`Value`] and [`Row`]. It knows no database, no runtime and no
//! pool; it opens no socket and reads no clock.
//!
//! A database joins by implementing [`Driver`], a runtime by implementing
//! [`Runtime`]. Applications use the `millpond` crate, which re-exports all of
//! this.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod driver;
mod error;
mod row;
mod runtime;
mod value;

pub use driver::{
    AccessMode, Cancel, ConnectContext, Driver, IsolationLevel, NodeStatus, Purpose, Reset, Role,
    ServerInfo, Session, TransactionOptions,
};
pub use error::{
    Cause, Code, Error, ErrorKind, Fate, Holder, Outcome, Phase, Report, Result, Scope,
};
pub use row::{Cells, Column, ColumnIndex, Columns, Row, Rows};
pub use runtime::{BoxFuture, ByteStream, Keepalive, Runtime, SocketOptions, Target};
pub use value::{Date, DateTime, FromValue, Time, Timestamp, Value};
