//! millpond, on any runtime: one connection a task, or one an acquire.

use ::millpond::{Driver, Pool, PooledConnection};

use crate::contender::{Client, Executor, TASKS};

/// Each task keeps its connection.
pub(crate) struct Held<D: Driver>(PooledConnection<D>);

impl<D: Driver> Held<D> {
    pub(crate) fn eight(executor: &Executor, driver: D) -> Vec<Self> {
        executor.block_on(async {
            let pool = pool(executor, driver).await;
            let mut all = Vec::new();
            while all.len() < TASKS {
                all.push(Self(pool.acquire().await.expect("a connection")));
            }
            all
        })
    }
}

impl<D: Driver> Client for Held<D> {
    async fn ask(&mut self) -> i64 {
        self.0.query("SELECT 1", &[]).await.expect("an answer").scalar().expect("a number")
    }
}

/// Each statement takes a connection and gives it back.
pub(crate) struct Pooled<D: Driver>(Pool<D>);

impl<D: Driver> Pooled<D> {
    pub(crate) fn eight(executor: &Executor, driver: D) -> Vec<Self> {
        let pool = executor.block_on(pool(executor, driver));
        (0..TASKS).map(|_| Self(pool.clone())).collect()
    }
}

impl<D: Driver> Client for Pooled<D> {
    async fn ask(&mut self) -> i64 {
        self.0.query("SELECT 1", &[]).await.expect("an answer").scalar().expect("a number")
    }
}

async fn pool<D: Driver>(executor: &Executor, driver: D) -> Pool<D> {
    let builder = Pool::builder(driver).max_open_conns(TASKS);
    executor.adopt(builder).build().await.expect("a pool")
}
