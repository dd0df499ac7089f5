//! A pool's numbers for the `metrics` crate, whatever recorder is behind it.
//!
//! Owns the translation. Does not know who records.

use std::fmt;
use std::time::Duration;

use ::metrics::{Histogram, Key, Label, Level, Metadata, Unit, with_recorder};

use crate::metrics::{Kind, Source, Value};
use crate::{Error, Event, Observer};

const METADATA: Metadata<'static> = Metadata::new("millpond", Level::INFO, None);

const WAITS: &str = "db.client.connection.wait_time";
const CONNECTS: &str = "db.client.connection.create_time";
const HOLDS: &str = "db.client.connection.use_time";
const STATEMENTS: &str = "db.client.operation.duration";

/// Tells the recorder of the `metrics` crate: durations as they happen, as an
/// [`Observer`], and counts and states whenever [`publish`](Self::publish) is
/// called.
///
/// Install the recorder first: the histograms are those of the one installed
/// when this is made.
///
/// ```
/// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
/// use millpond::observers::Facade;
///
/// # Sim::new(1).run(async |sim| {
/// let builder = Pool::builder(Fake::new()).name("shop").observer(Facade::new("shop"));
/// # let builder = builder.runtime(sim);
/// let pool = builder.build().await?;
/// // Before each scrape, or every few seconds:
/// Facade::publish(&pool);
/// # Ok::<_, millpond::Error>(())
/// # })?;
/// # Ok::<_, millpond::Error>(())
/// ```
pub struct Facade {
    pool: String,
    waits: Histogram,
    connects: Histogram,
    holds: Histogram,
    statements: Histogram,
}

impl Facade {
    /// For the pool of this name.
    pub fn new(pool: impl Into<String>) -> Self {
        let pool = pool.into();
        let histogram = |name, description: &'static str| {
            with_recorder(|recorder| {
                let unit = Some(Unit::Seconds);
                recorder.describe_histogram(name_of(name), unit, description.into());
            });
            registered(name, vec![pool_label(&pool)])
        };
        Self {
            waits: histogram(WAITS, "How long callers waited that had to and were served."),
            connects: histogram(CONNECTS, "How long connects took that succeeded."),
            holds: histogram(HOLDS, "How long connections were held."),
            statements: histogram(
                STATEMENTS,
                "How long statements took, and streams to their last row.",
            ),
            pool,
        }
    }

    /// Sets all counters and gauges to what the source says now.
    pub fn publish(source: &dyn Source) {
        let metrics = source.metrics();
        with_recorder(|recorder| {
            for metric in &metrics {
                let name = || name_of(metric.name);
                let unit = Some(match metric.unit {
                    "s" => Unit::Seconds,
                    "ms" => Unit::Milliseconds,
                    "us" => Unit::Microseconds,
                    _ => Unit::Count,
                });
                match metric.kind {
                    Kind::Counter => {
                        recorder.describe_counter(name(), unit, metric.description.into());
                    }
                    Kind::Gauge => recorder.describe_gauge(name(), unit, metric.description.into()),
                    // Told as they happen.
                    Kind::Histogram => continue,
                }
                for point in &metric.points {
                    let Value::Number(number) = point.value else { continue };
                    let labels: Vec<_> = point
                        .attributes
                        .iter()
                        .map(|(key, value)| Label::new(*key, value.clone().into_owned()))
                        .collect();
                    let key = Key::from_parts(metric.name, labels);
                    if metric.kind == Kind::Counter {
                        recorder.register_counter(&key, &METADATA).absolute(number);
                    } else {
                        recorder.register_gauge(&key, &METADATA).set(number as f64);
                    }
                }
            }
        });
    }

    fn statement(&self, took: Duration, error: Option<&Error>) {
        let Some(error) = error else { return self.statements.record(took) };
        let cause = Label::from_static_parts("error.type", error.cause().as_str());
        registered(STATEMENTS, vec![pool_label(&self.pool), cause]).record(took);
    }
}

impl Observer for Facade {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Connected { took, .. } => self.connects.record(*took),
            Event::Acquired { waited, .. } if !waited.is_zero() => self.waits.record(*waited),
            Event::Released { held, .. } => self.holds.record(*held),
            Event::Statement { took, error, .. } => self.statement(*took, *error),
            _ => {}
        }
    }
}

fn name_of(name: &'static str) -> ::metrics::KeyName {
    ::metrics::KeyName::from_const_str(name)
}

fn pool_label(pool: &str) -> Label {
    Label::new("db.client.connection.pool.name", pool.to_owned())
}

fn registered(name: &'static str, labels: Vec<Label>) -> Histogram {
    let key = Key::from_parts(name, labels);
    with_recorder(|recorder| recorder.register_histogram(&key, &METADATA))
}

impl fmt::Debug for Facade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facade").field("pool", &self.pool).finish_non_exhaustive()
    }
}
