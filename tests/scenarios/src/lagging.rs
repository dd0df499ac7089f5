//! A replica that falls behind, and a primary that only seems to be ahead.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::Route;

use crate::load::{Kind, Load, POSTGRES, READERS, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const REPLICA_LAGS: Scenario = Scenario {
    name: "F13",
    what: "an idle primary, then a replica behind",
    optional: false,
    run: || Box::pin(replica_lags()),
};

/// How far a replica may be behind.
const MAX_LAG: Duration = Duration::from_secs(2);
/// How long nobody writes. The facts want a minute; what shows in a minute shows
/// after more than the limit.
const IDLE: f64 = 15.0;
/// The longest between two probes: five seconds and a fifth.
const PROBE: Duration = Duration::from_secs(6);

async fn replica_lags() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.builder().max_lag(MAX_LAG).build().await.expect("a cluster");
    let idle = Instant::now();
    let readers = Load::of(&cluster, Route::Replica, POSTGRES, READERS, 0);
    seconds(IDLE).await;
    // The first write after that long is where seconds lie the most.
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(3.0).await;
    let falsely = trio.told_since(idle).iter().any(|line| line.contains("behind"));

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    blocking(move || at.servers[1].pause_replay()).await;
    let left = is_told(&trio, "behind", fault, MAX_LAG + PROBE * 2).await;
    seconds(1.0).await;
    let back = Instant::now();
    let at = Arc::clone(&trio);
    blocking(move || at.servers[1].resume_replay()).await;
    let returned = is_told(&trio, "b has caught up", back, PROBE * 2).await;
    seconds(0.5).await;
    let requests = load.end().await;
    let idlers = readers.end().await;

    let last = requests.last_sent("b", fault, back);
    report.detect = last.map(|at| at.saturating_duration_since(fault + MAX_LAG));
    report.recover = requests.first_sent("b", back).map(|at| at - back);
    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    let errors = [errors, idlers.errors(Kind::Read)].concat();
    report.errors = errors.len();
    report.note(format!(
        "{} requests; detect counts from {MAX_LAG:?} of lag on; {IDLE} s idle, not 60 s; {}",
        requests.0.len() + idlers.0.len(),
        summary(&errors)
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("no error", errors.is_empty());
    report.check("no lag on an idle primary", !falsely);
    report.check("the replica leaves", left);
    report.check("it comes back", returned && report.recover.is_some());
    report.check_time("it leaves within a probe", report.detect, PROBE);
    report.check_time("it is back within a probe", report.recover, PROBE);
    report
}

/// Whether the cluster tells this of a node before patience ends.
async fn is_told(trio: &Trio, what: &str, since: Instant, patience: Duration) -> bool {
    while since.elapsed() < patience {
        if trio.told_since(since).iter().any(|line| line.contains(what)) {
            return true;
        }
        seconds(0.02).await;
    }
    false
}
