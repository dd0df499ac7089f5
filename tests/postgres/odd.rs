//! A runtime that is odd where a test wants it so, and else the current one.
//!
//! Knows no test.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millpond::drivers::postgres::{Postgres, PostgresConnection};
use millpond::runtime::{BoxFuture, ByteStream, Runtime, SocketOptions, Target, current};
use millpond::{ConnectContext, Driver};

pub(super) struct Odd {
    inner: Arc<dyn Runtime>,
    /// What every name has, if not what it has elsewhere.
    addresses: Option<Vec<SocketAddr>>,
    /// A name of which the resolver says nothing.
    silent: Option<&'static str>,
    /// Tasks that are not run, if tasks are not.
    kept: Option<Mutex<Vec<BoxFuture<'static, ()>>>>,
}

impl Odd {
    /// One on which every name has these addresses.
    pub(super) fn naming(addresses: &[SocketAddr]) -> Arc<Self> {
        let inner = current().expect("inside block_on");
        Arc::new(Self { inner, addresses: Some(addresses.to_vec()), silent: None, kept: None })
    }

    /// One on which nothing is ever said of this name.
    pub(super) fn silent_on(name: &'static str) -> Arc<Self> {
        let inner = current().expect("inside block_on");
        Arc::new(Self { inner, addresses: None, silent: Some(name), kept: None })
    }

    /// One that runs no task.
    pub(super) fn idle() -> Arc<Self> {
        let inner = current().expect("inside block_on");
        Arc::new(Self { inner, addresses: None, silent: None, kept: Some(Mutex::default()) })
    }

    /// Takes what it should have run.
    pub(super) fn take(&self) -> Vec<BoxFuture<'static, ()>> {
        let kept = self.kept.as_ref().expect("it keeps tasks");
        std::mem::take(&mut *kept.lock().unwrap())
    }
}

/// A connection on a runtime.
pub(super) async fn connected(
    driver: &Postgres,
    runtime: &Arc<dyn Runtime>,
) -> millpond::Result<PostgresConnection> {
    let deadline = runtime.now() + Duration::from_secs(20);
    driver.connect(&ConnectContext::new(runtime, deadline)).await
}

impl std::fmt::Debug for Odd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Odd")
    }
}

impl Runtime for Odd {
    fn now(&self) -> Instant {
        self.inner.now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.inner.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        match &self.kept {
            Some(kept) => kept.lock().unwrap().push(task),
            None => self.inner.spawn(task),
        }
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.inner.spawn_blocking(job);
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        if self.silent == Some(host) {
            return Box::pin(std::future::pending());
        }
        match &self.addresses {
            Some(addresses) => Box::pin(async { Ok(addresses.clone()) }),
            None => self.inner.resolve(host, port),
        }
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        self.inner.connect(target, options)
    }

    fn random(&self) -> u64 {
        self.inner.random()
    }
}
