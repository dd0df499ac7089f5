//! The background task of a cluster: it asks the nodes how they are, and says
//! what each may be used for.
//!
//! Owns when nodes are asked and how what they say becomes what a pick reads.
//! The rules themselves are pure and elsewhere: `health`, `standing`, `lag`,
//! `estimate`.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use millpond_driver::{BoxFuture, Driver, Error, Phase, Role};

use super::Inner;
use super::estimate::{self, Estimate};
use super::events::Event;
use super::gauge::Gauge;
use super::hub::Hub;
use super::lag::History;
use super::node::Node;
use super::route::Duty;
use super::standing::{self, Known, Out, Standing};
use crate::health::Probe;

/// How often the watcher looks while nodes are in use.
const TICK: Duration = Duration::from_millis(250);
/// How often nodes are asked while something is going on.
const HURRY: Duration = Duration::from_millis(200);
/// How long that is after the last change.
const RESTLESS: Duration = Duration::from_secs(30);
/// How long a node is given that has been silent for too long already.
const SHORT: Duration = Duration::from_millis(500);
/// Longer than it takes until there is something else to look at.
const LONG: Duration = Duration::from_secs(3600);
/// The least weight that a node is shown with.
const LEAST: f32 = 0.001;

/// What is known of the cluster as a whole.
#[derive(Debug)]
pub(super) struct Council {
    /// What all nodes call the cluster.
    pub(super) cluster: Option<Box<str>>,
    history: History,
    looked: Instant,
    /// When something has changed last.
    changed: Option<Instant>,
}

impl Council {
    pub(super) fn new(now: Instant) -> Self {
        Self { cluster: None, history: History::default(), looked: now, changed: None }
    }
}

/// The task. Says so when it is no more, also when it is dropped with its
/// runtime.
pub(super) struct Watcher<D: Driver> {
    inner: Weak<Inner<D>>,
    hub: Arc<Hub>,
}

impl<D: Driver> Inner<D> {
    /// Starts the watcher, if there is none.
    #[cold]
    pub(super) fn watch(self: &Arc<Self>) {
        if self.hub.is_closed() || !self.hub.become_watcher() {
            return;
        }
        for node in self.nodes.load().iter() {
            node.gauge.change(|record| record.asking = false);
        }
        let watcher = Watcher { inner: Arc::downgrade(self), hub: Arc::clone(&self.hub) };
        self.hub.runtime.spawn(Box::pin(watcher.run()));
    }
}

impl<D: Driver> Watcher<D> {
    async fn run(self) {
        let hub = Arc::clone(&self.hub);
        let mut asking = FuturesUnordered::new();
        loop {
            let woken = hub.woken();
            let Some(inner) = self.inner.upgrade().filter(|_| !hub.is_closed()) else { return };
            let (due, next) = inner.look();
            drop(inner);
            asking.extend(due);
            let pause = select(woken, hub.runtime.sleep_until(next));
            if asking.is_empty() {
                pause.await;
            } else {
                select(asking.next(), pause).await;
            }
        }
    }
}

impl<D: Driver> Drop for Watcher<D> {
    fn drop(&mut self) {
        self.hub.watcher_gone();
    }
}

/// A node is asked; what it says is noted.
type Asking = BoxFuture<'static, ()>;

fn ask(gauge: Arc<Gauge>, probe: Arc<dyn Probe>, limit: Duration, hub: Arc<Hub>) -> Asking {
    Box::pin(async move {
        let asked = hub.runtime.now();
        let end = hub.runtime.sleep_until(asked + limit);
        let answer = AssertUnwindSafe(async { probe.ask(limit).await }).catch_unwind();
        let result = match select(pin!(answer), end).await {
            Either::Left((Ok(result), _)) => result,
            Either::Left((Err(_), _)) => Err(Error::panicked("the driver panicked in a probe")),
            Either::Right(_) => {
                Err(Error::timeout(Phase::Checking, format!("no answer within {limit:?}")))
            }
        };
        gauge.probed(result, asked);
    })
}

impl<D: Driver> Inner<D> {
    /// Brings everything up to date. Who is to be asked now, and when to look
    /// again.
    fn look(&self) -> (Vec<Asking>, Instant) {
        let now = self.hub.runtime.now();
        let nodes = self.nodes.load_full();
        let mut council = self.council.lock();
        let passed = now.saturating_duration_since(council.looked);
        let used = passed >= TICK / 2 && {
            council.looked = now;
            self.measure(&nodes, passed)
        };
        let all = self.hub.is_to_ask_all();
        for node in nodes.iter() {
            node.gauge.change(|record| {
                record.health.tick(now);
                if all {
                    record.health.hint(now);
                }
                record.listen(node.gauge.load() > 0, now);
            });
        }
        self.assess(&nodes, &mut council, now);
        let restless = self.hub.is_awaited()
            || council.changed.is_some_and(|at| now.saturating_duration_since(at) < RESTLESS);
        drop(council);

        let mut asking = Vec::new();
        let mut next = now + LONG;
        for node in nodes.iter() {
            let (due, limit) = node.gauge.change(|record| {
                let mut due = record.health.decision().probe_at.filter(|_| !record.asking);
                if let Some(before) = record.begun.filter(|_| restless && !record.is_down()) {
                    due = due.map(|due| due.min(before + HURRY));
                }
                if due.is_some_and(|at| at <= now) {
                    (record.asking, record.begun) = (true, Some(now));
                }
                let short = record.is_suspect();
                (due, if short { SHORT.min(self.timeout) } else { self.timeout })
            });
            match due {
                Some(at) if at <= now => {
                    let (gauge, probe) = (Arc::clone(&node.gauge), Arc::clone(&node.probe));
                    asking.push(ask(gauge, probe, limit, Arc::clone(&self.hub)));
                }
                Some(at) => next = next.min(at),
                None => {}
            }
        }
        if passed >= TICK / 2 && !used {
            self.hub.settle();
            // Whoever came in between has not woken anybody.
            if nodes.iter().any(|node| node.gauge.load() > 0) {
                self.hub.stir();
            }
        }
        if self.hub.is_watching() {
            next = next.min(now + TICK);
        }
        (asking, next)
    }

    /// What statements take on each node, and the limits and weights. Whether
    /// any node was in use.
    fn measure(&self, nodes: &[Arc<Node<D>>], passed: Duration) -> bool {
        let mut used = false;
        let samples: Vec<_> = nodes.iter().map(|node| node.gauge.take_sample()).collect();
        let mut estimates: Vec<Estimate> =
            nodes.iter().map(|node| node.gauge.read(|record| record.estimate)).collect();
        let mut pairs: Vec<_> = estimates.iter_mut().zip(samples.iter().copied()).collect();
        let expected = estimate::update(&mut pairs, passed);
        for (index, node) in nodes.iter().enumerate() {
            used |= samples[index].count > 0 || node.gauge.load() > 0;
            node.gauge.change(|record| record.estimate = estimates[index]);
            if let Some(cost) = expected[index] {
                node.gauge.set_cost(cost);
            }
            node.gauge.set_limit(node.pool.snapshot().max_open);
        }
        used
    }

    /// What each node may be used for, by what all of them have said.
    pub(super) fn assess(&self, nodes: &[Arc<Node<D>>], council: &mut Council, now: Instant) {
        let known: Vec<Known> =
            nodes.iter().map(|node| node.gauge.read(|r| r.known(node.gauge.duty()))).collect();
        let standings = standing::judge(&known, &mut council.cluster);
        for (known, standing) in known.iter().zip(&standings) {
            let told = known.told.as_ref().filter(|_| standing.duty.has(Duty::WRITE));
            if let Some(position) = told.and_then(|told| told.position) {
                council.history.note(now, position);
            }
        }
        let primary = standings.iter().position(|it| it.duty == Duty::WRITE);
        let primary = primary.map(|index| &*nodes[index].name);
        let mut shaky = self.shaky_allowed(nodes);
        let mut changed = false;
        for (node, standing) in nodes.iter().zip(standings) {
            changed |= self.settle(node, standing, primary, council, now, &mut shaky);
        }
        if changed {
            council.changed = Some(now);
            self.hub.tell_callers();
        }
    }

    /// How many nodes may be out for failing too often: half of them, for the
    /// others would have to carry what they do not.
    fn shaky_allowed(&self, nodes: &[Arc<Node<D>>]) -> usize {
        nodes.len() / 2
    }

    /// One node is used as its standing says. Whether anything has changed.
    fn settle(
        &self,
        node: &Node<D>,
        standing: Standing,
        primary: Option<&str>,
        council: &Council,
        now: Instant,
        shaky: &mut usize,
    ) -> bool {
        let gauge = &node.gauge;
        let name = &*node.name;
        let before = gauge.duty();
        let (mut events, mut retire) = (Vec::new(), false);
        let (duty, weight, changed) = gauge.change(|record| {
            let old = std::mem::replace(&mut record.standing, standing);
            let mut duty = standing.duty;
            let only_reads = duty == Duty::READ;
            // A refused write is looked into before sessions are retired for it.
            if duty != Duty::NONE && !record.is_refused() {
                let flag = &gauge.reads_only;
                retire = flag.swap(only_reads, crate::sync::Ordering::AcqRel) != only_reads;
                record.epoch += u64::from(retire);
            }
            record.lag = match (&record.told, record.asked) {
                (Some(told), Some(asked)) if only_reads && told.role == Role::Replica => {
                    council.history.lag(told, asked)
                }
                _ => None,
            };
            let lagged = record.laggard;
            if record.laggard.judge(record.lag, self.max_lag) {
                duty = duty.with(Duty::STALE);
            }
            if record.is_shaky() && *shaky > 0 {
                *shaky -= 1;
                duty = duty.with(Duty::SHAKY);
            }
            let used = duty.has(Duty::WRITE.with(Duty::READ)) && !duty.has(Duty::SHAKY);
            let was_used = std::mem::replace(&mut record.used, used);
            let writes = duty.has(Duty::WRITE);
            if was_used != used {
                events.push(match used {
                    true => News::Returned,
                    false if record.is_down() || record.is_shaky() => News::Ejected,
                    false => News::Other,
                });
            }
            let new_role = old.role != standing.role && record.told.is_some();
            let other_use = used && was_used && before.has(Duty::WRITE) != writes;
            if new_role || (other_use && !record.is_refused()) {
                events.push(News::Role { from: old.role, to: standing.role, writes });
            }
            if record.laggard != lagged {
                events.push(News::Lag(record.lag.filter(|_| duty.has(Duty::STALE))));
            }
            if let Some(out) = standing.out.filter(|_| old.out != standing.out) {
                events.push(News::Out(out));
            }
            let health = record.health.weight(now) as f32;
            let weight = (record.set_weight * health).max(LEAST);
            let changed = before != duty || !events.is_empty();
            (duty, weight, changed)
        });
        if retire {
            // Before anybody is sent there for what they are not good for.
            node.pool.evict();
        }
        gauge.set_weight(weight);
        gauge.set_duty(duty);
        for news in events {
            self.tell(node, name, primary, council, news);
        }
        changed
    }

    fn tell(
        &self,
        node: &Node<D>,
        name: &str,
        primary: Option<&str>,
        council: &Council,
        news: News,
    ) {
        match news {
            News::Returned => {
                node.pool.is_known_to_answer();
                self.hub.tell(&Event::Returned { node: name });
            }
            News::Ejected => {
                let (reason, error) =
                    node.gauge.read(|it| (it.health.reason(), it.last_error.clone()));
                self.hub.tell(&Event::Ejected { node: name, reason, error: error.as_ref() });
            }
            News::Role { from, to, writes } => {
                self.hub.tell(&Event::RoleChanged { node: name, from, to, writable: writes });
            }
            News::Lag(Some(lag)) => self.hub.tell(&Event::Lagging { node: name, lag }),
            News::Lag(None) => self.hub.tell(&Event::CaughtUp { node: name }),
            News::Out(Out::Rival) => {
                let primary = primary.unwrap_or_default();
                self.hub.tell(&Event::Rival { node: name, primary });
            }
            News::Out(Out::Stranger) => {
                let told = node.gauge.read(|record| record.told.clone()).unwrap_or_default();
                let cluster = told.cluster.as_deref().unwrap_or_default();
                let expected = council.cluster.as_deref().unwrap_or_default();
                self.hub.tell(&Event::Stranger { node: name, cluster, expected });
            }
            News::Other => {}
        }
    }
}

/// What has changed of a node.
enum News {
    Returned,
    Ejected,
    Role { from: Role, to: Role, writes: bool },
    /// It is so far behind, or no more.
    Lag(Option<Duration>),
    Out(Out),
    /// It is not used any more, for a reason that is told by another of these.
    Other,
}
