//! Checks one node again and again, in the background.
//!
//! Owns the task and the handle to it. Does not know what it asks, nor what a
//! failure means: a [`Probe`] and a [`Node`](super::Node) do.

use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use event_listener::Event;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use millpond_driver::{Error, NodeStatus, Phase, Result, Runtime};

use super::config::HealthConfig;
use super::probe::{Probe, Probed};
use super::record::Record;
use super::status::HealthStatus;
use crate::sync::Mutex;

/// Checks in the background whether the database behind a pool answers.
///
/// Each check asks the node for its status on a connection of the checker's
/// own, outside the pool's limit and queue, kept open between checks. So it
/// tells how the database is, whatever the pool is busy with; a paused pool is
/// checked too. All checkers of a pool share that one connection.
///
/// The checks run on the pool's runtime and end with it, with the pool, with
/// [`stop`](Self::stop), and when this is dropped. They do not keep the pool
/// open. A checker that does not check is neither [alive](Self::is_alive) nor
/// [ready](Self::is_ready); start another one.
#[must_use = "the checks end when this is dropped"]
pub struct HealthChecker {
    shared: Arc<Shared>,
}

struct Shared {
    config: HealthConfig,
    runtime: Arc<dyn Runtime>,
    record: Mutex<Record>,
    /// The task has something to do: a check is wanted, or it is to stop.
    wake: Event,
    /// The record has changed.
    news: Event,
}

impl HealthChecker {
    /// Starts to check. The first check begins at once; until it has ended the
    /// state is [`Probing`](super::State::Probing).
    ///
    /// # Errors
    ///
    /// As for [`HealthConfig::validate`].
    pub fn start(target: &impl Probed, config: HealthConfig) -> Result<Self> {
        config.validate()?;
        let probe = target.probe();
        let runtime = probe.runtime();
        let shared = Arc::new(Shared {
            record: Mutex::new(Record::new(&config, runtime.now())),
            config,
            runtime: Arc::clone(&runtime),
            wake: Event::new(),
            news: Event::new(),
        });
        let task = Task { shared: Arc::clone(&shared), probe };
        runtime.spawn(Box::pin(task.run()));
        Ok(Self { shared })
    }

    /// What is known.
    pub fn status(&self) -> HealthStatus {
        self.shared.read(Record::status)
    }

    /// Checks now, and tells what is known then.
    ///
    /// Those who ask at the same time share a check. A node that is left alone
    /// for a while stays out, however it answers. Takes at most three times
    /// `timeout`, and no time once the checker has stopped.
    ///
    /// # Cancellation
    ///
    /// Dropping the future leaves the check under way.
    pub async fn check_now(&self) -> HealthStatus {
        let number = self.shared.record.lock().want();
        self.shared.wake.notify(usize::MAX);
        self.shared.briefly(|record| record.ended >= number).await;
        self.status()
    }

    /// Waits until state, role or writability are no longer as in `known`, or
    /// the checker has stopped. A change that is over already counts.
    ///
    /// ```
    /// # use millpond::{Pool, drivers::fake::Fake, testing::sim::Sim};
    /// # use millpond::health::{HealthChecker, HealthConfig};
    /// # Sim::new(1).run(async |sim| {
    /// # let pool = Pool::builder(Fake::new()).runtime(sim).build().await?;
    /// let health = HealthChecker::start(&pool, HealthConfig::new())?;
    /// let mut status = health.status();
    /// while !status.is_ready() {
    ///     status = health.changed(&status).await;
    /// }
    /// # Ok::<_, millpond::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Cancellation
    ///
    /// Dropping the future loses nothing.
    pub async fn changed(&self, known: &HealthStatus) -> HealthStatus {
        self.shared.until(|record| record.status(known.at).changes != known.changes).await;
        self.status()
    }

    /// Whether the database may be used: [`Up`](super::State::Up) or
    /// [`Degraded`](super::State::Degraded), by a checker that is
    /// [alive](Self::is_alive). For a readiness probe.
    pub fn is_ready(&self) -> bool {
        self.status().is_ready()
    }

    /// Whether the checker itself works: its last check ended in time. For a
    /// liveness probe, which must not ask for the database: a restart of the
    /// application does not bring that back.
    pub fn is_alive(&self) -> bool {
        self.shared.read(Record::is_running)
    }

    /// The answer to an HTTP request for readiness: 200 or 503, and a line of
    /// JSON.
    pub fn answer(&self) -> (u16, String) {
        self.status().answer()
    }

    /// Stops, a check under way included, and waits for that. The connection
    /// says goodbye in the background. Stopping twice is harmless.
    ///
    /// # Cancellation
    ///
    /// The checker stops from the first poll on, whatever becomes of the future.
    pub async fn stop(&self) {
        self.shared.tell_to_stop();
        self.shared.briefly(|record| record.gone).await;
    }
}

impl Drop for HealthChecker {
    fn drop(&mut self) {
        self.shared.tell_to_stop();
    }
}

impl fmt::Debug for HealthChecker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthChecker")
            .field("config", &self.shared.config)
            .field("status", &format_args!("{}", self.status()))
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn read<R>(&self, look: impl FnOnce(&Record, Instant) -> R) -> R {
        let now = self.runtime.now();
        look(&self.record.lock(), now)
    }

    fn tell_to_stop(&self) {
        self.record.lock().stopping = true;
        self.wake.notify(usize::MAX);
    }

    /// Waits until it is so, or the task is gone.
    async fn until(&self, so: impl Fn(&Record) -> bool) {
        heard(&self.news, || self.read(|record, _| record.gone || so(record))).await;
    }

    /// The same, for no longer than it takes if the runtime works at all.
    async fn briefly(&self, so: impl Fn(&Record) -> bool) {
        let limit = self.runtime.now() + self.config.timeout * 3;
        select(pin!(self.until(so)), self.runtime.sleep_until(limit)).await;
    }

    /// Waits until a check is due.
    async fn due(&self) {
        loop {
            let woken = self.wake.listen();
            match self.read(Record::wait) {
                None => return,
                Some(at) => drop(select(woken, self.runtime.sleep_until(at)).await),
            }
        }
    }

    /// Tells everybody.
    fn tell(&self) {
        self.news.notify(usize::MAX);
    }

    /// Tells everybody, and the listener too.
    fn tell_of_change(&self) {
        self.tell();
        if let Some(listener) = &self.config.on_change {
            let status = self.read(Record::status);
            // Its panic is its own affair.
            let _ = catch_unwind(AssertUnwindSafe(|| listener(&status)));
        }
    }
}

/// Waits for events until it is so.
async fn heard(event: &Event, so: impl Fn() -> bool) {
    loop {
        let heard = event.listen();
        if so() {
            return;
        }
        heard.await;
    }
}

/// The checks, as long as they go on. Says so when they no longer do, even if
/// it is dropped with its runtime.
struct Task {
    shared: Arc<Shared>,
    probe: Box<dyn Probe>,
}

impl Task {
    async fn run(self) {
        let shared = &*self.shared;
        let stopped = pin!(heard(&shared.wake, || shared.read(|record, _| record.stopping)));
        let ended = select(stopped, self.probe.closed());
        let closed = match select(ended, pin!(self.checks())).await {
            Either::Left((Either::Left(_), _)) => false,
            Either::Left((Either::Right(_), _)) => true,
            Either::Right((never, _)) => match never {},
        };
        if closed {
            let now = shared.runtime.now();
            shared.record.lock().drain(now);
            shared.tell_of_change();
        }
    }

    async fn checks(&self) -> Infallible {
        let shared = &*self.shared;
        loop {
            shared.due().await;
            let now = shared.runtime.now();
            let changed = shared.record.lock().begin(now);
            if changed {
                shared.tell_of_change();
            }
            let result = self.ask().await;
            let (now, random) = (shared.runtime.now(), shared.runtime.random());
            // The lock is gone before anybody is told.
            let changed = shared.record.lock().end(result, now, random);
            match changed {
                true => shared.tell_of_change(),
                false => shared.tell(),
            }
        }
    }

    /// One check, bounded in time, its panic contained.
    async fn ask(&self) -> Result<NodeStatus> {
        let Shared { config, runtime, .. } = &*self.shared;
        let limit: Duration = config.timeout;
        let deadline = runtime.now() + limit;
        let asked = AssertUnwindSafe(async { self.probe.ask(limit).await }).catch_unwind();
        match select(pin!(asked), runtime.sleep_until(deadline)).await {
            Either::Left((Ok(result), _)) => result,
            Either::Left((Err(_), _)) => Err(Error::panicked("the driver panicked in a check")),
            Either::Right(_) => {
                Err(Error::timeout(Phase::Checking, format!("no answer within {limit:?}")))
            }
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.shared.record.lock().gone = true;
        self.shared.tell();
    }
}
