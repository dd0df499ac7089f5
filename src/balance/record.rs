//! What is known of one node: whether it answers, what it said last, and what
//! follows from what is met there.
//!
//! Owns the rules that concern one node alone. A state machine: facts and time
//! come in. Knows no other node.

use std::time::{Duration, Instant};

use millpond_driver::{Cause, Error, NodeStatus, Position, Result, Role};

use super::estimate::Estimate;
use super::events::called;
use super::lag::{History, Laggard};
use super::route::Duty;
use super::standing::{Known, Out, Standing};
use crate::health::{Fact, Node as Health, Reason, Rules, State};

/// After a refused write on a node that takes writes all the same, further ones
/// are the caller's own affair for so long.
const FALSE_ALARM: Duration = Duration::from_secs(1);
/// So long nothing is heard of a node that is in use before it is asked, or as
/// long as a probe may take.
const SILENCE: Duration = Duration::from_secs(1);

/// What is known of a node.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) health: Health,
    pub(super) set_role: Option<Role>,
    pub(super) set_weight: f32,
    pub(super) told: Option<NodeStatus>,
    /// When it was asked for that.
    pub(super) asked: Option<Instant>,
    /// When it said so.
    pub(super) told_at: Option<Instant>,
    /// A write was refused there, and when.
    refused: Option<Instant>,
    /// That was found to say nothing of the node.
    excused: Option<Instant>,
    /// Connections up to this number were lost, and nothing has answered since.
    lost: Option<u64>,
    pub(super) estimate: Estimate,
    pub(super) laggard: Laggard,
    pub(super) lag: Option<Duration>,
    pub(super) standing: Standing,
    pub(super) last_error: Option<Error>,
    /// Why no connection could be opened, unless one could since.
    pub(super) connect_error: Option<Error>,
    /// How often its connections were retired because of its role.
    pub(super) epoch: u64,
    /// Nothing was heard of it since, though somebody uses it.
    silent_since: Option<Instant>,
    /// It is being asked because of that, which is not counted yet.
    silent: bool,
    /// The next answer is not waited for long.
    suspect: bool,
    /// What callers have met has changed what it may be used for so often.
    pub(super) turns: u64,
    /// How often it was out.
    pub(super) ejections: u64,
    /// It is being asked now, and when that began last.
    pub(super) asking: bool,
    pub(super) begun: Option<Instant>,
    /// A probe has failed since one has not.
    unheard: bool,
    /// The last place in the log that somebody waited for and that was reached.
    pub(super) reached: Option<Position>,
    /// It is used for something.
    used: bool,
    /// It is too far behind.
    late: bool,
    /// When it was found to be out of place, and whether that was told.
    out_since: Option<Instant>,
    alarmed: bool,
    /// It was told that it has not answered since it joined.
    complained: bool,
}

impl Record {
    pub(super) fn new(rules: Rules, now: Instant, set_role: Option<Role>, set_weight: f32) -> Self {
        Self {
            health: Health::new(rules, now),
            set_role,
            set_weight,
            told: None,
            asked: None,
            told_at: None,
            refused: None,
            excused: None,
            lost: None,
            estimate: Estimate::default(),
            laggard: Laggard::default(),
            lag: None,
            standing: Standing { role: set_role.unwrap_or_default(), duty: Duty::NONE, out: None },
            last_error: None,
            connect_error: None,
            epoch: 0,
            silent_since: None,
            silent: false,
            suspect: false,
            turns: 0,
            ejections: 0,
            asking: false,
            begun: None,
            unheard: false,
            reached: None,
            used: false,
            late: false,
            out_since: None,
            alarmed: false,
            complained: false,
        }
    }

    /// A write was refused. Whether that says something of the node.
    pub(super) fn refused_a_write(&mut self, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < FALSE_ALARM;
        let counts = !self.excused.is_some_and(is_recent);
        if counts {
            self.doubt(now);
        }
        counts
    }

    /// It may take no writes any more.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.turns += 1;
        self.reached = None;
        self.refused = Some(now);
    }

    /// A connection was lost, by its number. Whether that is known: others were
    /// lost before, this one was open then, and nothing has answered since.
    pub(super) fn lose(&mut self, connection: u64, newest: u64) -> bool {
        let known = self.lost.is_some_and(|before| connection <= before);
        if !known {
            self.lost = Some(newest);
        }
        known
    }

    /// Answers have come since this was last said.
    pub(super) fn heard(&mut self, answers: u32, now: Instant) {
        if answers == 0 {
            return;
        }
        self.lost = None;
        self.silent_since = None;
        self.health.answered(answers, now);
    }

    pub(super) fn probed(
        &mut self,
        result: Result<NodeStatus>,
        asked: Instant,
        now: Instant,
        random: u64,
    ) {
        let fact = result.as_ref().map_or_else(Fact::of_probe, |_| Fact::Succeeded);
        self.suspect = false;
        if std::mem::replace(&mut self.silent, false) && fact == Fact::Failed {
            // Then those who wait for it do so in vain, too.
            self.health.met(Fact::Failed, now, random);
        }
        self.health.probed(fact, now, random);
        self.unheard = fact.is_fault();
        let silent = result.as_ref().is_err_and(Error::is_timeout);
        if fact == Fact::Succeeded {
            self.lost = None;
            self.silent_since = None;
            // One that was asked before that says nothing of it.
            if self.refused.is_some_and(|at| at <= asked) {
                self.refused = None;
                let says_so =
                    |told: &NodeStatus| told.writable == Some(false) || told.role == Role::Replica;
                self.excused = (!result.as_ref().is_ok_and(says_so)).then_some(now);
            }
        }
        match result {
            Ok(told) => {
                let before = self.told.as_ref();
                if before.is_some_and(|before| told.position < before.position) {
                    // It has less than it had: it is a copy of another time.
                    self.reached = None;
                }
                self.told = Some(told);
                (self.asked, self.told_at) = (Some(asked), Some(now));
            }
            Err(error) => self.last_error = Some(error),
        }
        if self.refused.is_some() && fact == Fact::Succeeded {
            self.health.hint(now);
        }
        if silent && self.health.state().is_serving() {
            // Asked again at once, and not for long: silence is dear.
            self.suspect = true;
            self.health.hint(now);
        }
    }

    /// Whether it has been put out since, for good reason.
    pub(super) fn fell(&mut self, before: State) -> bool {
        let fell = before.is_serving() && !self.health.state().is_serving();
        self.ejections += u64::from(fell);
        self.turns += u64::from(fell);
        if fell {
            self.reached = None;
        }
        fell && self.is_down()
    }

    /// It is down, and probes say so too: nothing that waits there will end well.
    pub(super) fn is_lost(&self) -> bool {
        self.is_down() && self.unheard
    }

    /// Whether it has said that it takes no writes.
    pub(super) fn takes_no_writes(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.writable == Some(false))
    }

    /// It is out, and not only for failing too often.
    pub(super) fn is_down(&self) -> bool {
        !self.health.state().is_serving() && self.health.reason() != Some(Reason::Rate)
    }

    /// It is out for failing too often.
    pub(super) fn is_shaky(&self) -> bool {
        !self.health.state().is_serving() && self.health.reason() == Some(Reason::Rate)
    }

    /// Somebody uses the node; how long that may have been in vain. Has it asked
    /// after so much silence.
    pub(super) fn listen(&mut self, is_used: bool, patience: Duration, now: Instant) {
        if !is_used {
            self.silent_since = None;
            return;
        }
        let since = *self.silent_since.get_or_insert(now);
        let silent = now.saturating_duration_since(since) >= patience.max(SILENCE);
        if silent && self.health.state().is_serving() && !self.suspect {
            (self.suspect, self.silent) = (true, true);
            self.health.hint(now);
        }
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

    /// How far it is behind.
    pub(super) fn lag_by(&self, history: &History, standing: Standing) -> Option<Duration> {
        let (Some(told), Some(asked)) = (&self.told, self.asked) else { return None };
        match told.role {
            _ if standing.duty.has(Duty::WRITE) => None,
            Role::Replica => history.lag(told, asked),
            Role::Unknown => told.lag,
            // Nothing is ahead of it.
            _ => Some(Duration::ZERO),
        }
    }

    /// Its standing from now on, and what that changes.
    pub(super) fn change(&mut self, standing: Standing, duty: Duty, now: Instant) -> Change {
        let old = std::mem::replace(&mut self.standing, standing);
        let mut news = Vec::new();
        let serves = Duty::WRITE.with(Duty::READ);
        let used = duty.has(serves) && !duty.has(Duty::SHAKY);
        let was_used = std::mem::replace(&mut self.used, used);
        match (was_used, used) {
            (false, true) => {
                // What was met while it failed says nothing of what it takes now.
                self.estimate = Estimate::default();
                news.push(News::Returned { anew: self.ejections == 0 });
            }
            (true, false) if self.is_down() || self.is_shaky() => news.push(News::Ejected),
            // It has never been of use, and that is told once.
            (false, false)
                if self.told.is_none() && self.last_error.is_some() && !self.complained =>
            {
                self.complained = true;
                news.push(News::Ejected);
            }
            _ => {}
        }
        let writes = duty.has(Duty::WRITE);
        let first = old.role == Role::Unknown && old.duty == Duty::NONE;
        let otherwise = was_used && used && old.duty.has(Duty::WRITE) != writes;
        let in_doubt = self.refused.is_some();
        if !first && !in_doubt && (old.role != standing.role || otherwise) {
            self.reached = None;
            news.push(News::Role { from: old.role, to: standing.role, writes });
        }
        let late = duty.has(Duty::STALE);
        if std::mem::replace(&mut self.late, late) != late {
            news.push(if late { News::Late(self.lag) } else { News::CaughtUp });
        }
        if old.out != standing.out {
            (self.out_since, self.alarmed) = (standing.out.map(|_| now), false);
        }
        // A primary that has fallen unnoticed is no rival of the next one: only what
        // it says after that is.
        let confirmed = self.asked.zip(self.out_since).is_some_and(|(asked, since)| asked > since);
        let alarm = standing.out.filter(|out| confirmed || *out == Out::Stranger);
        if let Some(out) = alarm.filter(|_| !self.alarmed) {
            self.alarmed = true;
            news.push(News::Out(out));
        }
        // A refused write is looked into before sessions are retired for it.
        let settled = duty.has(serves) && !in_doubt;
        let reads_only = settled.then_some(!writes);
        let (weight, shown) = (self.set_weight, self.health.weight(now));
        Change { duty, weight, shown, reads_only, news, turns: self.turns }
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
            Some(Out::Rival) => {
                role("takes writes, and another one is or was the primary since".to_owned())
            }
            Some(Out::Stranger) => {
                Error::connect("belongs to another cluster").with_cause(Cause::Config)
            }
            None if self.told.is_none() => Error::connect("has not answered yet"),
            None if self.standing.duty.has(wanted) => {
                let told = match self.lag {
                    Some(lag) => format!("is {lag:.1?} behind"),
                    None => "does not say how far it is behind".to_owned(),
                };
                Error::connect(told).with_cause(Cause::Overload)
            }
            None if self.refused.is_some() => role("has refused a write".to_owned()),
            None if self.set_role == Some(Role::Primary) && wanted.has(Duty::WRITE) => {
                let says = self.told.as_ref().map_or(Role::Unknown, |told| told.role);
                let says = called(says);
                role(format!("was set to be the primary, says it is {says}, and takes no writes"))
            }
            None if wanted.has(Duty::WRITE) && self.standing.role == Role::Primary => {
                role("is the primary, and takes no writes".to_owned())
            }
            None => role(format!("is {}", called(self.standing.role))),
        }
    }
}

/// What is to become of a node.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) duty: Duty,
    pub(super) weight: f32,
    /// The part of callers, from 0 to 1, that it is shown to.
    pub(super) shown: f64,
    /// Whether its sessions are to refuse writes; `None`: as they are.
    pub(super) reads_only: Option<bool>,
    pub(super) news: Vec<News>,
    /// The record's, by which this was decided.
    pub(super) turns: u64,
}

/// What has changed of a node.
#[derive(Debug)]
pub(super) enum News {
    /// It is used; whether it was before, or has just joined.
    Returned {
        anew: bool,
    },
    Ejected,
    Role {
        from: Role,
        to: Role,
        writes: bool,
    },
    /// It is so far behind; or does not say.
    Late(Option<Duration>),
    CaughtUp,
    Out(Out),
}

impl News {
    /// Whether more of the kind may follow soon.
    pub(super) fn is_unrest(&self) -> bool {
        !matches!(self, Self::Returned { anew: true } | Self::Late(_) | Self::CaughtUp)
    }
}
