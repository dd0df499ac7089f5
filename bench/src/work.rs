//! What is measured: one work a file.
//!
//! A work runs on any pool and says what one operation of it cost. Knows no
//! pool by name.

pub(crate) mod cancel;
pub(crate) mod crowd;
pub(crate) mod metrics;
pub(crate) mod pair;
pub(crate) mod pick;
pub(crate) mod queue;
pub(crate) mod single;
pub(crate) mod swap;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::peer::Peer;

pub(crate) trait Work {
    /// The table's heading.
    const TITLE: &'static str;
    /// The most it should cost, as a multiple of deadpool.
    const TARGET: Option<f64> = None;
    /// A second figure: its heading, and the most it should be.
    const SECOND: Option<(&'static str, f64)> = None;
    /// Whether callers wait for connections.
    const WAITS: bool;

    /// The runtime it runs on.
    fn runtime() -> Runtime;

    /// Runs it once on a new pool.
    fn run<P: Peer>(runtime: &Runtime) -> Sample;
}

/// The outcome of one run.
pub(crate) struct Sample {
    /// Nanoseconds per operation.
    pub(crate) ns: f64,
    /// The work's second figure.
    pub(crate) second: Option<f64>,
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn two_workers() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

fn ns_each(elapsed: Duration, count: usize) -> f64 {
    elapsed.as_nanos() as f64 / count as f64
}
