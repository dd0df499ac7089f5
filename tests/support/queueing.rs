//! Servers with cores and queues, and callers who do not wait for each other:
//! what a cluster is to balance, in virtual time.
//!
//! Owns the model: how long a statement takes, when it waits for a core, what a
//! server that is slow or fails does, and when requests come. Cluster and pools
//! are the real ones. Knows no claim, and no strategy.
#![allow(dead_code, reason = "each who includes it uses its part")]

use std::collections::VecDeque;
use std::f64::consts::TAU;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use millpond::balance::Builder;
use millpond::runtime::Runtime;
use millpond::testing::sim::Sim;
use millpond::{
    Cluster, ConnectContext, Driver, Error, NodeStatus, Pool, Result, Role, Route, Rows, Session,
    Value,
};

/// Statements that a server works on at a time; others wait, first come first
/// served.
const CORES: usize = 8;
/// What a statement takes is log-normal, with this mean in milliseconds and this
/// spread: 11 ms at the 95th percentile, 17 at the 99th and 27 at the 99.9th.
const MEAN: f64 = 5.0;
const SIGMA: f64 = 0.6;
/// A statement of the other kind, of which there may be a few.
const LONG: Duration = Duration::from_secs(2);
/// One in so many is.
const FEW: u64 = 10_000;
/// What fails at once takes so long.
const FAILURE: Duration = Duration::from_micros(300);
/// Connects and probes take no core that matters; a slow server is slow at them.
const ROUND_TRIP: Duration = Duration::from_micros(300);

/// A server, as a driver. Clones are one server.
#[derive(Clone)]
pub(crate) struct Modelled(Arc<Server>);

struct Server {
    sim: Sim,
    state: Mutex<State>,
}

struct State {
    free: usize,
    queue: VecDeque<Arc<Mutex<Place>>>,
    /// By how much everything takes longer.
    slow: f64,
    /// The share of statements that fail at once.
    failing: f64,
    /// It takes no connection, and loses those that there are.
    refuses: bool,
    /// A few statements take very long, whatever server they are on.
    mixed: bool,
}

impl Modelled {
    pub(crate) fn new(sim: &Sim) -> Self {
        let state = State {
            free: CORES,
            queue: VecDeque::new(),
            slow: 1.0,
            failing: 0.0,
            refuses: false,
            mixed: false,
        };
        Self(Arc::new(Server { sim: sim.clone(), state: Mutex::new(state) }))
    }

    /// Everything takes so much longer from now on, what waits for a core too.
    pub(crate) fn slow(&self, factor: f64) {
        self.0.state.lock().unwrap().slow = factor;
    }

    /// This share of the statements fails at once from now on, and with each its
    /// connection. Probes and connects do not.
    pub(crate) fn fail(&self, share: f64) {
        self.0.state.lock().unwrap().failing = share;
    }

    /// It takes no connection from now on, and loses those that there are.
    pub(crate) fn refuse(&self) {
        self.0.state.lock().unwrap().refuses = true;
    }

    /// Whatever was wrong is over.
    pub(crate) fn heal(&self) {
        let mut state = self.0.state.lock().unwrap();
        (state.slow, state.failing, state.refuses) = (1.0, 0.0, false);
    }

    /// One statement in ten thousand takes two seconds from now on.
    pub(crate) fn mix(&self) {
        self.0.state.lock().unwrap().mixed = true;
    }

    fn look<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.0.state.lock().unwrap())
    }

    async fn round_trip(&self) -> Result<()> {
        let slow = self.look(|state| state.slow);
        self.0.sim.sleep(ROUND_TRIP.mul_f64(slow)).await;
        match self.look(|state| state.refuses) {
            true => Err(Error::connect("connection refused")),
            false => Ok(()),
        }
    }

    /// A core, or a place in the queue for one.
    fn core(&self) -> Turn {
        let mut state = self.0.state.lock().unwrap();
        let place = Arc::new(Mutex::new(Place { called: state.free > 0, waker: None }));
        match state.free {
            0 => state.queue.push_back(Arc::clone(&place)),
            _ => state.free -= 1,
        }
        Turn { server: Arc::clone(&self.0), place: Some(place) }
    }
}

/// A place in the queue of a server.
struct Place {
    /// A core is there for it.
    called: bool,
    waker: Option<Waker>,
}

/// Waits for a core.
struct Turn {
    server: Arc<Server>,
    /// `None` once it has been called.
    place: Option<Arc<Mutex<Place>>>,
}

impl Future for Turn {
    type Output = Core;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Core> {
        if let Some(place) = &self.place {
            let mut place = place.lock().unwrap();
            if !place.called {
                place.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        self.place = None;
        Poll::Ready(Core(Arc::clone(&self.server)))
    }
}

/// One who gives up leaves the queue, or passes on what was there for him.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(place) = self.place.take() else { return };
        let mut state = self.server.state.lock().unwrap();
        state.queue.retain(|other| !Arc::ptr_eq(other, &place));
        drop(state);
        let called = place.lock().unwrap().called;
        if called {
            drop(Core(Arc::clone(&self.server)));
        }
    }
}

/// A core at work. Goes to who has waited longest.
struct Core(Arc<Server>);

impl Drop for Core {
    fn drop(&mut self) {
        let mut state = self.0.state.lock().unwrap();
        let Some(next) = state.queue.pop_front() else {
            state.free += 1;
            return;
        };
        drop(state);
        let mut next = next.lock().unwrap();
        next.called = true;
        if let Some(waker) = next.waker.take() {
            waker.wake();
        }
    }
}

impl Driver for Modelled {
    type Connection = ();

    async fn connect(&self, _cx: &ConnectContext<'_>) -> Result<()> {
        self.round_trip().await
    }

    async fn ping(&self, _conn: &mut ()) -> Result<()> {
        self.round_trip().await
    }

    async fn query(&self, _conn: &mut (), _sql: &str, _params: &[Value]) -> Result<Rows> {
        let sim = &self.0.sim;
        let (failing, refuses, mixed) =
            self.look(|state| (state.failing, state.refuses, state.mixed));
        if refuses || failing > 0.0 && unit(sim) < failing {
            sim.sleep(FAILURE).await;
            return Err(Error::lost("connection reset by peer"));
        }
        let _core = self.core().await;
        let took = match mixed && sim.one_in(FEW) {
            true => LONG,
            false => service(sim).mul_f64(self.look(|state| state.slow)),
        };
        sim.sleep(took).await;
        Ok(Rows::one("one", 1))
    }

    async fn status(&self, _conn: &mut ()) -> Result<NodeStatus> {
        self.round_trip().await?;
        let mut status = NodeStatus::default();
        status.role = Role::Replica;
        status.writable = Some(false);
        Ok(status)
    }

    fn session(&self, _conn: &()) -> Session {
        Session::Clean
    }
}

/// From 0 to 1, without 1.
fn unit(sim: &Sim) -> f64 {
    (sim.random() >> 11) as f64 / (1_u64 << 53) as f64
}

/// By Box and Muller, "A note on the generation of random normal deviates", 1958.
fn service(sim: &Sim) -> Duration {
    let normal = (-2.0 * (1.0 - unit(sim)).ln()).sqrt() * (TAU * unit(sim)).cos();
    Duration::from_secs_f64(MEAN / 1e3 * SIGMA.mul_add(normal, -SIGMA * SIGMA / 2.0).exp())
}

/// Processes that share the requests, each with a cluster and pools of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fleet {
    pub(crate) processes: usize,
    /// Connections of each to each server.
    pub(crate) pool: usize,
}

/// One process that is busy.
pub(crate) const ONE: Fleet = Fleet { processes: 1, pool: 20 };
/// Many of which each has little to do.
pub(crate) const FORTY: Fleet = Fleet { processes: 40, pool: 5 };

/// Three servers, and processes that use them.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) servers: [Modelled; 3],
    pub(crate) clusters: Vec<Cluster<Modelled>>,
    answers: Arc<Mutex<Vec<Answer>>>,
    open: Arc<AtomicUsize>,
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// When it came.
    pub(crate) at: Duration,
    /// How long it took, all waiting included.
    pub(crate) took: Duration,
    /// The server it was sent to.
    pub(crate) server: Option<usize>,
    pub(crate) failed: bool,
}

impl World {
    pub(crate) async fn new(
        sim: &Sim,
        fleet: Fleet,
        set: impl Fn(Builder<Modelled>) -> Builder<Modelled>,
    ) -> Self {
        let servers = [(); 3].map(|()| Modelled::new(sim));
        let mut clusters = Vec::new();
        for _ in 0..fleet.processes {
            let mut builder = set(Cluster::builder().runtime(sim.clone()));
            for (index, server) in servers.iter().enumerate() {
                let pool = Pool::builder(server.clone()).max_open_conns(fleet.pool);
                builder = builder.node(index.to_string(), pool);
            }
            clusters.push(builder.build().await.expect("three servers that answer"));
        }
        Self { sim: sim.clone(), servers, clusters, answers: Arc::default(), open: Arc::default() }
    }

    /// Requests come, so many in a second in the mean, each to any of the
    /// processes, whether or not those before have been answered.
    pub(crate) async fn load(&self, rate: f64, time: Duration) {
        let end = self.sim.elapsed() + time;
        loop {
            let pause = -(1.0 - unit(&self.sim)).ln() / rate;
            self.sim.sleep(Duration::from_secs_f64(pause)).await;
            if self.sim.elapsed() >= end {
                return;
            }
            let process = self.sim.below(self.clusters.len() as u64) as usize;
            let cluster = self.clusters[process].clone();
            let (sim, answers) = (self.sim.clone(), Arc::clone(&self.answers));
            let open = Arc::clone(&self.open);
            open.fetch_add(1, Ordering::Relaxed);
            self.sim.spawn(Box::pin(async move {
                let at = sim.elapsed();
                let (server, failed) = request(&cluster).await;
                let took = sim.elapsed() - at;
                answers.lock().unwrap().push(Answer { at, took, server, failed });
                open.fetch_sub(1, Ordering::Relaxed);
            }));
        }
    }

    /// All answers, once there is one to each request.
    pub(crate) async fn answers(&self) -> Answers {
        while self.open.load(Ordering::Relaxed) > 0 {
            self.sim.sleep(Duration::from_millis(100)).await;
        }
        Answers(std::mem::take(&mut *self.answers.lock().unwrap()))
    }
}

/// One statement, without a second attempt. Where it was sent, and whether it
/// failed.
async fn request(cluster: &Cluster<Modelled>) -> (Option<usize>, bool) {
    let Ok(mut conn) = cluster.acquire(Route::Replica).await else { return (None, true) };
    let server = conn.pool_name().parse().expect("servers are numbered");
    (Some(server), conn.query("SELECT 1", &[]).await.is_err())
}

/// What became of requests.
pub(crate) struct Answers(Vec<Answer>);

impl Answers {
    /// Of the requests that came from one moment until another, by seconds.
    pub(crate) fn between(&self, from: f64, to: f64) -> Self {
        let (from, to) = (Duration::from_secs_f64(from), Duration::from_secs_f64(to));
        Self(self.0.iter().filter(|it| it.at >= from && it.at < to).copied().collect())
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The part of the requests that was sent to this server.
    pub(crate) fn share(&self, server: usize) -> f64 {
        let sent = self.0.iter().filter(|it| it.server == Some(server)).count();
        sent as f64 / self.0.len().max(1) as f64
    }

    /// The part that failed.
    pub(crate) fn errors(&self) -> f64 {
        self.0.iter().filter(|it| it.failed).count() as f64 / self.0.len().max(1) as f64
    }

    /// What this part of the requests took at most, in milliseconds.
    pub(crate) fn percentiles<const N: usize>(&self, parts: [f64; N]) -> [f64; N] {
        let mut took: Vec<_> = self.0.iter().map(|it| it.took).collect();
        took.sort_unstable();
        parts.map(|part| {
            let rank = (part * took.len() as f64).ceil() as usize;
            took.get(rank.max(1) - 1).map_or(0.0, |took| took.as_secs_f64() * 1e3)
        })
    }

    pub(crate) fn p99(&self) -> f64 {
        let [p99] = self.percentiles([0.99]);
        p99
    }

    /// The share of a server in each tenth of a second, from one moment until
    /// another.
    pub(crate) fn shares(&self, server: usize, from: f64, to: f64) -> Vec<f64> {
        let mut counts = vec![(0_u32, 0_u32); ((to - from) * 10.0).round() as usize];
        for it in &self.0 {
            let window = (it.at.as_secs_f64() - from) * 10.0;
            if window < 0.0 {
                continue;
            }
            if let Some((sent, all)) = counts.get_mut(window as usize) {
                *sent += u32::from(it.server == Some(server));
                *all += 1;
            }
        }
        counts.iter().map(|(sent, all)| f64::from(*sent) / f64::from((*all).max(1))).collect()
    }
}
