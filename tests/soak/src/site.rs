//! The two databases, who works on them, and what is looked at.
//!
//! Owns the run: it sets up, watches, ends and settles accounts.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millpond::drivers::Any;
use millpond::{Pool, Snapshot};
use millpond_harness::Server;
use tokio::time::sleep;

use crate::callers::{Dialect, audit, call, create_accounts};
use crate::ledger::Ledger;
use crate::operator::{MOST, operate};
use crate::trouble::{lock, shake};

const CALLERS: usize = 16;
const WATCH: Duration = Duration::from_secs(10);
/// Pool settings that have a year's events happen in minutes.
const SETTINGS: &str = "max_open_conns=8&conn_max_lifetime=10s&conn_max_idle_time=2s&\
     min_idle_conns=1&acquire_timeout=8s&leak_after=5s&max_waiters=100";

/// One database under load.
struct Place {
    name: &'static str,
    pool: Pool<Any>,
    ledger: Arc<Ledger>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Its sessions at the server, where there is one.
    server: Option<Arc<Server>>,
}

pub(crate) async fn soak(time: Duration) -> Result<(), Vec<String>> {
    let folder = std::env::temp_dir().join(format!("millpond-soak-{}", std::process::id()));
    fs::create_dir_all(&folder).map_err(|error| vec![format!("{folder:?}: {error}")])?;
    let places = [postgres().await, sqlite(folder.join("soak.db")).await];
    let start = Instant::now();
    let mut early = None;
    while start.elapsed() < time && places.iter().all(|place| !place.ledger.is_over()) {
        sleep(WATCH.min(time)).await;
        let memory = memory();
        println!("{:>5.0?} memory {} KiB, {} files", start.elapsed(), memory, files());
        for place in &places {
            place.look();
        }
        // By then every cache is warm.
        if early.is_none() && start.elapsed() >= time / 4 {
            early = Some(memory);
        }
    }
    let late = memory();
    let mut faults = Vec::new();
    for place in places {
        faults.extend(place.end().await);
    }
    if let Some(early) = early {
        println!("memory after a quarter of the time {early} KiB, at the end {late} KiB");
        if late > early + early / 5 {
            faults.push(format!("memory grows: {early} KiB early, {late} KiB late"));
        }
    }
    let _ = fs::remove_dir_all(&folder);
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

async fn postgres() -> Place {
    let server = Arc::new(Server::postgres().start());
    let url = server.url_with(&format!("application_name=soak&{SETTINGS}"));
    let pool = millpond::connect(&url).await.expect("the server has just been started");
    let mut place = Place::new("postgres", pool, Dialect::Postgres).await;
    place.server = Some(Arc::clone(&server));
    place.tasks.push(tokio::spawn(shake(server, Arc::clone(&place.ledger))));
    place
}

async fn sqlite(file: PathBuf) -> Place {
    let url = format!("sqlite://{}?busy_timeout=5s&{SETTINGS}", file.display());
    let pool = millpond::connect(&url).await.expect("a file of our own");
    let mut place = Place::new("sqlite", pool, Dialect::Sqlite).await;
    let elsewhere = format!("sqlite://{}?busy_timeout=5s&max_open_conns=1", file.display());
    let elsewhere = millpond::connect(&elsewhere).await.expect("the same file");
    place.tasks.push(tokio::spawn(lock(elsewhere, Arc::clone(&place.ledger))));
    place
}

impl Place {
    async fn new(name: &'static str, pool: Pool<Any>, dialect: Dialect) -> Self {
        create_accounts(&pool).await.expect("an empty database");
        let ledger = Arc::new(Ledger::new());
        let mut tasks: Vec<_> = (0..CALLERS)
            .map(|_| tokio::spawn(call(pool.clone(), dialect, Arc::clone(&ledger))))
            .collect();
        tasks.push(tokio::spawn(operate(pool.clone(), Arc::clone(&ledger))));
        Self { name, pool, ledger, tasks, server: None }
    }

    /// Tells how it is, and whether the counts are exact.
    fn look(&self) {
        let now = self.pool.snapshot();
        let Ledger { done, given_up, explained, .. } = &*self.ledger;
        println!(
            "      {:<9} {} done, {} given up, {} errors explained; {now}",
            self.name,
            done.load(Ordering::Relaxed),
            given_up.load(Ordering::Relaxed),
            explained.load(Ordering::Relaxed),
        );
        if let Some(fault) = miscount(&now) {
            self.ledger.fault(format!("{}: {fault}: {now:?}", self.name));
        }
    }

    /// Ends the load and settles accounts.
    async fn end(self) -> Vec<String> {
        let Self { name, pool, ledger, tasks, server } = self;
        ledger.over.store(true, Ordering::Relaxed);
        for task in tasks {
            if let Err(error) = task.await {
                ledger.fault(format!("a task ended badly: {error}"));
            }
        }
        pool.resume();
        match audit(&pool).await {
            Ok(true) => println!("{name}: the sum of all accounts is unchanged"),
            Ok(false) => ledger.fault("money is missing, or there is more".to_owned()),
            Err(error) => ledger.fault(format!("the accounts cannot be read: {error:?}")),
        }
        let report = pool.drain(Duration::from_secs(10)).await;
        println!("{name}: {report}\n{:#}", pool.snapshot());
        if !report.is_complete() {
            ledger.fault(report.to_string());
        }
        if let Some(server) = server {
            let left = server.sql("SELECT 1 FROM pg_stat_activity WHERE application_name = 'soak'");
            if !left.is_empty() {
                ledger.fault(format!("{} sessions are left at the server", left.len()));
            }
        }
        let faults = ledger.faults();
        faults.into_iter().map(|fault| format!("{name}: {fault}")).collect()
    }
}

/// What does not add up.
fn miscount(now: &Snapshot) -> Option<&'static str> {
    let parts = now.in_use + now.idle + now.checking + now.cleaning + now.closing;
    match () {
        () if now.open != parts => Some("the parts are not the whole"),
        () if now.created - now.closed != now.open as u64 => Some("created − closed is not open"),
        () if now.acquired - now.released != now.in_use as u64 => {
            Some("acquired − released is not in use")
        }
        () if now.open + now.opening > MOST => Some("more connections than ever allowed"),
        () => None,
    }
}

/// Resident memory of this process in KiB; 0 where it cannot be told.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let size = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    size.unwrap_or(0)
}

/// Open files of this process; 0 where they cannot be told.
fn files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}
