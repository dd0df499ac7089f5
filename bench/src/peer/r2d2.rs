//! r2d2, which blocks: only for works in which nobody waits.

use std::convert::Infallible;

use ::r2d2::{ManageConnection, Pool, PooledConnection};

use super::{Peer, SIZE};

pub(crate) struct R2d2(Pool<Null>);

pub(crate) struct Null;

impl ManageConnection for Null {
    type Connection = ();
    type Error = Infallible;

    fn connect(&self) -> Result<(), Infallible> {
        Ok(())
    }

    fn is_valid(&self, _conn: &mut ()) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _conn: &mut ()) -> bool {
        false
    }
}

impl Peer for R2d2 {
    const NAME: &'static str = "r2d2 (blocking)";
    type Connection<'a> = PooledConnection<Null>;

    async fn open() -> Self {
        let pool = Pool::builder().max_size(SIZE as u32).build(Null);
        Self(pool.expect("valid settings"))
    }

    async fn acquire(&self) -> PooledConnection<Null> {
        self.0.get().expect("never refused")
    }
}
