//! deadpool's managed pool.

use std::convert::Infallible;

use ::deadpool::managed::{Manager, Metrics, Object, Pool, RecycleResult};

use super::{Peer, SIZE};

pub(crate) struct Deadpool(Pool<Null>);

pub(crate) struct Null;

impl Manager for Null {
    type Type = ();
    type Error = Infallible;

    async fn create(&self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn recycle(&self, _conn: &mut (), _metrics: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

impl Peer for Deadpool {
    const NAME: &'static str = "deadpool";
    type Connection<'a> = Object<Null>;

    async fn open() -> Self {
        Self(Pool::builder(Null).max_size(SIZE).build().expect("valid settings"))
    }

    async fn acquire(&self) -> Object<Null> {
        self.0.get().await.expect("never refused")
    }
}
