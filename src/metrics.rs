//! What a pool measures, in the words of OpenTelemetry.
//!
//! Owns the form in which numbers leave the pool: a [`Source`] gives
//! [`Metric`]s, and whoever exports them knows no more. [`openmetrics`] writes
//! them for Prometheus, [`Monitor`] reports what changes. Does not know what is
//! measured.
//!
//! Names and units are those of OpenTelemetry's semantic conventions for
//! database clients, version 1.44; what these do not name is under `millpond.`.

mod histogram;
mod monitor;
mod openmetrics;
mod span;

use std::borrow::Cow;

pub(crate) use histogram::Histogram;
pub use histogram::{Distribution, Timings};
pub use monitor::{Monitor, MonitorReport, Watch};
pub use openmetrics::{OPENMETRICS, openmetrics};
pub(crate) use span::{Span, Wait};

/// Something that has metrics: a [`Pool`](crate::Pool); a
/// [`WeakPool`](crate::WeakPool), which an exporter may keep without keeping the
/// pool open; a [`PoolRegistry`](crate::PoolRegistry), of the pools it has built; a
/// [`Cluster`](crate::Cluster), of its nodes and their pools.
pub trait Source: Send + Sync + 'static {
    /// All of them, each name once. The counts of a pool are from one moment;
    /// histograms and errors are read right after it.
    fn metrics(&self) -> Vec<Metric>;
}

/// One metric, with a value for each set of attributes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metric {
    /// As OpenTelemetry names it: `db.client.connection.count`.
    pub name: &'static str,
    /// As UCUM writes it: `s`, `{connection}`.
    pub unit: &'static str,
    /// What it says, in a sentence.
    pub description: &'static str,
    /// How its values are to be read.
    pub kind: Kind,
    /// Its values.
    pub points: Vec<Point>,
}

/// How the values of a metric are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A state of the moment. What OpenTelemetry calls an UpDownCounter, too.
    Gauge,
    /// A sum since the start, which only grows.
    Counter,
    /// How durations are spread since the start.
    Histogram,
}

/// One value of a metric.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Point {
    /// What it is the value of. The set of names is the same for all points of a
    /// metric.
    pub attributes: Vec<(&'static str, Cow<'static, str>)>,
    /// The value.
    pub value: Value,
}

/// The value of a point.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of gauges and counters.
    Number(u64),
    /// Of histograms.
    Distribution(Distribution),
}

/// The bounds that histograms are exported with, in seconds: those that
/// OpenTelemetry advises for operations, and two below, for waits inside one
/// process are shorter.
pub const BOUNDS: [f64; 11] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];

impl Metric {
    pub(crate) fn new(
        kind: Kind,
        name: &'static str,
        unit: &'static str,
        description: &'static str,
    ) -> Self {
        Self { name, unit, description, kind, points: Vec::new() }
    }

    /// The same with one more value.
    pub(crate) fn with(
        mut self,
        attributes: &[(&'static str, Cow<'static, str>)],
        value: impl Into<Value>,
    ) -> Self {
        self.points.push(Point { attributes: attributes.to_vec(), value: value.into() });
        self
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<Distribution> for Value {
    fn from(distribution: Distribution) -> Self {
        Self::Distribution(distribution)
    }
}

impl Metric {
    /// What its sums have grown by since an earlier reading; a state as it is.
    pub(crate) fn since(&self, earlier: Option<&Self>) -> Self {
        let mut metric = self.clone();
        let Some(earlier) = earlier.filter(|_| self.kind != Kind::Gauge) else { return metric };
        for point in &mut metric.points {
            let before = earlier.points.iter().find(|other| other.attributes == point.attributes);
            match (&mut point.value, before.map(|before| &before.value)) {
                (Value::Number(now), Some(Value::Number(then))) => *now = now.saturating_sub(*then),
                (Value::Distribution(now), Some(Value::Distribution(then))) => {
                    *now = now.since(then);
                }
                _ => {}
            }
        }
        metric
    }
}

impl Value {
    /// Adds another of the same kind.
    fn add(&mut self, other: &Self) {
        match (self, other) {
            (Self::Number(sum), Self::Number(number)) => *sum = sum.saturating_add(*number),
            (Self::Distribution(sum), Self::Distribution(other)) => sum.add(other),
            _ => {}
        }
    }
}

/// The metrics of several sources, each name once. Values with the same
/// attributes are added up.
pub(crate) fn merged(sources: impl IntoIterator<Item = Vec<Metric>>) -> Vec<Metric> {
    let mut all: Vec<Metric> = Vec::new();
    for metric in sources.into_iter().flatten() {
        let Some(family) = all.iter_mut().find(|family| family.name == metric.name) else {
            all.push(metric);
            continue;
        };
        // What another source means by this name has no place among these.
        if (family.kind, family.unit) != (metric.kind, metric.unit) {
            continue;
        }
        for point in metric.points {
            let same = |other: &&mut Point| other.attributes == point.attributes;
            match family.points.iter_mut().find(same) {
                Some(sum) => sum.value.add(&point.value),
                None => family.points.push(point),
            }
        }
    }
    all
}
