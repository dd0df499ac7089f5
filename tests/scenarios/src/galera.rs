//! Three servers that all take writes: one freezes, one is cut off from the
//! others, two write the same.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::drivers::mysql::Mysql;
use millpond::{Cluster, Error, Outcome, Retry, Route};
use millpond_harness::{Galera, Server};

use crate::lines::Lines;
use crate::load::{Kind, Load, MYSQL, READERS, TABLES, WRITERS, summary};
use crate::site::{blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const NODE_FROZEN: Scenario = Scenario {
    name: "F18g",
    what: "Galera: a node freezes",
    optional: true,
    run: || Box::pin(node_away(Server::freeze, Server::thaw, READERS)),
};

pub(crate) const NODE_CUT_OFF: Scenario = Scenario {
    name: "F18n",
    what: "Galera: a node is cut off from the others",
    optional: true,
    run: || Box::pin(node_away(isolate, unite, 0)),
};

pub(crate) const WRITES_CONFLICT: Scenario = Scenario {
    name: "F18c",
    what: "Galera: nodes write the same row",
    optional: true,
    run: || Box::pin(writes_conflict()),
};

/// Longer than the others take to leave a silent node out: 2 s.
const AWAY: f64 = 5.0;

struct Site {
    galera: Galera,
    lines: Lines,
}

impl Site {
    fn start() -> Option<Self> {
        let galera = Galera::start(3)?;
        galera.nodes()[0].sql(TABLES);
        let lines = Lines::to(galera.nodes()).of_peers();
        Some(Self { galera, lines })
    }

    async fn cluster(&self) -> Cluster<Mysql> {
        self.lines.cluster(Mysql::from_url).await
    }
}

fn absent() -> Report {
    Report::absent("Galera is not installed (scripts/servers galera does it)")
}

/// It hears no other node, and takes no statements then: error 1047.
fn isolate(node: &Server) {
    node.sql("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=1'");
}

fn unite(node: &Server) {
    node.sql("SET GLOBAL wsrep_provider_options = 'gmcast.isolate=0'");
}

/// Of reads so many may fail: a session that may write could have written, and what
/// a node that is silent has made of that is unknown.
async fn node_away(leave: fn(&Server), return_: fn(&Server), reads_lost: usize) -> Report {
    let Some(site) = blocking(Site::start).await else { return absent() };
    let (mut report, site) = (Report::default(), Arc::new(site));
    let cluster = site.cluster().await;
    let load = Load::start(&cluster, Route::Any, MYSQL);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&site);
    blocking(move || leave(&at.galera.nodes()[1])).await;
    seconds(AWAY).await;
    let at = Arc::clone(&site);
    blocking(move || return_(&at.galera.nodes()[1])).await;
    let back = Instant::now();
    seconds(5.0).await;
    let requests = load.end().await;

    let last = requests.last_sent("b", fault, back);
    report.detect = Some(last.map_or(Duration::ZERO, |at| at - fault));
    report.recover = requests.first_sent("b", back).map(|at| at - back);
    let (reads, writes) = (requests.errors(Kind::Read), requests.errors(Kind::Write));
    report.errors = reads.len() + writes.len();
    let unknown = requests.unknown();
    report.unknown = unknown.len();
    let at = Arc::clone(&site);
    let rows = blocking(move || at.galera.nodes()[0].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let unknown: Vec<&Error> = unknown.iter().filter_map(|it| it.error.as_ref()).collect();
    report.note(format!(
        "{} requests; p99 of reads {} ms, of writes {} ms; {} | {}",
        requests.0.len(),
        requests.percentile(Kind::Read, 99, fault, back).as_millis(),
        requests.percentile(Kind::Write, 99, fault, back).as_millis(),
        summary(&[reads.clone(), writes.clone()].concat()),
        summary(&unknown)
    ));
    site.lines.told_since(fault).into_iter().for_each(|line| report.note(line));
    let known = reads.iter().filter(|error| error.outcome() != Outcome::Unknown).count();
    report.check("no error but for what is unknown", known == 0 && writes.is_empty());
    report.check("reads that fail were under way", reads.len() <= reads_lost);
    report.check("unknown is only what was under way", report.unknown <= WRITERS);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    let told = site.lines.told_since(fault);
    let away = told.iter().take_while(|line| millis(line) < (back - fault).as_millis());
    report.check(
        "it stays out until then",
        !away.into_iter().any(|line| line.ends_with("b is used")),
    );
    report.check("the node comes back", report.recover.is_some());
    // What a node that is cut off takes to notice it counts too.
    report.check_time("detect", report.detect, Duration::from_millis(4500));
    report
}

/// When a line was told.
fn millis(line: &str) -> u128 {
    let number = line.trim_start().split(' ').next().unwrap_or_default();
    number.parse().unwrap_or_default()
}

const CALLERS: usize = 6;
const TIMES: usize = 20;

async fn writes_conflict() -> Report {
    let Some(site) = blocking(Site::start).await else { return absent() };
    let (mut report, site) = (Report::default(), Arc::new(site));
    let table =
        "CREATE TABLE counter (id int PRIMARY KEY, n int); INSERT INTO counter VALUES (1, 0)";
    let at = Arc::clone(&site);
    blocking(move || at.galera.nodes()[0].sql(table)).await;
    let cluster = site.cluster().await;
    // Conflicts are the rule here: a budget would end them.
    let policy = Retry::new().max_attempts(200).budget(None);
    let callers = (0..CALLERS).map(|_| async {
        let mut ended = Vec::new();
        for _ in 0..TIMES {
            let work = cluster.transaction(&policy, |tx| {
                Box::pin(async move {
                    let next = "UPDATE counter SET n = n + 1 WHERE id = 1";
                    tx.execute(next, &[]).await.map(drop)
                })
            });
            ended.push(work.await);
        }
        ended
    });
    let ended: Vec<Result<(), Error>> = join_all(callers).await.into_iter().flatten().collect();

    let errors: Vec<&Error> = ended.iter().filter_map(|it| it.as_ref().err()).collect();
    report.errors = errors.len();
    let at = Arc::clone(&site);
    let sum = "SET wsrep_sync_wait = 1; SELECT n FROM counter";
    let sum = blocking(move || at.galera.nodes()[0].sql(sum)).await;
    let sum: usize = sum[0][0].parse().expect("a number");
    let retries = cluster.snapshot().retries;
    let done = ended.len() - errors.len();
    report.note(format!(
        "{done} transactions succeeded, {sum} took place, {retries} retries; {}",
        summary(&errors)
    ));
    cluster.snapshot().to_string().lines().for_each(|line| report.note(line));
    report.check("there were conflicts", retries > 0);
    report.check("no error", errors.is_empty());
    report.lost = done.saturating_sub(sum);
    report.duplicated = sum.saturating_sub(done);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report
}
