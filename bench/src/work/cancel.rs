//! Callers that give up while they wait, all at once, as when a load balancer
//! drops its clients. What one costs must not grow with the queue.

use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Instant;

use tokio::runtime::Runtime;

use super::{Sample, Work, ns_each, one_thread};
use crate::peer::Peer;

const FEW: usize = 500;
const MANY: usize = 5_000;
/// Passes over the few and passes over the many: as many waiters in all.
const PASSES: usize = 10;

pub(crate) struct Cancel;

impl Work for Cancel {
    const TITLE: &'static str = "5 000 waiters that join and give up, per waiter";
    const SECOND: Option<(&'static str, f64)> = Some(("vs 500 waiters", 2.0));
    const WAITS: bool = true;

    fn runtime() -> Runtime {
        one_thread()
    }

    fn run<P: Peer>(runtime: &Runtime) -> Sample {
        let pool = runtime.block_on(P::warm());
        let all = runtime.block_on(pool.acquire_all());
        // Entered, not blocked on: within a task, tokio's budget would turn
        // callers away before they are in the queue.
        let context = runtime.enter();
        give_up(&pool, MANY);
        let many = (0..PASSES).map(|_| give_up(&pool, MANY)).sum::<f64>() / PASSES as f64;
        let passes = PASSES * MANY / FEW;
        let few = (0..passes).map(|_| give_up(&pool, FEW)).sum::<f64>() / passes as f64;
        drop(all);
        drop(context);
        Sample { ns: many, second: Some(many / few) }
    }
}

/// Puts so many callers into the queue and drops them in a scattered order.
fn give_up<P: Peer>(pool: &P, waiters: usize) -> f64 {
    let mut callers: Vec<Option<Pin<Box<_>>>> =
        (0..waiters).map(|_| Some(Box::pin(pool.acquire()))).collect();
    let mut cx = Context::from_waker(Waker::noop());
    let start = Instant::now();
    for caller in callers.iter_mut().flatten() {
        assert!(caller.as_mut().poll(&mut cx).is_pending(), "all connections are held");
    }
    // A step that shares no factor with the count visits each once.
    for turn in 0..waiters {
        callers[turn * 7_919 % waiters] = None;
    }
    ns_each(start.elapsed(), waiters)
}
