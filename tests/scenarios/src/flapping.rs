//! A replica that comes and goes.

use std::sync::Arc;
use std::time::Instant;

use millpond::Route;

use crate::load::{Kind, Load, POSTGRES, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const REPLICA_FLAPS: Scenario = Scenario {
    name: "F17",
    what: "a replica is there every other second",
    optional: false,
    run: || Box::pin(replica_flaps()),
};

/// How often it goes.
const TIMES: usize = 10;
/// How often it may be put out in that time. Each time lasts twice as long as the
/// one before, so that with this many the eighth does not begin within a minute.
const MOST: usize = 5;

async fn replica_flaps() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(2.0).await;

    let fault = Instant::now();
    let mut outs = Vec::new();
    let mut ejections = cluster.snapshot().node("b").expect("a node").ejections;
    for half in 0..2 * TIMES {
        let at = Arc::clone(&trio);
        blocking(move || match half % 2 {
            0 => {
                at.proxies[1].refuse();
                at.proxies[1].reset();
            }
            _ => at.proxies[1].pass(),
        })
        .await;
        let began = Instant::now();
        while began.elapsed().as_secs_f64() < 1.0 {
            let now = cluster.snapshot().node("b").expect("a node").ejections;
            if now > ejections {
                ejections = now;
                outs.push(fault.elapsed());
            }
            seconds(0.01).await;
        }
    }
    let requests = load.end().await;

    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    report.errors = errors.len();
    let picks = requests.0.iter().flat_map(|it| &it.sent).filter(|it| it.0 == "b").count();
    let seconds: Vec<_> = outs.iter().map(|at| format!("{:.1}", at.as_secs_f64())).collect();
    report.note(format!(
        "{} requests, {picks} sent to it; {} s, not 60 s; out at {} s; {}",
        requests.0.len(),
        2 * TIMES,
        seconds.join(", "),
        summary(&errors)
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("no error", errors.is_empty());
    let span = 2 * TIMES;
    report.check(format!("out at most {MOST} times in {span} s"), outs.len() <= MOST);
    // By chance it comes back a second earlier or later, so of two in a row one may
    // be no longer than the other.
    let gaps: Vec<_> = outs.windows(2).map(|two| two[1] - two[0]).collect();
    let longer = gaps.last().zip(gaps.first()).is_some_and(|(last, first)| *last > *first * 3 / 2);
    report.check("out for longer and longer", longer);
    report
}
