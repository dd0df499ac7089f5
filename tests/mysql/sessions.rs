//! What a session is set up with, keeps and forgets.

use std::pin::pin;

use futures_util::StreamExt;
use millpond::drivers::mysql::mysql_async::prelude::Queryable;
use millpond::{Driver, IsolationLevel, Reset, Role, Session, TransactionOptions};
#[cfg(feature = "tokio")]
use millpond::{Fate, Outcome};

use super::*;

const SETTINGS: &str =
    "SELECT CONCAT_WS(' ', @@time_zone, IF(@@autocommit, 1, 0), @@character_set_client,
     @@character_set_results, DATABASE())";

#[test]
fn a_session_begins_in_utc_and_utf8_and_returns_there() {
    block_on(async {
        // The server's own defaults are others.
        let server = millpond_harness::Server::mariadb()
            .setting("default-time-zone", "+05:00")
            .setting("character-set-server", "latin1")
            .setting("autocommit", 0)
            .start();
        let pool = pool_at(&server.url(), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        let settings = async |conn: &mut millpond::PooledConnection<Mysql>| {
            conn.query(SETTINGS, &[]).await.unwrap().scalar::<String>().unwrap()
        };
        let begun = settings(&mut conn).await;
        assert_eq!(begun, format!("+00:00 1 utf8mb4 utf8mb4 {}", server.database()));
        conn.batch("CREATE TEMPORARY TABLE mine (n INT)").await.unwrap();
        conn.batch("SET time_zone = '+02:00'; SET @mine = 1; USE mysql").await.unwrap();
        pool.driver().set_read_only(&mut conn, true).await.unwrap();
        pool.driver().reset(&mut conn, Reset::Session).await.unwrap();
        assert_eq!(settings(&mut conn).await, begun);
        let mine = conn.query("SELECT @mine", &[]).await.unwrap();
        assert_eq!(mine.scalar::<Option<i64>>().unwrap(), None);
        conn.query("SELECT * FROM mine", &[]).await.expect_err("the table is gone");
        conn.query("CREATE TABLE written (n INT)", &[]).await.expect_err("still read-only");
    });
}

#[test]
fn a_transaction_has_its_isolation_level_and_the_next_does_not() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("CREATE OR REPLACE TABLE isolated (n INT) ENGINE = InnoDB").await.unwrap();
        // A level that shows: it reads what others have committed since.
        let other = self::pool(1).await;
        let own = TransactionOptions::new();
        let committed = own.clone().isolation(IsolationLevel::ReadCommitted);
        for (options, seen) in [(committed, 1), (own, 0)] {
            conn.query("DELETE FROM isolated", &[]).await.unwrap();
            pool.driver().begin(&mut conn, &options).await.unwrap();
            let count = "SELECT count(*) FROM isolated";
            assert_eq!(conn.query(count, &[]).await.unwrap().scalar::<i64>().unwrap(), 0);
            other.query("INSERT INTO isolated VALUES (1)", &[]).await.unwrap();
            let now = conn.query(count, &[]).await.unwrap().scalar::<i64>().unwrap();
            assert_eq!(now, seen, "{options:?}");
            pool.driver().commit(&mut conn).await.unwrap();
        }
    });
}

#[test]
fn of_several_sets_of_rows_the_first_is_returned_and_the_connection_is_in_step() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("DROP PROCEDURE IF EXISTS several").await.unwrap();
        conn.query("CREATE PROCEDURE several() BEGIN SELECT 1 AS a; SELECT 2 AS b; END", &[])
            .await
            .unwrap();
        for params in [vec![], millpond::params![5].to_vec()] {
            let sql = if params.is_empty() { "CALL several()" } else { "SELECT ?" };
            let rows = conn.query(sql, &params).await.unwrap();
            assert_eq!(rows.len(), 1);
            assert_eq!(pool.driver().session(&conn), Session::Clean);
        }
        {
            let mut rows = pin!(conn.query_stream("CALL several()", &[]));
            assert_eq!(rows.next().await.unwrap().unwrap().get::<i64>("a").unwrap(), 1);
            assert!(rows.next().await.is_none(), "the first set only");
        }
        assert_eq!(conn.query("SELECT 7", &[]).await.unwrap().scalar::<i64>().unwrap(), 7);
    });
}

#[test]
fn a_batch_stops_at_the_statement_that_fails() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("CREATE OR REPLACE TABLE batched (n INT PRIMARY KEY)").await.unwrap();
        let insert = "INSERT INTO batched VALUES";
        let sql = format!("{insert} (1); {insert} (2); {insert} (1); {insert} (3)");
        let error = conn.batch(&sql).await.unwrap_err();
        assert!(error.to_string().ends_with("(1062)"), "{error}");
        // Any of them might have begun a transaction.
        assert_eq!(pool.driver().session(&conn), Session::Unverified);
        let id = conn.id();
        drop(conn);
        let mut conn = pool.acquire().await.unwrap();
        let rows = conn.query("SELECT count(*) FROM batched", &[]).await.unwrap();
        assert_eq!((rows.scalar::<i64>().unwrap(), conn.id()), (2, id));
    });
}

#[test]
fn a_stream_takes_rows_as_they_are_asked_for() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        // Far more than fits between server and client.
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
             SELECT i, REPEAT('x', 1000) FROM n WHERE i > ?";
        {
            let params = millpond::params![0];
            let mut rows = pin!(conn.query_stream(sql, &params));
            assert_eq!(rows.next().await.unwrap().unwrap().get::<i64>(0).unwrap(), 1);
        }
        assert_eq!(pool.driver().session(&conn), Session::Busy);
        drop(conn);
        let rows = pool.query("SELECT 7", &[]).await.unwrap();
        assert_eq!(rows.scalar::<i64>().unwrap(), 7);
    });
}

#[test]
fn a_node_tells_its_role() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let server = conn.server();
        assert_eq!(server.system, "mariadb");
        assert!(server.version.contains("MariaDB"), "{}", server.version);
        let status = pool.driver().status(&mut conn).await.unwrap();
        assert_eq!((status.role, status.writable), (Role::Primary, Some(true)));
    });
}

/// Each test of a program has its own runtime, and they share a pool.
#[cfg(feature = "tokio")]
#[test]
fn nobody_meets_a_connection_whose_runtime_has_ended() {
    let on_its_own =
        || ::tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (pool, kept) = on_its_own().block_on(async {
        let pool = pool(2).await;
        let kept = pool.acquire().await.unwrap();
        (pool, kept)
    });
    let session = pool.driver().session(&kept);
    assert_eq!(session, Session::Closed);
    on_its_own().block_on(async move {
        let mut kept = kept;
        let error = kept.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!((error.outcome(), error.fate()), (Outcome::NotSent, Fate::Discard), "{error}");
    });
    for number in 0..3 {
        on_its_own().block_on(async {
            for _ in 0..4 {
                let rows = pool.query("SELECT ?", &millpond::params![number]).await.unwrap();
                assert_eq!(rows.scalar::<i64>().unwrap(), number);
            }
        });
    }
}

#[test]
fn a_connection_is_dropped_anywhere_without_a_word() {
    let conn = block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.query("SELECT 1", &[]).await.unwrap();
        conn
    });
    // Outside any runtime.
    drop(conn);
}

/// The next borrower's writes were rolled back when it returned, without a word.
#[test]
fn autocommit_switched_off_is_not_the_next_borrowers() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            pool.batch("DROP TABLE IF EXISTS written_once; CREATE TABLE written_once (n INT)")
                .await
                .unwrap();
            let mut conn = pool.acquire().await.unwrap();
            let id = conn.id();
            conn.batch("SET autocommit = 0; COMMIT").await.unwrap();
            drop(conn);
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!(conn.id(), id);
            conn.query("INSERT INTO written_once VALUES (1)", &[]).await.unwrap();
            drop(conn);
            let rows = pool.query("SELECT count(*) FROM written_once", &[]).await.unwrap();
            assert_eq!(rows.scalar::<i64>().unwrap(), 1);
        });
    }
}

#[test]
fn a_session_without_a_database_returns_to_none() {
    for server in both() {
        block_on(async {
            let (url, database) = (server.url(), server.database());
            let pool = pool_at(url.strip_suffix(&format!("/{database}")).expect("a name"), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            conn.batch("SET @mine = 1; USE mysql").await.unwrap();
            pool.driver().reset(&mut conn, Reset::Session).await.unwrap();
            let rows = conn.query("SELECT CONCAT(COALESCE(@mine, DATABASE()))", &[]).await.unwrap();
            assert_eq!(rows.scalar::<Option<String>>().unwrap(), None);
            let settings = conn.query(SETTINGS, &[]).await.unwrap().scalar::<String>().unwrap();
            assert_eq!(settings, "+00:00 1 utf8mb4 utf8mb4");
        });
    }
}

/// The client takes `:name` for a parameter of its own, and misreads some texts.
#[test]
fn colons_are_only_what_the_server_takes_them_for() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            let id = conn.id();
            conn.batch("SET sql_mode = CONCAT(@@sql_mode, ',NO_BACKSLASH_ESCAPES')").await.unwrap();
            for (sql, text) in [
                ("SELECT CONCAT(':x', ?)", ":x7"),
                ("SELECT CONCAT(TIME '10:30:00', ?)", "10:30:007"),
                ("SELECT /* at:noon */ CONCAT(\":x\", ?)", ":x7"),
                ("SELECT CONCAT(7-'1:x', ?)", "67"),
                ("SELECT CONCAT('\\', ':x', ?, '')", "\\:x7"),
                ("SELECT CONCAT('\\', ?, ':x')", "\\7:x"),
                ("SELECT @n:=?", "7"),
            ] {
                let rows = conn.query(sql, &millpond::params!["7"]).await.expect(sql);
                assert_eq!(rows.scalar::<String>().unwrap(), text, "{sql}");
            }
            for sql in ["SELECT :name", "SELECT :name, ?"] {
                let error = conn.query(sql, &millpond::params!["7"]).await.unwrap_err();
                assert!(error.to_string().ends_with("(1064)"), "{error}");
            }
            assert_eq!(pool.driver().session(&conn), Session::Clean);
            assert_eq!(conn.id(), id);
        });
    }
}

/// A server keeps 16382 of them, for all its users together.
#[test]
fn prepared_statements_that_are_not_kept_are_closed() {
    block_on(async {
        let server = millpond_harness::Server::mariadb().start();
        let pool = pool_at(&server.url_with("statement_cache=0"), 1).await;
        for number in 0..50 {
            pool.query(&format!("SELECT {number} + ?"), &millpond::params![1]).await.unwrap();
        }
        let kept = server.sql("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'");
        assert!(kept[0][1].parse::<u32>().unwrap() < 3, "{kept:?}");
    });
}

/// Behind one name there may be several, and each counts its connections from 1.
#[test]
fn a_statement_is_stopped_on_its_own_server_only() {
    block_on(async {
        let pool = pool(1).await;
        let conn = pool.acquire().await.unwrap();
        let other = millpond_harness::Server::mariadb().start();
        let elsewhere = Mysql::from_url(&other.url()).expect("a good URL");
        let stop = elsewhere.cancel(&conn).expect("it can");
        let error = stop.run().await.unwrap_err();
        assert!(error.to_string().contains("another server"), "{error}");
    });
}

/// The server runs it where it was prepared, and the client found it by its text.
#[test]
fn a_statement_prepared_in_another_database_is_prepared_again() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            for place in ["here", "there"] {
                let sql = format!(
                    "DROP DATABASE IF EXISTS {place}; CREATE DATABASE {place};
                     CREATE TABLE {place}.named (name TEXT); CREATE TABLE {place}.n (n INT);
                     INSERT INTO {place}.named VALUES ('{place}')"
                );
                pool.batch(&sql).await.unwrap();
            }
            let mut conn = pool.acquire().await.unwrap();
            let id = conn.id();
            let named = async |conn: &mut millpond::PooledConnection<Mysql>| {
                let sql = "SELECT name FROM named WHERE name <> ? AND ':a' <> ':b'";
                let rows = conn.query(sql, &millpond::params!["x"]).await.unwrap();
                rows.scalar::<String>().unwrap()
            };
            conn.query("USE here", &[]).await.unwrap();
            assert_eq!(named(&mut conn).await, "here");
            conn.batch("DO 1; use`there`").await.unwrap();
            assert_eq!(named(&mut conn).await, "there");
            conn.query("use here", &[]).await.unwrap();
            assert_eq!(named(&mut conn).await, "here");
            conn.client().query_drop("USE there").await.unwrap();
            assert_eq!(named(&mut conn).await, "there");
            {
                let mut rows = pin!(conn.query_stream("USE here", &[]));
                assert!(rows.next().await.is_none());
            }
            assert_eq!(named(&mut conn).await, "here");
            // Where the server prepares it, which is not everywhere.
            if conn.batch("PREPARE elsewhere FROM 'USE there'").await.is_ok() {
                assert_eq!(named(&mut conn).await, "here");
                conn.batch("EXECUTE elsewhere").await.unwrap();
                assert_eq!(named(&mut conn).await, "there");
            }
            pool.driver().reset(&mut conn, Reset::Session).await.unwrap();
            let sql = "SELECT name FROM named WHERE name <> ?";
            let nowhere = conn.query(sql, &millpond::params!["x"]).await.unwrap_err();
            assert!(nowhere.to_string().ends_with("(1146)"), "{nowhere}");
            assert_eq!(conn.id(), id);
        });
    }
}
