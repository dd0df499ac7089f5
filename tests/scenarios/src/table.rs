//! Scenarios run one after the other, and the table of how they went.
//!
//! Owns the forms. Does not know what a scenario does.

use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Runtime;

use crate::arguments::Arguments;

/// Something that happens to servers.
pub(crate) struct Scenario {
    /// `F7`.
    pub(crate) name: &'static str,
    /// What happens, in a few words.
    pub(crate) what: &'static str,
    /// It needs what is not installed by default.
    pub(crate) optional: bool,
    pub(crate) run: fn() -> BoxFuture<'static, Report>,
}

/// How a scenario went.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// From the fault to the last request that was sent to the node.
    pub(crate) detect: Option<Duration>,
    /// Requests that failed, as their callers saw it.
    pub(crate) errors: usize,
    /// Writes of which nobody knows whether they took place.
    pub(crate) unknown: usize,
    /// Writes that were acknowledged and are not there.
    pub(crate) lost: usize,
    /// Writes that are there more than once.
    pub(crate) duplicated: usize,
    /// From when it was possible until all was well again.
    pub(crate) recover: Option<Duration>,
    /// What else is worth to be told.
    pub(crate) notes: Vec<String>,
    checks: Vec<Check>,
    /// What it needs is not there: why.
    absent: Option<String>,
    /// Something was missed at the first.
    second_try: bool,
}

#[derive(Debug)]
struct Check {
    target: String,
    met: bool,
    /// A busy machine may miss it.
    of_time: bool,
}

impl Report {
    /// One that could not be run, and why.
    pub(crate) fn absent(why: impl Into<String>) -> Self {
        Self { absent: Some(why.into()), ..Self::default() }
    }

    /// Something that is to be so.
    pub(crate) fn check(&mut self, target: impl Into<String>, met: bool) {
        self.checks.push(Check { target: target.into(), met, of_time: false });
    }

    /// Something that is to have happened by then.
    pub(crate) fn check_time(&mut self, what: &str, took: Option<Duration>, limit: Duration) {
        let met = took.is_some_and(|took| took <= limit);
        self.checks.push(Check { target: format!("{what} ≤ {limit:?}"), met, of_time: true });
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn is_met(&self, strict: bool) -> bool {
        self.checks.iter().all(|check| check.met || (check.of_time && !strict))
    }

    /// The worst of this round and those before, and what any of them missed.
    fn worst(&mut self, other: Self) {
        self.detect = self.detect.max(other.detect);
        self.recover = self.recover.max(other.recover);
        self.errors = self.errors.max(other.errors);
        self.unknown = self.unknown.max(other.unknown);
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.absent = self.absent.take().or(other.absent);
        for check in other.checks {
            match self.checks.iter_mut().find(|known| known.target == check.target) {
                Some(known) => known.met &= check.met,
                None => self.checks.push(check),
            }
        }
        self.notes = other.notes;
    }
}

/// Runs what is asked for, and prints the table. Whether all targets were met.
pub(crate) fn run(runtime: &Runtime, scenarios: &[Scenario], arguments: &Arguments) -> bool {
    let mut well = true;
    let mut lines = vec![Line::head()];
    for scenario in scenarios.iter().filter(|scenario| arguments.wants(scenario)) {
        let mut report = once(runtime, scenario, 1);
        for round in 2..=arguments.rounds {
            report.worst(once(runtime, scenario, round));
        }
        // What is wrong is wrong twice; a machine that was busy elsewhere is not.
        if arguments.rounds == 1 && !report.is_met(arguments.strict) {
            report = once(runtime, scenario, 2);
            report.second_try = true;
        }
        well &= report.is_met(arguments.strict);
        lines.push(Line::of(scenario, &report));
    }
    println!();
    print!("{}", table(&lines));
    well
}

fn once(runtime: &Runtime, scenario: &Scenario, round: u32) -> Report {
    println!("{}: {} (round {round})", scenario.name, scenario.what);
    let ran = AssertUnwindSafe(|| runtime.block_on((scenario.run)()));
    let report = catch_unwind(ran).unwrap_or_else(|_| {
        let mut report = Report::default();
        report.check("runs to its end", false);
        report
    });
    println!("{report}");
    report
}

/// The fields of a line, as text.
struct Line([String; 9]);

impl Line {
    fn head() -> Self {
        Self(
            [
                "",
                "what happens",
                "detect",
                "errors",
                "unknown",
                "lost",
                "twice",
                "recover",
                "targets",
            ]
            .map(str::to_owned),
        )
    }

    fn of(scenario: &Scenario, report: &Report) -> Self {
        let targets = match &report.absent {
            Some(why) => format!("not run: {why}"),
            None if report.second_try => format!("{}, at the second try", verdict(&report.checks)),
            None => verdict(&report.checks),
        };
        let number = |count: usize| match report.absent {
            Some(_) => "-".to_owned(),
            None => count.to_string(),
        };
        Self([
            scenario.name.to_owned(),
            scenario.what.to_owned(),
            time(report.detect),
            number(report.errors),
            number(report.unknown),
            number(report.lost),
            number(report.duplicated),
            time(report.recover),
            targets,
        ])
    }
}

fn verdict(checks: &[Check]) -> String {
    let missed: Vec<_> =
        checks.iter().filter(|check| !check.met).map(|check| &*check.target).collect();
    match missed.is_empty() {
        true => format!("met ({})", checks.len()),
        false => format!("MISSED: {}", missed.join("; ")),
    }
}

fn time(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{} ms", time.as_millis()))
}

fn table(lines: &[Line]) -> String {
    let width = |column: usize| {
        lines.iter().map(|line| line.0[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..9).map(width).collect();
    let mut text = String::new();
    for (row, line) in lines.iter().enumerate() {
        let cells = line.0.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        if row == 0 {
            let rules = widths.iter().map(|width| "-".repeat(*width));
            let _ = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.absent {
            return write!(f, "   NOT RUN: {why}");
        }
        write!(
            f,
            "   detect {}, errors {}, unknown {}, lost {}, twice {}, recover {}",
            time(self.detect),
            self.errors,
            self.unknown,
            self.lost,
            self.duplicated,
            time(self.recover)
        )?;
        for note in &self.notes {
            write!(f, "\n   {note}")?;
        }
        for check in &self.checks {
            write!(f, "\n   {} {}", if check.met { "met   " } else { "MISSED" }, check.target)?;
        }
        Ok(())
    }
}
