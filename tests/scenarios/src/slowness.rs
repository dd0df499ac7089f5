//! A node that becomes slow, and forty programs with a few callers each that have
//! to find out, each by itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Route};
use millpond_harness::Fault;

use crate::load::{Kind, Load, POSTGRES, Requests, summary};
use crate::site::{NAMES, Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

/// How many programs there are, each with a cluster of its own.
const PROGRAMS: usize = 40;
/// How many callers each has.
const CALLERS: usize = 2;
const DELAY: Duration = Duration::from_millis(50);
/// Within these shares of three a node has its part.
const FAIR: std::ops::RangeInclusive<f64> = 25.0..=40.0;

pub(crate) const REPLICA_SLOW: Scenario = Scenario {
    name: "F5",
    what: "a replica becomes slow, for 40 programs",
    optional: false,
    run: || Box::pin(slow()),
};

async fn slow() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let clusters = join_all((0..PROGRAMS).map(|_| async {
        let builder = trio.builder_with(|config| config.max_open_conns(2));
        builder.build().await.expect("a cluster")
    }));
    let clusters = clusters.await;
    let start = |cluster| Load::of(cluster, Route::Any, POSTGRES, CALLERS, 0);
    let loads: Vec<_> = clusters.iter().map(start).collect();
    seconds(2.0).await;
    let healthy = Instant::now();
    seconds(4.0).await;

    let fault = Instant::now();
    trio.proxies[1].to_client(Fault::Delay(DELAY));
    seconds(8.0).await;
    trio.proxies[1].pass();
    let over = Instant::now();
    while over.elapsed() < Duration::from_secs(25) {
        let before = picks(&clusters);
        seconds(2.0).await;
        if FAIR.contains(&share(before, picks(&clusters))) {
            break;
        }
    }
    let end = Instant::now();
    let mut requests = Vec::new();
    for load in loads {
        requests.extend(load.end().await.0);
    }
    let requests = Requests(requests);

    let errors = requests.errors(Kind::Read);
    report.errors = errors.len();
    // The first second from which on it is left alone, told in tenths.
    let left_alone = (0..60).map(|tenth| fault + MS * 100 * tenth);
    let left_alone = left_alone.into_iter().find(|at| sent(&requests, *at, MS * 1000) < 5.0);
    report.detect = left_alone.map(|at| at - fault);
    let fair = (0..).map(|tenth| over + MS * 100 * tenth);
    let fair = fair.take_while(|at| *at + MS * 2000 <= end);
    let fair = fair.into_iter().find(|at| FAIR.contains(&sent(&requests, *at, MS * 2000)));
    report.recover = fair.map(|at| at - over);
    let known = fault + MS * 2000;
    let p99 = |from, to| requests.percentile(Kind::Read, 99, from, to);
    let (well, found, slow) = (p99(healthy, fault), p99(fault, known), p99(known, over));
    let by_second = |from: Instant, to: Instant| {
        let seconds = (0..).map(|second| from + MS * 1000 * second);
        let shares = seconds.take_while(|at| *at + MS * 1000 <= to);
        let shares = shares.map(|at| format!("{:.1}", sent(&requests, at, MS * 1000)));
        shares.collect::<Vec<_>>().join(" ")
    };
    report.note(format!("{} requests; {}", requests.0.len(), summary(&errors)));
    report.note(format!(
        "99 of 100 take {well:.1?} before, {found:.1?} while it is found out, {slow:.1?} after that"
    ));
    report.note(format!(
        "its share was {:.1} % before; by the second {}; and {} when it is well again",
        sent(&requests, healthy, fault - healthy),
        by_second(fault, over),
        by_second(over, end)
    ));
    report.check("no error", errors.is_empty());
    report.check_time("less than a twentieth go there", report.detect, MS * 2000);
    report.check_time("p99 then", Some(slow), well * 2);
    report.check_time("its part again", report.recover, MS * 20_000);
    report
}

/// How often each node was picked.
fn picks(clusters: &[Cluster<Postgres>]) -> [u64; 3] {
    let snapshots: Vec<_> = clusters.iter().map(Cluster::snapshot).collect();
    NAMES.map(|name| snapshots.iter().filter_map(|all| all.node(name)).map(|node| node.picks).sum())
}

/// The share of the slow node in what came between, in percent.
fn share(before: [u64; 3], after: [u64; 3]) -> f64 {
    let [a, b, c] = [0, 1, 2].map(|index| (after[index] - before[index]) as f64);
    100.0 * b / (a + b + c).max(1.0)
}

/// The share of the slow node in what was sent in this span, in percent.
fn sent(requests: &Requests, from: Instant, span: Duration) -> f64 {
    let sent = requests.0.iter().flat_map(|request| &request.sent);
    let then = sent.filter(|(_, at)| *at >= from && *at < from + span);
    let (slow, all) =
        then.fold((0, 0), |(slow, all), (node, _)| (slow + usize::from(node == NAMES[1]), all + 1));
    100.0 * slow as f64 / all.max(1) as f64
}
