//! The tokio reactor that the client's sockets need, on any runtime.
//!
//! Decides which one a connection lives on and enters it while the client
//! works. Does not know what the client does, nor which runtime drives it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_channel::oneshot;
use millpond_driver::Runtime;
use tokio::runtime::{Builder, EnterGuard, Handle};

/// A reactor, remembered by what lives on it.
#[derive(Debug, Clone)]
pub(crate) struct Reactor {
    handle: Handle,
    /// It is an application's, and ends when that likes.
    borrowed: bool,
}

impl Reactor {
    /// The tokio runtime that is current, else one thread of our own that
    /// watches sockets and runs nothing.
    pub(crate) fn current() -> Self {
        match Handle::try_current() {
            Ok(handle) => Self { handle, borrowed: true },
            Err(_) => Self { handle: background().clone(), borrowed: false },
        }
    }

    /// What tells of its end. `runtime` is the one it belongs to.
    pub(crate) fn watch(&self, runtime: &Arc<dyn Runtime>) -> Watch {
        if !self.borrowed {
            return Watch(None);
        }
        let (kept, ended) = oneshot::channel::<Infallible>();
        // Ends with the watch, or is dropped with its runtime, whichever is first.
        runtime.spawn(Box::pin(async move {
            let _ = ended.await;
        }));
        Watch(Some(kept))
    }

    /// Runs a future that may touch sockets of this reactor, wherever it is
    /// polled.
    pub(crate) async fn run<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let _entered = self.handle.enter();
            work.as_mut().poll(cx)
        })
        .await
    }
}

/// Tells whether a reactor has ended. Its sockets are of no use then.
#[derive(Debug)]
pub(crate) struct Watch(Option<oneshot::Sender<Infallible>>);

impl Watch {
    /// Costs a load.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.as_ref().is_some_and(oneshot::Sender::is_canceled)
    }
}

/// Our own reactor, started when it is first needed. It lives as long as the
/// process.
fn background() -> &'static Handle {
    static REACTOR: OnceLock<Handle> = OnceLock::new();
    REACTOR.get_or_init(|| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("the system has a descriptor left for a reactor");
        let handle = runtime.handle().clone();
        std::thread::Builder::new()
            .name("millpond-mysql".to_owned())
            .spawn(move || runtime.block_on(std::future::pending::<()>()))
            .expect("the system has a thread left for a reactor");
        handle
    })
}

/// Work with a client of its own, which goes with the work when that is dropped.
pub(crate) struct Abrupt<F>(Option<Pin<Box<F>>>);

impl<F> Abrupt<F> {
    pub(crate) fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F: Future> Future for Abrupt<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().expect("it is there until it is dropped").as_mut().poll(cx)
    }
}

impl<F> Drop for Abrupt<F> {
    fn drop(&mut self) {
        let _entered = nowhere();
        self.0 = None;
    }
}

/// A context in which tasks are dropped as they are spawned.
///
/// A client that is dropped spawns a task which first reads what is left of an
/// answer: a connection that nobody counts, for as long as the answer is. Here
/// its socket is closed at once instead.
pub(crate) fn nowhere() -> EnterGuard<'static> {
    static ENDED: OnceLock<Handle> = OnceLock::new();
    let ended = ENDED.get_or_init(|| {
        let runtime = Builder::new_current_thread()
            .build()
            .expect("a runtime without drivers asks nothing of the system");
        let handle = runtime.handle().clone();
        // In the background, for it may be dropped within another runtime.
        runtime.shutdown_background();
        handle
    });
    ended.enter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spawned_nowhere_is_dropped_at_once() {
        let kept = Arc::new(());
        let watch = Arc::downgrade(&kept);
        let _entered = nowhere();
        Handle::current().spawn(async move { drop(kept) });
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn without_a_runtime_there_is_one_reactor_for_all() {
        let (one, other) = (Reactor::current(), Reactor::current());
        assert_eq!(one.handle.id(), other.handle.id());
    }
}
