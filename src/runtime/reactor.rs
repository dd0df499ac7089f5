//! Sockets, timers and blocking jobs for the runtimes built on `async-io`.
//!
//! async-std and smol share one reactor and one set of blocking threads, both
//! global to the process, so they share this code. Does not know which of the
//! two runs the tasks.
#![expect(clippy::disallowed_methods, reason = "the adapters are where the real clock is read")]

use std::future;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use async_io::{Async, Timer};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::FutureExt;
use millpond_driver::{BoxFuture, ByteStream, SocketOptions, Target};
use socket2::SockRef;

use super::socket;

pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn sleep_until(deadline: Instant) -> BoxFuture<'static, ()> {
    if deadline <= now() {
        return Box::pin(future::ready(()));
    }
    Box::pin(Timer::at(deadline).map(drop))
}

pub(super) fn spawn_blocking(job: Box<dyn FnOnce() + Send>) {
    blocking::unblock(job).detach();
}

pub(super) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let host = host.to_owned();
    blocking::unblock(move || socket::lookup(&host, port)).await
}

pub(super) async fn connect(
    target: &Target,
    options: &SocketOptions,
) -> io::Result<Box<dyn ByteStream>> {
    match target {
        Target::Tcp(address) => {
            let io = Async::<TcpStream>::connect(*address).await?;
            socket::tune(SockRef::from(io.get_ref()), options);
            Ok(Box::new(Stream { io, shutdown: TcpStream::shutdown }))
        }
        #[cfg(unix)]
        Target::Unix(path) => {
            use std::os::unix::net::UnixStream;

            let io = Async::<UnixStream>::connect(path).await?;
            Ok(Box::new(Stream { io, shutdown: UnixStream::shutdown }))
        }
        other => Err(socket::unsupported(other)),
    }
}

/// An `Async` socket that tells its peer when it is closed: `Async` by itself
/// only flushes, while tokio shuts the writing half down.
struct Stream<T> {
    io: Async<T>,
    shutdown: fn(&T, Shutdown) -> io::Result<()>,
}

impl<T> AsyncRead for Stream<T>
where
    T: Unpin,
    Async<T>: AsyncRead + Unpin,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_read_vectored(cx, bufs)
    }
}

impl<T> AsyncWrite for Stream<T>
where
    T: Unpin,
    Async<T>: AsyncWrite + Unpin,
{
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready((self.shutdown)(self.io.get_ref(), Shutdown::Write))
    }
}
