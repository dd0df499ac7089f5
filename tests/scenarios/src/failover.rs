//! The primary falls, and a standby is promoted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::Route;
use millpond_harness::Server;

use crate::load::{Kind, Load, POSTGRES, WRITERS, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

pub(crate) const PRIMARY_STOPPED: Scenario = Scenario {
    name: "F6",
    what: "the primary is stopped, a standby promoted",
    optional: false,
    run: || Box::pin(failover(Server::stop)),
};

pub(crate) const PRIMARY_KILLED: Scenario = Scenario {
    name: "F7",
    what: "the primary is killed, a standby promoted",
    optional: false,
    run: || Box::pin(failover(Server::kill)),
};

async fn failover(end: fn(&Server)) -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(|| Trio::start().synchronous()).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    let visible = blocking(move || {
        end(&at.servers[0]);
        at.servers[1].promote();
        at.servers[1].wait_until_writable();
        let visible = Instant::now();
        at.servers[2].follow(&at.servers[1]);
        visible
    })
    .await;
    seconds(2.0).await;
    let requests = load.end().await;

    let last = requests.last_sent("a", fault, Instant::now());
    report.detect = Some(last.map_or(Duration::ZERO, |at| at - fault));
    let resumed = requests.first_success(Kind::Write, visible);
    report.recover = resumed.map(|at| at - visible);
    let (reads, writes) = (requests.errors(Kind::Read), requests.errors(Kind::Write));
    report.errors = reads.len() + writes.len();
    let unknown = requests.unknown();
    report.unknown = unknown.len();
    let at = Arc::clone(&trio);
    let rows = blocking(move || at.servers[1].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    report.note(format!(
        "{} requests; visible {} ms after the fault; {}",
        requests.0.len(),
        (visible - fault).as_millis(),
        summary(&[reads.clone(), writes.clone()].concat())
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("no read fails", reads.is_empty());
    report.check("at most one write fails", writes.len() <= 1);
    report.check("unknown is only what was under way", unknown.len() <= WRITERS);
    let repeated = unknown.iter().any(|request| request.sent.len() > 1);
    report.check("nothing unknown is repeated", !repeated);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report.check_time("writes resume", report.recover, MS * 500);
    report
}
