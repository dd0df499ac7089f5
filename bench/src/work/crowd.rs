//! A queue of thousands: the cost of an acquire must not grow with the number
//! of callers that wait.

use tokio::runtime::Runtime;

use super::queue::{TASKS, compete};
use super::{Sample, Work, two_workers};
use crate::peer::Peer;

const CROWD: usize = 5_000;
/// Each part takes about as many acquires in all.
const CYCLES: usize = 8;

pub(crate) struct Crowd;

impl Work for Crowd {
    const TITLE: &'static str = "5 000 tasks on 8 connections";
    const SECOND: Option<(&'static str, f64)> = Some(("vs 64 tasks", 2.0));
    const WAITS: bool = true;

    fn runtime() -> Runtime {
        two_workers()
    }

    fn run<P: Peer>(runtime: &Runtime) -> Sample {
        runtime.block_on(async {
            let few = compete::<P>(TASKS, CYCLES * CROWD / TASKS).await.ns;
            let many = compete::<P>(CROWD, CYCLES).await.ns;
            Sample { ns: many, second: Some(many / few) }
        })
    }
}
