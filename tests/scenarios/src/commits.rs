//! Commits of which the answer is lost: each with a name of its own, and the table
//! shows afterwards whether it took place.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Error, ErrorKind, Outcome, Pool, Result, Retry, params};
use millpond_harness::{Cut, Fault, Proxy, Server};

use crate::load::summary;
use crate::site::{blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const AMBIGUOUS: Scenario = Scenario {
    name: "F9",
    what: "200 commits lose their answers",
    optional: false,
    run: || Box::pin(ambiguous()),
};

/// How often the line is cut, and how many sessions are ended that have
/// committed.
const ROUNDS: usize = 100;
/// How many commit at a time where sessions are ended.
const LANES: usize = 4;

const INSERT: &str = "INSERT INTO outcome VALUES ($1)";

/// A write that has ended.
struct Said {
    token: String,
    result: Result<()>,
    /// The kind of error that there must be.
    expected: Option<ErrorKind>,
}

async fn ambiguous() -> Report {
    let mut report = Report::default();
    let server = Arc::new(blocking(|| Server::postgres().start()).await);
    let at = Arc::clone(&server);
    blocking(move || at.sql("CREATE TABLE outcome (token text)")).await;
    let proxy = Proxy::to(server.address());
    // The proxy has to see what it cuts.
    let url = format!("{}?sslmode=disable", server.url_at(proxy.address()));
    let pool = |url: &str| Pool::builder(Postgres::from_url(url).expect("a URL of the harness"));
    let cluster = Cluster::builder().node("a", pool(&url).max_open_conns(10));
    let cluster = cluster.build().await.expect("a cluster");

    let began = Instant::now();
    let mut said = cut_off(&cluster, &proxy).await;
    let cut = began.elapsed();
    let at = Arc::clone(&server);
    blocking(move || {
        at.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        at.sql("SELECT pg_reload_conf()");
    })
    .await;
    let admin = pool(&server.url()).max_open_conns(1).build().await.expect("a pool");
    said.extend(ended(&cluster, &admin).await);
    let all = began.elapsed();

    let at = Arc::clone(&server);
    let count = "SELECT token, count(*) FROM outcome GROUP BY token";
    let rows = blocking(move || at.sql(count)).await;
    let rows: BTreeMap<_, _> =
        rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let is_there = |said: &Said| rows.contains_key(&said.token);
    let is_unknown = |error: &Error| error.outcome() == Outcome::Unknown;
    let (unknown, known): (Vec<_>, Vec<_>) =
        said.iter().partition(|it| it.result.as_ref().is_err_and(is_unknown));
    report.unknown = unknown.len();
    report.errors = known.iter().filter(|it| it.result.is_err()).count();
    report.lost = known.iter().filter(|it| it.result.is_ok() && !is_there(it)).count();
    report.duplicated = rows.values().filter(|times| *times != "1").count();
    let denied = known.iter().filter(|it| it.result.is_err() && is_there(it)).count();
    let repeated = unknown.iter().filter_map(|it| it.result.as_ref().err());
    let repeated = repeated.filter(|error| error.earlier().iter().any(is_unknown)).count();
    let kind = |it: &&Said| it.result.as_ref().err().map(Error::kind);
    let otherwise: Vec<_> =
        said.iter().filter(|it| it.expected.is_some() && kind(it) != it.expected).collect();
    report.note(format!(
        "{} writes in {:.1?}, {:.1?} of it by a line that is cut; of {} unknown {} are there",
        said.len(),
        all,
        cut,
        unknown.len(),
        unknown.iter().filter(|it| is_there(it)).count(),
    ));
    let errors = |of: &[&Said]| {
        summary(&of.iter().filter_map(|it| it.result.as_ref().err()).collect::<Vec<_>>())
    };
    report.note(format!("told as unknown: {}", errors(&unknown)));
    report.note(format!("told otherwise than expected: {}", errors(&otherwise)));
    let node = cluster.snapshot().nodes.remove(0);
    report.note(format!("the node at last: {node}, {} times out", node.ejections));
    report.check("what is not known is told so", otherwise.is_empty());
    report.check("nothing is denied that took place", denied == 0);
    report.check("nothing unknown is repeated", repeated == 0);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report
}

/// By itself, as one statement.
async fn alone(cluster: &Cluster<Postgres>, token: &str) -> Result<()> {
    cluster.execute(INSERT, &params![token]).await.map(drop)
}

/// In a transaction.
async fn committed(cluster: &Cluster<Postgres>, token: &str) -> Result<()> {
    let (policy, parameters) = (Retry::new(), params![token]);
    let work = cluster.transaction(&policy, |tx| Box::pin(tx.execute(INSERT, &parameters)));
    work.await.map(drop)
}

/// The server has the statement, or the commit, and the line is cut when it
/// answers; or the line is cut anywhere.
async fn cut_off(cluster: &Cluster<Postgres>, proxy: &Proxy) -> Vec<Said> {
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let token = format!("cut-{round:04}");
        let how = if round % 8 < 4 { Cut::Reset } else { Cut::Close };
        let (fault, expected) = match round % 4 {
            0 => (Fault::CutAnswer(token.clone().into_bytes(), how), Some(ErrorKind::Lost)),
            1 | 2 => (Fault::CutAnswer(b"COMMIT".to_vec(), how), Some(ErrorKind::CommitUnknown)),
            _ => (Fault::CutAfter(round % 150 + 1, how), None),
        };
        proxy.to_server(fault);
        let result = match round % 4 {
            0 => alone(cluster, &token).await,
            _ => committed(cluster, &token).await,
        };
        proxy.to_server(Fault::Pass);
        all.push(Said { token, result, expected });
    }
    all
}

/// The server has committed, and waits for a standby that never comes, when its
/// session is ended.
async fn ended(cluster: &Cluster<Postgres>, admin: &Pool<Postgres>) -> Vec<Said> {
    let over = Arc::new(AtomicBool::new(false));
    let (admin, ends) = (admin.clone(), Arc::clone(&over));
    let ender = tokio::spawn(async move {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE wait_event = 'SyncRep'";
        while !ends.load(Ordering::Relaxed) {
            admin.query(end, &[]).await.expect("the server goes on");
            seconds(0.005).await;
        }
    });
    let lanes = (0..LANES).map(|lane| async move {
        let mut all = Vec::new();
        for round in 0..ROUNDS / LANES {
            let token = format!("ended-{lane}-{round:04}");
            let (result, expected) = match round % 2 {
                0 => (alone(cluster, &token).await, ErrorKind::Lost),
                _ => (committed(cluster, &token).await, ErrorKind::CommitUnknown),
            };
            all.push(Said { token, result, expected: Some(expected) });
        }
        all
    });
    let all = join_all(lanes).await.into_iter().flatten().collect();
    over.store(true, Ordering::Relaxed);
    ender.await.expect("no panic");
    all
}
