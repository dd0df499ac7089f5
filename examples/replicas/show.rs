//! Callers that read and write, what happens to the servers meanwhile, and a line
//! for each half second.
//!
//! Owns what is shown. The servers are the harness's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::runtime::{self, Runtime};
use millpond::{Cluster, Outcome, Pool, Result, Retry, Route, drivers::Any, params};
use millpond_harness::Server;

/// How many callers there are, and how long each waits between requests.
const READERS: u64 = 12;
const WRITERS: u64 = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// What callers have met since the last line.
#[derive(Default)]
struct Met {
    /// By "reads" or "writes" and the node that answered.
    answers: BTreeMap<(&'static str, String), u32>,
    failed: BTreeMap<&'static str, u32>,
    /// Writes of which nobody knows.
    unknown: u32,
}

#[derive(Default)]
struct Board {
    met: Mutex<Met>,
    over: AtomicBool,
}

pub(crate) fn show() -> Result<()> {
    println!("starting a primary and two standbys of PostgreSQL");
    let a = Server::postgres().start();
    a.sql("CREATE TABLE visit (n bigint)");
    let (b, c) = (a.replica(), a.replica());
    runtime::block_on(async {
        let runtime = runtime::current().expect("inside block_on");
        let mut cluster = Cluster::builder().on_event(|event| println!("        {event}"));
        for (name, server) in [("a", &a), ("b", &b), ("c", &c)] {
            cluster = cluster.node(name, Pool::builder(Any::from_url(&server.url())?));
        }
        let cluster = cluster.build().await?;

        let board = Arc::new(Board::default());
        for number in 0..READERS + WRITERS {
            let route = if number < READERS { Route::Replica } else { Route::Primary };
            let caller = call(Arc::clone(&runtime), cluster.clone(), route, Arc::clone(&board));
            runtime.spawn(Box::pin(caller));
        }
        let start = runtime.now();
        let lines = async |count: u32| {
            for _ in 0..count {
                runtime.sleep_until(runtime.now() + Duration::from_millis(500)).await;
                println!("{}", line(runtime.now() - start, &board));
            }
        };
        lines(4).await;
        println!("    --> the primary is killed");
        a.kill();
        lines(3).await;
        println!("    --> b is promoted");
        b.promote();
        lines(2).await;
        println!("    --> c follows it");
        c.follow(&b);
        lines(2).await;
        println!("    --> a comes back, as a standby");
        a.follow(&b);
        lines(8).await;

        board.over.store(true, Ordering::Relaxed);
        println!("\n{}", cluster.snapshot());
        let visits = cluster.query(Route::Primary, "SELECT count(*) FROM visit", &[]).await?;
        println!("{} visits on the primary of today", visits.scalar::<i64>()?);
        cluster.close().await;
        Ok(())
    })
}

/// A caller, until it is over. Knows nothing of nodes.
async fn call(runtime: Arc<dyn Runtime>, cluster: Cluster<Any>, route: Route, board: Arc<Board>) {
    let policy = Retry::new();
    while !board.over.load(Ordering::Relaxed) {
        let kind = if route == Route::Primary { "writes" } else { "reads" };
        let done = cluster.run(route, &policy, |conn| {
            Box::pin(async move {
                match route {
                    Route::Primary => {
                        conn.query("INSERT INTO visit VALUES ($1)", &params![1]).await
                    }
                    _ => conn.query("SELECT count(*) FROM visit", &[]).await,
                }?;
                Ok(conn.pool_name().to_owned())
            })
        });
        let done = done.await;
        {
            let mut met = board.met.lock().expect("no panic");
            match done {
                Ok(node) => *met.answers.entry((kind, node)).or_default() += 1,
                Err(error) if error.outcome() == Outcome::Unknown => met.unknown += 1,
                Err(_) => *met.failed.entry(kind).or_default() += 1,
            }
        }
        runtime.sleep_until(runtime.now() + PAUSE).await;
    }
}

fn line(elapsed: Duration, board: &Board) -> String {
    let met = std::mem::take(&mut *board.met.lock().expect("no panic"));
    let mut line = format!("{:>4.1} s", elapsed.as_secs_f64());
    for (kind, scale) in [("reads", 20), ("writes", 10)] {
        line.push_str(&format!("  {kind}:"));
        let of_kind = met.answers.iter().filter(|((of, _), _)| *of == kind);
        for ((_, node), count) in of_kind {
            let bar = "#".repeat((count / scale) as usize + 1);
            line.push_str(&format!(" {node} {bar:<14.14} {count:>3}"));
        }
    }
    let failed = |kind| met.failed.get(kind).copied().unwrap_or_default();
    line.push_str(&format!(
        "  failed: {} reads, {} writes; {} unknown",
        failed("reads"),
        failed("writes"),
        met.unknown
    ));
    line
}
