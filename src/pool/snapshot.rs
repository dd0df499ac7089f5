//! The pool in numbers, all from one moment.
//!
//! Owns the counts and how they read. Every slot is counted once, in the one
//! phase it is in, so the sums below hold by construction.

use std::fmt;
use std::time::{Duration, Instant};

use millpond_driver::{Phase as TimeoutPhase, Report};

use super::entry::Phase;
use super::shelf::Shelf;
use super::slots::MAX_SLOTS;
use super::state::State;
use crate::metrics::Timings;

/// The pool at one moment.
///
/// `open = in_use + idle + checking + cleaning + closing`;
/// `open + opening ≤ max_open`, but for those above a limit that was lowered; `created − closed = open`;
/// `acquired − released = in_use`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The most connections there may be; `None`: unlimited.
    pub max_open: Option<usize>,
    /// Connections that exist.
    pub open: usize,
    /// Lent to callers.
    pub in_use: usize,
    /// Free.
    pub idle: usize,
    /// Being checked before they are lent.
    pub checking: usize,
    /// Being cleaned after they were given back.
    pub cleaning: usize,
    /// Being closed.
    pub closing: usize,
    /// Being opened.
    pub opening: usize,
    /// Callers in the queue.
    pub waiting: usize,
    /// Connections opened or added since the pool's start.
    pub created: u64,
    /// Connections closed or detached since then.
    pub closed: u64,
    /// Connects that have failed since then.
    pub connects_failed: u64,
    /// Connections lent since then.
    pub acquired: u64,
    /// Connections given back since then.
    pub released: u64,
    /// Callers that ran out of time since then.
    pub timeouts: u64,
    /// Loans reported as leaks since then.
    pub leaks: u64,
    /// Callers turned away because too many waited, since then.
    pub overloads: u64,
    /// How long callers waited for a connection, of those that had to and were
    /// served. `None`: `metrics_enabled` is off.
    pub waits: Option<Timings>,
    /// How long connects took that succeeded. `None`: `metrics_enabled` is off.
    pub connects: Option<Timings>,
    /// How long connections were held, to a few milliseconds. `None`:
    /// `metrics_enabled` is off.
    pub holds: Option<Timings>,
    /// How long statements took, and streams to their last row. `None`:
    /// `metrics_enabled` is off.
    pub statements: Option<Timings>,
    /// Whether the pool is paused.
    pub is_paused: bool,
    /// Whether the pool has been closed.
    pub is_closed: bool,
}

impl Snapshot {
    /// Called with the lock held, so that only idle and in use may change
    /// meanwhile, each slot between these two.
    pub(super) fn take<C>(state: &State<C>, shelf: &Shelf<C>) -> Self {
        let tally = state.tally;
        let mut snapshot = Self {
            max_open: Some(state.rules.max_open).filter(|max| *max < MAX_SLOTS),
            open: 0,
            in_use: 0,
            idle: 0,
            checking: 0,
            cleaning: 0,
            closing: 0,
            opening: 0,
            waiting: state.waiters.len(),
            created: tally.created,
            closed: tally.closed,
            connects_failed: tally.connects_failed,
            acquired: 0,
            released: 0,
            timeouts: tally.timeouts,
            leaks: tally.leaks,
            overloads: tally.overloads,
            waits: None,
            connects: None,
            holds: None,
            statements: None,
            is_paused: state.paused && !state.is_closed(),
            is_closed: state.is_closed(),
        };
        for note in shelf.slots.notes() {
            let (phase, lent) = note.read();
            match phase {
                Phase::Vacant => {}
                Phase::Opening => snapshot.opening += 1,
                Phase::Idle => snapshot.idle += 1,
                Phase::InUse => snapshot.in_use += 1,
                Phase::Checking => snapshot.checking += 1,
                Phase::Cleaning => snapshot.cleaning += 1,
                Phase::Closing => snapshot.closing += 1,
            }
            snapshot.acquired += lent;
        }
        snapshot.released = snapshot.acquired - snapshot.in_use as u64;
        snapshot.open = snapshot.in_use
            + snapshot.idle
            + snapshot.checking
            + snapshot.cleaning
            + snapshot.closing;
        snapshot
    }
}

/// What a caller is told that has waited for so long in vain.
pub(super) fn report<C>(
    state: &State<C>,
    shelf: &Shelf<C>,
    now: Instant,
    waited: Duration,
) -> Report {
    let snapshot = Snapshot::take(state, shelf);
    let failures = state.outage.failures();
    let may_grow = snapshot.open < state.rules.max_open;
    let phase = if snapshot.is_paused {
        TimeoutPhase::Paused
    } else if snapshot.opening > 0 || (failures > 0 && may_grow) {
        TimeoutPhase::Connecting
    } else if snapshot.checking > 0 {
        TimeoutPhase::Checking
    } else {
        TimeoutPhase::Waiting
    };
    let mut report = Report::new(phase, waited);
    report.max_open = snapshot.max_open;
    report.in_use = snapshot.in_use;
    report.idle = snapshot.idle;
    report.opening = snapshot.opening;
    report.checking = snapshot.checking;
    report.cleaning = snapshot.cleaning;
    report.closing = snapshot.closing;
    report.waiting = snapshot.waiting + 1;
    report.failed_connects = failures;
    report.oldest = shelf.holders(now).into_iter().next();
    report
}

impl fmt::Display for Snapshot {
    /// One line, for example `3 of 8 open: 1 in use, 2 idle; 0 waiting`; with
    /// `{:#}` a table of everything.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.table(f);
        }
        write!(f, "{}", self.open)?;
        if let Some(max) = self.max_open {
            write!(f, " of {max}")?;
        }
        write!(f, " open: {} in use, {} idle", self.in_use, self.idle)?;
        for (count, name) in [
            (self.checking, "checking"),
            (self.cleaning, "cleaning"),
            (self.closing, "closing"),
            (self.opening, "opening"),
        ] {
            if count > 0 {
                write!(f, ", {count} {name}")?;
            }
        }
        write!(f, "; {} waiting", self.waiting)?;
        if self.is_paused {
            f.write_str("; paused")?;
        }
        if self.is_closed { f.write_str("; closed") } else { Ok(()) }
    }
}

impl Snapshot {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = self.max_open.map_or_else(|| "unlimited".to_owned(), |max| max.to_string());
        let now = [
            ("open", self.open),
            ("  in use", self.in_use),
            ("  idle", self.idle),
            ("  checking", self.checking),
            ("  cleaning", self.cleaning),
            ("  closing", self.closing),
            ("opening", self.opening),
            ("waiting", self.waiting),
        ];
        let since_start = [
            ("created", self.created),
            ("closed", self.closed),
            ("acquired", self.acquired),
            ("released", self.released),
            ("connects failed", self.connects_failed),
            ("timeouts", self.timeouts),
            ("overloads", self.overloads),
            ("leaks", self.leaks),
        ];
        let state = match () {
            () if self.is_closed => "closed",
            () if self.is_paused => "paused",
            () => "",
        };
        writeln!(f, "{:<11} {:>9}   {:<15} {:>12}", "now", state, "since start", "")?;
        for (left, right) in now.into_iter().zip(since_start) {
            write!(f, "{:<11} {:>9}   ", left.0, grouped(left.1 as u64))?;
            writeln!(f, "{:<15} {:>12}", right.0, grouped(right.1))?;
        }
        write!(f, "{:<11} {most:>9}", "max open")?;
        for (name, timings) in [
            ("waits", &self.waits),
            ("connects", &self.connects),
            ("holds", &self.holds),
            ("statements", &self.statements),
        ] {
            if let Some(timings) = timings {
                write!(f, "\n{name:<11} {timings}")?;
            }
        }
        Ok(())
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1 000", "1 234 567"]);
    }
}
