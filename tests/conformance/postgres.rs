//! PostgreSQL under the conformance suite: what differs from other databases,
//! and what it cannot do.

use std::sync::Arc;

use millpond::Driver;
use millpond::drivers::postgres::{Postgres, PostgresConnection, error};
use millpond_harness::{Port, Server, closed_port, postgres};

use super::*;

struct Postgresql(Arc<Place>);

struct Place {
    server: &'static Server,
    /// A database of this test's own, so that its sessions can be counted.
    name: &'static str,
    url: String,
    /// Where nobody listens.
    closed: Port,
}

impl Subject for Postgresql {
    type Driver = Postgres;

    fn driver(&self) -> Postgres {
        Postgres::from_url(&self.0.url).expect("a good URL")
    }

    fn abilities(&self) -> &[Ability] {
        use Ability::{Cancel, ReadOnly, ResetSession, Session, Tables, Transactions};
        &[Tables, Transactions, Session, Cancel, ResetSession, ReadOnly]
    }

    fn placeholder(&self, number: usize) -> String {
        format!("${number}")
    }

    fn slow(&self) -> Option<String> {
        Some("SELECT pg_sleep(600)".to_owned())
    }

    fn column(&self, kind: &str) -> Option<&str> {
        Some(match kind {
            "bool" => "BOOLEAN",
            "i64" => "BIGINT",
            "f64" => "DOUBLE PRECISION",
            "decimal" => "NUMERIC(20, 2)",
            "text" => "TEXT",
            "bytes" => "BYTEA",
            "date" => "DATE",
            "time" => "TIME",
            "datetime" => "TIMESTAMP",
            "timestamp" => "TIMESTAMPTZ",
            "uuid" => "UUID",
            "json" => "JSON",
            "array" => "BIGINT[]",
            _ => return None,
        })
    }

    fn change_setting(&self) -> Option<String> {
        Some("SET TimeZone = 'Asia/Tokyo'".to_owned())
    }

    fn setting<'a>(
        &'a self,
        conn: &'a mut PostgresConnection,
    ) -> Option<BoxFuture<'a, Result<String>>> {
        let read = async { self.driver().query(conn, "SHOW TimeZone", &[]).await?.scalar() };
        Some(Box::pin(read))
    }

    fn native<'a>(
        &'a self,
        conn: &'a mut PostgresConnection,
        sql: &'a str,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        let run = async move { conn.client().query(sql, &[]).await.map(drop).map_err(error) };
        Some(Box::pin(run))
    }

    fn sessions(&self) -> Option<BoxFuture<'_, Result<u64>>> {
        Some(Box::pin(async { Ok(self.0.server.sessions(self.0.name) as u64) }))
    }

    fn unreachable(&self) -> Option<Postgres> {
        Some(self.driver().port(self.0.closed.number()))
    }

    fn denied(&self) -> Option<Postgres> {
        Some(self.driver().password(format!("not-{}", self.0.server.password())))
    }

    fn password(&self) -> Option<&str> {
        Some(self.0.server.password())
    }
}

/// It tells no generated ids, and its integers end at `i64::MAX`.
const LEFT_OUT: [&str; 2] =
    ["an_insert_tells_the_generated_id", "values_of_kind_u64_come_back_as_they_went"];

#[test]
fn postgresql_conforms() {
    let (server, name) = (postgres(), "conformance");
    let url = server.new_database(name);
    let place = Arc::new(Place { server, name, url, closed: closed_port() });
    conforms(|| Postgresql(Arc::clone(&place)), &LEFT_OUT);
}
