//! The numbers of a cluster, read all the time while its primary falls.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Route, Snapshot, metrics};

use crate::load::{Kind, Load, POSTGRES, Words, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const METRICS_SCRAPED: Scenario = Scenario {
    name: "F22",
    what: "metrics are scraped during a failover",
    optional: false,
    run: || Box::pin(metrics_scraped()),
};

/// Some are always under way.
const SLOW: Words =
    Words { read: "SELECT count(*), pg_sleep(0.02) FROM account", write: POSTGRES.write };

async fn metrics_scraped() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(|| Trio::start().synchronous()).await);
    let cluster = trio.cluster().await;
    let over = Arc::new(AtomicBool::new(false));
    let scraper = tokio::spawn(scrape(cluster.clone(), Arc::clone(&over)));
    let load = Load::start(&cluster, Route::Replica, SLOW);
    seconds(1.0).await;
    // So that there is something to repeat.
    for _ in 0..5 {
        let at = Arc::clone(&trio);
        blocking(move || at.proxies[2].reset()).await;
        seconds(0.1).await;
    }

    let at = Arc::clone(&trio);
    blocking(move || {
        at.servers[0].kill();
        at.servers[1].promote();
        at.servers[1].wait_until_writable();
        at.servers[2].follow(&at.servers[1]);
    })
    .await;
    seconds(2.0).await;
    let requests = load.end().await;
    over.store(true, Ordering::Relaxed);
    let (scrapes, wrong) = scraper.await.expect("no panic");

    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    report.errors = errors.len();
    report.unknown = requests.unknown().len();
    let again = requests.0.iter().map(|it| it.sent.len().saturating_sub(1) as u64).sum::<u64>();
    let retries = cluster.snapshot().retries;
    let told = Numbers::of(&cluster).all.get("millpond_cluster_retries_total").copied();
    report.note(format!(
        "{scrapes} scrapes, {} of them wrong; {} requests, {again} attempts beyond the first, \
         {retries} retries; {}",
        wrong.len(),
        requests.0.len(),
        summary(&errors)
    ));
    let agree = wrong.is_empty();
    wrong.into_iter().take(3).for_each(|line| report.note(line));
    report.check("it was scraped", scrapes > 100);
    report.check("the numbers agree at any moment", agree);
    report.check("there were retries", again > 0);
    report.check("each is counted once", retries == again && told == Some(retries));
    let late = cluster.snapshot();
    let all_back = late.nodes.iter().all(|node| node.pool.acquired == node.pool.released);
    report.check("what was acquired is released", all_back);
    report
}

/// Until it is over: how often, and what did not agree.
async fn scrape(cluster: Cluster<Postgres>, over: Arc<AtomicBool>) -> (usize, Vec<String>) {
    let (mut scrapes, mut wrong) = (0, Vec::new());
    let mut before = Numbers::default();
    while !over.load(Ordering::Relaxed) {
        for node in cluster.snapshot().nodes {
            if let Some(what) = disagreement(&node.pool) {
                wrong.push(format!("{}: {what}: {:?}", node.name, node.pool));
            }
        }
        let now = Numbers::of(&cluster);
        wrong.extend(now.disagreements());
        wrong.extend(now.fallen_since(&before));
        before = now;
        scrapes += 1;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    (scrapes, wrong)
}

/// What of a pool's numbers contradicts the others.
fn disagreement(pool: &Snapshot) -> Option<&'static str> {
    let sum = pool.in_use + pool.idle + pool.checking + pool.cleaning + pool.closing;
    if sum != pool.open {
        return Some("open is not the sum of its parts");
    }
    if pool.created - pool.closed != pool.open as u64 {
        return Some("created less closed is not open");
    }
    (pool.acquired - pool.released != pool.in_use as u64)
        .then_some("acquired less released is not in use")
}

/// What a scraper reads: the names with their labels, and the numbers.
#[derive(Debug, Default)]
struct Numbers {
    all: BTreeMap<String, u64>,
}

impl Numbers {
    fn of(cluster: &Cluster<Postgres>) -> Self {
        let text = metrics::openmetrics(&[cluster]);
        let number = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self { all: lines.filter_map(number).collect() }
    }

    /// The sum of a metric for one node, over what else it is told by.
    fn sum(&self, name: &str, node: &str) -> u64 {
        let label = format!("db_client_connection_pool_name=\"{node}\"");
        let of = |key: &str| {
            key.strip_prefix(name).is_some_and(|it| it.starts_with('{')) && key.contains(&label)
        };
        self.all.iter().filter(|(key, _)| of(key)).map(|(_, value)| value).sum()
    }

    fn state(&self, name: &str, node: &str, state: &str) -> u64 {
        let labels =
            [format!("state=\"{state}\""), format!("db_client_connection_pool_name=\"{node}\"")];
        let of =
            |key: &String| key.starts_with(name) && labels.iter().all(|label| key.contains(label));
        self.all.iter().filter(|(key, _)| of(key)).map(|(_, value)| value).sum()
    }

    fn disagreements(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for node in crate::site::NAMES {
            let count = self.sum("db_client_connection_count", node);
            let states = self.sum("millpond_connection_count", node);
            let state = |state| self.state("millpond_connection_count", node, state);
            let created = self.sum("millpond_connection_created_total", node);
            let closed = self.sum("millpond_connection_closed_total", node);
            let acquired = self.sum("millpond_acquired_total", node);
            let released = self.sum("millpond_released_total", node);
            if states != count + state("opening") {
                wrong.push(format!("{node}: used and idle are {count}, all states {states}"));
            }
            // One that is being closed counts as closed here.
            if created != closed + count - state("closing") {
                wrong.push(format!("{node}: {created} created, {closed} closed, {count} there"));
            }
            if acquired != released + state("in_use") {
                wrong.push(format!("{node}: {acquired} acquired, {released} released"));
            }
        }
        wrong
    }

    /// Counters that are less than they were.
    fn fallen_since(&self, before: &Self) -> Vec<String> {
        let counts = before.all.iter().filter(|(name, _)| {
            name.split('{').next().is_some_and(|name| name.ends_with("_total"))
        });
        let fallen = counts.filter(|(name, count)| self.all.get(*name).is_none_or(|it| it < count));
        fallen.map(|(name, count)| format!("{name} has fallen from {count}")).collect()
    }
}
