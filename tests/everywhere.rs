//! The pool on whichever real runtime is enabled: the same file, unchanged, on
//! tokio, async-std and smol. What needs no real runtime is tested on the
//! simulator.
#![cfg(any(feature = "tokio", feature = "async-std", feature = "smol"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::runtime::{block_on, current};
use millpond::{ErrorKind, Phase, Pool, params};

/// Runs a future as a task of the runtime and waits for it.
fn task<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send {
    let (send, receive) = futures_util::future::FutureExt::remote_handle(work);
    current().expect("inside block_on").spawn(Box::pin(send));
    receive
}

#[test]
fn many_tasks_share_few_connections_and_all_are_served() {
    block_on(async {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).max_open_conns(3).build().await.unwrap();
        let done = Arc::new(AtomicU64::new(0));
        let tasks = (0..64).map(|caller| {
            let (pool, done) = (pool.clone(), Arc::clone(&done));
            task(async move {
                for round in 0..20 {
                    let mut conn = pool.acquire().await.unwrap();
                    let token = format!("{caller}.{round}");
                    let rows = conn.query(&token, &params![round]).await.unwrap();
                    assert_eq!(rows.scalar::<String>().unwrap(), token);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        join_all(tasks).await;
        assert_eq!(done.load(Ordering::Relaxed), 64 * 20);
        let now = pool.snapshot();
        assert_eq!((now.in_use, now.waiting, now.acquired), (0, 0, 64 * 20), "{now}");
        assert!(fake.counts().peak_live <= 3);
    });
}

#[test]
fn an_acquire_that_cannot_be_served_says_why() {
    block_on(async {
        let pool = Pool::builder(Fake::new()).max_open_conns(1).build().await.unwrap();
        let _held = pool.acquire().label("hoarder").await.unwrap();
        let error = pool.acquire().timeout(Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Waiting));
        let oldest = error.report().and_then(|report| report.oldest.clone()).expect("one holds it");
        assert_eq!(oldest.label, Some("hoarder"));
        assert_eq!(oldest.place.file(), file!());
    });
}

#[test]
fn a_guard_dropped_on_a_plain_thread_is_cleaned_and_comes_back() {
    block_on(async {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).max_open_conns(1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.query("BEGIN", &[]).await.unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || drop(conn));
        });
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(conn.query("mine", &[]).await.unwrap().scalar::<String>().unwrap(), "mine");
        assert_eq!((fake.counts().opened, fake.counts().resets), (1, 1));
    });
}

#[test]
fn a_future_dropped_in_flight_leaves_nothing_to_the_next_borrower() {
    block_on(async {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).max_open_conns(1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Hang]);
        let mut query = Box::pin(conn.query("not awaited", &[]));
        assert!(futures_util::poll!(&mut query).is_pending());
        drop(query);
        drop(conn);
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(conn.query("mine", &[]).await.unwrap().scalar::<String>().unwrap(), "mine");
        assert_eq!(fake.counts().cancels, 1);
    });
}

#[test]
fn a_drain_ends_when_the_last_connection_has_come_back() {
    block_on(async {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        let drain = task({
            let pool = pool.clone();
            async move { pool.drain(Duration::from_secs(60)).await }
        });
        drop(conn);
        let report = drain.await;
        assert!(report.is_complete(), "{report}");
        assert_eq!(fake.counts().live, 0);
        assert_eq!(pool.acquire().await.unwrap_err().kind(), ErrorKind::Closed);
    });
}

/// Elsewhere the pool dies with the runtime that built it.
#[cfg(feature = "tokio")]
#[test]
fn one_pool_serves_three_tokio_runtimes_in_a_row() {
    let fake = Fake::new();
    let mut pool = None;
    for round in 1..=3 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let pool = match &pool {
                Some(pool) => pool,
                None => pool
                    .insert(Pool::builder(fake.clone()).max_open_conns(2).build().await.unwrap()),
            };
            // Waiting, timing out and connecting all work on this runtime.
            let first = pool.acquire().await.unwrap();
            let _second = pool.acquire().await.unwrap();
            let late = pool.acquire().timeout(Duration::from_millis(5)).await.unwrap_err();
            assert_eq!(late.kind(), ErrorKind::Timeout(Phase::Waiting));
            let waiter = task({
                let pool = pool.clone();
                async move { pool.acquire().await.map(|conn| conn.id()) }
            });
            first.discard();
            waiter.await.unwrap();
            let now = pool.snapshot();
            assert_eq!(now.closed, round, "{now}");
        });
        // The runtime ends here, with the pool's keeper on it.
    }
    let now = pool.expect("built in the first").snapshot();
    assert_eq!((now.in_use, now.waiting), (0, 0), "{now}");
}

/// A runtime that is kept but no longer driven takes nobody's deadline along.
#[cfg(feature = "tokio")]
#[test]
fn a_runtime_that_stands_still_holds_nobody_up() {
    let build = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (still, moving) = (build(), build());
    let pool = still.block_on(async {
        let pool = Pool::builder(Fake::new()).max_open_conns(1).build().await.unwrap();
        let _held = pool.acquire().await.unwrap();
        pool.acquire().timeout(Duration::from_millis(1)).await.unwrap_err();
        pool
    });
    moving.block_on(async {
        let _held = pool.acquire().await.unwrap();
        let error = pool.acquire().timeout(Duration::from_millis(5)).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    });
}
