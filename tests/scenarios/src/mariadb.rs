//! A primary and a replica of MariaDB: sessions that are ended while nobody uses
//! them, and a replica that goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::drivers::mysql::Mysql;
use millpond::{Cluster, Error, Route};
use millpond_harness::{Builder, Server};

use crate::lines::Lines;
use crate::load::{Kind, Load, MYSQL, TABLES, WRITERS, summary};
use crate::site::{blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const IDLE_KILLED: Scenario = Scenario {
    name: "F18",
    what: "MariaDB: idle sessions are killed",
    optional: false,
    run: || Box::pin(idle_killed()),
};

pub(crate) const IDLE_TIMED_OUT: Scenario = Scenario {
    name: "F18w",
    what: "MariaDB: wait_timeout ends idle sessions",
    optional: false,
    run: || Box::pin(idle_timed_out()),
};

pub(crate) const REPLICA_SHUT_DOWN: Scenario = Scenario {
    name: "F18s",
    what: "MariaDB: the replica is shut down",
    optional: false,
    run: || Box::pin(replica_shut_down()),
};

/// So long an idle connection is lent without a check: of one that dies meanwhile
/// the next statement finds it.
const UNCHECKED: f64 = 1.0;
/// Callers at a time, when each has a connection of its own.
const BURST: usize = 8;

struct Pair {
    servers: Vec<Server>,
    lines: Lines,
}

impl Pair {
    fn start(set: impl FnOnce(Builder) -> Builder) -> Self {
        let primary = set(Server::mariadb().replicated()).start();
        primary.sql(TABLES);
        let replica = primary.replica();
        let servers = vec![primary, replica];
        let lines = Lines::to(&servers);
        Self { servers, lines }
    }

    async fn cluster(&self) -> Cluster<Mysql> {
        self.lines.cluster(Mysql::from_url).await
    }
}

async fn idle_killed() -> Report {
    let mut report = Report::default();
    let pair = Arc::new(blocking(|| Pair::start(|it| it)).await);
    let cluster = pair.cluster().await;
    let before = burst(&cluster, true).await;
    assert!(before.iter().all(Result::is_ok), "nothing has happened yet: {before:?}");

    let fault = Instant::now();
    let mut killed = 0;
    let mut ended = Vec::new();
    for _ in 0..3 {
        let at = Arc::clone(&pair);
        killed += blocking(move || at.servers.iter().map(kill_all).sum::<usize>()).await;
        seconds(UNCHECKED + 0.1).await;
        ended.extend(burst(&cluster, true).await);
    }
    judge(&mut report, &pair, &cluster, fault, &ended);
    report.note(format!("{killed} sessions killed, those of probes too"));
    report.check("there was somebody to kill", killed >= 3 * BURST);
    report
}

async fn idle_timed_out() -> Report {
    let mut report = Report::default();
    let start = || Pair::start(|it| it.setting("wait-timeout", 1));
    let pair = Arc::new(blocking(start).await);
    let cluster = pair.cluster().await;
    burst(&cluster, true).await;

    let fault = Instant::now();
    let mut ended = Vec::new();
    let mut left = Vec::new();
    for _ in 0..3 {
        // The server looks at its clock once a second or so.
        seconds(UNCHECKED * 2.2).await;
        let at = Arc::clone(&pair);
        left.push(blocking(move || at.servers[1].sessions("test")).await);
        ended.extend(burst(&cluster, true).await);
    }
    judge(&mut report, &pair, &cluster, fault, &ended);
    report.note(format!("sessions left on the replica before each use: {left:?}"));
    report.check("sessions were ended", left.iter().all(|left| *left <= 1));
    report
}

async fn replica_shut_down() -> Report {
    let mut report = Report::default();
    let pair = Arc::new(blocking(|| Pair::start(|it| it)).await);
    let cluster = pair.cluster().await;
    let load = Load::start(&cluster, Route::PreferReplica, MYSQL);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&pair);
    blocking(move || at.servers[1].stop()).await;
    seconds(3.0).await;
    let at = Arc::clone(&pair);
    blocking(move || at.servers[1].start_again()).await;
    let back = Instant::now();
    seconds(3.0).await;
    let requests = load.end().await;

    let last = requests.last_sent("b", fault, back);
    report.detect = Some(last.map_or(Duration::ZERO, |at| at - fault));
    report.recover = requests.first_sent("b", back).map(|at| at - back);
    let (reads, writes) = (requests.errors(Kind::Read), requests.errors(Kind::Write));
    report.errors = reads.len() + writes.len();
    report.unknown = requests.unknown().len();
    let at = Arc::clone(&pair);
    let rows = blocking(move || at.servers[0].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    report.note(format!(
        "{} requests; {}",
        requests.0.len(),
        summary(&[reads.clone(), writes.clone()].concat())
    ));
    pair.lines.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("no read fails", reads.is_empty());
    report.check("no write notices", writes.is_empty() && report.unknown == 0);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report.check_time("recover", report.recover, Duration::from_millis(1500));
    report
}

/// As many reads and writes at the same time as make each pool open several
/// connections, or use those it has.
async fn burst(cluster: &Cluster<Mysql>, writes: bool) -> Vec<Result<(), Error>> {
    let reads = (0..BURST).map(|_| async {
        let sql = "SELECT count(*), SLEEP(0.1) FROM account LIMIT 1";
        cluster.query(Route::Replica, sql, &[]).await.map(drop)
    });
    let writes = (0..if writes { WRITERS } else { 0 }).map(|_| async {
        cluster.execute("INSERT INTO token SELECT SLEEP(0.1)", &[]).await.map(drop)
    });
    let (reads, writes) = futures_util::join!(join_all(reads), join_all(writes));
    reads.into_iter().chain(writes).collect()
}

/// Ends all sessions but the one that does it, and those of replication: how many.
fn kill_all(server: &Server) -> usize {
    let others = "SELECT id FROM information_schema.processlist \
                  WHERE user = 'millpond' AND id <> connection_id()";
    let others = server.sql(others).concat();
    let kills: String = others.iter().map(|id| format!("KILL {id}; ")).collect();
    server.sql(&kills);
    others.len()
}

/// That nobody has noticed.
fn judge(
    report: &mut Report,
    pair: &Pair,
    cluster: &Cluster<Mysql>,
    fault: Instant,
    ended: &[Result<(), Error>],
) {
    let errors: Vec<&Error> = ended.iter().filter_map(|it| it.as_ref().err()).collect();
    report.errors = errors.len();
    let snapshot = cluster.snapshot();
    let retries = snapshot.retries;
    report.note(format!("{} requests, {retries} retries; {}", ended.len(), summary(&errors)));
    pair.lines.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("no error", errors.is_empty());
    report.check("found before use", retries == 0);
    let ejections: u64 = snapshot.nodes.iter().map(|node| node.ejections).sum();
    report.check("no node is out", ejections == 0);
}
