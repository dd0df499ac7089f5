//! mobc.

use std::convert::Infallible;

use ::mobc::{Connection, Manager, Pool, async_trait};

use super::{Peer, SIZE};

pub(crate) struct Mobc(Pool<Null>);

pub(crate) struct Null;

#[async_trait]
impl Manager for Null {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn check(&self, conn: ()) -> Result<(), Infallible> {
        Ok(conn)
    }
}

impl Peer for Mobc {
    const NAME: &'static str = "mobc";
    type Connection<'a> = Connection<Null>;

    /// Keeps all of its connections idle: with its default of two it would
    /// connect anew all the time.
    async fn open() -> Self {
        Self(Pool::builder().max_open(SIZE as u64).max_idle(SIZE as u64).build(Null))
    }

    async fn acquire(&self) -> Connection<Null> {
        self.0.get().await.expect("never refused")
    }
}
