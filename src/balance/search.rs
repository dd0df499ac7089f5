//! One caller's search over the nodes of a cluster.
//!
//! Owns what is held against each node that was tried, and when all of them are
//! tried again. Tries none itself.

use std::sync::Arc;
use std::time::Instant;

use millpond_driver::{Cause, Driver, Error};

use super::acquire::Request;
use super::node::Node;
use super::route::{Route, Terms};

/// Why a node has not served a caller.
pub(super) enum Missed {
    /// Nor will another: there is no time left.
    Ended(Error),
    /// It has failed.
    Failed(Error),
    /// It has not come to what the caller wants to read.
    Behind(Error),
    /// It cannot open connections, but has some; or it is paused.
    Short,
    /// It is no more what it was taken for.
    Changed,
}

/// One caller's search over nodes.
pub(super) struct Search<'t, D: Driver> {
    pub(super) request: &'t Request,
    pub(super) deadline: Instant,
    /// How often all nodes were tried.
    pub(super) rounds: u32,
    /// Those tried in this round.
    pub(super) tried: Vec<(Arc<Node<D>>, Tried)>,
}

/// What has become of a node. One that can open no connection, and has some, has
/// not failed: it is waited for, but after all others.
#[derive(Debug, Default)]
pub(super) struct Tried {
    pub(super) failed: Option<Error>,
    /// It failed for being behind.
    behind: bool,
    /// How often it was not what it was taken for.
    changed: u32,
}

impl<D: Driver> Search<'_, D> {
    pub(super) fn terms(&self) -> &Terms {
        &self.request.terms
    }

    /// What has become of the node, if anything is held against it.
    pub(super) fn tried(&self, node: &Arc<Node<D>>) -> Option<&Tried> {
        let same = |(other, tried): &&(_, Tried)| Arc::ptr_eq(other, node) && !tried.is_news();
        self.tried.iter().find(same).map(|(_, tried)| tried)
    }

    pub(super) fn note(&mut self, node: &Arc<Node<D>>, missed: Missed) {
        let index = self.tried.iter().position(|(other, _)| Arc::ptr_eq(other, node));
        let index = index.unwrap_or_else(|| {
            self.tried.push((Arc::clone(node), Tried::default()));
            self.tried.len() - 1
        });
        let tried = &mut self.tried[index].1;
        match missed {
            Missed::Failed(error) | Missed::Ended(error) => tried.failed = Some(error),
            Missed::Behind(error) => (tried.failed, tried.behind) = (Some(error), true),
            Missed::Short => tried.changed = 0,
            Missed::Changed => {
                tried.changed += 1;
                if tried.changed > TURNS {
                    let error = Error::connect("does not stay what it is");
                    tried.failed = Some(error.with_cause(Cause::WrongRole));
                }
            }
        }
    }

    /// Whether replicas are to be waited for to come to what is to be read.
    pub(super) fn is_to_ask_again(&self) -> bool {
        let behind = self.tried.iter().any(|(_, tried)| tried.behind);
        behind && self.terms().route == Route::Replica
    }
}

impl Tried {
    /// It has only changed, and may be tried as if it had not been.
    fn is_news(&self) -> bool {
        self.failed.is_none() && self.changed > 0
    }
}

/// How often a node may change while one caller waits, before others are tried.
const TURNS: u32 = 8;
