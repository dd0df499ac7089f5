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
use super::record::{Change, News};
use super::route::Duty;
use super::standing::{self, Known, Out};
use crate::health::Probe;
use crate::sync::Ordering;

/// How often the watcher looks while nodes are in use.
pub(super) const TICK: Duration = Duration::from_millis(250);
/// How often nodes are asked while something is going on.
const HURRY: Duration = Duration::from_millis(200);
/// How long that is after the last change.
const RESTLESS: Duration = Duration::from_secs(30);
/// Longer than it takes until there is something else to look at.
const LONG: Duration = Duration::from_secs(3600);

/// What is known of the cluster as a whole.
#[derive(Debug)]
pub(super) struct Council {
    /// What all nodes call the cluster.
    pub(super) cluster: Option<Box<str>>,
    /// The latest timeline in which writes were taken.
    timeline: Option<u64>,
    history: History,
    looked: Instant,
    /// When something has changed last.
    changed: Option<Instant>,
}

impl Council {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            cluster: None,
            timeline: None,
            history: History::default(),
            looked: now,
            changed: None,
        }
    }
}

/// The task. Says so when it is no more, also when it is dropped with its
/// runtime.
pub(super) struct Watcher<D: Driver> {
    inner: Weak<Inner<D>>,
    hub: Arc<Hub>,
    number: u64,
}

impl<D: Driver> Inner<D> {
    /// Starts the watcher, if there is none that does its work.
    #[cold]
    pub(super) fn watch(self: &Arc<Self>) {
        if self.hub.is_closed() {
            return;
        }
        let Some(number) = self.hub.become_watcher() else { return };
        for node in self.nodes.load().iter() {
            node.gauge.change(|record| record.asking = false);
        }
        let watcher = Watcher { inner: Arc::downgrade(self), hub: Arc::clone(&self.hub), number };
        self.hub.runtime.spawn(Box::pin(watcher.run()));
    }
}

impl<D: Driver> Watcher<D> {
    async fn run(self) {
        let hub = Arc::clone(&self.hub);
        let mut asking = FuturesUnordered::new();
        loop {
            let woken = hub.woken();
            if hub.is_closed() || !hub.is_watcher(self.number) {
                return;
            }
            let Some(inner) = self.inner.upgrade() else { return };
            let (due, next) = inner.look();
            hub.plan(next);
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
        self.hub.watcher_gone(self.number);
        if let Some(inner) = self.inner.upgrade() {
            inner.nodes.load().iter().for_each(|node| node.gauge.stir());
        }
    }
}

/// What has been decided of a node.
type Decided<D> = (Arc<Node<D>>, Change);

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
                record.listen(node.gauge.load() > 0, self.timeout, now);
            });
        }
        let changes = self.assess(&nodes, &mut council, now);
        let is_recent = |at: Instant| now.saturating_duration_since(at) < RESTLESS;
        let restless = self.hub.is_awaited() || council.changed.is_some_and(is_recent);
        drop(council);
        // Where nobody serves, those that are out are not left alone.
        let served = |duty| changes.iter().any(|(_, change)| change.duty.serves(duty));
        let lacking = !served(Duty::WRITE) || !served(Duty::READ);
        self.carry_out(changes);

        let mut asking = Vec::new();
        let mut next = now + LONG;
        for node in nodes.iter() {
            let (due, limit) = node.gauge.change(|record| {
                if lacking && record.is_down() {
                    record.health.recall(now);
                }
                let mut due = record.health.decision().probe_at.filter(|_| !record.asking);
                // One that has failed is asked until it is out or has answered: nobody
                // else goes where it looks as if statements took long.
                let doubtful = restless || record.health.faults() > 0;
                if let Some(before) = record.begun.filter(|_| doubtful && !record.is_down()) {
                    due = due.map(|due| due.min(before + HURRY));
                }
                if due.is_some_and(|at| at <= now) {
                    (record.asking, record.begun) = (true, Some(now));
                }
                let short = record.is_suspect();
                (due, if short { self.timeout / 2 } else { self.timeout })
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
            let counts = node.pool.counts();
            node.gauge.set_limit(if counts.is_paused { Some(0) } else { counts.max_open });
        }
        used
    }

    /// What each node may be used for, by what all of them have said. Decides,
    /// and leaves it to be [carried out](Self::carry_out) without the lock.
    pub(super) fn assess(
        &self,
        nodes: &[Arc<Node<D>>],
        council: &mut Council,
        now: Instant,
    ) -> Vec<Decided<D>> {
        let known: Vec<Known> =
            nodes.iter().map(|node| node.gauge.read(|r| r.known(node.gauge.duty()))).collect();
        let standings = standing::judge(&known, &mut council.cluster, &mut council.timeline);
        let positions = nodes.iter().zip(&known).zip(&standings);
        let positions = positions.filter_map(|((node, known), standing)| {
            let told = known.told.as_ref().filter(|_| standing.out.is_none())?;
            let at = node.gauge.read(|record| record.told_at)?;
            Some((standing.duty.has(Duty::WRITE), told.position?, at))
        });
        // While there is no primary, what any replica has is what there is.
        if let Some((_, position, at)) = positions.max() {
            council.history.note(at, position);
        }
        // Half of them may be out for failing too often, no more: the others
        // would have to carry what they do not.
        let mut shaky = nodes.len() / 2;
        let mut changes = Vec::with_capacity(nodes.len());
        for (node, standing) in nodes.iter().zip(standings) {
            let change = node.gauge.change(|record| {
                let lag = record.lag_by(&council.history, standing);
                // One that says nothing of it may be as far behind as it will.
                let mute =
                    standing.role == Role::Replica && lag.is_none() && self.max_lag.is_some();
                let late = record.laggard.judge(lag, self.max_lag) || mute;
                record.lag = lag;
                let out = record.is_shaky() && shaky > 0;
                shaky -= usize::from(out);
                let mut duty = standing.duty;
                duty = if late { duty.with(Duty::STALE) } else { duty };
                duty = if out { duty.with(Duty::SHAKY) } else { duty };
                record.change(standing, duty, now)
            });
            if change.news.iter().any(News::is_unrest) {
                council.changed = Some(now);
            }
            changes.push((Arc::clone(node), change));
        }
        changes
    }

    /// Has callers sent where they are to be sent from now on, and tells of it.
    pub(super) fn carry_out(&self, changes: Vec<Decided<D>>) {
        let changed = changes.iter().any(|(node, change)| node.gauge.duty() != change.duty);
        for (node, Change { duty, weight, shown, reads_only, turns, news }) in &changes {
            let flag = &node.gauge.reads_only;
            if reads_only.is_some_and(|only| flag.swap(only, Ordering::AcqRel) != only) {
                // Before anybody is sent there for what they are not good for.
                node.pool.evict();
                node.gauge.change(|record| record.epoch += 1);
            }
            if news.iter().any(|news| matches!(news, News::Out(_))) {
                // Nobody is to use what is there any more.
                node.pool.evict();
            }
            node.gauge.set_weight(*weight);
            node.gauge.set_shown(*shown);
            // What callers have met since goes before it, and is looked at next.
            node.gauge.change(|record| {
                if record.turns == *turns {
                    node.gauge.set_duty(*duty);
                }
            });
        }
        if changed {
            self.hub.tell_callers();
        }
        let primary = changes.iter().find(|(_, change)| change.duty == Duty::WRITE);
        let primary = primary.map(|(node, _)| Arc::clone(&node.name));
        for (node, change) in changes {
            for news in change.news {
                self.tell(&node, primary.as_deref(), news);
            }
        }
    }

    fn tell(&self, node: &Node<D>, primary: Option<&str>, news: News) {
        let name = &*node.name;
        match news {
            News::Returned { .. } => {
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
            News::Late(lag) => self.hub.tell(&Event::Lagging { node: name, lag }),
            News::CaughtUp => self.hub.tell(&Event::CaughtUp { node: name }),
            News::Out(Out::Rival) => {
                let primary = primary.unwrap_or_default();
                self.hub.tell(&Event::Rival { node: name, primary });
            }
            News::Out(Out::Stranger) => {
                let told = node.gauge.read(|record| record.told.clone()).unwrap_or_default();
                let cluster = told.cluster.as_deref().unwrap_or_default();
                let expected = self.council.lock().cluster.clone().unwrap_or_default();
                self.hub.tell(&Event::Stranger { node: name, cluster, expected: &expected });
            }
        }
    }
}
