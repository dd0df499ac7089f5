//! The contenders on MariaDB.
//!
//! All but sqlx ask by text: one round trip. sqlx prepares once a connection.
//! mysql_async's own pool resets the session of each connection that is given
//! back, which is another.

use millpond::drivers::mysql::Mysql;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, PoolConstraints, PoolOpts};
use sqlx::MySqlPool;
use sqlx::mysql::MySqlPoolOptions;

use crate::contender::{Client, Contender, Executor, TASKS};
use crate::millpond::{Held, Pooled};
use crate::{Runtimes, names};

pub(crate) fn contenders(url: &str, on: &Runtimes) -> Vec<Contender> {
    let driver = || Mysql::from_url(url).expect("a good URL");
    let pooled = |executor: &Executor| Pooled::eight(executor, driver());
    let tokio = &on.tokio;
    vec![
        Contender::new("mysql_async", tokio, tokio.block_on(Raw::eight(url))),
        Contender::new(names::HELD, tokio, Held::eight(tokio, driver())),
        Contender::new(names::TOKIO, tokio, pooled(tokio)),
        Contender::new(names::ASYNC_STD, &on.async_std, pooled(&on.async_std)),
        Contender::new(names::SMOL, &on.smol, pooled(&on.smol)),
        Contender::new("mysql_async, its pool", tokio, tokio.block_on(Own::eight(url))),
        Contender::new("sqlx", tokio, tokio.block_on(Sqlx::eight(url))),
    ]
}

/// By TCP, as all the others: it would move to the Unix socket.
fn options(url: &str) -> OptsBuilder {
    let opts = Opts::from_url(url).expect("a good URL");
    OptsBuilder::from_opts(opts).prefer_socket(false)
}

struct Raw(Conn);

impl Raw {
    async fn eight(url: &str) -> Vec<Self> {
        let mut all = Vec::new();
        while all.len() < TASKS {
            all.push(Self(Conn::new(options(url)).await.expect("a connection")));
        }
        all
    }
}

impl Client for Raw {
    async fn ask(&mut self) -> i64 {
        self.0.query_first("SELECT 1").await.expect("an answer").expect("a row")
    }
}

struct Own(mysql_async::Pool);

impl Own {
    async fn eight(url: &str) -> Vec<Self> {
        let size = PoolConstraints::new(TASKS, TASKS).expect("not reversed");
        let size = PoolOpts::new().with_constraints(size);
        let pool = mysql_async::Pool::new(options(url).pool_opts(size));
        (0..TASKS).map(|_| Self(pool.clone())).collect()
    }
}

impl Client for Own {
    async fn ask(&mut self) -> i64 {
        let mut conn = self.0.get_conn().await.expect("a connection");
        conn.query_first("SELECT 1").await.expect("an answer").expect("a row")
    }
}

struct Sqlx(MySqlPool);

impl Sqlx {
    async fn eight(url: &str) -> Vec<Self> {
        let pool = MySqlPoolOptions::new().max_connections(TASKS as u32).connect(url).await;
        let pool = pool.expect("a pool");
        (0..TASKS).map(|_| Self(pool.clone())).collect()
    }
}

impl Client for Sqlx {
    async fn ask(&mut self) -> i64 {
        sqlx::query_scalar("SELECT 1").fetch_one(&self.0).await.expect("an answer")
    }
}
