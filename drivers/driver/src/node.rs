//! What a database says of its place among others.
//!
//! Owns the words: role, status, position in the log. Knows no cluster, and does
//! not know how any of it is found out.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A node's place in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Role {
    /// Takes writes and feeds replicas.
    Primary,
    /// Follows a primary.
    Replica,
    /// One of several that all take writes.
    Peer,
    /// Stands alone.
    Standalone,
    /// Not known.
    #[default]
    Unknown,
}

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Its place in the cluster.
    pub role: Role,
    /// Whether it takes writes now.
    pub writable: Option<bool>,
    /// Bytes of log it has not replayed, if it knows: what it does not receive it
    /// cannot count.
    pub lag_bytes: Option<u64>,
    /// Age of the last change it has replayed. Says nothing while the primary
    /// is idle.
    pub lag: Option<Duration>,
    /// Its place in the log, comparable between nodes of one cluster: what it
    /// has written, or replayed.
    pub position: Option<u128>,
    /// How often the cluster has changed its primary, as this one knows. Of two
    /// that take writes, the one that knows of more is right.
    pub timeline: Option<u64>,
    /// What all nodes of the cluster say, and no node of another.
    pub cluster: Option<Box<str>>,
}

/// A place in the log of a cluster, in the database's own words: what was
/// written before it can be read wherever it has been
/// [reached](crate::Driver::reached).
///
/// A text, so that it can be given to whoever reads next, as in a cookie.
///
/// ```
/// use millpond_driver::Position;
///
/// let position: Position = "0/16B3748".parse()?;
/// assert_eq!(position.to_string(), "0/16B3748");
/// # Ok::<_, std::convert::Infallible>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position(Box<str>);

impl Position {
    /// The place that the database calls so.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// As the database calls it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Position {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text))
    }
}
