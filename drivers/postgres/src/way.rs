//! The way to the server that a connection was opened on.
//!
//! Owns what a second connection to the same server takes, to stop what runs on
//! the first. Does not know what that is.

use std::sync::Arc;

use millpond_driver::{Result, Runtime, SocketOptions, Target};
use tokio::io::AsyncReadExt;
use tokio_postgres::CancelToken;

use crate::error;
use crate::link::Link;
use crate::tls::{self, Tls};
use crate::wire::{Compat, Negotiated};

pub(crate) struct Way {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) target: Target,
    pub(crate) socket: SocketOptions,
    /// How it was encrypted, for this host name.
    pub(crate) tls: Option<(Tls, String)>,
}

/// Asks the server, over a connection of its own, to stop what runs on a link.
pub(crate) async fn cancel(token: CancelToken, way: Arc<Way>, link: Arc<Link>) -> Result<()> {
    let io = way.runtime.connect(&way.target, &way.socket).await.map_err(error::unreachable)?;
    let secured = match &way.tls {
        Some((tls, host)) => tls::negotiate(io, tls, host).await?,
        None => tls::plain(Compat::new(io)),
    };
    let mut stream = secured.stream;
    // From here on the request may come at any time, unless its end is seen.
    link.cancel_leaves();
    token.cancel_query_raw(&mut stream, Negotiated).await.map_err(error::refused)?;
    // The server closes once it has passed the request on, so that it cannot
    // reach a later statement.
    let _ = stream.read(&mut [0]).await;
    link.cancel_done();
    Ok(())
}
