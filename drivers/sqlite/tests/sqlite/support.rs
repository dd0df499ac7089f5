//! A runtime of plain threads, and a folder that goes away.
//!
//! Owns what tests need to see where a statement ran and to hold it there. Does
//! not know SQLite.

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use millpond_driver::{
    BoxFuture, ByteStream, ConnectContext, Driver, Result, Rows, Runtime, SocketOptions, Target,
    Value,
};
use millpond_sqlite::{Sqlite, SqliteConnection};

/// A thread for each blocking job, unless they are held back.
#[derive(Default)]
pub(crate) struct Threads {
    jobs: AtomicUsize,
    held: Mutex<Option<Vec<Job>>>,
    /// How far the clock moves whenever it is read; it stands still otherwise,
    /// so that no test depends on how busy the machine is.
    tick: Duration,
    ticks: AtomicUsize,
}

type Job = Box<dyn FnOnce() + Send>;

impl Threads {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// On which a wait of ten minutes is over after a few looks at the clock.
    pub(crate) fn hasty() -> Arc<Self> {
        Arc::new(Self { tick: Duration::from_secs(60), ..Self::default() })
    }

    /// How many blocking jobs there have been.
    pub(crate) fn jobs(&self) -> usize {
        self.jobs.load(Ordering::SeqCst)
    }

    /// Keeps jobs from starting.
    pub(crate) fn hold(&self) {
        *self.held.lock().expect("no panic") = Some(Vec::new());
    }

    /// Starts what was held, each on its thread.
    pub(crate) fn release(&self) {
        for job in self.held.lock().expect("no panic").take().into_iter().flatten() {
            start(job);
        }
    }

    /// Loses what was held, as a runtime that ends does.
    pub(crate) fn lose(&self) {
        drop(self.held.lock().expect("no panic").take());
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the runtime")]
fn start(job: Job) {
    thread::spawn(job);
}

#[expect(clippy::disallowed_methods, reason = "this is the runtime")]
static BORN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl std::fmt::Debug for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Threads")
    }
}

impl Runtime for Threads {
    fn now(&self) -> Instant {
        let ticks = self.ticks.fetch_add(1, Ordering::SeqCst) as u32;
        *BORN + self.tick * ticks
    }
    fn sleep_until(&self, _deadline: Instant) -> BoxFuture<'static, ()> {
        unreachable!("the driver never sleeps")
    }
    fn spawn(&self, _task: BoxFuture<'static, ()>) {
        unreachable!("the driver has no tasks")
    }
    fn spawn_blocking(&self, job: Job) {
        self.jobs.fetch_add(1, Ordering::SeqCst);
        match &mut *self.held.lock().expect("no panic") {
            Some(held) => held.push(job),
            None => start(job),
        }
    }
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        unreachable!("the driver knows no host")
    }
    fn connect<'a>(
        &'a self,
        _target: &'a Target,
        _options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        unreachable!("the driver dials nobody")
    }
    fn random(&self) -> u64 {
        4
    }
}

/// A folder for a test, deleted with it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("millpond-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A driver with a runtime, called as a pool calls it.
pub(crate) struct Bench {
    pub(crate) driver: Sqlite,
    pub(crate) runtime: Arc<Threads>,
}

impl Bench {
    pub(crate) fn new(driver: Sqlite) -> Self {
        Self { driver, runtime: Threads::new() }
    }

    pub(crate) async fn try_connect(&self) -> Result<SqliteConnection> {
        let runtime: Arc<dyn Runtime> = Arc::clone(&self.runtime) as _;
        let deadline = *BORN + Duration::from_secs(60);
        self.driver.connect(&ConnectContext::new(&runtime, deadline)).await
    }

    pub(crate) fn connect(&self) -> SqliteConnection {
        block_on(self.try_connect()).expect("a connection")
    }

    pub(crate) fn query(
        &self,
        conn: &mut SqliteConnection,
        sql: &str,
        params: &[Value],
    ) -> Result<Rows> {
        block_on(self.driver.query(conn, sql, params))
    }

    /// Runs what must succeed.
    pub(crate) fn run(&self, conn: &mut SqliteConnection, sql: &str) {
        block_on(self.driver.batch(conn, sql)).expect(sql);
    }

    /// The first column of the first row, as a number.
    pub(crate) fn number(&self, conn: &mut SqliteConnection, sql: &str) -> i64 {
        self.query(conn, sql, &[]).expect(sql).scalar().expect("a number")
    }

    /// How many jobs `work` takes.
    pub(crate) fn jobs_of<T>(&self, work: impl FnOnce() -> T) -> (usize, T) {
        let before = self.runtime.jobs();
        let done = work();
        (self.runtime.jobs() - before, done)
    }
}

/// Polls once, for a future that is to be dropped after that.
pub(crate) fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    use std::task::{Context, Poll, Waker};
    match std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// Counts to far more than any inline budget.
pub(crate) const HEAVY: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
     WHERE i < 20000) SELECT count(*) FROM n";

/// Never ends by itself.
pub(crate) const ENDLESS: &str =
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
