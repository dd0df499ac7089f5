//! The tables: medians, ratios to deadpool, targets.
//!
//! Knows nothing of how a figure came to be.

use std::fmt;

use crate::peer::Peer;
use crate::peer::deadpool::Deadpool;
use crate::peer::millpond::Millpond;
use crate::work::{Sample, Work};

/// What one work cost on each pool.
pub(crate) struct Table {
    title: &'static str,
    target: Option<f64>,
    second: Option<(&'static str, f64)>,
    rows: Vec<(&'static str, Vec<Sample>)>,
}

impl Table {
    pub(crate) fn new<W: Work>() -> Self {
        Self { title: W::TITLE, target: W::TARGET, second: W::SECOND, rows: Vec::new() }
    }

    pub(crate) fn record<P: Peer>(&mut self, sample: Sample) {
        match self.rows.iter_mut().find(|(name, _)| *name == P::NAME) {
            Some((_, samples)) => samples.push(sample),
            None => self.rows.push((P::NAME, vec![sample])),
        }
    }
}

impl fmt::Display for Table {
    /// A target stands beside millpond's figure, with a mark where it is
    /// missed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = self.second.map_or("", |(heading, _)| heading);
        let heading = format!("{:<17}{:>9}  {:<18}{heading}", "", "ns/op", "x deadpool");
        write!(f, "{}\n{}", self.title, heading.trim_end())?;
        let mut rows: Vec<_> = self
            .rows
            .iter()
            .map(|(name, samples)| {
                let ns = median(samples.iter().map(|sample| sample.ns));
                let second = self.second.map(|_| median(samples.iter().filter_map(|s| s.second)));
                (*name, ns, second)
            })
            .collect();
        rows.sort_by(|a, b| a.1.total_cmp(&b.1));
        let unit = rows.iter().find(|row| row.0 == Deadpool::NAME).map_or(f64::NAN, |row| row.1);
        for (name, ns, second) in rows {
            let aim = |target: Option<f64>| target.filter(|_| name == Millpond::NAME);
            let ratio = figure(ns / unit, aim(self.target));
            let second = second.map_or(String::new(), |value| {
                figure(value, aim(self.second.map(|(_, target)| target)))
            });
            let line = format!("{name:<17}{ns:>9.1}  {ratio:<18}{second}");
            write!(f, "\n{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A figure with its target, and a mark where that is missed.
pub(crate) fn figure(value: f64, target: Option<f64>) -> String {
    match target {
        Some(target) if value <= target => format!("{value:.2} (<= {target:.2})"),
        Some(target) => format!("{value:.2} (<= {target:.2} !)"),
        None => format!("{value:.2}"),
    }
}

/// The value in the middle.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
