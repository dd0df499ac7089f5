//! Keeps the pool's time: one background task that sleeps until the next
//! deadline, backoff or expiry, and lets the state act on it.
//!
//! Owns its sleep and its office. Does not know what is due: the state says
//! when to look again. The office falls free when the keeper is dropped with
//! its runtime, and a waiting caller takes it over.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use millpond_driver::{BoxFuture, Driver};

use super::shared::Shared;

pub(super) struct Keeper<D: Driver> {
    shared: Arc<Shared<D>>,
    number: u64,
    sleep: Option<(Instant, BoxFuture<'static, ()>)>,
    retired: bool,
}

impl<D: Driver> Keeper<D> {
    pub(super) fn new(shared: Arc<Shared<D>>, number: u64) -> Self {
        Self { shared, number, sleep: None, retired: false }
    }
}

impl<D: Driver> Future for Keeper<D> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let mut waker = Some(cx.waker().clone());
            let next = this.shared.turn(|state, turn| state.tick(turn, this.number, &mut waker));
            drop(waker);
            let Some(at) = next else {
                this.retired = true;
                return Poll::Ready(());
            };
            let sleep = match &mut this.sleep {
                Some((planned, sleep)) if *planned == at => sleep,
                other => &mut other.insert((at, this.shared.runtime.sleep_until(at))).1,
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.sleep = None;
        }
    }
}

impl<D: Driver> Drop for Keeper<D> {
    fn drop(&mut self) {
        if !self.retired {
            let waker = self.shared.turn(|state, turn| state.keeper_lost(turn, self.number));
            drop(waker);
        }
    }
}

impl<D: Driver> fmt::Debug for Keeper<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("number", &self.number).finish_non_exhaustive()
    }
}
