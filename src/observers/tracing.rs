//! What happens in a pool or a cluster as events of the `tracing` crate.
//!
//! Owns the level and the words of each. Does not know who subscribes.

use ::tracing::{debug, error, info, trace, warn};

use crate::balance;
use crate::metrics::MonitorReport;
use crate::{Event, Observer};

const TARGET: &str = "millpond";

/// Tells subscribers of `tracing` what happens in a pool, with the target
/// `millpond` and fields in OpenTelemetry's words. An [`Observer`].
///
/// WARN: what an operator wants to know, as leaks and connects that failed.
/// DEBUG: connections that come and go, callers that wait, statements that fail.
/// TRACE: every loan and statement.
///
/// ```
/// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
/// use millpond::observers::Tracing;
///
/// # Sim::new(1).run(async |sim| {
/// let builder = Pool::builder(Fake::new()).name("shop").observer(Tracing::new("shop"));
/// # let pool = builder.runtime(sim).build().await?;
/// # Ok::<_, millpond::Error>(())
/// # })?;
/// # Ok::<_, millpond::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tracing {
    pool: String,
}

impl Tracing {
    /// For the pool of this name.
    pub fn new(pool: impl Into<String>) -> Self {
        Self { pool: pool.into() }
    }
}

/// Logs the reports of a [`Monitor`](crate::metrics::Monitor), each as one event
/// at INFO: `Monitor::start(&pool, interval, log)`.
pub fn log(report: &MonitorReport) {
    info!(target: TARGET, "{report}");
}

/// Logs what happens in a cluster, each thing as one event that names the node:
/// `Cluster::builder().on_event(log_cluster)`.
///
/// ERROR: [alarms](balance::Event::is_alarm). WARN: a node that is out or far
/// behind. INFO: the others, as a new primary.
///
/// ```
/// # use millpond::{Cluster, Pool, drivers::fake::Fake, testing::sim::Sim};
/// use millpond::observers::log_cluster;
///
/// # Sim::new(1).run(async |sim| {
/// let builder = Cluster::builder().node("a", Pool::builder(Fake::new())).on_event(log_cluster);
/// # let cluster = builder.runtime(sim).build().await?;
/// # Ok::<_, millpond::Error>(())
/// # })?;
/// # Ok::<_, millpond::Error>(())
/// ```
pub fn log_cluster(event: &balance::Event<'_>) {
    let node = event.node();
    match event {
        event if event.is_alarm() => error!(target: TARGET, { millpond.node = node }, "{event}"),
        balance::Event::Ejected { .. } | balance::Event::Lagging { .. } => {
            warn!(target: TARGET, { millpond.node = node }, "{event}");
        }
        _ => info!(target: TARGET, { millpond.node = node }, "{event}"),
    }
}

/// An event at a level, with the pool's name and these fields.
macro_rules! tell {
    ($level:ident, $self:ident, { $($fields:tt)* }, $text:literal) => {
        $level!(
            target: TARGET,
            { db.client.connection.pool.name = $self.pool.as_str(), $($fields)* },
            $text
        )
    };
}

impl Observer for Tracing {
    fn on_event(&self, event: &Event<'_>) {
        match event {
            Event::Connected { connection, took } => tell!(
                debug,
                self,
                {
                    millpond.connection.id = connection,
                    db.client.connection.create_time = took.as_secs_f64(),
                },
                "connected"
            ),
            Event::ConnectFailed { error, took } => tell!(
                warn,
                self,
                {
                    db.client.connection.create_time = took.as_secs_f64(),
                    "error.type" = error.cause().as_str(),
                    exception.message = %error,
                },
                "connect failed"
            ),
            Event::Acquired { connection, waited, label } if waited.is_zero() => tell!(
                trace,
                self,
                { millpond.connection.id = connection, millpond.label = label, },
                "acquired"
            ),
            Event::Acquired { connection, waited, label } => tell!(
                debug,
                self,
                {
                    millpond.connection.id = connection,
                    millpond.label = label,
                    db.client.connection.wait_time = waited.as_secs_f64(),
                },
                "acquired after a wait"
            ),
            Event::AcquireFailed { error, label } => tell!(
                warn,
                self,
                {
                    millpond.label = label,
                    "error.type" = error.cause().as_str(),
                    exception.message = %error,
                },
                "acquire failed"
            ),
            Event::Released { connection, held } => tell!(
                trace,
                self,
                {
                    millpond.connection.id = connection,
                    db.client.connection.use_time = held.as_secs_f64(),
                },
                "released"
            ),
            Event::CheckFailed { connection, error } => tell!(
                debug,
                self,
                {
                    millpond.connection.id = connection,
                    "error.type" = error.cause().as_str(),
                    exception.message = %error,
                },
                "check failed"
            ),
            Event::Statement { connection, took, error: None } => tell!(
                trace,
                self,
                {
                    millpond.connection.id = connection,
                    db.client.operation.duration = took.as_secs_f64(),
                },
                "statement"
            ),
            Event::Statement { connection, took, error: Some(error) } => tell!(
                debug,
                self,
                {
                    millpond.connection.id = connection,
                    db.client.operation.duration = took.as_secs_f64(),
                    "error.type" = error.cause().as_str(),
                    exception.message = %error,
                },
                "statement failed"
            ),
            Event::Retried { retries, error } => tell!(
                debug,
                self,
                {
                    millpond.retries = retries,
                    "error.type" = error.cause().as_str(),
                    exception.message = %error,
                },
                "tried again"
            ),
            Event::Closed { connection, reason } => tell!(
                debug,
                self,
                {
                    millpond.connection.id = connection,
                    millpond.close.reason = reason.as_str(),
                },
                "closed"
            ),
            Event::Leak(leak) => {
                // Come back, it is only worth a note.
                if leak.returned {
                    tell!(info, self, { millpond.connection.id = leak.connection, }, "{leak}");
                } else {
                    tell!(warn, self, { millpond.connection.id = leak.connection, }, "{leak}");
                }
            }
        }
    }
}
