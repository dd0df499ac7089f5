//! The pools on PostgreSQL, with the settings that they have by themselves.

use bb8_postgres::PostgresConnectionManager;
use deadpool_postgres::{Config, Object, Runtime};
use millpond::PooledConnection;
use millpond::drivers::postgres::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use tokio_postgres::{Client, NoTls};

use crate::storm::{Failure, Pool, SIZE};

pub(crate) fn question(text: &str, seconds: f64) -> String {
    match seconds {
        0.0 => format!("SELECT '{text}'"),
        _ => format!("SELECT '{text}' FROM pg_sleep({seconds})"),
    }
}

async fn ask(client: &Client, sql: &str) -> Result<String, Failure> {
    Ok(client.query_one(sql, &[]).await?.try_get(0)?)
}

#[derive(Clone)]
pub(crate) struct Millpond(millpond::Pool<Postgres>);

impl Millpond {
    pub(crate) async fn open(url: String) -> Self {
        let driver = Postgres::from_url(&url).expect("a good URL");
        let pool = millpond::Pool::builder(driver).max_open_conns(SIZE).build().await;
        Self(pool.expect("a pool"))
    }
}

impl Pool for Millpond {
    type Connection = PooledConnection<Postgres>;

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

#[derive(Clone)]
pub(crate) struct Deadpool(deadpool_postgres::Pool);

impl Deadpool {
    pub(crate) async fn open(url: String) -> Self {
        let mut config = Config::new();
        config.url = Some(url);
        config.pool = Some(deadpool_postgres::PoolConfig::new(SIZE));
        Self(config.create_pool(Some(Runtime::Tokio1), NoTls).expect("a pool"))
    }
}

impl Pool for Deadpool {
    type Connection = Object;

    async fn acquire(&self) -> Result<Self::Connection, Failure> {
        Ok(self.0.get().await?)
    }

    async fn ask(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        ask(conn, sql).await
    }
}

#[derive(Clone)]
pub(crate) struct Bb8(bb8::Pool<PostgresConnectionManager<NoTls>>);

impl Bb8 {
    pub(crate) async fn open(url: String) -> Self {
        let manager = PostgresConnectionManager::new_from_stringlike(url, NoTls);
        let manager = manager.expect("a good URL");
        let pool = bb8::Pool::builder().max_size(SIZE as u32).build(manager).await;
        Self(pool.expect("a pool"))
    }
}

impl Pool for Bb8 {
    type Connection = bb8::PooledConnection<'static, PostgresConnectionManager<NoTls>>;

    async fn acquire(&self) -> Result<Self::Connection, Failure> {
        Ok(self.0.get_owned().await?)
    }

    async fn ask(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        ask(conn, sql).await
    }
}

#[derive(Clone)]
pub(crate) struct Sqlx(PgPool);

impl Sqlx {
    pub(crate) async fn open(url: String) -> Self {
        let pool = PgPoolOptions::new().max_connections(SIZE as u32).connect(&url).await;
        Self(pool.expect("a pool"))
    }
}

impl Pool for Sqlx {
    type Connection = PoolConnection<sqlx::Postgres>;

    async fn acquire(&self) -> Result<Self::Connection, Failure> {
        Ok(self.0.acquire().await?)
    }

    async fn ask(conn: &mut Self::Connection, sql: &str) -> Result<String, Failure> {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(sqlx::query_scalar(sql).fetch_one(&mut **conn).await?)
    }
}
