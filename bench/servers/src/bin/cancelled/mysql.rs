//! The pools on MariaDB. deadpool and bb8 leave it to their user what a
//! connection is worth, so they are here with each check that users write.

use bb8::ManageConnection;
use deadpool::managed::{Manager, Metrics, Object, RecycleError, RecycleResult};
use millpond::PooledConnection;
use millpond::drivers::mysql::Mysql;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Opts, OptsBuilder, PoolConstraints, PoolOpts};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::pool::PoolConnection;
use sqlx::{AssertSqlSafe, MySql, MySqlPool};

use crate::storm::{Failure, Pool, SIZE};

pub(crate) fn question(text: &str, seconds: f64) -> String {
    match seconds {
        0.0 => format!("SELECT '{text}'"),
        _ => format!("SELECT '{text}' FROM (SELECT SLEEP({seconds})) AS slept"),
    }
}

async fn ask(client: &mut Conn, sql: &str) -> Result<String, Failure> {
    // By row, for a wrong row may have a column of another type.
    let row: Option<mysql_async::Row> = client.query_first(sql).await?;
    let row = row.ok_or("no row")?;
    Ok(row.get_opt(0).ok_or("no column")??)
}

#[derive(Clone)]
pub(crate) struct Millpond(millpond::Pool<Mysql>);

impl Millpond {
    pub(crate) async fn open(url: String) -> Self {
        let driver = Mysql::from_url(&url).expect("a good URL");
        let pool = millpond::Pool::builder(driver).max_open_conns(SIZE).build().await;
        Self(pool.expect("a pool"))
    }
}

impl Pool for Millpond {
    type Connection = PooledConnection<Mysql>;

    async fn acquire(&self) -> Result<Self::Connection, Failure> {
        Ok(self.0.acquire().await?)
    }

    async fn ask(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        Ok(conn.query(sql, &[]).await?.scalar()?)
    }

    async fn ask_client(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        ask(conn.client(), sql).await
    }
}

/// What is asked of a connection before it is lent again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Check {
    Nothing,
    /// `is_disconnected()`, which is set while an answer is awaited.
    Flag,
    Ping,
}

/// Opens and checks connections for deadpool and bb8.
pub(crate) struct Conns {
    opts: Opts,
    check: Check,
}

impl Conns {
    fn new(url: &str, check: Check) -> Self {
        Self { opts: options(url).into(), check }
    }
}

/// By TCP, as all the others: it would move to the Unix socket.
fn options(url: &str) -> OptsBuilder {
    let opts = Opts::from_url(url).expect("a good URL");
    OptsBuilder::from_opts(opts).prefer_socket(false)
}

impl Manager for Conns {
    type Type = Conn;
    type Error = Error;

    async fn create(&self) -> Result<Conn, Error> {
        Conn::new(self.opts.clone()).await
    }

    async fn recycle(&self, conn: &mut Conn, _: &Metrics) -> RecycleResult<Error> {
        match self.check {
            Check::Nothing => Ok(()),
            Check::Flag if conn.is_disconnected() => Err(RecycleError::message("disconnected")),
            Check::Flag => Ok(()),
            Check::Ping => Ok(conn.ping().await?),
        }
    }
}

impl ManageConnection for Conns {
    type Connection = Conn;
    type Error = Error;

    async fn connect(&self) -> Result<Conn, Error> {
        Conn::new(self.opts.clone()).await
    }

    async fn is_valid(&self, conn: &mut Conn) -> Result<(), Error> {
        conn.ping().await
    }

    fn has_broken(&self, conn: &mut Conn) -> bool {
        self.check == Check::Flag && conn.is_disconnected()
    }
}

#[derive(Clone)]
pub(crate) struct Deadpool(deadpool::managed::Pool<Conns>);

impl Deadpool {
    pub(crate) async fn open(url: String, check: Check) -> Self {
        let builder = deadpool::managed::Pool::builder(Conns::new(&url, check));
        Self(builder.max_size(SIZE).build().expect("a pool"))
    }
}

impl Pool for Deadpool {
    type Connection = Object<Conns>;

    async fn acquire(&self) -> Result<Self::Connection, Failure> {
        Ok(self.0.get().await?)
    }

    async fn ask(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        ask(conn, sql).await
    }
}

#[derive(Clone)]
pub(crate) struct Bb8(bb8::Pool<Conns>);

impl Bb8 {
    pub(crate) async fn open(url: String, check: Check) -> Self {
        let builder = bb8::Pool::builder().max_size(SIZE as u32);
        let builder = builder.test_on_check_out(check == Check::Ping);
        Self(builder.build(Conns::new(&url, check)).await.expect("a pool"))
    }
}

impl Pool for Bb8 {
    type Connection = bb8::PooledConnection<'static, Conns>;

    async fn acquire(&self) -> Result<Self::Connection, Failure> {
        Ok(self.0.get_owned().await?)
    }

    async fn ask(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        ask(conn, sql).await
    }
}

/// mysql_async's own pool.
#[derive(Clone)]
pub(crate) struct Own(mysql_async::Pool);

impl Own {
    pub(crate) async fn open(url: String) -> Self {
        let size = PoolConstraints::new(SIZE, SIZE).expect("not reversed");
        let size = PoolOpts::new().with_constraints(size);
        Self(mysql_async::Pool::new(options(&url).pool_opts(size)))
    }
}

impl Pool for Own {
    type Connection = Conn;

    async fn acquire(&self) -> Result<Conn, Failure> {
        Ok(self.0.get_conn().await?)
    }

    async fn ask(conn: &mut Conn, sql: &str) -> Result<String, Failure> {
        ask(conn, sql).await
    }
}

#[derive(Clone)]
pub(crate) struct Sqlx(MySqlPool);

impl Sqlx {
    pub(crate) async fn open(url: String) -> Self {
        let pool = MySqlPoolOptions::new().max_connections(SIZE as u32).connect(&url).await;
        Self(pool.expect("a pool"))
    }
}

impl Pool for Sqlx {
    type Connection = PoolConnection<MySql>;

    async fn acquire(&self) -> Result<Self::Connection, Failure> {
        Ok(self.0.acquire().await?)
    }

    async fn ask(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(sqlx::query_scalar(sql).fetch_one(&mut **conn).await?)
    }
}
