//! The result of a simulated task, for who waits for it.
//!
//! Owns the way of a value or a panic from a task to its handle. Knows nothing
//! of when tasks run.

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::lock;

/// `future` as a task, and the handle to its result.
pub(super) fn joinable<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> (impl Future<Output = ()> + Send + 'static, JoinHandle<T>) {
    let slot = Arc::new(Mutex::new(JoinState { result: None, waiter: None }));
    let sender = JoinSender(Arc::clone(&slot));
    let task = async move {
        let mut future = pin!(future);
        let result =
            poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
                Err(panic) => Poll::Ready(Err(panic)),
            })
            .await;
        sender.send(result);
    };
    (task, JoinHandle(slot))
}

/// Waits for a task and its result. Dropping it leaves the task running.
pub struct JoinHandle<T>(Arc<Mutex<JoinState<T>>>);

struct JoinState<T> {
    result: Option<Result<T, Box<dyn Any + Send>>>,
    waiter: Option<Waker>,
}

struct JoinSender<T>(Arc<Mutex<JoinState<T>>>);

impl<T> JoinSender<T> {
    fn send(&self, result: Result<T, Box<dyn Any + Send>>) {
        let waiter = {
            let mut state = lock(&self.0);
            state.result = Some(result);
            state.waiter.take()
        };
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = lock(&self.0);
        match state.result.take() {
            Some(Ok(value)) => Poll::Ready(value),
            Some(Err(panic)) => {
                drop(state);
                std::panic::resume_unwind(panic)
            }
            None => {
                state.waiter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinHandle")
    }
}
