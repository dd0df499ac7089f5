//! Who is measured: eight clients of one kind, the tasks that ask through them,
//! and the runtime of these tasks.
//!
//! Knows no database and no pool; each module of one makes its contenders.

use std::mem;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::runtime::{AsyncStd, Smol};
use millpond::{Builder, Driver};
use tokio::runtime::Handle;

/// Tasks that ask, and connections that a pool may have.
pub(crate) const TASKS: usize = 8;

/// Threads of each runtime.
pub(crate) const THREADS: usize = 2;

/// What one task asks through.
pub(crate) trait Client: Send + 'static {
    /// The answer to `SELECT 1`.
    fn ask(&mut self) -> impl Future<Output = i64> + Send;
}

/// Where the tasks run.
#[derive(Clone)]
pub(crate) enum Executor {
    Tokio(Handle),
    AsyncStd,
    Smol,
}

impl Executor {
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Tokio(handle) => handle.block_on(future),
            Self::AsyncStd => async_std::task::block_on(future),
            Self::Smol => smol::block_on(future),
        }
    }

    /// The pool's runtime is this one.
    pub(crate) fn adopt<D: Driver>(&self, builder: Builder<D>) -> Builder<D> {
        match self {
            Self::Tokio(handle) => builder.runtime(millpond::runtime::Tokio::new(handle.clone())),
            Self::AsyncStd => builder.runtime(AsyncStd),
            Self::Smol => builder.runtime(Smol),
        }
    }

    /// Runs all of them at once to their ends.
    fn run<F>(&self, tasks: impl Iterator<Item = F>) -> Vec<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.block_on(async {
            match self {
                Self::Tokio(_) => {
                    let ended = join_all(tasks.map(tokio::spawn)).await;
                    ended.into_iter().map(|end| end.expect("it asserts its answers")).collect()
                }
                Self::AsyncStd => join_all(tasks.map(async_std::task::spawn)).await,
                Self::Smol => join_all(tasks.map(smol::spawn)).await,
            }
        })
    }
}

/// Clients of one kind, ready to be measured.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    turn: Box<dyn FnMut(Duration) -> f64>,
}

impl Contender {
    pub(crate) fn new<C: Client>(
        name: &'static str,
        executor: &Executor,
        mut clients: Vec<C>,
    ) -> Self {
        let executor = executor.clone();
        let mut ask_for = move |time| {
            let start = Instant::now();
            let tasks = mem::take(&mut clients).into_iter().map(|client| ask(client, start + time));
            let ended = executor.run(tasks);
            let elapsed = start.elapsed();
            let asked: u64 = ended.iter().map(|(_, asked)| asked).sum();
            clients = ended.into_iter().map(|(client, _)| client).collect();
            asked as f64 / elapsed.as_secs_f64()
        };
        let turn = Box::new(move |time| {
            // What lay idle is checked before it is lent, and caches are cold.
            ask_for(time / 10);
            ask_for(time)
        });
        Self { name, turn }
    }

    /// Questions a second.
    pub(crate) fn turn(&mut self, time: Duration) -> f64 {
        (self.turn)(time)
    }
}

async fn ask<C: Client>(mut client: C, until: Instant) -> (C, u64) {
    let mut asked = 0;
    while Instant::now() < until {
        assert_eq!(client.ask().await, 1);
        asked += 1;
    }
    (client, asked)
}
