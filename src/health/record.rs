//! What the checks of one node have told so far.
//!
//! Owns the numbers and which check is due. Asks nobody, waits for nothing.

use std::time::{Duration, Instant};

use millpond_driver::{Error, NodeStatus, Result};

use super::config::HealthConfig;
use super::fact::Fact;
use super::node::Node;
use super::status::HealthStatus;

#[derive(Debug)]
pub(super) struct Record {
    node: Node,
    interval: Duration,
    timeout: Duration,
    told: NodeStatus,
    last_error: Option<Error>,
    last_success_at: Option<Instant>,
    failures: u64,
    changes: u64,
    /// Checks begun and ended, and the number of the one somebody waits for.
    begun: u64,
    pub(super) ended: u64,
    wanted: u64,
    /// The next check has ended by then, if anybody checks.
    expected_by: Instant,
    /// The checker was told to stop.
    pub(super) stopping: bool,
    /// Its task is no more.
    pub(super) gone: bool,
}

/// What a busy machine may take for itself before a checker is given up for dead:
/// a short interval must not have an application restarted.
const GRACE: Duration = Duration::from_secs(1);

impl Record {
    pub(super) fn new(config: &HealthConfig, now: Instant) -> Self {
        let HealthConfig { rules, timeout, .. } = config;
        Self {
            node: Node::new(*rules, now),
            interval: rules.interval,
            timeout: *timeout,
            told: NodeStatus::default(),
            last_error: None,
            last_success_at: None,
            failures: 0,
            changes: 0,
            begun: 0,
            ended: 0,
            wanted: 0,
            expected_by: now + *timeout + rules.interval.max(GRACE),
            stopping: false,
            gone: false,
        }
    }

    /// Asks for a check that has not begun yet; its number.
    pub(super) fn want(&mut self) -> u64 {
        self.wanted = self.begun + 1;
        self.wanted
    }

    /// Until when the next check is to wait, if it is not due.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        let at = self.node.decision().probe_at.filter(|_| self.begun >= self.wanted);
        at.filter(|at| *at > now)
    }

    /// A check begins. Whether anything has changed.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        self.begun += 1;
        let before = self.node.state();
        let changed = self.node.tick(now).state != before;
        self.changes += u64::from(changed);
        changed
    }

    /// A check has ended. Whether anything has changed.
    pub(super) fn end(&mut self, result: Result<NodeStatus>, now: Instant, random: u64) -> bool {
        self.ended = self.begun;
        let fact = result.as_ref().map_or_else(Fact::of_probe, |_| Fact::Succeeded);
        let before = (self.node.state(), self.told.role, self.told.writable);
        let decision = self.node.probed(fact, now, random);
        self.failures += u64::from(fact.is_fault());
        if fact == Fact::Succeeded {
            self.last_success_at = Some(now);
        }
        match result {
            Ok(told) => self.told = told,
            Err(error) => self.last_error = Some(error),
        }
        let next = decision.probe_at.map_or(now, |at| at.max(now));
        self.expected_by = next + self.timeout + self.interval.max(GRACE);
        let changed = before != (decision.state, self.told.role, self.told.writable);
        self.changes += u64::from(changed);
        changed
    }

    /// There is nothing to check any more.
    pub(super) fn drain(&mut self, now: Instant) {
        self.node.drain(now);
        self.changes += 1;
    }

    pub(super) fn is_running(&self, now: Instant) -> bool {
        !self.stopping && !self.gone && now <= self.expected_by
    }

    pub(super) fn status(&self, now: Instant) -> HealthStatus {
        HealthStatus {
            at: now,
            state: self.node.state(),
            since: self.node.since(),
            reason: self.node.reason(),
            weight: self.node.weight(now),
            is_running: self.is_running(now),
            consecutive_failures: self.node.faults(),
            last_error: self.last_error.clone(),
            last_success_at: self.last_success_at,
            role: self.told.role,
            writable: self.told.writable,
            lag: self.told.lag,
            lag_bytes: self.told.lag_bytes,
            checks: self.ended,
            failures: self.failures,
            changes: self.changes,
        }
    }
}
