//! Callers that are slow and use a pool up, while the database is well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::health::State;
use millpond::{Error, ErrorKind, Phase, Route};

use crate::load::{Kind, Load, POSTGRES, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

pub(crate) const USED_UP: Scenario = Scenario {
    name: "F10",
    what: "slow callers use up the pools of the replicas",
    optional: false,
    run: || Box::pin(used_up()),
};

/// How many connections each pool may have.
const MOST: usize = 4;
/// How long callers wait for one.
const PATIENCE: Duration = Duration::from_millis(500);

const SLOW: &str = "SELECT count(*) FROM account, pg_sleep(3)";

async fn used_up() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let builder = trio.builder_with(|config| config.max_open_conns(MOST));
    let cluster = builder.acquire_timeout(PATIENCE).build().await.expect("a cluster");
    let load = Load::start(&cluster, Route::PreferReplica, POSTGRES);
    seconds(2.0).await;

    let fault = Instant::now();
    let slow = (0..2 * MOST).map(|_| async {
        let mut conn = cluster.acquire(Route::Replica).await?;
        conn.query(SLOW, &[]).await.map(drop)
    });
    let mut states = Vec::new();
    let look = async {
        while fault.elapsed() < MS * 3500 {
            states.extend(cluster.snapshot().nodes.into_iter().map(|it| (it.state, it.ejections)));
            seconds(0.02).await;
        }
    };
    let (slow, ()) = futures_util::future::join(join_all(slow), look).await;
    let over = Instant::now();
    seconds(1.0).await;
    let requests = load.end().await;

    let waited = requests.errors(Kind::Read);
    let others = [
        requests.errors(Kind::Write),
        requests.unknown().iter().filter_map(|it| it.error.as_ref()).collect(),
    ]
    .concat();
    let slow: Vec<&Error> = slow.iter().filter_map(|done| done.as_ref().err()).collect();
    report.errors = waited.len() + others.len() + slow.len();
    let late = requests.of(Kind::Read).filter(|it| it.error.is_some() && it.began >= over).count();
    let one = summary(&waited[..waited.len().min(1)]);
    report.note(format!("{} requests; readers are told: {one}", requests.0.len()));
    report.note(format!("of others: {}", summary(&[others.clone(), slow.clone()].concat())));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    let told_why = |error: &&Error| {
        error.kind() == ErrorKind::Timeout(Phase::Waiting)
            && error.report().is_some_and(|it| (it.in_use, it.max_open) == (MOST, Some(MOST)))
    };
    let on_primary = requests.of(Kind::Read).flat_map(|read| &read.sent);
    let on_primary = on_primary.filter(|(node, _)| node == "a").count();
    report.check("slow callers are served", slow.is_empty());
    report.check("readers time out meanwhile", !waited.is_empty());
    report.check("each is told of what is in use", waited.iter().all(told_why));
    report.check("no other fails", others.is_empty());
    report.check("none once they are gone", late == 0);
    report.check("none falls on the primary", on_primary == 0);
    let well = states.iter().all(|state| *state == (State::Up, 0));
    report.check("no node changes its state", well && trio.told_since(fault).is_empty());
    let longest = requests.of(Kind::Read).map(|read| read.took()).max();
    report.check_time("nobody waits longer", longest, PATIENCE + MS * 100);
    report
}
