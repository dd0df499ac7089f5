//! Metrics of a [millpond](millpond) pool for OpenTelemetry.
//!
//! Owns the instruments. Knows of the pool what a
//! [`Source`](millpond::metrics::Source) and an
//! [`Observer`](millpond::Observer) tell, and of OpenTelemetry its interface
//! alone: any SDK will do.
//!
//! ```
//! # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
//! # Sim::new(1).run(async |sim| {
//! let meter = opentelemetry::global::meter("millpond");
//! let builder = Pool::builder(Fake::new()).name("shop");
//! # let builder = builder.runtime(sim);
//! let pool = builder
//!     .observer(millpond_opentelemetry::Durations::new(&meter, "shop", "postgresql"))
//!     .build()
//!     .await?;
//! millpond_opentelemetry::register(&meter, pool.downgrade());
//! # Ok::<_, millpond::Error>(())
//! # }).unwrap();
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millpond::metrics::{BOUNDS, Kind, Metric, Point, Source, Value};
use millpond::{Error, Event, Observer};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};

/// Has counts and states of a source read whenever metrics are collected.
///
/// The meter keeps the source for good: give it a
/// [`WeakPool`](millpond::WeakPool), which does not keep the pool open. Metrics
/// that the source has not got now, as the maximum of an unlimited pool, are
/// left out. Durations come from [`Durations`].
pub fn register(meter: &Meter, source: impl Source) {
    let reader = Arc::new(Reader { source, cache: Mutex::default() });
    for Metric { name, unit, description, kind, .. } in reader.source.metrics() {
        let reader = Arc::clone(&reader);
        match kind {
            Kind::Counter => {
                let instrument = meter.u64_observable_counter(name);
                let read = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
                    reader.read(name, |number, attributes| observer.observe(number, attributes));
                };
                instrument
                    .with_unit(unit)
                    .with_description(description)
                    .with_callback(read)
                    .build();
            }
            Kind::Gauge => {
                let instrument = meter.i64_observable_up_down_counter(name);
                let read = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<i64>| {
                    reader.read(name, |number, attributes| {
                        observer.observe(number.try_into().unwrap_or(i64::MAX), attributes);
                    });
                };
                instrument
                    .with_unit(unit)
                    .with_description(description)
                    .with_callback(read)
                    .build();
            }
            _ => {}
        }
    }
}

/// Lets the instruments of one collection share one reading of the source.
struct Reader<S> {
    source: S,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    metrics: Vec<Metric>,
    /// The names that were asked for since it was read.
    told: BTreeSet<&'static str>,
}

impl<S: Source> Reader<S> {
    fn read(&self, name: &'static str, mut tell: impl FnMut(u64, &[KeyValue])) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked for a second time, it is another collection.
        if cache.metrics.is_empty() || !cache.told.insert(name) {
            *cache = Cache { metrics: self.source.metrics(), told: [name].into() };
        }
        let metric = cache.metrics.iter().find(|metric| metric.name == name);
        for Point { attributes, value, .. } in metric.iter().flat_map(|metric| &metric.points) {
            let Value::Number(number) = value else { continue };
            let attributes: Vec<_> = attributes
                .iter()
                .map(|(key, value)| KeyValue::new(*key, value.clone().into_owned()))
                .collect();
            tell(*number, &attributes);
        }
    }
}

/// Records how long things take, as they happen. An
/// [`Observer`] of one pool.
#[derive(Debug)]
pub struct Durations {
    pool: [KeyValue; 1],
    operation: [KeyValue; 2],
    waits: Histogram<f64>,
    connects: Histogram<f64>,
    holds: Histogram<f64>,
    statements: Histogram<f64>,
}

impl Durations {
    /// For the pool of this name, over a system by its name in OpenTelemetry:
    /// `postgresql`, `mysql`, `sqlite`.
    pub fn new(meter: &Meter, pool: impl Into<String>, system: &'static str) -> Self {
        let histogram = |name: &'static str, description: &'static str| {
            let builder = meter.f64_histogram(name).with_unit("s").with_description(description);
            builder.with_boundaries(BOUNDS.to_vec()).build()
        };
        let pool = KeyValue::new("db.client.connection.pool.name", pool.into());
        Self {
            operation: [pool.clone(), KeyValue::new("db.system.name", system)],
            pool: [pool],
            waits: histogram(
                "db.client.connection.wait_time",
                "How long callers waited that had to and were served.",
            ),
            connects: histogram(
                "db.client.connection.create_time",
                "How long connects took that succeeded.",
            ),
            holds: histogram("db.client.connection.use_time", "How long connections were held."),
            statements: histogram(
                "db.client.operation.duration",
                "How long statements took, and streams to their last row.",
            ),
        }
    }

    fn statement(&self, took: Duration, error: Option<&Error>) {
        let took = took.as_secs_f64();
        let Some(error) = error else { return self.statements.record(took, &self.operation) };
        let mut attributes = self.operation.to_vec();
        attributes.push(KeyValue::new("error.type", error.cause().as_str()));
        if let Some(code) = error.code() {
            attributes.push(KeyValue::new("db.response.status_code", code.to_string()));
        }
        self.statements.record(took, &attributes);
    }
}

impl Observer for Durations {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Connected { took, .. } => self.connects.record(took.as_secs_f64(), &self.pool),
            Event::Acquired { waited, .. } if !waited.is_zero() => {
                self.waits.record(waited.as_secs_f64(), &self.pool);
            }
            Event::Released { held, .. } => self.holds.record(held.as_secs_f64(), &self.pool),
            Event::Statement { took, error, .. } => self.statement(*took, *error),
            _ => {}
        }
    }
}
