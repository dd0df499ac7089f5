//! What is known of one node, as callers meet it and as probes find it.
//!
//! Owns the numbers that a pick reads without a lock, and the record behind
//! them. Takes in what is met; what a node may be used for is decided with all
//! the others in view, in `watcher`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_listener::Event as Signal;
use millpond_driver::{Cause, Error, ErrorKind, NodeStatus, Result, Role};

use super::estimate::{Estimate, Sample};
use super::hub::Hub;
use super::lag::Laggard;
use super::route::Duty;
use super::standing::{Known, Out, Standing};
use super::strategy::NodeView;
use crate::health::{Fact, Node as Health, Reason, Rules, State};
use crate::pool::{self, Observer};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, CachePadded, Mutex, Ordering};

/// A fault counts as if it had taken so long, or a node that fails at once would
/// look like a quick one.
const FAULT: Duration = Duration::from_secs(1);
/// After a refused write on a node that takes writes all the same, further ones
/// are the caller's own affair for so long.
const FALSE_ALARM: Duration = Duration::from_secs(1);

/// One node in numbers.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Callers that use it or wait for it. Alone in its line: it is written by
    /// each of them.
    load: CachePadded<AtomicU32>,
    /// The rest of what a pick reads, written by the watcher.
    duty: AtomicU32,
    /// `f32` as its bits.
    weight: AtomicU32,
    /// Nanoseconds.
    cost: AtomicU64,
    limit: AtomicU32,
    /// How long statements took since the watcher looked, in nanoseconds.
    sum: CachePadded<AtomicU64>,
    count: AtomicU64,
    /// Answers since they were last taken into account.
    answers: AtomicU32,
    connect_failures: AtomicU32,
    picks: AtomicU64,
    /// New sessions refuse writes.
    pub(super) reads_only: Arc<AtomicBool>,
    /// It does not answer any more: what is under way is given up.
    fallen: Signal,
    record: Mutex<Record>,
    hub: Arc<Hub>,
}

/// What is known of a node.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) health: Health,
    pub(super) set_role: Option<Role>,
    pub(super) set_weight: f32,
    pub(super) told: Option<NodeStatus>,
    /// When it was asked for that.
    pub(super) asked: Option<Instant>,
    /// A write was refused there, and when.
    refused: Option<Instant>,
    /// That was found to say nothing of the node.
    excused: Option<Instant>,
    /// A connection was lost, and nothing has answered since.
    lost: bool,
    pub(super) estimate: Estimate,
    pub(super) laggard: Laggard,
    pub(super) lag: Option<Duration>,
    pub(super) standing: Standing,
    pub(super) last_error: Option<Error>,
    /// Why no connection could be opened, unless one could since.
    connect_error: Option<Error>,
    /// How often its connections were retired because of its role.
    pub(super) epoch: u64,
    /// Nothing was heard of it since, though somebody uses it.
    silent_since: Option<Instant>,
    /// It is being asked because of that.
    suspect: bool,
    /// How often it was out.
    pub(super) ejections: u64,
    /// It is being asked now, and when that began last.
    pub(super) asking: bool,
    pub(super) begun: Option<Instant>,
    /// It is used for something.
    pub(super) used: bool,
}

impl Gauge {
    pub(super) fn new(hub: Arc<Hub>, rules: Rules, role: Option<Role>, weight: f32) -> Self {
        let now = hub.runtime.now();
        let record = Record {
            health: Health::new(rules, now),
            set_role: role,
            set_weight: weight,
            told: None,
            asked: None,
            refused: None,
            excused: None,
            lost: false,
            estimate: Estimate::default(),
            laggard: Laggard::default(),
            lag: None,
            standing: Standing {
                role: role.unwrap_or_default(),
                duty: Duty::NONE,
                out: None,
            },
            last_error: None,
            connect_error: None,
            epoch: 0,
            silent_since: None,
            suspect: false,
            ejections: 0,
            asking: false,
            begun: None,
            used: false,
        };
        Self {
            load: CachePadded(AtomicU32::new(0)),
            duty: AtomicU32::new(0),
            weight: AtomicU32::new(weight.to_bits()),
            cost: AtomicU64::new(0),
            limit: AtomicU32::new(u32::MAX),
            sum: CachePadded(AtomicU64::new(0)),
            count: AtomicU64::new(0),
            answers: AtomicU32::new(0),
            connect_failures: AtomicU32::new(0),
            picks: AtomicU64::new(0),
            reads_only: Arc::new(AtomicBool::new(false)),
            fallen: Signal::new(),
            record: Mutex::new(record),
            hub,
        }
    }

    // What a pick reads.

    #[inline]
    pub(super) fn duty(&self) -> Duty {
        Duty(self.duty.load(Ordering::Acquire))
    }

    /// What a strategy is shown, and whether it is free for another caller.
    #[inline]
    pub(super) fn view(&self) -> (NodeView, bool) {
        let load = self.load.load(Ordering::Relaxed);
        let view = NodeView {
            load,
            weight: f32::from_bits(self.weight.load(Ordering::Relaxed)),
            cost: Duration::from_nanos(self.cost.load(Ordering::Relaxed)),
        };
        (view, load < self.limit.load(Ordering::Relaxed))
    }

    /// Counts a caller from the pick on, until the pool counts it or it gives up.
    #[inline]
    pub(super) fn reserve(&self) -> Reserved<'_> {
        self.picks.fetch_add(1, Ordering::Relaxed);
        self.load.fetch_add(1, Ordering::Relaxed);
        self.hub.stir();
        Reserved(self)
    }

    pub(super) fn load(&self) -> u32 {
        self.load.load(Ordering::Relaxed)
    }

    pub(super) fn picks(&self) -> u64 {
        self.picks.load(Ordering::Relaxed)
    }

    pub(super) fn cost(&self) -> Duration {
        Duration::from_nanos(self.cost.load(Ordering::Relaxed))
    }

    // What the watcher writes.

    pub(super) fn set_duty(&self, duty: Duty) {
        self.duty.store(duty.0, Ordering::Release);
    }

    pub(super) fn set_weight(&self, weight: f32) {
        self.weight.store(weight.to_bits(), Ordering::Relaxed);
    }

    pub(super) fn set_cost(&self, cost: Duration) {
        let nanos = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        self.cost.store(nanos, Ordering::Relaxed);
    }

    pub(super) fn set_limit(&self, limit: Option<usize>) {
        let limit = limit.map_or(u32::MAX, |limit| u32::try_from(limit).unwrap_or(u32::MAX));
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub(super) fn take_sample(&self) -> Sample {
        let sum = self.sum.swap(0, Ordering::Relaxed);
        let count = self.count.swap(0, Ordering::Relaxed);
        Sample { sum: Duration::from_nanos(sum), count }
    }

    // What is met.

    #[inline]
    fn measure(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum.fetch_add(nanos, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self, took: Duration) {
        self.measure(took);
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    /// A statement or connect has failed in a way that says something of the
    /// node.
    fn failed(&self, fact: Fact, error: &Error, took: Duration) {
        self.measure(took.max(FAULT));
        let (now, random) = (self.hub.runtime.now(), self.hub.runtime.random());
        let mut record = self.record.lock();
        record.heard(self.answers.swap(0, Ordering::Relaxed), now);
        let before = record.health.state();
        // However many connections die at a time, that is one event; what
        // follows tells whether the node has gone with them.
        let known = error.kind() == ErrorKind::Lost && std::mem::replace(&mut record.lost, true);
        let decision = match known {
            true => record.health.tick(now),
            false => record.health.met(fact, now, random),
        };
        let old = record.last_error.replace(error.clone());
        let fell = record.fell(before);
        let due = decision.probe_at.is_some_and(|at| at <= now);
        drop(record);
        drop(old);
        if fell {
            self.has_fallen();
        }
        if fell || due || before != decision.state {
            self.hub.hurry();
        }
    }

    /// A write was refused. If the node is taken for the primary, it gets none
    /// before it has been asked what it is.
    fn refused_a_write(&self) {
        let now = self.hub.runtime.now();
        let mut record = self.record.lock();
        let is_recent = |at: Instant| now.saturating_duration_since(at) < FALSE_ALARM;
        if !self.duty().has(Duty::WRITE) || record.excused.is_some_and(is_recent) {
            return;
        }
        record.refused = Some(now);
        self.set_duty(self.duty().without(Duty::WRITE));
        drop(record);
        self.hub.ask_all();
    }

    /// A session was told of another role than the node is taken to have: it is
    /// asked, and gets no writes before it has answered if it is a replica.
    pub(super) fn seems_changed(&self, to: Role) {
        let now = self.hub.runtime.now();
        let mut record = self.record.lock();
        if record.set_role.is_some() || record.standing.role == to {
            return;
        }
        if to == Role::Replica {
            record.refused = Some(now);
            self.set_duty(self.duty().without(Duty::WRITE));
        }
        drop(record);
        self.hub.ask_all();
    }

    /// Waits until the node does not answer any more; what was met there.
    pub(super) async fn given_up(&self, name: &str) -> Error {
        loop {
            let fallen = self.fallen.listen();
            let (fell, error) = self.read(|record| (record.is_down(), record.last_error.clone()));
            if fell {
                let lost = Error::lost(format!("{name} does not answer any more"));
                return match error {
                    Some(error) => lost.with_source(error),
                    None => lost,
                };
            }
            fallen.await;
        }
    }

    fn has_fallen(&self) {
        if self.duty().has(Duty::WRITE) {
            // Another one may be the primary already.
            self.hub.ask_all();
        }
        self.set_duty(Duty::NONE);
        self.fallen.notify(usize::MAX);
        self.hub.tell_callers();
    }

    // What probes find.

    pub(super) fn read<R>(&self, look: impl FnOnce(&Record) -> R) -> R {
        look(&self.record.lock())
    }

    pub(super) fn change<R>(&self, change: impl FnOnce(&mut Record) -> R) -> R {
        let answers = self.answers.swap(0, Ordering::Relaxed);
        let now = self.hub.runtime.now();
        let mut record = self.record.lock();
        record.heard(answers, now);
        change(&mut record)
    }

    /// A probe has ended that began at `asked`.
    pub(super) fn probed(&self, result: Result<NodeStatus>, asked: Instant) {
        let (now, random) = (self.hub.runtime.now(), self.hub.runtime.random());
        let fell = self.change(|record| {
            record.asking = false;
            let before = record.health.state();
            record.probed(result, asked, now, random);
            record.fell(before)
        });
        if fell {
            self.has_fallen();
        }
        self.hub.news.notify(usize::MAX);
    }

    /// How often no connection could be opened.
    pub(super) fn connect_failures(&self) -> u32 {
        self.connect_failures.load(Ordering::Acquire)
    }

    /// Why no connection could be opened last, if none could since.
    pub(super) fn connect_error(&self) -> Option<Error> {
        self.read(|record| record.connect_error.clone())
    }
}

/// A caller that is counted.
#[derive(Debug)]
pub(super) struct Reserved<'a>(&'a Gauge);

impl Drop for Reserved<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The pool of the node tells what happens there.
impl Observer for Gauge {
    fn on_event(&self, event: &pool::Event<'_>) {
        match event {
            pool::Event::Acquired { .. } => {
                self.load.fetch_add(1, Ordering::Relaxed);
            }
            pool::Event::Released { .. } => {
                self.load.fetch_sub(1, Ordering::Relaxed);
            }
            pool::Event::Statement { took, error: None, .. } => self.answered(*took),
            pool::Event::Statement { took, error: Some(error), .. } => match Fact::of(error) {
                Some(fact) => self.failed(fact, error, *took),
                None => {
                    self.answered(*took);
                    if error.cause() == Cause::WrongRole {
                        self.refused_a_write();
                    }
                }
            },
            pool::Event::Connected { .. } => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                let forgotten = self.record.lock().connect_error.take();
                drop(forgotten);
            }
            pool::Event::ConnectFailed { error, took } => {
                let before = self.record.lock().connect_error.replace((*error).clone());
                drop(before);
                self.connect_failures.fetch_add(1, Ordering::AcqRel);
                if let Some(fact) = Fact::of(error) {
                    self.failed(fact, error, *took);
                }
                self.hub.tell_callers();
            }
            pool::Event::CheckFailed { error, .. } => {
                if let Some(fact) = Fact::of(error) {
                    self.failed(fact, error, Duration::ZERO);
                }
            }
            _ => {}
        }
    }
}

impl Record {
    /// Answers have come since this was last said.
    fn heard(&mut self, answers: u32, now: Instant) {
        if answers == 0 {
            return;
        }
        self.lost = false;
        self.silent_since = None;
        self.health.answered(answers, now);
    }

    fn probed(
        &mut self,
        result: Result<NodeStatus>,
        asked: Instant,
        now: Instant,
        random: u64,
    ) {
        let fact = result.as_ref().map_or_else(Fact::of_probe, |_| Fact::Succeeded);
        let was_suspect = std::mem::replace(&mut self.suspect, false);
        if was_suspect && fact == Fact::Failed {
            // Then those who wait for it do so in vain, too.
            self.health.met(Fact::Failed, now, random);
        }
        self.health.probed(fact, now, random);
        let silent = result.as_ref().is_err_and(Error::is_timeout);
        match result {
            Ok(told) => {
                self.lost = false;
                self.silent_since = None;
                if self.refused.is_some_and(|at| at <= asked) {
                    self.refused = None;
                    let still = told.writable != Some(false) && told.role != Role::Replica;
                    self.excused = still.then_some(now);
                }
                self.told = Some(told);
                self.asked = Some(asked);
            }
            Err(error) => self.last_error = Some(error),
        }
        if self.refused.is_some() {
            // It was asked before that.
            self.health.hint(now);
        }
        if silent && self.health.state().is_serving() {
            // Asked again at once, and not for long: silence is dear.
            self.suspect = true;
            self.health.hint(now);
        }
    }

    /// Whether it has been put out since, for good reason.
    fn fell(&mut self, before: State) -> bool {
        let fell = before.is_serving() && !self.health.state().is_serving();
        self.ejections += u64::from(fell);
        fell && self.is_down()
    }

    /// It is out, and not only for failing too often.
    pub(super) fn is_down(&self) -> bool {
        !self.health.state().is_serving() && self.health.reason() != Some(Reason::Rate)
    }

    /// It is out for failing too often.
    pub(super) fn is_shaky(&self) -> bool {
        !self.health.state().is_serving() && self.health.reason() == Some(Reason::Rate)
    }

    /// Somebody uses the node; how long that may have been in vain. Has it
    /// asked after a second of silence.
    pub(super) fn listen(&mut self, is_used: bool, now: Instant) {
        const SILENCE: Duration = Duration::from_secs(1);
        if !is_used {
            self.silent_since = None;
            return;
        }
        let since = *self.silent_since.get_or_insert(now);
        let silent = now.saturating_duration_since(since) >= SILENCE;
        if silent && self.health.state().is_serving() && !self.suspect {
            self.suspect = true;
            self.health.hint(now);
        }
    }

    /// Whether a write was refused there and nobody knows why yet.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.is_some()
    }

    /// Whether it is of another cluster.
    pub(super) fn is_stranger(&self) -> bool {
        self.standing.out == Some(Out::Stranger)
    }

    /// Whether nobody knows anything of it yet.
    pub(super) fn is_untold(&self) -> bool {
        self.told.is_none() && self.last_error.is_none()
    }

    /// Whether a probe is to be short, because somebody waits for its answer.
    pub(super) fn is_suspect(&self) -> bool {
        self.suspect
    }

    pub(super) fn known(&self, duty: Duty) -> Known {
        Known {
            told: self.told.clone(),
            set: self.set_role,
            refused: self.refused.is_some(),
            writes: duty.has(Duty::WRITE),
            serving: !self.is_down(),
        }
    }

    /// Why it cannot be used for this.
    pub(super) fn objection(&self, wanted: Duty) -> Error {
        let role = |text: String| Error::connect(text).with_cause(Cause::WrongRole);
        if let Some(error) = self.connect_error.as_ref().or(self.last_error.as_ref()) {
            if self.told.is_none() || self.is_down() {
                return error.clone();
            }
        }
        match self.standing.out {
            Some(Out::Rival) => role("takes writes beside another primary".to_owned()),
            Some(Out::Stranger) => {
                Error::connect("belongs to another cluster").with_cause(Cause::Config)
            }
            None if self.told.is_none() => Error::connect("has not answered yet"),
            None if self.standing.duty.has(wanted) => {
                let lag = self.lag.unwrap_or_default();
                Error::connect(format!("is {lag:.1?} behind")).with_cause(Cause::Overload)
            }
            None if self.refused.is_some() => role("has refused a write".to_owned()),
            None if wanted.has(Duty::WRITE) && self.standing.role == Role::Primary => {
                role("is the primary, and takes no writes".to_owned())
            }
            None => role(format!("is {}", super::events::called(self.standing.role))),
        }
    }
}
