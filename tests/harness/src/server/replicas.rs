//! Servers that follow another one: made, promoted, turned to a new primary.
//!
//! Knows in which order, and how long to wait; how it is done is the engine's. Does
//! not decide which server should be the primary.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{Builder, PATIENCE, Server, Tls};
use crate::engine::Replication;
use crate::tls;

/// A replica that can follow another primary does so long before.
const BRIEF: Duration = Duration::from_secs(3);

impl Server {
    /// Starts a server that follows this one, in a folder and on a port of its
    /// own, with the same settings, certificate, user and password. It shows what
    /// this one had when it was asked, takes no write, and still follows when it
    /// is [started again](Self::start_again).
    ///
    /// # Panics
    ///
    /// When this server is no running primary, or does not keep what a replica
    /// needs (see [`Builder::replicated`]), or when the replica does not start.
    pub fn replica(&self) -> Self {
        let replica = Builder {
            engine: Arc::clone(&self.engine),
            tls: if self.tls { Tls::On } else { Tls::Off },
            replicated: self.replicated,
            settings: self.settings.clone(),
        };
        let replica = replica.place();
        replica.begin_as_replica(self);
        replica
    }

    /// Makes this server a replica of `primary`, which it waits for to be writable,
    /// whatever it was before, running or not; from when this returns it receives.
    ///
    /// A replica is turned to the new primary while it runs. A former primary,
    /// and a replica that has what the new primary never received, is killed and
    /// begins anew, on its port, with a copy: what only it had is lost.
    ///
    /// # Panics
    ///
    /// When it does not start, or `primary` is none.
    #[track_caller]
    pub fn follow(&self, primary: &Self) {
        primary.wait_until_writable();
        if self.replication().is_replica(&self.place) {
            self.thaw();
            self.start_again();
            self.done(self.replication().turn(&self.place, &primary.place));
            if self.follows_within(BRIEF, primary) {
                return;
            }
        }
        self.kill();
        // They are named by a file that is about to go.
        let mut leftovers = Command::new("sh");
        leftovers.args(["-c", self.engine.leftovers()]).env("folder", &self.place.folder);
        drop(leftovers.output());
        fs::remove_dir_all(self.place.data()).expect("a server has a data folder");
        self.begin_as_replica(primary);
    }

    /// Asks this replica to become a primary, and does not wait for it: see
    /// [`wait_until_writable`](Self::wait_until_writable). What it has received it
    /// replays first, also when that was [paused](Self::pause_replay).
    ///
    /// # Panics
    ///
    /// When it is none, or does not run.
    #[track_caller]
    pub fn promote(&self) {
        assert!(self.replication().is_replica(&self.place), "only a replica can be promoted");
        self.done(self.replication().promote(&self.place));
    }

    /// Waits until it takes writes.
    ///
    /// # Panics
    ///
    /// When that takes too long, or it does not run.
    #[track_caller]
    pub fn wait_until_writable(&self) {
        let is_writable = || self.done(self.replication().is_writable(&self.place));
        if !within(PATIENCE, is_writable) {
            self.complain(&format!("did not become writable within {PATIENCE:?}"));
        }
    }

    /// Waits until it shows all that `primary` has committed by now.
    ///
    /// # Panics
    ///
    /// When that takes too long, or one of them does not run.
    #[track_caller]
    pub fn catch_up(&self, primary: &Self) {
        let position = primary.done(primary.replication().position(&primary.place));
        let replayed = || self.done(self.replication().has_replayed(&self.place, &position));
        if !within(PATIENCE, replayed) {
            self.complain(&format!("did not replay up to {position} within {PATIENCE:?}"));
        }
    }

    /// Has this replica show nothing new, from when this returns, while it goes on
    /// receiving.
    ///
    /// # Panics
    ///
    /// When it is none, or does not run.
    #[track_caller]
    pub fn pause_replay(&self) {
        self.done(self.replication().pause(&self.place));
    }

    /// Lets it go on where it was [paused](Self::pause_replay).
    ///
    /// # Panics
    ///
    /// When it is no replica, or does not run.
    #[track_caller]
    pub fn resume_replay(&self) {
        self.done(self.replication().resume(&self.place));
    }

    /// From an empty data folder.
    #[track_caller]
    fn begin_as_replica(&self, primary: &Self) {
        self.replication().copy(&self.place, &primary.place);
        tls::copy(&primary.place, &self.place);
        self.start_again();
        if !self.follows_within(PATIENCE, primary) {
            self.complain(&format!("did not follow {} within {PATIENCE:?}", primary.address()));
        }
    }

    #[track_caller]
    fn follows_within(&self, patience: Duration, primary: &Self) -> bool {
        within(patience, || self.done(self.replication().follows(&self.place, &primary.place)))
    }

    #[track_caller]
    fn replication(&self) -> &dyn Replication {
        let name = self.engine.name();
        self.engine
            .replication()
            .unwrap_or_else(|| panic!("the harness makes no replicas of {name}"))
    }

    #[track_caller]
    fn done<T>(&self, result: Result<T, String>) -> T {
        result.unwrap_or_else(|error| panic!("the {} server: {error}", self.engine.name()))
    }
}

fn within(patience: Duration, condition: impl Fn() -> bool) -> bool {
    let give_up = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > give_up {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
}
