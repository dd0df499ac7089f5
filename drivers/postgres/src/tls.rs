//! Whether a connection is encrypted, and how far the server is believed.
//!
//! Owns the choice and the negotiation with the server; the files below own the
//! two implementations. Does not log in.

#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
mod native;
#[cfg(feature = "rustls")]
mod rustls;

#[cfg(all(feature = "native-tls", not(feature = "rustls")))]
use self::native as implementation;
#[cfg(feature = "rustls")]
use self::rustls as implementation;

use std::fmt;
use std::path::PathBuf;

use millpond_driver::{ByteStream, Cause, Error, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error;
use crate::sniff::NotPostgres;
use crate::wire::{Compat, Stream};

/// Whether a connection is encrypted, and what the server must prove: `sslmode`
/// of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsMode {
    /// Never encrypted (`disable`).
    Disable,
    /// Encrypted if the server offers it (`prefer`). The server proves nothing.
    Prefer,
    /// Encrypted (`require`). The server proves nothing, unless root
    /// certificates are given: then as `VerifyCa`.
    Require,
    /// Encrypted, with a certificate of a known authority (`verify-ca`).
    VerifyCa,
    /// Encrypted, with a certificate of a known authority for this very host
    /// (`verify-full`). What a network that is not trusted calls for.
    VerifyFull,
}

impl Default for TlsMode {
    /// `Prefer` with one of the features `rustls` and `native-tls`, else
    /// `Disable`.
    fn default() -> Self {
        if AVAILABLE { Self::Prefer } else { Self::Disable }
    }
}

const AVAILABLE: bool = cfg!(any(feature = "rustls", feature = "native-tls"));

/// What is asked for.
#[derive(Clone, Default)]
pub(crate) struct Tls {
    pub(crate) mode: TlsMode,
    /// A file of root certificates; `None`: the system's.
    pub(crate) roots: Option<PathBuf>,
    /// Files of a certificate and its key, by which the server knows us.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Made of the files when first needed.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    connector: std::sync::Arc<std::sync::OnceLock<implementation::Connector>>,
}

impl Tls {
    pub(crate) fn with_mode(mode: TlsMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Notes that an option was changed.
    pub(crate) fn renew(&mut self) {
        #[cfg(any(feature = "rustls", feature = "native-tls"))]
        {
            self.connector = std::sync::Arc::default();
        }
    }

    /// What the server must prove.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    fn proof(&self) -> TlsMode {
        match self.mode {
            TlsMode::Require if self.roots.is_some() => TlsMode::VerifyCa,
            mode => mode,
        }
    }

    /// # Errors
    ///
    /// It asks for more than this build has.
    pub(crate) fn check(&self) -> Result<()> {
        if self.mode > TlsMode::Prefer && !AVAILABLE {
            return Err(Error::config(
                "sslmode: TLS is not enabled: add the feature `rustls` or `native-tls`",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("mode", &self.mode)
            .field("roots", &self.roots)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A stream ready for the login, and what the login may be bound to.
pub(crate) struct Secured {
    pub(crate) stream: Stream,
    pub(crate) binding: Option<Vec<u8>>,
    pub(crate) encrypted: bool,
}

/// Asks the server for TLS, if that is wanted.
pub(crate) async fn negotiate(io: Box<dyn ByteStream>, tls: &Tls, host: &str) -> Result<Secured> {
    tls.check()?;
    let mut io = Compat::new(io);
    if tls.mode == TlsMode::Disable || !AVAILABLE {
        return Ok(plain(io));
    }
    match ask(&mut io).await? {
        b'S' => Box::pin(encrypt(io, tls, host)).await,
        b'N' if tls.mode == TlsMode::Prefer => Ok(plain(io)),
        b'N' => Err(Error::connect("sslmode asks for TLS, and the server does not offer it")
            .with_cause(Cause::Config)),
        // An error, from a server that has no room even to ask.
        b'E' => Err(Error::connect("the server refused the connection before the login")),
        _ => Err(Error::connect(NotPostgres.to_string()).with_cause(Cause::Config)),
    }
}

pub(crate) fn plain(io: Compat) -> Secured {
    Secured { stream: Stream::Plain(io), binding: None, encrypted: false }
}

/// The question is the same in all versions of the protocol.
async fn ask(io: &mut Compat) -> Result<u8> {
    const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    io.write_all(&REQUEST).await.map_err(error::unreachable)?;
    io.flush().await.map_err(error::unreachable)?;
    let mut answer = [0];
    match io.read(&mut answer).await.map_err(error::unreachable)? {
        0 => Err(Error::connect("the server closed the connection without an answer")),
        _ => Ok(answer[0]),
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
async fn encrypt(io: Compat, tls: &Tls, host: &str) -> Result<Secured> {
    let connector = match tls.connector.get() {
        Some(connector) => connector,
        None => {
            let made = implementation::Connector::new(tls)?;
            tls.connector.get_or_init(|| made)
        }
    };
    let (stream, binding) = connector.connect(io, host).await?;
    Ok(Secured { stream: Stream::Tls(Box::new(stream)), binding, encrypted: true })
}

#[cfg(not(any(feature = "rustls", feature = "native-tls")))]
async fn encrypt(_io: Compat, tls: &Tls, _host: &str) -> Result<Secured> {
    tls.check()?;
    Err(Error::unsupported("TLS"))
}

/// What a certificate or a key could not be had for.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn unreadable(what: &str, path: &std::path::Path, why: impl fmt::Display) -> Error {
    Error::config(format!("{what}: cannot use {path:?}: {why}"))
}

/// A handshake that failed. A certificate that is not believed stays so until
/// somebody changes something; a connection that broke does not.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn handshake(failure: &dyn fmt::Display, permanent: bool) -> Error {
    let cause = if permanent { Cause::Config } else { Cause::Transport };
    Error::connect(format!("TLS failed: {failure}")).with_cause(cause)
}
