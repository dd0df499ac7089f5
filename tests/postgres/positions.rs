//! What a server says of its place in a cluster, to whom, and how one's own
//! writes are found again on another node.

use millpond::drivers::postgres::PostgresConnection;
use millpond::runtime::block_on;
use millpond::{Driver, ErrorKind, NodeStatus, Position, Role, Session};
use millpond_harness::Server;

use super::*;

/// The URL of one who may log in, and nothing else.
pub(super) fn of_an_ordinary_user(server: &Server) -> String {
    server.sql("CREATE ROLE ordinary LOGIN PASSWORD 'ordinary'");
    let login = format!("{}:{}@", server.user(), server.password());
    server.url().replace(&login, "ordinary:ordinary@")
}

async fn status(pool: &Pool<Postgres>) -> NodeStatus {
    let mut conn = pool.acquire().await.unwrap();
    pool.driver().status(&mut conn).await.unwrap()
}

async fn write(pool: &Pool<Postgres>, conn: &mut PostgresConnection) {
    pool.driver().query(conn, "INSERT INTO written VALUES (1)", &[]).await.unwrap();
}

#[test]
fn an_ordinary_user_learns_the_timeline_and_the_cluster() {
    let server = Server::postgres().start();
    let url = of_an_ordinary_user(&server);
    block_on(async {
        let pool = pool_at(&url, 1).await;
        let told = status(&pool).await;
        assert_eq!((told.role, told.writable, told.timeline), (Role::Primary, Some(true), Some(1)));
        let id = server.sql("SELECT system_identifier FROM pg_control_system()");
        assert_eq!(told.cluster.as_deref(), Some(&*id[0][0]));
        assert!(told.position.is_some_and(|position| position > 0));
    });
}

#[test]
fn a_cluster_that_may_not_be_known_hides_nothing_else() {
    let server = Server::postgres().start();
    let url = of_an_ordinary_user(&server);
    for database in [server.database(), "postgres"] {
        server.sql_in(database, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
    }
    block_on(async {
        let pool = pool_at(&url, 1).await;
        for _ in 0..2 {
            let told = status(&pool).await;
            assert_eq!((told.role, told.timeline), (Role::Primary, Some(1)));
            assert_eq!((told.writable, told.cluster), (Some(true), None));
        }
        // A refusal would fail the transaction.
        let pool = pool_at(&url, 1).await;
        let mut conn = pool.acquire().await.unwrap();
        pool.driver().begin(&mut conn, &Default::default()).await.unwrap();
        pool.driver().status(&mut conn).await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::InTransaction);
    });
}

/// Aurora has no log of PostgreSQL's kind, and fails where it is asked for it.
#[test]
fn a_server_that_does_not_tell_of_its_log_tells_its_role() {
    let server = Server::postgres().start();
    let url = of_an_ordinary_user(&server);
    for function in ["pg_last_wal_receive_lsn", "pg_current_wal_lsn", "pg_current_wal_insert_lsn"] {
        for database in [server.database(), "postgres"] {
            let sql = format!("REVOKE EXECUTE ON FUNCTION {function}() FROM PUBLIC");
            server.sql_in(database, &sql);
        }
    }
    block_on(async {
        let pool = pool_at(&url, 2).await;
        let mut fresh = pool.acquire().await.unwrap();
        let told = pool.driver().position(&mut fresh).await;
        assert_eq!(told.unwrap_err().kind(), ErrorKind::Unsupported);
        let mut conn = pool.acquire().await.unwrap();
        for _ in 0..2 {
            let told = pool.driver().status(&mut conn).await.unwrap();
            assert_eq!((told.role, told.writable), (Role::Primary, Some(true)));
            assert_eq!((told.position, told.timeline, told.cluster), (None, None, None));
        }
        let place = Position::new("0/1");
        let reached = pool.driver().reached(&mut conn, &place, Duration::MAX).await;
        assert_eq!(reached.unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(pool.driver().session(&conn), Session::Clean);
    });
}

#[test]
fn a_server_that_refuses_writes_says_so_whatever_the_session_is_set_to() {
    let server = Server::postgres().start();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        let driver = pool.driver();
        for (setting, writable) in [("off", true), ("on", false), ("off", true)] {
            let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {setting}");
            conn.query(&sql, &[]).await.unwrap();
            conn.query("SELECT pg_reload_conf()", &[]).await.unwrap();
            let shown = || server.sql("SHOW default_transaction_read_only")[0][0] == setting;
            until(shown).await;
            for by_us in [false, true, false] {
                driver.set_read_only(&mut conn, by_us).await.unwrap();
                let told = driver.status(&mut conn).await.unwrap();
                assert_eq!(told.writable, Some(writable), "{setting}, by us: {by_us}");
            }
        }
    });
}

#[test]
fn what_a_session_has_committed_is_before_its_position() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("CREATE TABLE written (n int)").await.unwrap();
        for setting in ["on", "off"] {
            // Without it nothing has been written when the commit is answered.
            conn.batch(&format!("SET synchronous_commit = {setting}")).await.unwrap();
            let before = pool.driver().position(&mut conn).await.unwrap();
            write(&pool, &mut conn).await;
            let after = pool.driver().position(&mut conn).await.unwrap();
            let sql = format!("SELECT '{after}'::pg_lsn > '{before}'::pg_lsn");
            assert!(conn.query(&sql, &[]).await.unwrap().scalar::<bool>().unwrap(), "{sql}");
            assert!(pool.driver().reached(&mut conn, &after, Duration::ZERO).await.unwrap());
        }
        conn.batch("DROP TABLE written").await.unwrap();
    });
}

/// The place of the next record is behind the header of its page, and a standby
/// hears of no header before there is a record.
#[test]
fn nothing_after_a_position_has_to_be_written_for_it_to_be_reached() {
    let server = Server::postgres().start();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.query("SELECT pg_switch_wal()", &[]).await.unwrap();
        let position = pool.driver().position(&mut conn).await.unwrap();
        let sql = format!("SELECT '{position}' <= pg_current_wal_flush_lsn()");
        assert!(conn.query(&sql, &[]).await.unwrap().scalar::<bool>().unwrap(), "{sql}");
    });
}

#[test]
fn a_position_that_a_primary_has_not_written_is_not_waited_for() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let lost = Position::new("FFFFFFFF/0");
        assert!(!pool.driver().reached(&mut conn, &lost, Duration::MAX).await.unwrap());
        let error =
            pool.driver().reached(&mut conn, &Position::new("gtid"), LONG).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_eq!(pool.driver().session(&conn), Session::Clean);
    });
}
