//! Many pools that lose all connections at the same time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::balance::Member;
use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Event, Pool, Route};
use millpond_harness::Server;

use crate::load::{Kind, Load, POSTGRES, TABLES, kinds};
use crate::site::{blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const SERVER_RESTARTED: Scenario = Scenario {
    name: "F16",
    what: "a server restarts under ten pools",
    optional: false,
    run: || Box::pin(server_restarted()),
};

const POOLS: usize = 10;
/// Connections of each.
const SIZE: usize = 5;
/// How many a pool may open at a time, by default.
const AT_ONCE: usize = 4;

/// When connects of a pool began and ended, and whether they succeeded.
type Connects = Arc<Mutex<Vec<(Instant, Instant, bool)>>>;

async fn server_restarted() -> Report {
    let mut report = Report::default();
    let server = Arc::new(blocking(|| Server::postgres().start()).await);
    server.sql(TABLES);
    let all: Vec<Connects> = (0..POOLS).map(|_| Connects::default()).collect();
    let clusters = all.iter().map(|connects| cluster(&server, Arc::clone(connects)));
    let clusters: Vec<_> = join_all(clusters).await;
    let loads: Vec<_> =
        clusters.iter().map(|it| Load::of(it, Route::PreferReplica, POSTGRES, 2, 1)).collect();
    full(&clusters, Duration::from_secs(20)).await.expect("all connections are open");
    seconds(1.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&server);
    blocking(move || at.stop()).await;
    seconds(2.0).await;
    let at = Arc::clone(&server);
    blocking(move || at.start_again()).await;
    let back = Instant::now();
    report.recover = full(&clusters, Duration::from_secs(20)).await;
    seconds(0.5).await;
    let ended = join_all(loads.into_iter().map(Load::end)).await;

    let errors: Vec<_> = ended
        .iter()
        .flat_map(|it| [it.errors(Kind::Read), it.errors(Kind::Write)].concat())
        .collect();
    report.errors = errors.len();
    report.unknown = ended.iter().map(|it| it.unknown().len()).sum();
    let since: Vec<Vec<_>> = all
        .iter()
        .map(|it| it.lock().expect("no panic").iter().copied().filter(|it| it.1 > fault).collect())
        .collect();
    let peak = since.iter().map(|it| overlap(it)).max().unwrap_or_default();
    let opened = since.iter().flatten().filter(|it| it.2);
    let mut starts: Vec<_> = opened.map(|it| it.0.saturating_duration_since(back)).collect();
    starts.sort_unstable();
    let failed = since.iter().flatten().filter(|it| !it.2).count();
    let mut crowd = BTreeMap::<u128, usize>::new();
    starts.iter().for_each(|at| *crowd.entry(at.as_millis() / 100).or_default() += 1);
    let crowd = crowd.into_values().max().unwrap_or_default();
    let middle = starts.get(starts.len() / 2).copied().unwrap_or_default();
    let last = starts.last().copied().unwrap_or_default();
    report.note(format!(
        "{failed} connects failed, {} succeeded; half of these began by {} ms, the last at {} ms \
         after the start, at most {crowd} in a tenth of a second; {peak} at a time in one pool; {}",
        starts.len(),
        middle.as_millis(),
        last.as_millis(),
        kinds(&errors)
    ));
    report.check(format!("a pool opens at most {AT_ONCE} at a time"), peak <= AT_ONCE);
    report.check("all are open again", report.recover.is_some());
    report.check("they are not opened all at a time", crowd < POOLS * SIZE);
    report.check_time("all open", report.recover, Duration::from_secs(10));
    report
}

async fn cluster(server: &Server, connects: Connects) -> Cluster<Postgres> {
    let driver = Postgres::from_url(&server.url()).expect("a URL of the harness");
    let pool = Pool::builder(driver).max_open_conns(SIZE).min_idle_conns(SIZE).observer(
        move |event: &Event<'_>| {
            let (took, well) = match event {
                Event::Connected { took, .. } => (*took, true),
                Event::ConnectFailed { took, .. } => (*took, false),
                _ => return,
            };
            let now = Instant::now();
            connects.lock().expect("no panic").push((now - took, now, well));
        },
    );
    let cluster = Cluster::builder().member(Member::new("a", pool)).build().await;
    cluster.expect("a cluster")
}

/// How long it takes until all connections of all pools are open.
async fn full(clusters: &[Cluster<Postgres>], patience: Duration) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < patience {
        let is_full = |it: &Cluster<Postgres>| {
            let pool = &it.snapshot().nodes[0].pool;
            pool.in_use + pool.idle == SIZE
        };
        if clusters.iter().all(is_full) {
            return Some(start.elapsed());
        }
        seconds(0.01).await;
    }
    None
}

/// The most at a time.
fn overlap(connects: &[(Instant, Instant, bool)]) -> usize {
    let at = |when: Instant| connects.iter().filter(|it| it.0 <= when && when < it.1).count();
    connects.iter().map(|it| at(it.0)).max().unwrap_or_default()
}
