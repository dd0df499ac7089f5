//! What a checker needs of what it checks.
//!
//! Owns the two traits between them. Knows neither.

use std::sync::Arc;
use std::time::Duration;

use millpond_driver::{BoxFuture, NodeStatus, Result, Runtime};

/// Something whose health can be asked for, such as a [`Pool`](crate::Pool).
pub trait Probed {
    /// A way to ask that does not keep it open.
    fn probe(&self) -> Box<dyn Probe>;
}

/// A way to ask a node how it is, on a connection that nobody else waits for.
pub trait Probe: Send + Sync + 'static {
    /// Asks the node once, within `limit`.
    ///
    /// # Errors
    ///
    /// Whatever keeps the node from answering.
    ///
    /// # Cancellation
    ///
    /// May be dropped anywhere.
    fn ask(&self, limit: Duration) -> BoxFuture<'_, Result<NodeStatus>>;

    /// Ends when there is nothing to ask any more: the pool is closed. Default:
    /// never.
    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// What to wait and spawn with.
    fn runtime(&self) -> Arc<dyn Runtime>;
}
