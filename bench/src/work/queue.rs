//! Eight tasks for each connection: most callers wait, and every release is a
//! hand-over. A connection is held over one yield, as over a quick answer.
//!
//! Fairness is how much longer than the mean the slowest task takes for its
//! share.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Runtime;
use tokio::sync::Barrier;
use tokio::task::yield_now;

use super::{Sample, Work, two_workers};
use crate::peer::Peer;

/// Tasks of this work.
pub(crate) const TASKS: usize = 64;
const CYCLES: usize = 1_000;

pub(crate) struct Queue;

impl Work for Queue {
    const TITLE: &'static str = "64 tasks on 8 connections, each held over one yield";
    const TARGET: Option<f64> = Some(0.75);
    const SECOND: Option<(&'static str, f64)> = Some(("slowest/mean", 1.05));
    const WAITS: bool = true;

    fn runtime() -> Runtime {
        two_workers()
    }

    fn run<P: Peer>(runtime: &Runtime) -> Sample {
        runtime.block_on(compete::<P>(TASKS, CYCLES))
    }
}

/// Runs so many tasks of so many cycles each. The cost is wall time over all
/// cycles; the second figure is the slowest task over the mean.
pub(crate) async fn compete<P: Peer>(tasks: usize, cycles: usize) -> Sample {
    let pool = Arc::new(P::warm().await);
    let gate = Arc::new(Barrier::new(tasks + 1));
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let (pool, gate) = (Arc::clone(&pool), Arc::clone(&gate));
            tokio::spawn(async move {
                gate.wait().await;
                gate.wait().await;
                for _ in 0..cycles {
                    let conn = pool.acquire().await;
                    yield_now().await;
                    drop(conn);
                }
                Instant::now()
            })
        })
        .collect();
    // Once all are there, the clock starts and they are let go.
    gate.wait().await;
    let start = Instant::now();
    gate.wait().await;
    let mut each = Vec::with_capacity(tasks);
    for handle in handles {
        let end = handle.await.expect("no panic");
        each.push((end - start).as_secs_f64());
    }
    let slowest = each.iter().copied().fold(0.0, f64::max);
    let mean = each.iter().sum::<f64>() / tasks as f64;
    Sample { ns: slowest * 1e9 / (tasks * cycles) as f64, second: Some(slowest / mean) }
}
