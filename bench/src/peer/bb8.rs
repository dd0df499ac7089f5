//! bb8.

use std::convert::Infallible;

use ::bb8::{ManageConnection, Pool, PooledConnection};

use super::{Peer, SIZE};

pub(crate) struct Bb8(Pool<Null>);

pub(crate) struct Null;

impl ManageConnection for Null {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn is_valid(&self, _conn: &mut ()) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _conn: &mut ()) -> bool {
        false
    }
}

impl Peer for Bb8 {
    const NAME: &'static str = "bb8";
    type Connection<'a> = PooledConnection<'a, Null>;

    async fn open() -> Self {
        let pool = Pool::builder().max_size(SIZE as u32).build(Null).await;
        Self(pool.expect("valid settings"))
    }

    async fn acquire(&self) -> PooledConnection<'_, Null> {
        self.0.get().await.expect("never refused")
    }
}
