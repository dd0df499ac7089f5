//! The contenders on PostgreSQL.
//!
//! All but bb8 ask by a statement that is prepared once a connection: one round
//! trip. bb8's connection is the bare client, whose `query` prepares each time.

use bb8_postgres::PostgresConnectionManager;
use deadpool_postgres::Runtime;
use millpond::drivers::postgres::Postgres;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio_postgres::{NoTls, Statement};

use crate::contender::{Client, Contender, Executor, TASKS};
use crate::millpond::{Held, Pooled};
use crate::{Runtimes, names};

pub(crate) fn contenders(url: &str, on: &Runtimes) -> Vec<Contender> {
    let driver = || Postgres::from_url(url).expect("a good URL");
    let pooled = |executor: &Executor| Pooled::eight(executor, driver());
    let tokio = &on.tokio;
    vec![
        Contender::new("tokio-postgres", tokio, tokio.block_on(Raw::eight(url))),
        Contender::new(names::HELD, tokio, Held::eight(tokio, driver())),
        Contender::new(names::TOKIO, tokio, pooled(tokio)),
        Contender::new(names::ASYNC_STD, &on.async_std, pooled(&on.async_std)),
        Contender::new(names::SMOL, &on.smol, pooled(&on.smol)),
        Contender::new("deadpool-postgres", tokio, Deadpool::eight(url)),
        Contender::new("bb8-postgres", tokio, tokio.block_on(Bb8::eight(url))),
        Contender::new("sqlx", tokio, tokio.block_on(Sqlx::eight(url))),
    ]
}

struct Raw(tokio_postgres::Client, Statement);

impl Raw {
    async fn eight(url: &str) -> Vec<Self> {
        let mut all = Vec::new();
        while all.len() < TASKS {
            let (client, connection) =
                tokio_postgres::connect(url, NoTls).await.expect("a connection");
            tokio::spawn(connection);
            let statement = client.prepare("SELECT 1").await.expect("a statement");
            all.push(Self(client, statement));
        }
        all
    }
}

impl Client for Raw {
    async fn ask(&mut self) -> i64 {
        first(&self.0.query(&self.1, &[]).await.expect("an answer"))
    }
}

struct Deadpool(deadpool_postgres::Pool);

impl Deadpool {
    fn eight(url: &str) -> Vec<Self> {
        let mut config = deadpool_postgres::Config::new();
        config.url = Some(url.to_owned());
        config.pool = Some(deadpool_postgres::PoolConfig::new(TASKS));
        let pool = config.create_pool(Some(Runtime::Tokio1), NoTls).expect("a pool");
        (0..TASKS).map(|_| Self(pool.clone())).collect()
    }
}

impl Client for Deadpool {
    async fn ask(&mut self) -> i64 {
        let client = self.0.get().await.expect("a connection");
        let statement = client.prepare_cached("SELECT 1").await.expect("a statement");
        first(&client.query(&statement, &[]).await.expect("an answer"))
    }
}

struct Bb8(bb8::Pool<PostgresConnectionManager<NoTls>>);

impl Bb8 {
    async fn eight(url: &str) -> Vec<Self> {
        let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls);
        let manager = manager.expect("a good URL");
        let pool = bb8::Pool::builder().max_size(TASKS as u32).build(manager).await;
        let pool = pool.expect("a pool");
        (0..TASKS).map(|_| Self(pool.clone())).collect()
    }
}

impl Client for Bb8 {
    async fn ask(&mut self) -> i64 {
        let client = self.0.get().await.expect("a connection");
        first(&client.query("SELECT 1", &[]).await.expect("an answer"))
    }
}

struct Sqlx(PgPool);

impl Sqlx {
    async fn eight(url: &str) -> Vec<Self> {
        let pool = PgPoolOptions::new().max_connections(TASKS as u32).connect(url).await;
        let pool = pool.expect("a pool");
        (0..TASKS).map(|_| Self(pool.clone())).collect()
    }
}

impl Client for Sqlx {
    async fn ask(&mut self) -> i64 {
        let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&self.0).await.expect("an answer");
        one.into()
    }
}

fn first(rows: &[tokio_postgres::Row]) -> i64 {
    rows[0].get::<_, i32>(0).into()
}
