//! Replicas that go away, and come back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::Route;
use millpond_harness::Server;

use crate::load::{Kind, Load, POSTGRES, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

pub(crate) const REPLICA_STOPPED: Scenario = Scenario {
    name: "F3",
    what: "a replica is stopped",
    optional: false,
    run: || Box::pin(replica_gone(Server::stop)),
};

pub(crate) const REPLICA_KILLED: Scenario = Scenario {
    name: "F3k",
    what: "a replica is killed",
    optional: false,
    run: || Box::pin(replica_gone(Server::kill)),
};

async fn replica_gone(end: fn(&Server)) -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    // It is gone as soon as its connections are, before the process is.
    blocking(move || end(&at.servers[1])).await;
    seconds(3.0).await;
    let at = Arc::clone(&trio);
    blocking(move || at.servers[1].start_again()).await;
    let back = Instant::now();
    seconds(3.0).await;
    let requests = load.end().await;

    let last = requests.last_sent("b", fault, back);
    report.detect = Some(last.map_or(Duration::ZERO, |at| at - fault));
    report.recover = requests.first_sent("b", back).map(|at| at - back);
    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    report.errors = errors.len();
    report.note(format!("{} requests; {}", requests.0.len(), summary(&errors)));
    let told = trio.told_since(fault);
    if !told.iter().any(|line| line.contains("b is out")) {
        // On a busy machine it may have looked slow before, and so be left alone.
        report.note("nobody came to b while it was away");
        report.recover = Some(Duration::ZERO);
    }
    told.into_iter().for_each(|line| report.note(line));
    report.check("no error", errors.is_empty());
    report.check_time("detect", report.detect, MS * 100);
    report.check_time("recover", report.recover, MS * 1500);
    report
}
