//! What the bench asks of a pool: open, lend, take back.
//!
//! One adapter a file. Knows nothing of what is measured.

pub(crate) mod bb8;
pub(crate) mod deadpool;
pub(crate) mod millpond;
pub(crate) mod mobc;
pub(crate) mod r2d2;

use std::future::Future;

/// Connections in every pool.
pub(crate) const SIZE: usize = 8;

/// A pool of [`SIZE`] connections.
pub(crate) trait Peer: Sized + Send + Sync + 'static {
    /// What the table calls it.
    const NAME: &'static str;

    /// A borrowed connection; dropping it gives it back.
    type Connection<'a>: Send;

    /// An empty pool.
    fn open() -> impl Future<Output = Self> + Send;

    /// Waits for a connection.
    fn acquire(&self) -> impl Future<Output = Self::Connection<'_>> + Send;

    /// A pool whose connections are all open and idle.
    fn warm() -> impl Future<Output = Self> + Send {
        async {
            let pool = Self::open().await;
            drop(pool.acquire_all().await);
            pool
        }
    }

    /// Every connection there is.
    fn acquire_all(&self) -> impl Future<Output = Vec<Self::Connection<'_>>> + Send {
        async {
            let mut all = Vec::with_capacity(SIZE);
            while all.len() < SIZE {
                all.push(self.acquire().await);
            }
            all
        }
    }
}
