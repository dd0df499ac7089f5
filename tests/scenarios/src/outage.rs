//! Nothing answers any more.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millpond::Route;

use crate::load::{Kind, Load, POSTGRES, kinds};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const ALL_STOPPED: Scenario = Scenario {
    name: "F15",
    what: "all servers are stopped",
    optional: false,
    run: || Box::pin(all_stopped()),
};

/// How long; the facts want a minute, of which nothing but the first seconds is
/// of another kind.
const OUTAGE: f64 = 10.0;

async fn all_stopped() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    blocking(move || all(&at, |server| server.stop())).await;
    let (dead, retries, used) = (Instant::now(), cluster.snapshot().retries, cpu_time());
    let accepted = || trio.proxies.iter().map(|proxy| proxy.accepted()).sum::<usize>();
    let connects = accepted();
    seconds(OUTAGE).await;
    let (used, connects) = (cpu_time() - used, accepted() - connects);
    let (retries, gone) = (cluster.snapshot().retries - retries, Instant::now());
    let at = Arc::clone(&trio);
    blocking(move || all(&at, |server| server.start_again())).await;
    let back = Instant::now();
    seconds(3.0).await;
    let requests = load.end().await;

    let reads = requests.first_success(Kind::Read, back);
    let writes = requests.first_success(Kind::Write, back);
    report.recover =
        reads.max(writes).filter(|_| reads.is_some() && writes.is_some()).map(|at| at - back);
    let (reads, writes) = (requests.errors(Kind::Read), requests.errors(Kind::Write));
    report.errors = reads.len() + writes.len();
    report.unknown = requests.unknown().len();
    let at = Arc::clone(&trio);
    let rows = blocking(move || at.servers[0].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let made = requests.0.iter().filter(|it| it.ended >= dead && it.began < gone).count();
    report.note(format!(
        "{OUTAGE} s, not 60 s: {made} requests, {retries} retries, {connects} connects, \
         {} ms of CPU; stopped {} ms after the fault; {}",
        used.as_millis(),
        (dead - fault).as_millis(),
        kinds(&[reads, writes.clone()].concat())
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    // The most that a budget keeps, and what it is given by time.
    let reserve = 100 + OUTAGE as usize;
    let most = made / 10 + reserve;
    report.check("attempts ≤ 1.10 of the requests and the reserve", retries as usize <= most);
    // Each node: a probe in 200 ms, give or take, and a connect of the pool in half a
    // second.
    let most = 3 * (OUTAGE / 0.16 + OUTAGE / 0.5) as usize + 20;
    report.check("connects are those of probes and the pools' backoff", connects <= most);
    report.check("writes wait", writes.is_empty());
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report.check_time("CPU", Some(used), Duration::from_secs_f64(OUTAGE / 10.0));
    report.check_time("recover", report.recover, Duration::from_secs(2));
    report
}

/// Does the same to all servers at a time.
fn all(trio: &Trio, act: fn(&millpond_harness::Server)) {
    thread::scope(|scope| {
        trio.servers.iter().for_each(|server| drop(scope.spawn(move || act(server))));
    });
}

/// What this process has used, the load and the proxies included.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in brackets, may have spaces in it.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    // A hundred a second, on all that Linux runs on.
    Duration::from_millis(ticks * 10)
}
