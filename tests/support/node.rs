//! A scripted database that says what its place in a cluster is, and remembers
//! who asked.
//!
//! Knows no pool; how it misbehaves is the script of the fake behind it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::drivers::fake::{Fake, FakeConnection};
use millpond::testing::sim::Sim;
use millpond::{ConnectContext, Driver, NodeStatus, Purpose, Result, Role, Rows, Session, Value};

/// A fake with a role. Clones are one node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) fake: Fake,
    sim: Sim,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    status: NodeStatus,
    /// When the status was asked for.
    asked: Vec<Duration>,
    /// Questions under way, and the most there were.
    now: usize,
    most: usize,
    purposes: Vec<Purpose>,
}

impl Node {
    pub(crate) fn new(sim: &Sim) -> Self {
        Self { fake: Fake::new(), sim: sim.clone(), seen: Arc::default() }
    }

    /// What it says of itself from now on.
    pub(crate) fn says(&self, role: Role, writable: bool, lag: Option<Duration>) {
        let status = &mut self.seen.lock().unwrap().status;
        status.role = role;
        status.writable = Some(writable);
        status.lag = lag;
    }

    /// When it was asked for its status.
    pub(crate) fn asked(&self) -> Vec<Duration> {
        self.seen.lock().unwrap().asked.clone()
    }

    /// The most who asked at a time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.seen.lock().unwrap().most
    }

    /// What each connect was for.
    pub(crate) fn purposes(&self) -> Vec<Purpose> {
        self.seen.lock().unwrap().purposes.clone()
    }
}

impl Driver for Node {
    type Connection = FakeConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<FakeConnection> {
        self.seen.lock().unwrap().purposes.push(cx.purpose());
        self.fake.connect(cx).await
    }

    async fn ping(&self, conn: &mut FakeConnection) -> Result<()> {
        self.fake.ping(conn).await
    }

    async fn query(&self, conn: &mut FakeConnection, sql: &str, params: &[Value]) -> Result<Rows> {
        self.fake.query(conn, sql, params).await
    }

    fn session(&self, conn: &FakeConnection) -> Session {
        self.fake.session(conn)
    }

    async fn status(&self, conn: &mut FakeConnection) -> Result<NodeStatus> {
        {
            let mut seen = self.seen.lock().unwrap();
            seen.asked.push(self.sim.elapsed());
            seen.now += 1;
            seen.most = seen.most.max(seen.now);
        }
        let told = self.fake.ping(conn).await;
        let mut seen = self.seen.lock().unwrap();
        seen.now -= 1;
        told.map(|()| seen.status.clone())
    }

    async fn close(&self, conn: FakeConnection) {
        self.fake.close(conn).await;
    }
}
