//! What an async runtime must supply: everything that is not deterministic.
//!
//! Owns the [`Runtime`] trait: clock, timer, tasks, sockets, randomness. Does
//! not know any runtime. If something is not in this trait, pool and drivers
//! may not use it; that is what lets a simulator stand in for the world.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use futures_io::{AsyncRead, AsyncWrite};

pub use futures_core::future::BoxFuture;

/// An async runtime, as an object: `Arc<dyn Runtime>`.
///
/// # Panics
///
/// No method panics because the runtime it stands for has ended: `spawn` then
/// drops the task, and whoever owns the task's effects notices by `Drop`.
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// The monotonic clock.
    fn now(&self) -> Instant;

    /// The monotonic clock at the kernel's tick (1 to 10 ms), never ahead of
    /// [`now`](Self::now). For ages, where a tick does not matter and the cost
    /// of reading does. Default: `now`.
    fn coarse_now(&self) -> Instant {
        self.now()
    }

    /// A future that ends at `deadline`, or at once if it has passed.
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()>;

    /// Runs a task in the background. May be called from any thread.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs a job that may block on a thread kept for that.
    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>);

    /// Looks a host name up.
    ///
    /// # Errors
    ///
    /// The resolver's.
    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;

    /// Opens a byte stream. The caller bounds it in time.
    ///
    /// # Errors
    ///
    /// The operating system's; options it does not know are not errors.
    fn connect<'a>(
        &'a self,
        target: &'a Target,
        options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>>;

    /// A random number, for jitter.
    fn random(&self) -> u64;

    /// Which executor [`spawn`](Self::spawn) would use here and now. Two equal
    /// numbers mean the same one. Default: 0, for runtimes with one executor
    /// that lives as long as the process.
    fn executor(&self) -> u64 {
        0
    }
}

/// A connected stream of bytes, of any runtime.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin + 'static> ByteStream for T {}

impl fmt::Debug for dyn ByteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByteStream")
    }
}

/// Where to connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix(PathBuf),
}

/// How a TCP socket is set up. The defaults notice a dead peer in about twenty
/// seconds; the operating system's own take two hours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Sends small packets at once. Default: true.
    pub nodelay: bool,
    /// Probes of an idle connection. Default: after 10 s, every 3 s, 3 times.
    pub keepalive: Option<Keepalive>,
    /// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT`, Linux).
    /// Default: 10 s.
    pub user_timeout: Option<Duration>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Keepalive::default()),
            user_timeout: Some(Duration::from_secs(10)),
        }
    }
}

/// TCP keepalive probes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Keepalive {
    /// Idle time before the first probe.
    pub idle: Duration,
    /// Time between probes.
    pub interval: Duration,
    /// Unanswered probes before the connection is given up.
    pub retries: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(10), interval: Duration::from_secs(3), retries: 3 }
    }
}
