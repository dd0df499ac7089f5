//! What a pooler between client and server changes. Without PgBouncer these tests
//! say so, and end.

use millpond::{Driver, ErrorKind, Role};
use millpond_harness::Server;

use super::*;

/// PgBouncer, which gives all its clients one session of the server for one
/// transaction each, and the server.
fn in_front() -> Option<(Server, Server)> {
    let server = Server::postgres().start();
    let bouncer = Server::pgbouncer(server.address())?
        .setting("pool_mode", "transaction")
        .setting("default_pool_size", 1)
        .start();
    Some((bouncer, server))
}

#[test]
fn a_session_that_is_shared_is_not_made_to_refuse_writes() {
    let Some((bouncer, _server)) = in_front() else { return };
    block_on(async {
        let pool = pool_at(&bouncer.url(), 2).await;
        let driver = pool.driver();
        let mut conn = pool.acquire().await.unwrap();
        for _ in 0..2 {
            let error = driver.set_read_only(&mut conn, true).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            let setting = bouncer.sql("SHOW default_transaction_read_only");
            assert_eq!(setting, [["off"]], "others have the same session");
        }
        driver.set_read_only(&mut conn, false).await.unwrap();
        assert_eq!(driver.session(&conn), millpond::Session::Clean);
    });
}

/// A session that was made to refuse writes is given to others, who took the
/// server for one that takes none.
#[test]
fn what_somebody_else_has_set_is_not_the_setting_of_the_server() {
    let Some((bouncer, server)) = in_front() else { return };
    block_on(async {
        let pool = pool_at(&bouncer.url(), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        for setting in ["on", "off", "on"] {
            bouncer.sql(&format!("SET default_transaction_read_only = {setting}"));
            assert_eq!(bouncer.sql("SHOW transaction_read_only"), [[setting]]);
            let told = pool.driver().status(&mut conn).await.unwrap();
            assert_eq!((told.role, told.writable), (Role::Primary, Some(true)), "{setting}");
        }
        assert_eq!(server.sessions("test"), 1);
    });
}

/// PgBouncer tells a client what some server told it once, which a failover does
/// not change.
#[test]
fn what_a_pooler_tells_of_the_role_is_not_believed() {
    let Some((bouncer, server)) = in_front() else { return };
    block_on(async {
        let wanted = bouncer.url_with("target_session_attrs=standby");
        let driver = Postgres::from_url(&server.url()).expect("a good URL");
        let straight = Pool::builder(driver).build().await.unwrap();
        let conn = straight.acquire().await.unwrap();
        assert_eq!(straight.driver().role(&conn), Some(Role::Primary));
        let pool = pool_at(&bouncer.url(), 1).await;
        for _ in 0..2 {
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((pool.driver().role(&conn), conn.in_hot_standby()), (None, false));
            pool.driver().status(&mut conn).await.unwrap();
        }
        // The pooler itself may say so for ever; the server is asked.
        let error = refused_at_once(&wanted).await;
        assert_eq!(error.cause(), millpond::Cause::WrongRole, "{error:?}");
    });
}
