//! What a pool measures, in the words of OpenTelemetry.
//!
//! Owns the form in which numbers leave the pool: a [`Source`] gives
//! [`Metric`]s, and whoever exports them knows no more. Does not know what is
//! measured.
//!
//! Names and units are those of OpenTelemetry's semantic conventions for
//! database clients, version 1.44; what these do not name is under `millpond.`.

mod histogram;

use std::borrow::Cow;

pub(crate) use histogram::Histogram;
pub use histogram::{Distribution, Timings};

/// Something that has metrics: a [`Pool`](crate::Pool).
pub trait Source: Send + Sync + 'static {
    /// All of them, from one moment.
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
