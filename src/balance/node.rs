//! A node of a cluster, and one that is to become one.
//!
//! Owns what belongs together: a name, a pool, a way to ask, a gauge; and
//! whether a connection is still what the node was taken for.

use std::fmt;
use std::sync::Arc;

use millpond_driver::{Driver, Error, Position, Result, Role, Runtime};

use super::gauge::Gauge;
use super::hub::Hub;
use super::record::Record;
use super::route::{Duty, Route, Terms};
use crate::health::{Probe, Probed, Rules};
use crate::pool::{self, Pool, PooledConnection};

/// A node that is to join a cluster: its name, how its pool is built, and what
/// the application knows of it.
///
/// ```
/// # use millpond::{Pool, Role, drivers::fake::Fake};
/// use millpond::balance::Member;
///
/// let reports = Member::new("reports", Pool::builder(Fake::new())).role(Role::Replica).weight(0.5);
/// ```
#[must_use = "a member does nothing before it joins"]
pub struct Member<D: Driver> {
    pub(super) name: String,
    pub(super) pool: pool::Builder<D>,
    pub(super) weight: f64,
    pub(super) role: Option<Role>,
}

impl<D: Driver> Member<D> {
    /// A node with a name, which is the name of its pool in metrics too.
    pub fn new(name: impl Into<String>, pool: pool::Builder<D>) -> Self {
        Self { name: name.into(), pool, weight: 1.0, role: None }
    }

    /// The share it gets beside others, by their weights. Default: 1.
    pub fn weight(mut self, weight: f64) -> Self {
        self.weight = weight;
        self
    }

    /// What it is used for, whatever it says of itself: of two pools on one
    /// database one may be the [primary](Role::Primary) and the other a
    /// [replica](Role::Replica). Default: as it says.
    pub fn role(mut self, role: Role) -> Self {
        self.role = Some(role);
        self
    }

    /// Notes what is wrong with it.
    pub(super) fn check(&self, faults: &mut Vec<String>) {
        if self.name.is_empty() {
            faults.push("name = \"\": must not be empty".to_owned());
        }
        check_weight(&self.name, self.weight, faults);
        if let Some(name) = self.pool.named().filter(|name| *name != self.name) {
            let rule = "must be left out: the pool of a node is named as the node";
            faults.push(format!("{}.pool.name = {name:?}: {rule}", self.name));
        }
    }
}

pub(super) fn check_weight(name: &str, weight: f64, faults: &mut Vec<String>) {
    // Not a number is in no range.
    if !(0.001..=1000.0).contains(&weight) {
        faults.push(format!("{name}.weight = {weight:?}: must be from 0.001 to 1000"));
    }
}

impl<D: Driver> fmt::Debug for Member<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("name", &self.name)
            .field("pool", &self.pool)
            .field("weight", &self.weight)
            .field("role", &self.role)
            .finish()
    }
}

/// A node.
pub(super) struct Node<D: Driver> {
    pub(super) name: Arc<str>,
    pub(super) pool: Pool<D>,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) gauge: Arc<Gauge>,
    /// The application has said what it is.
    is_set: bool,
}

impl<D: Driver> Node<D> {
    pub(super) fn new(
        member: Member<D>,
        hub: &Arc<Hub>,
        rules: Rules,
        runtime: Arc<dyn Runtime>,
    ) -> Result<Self> {
        let Member { name, pool, weight, role } = member;
        let gauge = Arc::new(Gauge::new(Arc::clone(hub), rules, role, weight as f32));
        let pool = pool
            .or_name(&name)
            .or_runtime(runtime)
            .reads_only(Arc::clone(&gauge.reads_only))
            .observer(Told(Arc::clone(&gauge)))
            .build_lazy()
            .map_err(|error| error.within(&name))?;
        gauge.set_limit(pool.counts().max_open);
        let probe = Arc::from(pool.probe());
        Ok(Self { name: name.into(), pool, probe, gauge, is_set: role.is_some() })
    }
}

impl<D: Driver> Node<D> {
    /// The connection, if it serves this route. One that does not, because the
    /// node is no more what it was when it was opened, is closed.
    #[inline]
    pub(super) fn fit(
        &self,
        conn: PooledConnection<D>,
        route: Route,
    ) -> Option<PooledConnection<D>> {
        let duty = self.gauge.duty();
        let other = if duty.has(Duty::WRITE) { Role::Replica } else { Role::Primary };
        let changed = !self.is_set && conn.role() == Some(other);
        if changed {
            self.gauge.seems_changed(other);
        }
        if !route.is_for_writes() {
            return Some(conn);
        }
        // Whoever has waited for it may have waited too long.
        if !duty.has(Duty::WRITE) {
            return None;
        }
        if conn.is_read_only() || changed {
            conn.discard();
            return None;
        }
        Some(conn)
    }

    /// Whether the server itself refuses writes, as far as it has said.
    pub(super) fn takes_no_writes(&self) -> bool {
        !self.gauge.duty().has(Duty::WRITE) && self.gauge.read(Record::takes_no_writes)
    }

    /// Whether the caller may see what is read here, as far as is known.
    pub(super) fn is_near(&self, duty: Duty, terms: &Terms) -> bool {
        let Some(limit) = terms.max_lag.filter(|_| !duty.has(Duty::WRITE)) else { return true };
        self.gauge.read(|record| record.lag.is_some_and(|lag| lag <= limit))
    }

    /// Whether what was written elsewhere may be missing here.
    pub(super) fn may_be_behind(&self) -> bool {
        self.gauge.duty().has(Duty::READ)
    }

    /// Whether this place in the log is known to have been reached here.
    pub(super) fn has_reached(&self, position: &Position) -> bool {
        self.gauge.read(|record| record.reached.as_ref() == Some(position))
    }

    pub(super) fn note_reached(&self, position: &Position) {
        let before = self.gauge.change(|record| record.reached.replace(position.clone()));
        drop(before);
    }
}

/// The gauge, where the pool tells it what happens.
struct Told(Arc<Gauge>);

impl pool::Observer for Told {
    fn on_event(&self, event: &pool::Event<'_>) {
        self.0.on_event(event);
    }
}

/// That two nodes are one, or none.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a str>, faults: &mut Vec<String>) {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&name) {
            faults.push(format!("{name}: is given twice"));
        }
        seen.push(name);
    }
}

/// The error that tells all that is wrong, if anything is.
pub(super) fn refuse(faults: &[String]) -> Result<()> {
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Error::config(format!("invalid cluster: {}", faults.join("; ")))),
    }
}
