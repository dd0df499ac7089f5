//! smol as a [`Runtime`].
//!
//! Owns where tasks run: smol's global executor. All the rest is the reactor's,
//! which knows no executor.
#![expect(clippy::disallowed_methods, reason = "the adapters are where tasks are spawned")]

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use millpond_driver::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};

use super::{clock, reactor};

/// The smol runtime.
///
/// Tasks go to the executor of `smol::spawn`, one thread unless the environment
/// variable `SMOL_THREADS` says more. It starts by itself and lives as long as
/// the process, so no context is needed anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Smol;

impl Runtime for Smol {
    fn now(&self) -> Instant {
        reactor::now()
    }

    fn coarse_now(&self) -> Instant {
        clock::coarse_now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        reactor::sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        ::smol::spawn(task).detach();
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        reactor::spawn_blocking(job);
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(reactor::resolve(host, port))
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(reactor::connect(target, options))
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }
}
