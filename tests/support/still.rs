//! A runtime on which nothing moves: its clock stands still, and its tasks lie
//! where they were spawned. What is measured on it is the pool's own work.
//!
//! Knows no pool; the scripted database connects without tasks.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use millpond::runtime::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};

#[derive(Debug)]
pub(crate) struct Still(Instant);

impl Still {
    pub(crate) fn new() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant serves as now")]
        Self(Instant::now())
    }
}

impl Runtime for Still {
    fn now(&self) -> Instant {
        self.0
    }

    fn sleep_until(&self, _deadline: Instant) -> BoxFuture<'static, ()> {
        Box::pin(future::pending())
    }

    /// Dropped, a task would tell the pool that its runtime has ended.
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        std::mem::forget(task);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }

    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(future::pending())
    }

    fn connect<'a>(
        &'a self,
        _: &'a Target,
        _: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(future::pending())
    }

    fn random(&self) -> u64 {
        0
    }
}
