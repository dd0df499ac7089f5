//! A server that goes away and comes back, and what callers see of it.
//!
//! Knows no database: any server of the harness will do, and any driver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::{FutureExt, join_all};
use millpond::runtime::{Runtime, current};
use millpond::{Cause, Driver, Error, Pool};
use millpond_harness::Server;

/// Connections, and callers that share them.
pub(crate) const CONNECTIONS: usize = 4;
const CALLERS: usize = 8;

/// Nobody restarts anything of ours, and no caller meets a connection that died
/// while it was idle.
pub(crate) async fn restarted_while_idle<D: Driver>(server: Arc<Server>, pool: Pool<D>) {
    let here = current().expect("inside block_on");
    for _ in 0..3 {
        let held = join_all((0..CONNECTIONS).map(|_| pool.acquire())).await;
        assert!(held.iter().all(Result::is_ok), "all connections are open");
        drop(held);
        let again = Arc::clone(&server);
        aside(&*here, move || again.restart()).await;
        // From now on a connection is checked before it is lent.
        here.sleep_until(here.now() + Duration::from_millis(1100)).await;
        for answer in join_all((0..CALLERS).map(|_| pool.query("SELECT 1", &[]))).await {
            answer.expect("no caller sees that the server was away");
        }
    }
}

/// A statement on the pool goes through at once though the server has ended every
/// session that lay idle, and those that died are cleared away.
pub(crate) async fn killed_while_idle<D: Driver>(
    pool: Pool<D>,
    who_am_i: &str,
    kill: impl Fn(u64) + Send + 'static,
) {
    let here = current().expect("inside block_on");
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(pool.acquire().await.unwrap());
    }
    let mut sessions: Vec<u64> = Vec::new();
    for conn in &mut held {
        sessions.push(conn.query(who_am_i, &[]).await.unwrap().scalar().unwrap());
    }
    drop(held);
    aside(&*here, move || sessions.into_iter().for_each(kill)).await;
    // From now on a connection is checked before it is lent.
    here.sleep_until(here.now() + Duration::from_millis(1100)).await;
    pool.query("SELECT 1", &[]).await.expect("the caller sees nothing of it");
    let give_up = here.now() + Duration::from_secs(10);
    while pool.snapshot().open != 1 {
        assert!(here.now() < give_up, "dead ones stay: {}", pool.snapshot());
        here.sleep_until(here.now() + Duration::from_millis(1)).await;
    }
}

/// Callers lose what was under way when the server was killed, one error for a
/// connection; the others wait, and go on when it is back.
pub(crate) async fn killed_under_load<D: Driver>(server: Arc<Server>, pool: Pool<D>) {
    let here = current().expect("inside block_on");
    let load = Arc::new(Load::default());
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (pool, load) = (pool.clone(), Arc::clone(&load));
            let (task, done) = async move { load.ask(&pool).await }.remote_handle();
            here.spawn(Box::pin(task));
            done
        })
        .collect();
    load.go_on(&*here, CALLERS * 4).await;
    let killed = Arc::clone(&server);
    aside(&*here, move || killed.kill()).await;
    let back = Arc::clone(&server);
    aside(&*here, move || back.start_again()).await;
    let accepting = here.now();
    load.go_on(&*here, CALLERS * 4).await;
    println!("answers again {:?} after the server accepts", here.now() - accepting);
    load.over.store(true, Ordering::Relaxed);
    let errors: Vec<Error> = join_all(callers).await.into_iter().flatten().collect();
    assert!(errors.len() <= CONNECTIONS, "more errors than connections: {errors:#?}");
    for error in &errors {
        let lost = matches!(error.cause(), Cause::Transport | Cause::Shutdown);
        assert!(lost, "not explained by the kill: {error:?}");
    }
    let held = join_all((0..CONNECTIONS).map(|_| pool.acquire())).await;
    assert!(held.iter().all(Result::is_ok), "no slot was lost");
}

#[derive(Default)]
struct Load {
    answers: AtomicUsize,
    over: AtomicBool,
}

impl Load {
    /// Asks until it is over, and keeps what fails.
    async fn ask<D: Driver>(&self, pool: &Pool<D>) -> Vec<Error> {
        let mut errors = Vec::new();
        while !self.over.load(Ordering::Relaxed) {
            match pool.query("SELECT 1", &[]).await {
                Ok(_) => drop(self.answers.fetch_add(1, Ordering::Relaxed)),
                Err(error) => errors.push(error),
            }
        }
        errors
    }

    /// Waits for so many more answers.
    async fn go_on(&self, here: &dyn Runtime, answers: usize) {
        let give_up = here.now() + Duration::from_secs(30);
        let enough = self.answers.load(Ordering::Relaxed) + answers;
        while self.answers.load(Ordering::Relaxed) < enough {
            assert!(here.now() < give_up, "nobody is answered");
            here.sleep_until(here.now() + Duration::from_millis(1)).await;
        }
    }
}

/// Does what takes a while on a thread that may block.
pub(crate) async fn aside(here: &dyn Runtime, work: impl FnOnce() + Send + 'static) {
    let (work, done) = async { work() }.remote_handle();
    here.spawn_blocking(Box::new(|| work.now_or_never().unwrap_or_default()));
    done.await;
}
