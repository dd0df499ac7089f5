//! Clusters where two things happen at once: a caller who waits while the node
//! changes, a replica that is restored from an older copy, a pool that is used
//! past its cluster.

#[path = "support/trio.rs"]
mod trio;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use millpond::balance::{Builder, Member};
use millpond::drivers::fake::{Act, Fake, FakeConnection};
use millpond::runtime::Runtime;
use millpond::testing::sim::Sim;
use millpond::{
    AccessMode, Cluster, ConnectContext, Driver, Error, ErrorKind, NodeStatus, Outcome, Pool,
    PooledConnection, Reset, Result, Retry, Role, Route, Rows, Session, TransactionOptions, Value,
};

use trio::{MS, SECOND, Trio, bring_back, take_down, with_trio};

/// Three nodes that lend one connection each.
fn narrow(trio: &Trio, sim: &Sim) -> Builder<Fake> {
    let mut builder = Cluster::builder().runtime(sim.clone());
    for (name, fake) in trio.all() {
        builder = builder.node(name, Pool::builder(fake.clone()).max_open_conns(1));
    }
    builder
}

/// The wait took the time of the server, which was without end.
#[test]
fn who_reads_after_a_position_on_silent_replicas_waits_no_longer_than_the_deadline() {
    with_trio(1, async |sim, trio, cluster| {
        let position = cluster.position().await.unwrap();
        for fake in [&trio.b, &trio.c] {
            fake.always_reached(Act::Hang);
        }
        let start = sim.now();
        let read = cluster.acquire(Route::PreferReplica.after(&position)).timeout(SECOND);
        drop(read.await);
        assert!(sim.now() - start <= SECOND, "{:?}", sim.now() - start);
    });
}

/// It waited for the first it was sent to, until the deadline.
#[test]
fn who_reads_after_a_position_is_sent_on_to_the_replica_that_has_reached_it() {
    for seed in 0..20 {
        with_trio(seed, async |sim, trio, cluster| {
            trio.b.pause_replay();
            cluster.execute("INSERT 1", &[]).await.unwrap();
            let position = cluster.position().await.unwrap();
            let start = sim.now();
            let read = cluster.acquire(Route::Replica.after(&position)).timeout(SECOND * 5);
            assert_eq!(read.await.unwrap().pool_name(), "c");
            assert!(sim.now() - start < SECOND, "{:?}", sim.now() - start);
        });
    }
}

/// What it had reached was remembered for ever.
#[test]
fn a_replica_restored_from_an_older_copy_has_not_reached_what_it_had() {
    Sim::new(2).run(async |sim| {
        let trio = Trio::new();
        let pool = |fake: &Fake| Pool::builder(fake.clone());
        let cluster = Cluster::builder()
            .node("a", pool(&trio.a))
            .node("b", pool(&trio.b))
            .runtime(sim.clone())
            .build()
            .await
            .unwrap();
        cluster.execute("INSERT 1", &[]).await.unwrap();
        let position = cluster.position().await.unwrap();
        drop(cluster.acquire(Route::Replica.after(&position)).await.unwrap());
        take_down(&trio.b);
        trio.b.pause_replay().stands_at(0);
        sim.sleep(SECOND * 10).await;
        bring_back(&trio.b);
        sim.sleep(SECOND * 30).await;
        let read = cluster.acquire(Route::PreferReplica.after(&position)).await.unwrap();
        assert_eq!(read.pool_name(), "a");
    });
}

/// Those who waited for its connection got it one after the other, and each met
/// the same refusal.
#[test]
fn no_further_write_is_sent_to_a_node_that_has_refused_one() {
    Sim::new(3).run(async |sim| {
        let trio = Trio::new();
        for (_, fake) in trio.all() {
            fake.tells_role(false);
        }
        let cluster = narrow(&trio, &sim).build().await.unwrap();
        let mut first = cluster.acquire(Route::Primary).await.unwrap();
        // It takes a while until the new primary is known.
        trio.a.always_status(Act::After(MS * 100));
        trio.b.always_status(Act::After(MS * 100));
        trio.a.becomes(Role::Replica);
        trio.promote_b();
        let mut waiters = Vec::new();
        for _ in 0..4 {
            let cluster = cluster.clone();
            waiters.push(sim.task(async move {
                let mut conn = cluster.acquire(Route::Primary).await?;
                conn.query("INSERT 2", &[]).await
            }));
        }
        sim.sleep(MS * 10).await;
        first.query("INSERT 1", &[]).await.unwrap_err();
        drop(first);
        for written in join_all(waiters).await {
            written.unwrap();
        }
        assert_eq!(trio.a.statements(), ["INSERT 1"]);
    });
}

/// The connection it had waited for came back at that moment, and what it wrote
/// was lost with the old primary.
#[test]
fn who_has_waited_for_a_primary_is_not_sent_there_when_it_is_found_to_be_the_old_one() {
    Sim::new(4).run(async |sim| {
        let trio = Trio::new();
        let held: Arc<Mutex<Option<PooledConnection<Fake>>>> = Arc::default();
        let given_back = Arc::clone(&held);
        let builder = narrow(&trio, &sim).on_event(move |event| {
            if event.is_alarm() {
                drop(given_back.lock().unwrap().take());
            }
        });
        let cluster = builder.build().await.unwrap();
        *held.lock().unwrap() = Some(cluster.acquire(Route::Primary).await.unwrap());
        let waiter = {
            let cluster = cluster.clone();
            sim.task(async move { cluster.execute("INSERT 1", &[]).await })
        };
        sim.sleep(MS).await;
        trio.b.becomes(Role::Primary).timeline(2);
        waiter.await.unwrap();
        assert_eq!((trio.a.written().len(), trio.b.written().len()), (0, 1));
    });
}

/// It got an error if it was sent to another one.
#[test]
fn who_has_no_time_takes_the_idle_connection_of_whatever_node_has_one() {
    for seed in 0..20 {
        with_trio(seed, async |_, _, cluster| {
            drop(cluster.pool("c").unwrap().acquire().await.unwrap());
            let read = cluster.acquire(Route::Replica).timeout(Duration::ZERO);
            assert_eq!(read.await.unwrap().pool_name(), "c");
        });
    }
}

/// Callers were sent there and waited until their deadlines.
#[test]
fn a_node_whose_pool_is_paused_is_passed_over() {
    with_trio(5, async |sim, _, cluster| {
        cluster.pool("b").unwrap().pause();
        let start = sim.now();
        for _ in 0..10 {
            let read = cluster.acquire(Route::Replica).timeout(SECOND * 5);
            assert_eq!(read.await.unwrap().pool_name(), "c");
        }
        assert!(sim.now() - start < SECOND, "{:?}", sim.now() - start);
    });
}

/// It was said to be 0.0ns behind.
#[test]
fn a_replica_left_out_for_not_saying_how_far_it_is_behind_is_reported_so() {
    Sim::new(6).run(async |sim| {
        let pool = || Pool::builder(Fake::new());
        let cluster = Cluster::builder()
            .member(Member::new("w", pool()).role(Role::Primary))
            .member(Member::new("r", pool()).role(Role::Replica))
            .runtime(sim)
            .build()
            .await
            .unwrap();
        let error = cluster.acquire(Route::Replica.max_lag(SECOND)).await.unwrap_err();
        assert!(error.to_string().contains("r: does not say how far it is behind"), "{error}");
    });
}

/// Connections and numbers bore a name that none of the nodes has.
#[test]
fn the_pool_of_a_node_cannot_have_another_name_than_the_node() {
    Sim::new(7).run(async |sim| {
        let pool = Pool::builder(Fake::new()).name("app");
        let built = Cluster::builder().node("x", pool).runtime(sim).build().await;
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("x.pool.name = \"app\": must be left out"), "{error}");
    });
}

/// A session that refuses writes was lent for writes when its node was promoted.
#[test]
fn a_connection_cannot_be_added_to_a_node_and_is_given_back() {
    with_trio(8, async |_, _, cluster| {
        let pool = cluster.pool("b").unwrap();
        let conn = pool.acquire().await.unwrap().detach();
        let id = conn.id();
        let (conn, error) = pool.add(conn).unwrap_err();
        assert_eq!((conn.id(), error.kind()), (id, ErrorKind::Config));
    });
}

/// The name of a cluster whose nodes had all left kept out those that came.
#[test]
fn a_node_that_joins_when_all_others_have_left_is_no_stranger() {
    Sim::new(9).run(async |sim| {
        let of_cluster = |name: &str| {
            let fake = Fake::new();
            fake.becomes(Role::Primary).of_cluster(name);
            Pool::builder(fake)
        };
        let builder = Cluster::builder().node("old", of_cluster("8"));
        let cluster = builder.runtime(sim).build().await.unwrap();
        cluster.leave("old").await.unwrap();
        cluster.join(Member::new("new", of_cluster("7"))).unwrap();
        let write = cluster.acquire(Route::Primary).timeout(SECOND * 30);
        assert_eq!(write.await.unwrap().pool_name(), "new");
    });
}

/// A server whose read-only sessions write in a transaction that asks for it, as
/// those of PostgreSQL and MySQL do; and whose next commit is not answered.
#[derive(Debug, Clone)]
struct Lenient {
    server: Fake,
    loses_commit: Arc<AtomicBool>,
}

impl Driver for Lenient {
    type Connection = FakeConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<FakeConnection> {
        self.server.connect(cx).await
    }

    async fn ping(&self, conn: &mut FakeConnection) -> Result<()> {
        self.server.ping(conn).await
    }

    async fn query(&self, conn: &mut FakeConnection, sql: &str, with: &[Value]) -> Result<Rows> {
        if sql.contains("READ WRITE") {
            self.server.set_read_only(conn, false).await?;
        }
        let rows = self.server.query(conn, sql, with).await;
        if sql == "COMMIT" && self.loses_commit.swap(false, Ordering::SeqCst) {
            return Err(Error::lost("connection reset"));
        }
        rows
    }

    fn name(&self) -> &'static str {
        self.server.name()
    }

    fn session(&self, conn: &FakeConnection) -> Session {
        self.server.session(conn)
    }

    async fn reset(&self, conn: &mut FakeConnection, to: Reset) -> Result<()> {
        self.server.reset(conn, to).await
    }

    async fn status(&self, conn: &mut FakeConnection) -> Result<NodeStatus> {
        self.server.status(conn).await
    }

    async fn set_read_only(&self, conn: &mut FakeConnection, only: bool) -> Result<()> {
        self.server.set_read_only(conn, only).await
    }
}

/// What ran on a session that refuses writes was held to be as good twice, and
/// was written twice.
#[test]
fn a_transaction_that_asks_for_writes_on_a_replica_is_not_repeated_after_a_lost_commit() {
    Sim::new(10).run(async |sim| {
        let driver = Lenient { server: Fake::new(), loses_commit: Arc::new(true.into()) };
        let pool = || Pool::builder(driver.clone());
        let cluster = Cluster::builder()
            .member(Member::new("w", pool()).role(Role::Primary))
            .member(Member::new("r", pool()).role(Role::Replica))
            .runtime(sim)
            .build()
            .await
            .unwrap();
        let policy = Retry::new();
        let work = cluster.transaction(&policy, |tx| {
            Box::pin(async { tx.execute("INSERT 1", &[]).await.map(drop) })
        });
        let options = TransactionOptions::new().access(AccessMode::ReadWrite);
        let error = work.route(Route::Replica).options(options).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert_eq!(driver.server.written(), ["INSERT 1"]);
    });
}

/// It took a connection, had no time to ask on it, and closed it.
#[test]
fn who_has_no_time_costs_a_replica_no_connection() {
    with_trio(43, async |_sim, trio, cluster| {
        cluster.execute("INSERT 1", &[]).await.unwrap();
        drop(cluster.acquire(Route::Replica).await.unwrap());
        let position = cluster.position().await.unwrap();
        let opened = || trio.b.counts().opened + trio.c.counts().opened;
        let before = opened();
        for _ in 0..10 {
            let hurried = cluster.acquire(Route::Replica.after(&position)).timeout(Duration::ZERO);
            hurried.await.unwrap_err();
        }
        assert_eq!(opened(), before);
    });
}
