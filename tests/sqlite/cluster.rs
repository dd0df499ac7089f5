//! One database as a cluster: a writer with one connection, and readers.
//!
//! `MILLPOND_SECONDS=60` sets how long writers and readers are at it.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use futures_util::poll;
use millpond::drivers::Any;
use millpond::runtime::{block_on, current};
use millpond::{Cause, Cluster, ClusterConfig, Outcome, Retry, Role, Route, params};
use serde_json::json;

use super::{File, beside};

/// How long writers and readers are at it if nobody says.
const SECONDS: u64 = 2;
const WRITERS: i64 = 8;
const READERS: usize = 8;

/// A file that is removed in the end, and the cluster on it.
async fn cluster_on(name: &str, settings: &str) -> (File, Cluster<Any>) {
    let name = format!("millpond-{name}-{}.db", std::process::id());
    let file = File(std::env::temp_dir().join(name));
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(&file.0, end));
    }
    let url = format!("sqlite://{}?{settings}", file.0.display());
    let cluster = millpond::connect_cluster(&url).await.expect("a file of our own");
    (file, cluster)
}

async fn scalar(cluster: &Cluster<Any>, route: Route, sql: &str) -> i64 {
    cluster.query(route, sql, &[]).await.unwrap().scalar().unwrap()
}

/// Runs a claim on a file and on a database in memory.
fn with_both(name: &str, settings: &str, claim: impl AsyncFn(Cluster<Any>)) {
    block_on(async {
        let (_file, cluster) = cluster_on(name, settings).await;
        claim(cluster.clone()).await;
        cluster.close().await;
        let url = format!("sqlite::memory:?{settings}");
        let cluster = millpond::connect_cluster(&url).await.expect("a database of our own");
        claim(cluster.clone()).await;
        cluster.close().await;
    });
}

#[test]
fn one_database_is_a_writer_with_one_connection_and_readers() {
    with_both("nodes", "max_open_conns=3&max_idle_conns=2&min_idle_conns=2", async |cluster| {
        let now = cluster.snapshot();
        let found = now.nodes.iter().map(|node| (&*node.name, node.role, node.pool.max_open));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [("writer", Role::Primary, Some(1)), ("reader", Role::Replica, Some(3))]
        );
        for (route, name) in [
            (Route::Primary, "writer"),
            (Route::PreferPrimary, "writer"),
            (Route::Replica, "reader"),
            (Route::PreferReplica, "reader"),
        ] {
            assert_eq!(cluster.acquire(route).await.unwrap().pool_name(), name, "{route}");
        }
    });
}

#[test]
fn a_write_on_a_reader_is_refused_and_readers_go_on() {
    with_both("refused", "max_open_conns=2", async |cluster| {
        cluster.execute("CREATE TABLE t (n INTEGER)", &[]).await.unwrap();
        let mut reader = cluster.acquire(Route::Replica).await.unwrap();
        assert!(reader.is_read_only());
        let error = reader.query("INSERT INTO t VALUES (1)", &[]).await.unwrap_err();
        assert_eq!(error.to_string(), "attempt to write a readonly database (8)");
        assert_eq!((error.cause(), error.outcome()), (Cause::Caller, Outcome::Rejected));
        reader.query("SELECT n FROM t", &[]).await.unwrap();
        drop(reader);
        cluster.execute("INSERT INTO t VALUES (2)", &[]).await.unwrap();
        assert_eq!(scalar(&cluster, Route::Replica, "SELECT sum(n) FROM t").await, 2);
    });
}

#[test]
fn a_reader_sees_at_once_what_was_committed() {
    with_both("at-once", "max_open_conns=2", async |cluster| {
        cluster.execute("CREATE TABLE t (n INTEGER)", &[]).await.unwrap();
        for n in 1..=200 {
            cluster.execute("INSERT INTO t VALUES (?)", &params![n]).await.unwrap();
            assert_eq!(scalar(&cluster, Route::Replica, "SELECT max(n) FROM t").await, n);
        }
    });
}

#[test]
fn writers_get_their_turn_in_the_order_in_which_they_came() {
    with_both("order", "max_open_conns=2", async |cluster| {
        cluster.execute("CREATE TABLE t (n INTEGER)", &[]).await.unwrap();
        let held = cluster.acquire(Route::Primary).await.unwrap();
        let writer = async |n: i64| {
            let mut conn = cluster.acquire(Route::Primary).await.unwrap();
            let mut transaction = conn.begin().await.unwrap();
            transaction.execute("INSERT INTO t VALUES (?)", &params![n]).await.unwrap();
            transaction.commit().await.unwrap();
        };
        // Polled in this order they wait in this order.
        let mut writers = pin!(join_all((0..20).map(writer)));
        assert!(poll!(&mut writers).is_pending());
        assert_eq!(cluster.snapshot().node("writer").unwrap().pool.waiting, 20);
        drop(held);
        writers.await;
        let rows = cluster.query(Route::Replica, "SELECT n FROM t ORDER BY rowid", &[]).await;
        let rows = rows.unwrap();
        let order: Vec<i64> = rows.iter().map(|row| row.get(0).unwrap()).collect();
        assert_eq!(order, (0..20).collect::<Vec<_>>());
    });
}

/// The cluster of a document.
async fn cluster_of(document: &serde_json::Value) -> Cluster<Any> {
    let config: ClusterConfig = serde_json::from_value(document.clone()).expect("a document");
    config.builder().build().await.expect("a cluster")
}

#[test]
fn nodes_of_a_document_with_one_url_are_on_one_database() {
    block_on(async {
        let cluster = cluster_of(&json!({ "nodes": {
            "w": { "url": "sqlite::memory:", "role": "primary", "max_open_conns": 1 },
            "r1": { "url": "sqlite::memory:?max_open_conns=2", "role": "replica" },
            "r2": { "url": "sqlite::memory:", "role": "replica" },
        }, "strategy": "round_robin" }))
        .await;
        cluster.execute("CREATE TABLE t (n INTEGER)", &[]).await.unwrap();
        let mut seen = BTreeSet::new();
        for n in 1..=10 {
            cluster.execute("INSERT INTO t VALUES (?)", &params![n]).await.unwrap();
            let mut reader = cluster.acquire(Route::Replica).await.unwrap();
            let rows = reader.query("SELECT max(n) FROM t", &[]).await.unwrap();
            assert_eq!(rows.scalar::<i64>().unwrap(), n);
            seen.insert(reader.pool_name().to_owned());
        }
        assert_eq!(seen.iter().collect::<Vec<_>>(), ["r1", "r2"]);
        cluster.close().await;
    });
}

#[test]
fn nodes_on_one_file_that_have_no_role_all_serve_everybody() {
    block_on(async {
        let (file, _same) = cluster_on("alike", "").await;
        let url = format!("sqlite://{}", file.0.display());
        let cluster = cluster_of(&json!({
            "nodes": { "a": &*url, "b": format!("{url}?max_open_conns=2"), "c": &*url },
            "strategy": "round_robin",
        }))
        .await;
        cluster.execute("CREATE TABLE t (n INTEGER)", &[]).await.unwrap();
        let mut seen = BTreeSet::new();
        for n in 0..9 {
            let mut conn = cluster.acquire(Route::Primary).await.unwrap();
            conn.query("INSERT INTO t VALUES (?)", &params![n]).await.unwrap();
            seen.insert(conn.pool_name().to_owned());
        }
        assert_eq!(seen.len(), 3);
        assert_eq!(scalar(&cluster, Route::Replica, "SELECT count(*) FROM t").await, 9);
        cluster.close().await;
    });
}

#[test]
fn a_document_with_one_url_is_a_writer_and_readers_too() {
    block_on(async {
        let cluster = cluster_of(&json!({
            "url": "sqlite::memory:?max_open_conns=9&acquire_timeout=1s",
            "pool": { "max_open_conns": 3 },
        }))
        .await;
        let most = |name| cluster.pool(name).expect("a node").snapshot().max_open;
        assert_eq!((most("writer"), most("reader")), (Some(1), Some(3)));
        let _held = cluster.acquire(Route::Primary).await.unwrap();
        let error = cluster.acquire(Route::Primary).timeout(Duration::ZERO).await.unwrap_err();
        assert!(error.is_timeout(), "{error}");
    });
}

/// Moves money between two accounts, and says how often.
async fn write(cluster: Cluster<Any>, id: i64, end: Instant) -> u64 {
    let runtime = current().expect("a task of it");
    let policy = Retry::new().max_attempts(1);
    let mut times = 0;
    while runtime.now() < end {
        let moved = cluster.transaction(&policy, |transaction| {
            Box::pin(async move {
                for (account, change) in [(id, -1), ((id + 1) % WRITERS, 1)] {
                    let sql = "UPDATE account SET balance = balance + ? WHERE id = ?";
                    transaction.execute(sql, &params![change, account]).await?;
                }
                Ok(())
            })
        });
        moved.await.expect("a turn");
        cluster.execute("INSERT INTO log (writer) VALUES (?)", &params![id]).await.expect("a turn");
        times += 1;
    }
    times
}

/// Looks at all accounts, and at a log that only grows; says how often.
async fn read(cluster: Cluster<Any>, end: Instant) -> u64 {
    let runtime = current().expect("a task of it");
    let (mut times, mut seen) = (0, 0);
    while runtime.now() < end {
        let mut conn = cluster.acquire(Route::Replica).await.expect("a reader");
        let sum = conn.query("SELECT sum(balance) FROM account", &[]).await.expect("no lock");
        assert_eq!(sum.scalar::<i64>().unwrap(), WRITERS * 100);
        let rows = conn.query("SELECT count(*) FROM log", &[]).await.expect("no lock");
        let now = rows.scalar::<i64>().unwrap();
        assert!(now >= seen, "{now} after {seen}");
        seen = now;
        times += 1;
    }
    times
}

#[test]
fn many_writers_and_readers_never_meet_a_lock() {
    let seconds = std::env::var("MILLPOND_SECONDS");
    let seconds = seconds.map_or(SECONDS, |text| text.parse().expect("MILLPOND_SECONDS"));
    with_both("lock", "max_open_conns=8", async |cluster| {
        cluster
            .execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER)", &[])
            .await
            .unwrap();
        cluster.execute("CREATE TABLE log (writer INTEGER)", &[]).await.unwrap();
        for id in 0..WRITERS {
            cluster.execute("INSERT INTO account VALUES (?, 100)", &params![id]).await.unwrap();
        }
        let runtime = current().expect("inside block_on");
        let end = runtime.now() + Duration::from_secs(seconds);
        let tasks = (0..WRITERS).map(|id| write(cluster.clone(), id, end).boxed());
        let (tasks, done): (Vec<_>, Vec<_>) = tasks
            .chain((0..READERS).map(|_| read(cluster.clone(), end).boxed()))
            .map(FutureExt::remote_handle)
            .unzip();
        for task in tasks {
            runtime.spawn(task.boxed());
        }
        let times = join_all(done).await;
        let (writes, reads) = times.split_at(WRITERS as usize);
        let written: u64 = writes.iter().sum();
        assert_eq!(
            scalar(&cluster, Route::Replica, "SELECT count(*) FROM log").await,
            written as i64
        );
        let reads = reads.iter().sum::<u64>();
        println!("{seconds} s: {written} times two writes {writes:?}, {reads} times two reads");
    });
}
