//! The stream under the client: plain or TLS, of any runtime, watched.
//!
//! Owns the adapter from the contract's byte stream to the traits that
//! tokio-postgres speaks, and hands it a stream that is encrypted already, so
//! that there is one type for all. Does not dial and does not negotiate.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Context, Poll, Waker};

use millpond_driver::ByteStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use crate::link::{Link, inbound};
use crate::sniff::Sniffer;

/// The most that is read at once.
const READ_AT_ONCE: usize = 8 * 1024;

/// A runtime's byte stream under tokio's traits.
pub(crate) struct Compat {
    io: Box<dyn ByteStream>,
    /// Read into first. The client offers room that is not initialized, and to
    /// clear all of it for every few bytes costs more than to copy them.
    buffer: Box<[u8]>,
}

impl Compat {
    pub(crate) fn new(io: Box<dyn ByteStream>) -> Self {
        Self { io, buffer: vec![0; READ_AT_ONCE].into() }
    }
}

impl AsyncRead for Compat {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { io, buffer } = &mut *self;
        let room = &mut buffer[..READ_AT_ONCE.min(buf.remaining())];
        let read = task::ready!(Pin::new(&mut **io).poll_read(cx, room))?;
        buf.put_slice(&room[..read]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Compat {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_close(cx)
    }
}

/// A stream, encrypted or not.
pub(crate) enum Stream {
    Plain(Compat),
    #[cfg(feature = "rustls")]
    Tls(Box<tokio_rustls::client::TlsStream<Compat>>),
    #[cfg(all(feature = "native-tls", not(feature = "rustls")))]
    Tls(Box<tokio_native_tls::TlsStream<Compat>>),
}

/// Calls a method on whichever stream it is.
macro_rules! on_stream {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).$method($($argument),*),
            #[cfg(any(feature = "rustls", feature = "native-tls"))]
            Self::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self.poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self.poll_shutdown(cx))
    }
}

/// A stream on which the protocol is followed.
pub(crate) struct Wire {
    stream: Stream,
    sniffer: Sniffer,
    link: Arc<Link>,
    /// Has the task polled when there is something to read.
    inbound: Waker,
    /// The hash of the server's certificate, which a login may be bound to.
    binding: Option<Vec<u8>>,
}

impl Wire {
    pub(crate) fn new(stream: Stream, link: Arc<Link>, binding: Option<Vec<u8>>) -> Self {
        Self { stream, sniffer: Sniffer::new(), inbound: inbound(&link), link, binding }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        // There is no task before the end of the login.
        let in_login = this.sniffer.status() == 0;
        let waker = if in_login { cx.waker() } else { &this.inbound };
        let cx = &mut Context::from_waker(waker);
        task::ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.sniffer.received(&buf.filled()[before..])?;
        this.link.note_received(&mut this.sniffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let poll = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = poll {
            this.sniffer.sent(&bytes[..written])?;
            this.link.note_sent(&this.sniffer, written);
        }
        this.link.note_blocked(poll.is_pending());
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.link.note_blocked(poll.is_pending());
        poll
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        self.binding.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

/// For a cancel request, which has no login to bind.
impl TlsStream for &mut Stream {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// "TLS" for a stream that has what it needs already.
pub(crate) struct Negotiated;

impl<S: TlsStream + Unpin> TlsConnect<S> for Negotiated {
    type Stream = S;
    type Error = io::Error;
    type Future = Ready<io::Result<S>>;

    fn connect(self, stream: S) -> Self::Future {
        ready(Ok(stream))
    }
}
