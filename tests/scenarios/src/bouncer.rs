//! PgBouncer between pool and server, which gives each transaction whatever
//! session is free.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use millpond::drivers::postgres::Postgres;
use millpond::{Cluster, Outcome, Retry, Route, params};
use millpond_harness::Server;

use crate::lines::Lines;
use crate::load::{Kind, Load, POSTGRES, READERS, TABLES, WRITERS, summary};
use crate::site::{blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const BOUNCER_RESTARTED: Scenario = Scenario {
    name: "F19",
    what: "PgBouncer restarts",
    optional: true,
    run: || Box::pin(bouncer_restarted()),
};

pub(crate) const QUEUE_TOO_LONG: Scenario = Scenario {
    name: "F19q",
    what: "PgBouncer sends away who waits too long",
    optional: true,
    run: || Box::pin(queue_too_long()),
};

pub(crate) const SESSION_REPLACED: Scenario = Scenario {
    name: "F19p",
    what: "PgBouncer replaces the session",
    optional: true,
    run: || Box::pin(session_replaced()),
};

struct Site {
    server: Server,
    bouncer: Server,
    lines: Lines,
}

impl Site {
    /// With so many sessions for all.
    async fn start(sessions: u32) -> Option<Arc<Self>> {
        let start = move || {
            let server = Server::postgres().start();
            server.sql(TABLES);
            let bouncer = Server::pgbouncer(server.address())?
                .setting("default_pool_size", sessions)
                .setting("query_wait_timeout", 1)
                .start();
            let lines = Lines::to([&bouncer]);
            Some(Arc::new(Self { server, bouncer, lines }))
        };
        blocking(start).await
    }

    async fn cluster(&self) -> Cluster<Postgres> {
        self.lines.cluster(Postgres::from_url).await
    }
}

fn absent() -> Report {
    Report::absent("PgBouncer is not installed (scripts/servers pgbouncer does it)")
}

async fn bouncer_restarted() -> Report {
    let Some(site) = Site::start(1).await else { return absent() };
    let mut report = Report::default();
    let cluster = site.cluster().await;
    let load = Load::start(&cluster, Route::Primary, POSTGRES);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&site);
    blocking(move || at.bouncer.stop()).await;
    seconds(1.0).await;
    let at = Arc::clone(&site);
    blocking(move || at.bouncer.start_again()).await;
    let back = Instant::now();
    seconds(3.0).await;
    let requests = load.end().await;

    report.recover = requests.first_success(Kind::Write, back).map(|at| at - back);
    let (reads, writes) = (requests.errors(Kind::Read), requests.errors(Kind::Write));
    report.errors = reads.len() + writes.len();
    report.unknown = requests.unknown().len();
    let at = Arc::clone(&site);
    let rows = blocking(move || at.server.sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let known = reads.iter().filter(|error| error.outcome() != Outcome::Unknown).count();
    report.note(format!(
        "{} requests; {}",
        requests.0.len(),
        summary(&[reads.clone(), writes.clone()].concat())
    ));
    site.lines.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("what was not sent is repeated", known == 0 && writes.is_empty());
    let most = READERS + WRITERS;
    let under_way = report.unknown + reads.len() <= most;
    report.check("only what was under way fails", under_way);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report.check_time("recover", report.recover, Duration::from_secs(2));
    report
}

async fn queue_too_long() -> Report {
    let Some(site) = Site::start(1).await else { return absent() };
    let mut report = Report::default();
    let cluster = site.cluster().await;
    let load = Load::of(&cluster, Route::Primary, POSTGRES, 2, 2);
    seconds(1.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&site);
    // Who has the only session.
    blocking(move || at.bouncer.sql("SELECT pg_sleep(3)")).await;
    let back = Instant::now();
    seconds(2.0).await;
    let requests = load.end().await;

    report.recover = requests.first_success(Kind::Write, back).map(|at| at - back);
    let (reads, writes) = (requests.errors(Kind::Read), requests.errors(Kind::Write));
    let unknown = requests.unknown();
    report.errors = reads.len() + writes.len();
    report.unknown = unknown.len();
    let at = Arc::clone(&site);
    let rows = blocking(move || at.server.sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let unsure: Vec<_> = unknown.iter().filter_map(|it| it.error.as_ref()).collect();
    report.note(format!(
        "{} requests; {} | {}",
        requests.0.len(),
        summary(&[reads.clone(), writes.clone()].concat()),
        summary(&unsure)
    ));
    site.lines.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("whoever is sent away in flight is unsure", writes.is_empty());
    let repeated = unknown.iter().any(|request| request.sent.len() > 1);
    report.check("nothing unknown is repeated", !repeated);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report.check_time("recover", report.recover, Duration::from_secs(2));
    report
}

/// The driver keeps statements, of which a new session knows nothing.
///
/// So it is rarely: where each statement meets another session, as with more of them
/// than one, repeating is in vain, and only transactions are of use before PgBouncer
/// 1.21, which knows what its clients have prepared.
async fn session_replaced() -> Report {
    let Some(site) = Site::start(1).await else { return absent() };
    let mut report = Report::default();
    let cluster = site.cluster().await;
    let load = Load::of(&cluster, Route::Primary, POSTGRES, 2, 2);
    seconds(1.0).await;

    let fault = Instant::now();
    for _ in 0..3 {
        let at = Arc::clone(&site);
        blocking(move || at.bouncer.sql_in("pgbouncer", "RECONNECT")).await;
        seconds(1.0).await;
    }
    let requests = load.end().await;
    let many = Site::start(4).await.expect("there was one");
    let (alone, together) = (singly(&many).await, in_transactions(&many).await);

    let (reads, writes) = (requests.errors(Kind::Read), requests.errors(Kind::Write));
    report.errors = reads.len() + writes.len();
    report.unknown = requests.unknown().len();
    let at = Arc::clone(&site);
    let rows = blocking(move || at.server.sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let stale = site.server.log().matches("does not exist").count();
    report.note(format!(
        "{} requests; {stale} times a statement was not there; {}",
        requests.0.len(),
        summary(&[reads.clone(), writes.clone()].concat())
    ));
    report.note(format!(
        "with four sessions fail {alone} of {TIMES} single statements, and {together} of {TIMES} \
         transactions"
    ));
    site.lines.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("statements were missing", stale > 0);
    report.check("no caller notices", report.errors == 0 && report.unknown == 0);
    report.check("no transaction fails", together == 0);
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
    report
}

const TIMES: usize = 400;
/// So many at the same time.
const ABREAST: usize = 8;

/// How many single statements fail.
async fn singly(site: &Site) -> usize {
    let cluster = site.cluster().await;
    let callers = (0..ABREAST).map(|_| async {
        let mut failed = 0;
        for _ in 0..TIMES / ABREAST {
            let read = cluster.query(Route::Primary, "SELECT count(*) FROM account", &[]).await;
            failed += usize::from(read.is_err());
        }
        failed
    });
    join_all(callers).await.into_iter().sum()
}

/// How many transactions fail.
async fn in_transactions(site: &Site) -> usize {
    let policy = Retry::new();
    // What one transaction prepares is of no use to the next.
    let driver = |url: &str| Postgres::from_url(url).map(|it| it.statement_cache(0));
    let cluster = site.lines.cluster(driver).await;
    let callers = (0..ABREAST).map(|_| async {
        let mut failed = 0;
        for number in 0..TIMES / ABREAST {
            let work = cluster.transaction(&policy, |tx| {
                Box::pin(async move {
                    let number = params![number as i64];
                    tx.execute("UPDATE account SET n = n WHERE n = $1", &number).await.map(drop)
                })
            });
            failed += usize::from(work.await.is_err());
        }
        failed
    });
    join_all(callers).await.into_iter().sum()
}
