//! What an operator sees of a running pool, and can do to it.
//!
//!     cargo run --example operator --features sqlite,tokio

use std::time::Duration;

use millpond::{Pool, Result, drivers::Any, runtime};

fn main() -> Result<()> {
    runtime::block_on(async {
        let pool = Pool::builder(Any::from_url("sqlite::memory:")?)
            .max_open_conns(4)
            .leak_after(Duration::from_millis(50))
            .on_leak(|leak| println!("on_leak: {leak}"))
            .after_connect(|mut conn| {
                Box::pin(async move { conn.batch("PRAGMA foreign_keys = on").await })
            })
            .build()
            .await?;

        let held = pool.acquire().label("checkout").await?;
        let timeout = pool.resize(1).and(pool.acquire().timeout(Duration::from_millis(100)).await);
        println!("{}", timeout.expect_err("the one connection is held"));
        for holder in pool.holders() {
            println!("held {holder}");
        }
        drop(held);

        pool.reconfigure(|config| config.max_open_conns(8).conn_max_uses(1_000))?;
        pool.pause();
        println!("paused:  {}", pool.snapshot());
        pool.resume();
        println!("evicted: {} connection", pool.evict());
        println!("after:   {}", pool.query("SELECT 1", &[]).await.map(|_| pool.snapshot())?);
        println!("{}", pool.drain(Duration::from_secs(1)).await);
        Ok(())
    })
}
