//! Two tasks, each on a thread of its own, take and give back; there are
//! connections enough that neither waits.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::Instant;

use tokio::runtime::Runtime;

use super::{Sample, Work, ns_each, two_workers};
use crate::peer::Peer;

const CYCLES: usize = 200_000;

pub(crate) struct Pair;

impl Work for Pair {
    const TITLE: &'static str = "acquire + release, two threads, nobody waits";
    const TARGET: Option<f64> = Some(0.25);
    const WAITS: bool = false;

    fn runtime() -> Runtime {
        two_workers()
    }

    /// Nanoseconds per cycle as each thread sees them.
    fn run<P: Peer>(runtime: &Runtime) -> Sample {
        runtime.block_on(async {
            let pool = Arc::new(P::warm().await);
            // It blocks on purpose: two tasks past it are on two workers.
            let both = Arc::new(Barrier::new(2));
            let tasks = [(); 2].map(|()| {
                let (pool, both) = (Arc::clone(&pool), Arc::clone(&both));
                tokio::spawn(async move {
                    both.wait();
                    let start = Instant::now();
                    for _ in 0..CYCLES {
                        black_box(pool.acquire().await);
                    }
                    ns_each(start.elapsed(), CYCLES)
                })
            });
            let mut ns = 0.0;
            for task in tasks {
                ns += task.await.expect("no panic") / 2.0;
            }
            Sample { ns, second: None }
        })
    }
}
