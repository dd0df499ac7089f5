//! A server that follows another one, until it is promoted.

use millpond::runtime::block_on;
use millpond::{Cause, Driver, Role};
use millpond_harness::Server;

use super::{pool_at, refused_at_once};

/// A standby whose primary never comes.
pub(super) fn standby() -> Server {
    let server = Server::postgres().start();
    server.sql(
        "DO $$ BEGIN EXECUTE format('COPY (SELECT) TO %L', \
         current_setting('data_directory') || '/standby.signal'); END $$",
    );
    server.restart();
    server
}

#[test]
fn a_role_is_known_without_asking_and_follows_a_promotion() {
    let server = standby();
    block_on(async {
        let pool = pool_at(&server.url_with("target_session_attrs=standby"), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        assert!(conn.in_hot_standby());
        let status = pool.driver().status(&mut conn).await.unwrap();
        assert_eq!((status.role, status.writable), (Role::Replica, Some(false)));
        assert!(status.position.is_some_and(|position| position > 0));
        let error = conn.query("CREATE TABLE never (n int)", &[]).await.unwrap_err();
        assert_eq!(error.cause(), Cause::WrongRole, "{error:?}");
        let error = refused_at_once(&server.url_with("target_session_attrs=read-write")).await;
        assert!(!error.is_permanent(), "a promotion may come: {error}");

        conn.query("SELECT pg_promote()", &[]).await.unwrap();
        // The server tells it with the first answer after the promotion.
        conn.query("SELECT 1", &[]).await.unwrap();
        assert!(!conn.in_hot_standby());
        let status = pool.driver().status(&mut conn).await.unwrap();
        assert_eq!((status.role, status.writable), (Role::Primary, Some(true)));
        conn.query("CREATE TABLE once (n int)", &[]).await.unwrap();
    });
}
