//! What has changed, told every so often.
//!
//! Owns when a report is made and that it harms nobody: it goes to its sink on
//! a thread that may block, one at a time. Does not know what is measured, nor
//! what a sink makes of it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_util::future::{Either, select};
use millpond_driver::{Error, Result, Runtime};

use super::{Kind, Metric, Point, Source, Value};

/// What a [`Monitor`] can watch: a [`Pool`](crate::Pool), a [`Cluster`](crate::Cluster).
pub trait Watch: Source {
    /// What the monitor runs on.
    fn runtime(&self) -> Arc<dyn Runtime>;

    /// The same source, which does not keep alive what it tells of, and has no
    /// metrics once that is gone.
    fn weak(&self) -> Arc<dyn Source>;
}

/// Reports what a pool does, every interval, until stopped or dropped or the
/// pool is gone.
///
/// ```
/// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
/// # use std::time::Duration;
/// use millpond::metrics::Monitor;
///
/// # Sim::new(1).run(async |sim| {
/// # let pool = Pool::builder(Fake::new()).runtime(sim).build().await?;
/// let monitor =
///     Monitor::start(&pool, Duration::from_secs(10), |report| println!("{report}"))?;
/// # monitor.stop();
/// # Ok::<_, millpond::Error>(())
/// # })?;
/// # Ok::<_, millpond::Error>(())
/// ```
#[must_use = "a monitor that is dropped stops"]
pub struct Monitor {
    shared: Arc<Shared>,
}

/// What a pool has done in an interval.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MonitorReport {
    /// How long the interval was.
    pub interval: Duration,
    /// Reports left out before this one, because the sink was still busy. What
    /// they would have told is part of this one.
    pub missed: u64,
    /// States as they are; of all that adds up, what came in the interval.
    pub metrics: Vec<Metric>,
}

struct Shared {
    stopped: AtomicBool,
    stop: Event,
    running: AtomicBool,
    /// A report is under way.
    busy: AtomicBool,
    missed: AtomicU64,
}

impl Monitor {
    /// The shortest interval.
    pub const SHORTEST: Duration = Duration::from_millis(1);
    /// The longest interval.
    pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

    /// Starts to report to `sink`. The first report comes after one interval.
    ///
    /// The sink is called on a thread that may block. While it is, no second
    /// report is made; a panic in it is dropped.
    ///
    /// # Errors
    ///
    /// An interval out of bounds.
    pub fn start(
        source: &impl Watch,
        interval: Duration,
        sink: impl Fn(&MonitorReport) + Send + Sync + 'static,
    ) -> Result<Self> {
        let (shortest, longest) = (Self::SHORTEST, Self::LONGEST);
        if !(shortest..=longest).contains(&interval) {
            return Err(Error::config(format!(
                "invalid monitor configuration: interval = {interval:?}: \
                 must be from {shortest:?} to {longest:?}"
            )));
        }
        let shared = Arc::new(Shared {
            stopped: AtomicBool::new(false),
            stop: Event::new(),
            running: AtomicBool::new(true),
            busy: AtomicBool::new(false),
            missed: AtomicU64::new(0),
        });
        let runtime = source.runtime();
        let task = Task {
            before: source.metrics(),
            since: runtime.now(),
            source: source.weak(),
            runtime: Arc::clone(&runtime),
            sink: Arc::new(sink),
            shared: Running(Arc::clone(&shared)),
        };
        runtime.spawn(Box::pin(task.run(interval)));
        Ok(Self { shared })
    }

    /// Ends it. A report under way is finished, and none follows. Once is enough,
    /// twice harmless.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.stop.notify(usize::MAX);
    }

    /// Whether its task is still there: not some moments after it was stopped,
    /// the pool was dropped, or the runtime has ended that the monitor was
    /// started on.
    pub fn is_running(&self) -> bool {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Reports left out so far, because the sink was still busy.
    pub fn missed(&self) -> u64 {
        self.shared.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("is_running", &self.is_running())
            .field("missed", &self.missed())
            .finish_non_exhaustive()
    }
}

type Sink = Arc<dyn Fn(&MonitorReport) + Send + Sync>;

/// The task of a monitor.
struct Task {
    before: Vec<Metric>,
    since: Instant,
    source: Arc<dyn Source>,
    runtime: Arc<dyn Runtime>,
    sink: Sink,
    shared: Running,
}

impl Task {
    async fn run(mut self, interval: Duration) {
        let mut missed = 0;
        let mut next = self.since + interval;
        loop {
            let stop = self.shared.0.stop.listen();
            if self.shared.0.stopped.load(Ordering::Acquire) {
                return;
            }
            if let Either::Right(_) = select(self.runtime.sleep_until(next), pin!(stop)).await {
                return;
            }
            let metrics = self.source.metrics();
            if metrics.is_empty() {
                return;
            }
            let now = self.runtime.now();
            next += interval;
            if next <= now {
                // A runtime that stood still is not made up for.
                next = now + interval;
            }
            let Some(turn) = Turn::take(&self.shared.0) else {
                missed += 1;
                self.shared.0.missed.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            let report = MonitorReport {
                interval: now.saturating_duration_since(self.since),
                missed: std::mem::take(&mut missed),
                metrics: changes(&self.before, &metrics),
            };
            (self.before, self.since) = (metrics, now);
            let (sink, shared) = (Arc::clone(&self.sink), Arc::clone(&self.shared.0));
            self.runtime.spawn_blocking(Box::new(move || {
                let _turn = turn;
                if !shared.stopped.load(Ordering::Acquire) {
                    let _ = catch_unwind(AssertUnwindSafe(|| sink(&report)));
                }
            }));
        }
    }
}

fn changes(before: &[Metric], now: &[Metric]) -> Vec<Metric> {
    let earlier = |metric: &Metric| before.iter().find(|other| other.name == metric.name);
    now.iter().map(|metric| metric.since(earlier(metric))).collect()
}

/// The task is there; dropped with it, wherever it ends.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

/// The right to report, given back when dropped: also with a job that no thread
/// has run.
struct Turn(Arc<Shared>);

impl Turn {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let was_busy = shared.busy.swap(true, Ordering::AcqRel);
        (!was_busy).then(|| Self(Arc::clone(shared)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

impl fmt::Display for MonitorReport {
    /// One line: states, then what came. What is zero is left out. For example
    /// `shop in 10.0s: connection.count in_use 1, idle 2; acquired +120;
    /// connection.wait_time 3: half within 1ms, …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let common =
            self.metrics.first().and_then(|metric| metric.points.first()?.attributes.first());
        if let Some((_, whose)) = common {
            write!(f, "{} ", whose.escape_debug())?;
        }
        write!(f, "in {:.1?}", self.interval)?;
        if self.missed > 0 {
            write!(f, " ({} reports missed)", self.missed)?;
        }
        let mut separator = ": ";
        for (at, metric) in self.metrics.iter().enumerate() {
            let name = short(metric.name);
            // OpenTelemetry's count of connections knows fewer states than ours.
            if self.metrics[at + 1..].iter().any(|other| short(other.name) == name) {
                continue;
            }
            let mut points = metric.points.iter().filter(|point| !is_zero(&point.value)).peekable();
            if points.peek().is_none() {
                continue;
            }
            write!(f, "{separator}{name}")?;
            separator = "; ";
            let mut comma = "";
            for Point { attributes, value } in points {
                f.write_str(comma)?;
                comma = ",";
                for (_, word) in attributes.iter().filter(|attribute| Some(*attribute) != common) {
                    write!(f, " {}", word.escape_debug())?;
                }
                match value {
                    Value::Number(number) if metric.kind == Kind::Gauge => write!(f, " {number}")?,
                    Value::Number(number) => write!(f, " +{number}")?,
                    Value::Distribution(all) => write!(f, " {}", all.timings())?,
                }
            }
        }
        Ok(())
    }
}

/// A metric's name without whose it is.
fn short(name: &str) -> &str {
    let rest = name.strip_prefix("db.client.").or_else(|| name.strip_prefix("millpond."));
    rest.unwrap_or(name)
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => *number == 0,
        Value::Distribution(all) => all.count() == 0,
    }
}
