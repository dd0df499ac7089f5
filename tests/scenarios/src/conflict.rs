//! Standbys that cancel what reads there, because it is in the way of replay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Error, Retry, Route};

use crate::load::{Kind, Load, POSTGRES, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const RECOVERY_CONFLICT: Scenario = Scenario {
    name: "F14",
    what: "replay cancels reads on the replicas",
    optional: false,
    run: || Box::pin(recovery_conflict()),
};

/// How often the primary takes away what is read. A read takes a third of the
/// time between, so that one that is repeated comes through.
const TIMES: usize = 4;
const BETWEEN: f64 = 1.5;
/// Half of them read in a statement, half in a transaction that is idle mostly:
/// of the latter replay ends the session. They are few beside those of the load:
/// if all were repeated each time, their budget would end that.
const READERS: usize = 4;

async fn recovery_conflict() -> Report {
    let mut report = Report::default();
    let start = || Trio::with(|it| it.setting("max_standby_streaming_delay", 0));
    let trio = Arc::new(blocking(start).await);
    let cluster = trio.cluster().await;
    let over = Arc::new(AtomicBool::new(false));
    let policy = Retry::new();
    let readers = (0..READERS).map(|number| {
        let (cluster, policy, over) = (cluster.clone(), policy.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            seconds(0.06 * number as f64).await;
            let mut ended = Vec::new();
            while !over.load(Ordering::Relaxed) {
                ended.push(match number % 2 {
                    0 => read(&cluster, &policy).await,
                    _ => read_slowly(&cluster, &policy).await,
                });
            }
            ended
        })
    });
    let readers: Vec<_> = readers.collect();
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(1.0).await;

    let fault = Instant::now();
    for _ in 0..TIMES {
        let at = Arc::clone(&trio);
        blocking(move || {
            at.servers[0].sql("UPDATE account SET n = n + 1");
            at.servers[0].sql("VACUUM account");
            at.servers[0].sql("CREATE TABLE gone (n int); DROP TABLE gone");
        })
        .await;
        seconds(BETWEEN).await;
    }
    over.store(true, Ordering::Relaxed);
    let requests = load.end().await;
    let ended: Vec<Result<(), Error>> =
        join_all(readers).await.into_iter().flat_map(|it| it.expect("no panic")).collect();

    let mut errors: Vec<&Error> = ended.iter().filter_map(|it| it.as_ref().err()).collect();
    errors.extend(requests.errors(Kind::Read));
    errors.extend(requests.errors(Kind::Write));
    report.errors = errors.len();
    let count = |what: &str| -> usize {
        trio.servers[1..].iter().map(|server| server.log().matches(what).count()).sum()
    };
    let statements = count("ERROR:  canceling statement due to conflict with recovery");
    let sessions = count("FATAL:  terminating connection due to conflict with recovery");
    let snapshot = cluster.snapshot();
    report.note(format!(
        "{} long reads, {} requests; {statements} statements and {sessions} sessions ended by replay, {} retries; {}",
        ended.len(),
        requests.0.len(),
        snapshot.retries,
        summary(&errors)
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("replay has ended statements and sessions", statements > 0 && sessions > 0);
    report.check("what they did was repeated", snapshot.retries > 0);
    report.check("no error", errors.is_empty());
    let ejections: u64 = snapshot.nodes.iter().map(|node| node.ejections).sum();
    report.check("no node is out", ejections == 0);
    report
}

/// In one statement.
async fn read(cluster: &Cluster<Postgres>, policy: &Retry) -> Result<(), Error> {
    let work = cluster.run(Route::Replica, policy, |conn| {
        Box::pin(async { conn.query("SELECT count(*), pg_sleep(0.5) FROM account", &[]).await })
    });
    work.await.map(drop)
}

/// In a transaction that thinks in between.
async fn read_slowly(cluster: &Cluster<Postgres>, policy: &Retry) -> Result<(), Error> {
    let work = cluster.transaction(policy, |tx| {
        Box::pin(async move {
            let level = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ";
            tx.execute(level, &[]).await?;
            tx.query("SELECT count(*) FROM account", &[]).await?;
            seconds(0.5).await;
            tx.query("SELECT count(*) FROM account", &[]).await.map(drop)
        })
    });
    work.route(Route::Replica).await
}
