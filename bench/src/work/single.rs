//! One task takes a connection and gives it back, and nobody else is there.

use std::hint::black_box;
use std::time::Instant;

use tokio::runtime::Runtime;

use super::{Sample, Work, ns_each, one_thread};
use crate::peer::Peer;

const CYCLES: usize = 200_000;

pub(crate) struct Single;

impl Work for Single {
    const TITLE: &'static str = "acquire + release, one task";
    const TARGET: Option<f64> = Some(0.20);
    const WAITS: bool = false;

    fn runtime() -> Runtime {
        one_thread()
    }

    fn run<P: Peer>(runtime: &Runtime) -> Sample {
        runtime.block_on(async {
            let pool = P::warm().await;
            let start = Instant::now();
            for _ in 0..CYCLES {
                black_box(pool.acquire().await);
            }
            Sample { ns: ns_each(start.elapsed(), CYCLES), second: None }
        })
    }
}
