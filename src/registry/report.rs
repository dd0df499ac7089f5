//! How the pools of a registry ended.
//!
//! Owns [`RegistryReport`] and its words. Closes nothing.

use std::fmt;

use crate::pool::CloseReport;

/// What was left in each pool when a registry's close or drain ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryReport {
    /// By name, in order.
    pools: Vec<(String, CloseReport)>,
}

impl RegistryReport {
    pub(super) fn new(pools: Vec<(String, CloseReport)>) -> Self {
        Self { pools }
    }

    /// Every pool that had been built, by name.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &CloseReport)> {
        self.pools.iter().map(|(name, report)| (name.as_str(), report))
    }

    /// The pools with a connection that is not closed.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &CloseReport)> {
        self.pools().filter(|(_, report)| !report.is_complete())
    }

    /// Whether every connection of every pool is closed.
    pub fn is_complete(&self) -> bool {
        self.failures().next().is_none()
    }
}

impl fmt::Display for RegistryReport {
    /// For example `main: 1 connection still held: for 4.2s by "checkout" at
    /// src/cart.rs:41:20; cache: 0 connections still held; 1 still closing`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_complete() {
            return f.write_str("all pools closed");
        }
        for (n, (name, report)) in self.failures().enumerate() {
            write!(f, "{}{name}: {report}", if n == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}
