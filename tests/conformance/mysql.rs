//! MariaDB and MySQL under the conformance suite: what differs from other
//! databases, and what they cannot do.

use std::sync::Arc;

use millpond::Driver;
use millpond::drivers::mysql::mysql_async::prelude::Queryable;
use millpond::drivers::mysql::{Mysql, MysqlConnection, error};
use millpond_harness::{Port, Server, closed_port, mariadb, mysql};

use super::*;

struct Database(Arc<Place>);

struct Place {
    family: &'static str,
    server: &'static Server,
    /// A database of this test's own, so that its sessions can be counted.
    name: &'static str,
    url: String,
    /// Where nobody listens.
    closed: Port,
}

impl Subject for Database {
    type Driver = Mysql;

    fn driver(&self) -> Mysql {
        Mysql::from_url(&self.0.url).expect("a good URL")
    }

    fn abilities(&self) -> &[Ability] {
        use Ability::{Cancel, ReadOnly, ResetSession, Session, Tables, Transactions};
        &[Tables, Transactions, Session, Cancel, ResetSession, ReadOnly]
    }

    fn name(&self) -> String {
        self.0.family.to_owned()
    }

    fn slow(&self) -> Option<String> {
        // MySQL does not call a sleep that is all of a statement stopped.
        Some("SELECT 1 FROM (SELECT 1 AS n) AS once WHERE SLEEP(600) = n".to_owned())
    }

    fn column(&self, kind: &str) -> Option<&str> {
        Some(match kind {
            "bool" => "BOOL",
            "i64" => "BIGINT",
            "u64" => "BIGINT UNSIGNED",
            "f64" => "DOUBLE",
            "decimal" => "DECIMAL(20, 2)",
            "text" => "VARCHAR(100) CHARACTER SET utf8mb4",
            "bytes" => "VARBINARY(100)",
            "date" => "DATE",
            "time" => "TIME(6)",
            "datetime" => "DATETIME(6)",
            "timestamp" => "TIMESTAMP(6) NULL",
            "json" if self.0.family == "mysql" => "JSON",
            _ => return None,
        })
    }

    fn generated_id(&self) -> Option<&str> {
        Some("BIGINT AUTO_INCREMENT PRIMARY KEY")
    }

    fn change_setting(&self) -> Option<String> {
        Some("SET time_zone = '+02:00'".to_owned())
    }

    fn setting<'a>(
        &'a self,
        conn: &'a mut MysqlConnection,
    ) -> Option<BoxFuture<'a, Result<String>>> {
        let read = async {
            let rows = self.driver().query(conn, "SELECT @@time_zone", &[]).await?;
            rows.scalar::<String>()
        };
        Some(Box::pin(read))
    }

    fn native<'a>(
        &'a self,
        conn: &'a mut MysqlConnection,
        sql: &'a str,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        Some(Box::pin(async move { conn.client().query_drop(sql).await.map_err(error) }))
    }

    fn sessions(&self) -> Option<BoxFuture<'_, Result<u64>>> {
        Some(Box::pin(async { Ok(self.0.server.sessions(self.0.name) as u64) }))
    }

    fn unreachable(&self) -> Option<Mysql> {
        Some(self.driver().port(self.0.closed.number()))
    }

    fn denied(&self) -> Option<Mysql> {
        Some(self.driver().password(format!("not-{}", self.0.server.password())))
    }

    fn password(&self) -> Option<&str> {
        Some(self.0.server.password())
    }
}

impl Place {
    fn new(family: &'static str, server: &'static Server) -> Arc<Self> {
        let name = "conformance";
        let url = server.new_database(name);
        Arc::new(Self { family, server, name, url, closed: closed_port() })
    }
}

const UUID: &str = "values_of_kind_uuid_come_back_as_they_went";
const JSON: &str = "values_of_kind_json_come_back_as_they_went";
const ARRAY: &str = "values_of_kind_array_come_back_as_they_went";

/// It has no type for UUIDs that the protocol tells from text, its JSON is text,
/// and it has no arrays.
#[test]
fn mariadb_conforms() {
    let place = Place::new("mariadb", mariadb());
    conforms(|| Database(Arc::clone(&place)), &[UUID, JSON, ARRAY]);
}

/// It has neither UUIDs nor arrays.
#[test]
fn mysql_conforms_where_it_is_there() {
    let Some(server) = mysql() else { return };
    let place = Place::new("mysql", server);
    conforms(|| Database(Arc::clone(&place)), &[UUID, ARRAY]);
}
