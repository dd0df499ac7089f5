//! millpond, with a driver that does nothing.

use millpond::{ConnectContext, Driver, Pool, PooledConnection, Result, Rows, Session, Value};

use super::{Peer, SIZE};

pub(crate) struct Millpond(Pool<Null>);

pub(crate) struct Null;

impl Driver for Null {
    type Connection = ();

    async fn connect(&self, _cx: &ConnectContext<'_>) -> Result<()> {
        Ok(())
    }

    async fn ping(&self, _conn: &mut ()) -> Result<()> {
        Ok(())
    }

    async fn query(&self, _conn: &mut (), _sql: &str, _params: &[Value]) -> Result<Rows> {
        unreachable!("the bench runs no statement")
    }

    fn session(&self, _conn: &()) -> Session {
        Session::Clean
    }
}

impl Peer for Millpond {
    const NAME: &'static str = "millpond";
    type Connection<'a> = PooledConnection<Null>;

    async fn open() -> Self {
        let pool = Pool::builder(Null).max_open_conns(SIZE).build().await;
        Self(pool.expect("valid settings"))
    }

    async fn acquire(&self) -> PooledConnection<Null> {
        self.0.acquire().await.expect("never refused")
    }
}
