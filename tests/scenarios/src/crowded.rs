//! A server that has no room for more sessions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::drivers::postgres::Postgres;
use millpond::health::State;
use millpond::{Pool, PooledConnection, Route};
use millpond_harness::Server;

use crate::lines::Lines;
use crate::load::{Kind, Load, POSTGRES, TABLES, Words, summary};
use crate::site::{blocking, seconds};
use crate::table::{Report, Scenario};

pub(crate) const SERVER_FULL: Scenario = Scenario {
    name: "F12",
    what: "others take all sessions of the server",
    optional: false,
    run: || Box::pin(server_full()),
};

/// It takes so long that readers want more sessions than there are.
const SLOW: Words =
    Words { read: "SELECT count(*), pg_sleep(0.1) FROM account", write: POSTGRES.write };

/// How long nobody gets in.
const FULL: f64 = 6.0;

async fn server_full() -> Report {
    let mut report = Report::default();
    let start = || Server::postgres().setting("max_connections", 20).start();
    let server = Arc::new(blocking(start).await);
    server.sql(TABLES);
    let lines = Lines::to([&*server]);
    let cluster = lines.cluster(Postgres::from_url).await;
    let few = Load::of(&cluster, Route::Any, SLOW, 2, 1);
    seconds(1.0).await;

    let crowd = Pool::builder(Postgres::from_url(&server.url()).expect("a URL of the harness"));
    let crowd = crowd.max_open_conns(40).build().await.expect("there is room");
    let taken = fill(&crowd).await;
    let fault = Instant::now();
    let open = cluster.snapshot().nodes[0].pool.open;
    let accepted = lines.proxies[0].accepted();
    let many = Load::of(&cluster, Route::Any, SLOW, 10, 0);
    let mut states = BTreeSet::new();
    let mut at_first = 0;
    while fault.elapsed().as_secs_f64() < FULL {
        if fault.elapsed() < Duration::from_secs(1) {
            at_first = lines.proxies[0].accepted() - accepted;
        }
        states.insert(cluster.snapshot().nodes[0].state.as_str());
        seconds(0.02).await;
    }
    let attempts = lines.proxies[0].accepted() - accepted - at_first;
    let (full_open, ejections) = {
        let node = &cluster.snapshot().nodes[0];
        (node.pool.open, node.ejections)
    };
    drop(taken);
    crowd.close().await;
    let back = Instant::now();
    let grown = loop {
        if cluster.snapshot().nodes[0].pool.open > open {
            break Some(back.elapsed());
        }
        if back.elapsed() > Duration::from_secs(5) {
            break None;
        }
        seconds(0.005).await;
    };
    seconds(1.5).await;
    let after = cluster.snapshot().nodes[0].state;
    let (few, many) = (few.end().await, many.end().await);

    report.recover = grown;
    let errors = [few.errors(Kind::Read), few.errors(Kind::Write), many.errors(Kind::Read)];
    let errors = errors.concat();
    report.errors = errors.len();
    let served = many.0.iter().filter(|request| request.ended < back).count();
    report.note(format!(
        "{open} connections before, {full_open} at the end of {FULL} s, in which {served} requests \
         of the new callers were served; {at_first} connects in the first, {attempts} in the others; states {states:?}, then {after}; {}",
        summary(&errors)
    ));
    lines.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check("no error", errors.is_empty());
    report.check("what is open goes on", served > 0 && full_open == open);
    // The pool has not known before the first ones are refused.
    let rate = attempts as f64 / (FULL - 1.0);
    report.check("at most two connects a second, after the first", rate <= 2.0);
    report.check("the node is degraded", states.contains(State::Degraded.as_str()));
    let out = [State::Ejected, State::Probing].map(State::as_str);
    report.check(
        "the node is never out",
        ejections == 0 && !out.iter().any(|it| states.contains(it)),
    );
    report.check_time("the pool grows", report.recover, Duration::from_secs(2));
    report
}

/// Takes all sessions that the server has left.
async fn fill(crowd: &Pool<Postgres>) -> Vec<PooledConnection<Postgres>> {
    let mut taken = Vec::new();
    let patience = Duration::from_secs(1);
    while let Ok(conn) = crowd.acquire().timeout(patience).await {
        taken.push(conn);
    }
    taken
}
