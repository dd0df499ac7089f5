//! Sessions that a server ends, while it goes on itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::{Outcome, Route, params};
use millpond_harness::Server;

use crate::load::{Kind, Load, POSTGRES, Words, summary};
use crate::site::{Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

pub(crate) const SOME_ENDED: Scenario = Scenario {
    name: "F1",
    what: "single sessions are ended, idle and busy",
    optional: false,
    run: || Box::pin(some_ended()),
};

pub(crate) const ALL_ENDED: Scenario = Scenario {
    name: "F2",
    what: "all sessions of a replica are ended",
    optional: false,
    run: || Box::pin(all_ended()),
};

/// How often each kind of session is ended.
const ROUNDS: usize = 3;

const BUSY_READ: &str = "SELECT count(*) FROM account, pg_sleep(1)";
const BUSY_WRITE: &str = "INSERT INTO token SELECT $1::bigint FROM pg_sleep(1)";

async fn some_ended() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let (mut idle, mut idle_ended) = (Vec::new(), 0);
    // Of a pool that has just one, it is the next to be used.
    for round in 0..=ROUNDS {
        let token = params![-1000 - round as i64];
        idle.extend(cluster.execute("INSERT INTO token VALUES ($1)", &token).await.err());
        for _replica in 0..2 {
            idle.extend(cluster.query(Route::Replica, POSTGRES.read, &[]).await.err());
        }
        if round < ROUNDS {
            let at = Arc::clone(&trio);
            let is_idle = "state = 'idle' AND (query LIKE '%token%' OR query LIKE '%account%')";
            let end_idle = move || at.servers.iter().map(|server| end_all(server, is_idle)).sum();
            idle_ended += blocking::<usize>(end_idle).await;
        }
    }

    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(1.0).await;
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let (read, at) = (cluster.clone(), Arc::clone(&trio));
        let read = tokio::spawn(async move { read.query(Route::Replica, BUSY_READ, &[]).await });
        blocking(move || end_one(&at.servers[1..], "query LIKE '%account, pg_sleep%'")).await;
        let (write, at) = (cluster.clone(), Arc::clone(&trio));
        let write =
            tokio::spawn(
                async move { write.execute(BUSY_WRITE, &params![-1 - round as i64]).await },
            );
        blocking(move || end_one(&at.servers[..1], "query LIKE '%FROM pg_sleep%'")).await;
        reads.extend(read.await.expect("no panic").err());
        writes.push(write.await.expect("no panic").err());
    }
    let requests = load.end().await;

    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    let is_unknown = |outcome: &Option<millpond::Error>| {
        outcome.as_ref().is_some_and(|error| error.outcome() == Outcome::Unknown)
    };
    let unknown = writes.iter().filter(|write| is_unknown(write)).count();
    // What was not sent, because the connection was gone before, is tried again.
    let earlier = writes.iter().flatten().flat_map(|error| error.earlier());
    let repeated = earlier.filter(|error| error.outcome() != Outcome::NotSent).count() > 0;
    report.errors = errors.len() + idle.len() + reads.len() + (ROUNDS - unknown);
    report.unknown = requests.unknown().len() + unknown;
    let at = Arc::clone(&trio);
    let rows = blocking(move || at.servers[0].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let others = [idle.iter().collect(), reads.iter().collect(), errors.clone()].concat();
    report.note(format!(
        "{} requests beside it; {idle_ended} idle and {} busy sessions ended; {}",
        requests.0.len(),
        2 * ROUNDS,
        summary(&others)
    ));
    report.note(summary(&writes.iter().flatten().collect::<Vec<_>>()));
    report.check("no error where an idle one was ended", idle.is_empty());
    report.check("no error where a busy read was", reads.is_empty());
    report.check("unknown is each busy write", unknown == ROUNDS);
    report.check("and it is not repeated", !repeated);
    report.check("nobody else sees any of it", errors.is_empty() && requests.unknown().is_empty());
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    let nodes = cluster.snapshot().nodes;
    report.check("no node put out", nodes.iter().all(|node| node.ejections == 0));
    report
}

/// Callers who keep a session for long enough that all are busy.
const BUSY: Words = Words { read: "SELECT count(*) FROM account, pg_sleep(0.05)", ..POSTGRES };
/// That many callers, at 50 ms of every 110, use up the pools of two replicas.
const CROWD: usize = 40;

async fn all_ended() -> Report {
    let mut report = Report::default();
    let logged = || Trio::with(|server| server.setting("log_connections", "on"));
    let trio = Arc::new(blocking(logged).await);
    let cluster = trio.cluster().await;
    let load = Load::of(&cluster, Route::Replica, BUSY, CROWD, 0);
    seconds(2.0).await;

    let known = trio.servers[1].log().len();
    let fault = Instant::now();
    let at = Arc::clone(&trio);
    let ended = blocking(move || end(&at.servers[1], "true")).await;
    let over = Instant::now();
    seconds(2.0).await;
    let requests = load.end().await;

    let errors = requests.errors(Kind::Read);
    report.errors = errors.len();
    report.recover = requests.first_sent("b", over).map(|at| at - over);
    let log = trio.servers[1].log().split_off(known);
    let (logins, most) = logins(&log);
    report.note(format!(
        "{} requests; {ended} sessions ended, {logins} logins after that, {most} at a time; {}",
        requests.0.len(),
        summary(&errors)
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    let snapshot = cluster.snapshot();
    let ejections = snapshot.node("b").map(|node| node.ejections);
    report.check("no read fails", errors.is_empty());
    report.check("the node is not put out", ejections == Some(0));
    report.check("callers were there to want all sessions back", logins > 4);
    // Besides the pool's there is the session of the probe.
    report.check("four logins at a time and that of the probe", most <= 5);
    report.check_time("recover", report.recover, MS * 100);
    report
}

/// Ends the sessions of clients of which this is true, all at the same time. How
/// many.
fn end(server: &Server, which: &str) -> usize {
    let end = format!(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND {which}"
    );
    server.sql(&end)[0][0].parse().expect("a count")
}

/// Ends them, and waits until they are gone.
fn end_all(server: &Server, which: &str) -> usize {
    let ended = end(server, which);
    while end(server, which) > 0 {}
    ended
}

/// Ends one as soon as one of these servers has one that is at work.
fn end_one(servers: &[Server], which: &str) {
    let which = format!("state = 'active' AND {which}");
    let began = Instant::now();
    while servers.iter().map(|server| end(server, &which)).sum::<usize>() == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "none came");
    }
}

/// How many have logged in over TCP, and how many at most at a time, as the server
/// tells it: `2026-08-05 12:00:00.000 UTC 4711 [unknown] LOG:  connection …`.
fn logins(log: &str) -> (usize, usize) {
    let (mut begun, mut all, mut most) = (BTreeSet::new(), 0, 0);
    for line in log.lines() {
        let process = line.split(' ').nth(3).unwrap_or_default();
        if line.contains("connection received: host=127.0.0.1") {
            begun.insert(process);
            most = most.max(begun.len());
        } else if line.contains("connection authorized") {
            all += usize::from(begun.remove(process));
        }
    }
    (all, most)
}
