//! What happens in a cluster, told one by one.
//!
//! Owns the words. Knows neither who tells nor who listens.

use std::fmt;
use std::time::Duration;

use millpond_driver::{Error, Role};

use crate::health::Reason;

/// Something that has happened in a cluster. Nodes are named.
///
/// `Display` tells it in a line, as for a log.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A node is out: it is not used. Also one that has not answered since it has
    /// joined.
    #[non_exhaustive]
    Ejected {
        /// The node.
        node: &'a str,
        /// Why.
        reason: Option<Reason>,
        /// What was met there last.
        error: Option<&'a Error>,
    },
    /// A node that was out, or new, is used.
    #[non_exhaustive]
    Returned {
        /// The node.
        node: &'a str,
    },
    /// A node has another role, or takes writes no more, or again. Connections
    /// opened before are retired.
    #[non_exhaustive]
    RoleChanged {
        /// The node.
        node: &'a str,
        /// Its role until now.
        from: Role,
        /// Its role from now on.
        to: Role,
        /// Whether it is used for writes.
        writable: bool,
    },
    /// An alarm: two nodes take writes, and the data divides. One of them is not
    /// used.
    #[non_exhaustive]
    Rival {
        /// The node that is not used.
        node: &'a str,
        /// The one that is; empty if that is down, and this one was left behind by a
        /// failover.
        primary: &'a str,
    },
    /// An alarm: a node belongs to another cluster. It is not used.
    #[non_exhaustive]
    Stranger {
        /// The node.
        node: &'a str,
        /// What it calls its cluster.
        cluster: &'a str,
        /// What the others call theirs.
        expected: &'a str,
    },
    /// A replica is too far behind, or does not say how far, and is used only for
    /// want of another node.
    #[non_exhaustive]
    Lagging {
        /// The node.
        node: &'a str,
        /// By how much, if it says so.
        lag: Option<Duration>,
    },
    /// It has caught up.
    #[non_exhaustive]
    CaughtUp {
        /// The node.
        node: &'a str,
    },
    /// A node has joined.
    #[non_exhaustive]
    Joined {
        /// The node.
        node: &'a str,
    },
    /// A node has left.
    #[non_exhaustive]
    Left {
        /// The node.
        node: &'a str,
    },
}

impl Event<'_> {
    /// The node of which it is told.
    pub fn node(&self) -> &str {
        match self {
            Self::Ejected { node, .. }
            | Self::Returned { node }
            | Self::RoleChanged { node, .. }
            | Self::Rival { node, .. }
            | Self::Stranger { node, .. }
            | Self::Lagging { node, .. }
            | Self::CaughtUp { node }
            | Self::Joined { node }
            | Self::Left { node } => node,
        }
    }

    /// Whether somebody has to be called.
    pub fn is_alarm(&self) -> bool {
        matches!(self, Self::Rival { .. } | Self::Stranger { .. })
    }
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ejected { node, reason, error } => {
                write!(f, "{node} is out")?;
                if let Some(reason) = reason {
                    write!(f, " ({reason})")?;
                }
                error.map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            Self::Returned { node } => write!(f, "{node} is used"),
            Self::RoleChanged { node, to, writable, .. } => {
                let used = if *writable { "is" } else { "is not" };
                write!(f, "{node} is {}, and {used} used for writes", called(*to))
            }
            Self::Rival { node, primary } => {
                f.write_str(node)?;
                match primary.is_empty() {
                    true => f.write_str(" takes writes of an earlier timeline")?,
                    false => write!(f, " takes writes beside {primary}")?,
                }
                f.write_str(", and is not used")
            }
            Self::Stranger { node, cluster, expected } => {
                write!(f, "{node} is of cluster {cluster}, not {expected}, and is not used")
            }
            Self::Lagging { node, lag: Some(lag) } => write!(f, "{node} is {lag:.1?} behind"),
            Self::Lagging { node, lag: None } => {
                write!(f, "{node} does not say how far it is behind")
            }
            Self::CaughtUp { node } => write!(f, "{node} has caught up"),
            Self::Joined { node } => write!(f, "{node} has joined"),
            Self::Left { node } => write!(f, "{node} has left"),
        }
    }
}

/// A role in words.
pub(super) fn called(role: Role) -> &'static str {
    match role {
        Role::Primary => "the primary",
        Role::Replica => "a replica",
        Role::Peer => "a peer",
        Role::Standalone => "a node that stands alone",
        _ => "of unknown role",
    }
}
