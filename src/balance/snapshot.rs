//! A cluster in numbers, for programs and for people.
//!
//! Owns the forms. Knows no clock.

use std::fmt;
use std::time::Duration;

use millpond_driver::{Error, Role};

use super::events::called;
use crate::health::State;
use crate::pool::Snapshot;

/// A cluster in numbers. Each node's are from one moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterSnapshot {
    /// The nodes, in the order in which they joined.
    pub nodes: Vec<NodeSnapshot>,
    /// Work, statements and transactions that were tried again.
    pub retries: u64,
}

/// A node in numbers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NodeSnapshot {
    /// Its name.
    pub name: String,
    /// Whether it answers.
    pub state: State,
    /// Its role, as it says, or as was set.
    pub role: Role,
    /// Whether it is used for writes.
    pub takes_writes: bool,
    /// Whether it serves those who ask for a replica. One that is too far behind, or
    /// on which too much fails, does so only for want of a better one, and counts as
    /// one that does not.
    pub serves_reads: bool,
    /// How far it is behind, if it is a replica and that is known.
    pub lag: Option<Duration>,
    /// The share it is given beside others: its weight, less while it comes back.
    pub weight: f64,
    /// How long its statements take in the mean; zero: not known.
    pub cost: Duration,
    /// Callers that use it or wait for it.
    pub load: u32,
    /// How often it was picked.
    pub picks: u64,
    /// How often it was out.
    pub ejections: u64,
    /// How often its connections were retired because its role had changed.
    pub epoch: u64,
    /// What was met there last, while it is out.
    pub error: Option<Error>,
    /// Its pool.
    pub pool: Snapshot,
}

impl NodeSnapshot {
    /// Whether it is used.
    pub fn is_used(&self) -> bool {
        self.takes_writes || self.serves_reads
    }
}

impl ClusterSnapshot {
    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&NodeSnapshot> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The node that takes writes; the first, if several do.
    pub fn primary(&self) -> Option<&NodeSnapshot> {
        self.nodes.iter().find(|node| node.takes_writes)
    }
}

impl fmt::Display for ClusterSnapshot {
    /// A line for each node.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
        for (index, node) in self.nodes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{:width$}  {node}", node.name)?;
        }
        Ok(())
    }
}

impl fmt::Display for NodeSnapshot {
    /// For example `up, the primary, writes; 12 picks, 1.2ms; 3 of 8 open: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.state, called(self.role))?;
        f.write_str(match (self.takes_writes, self.serves_reads) {
            (true, true) => ", writes and reads",
            (true, false) => ", writes",
            (false, true) => ", reads",
            (false, false) => ", not used",
        })?;
        if let Some(lag) = self.lag.filter(|lag| !lag.is_zero()) {
            write!(f, ", {lag:.1?} behind")?;
        }
        if let Some(error) = &self.error {
            write!(f, " ({error})")?;
        }
        write!(f, "; {} picks, {:.1?} a statement; {}", self.picks, self.cost, self.pool)
    }
}
