//! A pool's numbers as metrics.
//!
//! Owns which number has which name. Measures nothing itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use millpond_driver::{Driver, Runtime};

use super::events::CloseReason;
use super::shared::Shared;
use super::snapshot::Snapshot;
use super::{Pool, WeakPool};
use crate::metrics::{Kind, Metric, Source, Value, Watch};
use crate::sync::Ordering;

const POOL: &str = "db.client.connection.pool.name";
const STATE: &str = "db.client.connection.state";

type Label = (&'static str, Cow<'static, str>);

impl<D: Driver> Source for Pool<D> {
    fn metrics(&self) -> Vec<Metric> {
        self.shared.metrics()
    }
}

/// None once the pool is gone.
impl<D: Driver> Source for WeakPool<D> {
    fn metrics(&self) -> Vec<Metric> {
        self.upgrade().map_or_else(Vec::new, |pool| pool.metrics())
    }
}

impl<D: Driver> Watch for Pool<D> {
    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.shared.runtime)
    }

    fn weak(&self) -> Arc<dyn Source> {
        Arc::new(self.downgrade())
    }
}

impl<D: Driver> Shared<D> {
    fn metrics(&self) -> Vec<Metric> {
        let (now, min_idle, max_idle, closes) = self.read(|state| {
            let rules = &state.rules;
            let closes = state.tally.closes;
            (Snapshot::take(state, &self.shelf), rules.min_idle, rules.max_idle, closes)
        });
        let pool: Label = (POOL, Cow::Owned(self.name.clone()));
        let pool = std::slice::from_ref(&pool);
        let number = |kind, name, unit, description, value: u64| {
            Metric::new(kind, name, unit, description).with(pool, value)
        };
        let gauge = |name, unit, description, value: usize| {
            number(Kind::Gauge, name, unit, description, value as u64)
        };
        let counter =
            |name, unit, description, value| number(Kind::Counter, name, unit, description, value);
        let mut all = vec![
            by(
                Metric::new(
                    Kind::Gauge,
                    "db.client.connection.count",
                    "{connection}",
                    "Connections that exist, by their state.",
                ),
                pool,
                STATE,
                [("idle", now.idle as u64), ("used", (now.open - now.idle) as u64)],
            ),
            gauge(
                "db.client.connection.idle.max",
                "{connection}",
                "The most connections kept idle.",
                max_idle,
            ),
            gauge(
                "db.client.connection.idle.min",
                "{connection}",
                "The fewest connections kept idle.",
                min_idle,
            ),
            gauge(
                "db.client.connection.pending_requests",
                "{request}",
                "Callers that wait for a connection.",
                now.waiting,
            ),
            counter(
                "db.client.connection.timeouts",
                "{timeout}",
                "Callers that ran out of time.",
                now.timeouts,
            ),
            by(
                Metric::new(
                    Kind::Gauge,
                    "millpond.connection.count",
                    "{connection}",
                    "Connections by what the pool does with them.",
                ),
                pool,
                "millpond.connection.state",
                [
                    ("in_use", now.in_use as u64),
                    ("idle", now.idle as u64),
                    ("checking", now.checking as u64),
                    ("cleaning", now.cleaning as u64),
                    ("closing", now.closing as u64),
                    ("opening", now.opening as u64),
                ],
            ),
            counter(
                "millpond.connection.created",
                "{connection}",
                "Connections opened or added.",
                now.created,
            ),
            by(
                Metric::new(
                    Kind::Counter,
                    "millpond.connection.closed",
                    "{connection}",
                    "Connections closed or being closed, by reason.",
                ),
                pool,
                "millpond.close.reason",
                CloseReason::ALL.map(|reason| (reason.as_str(), closes[reason as usize])),
            ),
            counter("millpond.acquired", "{loan}", "Connections lent.", now.acquired),
            counter("millpond.released", "{loan}", "Connections given back.", now.released),
            counter(
                "millpond.overloads",
                "{request}",
                "Callers turned away because too many waited.",
                now.overloads,
            ),
            counter("millpond.leaks", "{loan}", "Loans reported as leaks.", now.leaks),
            gauge("millpond.paused", "{pool}", "Pools that are paused.", now.is_paused.into()),
            gauge("millpond.closed", "{pool}", "Pools that are closed.", now.is_closed.into()),
        ];
        if let Some(max) = now.max_open {
            all.push(gauge(
                "db.client.connection.max",
                "{connection}",
                "The most connections there may be.",
                max,
            ));
        }
        let Some(meters) = &self.meters else { return all };
        for (name, description, spread) in [
            (
                "db.client.connection.create_time",
                "How long connects took that succeeded.",
                meters.connects.read(),
            ),
            (
                "db.client.connection.wait_time",
                "How long callers waited that had to and were served.",
                meters.waits.read(),
            ),
            (
                "db.client.connection.use_time",
                "How long connections were held.",
                meters.holds(now.released),
            ),
        ] {
            let metric = Metric::new(Kind::Histogram, name, "s", description);
            all.push(metric.with(pool, Value::Distribution(spread)));
        }
        let statements = meters.statements.read();
        let abandoned = meters.abandoned.load(Ordering::Relaxed);
        let begun = meters.begun.load(Ordering::Relaxed);
        let active = begun.saturating_sub(statements.count() + abandoned);
        let system: Label = ("db.system.name", Cow::Borrowed(self.driver.name()));
        all.push(
            Metric::new(
                Kind::Histogram,
                "db.client.operation.duration",
                "s",
                "How long statements took, and streams to their last row.",
            )
            .with(&[pool[0].clone(), system], statements),
        );
        all.push(gauge(
            "millpond.operation.active",
            "{operation}",
            "Statements under way.",
            active as usize,
        ));
        all.push(counter(
            "millpond.operation.abandoned",
            "{operation}",
            "Statements whose caller did not wait for their end.",
            abandoned,
        ));
        all.push(counter(
            "millpond.operation.retries",
            "{retry}",
            "Statements, work and transactions that were tried again.",
            meters.retries.load(Ordering::Relaxed),
        ));
        for (name, unit, description, counts) in [
            ("millpond.operation.errors", "{operation}", "Statements that failed.", &meters.errors),
            (
                "millpond.connection.errors",
                "{connection}",
                "Connects that failed.",
                &meters.connect_errors,
            ),
        ] {
            let counts: BTreeMap<_, _> = counts.read();
            all.push(by(
                Metric::new(Kind::Counter, name, unit, description),
                pool,
                "error.type",
                counts,
            ));
        }
        all
    }
}

/// A metric with a value for each of some words.
fn by(
    metric: Metric,
    pool: &[Label],
    attribute: &'static str,
    values: impl IntoIterator<Item = (&'static str, u64)>,
) -> Metric {
    values.into_iter().fold(metric, |metric, (word, value)| {
        metric.with(&[pool[0].clone(), (attribute, Cow::Borrowed(word))], value)
    })
}
