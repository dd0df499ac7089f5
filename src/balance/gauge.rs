//! What is known of one node, as callers meet it and as probes find it.
//!
//! Owns the numbers that a pick reads without a lock, and takes in what is met.
//! What follows for this node is in `record`; what it may be used for is decided
//! with all the others in view, in `watcher`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_listener::Event as Signal;
use millpond_driver::{Cause, Error, ErrorKind, Fate, NodeStatus, Result, Role};

use super::estimate::{self, Sample};
use super::hub::Hub;
use super::record::Record;
use super::route::Duty;
use super::strategy::NodeView;
use super::watcher::TICK;
use crate::health::{Fact, Rules};
use crate::pool::{self, Observer};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, CachePadded, Mutex, Ordering};

/// A fault counts as if it had taken so long, or a node that fails at once would
/// look like a quick one.
const FAULT: Duration = Duration::from_secs(1);

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
    /// The part of all callers, of `u32::MAX`, that it is shown to: it comes back
    /// slowly.
    shown: AtomicU32,
    /// Nanoseconds.
    cost: AtomicU64,
    limit: AtomicU32,
    /// How long statements took since the watcher looked, in nanoseconds.
    sum: CachePadded<AtomicU64>,
    count: AtomicU64,
    /// Answers since they were last taken into account.
    answers: AtomicU32,
    connect_failures: AtomicU32,
    /// The number of the connection opened last.
    newest: AtomicU64,
    picks: AtomicU64,
    /// New sessions refuse writes.
    pub(super) reads_only: Arc<AtomicBool>,
    /// It may not answer any more: what is under way there may be given up.
    fallen: Signal,
    record: Mutex<Record>,
    hub: Arc<Hub>,
}

impl Gauge {
    pub(super) fn new(hub: Arc<Hub>, rules: Rules, role: Option<Role>, weight: f32) -> Self {
        let record = Record::new(rules, hub.runtime.now(), role, weight);
        Self {
            load: CachePadded(AtomicU32::new(0)),
            duty: AtomicU32::new(0),
            weight: AtomicU32::new(weight.to_bits()),
            shown: AtomicU32::new(u32::MAX),
            cost: AtomicU64::new(0),
            limit: AtomicU32::new(u32::MAX),
            sum: CachePadded(AtomicU64::new(0)),
            count: AtomicU64::new(0),
            answers: AtomicU32::new(0),
            connect_failures: AtomicU32::new(0),
            newest: AtomicU64::new(0),
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

    /// Whether it is shown to a caller who has drawn this number.
    #[inline]
    pub(super) fn is_shown(&self, drawn: u32) -> bool {
        drawn <= self.shown.load(Ordering::Relaxed)
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
        // Before it is seen whether the watcher looks, as that looks the other way.
        self.load.fetch_add(1, Ordering::SeqCst);
        self.hub.stir();
        Reserved(self)
    }

    /// A caller is served here, or waits here.
    #[inline]
    pub(super) fn note_pick(&self) {
        self.picks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn load(&self) -> u32 {
        self.load.load(Ordering::SeqCst)
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

    /// The part of callers, from 0 to 1, that it is shown to.
    pub(super) fn set_shown(&self, part: f64) {
        // Saturates.
        self.shown.store((part * f64::from(u32::MAX)) as u32, Ordering::Relaxed);
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

    /// Shows a fault before the watcher looks: until then all callers would be
    /// sent where statements fail at once, because nobody is there for long.
    fn alarm(&self, took: Duration) {
        self.set_cost(estimate::alarmed(self.cost(), took.max(FAULT), TICK));
    }

    /// A statement or connect has failed in a way that says something of the
    /// node.
    fn failed(&self, fact: Fact, error: &Error, took: Duration, connection: Option<u64>) {
        self.measure(took.max(FAULT));
        let (now, random) = (self.hub.runtime.now(), self.hub.runtime.random());
        let mut record = self.record.lock();
        record.heard(self.answers.swap(0, Ordering::Relaxed), now);
        let before = record.health.state();
        // However many connections die at a time, that is one event. Those opened
        // since tell whether the node has gone with them.
        let newest = self.newest.load(Ordering::Relaxed);
        let known = is_a_death(error)
            && connection.is_some_and(|connection| record.lose(connection, newest));
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
        if !self.duty().has(Duty::WRITE) || !record.refused_a_write(now) {
            return;
        }
        self.set_duty(self.duty().without(Duty::WRITE));
        drop(record);
        self.hub.tell_callers();
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
            record.doubt(now);
            self.set_duty(self.duty().without(Duty::WRITE));
        }
        drop(record);
        self.hub.tell_callers();
        self.hub.ask_all();
    }

    /// What keeps the node from ever answering what it is asked now; `None`:
    /// nothing is known to.
    pub(super) fn is_given_up(&self, name: &str) -> Option<Error> {
        let met = self.read(|record| record.is_lost().then(|| record.last_error.clone()))?;
        let lost = Error::lost(format!("{name} does not answer any more"));
        Some(match met {
            Some(error) => lost.with_source(error),
            None => lost,
        })
    }

    /// That may have changed, or there is nobody to say so.
    pub(super) fn stirred(&self) -> event_listener::EventListener {
        self.fallen.listen()
    }

    /// Those who wait on the node look again.
    pub(super) fn stir(&self) {
        self.fallen.notify(usize::MAX);
    }

    fn has_fallen(&self) {
        if self.duty().has(Duty::WRITE) {
            // Another one may be the primary already.
            self.hub.ask_all();
        }
        self.set_duty(Duty::NONE);
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
        let (fell, lost) = self.change(|record| {
            record.asking = false;
            let before = record.health.state();
            record.probed(result, asked, now, random);
            (record.fell(before), record.is_lost())
        });
        if fell {
            self.has_fallen();
        }
        if lost {
            self.stir();
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

/// Whether a connection has died of it, with a last word of the server's or
/// without.
fn is_a_death(error: &Error) -> bool {
    let used =
        matches!(error.kind(), ErrorKind::Lost | ErrorKind::Statement | ErrorKind::CommitUnknown);
    used && error.fate() == Fate::Discard
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
            pool::Event::Statement { took, error: Some(error), connection, .. } => {
                match Fact::of(error) {
                    Some(fact) => {
                        self.alarm(*took);
                        self.failed(fact, error, *took, Some(*connection));
                    }
                    None => {
                        self.answered(*took);
                        if error.cause() == Cause::WrongRole {
                            self.refused_a_write();
                        }
                    }
                }
            }
            // Not an answer to anything asked: it says nothing of statements.
            pool::Event::Connected { connection, .. } => {
                self.newest.fetch_max(*connection, Ordering::Relaxed);
                let forgotten = self.record.lock().connect_error.take();
                drop(forgotten);
            }
            pool::Event::ConnectFailed { error, took } => {
                let before = self.record.lock().connect_error.replace((*error).clone());
                drop(before);
                self.connect_failures.fetch_add(1, Ordering::AcqRel);
                if let Some(fact) = Fact::of(error) {
                    self.failed(fact, error, *took, None);
                }
                self.hub.tell_callers();
            }
            pool::Event::CheckFailed { error, connection, .. } => {
                if let Some(fact) = Fact::of(error) {
                    self.failed(fact, error, Duration::ZERO, Some(*connection));
                }
            }
            _ => {}
        }
    }
}
