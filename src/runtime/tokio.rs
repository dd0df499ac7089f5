//! tokio as a [`Runtime`].
//!
//! Owns the choice of *which* tokio runtime: the one whose context is current,
//! else the one it was made with, so that a pool outlives the runtime that
//! built it. Does not know what runs on it.
//!
//! tokio panics when a timer is polled after its runtime has ended, and when
//! one is made outside a context. Both are ordinary moments in the life of a
//! pool that is dropped late, so neither may reach the caller.

use std::future::{self, Future};
use std::hash::{Hash, Hasher};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Instant;

use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::TcpStream;
use ::tokio::runtime::{Builder, Handle};
use ::tokio::task::JoinSet;
use ::tokio::time;
use futures_util::FutureExt;
use millpond_driver::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};
use socket2::SockRef;

use super::{clock, socket};

/// The tokio runtime.
///
/// Works inside the tokio context that is current where it is used; elsewhere
/// in the runtime it was made with. If that one has ended, new tasks are
/// dropped, connecting is an error, and sleeps still end when they should.
///
/// In tokio's paused test time, `now` and sleeps follow tokio's clock, but
/// `coarse_now` is the kernel's.
///
/// # Panics
///
/// Sleeping and connecting panic in a runtime built without its timer or its
/// sockets: call `enable_all` when building it.
#[derive(Debug, Clone)]
pub struct Tokio {
    /// The runtime to use where no context is current. It may have ended.
    stored: Handle,
}

impl Tokio {
    /// The runtime whose context is current on this thread, if there is one.
    #[must_use]
    pub fn current() -> Option<Self> {
        Handle::try_current().ok().map(Self::new)
    }

    /// The runtime of `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self { stored: handle }
    }

    fn preferred(&self) -> Handle {
        Handle::try_current().unwrap_or_else(|_| self.stored.clone())
    }
}

impl Runtime for Tokio {
    fn now(&self) -> Instant {
        time::Instant::now().into_std()
    }

    fn coarse_now(&self) -> Instant {
        clock::coarse_now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        if deadline <= self.now() {
            return Box::pin(future::ready(()));
        }
        let stored = self.stored.clone();
        Box::pin(async move {
            let slept = if in_context() {
                // Made outside the catch: a runtime without a timer is a
                // mistake to report, one that ended meanwhile is not.
                let sleep = time::sleep_until(deadline.into());
                AssertUnwindSafe(sleep).catch_unwind().await.ok()
            } else {
                as_task_of(&stored, sleep(deadline)).await
            };
            if slept.is_none() {
                as_task_of(last_resort(), sleep(deadline)).await;
            }
        })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.preferred().spawn(task);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.preferred().spawn_blocking(job);
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        Box::pin(async move {
            let lookup = move || socket::lookup(&host, port);
            self.preferred().spawn_blocking(lookup).await.map_err(io::Error::other)?
        })
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(async move {
            if in_context() {
                return connect(target, options).await;
            }
            let (target, options) = (target.clone(), options.clone());
            as_task_of(&self.stored, async move { connect(&target, &options).await })
                .await
                .unwrap_or_else(|| Err(io::Error::other("the tokio runtime has ended")))
        })
    }

    fn random(&self) -> u64 {
        fastrand::u64(..)
    }

    fn executor(&self) -> u64 {
        let mut number = Number(0);
        self.preferred().id().hash(&mut number);
        number.finish()
    }
}

/// Runs a future on a runtime of its own that ends with it.
pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the operating system gives an event queue")
        .block_on(future)
}

/// Takes the number out of an id, which shows it in no other way. All that is
/// asked of it is that equal ids give equal numbers.
struct Number(u64);

impl Hasher for Number {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn in_context() -> bool {
    Handle::try_current().is_ok()
}

/// Runs a future inside a runtime and waits for it from outside. Dropping this
/// aborts it; `None` says that the runtime has ended.
async fn as_task_of<T: Send + 'static>(
    runtime: &Handle,
    future: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let mut task = JoinSet::new();
    task.spawn_on(future, runtime);
    match task.join_next().await? {
        Ok(value) => Some(value),
        Err(error) if error.is_panic() => panic::resume_unwind(error.into_panic()),
        Err(_) => None,
    }
}

async fn sleep(deadline: Instant) {
    time::sleep_until(deadline.into()).await;
}

/// A runtime for the sleeps that have none left: made when first needed, on one
/// thread, for the rest of the process. A sleep that ended early instead would
/// turn every loop that waits for a deadline into a busy one.
fn last_resort() -> &'static Handle {
    static LAST_RESORT: OnceLock<Handle> = OnceLock::new();

    LAST_RESORT.get_or_init(|| {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a timer needs no resources");
        let handle = runtime.handle().clone();
        thread::Builder::new()
            .name("millpond-timer".to_owned())
            .spawn(move || runtime.block_on(future::pending::<()>()))
            .expect("the operating system gives a thread");
        handle
    })
}

async fn connect(target: &Target, options: &SocketOptions) -> io::Result<Box<dyn ByteStream>> {
    match target {
        Target::Tcp(address) => {
            let stream = TcpStream::connect(*address).await?;
            socket::tune(SockRef::from(&stream), options);
            Ok(Box::new(Stream(stream)))
        }
        #[cfg(unix)]
        Target::Unix(path) => {
            let stream = ::tokio::net::UnixStream::connect(path).await?;
            Ok(Box::new(Stream(stream)))
        }
        other => Err(socket::unsupported(other)),
    }
}

/// A tokio stream under the traits of `futures-io`. tokio-util has the same,
/// but would bring itself and three crates more for these lines.
struct Stream<T>(T);

impl<T: AsyncRead + Unpin> futures_io::AsyncRead for Stream<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

impl<T: AsyncWrite + Unpin> futures_io::AsyncWrite for Stream<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
