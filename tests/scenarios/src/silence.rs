//! A replica that says nothing any more, and whose connections stay open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::Route;

use crate::load::{Kind, Load, POSTGRES, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

pub(crate) const REPLICA_FROZEN: Scenario = Scenario {
    name: "F4",
    what: "a replica is frozen",
    optional: false,
    run: || Box::pin(silent(|trio| trio.servers[1].freeze(), |trio| trio.servers[1].thaw())),
};

pub(crate) const LINE_DEAD: Scenario = Scenario {
    name: "F4p",
    what: "the line to a replica swallows everything",
    optional: false,
    run: || Box::pin(silent(|trio| trio.proxies[1].stall(), |trio| trio.proxies[1].pass())),
};

async fn silent(begin: fn(&Trio), end: fn(&Trio)) -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    let start = Instant::now();
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    blocking(move || begin(&at)).await;
    seconds(4.0).await;
    let back = Instant::now();
    let at = Arc::clone(&trio);
    blocking(move || end(&at)).await;
    seconds(2.0).await;
    let requests = load.end().await;

    let last = requests.last_sent("b", fault, back);
    report.detect = Some(last.map_or(Duration::ZERO, |at| at - fault));
    report.recover = requests.first_sent("b", back).map(|at| at - back);
    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    (report.errors, report.unknown) = (errors.len(), requests.unknown().len());
    let at = Arc::clone(&trio);
    let rows = blocking(move || at.servers[0].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let known = fault + MS * 2500;
    let p99 = |from, to| requests.percentile(Kind::Read, 99, from, to);
    let (before, within, after) = (p99(start, fault), p99(fault, known), p99(known, back));
    let worst = requests.percentile(Kind::Read, 100, fault, known);
    report.note(format!(
        "{} requests; 99 of 100 reads take {before:.1?} before, {within:.1?} while it is found out \
         (all {worst:.1?}), {after:.1?} after that; {}",
        requests.0.len(),
        summary(&errors)
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    let told = trio.told.lock().expect("no panic").clone();
    let out = told.iter().find(|(at, line)| *at >= fault && line.starts_with("b is out"));
    report.check("no error", errors.is_empty());
    report.check("nothing unknown", report.unknown == 0);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report.check_time("detect", report.detect, MS * 2500);
    // Those who wait there are given up then.
    report.check_time("out", out.map(|(at, _)| *at - fault), MS * 2500);
    report.check_time("p99 while it is found out", Some(within), MS * 3000);
    report.check_time("p99 after that", Some(after), (before * 2).max(MS * 20));
    report.check_time("recover", report.recover, MS * 1500);
    report
}
