//! Rows one by one from a statement on the pool: a stream that owns its
//! connection.
//!
//! Owns the trick of a stream that borrows from what it owns: a future holds
//! both, and hands each row out before it is polled again. Knows nothing of
//! rows or of pools.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use futures_core::Stream;
use futures_util::stream;
use millpond_driver::{Result, Row};

use crate::sync::Mutex;

/// Where a future leaves a row for its stream.
#[derive(Debug, Clone)]
pub(super) struct Outlet(Arc<Mutex<Option<Row>>>);

impl Outlet {
    /// Leaves a row and ends when it has been taken.
    pub(super) async fn give(&self, row: Row) {
        *self.0.lock() = Some(row);
        poll_fn(|_| if self.0.lock().is_some() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

/// The rows that `work` gives, then its error, if it ends with one.
pub(super) fn rows_of<W: Future<Output = Result<()>> + Send>(
    work: impl FnOnce(Outlet) -> W,
) -> impl Stream<Item = Result<Row>> + Send {
    let outlet = Outlet(Arc::new(Mutex::new(None)));
    let mut work = Some(Box::pin(work(outlet.clone())));
    stream::poll_fn(move |cx| {
        let Some(running) = &mut work else { return Poll::Ready(None) };
        match running.as_mut().poll(cx) {
            // With a row left it waits for nothing but the next call.
            Poll::Pending => match outlet.0.lock().take() {
                Some(row) => Poll::Ready(Some(Ok(row))),
                None => Poll::Pending,
            },
            Poll::Ready(ended) => {
                work = None;
                Poll::Ready(ended.err().map(Err))
            }
        }
    })
}
