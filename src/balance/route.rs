//! Which nodes a caller asks for.
//!
//! Owns [`Route`], what can be added to it, and what a node may be used for. Knows
//! no node.

use std::fmt;
use std::time::Duration;

use millpond_driver::Position;

/// Which nodes may serve a caller: the caller's word, for no statement is read
/// to guess it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Route {
    /// The node that takes writes. While there is none, as between the fall of
    /// one primary and the promotion of the next, the caller waits.
    Primary,
    /// A replica; an error at once if none may be used.
    Replica,
    /// A replica, or the primary if no replica may be used. One that is busy
    /// may be used: what the replicas cannot carry does not fall on the
    /// primary.
    PreferReplica,
    /// The primary, or a replica if there is none.
    PreferPrimary,
    /// Any node.
    Any,
}

impl Route {
    /// Only a node on which what was written before this
    /// [position](super::Cluster::position) can be read. `Replica` waits for a replica
    /// to come so far; the others take the primary instead, and fail at once if there
    /// is none. Costs a round trip on a node that serves readers, unless this very
    /// position was the last that was found there.
    pub fn after(self, position: &Position) -> Terms {
        Terms::from(self).after(position)
    }

    /// No replica that is further behind, or of which that is not known.
    pub fn max_lag(self, limit: Duration) -> Terms {
        Terms::from(self).max_lag(limit)
    }

    /// What serves it: what is best, and what in its place.
    pub(super) fn tiers(self) -> &'static [Duty] {
        match self {
            Self::Primary => &[Duty::WRITE],
            Self::Replica => &[Duty::READ],
            Self::PreferReplica => &[Duty::READ, Duty::WRITE],
            Self::PreferPrimary => &[Duty::WRITE, Duty::READ],
            Self::Any => &[Duty(Duty::WRITE.0 | Duty::READ.0)],
        }
    }

    /// Whether the caller needs a node that takes writes.
    pub(super) fn is_for_writes(self) -> bool {
        self == Self::Primary
    }

    /// In one word: `prefer_replica`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::PreferReplica => "prefer_replica",
            Self::PreferPrimary => "prefer_primary",
            Self::Any => "any",
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A [`Route`], and how recent what is read there has to be.
///
/// Whatever takes a route takes these as well:
///
/// ```
/// # use millpond::{Cluster, Pool, Route, drivers::fake::Fake, testing::sim::Sim};
/// # use std::time::Duration;
/// # Sim::new(1).run(async |sim| {
/// # let primary = Fake::new();
/// # let replica = Fake::new();
/// # primary.becomes(millpond::Role::Primary);
/// # replica.follow(&primary);
/// # let cluster = Cluster::builder()
/// #     .node("a", Pool::builder(primary.clone()))
/// #     .node("b", Pool::builder(replica.clone()))
/// #     .runtime(sim).build().await?;
/// cluster.execute("INSERT INTO visit VALUES (1)", &[]).await?;
/// let written = cluster.position().await?;
/// let recent = Route::PreferReplica.after(&written).max_lag(Duration::from_secs(5));
/// cluster.query(recent, "SELECT count(*) FROM visit", &[]).await?;
/// # Ok::<_, millpond::Error>(())
/// # })?;
/// # Ok::<_, millpond::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "terms ask for nothing by themselves"]
pub struct Terms {
    pub(super) route: Route,
    pub(super) max_lag: Option<Duration>,
    pub(super) after: Option<Position>,
}

impl Terms {
    /// As [`Route::after`]; of several positions the last counts.
    pub fn after(mut self, position: &Position) -> Self {
        self.after = Some(position.clone());
        self
    }

    /// As [`Route::max_lag`].
    pub fn max_lag(mut self, limit: Duration) -> Self {
        self.max_lag = Some(limit);
        self
    }

    /// Whether any node that serves the route will do.
    pub(super) fn is_plain(&self) -> bool {
        self.max_lag.is_none() && self.after.is_none()
    }
}

impl From<Route> for Terms {
    fn from(route: Route) -> Self {
        Self { route, max_lag: None, after: None }
    }
}

/// What a node may be used for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Duty(pub(super) u32);

impl Duty {
    pub(super) const NONE: Self = Self(0);
    /// It takes writes.
    pub(super) const WRITE: Self = Self(1);
    /// It serves those who ask for a replica.
    pub(super) const READ: Self = Self(2);
    /// It is far behind: only for want of a better one.
    pub(super) const STALE: Self = Self(4);
    /// Much of what it is asked fails: only for want of a better one.
    pub(super) const SHAKY: Self = Self(8);

    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it has any of these.
    #[inline]
    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it has any of these and none of what counts against it.
    #[inline]
    pub(super) fn serves(self, wanted: Self) -> bool {
        self.has(wanted) && !self.has(Self::STALE.with(Self::SHAKY))
    }
}
