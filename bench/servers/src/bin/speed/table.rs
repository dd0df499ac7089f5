//! What the rounds say: medians, ratios with their intervals, goals.
//!
//! Knows nothing of how a figure came to be.

use std::fmt;

/// Questions a second, by contender and round. The first contender is the unit.
pub(crate) struct Table {
    rows: Vec<(&'static str, Vec<f64>)>,
}

/// At least so many times as fast as another.
pub(crate) struct Goal {
    pub(crate) of: &'static str,
    pub(crate) to: &'static str,
    pub(crate) at_least: f64,
}

impl Table {
    pub(crate) fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Self { rows: names.map(|name| (name, Vec::new())).collect() }
    }

    pub(crate) fn record(&mut self, contender: usize, rate: f64) {
        self.rows[contender].1.push(rate);
    }

    pub(crate) fn unit(&self) -> &'static str {
        self.rows[0].0
    }

    /// Whether a goal is met, as a line.
    pub(crate) fn judge(&self, goal: &Goal) -> String {
        let Goal { of, to, at_least } = goal;
        let ratio = Ratio::of(self.rates(of), self.rates(to));
        let verdict = match ratio {
            _ if ratio.median >= *at_least => "met",
            _ if ratio.high >= *at_least => "met by the interval, not by the median",
            _ => "missed",
        };
        format!("{of} >= {at_least:.2} x {to}: {ratio}, {verdict}")
    }

    fn rates(&self, name: &str) -> &[f64] {
        let row = self.rows.iter().find(|row| row.0 == name);
        &row.expect("goals are of contenders").1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<26}{:>10}  x {}", "", "queries/s", self.unit())?;
        for (name, rates) in &self.rows {
            let ratio = Ratio::of(rates, &self.rows[0].1);
            write!(f, "\n{name:<26}{:>10.0}  {ratio}", sorted(rates.to_vec())[rates.len() / 2])?;
        }
        Ok(())
    }
}

/// The median of the ratios of the rounds, and where it lies with 95 %.
struct Ratio {
    median: f64,
    low: f64,
    high: f64,
}

impl Ratio {
    fn of(rates: &[f64], to: &[f64]) -> Self {
        let ratios = sorted(rates.iter().zip(to).map(|(of, to)| of / to).collect());
        let (last, outside) = (ratios.len() - 1, outside(ratios.len()));
        Self {
            median: ratios[ratios.len() / 2],
            low: ratios[outside],
            high: ratios[last - outside],
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}  [{:.3}, {:.3}]", self.median, self.low, self.high)
    }
}

/// How many of so many sorted values lie outside of the interval on each side.
///
/// Each value is below the true median as likely as above it, so the number
/// below is binomial, whatever the distribution of the values.
fn outside(values: usize) -> usize {
    let mut chance = 0.5_f64.powi(values as i32);
    let mut below = 0.0;
    for count in 0..values {
        below += chance;
        if below > 0.025 {
            // With fewer than six values no interval is that sure.
            return count.saturating_sub(1);
        }
        chance *= (values - count) as f64 / (count + 1) as f64;
    }
    0
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}
