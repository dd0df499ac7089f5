//! Callers that give up at any moment, while servers freeze and fall.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Retry, Route};

use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const CALLERS_GIVE_UP: Scenario = Scenario {
    name: "F21",
    what: "callers give up, amid a freeze and a failover",
    optional: false,
    run: || Box::pin(callers_give_up()),
};

const CALLERS: usize = 32;
/// The longest that one of them waits: more than a statement takes, and less than
/// the faults last.
const PATIENCE: Duration = Duration::from_millis(60);

/// How futures ended.
#[derive(Debug, Default)]
struct Ends {
    dropped: AtomicUsize,
    succeeded: AtomicUsize,
    failed: AtomicUsize,
}

async fn callers_give_up() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(|| Trio::start().synchronous()).await);
    let cluster = trio.cluster().await;
    let (ends, over) = (Arc::new(Ends::default()), Arc::new(AtomicBool::new(false)));
    let policy = Retry::new();
    let callers = (0..CALLERS).map(|number| {
        let (cluster, policy) = (cluster.clone(), policy.clone());
        let (ends, over) = (Arc::clone(&ends), Arc::clone(&over));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                let patience = PATIENCE.mul_f64(fastrand::f64());
                let work = call(&cluster, &policy, number);
                let count = match tokio::time::timeout(patience, work).await {
                    Err(_) => &ends.dropped,
                    Ok(Ok(())) => &ends.succeeded,
                    Ok(Err(_)) => &ends.failed,
                };
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    seconds(1.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    blocking(move || at.servers[2].freeze()).await;
    seconds(3.0).await;
    let at = Arc::clone(&trio);
    blocking(move || at.servers[2].thaw()).await;
    seconds(1.0).await;
    let at = Arc::clone(&trio);
    blocking(move || {
        at.servers[0].stop();
        at.servers[1].promote();
        at.servers[1].wait_until_writable();
        at.servers[2].follow(&at.servers[1]);
    })
    .await;
    seconds(1.0).await;
    over.store(true, Ordering::Relaxed);
    join_all(callers).await.into_iter().for_each(|caller| caller.expect("no panic"));

    let end = Instant::now();
    let at = cluster.clone();
    let quiet = until(move || is_quiet(&at)).await;
    report.recover = quiet.then(|| end.elapsed());
    let (at, servers) = (cluster.clone(), Arc::clone(&trio));
    let held = until(move || strays(&servers, &at).is_none()).await;
    let (at, servers) = (cluster.clone(), Arc::clone(&trio));
    let strays = blocking(move || strays(&servers, &at)).await.unwrap_or_default();
    let count = |it: &AtomicUsize| it.load(Ordering::Relaxed);
    report.note(format!(
        "{} dropped, {} succeeded, {} failed; {strays}",
        count(&ends.dropped),
        count(&ends.succeeded),
        count(&ends.failed)
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    cluster.snapshot().to_string().lines().for_each(|line| report.note(line));
    cluster.close().await;
    let at = Arc::clone(&trio);
    let left = move || at.servers[1..].iter().map(|it| it.sessions("test")).sum::<usize>();
    let all_gone = until(move || left() == 0).await;
    report.check("futures were dropped", count(&ends.dropped) > 100);
    report.check("loads, loans and queues return to nothing", quiet);
    report.check("the servers have the sessions the pools know of", held);
    report.check("none is left when the cluster is closed", all_gone);
    report
}

/// Something that takes a connection, and a while.
async fn call(cluster: &Cluster<Postgres>, policy: &Retry, number: usize) -> millpond::Result<()> {
    let route = if number % 3 == 0 { Route::Primary } else { Route::Replica };
    match number % 4 {
        0 => {
            let conn = cluster.acquire(route).await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
            drop(conn);
            Ok(())
        }
        1 => cluster
            .query(route, "SELECT count(*), pg_sleep(0.01) FROM account", &[])
            .await
            .map(drop),
        2 => {
            let mut conn = cluster.acquire(route).await?;
            conn.query("SELECT pg_sleep(0.02)", &[]).await.map(drop)
        }
        _ => {
            let work = cluster.transaction(policy, |tx| {
                Box::pin(async move {
                    tx.query("SELECT count(*) FROM account", &[]).await?;
                    tx.query("SELECT pg_sleep(0.01)", &[]).await.map(drop)
                })
            });
            work.route(route).await
        }
    }
}

/// Whether it comes to be so, within some seconds.
async fn until(is_so: impl Fn() -> bool + Send + 'static) -> bool {
    let wait = move || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(8) {
            if is_so() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    };
    blocking(wait).await
}

fn is_quiet(cluster: &Cluster<Postgres>) -> bool {
    cluster.snapshot().nodes.iter().all(|node| {
        let pool = &node.pool;
        node.load == 0
            && (pool.in_use, pool.waiting) == (0, 0)
            && pool.checking + pool.cleaning + pool.closing == 0
    })
}

/// What sessions a server has that runs, if they are not those its pool has
/// connections for, and one for probes.
fn strays(trio: &Trio, cluster: &Cluster<Postgres>) -> Option<String> {
    let open: Vec<_> = cluster.snapshot().nodes.iter().map(|node| node.pool.open).collect();
    let found: Vec<_> = trio.servers[1..].iter().map(|it| it.sessions("test")).collect();
    let same = |(found, open): (&usize, &usize)| (*open..=open + 1).contains(found);
    let all_same = found.iter().zip(&open[1..]).all(same);
    let differ = || format!("{found:?} sessions on b and c, {:?} connections", &open[1..]);
    (!all_same).then(differ)
}
