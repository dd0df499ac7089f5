//! A caller on its way to a connection of some node.
//!
//! Owns the order in which nodes are tried, all under one deadline: one that is
//! free before one that is busy, and none a second time before something has
//! changed. Who may serve is decided in `watcher`, who is best by the
//! [`Strategy`](super::Strategy).

use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use millpond_driver::{BoxFuture, Cause, Driver, Error, Phase, Result};

use super::node::Node;
use super::route::{Duty, Route, Terms};
use super::search::{Missed, Search};
use super::{Cluster, Inner};
use crate::pool::PooledConnection;

/// Who asks, and for what.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) terms: Terms,
    pub(super) place: &'static Location<'static>,
    label: Option<&'static str>,
}

impl Request {
    pub(super) fn new(terms: Terms, place: &'static Location<'static>) -> Self {
        Self { terms, place, label: None }
    }
}

/// A connection and the node it is of.
pub(super) type Loan<D> = (PooledConnection<D>, Arc<Node<D>>);

/// Waits for a connection of a node of a [`Cluster`]. Made by
/// [`Cluster::acquire`].
///
/// # Cancellation
///
/// Dropping it gives up the place in the queue of a node, and nothing else.
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'c, D: Driver> {
    cluster: &'c Cluster<D>,
    request: Request,
    timeout: Option<Duration>,
    /// The way that waits, once it is needed.
    slow: Option<BoxFuture<'c, Result<Loan<D>>>>,
}

impl<'c, D: Driver> Acquire<'c, D> {
    pub(super) fn new(cluster: &'c Cluster<D>, request: Request) -> Self {
        Self { cluster, request, timeout: None, slow: None }
    }

    /// Waits at most this long, over all nodes together. Zero: not at all.
    /// Default: the cluster's
    /// [`acquire_timeout`](super::Builder::acquire_timeout).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Names the borrower in errors and reports of others who wait.
    pub fn label(mut self, label: &'static str) -> Self {
        self.request.label = Some(label);
        self
    }
}

impl<D: Driver> Future for Acquire<'_, D> {
    type Output = Result<PooledConnection<D>>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.slow.is_none() {
            let inner = &this.cluster.inner;
            let first = match inner.at_once(&this.request) {
                Ok((conn, _)) => return Poll::Ready(Ok(conn)),
                Err(first) => first,
            };
            let limit = this.timeout.unwrap_or(inner.acquire_timeout);
            this.slow = Some(Box::pin(inner.wait(this.request.clone(), limit, first)));
        }
        let slow = this.slow.as_mut().expect("made above");
        slow.as_mut().poll(cx).map(|loan| loan.map(|(conn, _)| conn))
    }
}

impl<D: Driver> fmt::Debug for Acquire<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("request", &self.request)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A deadline that a clock cannot say is as far as this.
const FAR: Duration = Duration::from_secs(3600 * 24 * 365);
/// How long until what has failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long until a caller looks whether anybody still watches.
const LOOK: Duration = Duration::from_secs(1);
/// How long a replica is waited for to come to a place in the log, before another.
const SLICE: Duration = Duration::from_millis(50);

impl<D: Driver> Inner<D> {
    /// A connection of the best node, if that has an idle one; else the node, if
    /// there is one.
    #[inline]
    fn at_once(self: &Arc<Self>, request: &Request) -> Result<Loan<D>, Option<Arc<Node<D>>>> {
        let terms = &request.terms;
        if !self.hub.is_watched() {
            self.watch();
        }
        let wanted = terms.route.tiers()[0];
        let nodes = self.nodes.load();
        let plain = terms.is_plain();
        let picked =
            if plain { self.pick(&nodes, wanted, |_, duty| duty.serves(wanted)) } else { None };
        let node = &nodes[picked.ok_or(None)?];
        let reserved = node.gauge.reserve();
        let conn = node.pool.take_now(request.place, request.label);
        drop(reserved);
        match conn.and_then(|conn| node.fit(conn, terms.route)) {
            Some(conn) => {
                node.gauge.note_pick();
                Ok((conn, Arc::clone(node)))
            }
            None => Err(Some(Arc::clone(node))),
        }
    }

    /// A connection within this time.
    pub(super) async fn acquire(
        self: &Arc<Self>,
        request: &Request,
        limit: Duration,
    ) -> Result<Loan<D>> {
        match self.at_once(request) {
            Ok(loan) => Ok(loan),
            // Boxed: it is large, and hardly ever needed.
            Err(first) => Box::pin(self.wait(request.clone(), limit, first)).await,
        }
    }

    /// The same, where the best node, if it is known already, has none at once.
    async fn wait(
        self: &Arc<Self>,
        request: Request,
        limit: Duration,
        mut first: Option<Arc<Node<D>>>,
    ) -> Result<Loan<D>> {
        let now = self.hub.runtime.now();
        let deadline = now.checked_add(limit).unwrap_or(now + FAR);
        if limit.is_zero() {
            if let Some(loan) = self.any_at_once(&request) {
                return Ok(loan);
            }
        }
        let mut search = Search { request: &request, deadline, rounds: 0, tried: Vec::new() };
        loop {
            // Before anything is looked at.
            let changed = self.hub.changed.listen();
            if self.hub.is_closed() {
                return Err(Error::closed());
            }
            if !self.hub.is_watched_well() {
                self.watch();
            }
            let nodes = self.nodes.load_full();
            let best = first.take().map(|node| (node, false));
            if let Some((node, last)) = best.or_else(|| self.choose(&nodes, &search)) {
                match self.try_node(&node, &search, last).await {
                    Ok(conn) => return Ok((conn, node)),
                    Err(Missed::Ended(error)) => return Err(error),
                    Err(missed) => search.note(&node, missed),
                }
                continue;
            }
            let error = self.nobody(&nodes, &search);
            let now = self.hub.runtime.now();
            if now >= deadline {
                // As long as the caller would wait: to wait as long again helps nobody.
                return Err(error.with_cause(Cause::Pool));
            }
            if !self.may_come(&nodes, &search, &error) {
                return Err(error);
            }
            if !search.is_to_ask_again() {
                let awaiting = self.hub.wait();
                // What has failed is tried again after a moment, also unasked; and
                // the watcher may have come to a stand.
                let pause = if search.tried.is_empty() { LOOK } else { PAUSE };
                let pause = deadline.min(now + pause);
                select(changed, self.hub.runtime.sleep_until(pause)).await;
                drop(awaiting);
            }
            search.rounds += 1;
            search.tried.clear();
        }
    }

    /// An idle connection of any node that serves, for who has no time.
    fn any_at_once(&self, request: &Request) -> Option<Loan<D>> {
        let terms = &request.terms;
        let nodes = self.nodes.load_full();
        let tiers = terms.route.tiers().iter().filter(|_| terms.after.is_none());
        for &wanted in tiers {
            for node in nodes.iter() {
                let duty = node.gauge.duty();
                if duty.serves(wanted) && node.is_near(duty, terms) {
                    let conn = node.pool.take_now(request.place, request.label);
                    if let Some(conn) = conn.and_then(|conn| node.fit(conn, terms.route)) {
                        node.gauge.note_pick();
                        return Some((conn, Arc::clone(node)));
                    }
                }
            }
        }
        None
    }

    /// The best node that has not failed, and whether there is no other.
    fn choose(
        &self,
        nodes: &[Arc<Node<D>>],
        search: &Search<'_, D>,
    ) -> Option<(Arc<Node<D>>, bool)> {
        let terms = search.terms();
        let of = |index: usize| search.tried(&nodes[index]);
        let untried = |index: usize| of(index).is_none();
        let usable = |index: usize| of(index).is_none_or(|tried| tried.failed.is_none());
        for &wanted in terms.route.tiers() {
            let fit =
                |index: usize, duty: Duty| duty.serves(wanted) && nodes[index].is_near(duty, terms);
            let best = self.pick(nodes, wanted, |index, duty| fit(index, duty) && untried(index));
            if let Some(index) = best {
                return Some((Arc::clone(&nodes[index]), false));
            }
            let best = self.pick(nodes, wanted, |index, duty| fit(index, duty) && usable(index));
            if let Some(index) = best {
                return Some((Arc::clone(&nodes[index]), true));
            }
        }
        // For want of a better one: what is shaky, and for those who would rather
        // have an old answer than none, what is far behind.
        let old_will_do = terms.route != Route::Replica && terms.max_lag.is_none();
        for &wanted in terms.route.tiers() {
            let best = self.pick(nodes, wanted, |index, duty| {
                let old = duty.has(Duty::STALE) && !old_will_do;
                !old && nodes[index].is_near(duty, terms) && usable(index)
            });
            if let Some(index) = best {
                return Some((Arc::clone(&nodes[index]), true));
            }
        }
        None
    }

    /// A connection of this node. Waits for one, but not if the node turns out
    /// to be of no use and there may be others.
    async fn try_node(
        self: &Arc<Self>,
        node: &Arc<Node<D>>,
        search: &Search<'_, D>,
        last: bool,
    ) -> Result<PooledConnection<D>, Missed> {
        let &Search { request, deadline, .. } = search;
        let terms = &request.terms;
        let reserved = node.gauge.reserve();
        node.gauge.note_pick();
        let left = deadline.saturating_duration_since(self.hub.runtime.now());
        let acquire = node.pool.acquire_at(request.place, request.label).timeout(left);
        let acquired = match select(acquire, pin!(self.is_of_no_use(node, terms, last))).await {
            Either::Left((acquired, _)) => acquired,
            Either::Right((missed, _)) => return Err(missed),
        };
        drop(reserved);
        let mut conn = match acquired {
            Ok(conn) => node.fit(conn, terms.route).ok_or(Missed::Changed)?,
            // It waited for as long as there was time.
            Err(error) if error.is_timeout() => {
                return Err(Missed::Ended(error.within(&node.name)));
            }
            Err(error) => return Err(Missed::Failed(error)),
        };
        let Some(position) = terms.after.as_ref().filter(|_| node.may_be_behind()) else {
            return Ok(conn);
        };
        if node.has_reached(position) {
            return Ok(conn);
        }
        let silent = || {
            let silent = format!("does not say whether it has reached {position}");
            Missed::Failed(Error::timeout(Phase::Checking, silent))
        };
        if self.hub.runtime.now() >= deadline {
            return Err(silent());
        }
        // At first all are asked, and then each is waited for a while.
        let patience = if search.rounds == 0 { Duration::ZERO } else { SLICE.min(left) };
        let given_up = pin!(self.given_up(node));
        let in_vain = select(self.hub.runtime.sleep_until(deadline), given_up);
        let asked = match select(pin!(conn.reached(position, patience)), in_vain).await {
            Either::Left((asked, _)) => Ok(asked),
            Either::Right((why, _)) => Err(matches!(why, Either::Right(_))),
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(is_gone) => {
                if is_gone {
                    conn.discard();
                }
                return Err(silent());
            }
        };
        match asked {
            Ok(true) => {
                node.note_reached(position);
                Ok(conn)
            }
            Ok(false) => {
                let behind = format!("has not reached {position} yet");
                Err(Missed::Behind(Error::connect(behind).with_cause(Cause::Overload)))
            }
            Err(error) if error.is_permanent() => Err(Missed::Ended(error.within(&node.name))),
            Err(error) => Err(Missed::Failed(error)),
        }
    }

    /// Ends when the node turns out to be of no use to who waits there.
    async fn is_of_no_use(&self, node: &Node<D>, terms: &Terms, last: bool) -> Missed {
        let tiers = terms.route.tiers();
        let failures = node.gauge.connect_failures();
        if !last && node.pool.counts().is_paused {
            return Missed::Short;
        }
        loop {
            let changed = self.hub.changed.listen();
            let duty = node.gauge.duty();
            if !tiers.iter().any(|wanted| duty.has(*wanted)) {
                return Missed::Changed;
            }
            let error = node.gauge.connect_error();
            if let Some(error) = error.filter(|_| node.gauge.connect_failures() != failures) {
                let open = node.pool.counts().open;
                match open > 0 {
                    // Those that are open come back.
                    true if !last => return Missed::Short,
                    true => {}
                    false => return Missed::Failed(error),
                }
            }
            changed.await;
        }
    }

    /// Why nobody serves the caller.
    fn nobody(&self, nodes: &[Arc<Node<D>>], search: &Search<'_, D>) -> Error {
        let terms = search.terms();
        let wanted = Duty(terms.route.tiers().iter().fold(0, |all, duty| all | duty.0));
        let causes = nodes.iter().map(|node| {
            let failed = search.tried(node).and_then(|tried| tried.failed.clone());
            let error =
                failed.unwrap_or_else(|| node.gauge.read(|record| record.objection(wanted)));
            (Box::from(&*node.name), error)
        });
        let what = match terms.route {
            Route::Primary => "primary",
            Route::Replica => "replica",
            _ => "node",
        };
        Error::no_node(what, causes.collect())
    }

    /// Whether a node may come to be of use while the caller waits: a primary
    /// that is promoted, or one that was not asked yet.
    fn may_come(&self, nodes: &[Arc<Node<D>>], search: &Search<'_, D>, error: &Error) -> bool {
        if nodes.is_empty() || error.is_permanent() {
            return false;
        }
        let unknown = |node: &Arc<Node<D>>| node.gauge.read(|record| record.is_untold());
        let behind = search.is_to_ask_again();
        search.terms().route.is_for_writes() || behind || nodes.iter().any(unknown)
    }

    /// Waits until nothing that is asked of the node will be answered any more;
    /// why.
    pub(super) async fn given_up(self: &Arc<Self>, node: &Node<D>) -> Error {
        loop {
            let stirred = node.gauge.stirred();
            if !self.hub.is_watched() {
                self.watch();
            }
            if let Some(error) = node.gauge.is_given_up(&node.name) {
                return error;
            }
            stirred.await;
        }
    }
}
