//! The server's place in a cluster: which role it plays, whether it takes
//! writes, and how far its log goes.
//!
//! Owns the commands by which a test makes several servers a cluster. Knows
//! nothing of sessions; what a write is, they tell.
//!
//! ```
//! use millpond_driver::Role;
//! use millpond_fake::Fake;
//!
//! let (first, second) = (Fake::new(), Fake::new());
//! first.becomes(Role::Primary).stands_at(7);
//! second.follow(&first);
//! // The second takes over, and the first comes back as its replica.
//! second.becomes(Role::Primary).timeline(2);
//! first.follow(&second).timeline(2);
//! ```

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond_driver::{NodeStatus, Role};

use crate::Fake;
use crate::script::lock;

/// The place in a cluster. A new server says nothing of one.
impl Fake {
    /// The role it plays from now on. All but replicas take writes then, and
    /// have stopped to follow anybody: they stay where they have come to.
    pub fn becomes(&self, role: Role) -> &Self {
        self.node().becomes(role, None);
        self
    }

    /// It becomes a replica whose place in the log is always that of `primary`.
    ///
    /// # Panics
    ///
    /// If `primary` follows this one: that one must become a primary first.
    pub fn follow(&self, primary: &Self) -> &Self {
        let mut before = Some(Arc::clone(primary.node()));
        while let Some(node) = before {
            assert!(!Arc::ptr_eq(&node, self.node()), "two servers cannot follow each other");
            before = lock(&node.state).follows.clone();
        }
        self.node().becomes(Role::Replica, Some(Arc::clone(primary.node())));
        self
    }

    /// What a replica has replayed stays as it is, until it
    /// [resumes](Self::resume_replay).
    pub fn pause_replay(&self) -> &Self {
        let position = self.node().position();
        let mut state = lock(&self.node().state);
        (state.position, state.paused) = (position, true);
        drop(state);
        self
    }

    /// A replica has all that the one has that it follows.
    pub fn resume_replay(&self) -> &Self {
        lock(&self.node().state).paused = false;
        self
    }

    /// Whether it takes writes, whatever its role.
    pub fn takes_writes(&self, takes: bool) -> &Self {
        lock(&self.node().state).writable = Some(takes);
        self
    }

    /// Its place in the log, which each write moves on by one. A replica that
    /// follows another server is where that one is.
    pub fn stands_at(&self, position: u128) -> &Self {
        let mut state = lock(&self.node().state);
        (state.position, state.placed) = (position, true);
        drop(state);
        self
    }

    /// How old it says that the last change is which it has replayed. Changes
    /// nothing but what it says.
    pub fn lags(&self, lag: Duration) -> &Self {
        lock(&self.node().state).lag = Some(lag);
        self
    }

    /// How often the cluster has changed its primary, as it says.
    pub fn timeline(&self, timeline: u64) -> &Self {
        lock(&self.node().state).timeline = Some(timeline);
        self
    }

    /// The cluster it says it belongs to.
    pub fn of_cluster(&self, name: &str) -> &Self {
        lock(&self.node().state).cluster = Some(name.into());
        self
    }

    /// Whether each answer to a session tells the role, unasked. Default: none
    /// does. A session hears of a change with the first answer after it.
    pub fn tells_role(&self, tells: bool) -> &Self {
        lock(&self.node().state).tells_role = tells;
        self
    }

    /// The writes that were committed on this server, in order, whether it came
    /// to say so or not.
    pub fn written(&self) -> Vec<String> {
        lock(&self.node().state).written.clone()
    }

    /// Where its log ends now.
    pub fn place(&self) -> u128 {
        self.node().position()
    }
}

/// The server as a node of a cluster.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Never locked while that of another node is.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    role: Role,
    writable: Option<bool>,
    /// Of its own; what it follows may count instead.
    position: u128,
    /// It says where it is.
    placed: bool,
    follows: Option<Arc<Node>>,
    paused: bool,
    lag: Option<Duration>,
    timeline: Option<u64>,
    cluster: Option<Box<str>>,
    tells_role: bool,
    written: Vec<String>,
}

impl Node {
    fn becomes(&self, role: Role, follows: Option<Arc<Self>>) {
        let position = self.position();
        let mut state = lock(&self.state);
        state.writable = match role {
            Role::Unknown => None,
            role => Some(role != Role::Replica),
        };
        if follows.is_some() || role != Role::Replica {
            state.position = position;
            state.follows = follows;
            state.paused = false;
        }
        state.role = role;
        state.placed |= role != Role::Unknown;
    }

    /// Where its log ends.
    pub(crate) fn position(&self) -> u128 {
        let followed = {
            let state = lock(&self.state);
            match &state.follows {
                Some(followed) if !state.paused => Arc::clone(followed),
                _ => return state.position,
            }
        };
        followed.position()
    }

    /// Whether a write is let in.
    pub(crate) fn is_writable(&self) -> bool {
        lock(&self.state).writable != Some(false)
    }

    /// These writes are in the log.
    pub(crate) fn wrote(&self, writes: Vec<String>) {
        let mut state = lock(&self.state);
        state.position += writes.len() as u128;
        state.written.extend(writes);
    }

    /// What an answer tells of the role.
    pub(crate) fn told_role(&self) -> Option<Role> {
        let state = lock(&self.state);
        (state.tells_role && state.role != Role::Unknown).then_some(state.role)
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let position = self.position();
        let followed = lock(&self.state).follows.clone();
        let ahead = followed.map(|followed| followed.position().saturating_sub(position));
        let state = lock(&self.state);
        let mut status = NodeStatus::default();
        status.role = state.role;
        status.writable = state.writable;
        status.lag_bytes = ahead.map(|ahead| u64::try_from(ahead).unwrap_or(u64::MAX));
        status.lag = state.lag;
        status.position = state.placed.then_some(position);
        status.timeline = state.timeline;
        status.cluster = state.cluster.clone();
        status
    }
}
