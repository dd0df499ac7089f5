//! A server that follows another one, until it is promoted.

use std::time::Duration;

use futures_util::future::join;
use millpond::runtime::block_on;
use millpond::{Cause, Driver, Position, Role};
use millpond_harness::Server;

use super::positions::of_an_ordinary_user;
use super::{LONG, pool_at, refused_at_once, sleep};

/// A standby whose primary never comes.
pub(super) fn standby() -> Server {
    let server = Server::postgres().start();
    follows_nobody(&server);
    server
}

fn follows_nobody(server: &Server) {
    server.sql(
        "DO $$ BEGIN EXECUTE format('COPY (SELECT) TO %L', \
         current_setting('data_directory') || '/standby.signal'); END $$",
    );
    server.restart();
}

#[test]
fn a_role_is_known_without_asking_and_follows_a_promotion() {
    let server = standby();
    block_on(async {
        let pool = pool_at(&server.url_with("target_session_attrs=standby"), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        assert!(conn.in_hot_standby());
        assert_eq!(pool.driver().role(&conn), Some(Role::Replica));
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
        assert_eq!(pool.driver().role(&conn), Some(Role::Primary));
        let status = pool.driver().status(&mut conn).await.unwrap();
        assert_eq!((status.role, status.writable), (Role::Primary, Some(true)));
        assert_eq!(status.timeline, Some(2), "there has been another primary before");
        conn.query("CREATE TABLE once (n int)", &[]).await.unwrap();
    });
}

#[test]
fn an_ordinary_user_learns_whom_a_standby_belongs_to_and_not_its_timeline() {
    let server = Server::postgres().start();
    let url = of_an_ordinary_user(&server);
    let id = server.sql("SELECT system_identifier FROM pg_control_system()");
    follows_nobody(&server);
    block_on(async {
        let pool = pool_at(&url, 1).await;
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(pool.driver().role(&conn), Some(Role::Replica));
        let status = pool.driver().status(&mut conn).await.unwrap();
        assert_eq!((status.role, status.timeline), (Role::Replica, None));
        assert_eq!(status.cluster.as_deref(), Some(&*id[0][0]));
    });
}

/// All that it has received is replayed, which says nothing of what it has not.
#[test]
fn a_standby_that_receives_nothing_does_not_say_how_far_it_is_behind() {
    let primary = Server::postgres().replicated().start();
    let ordinary = of_an_ordinary_user(&primary);
    let replica = primary.replica();
    let urls =
        [replica.url(), ordinary.replace(&primary.port().to_string(), &replica.port().to_string())];
    block_on(async {
        let mut conns = Vec::new();
        for url in urls {
            let pool = pool_at(&url, 1).await;
            let conn = pool.acquire().await.unwrap();
            conns.push((pool, conn));
        }
        for receives in [true, false] {
            if !receives {
                primary.stop();
            }
            for (pool, conn) in &mut conns {
                let mut tries = 0..2000;
                loop {
                    let told = pool.driver().status(conn).await.unwrap();
                    assert_eq!(told.role, Role::Replica);
                    if told.lag_bytes == receives.then_some(0) {
                        break;
                    }
                    assert!(tries.next().is_some(), "{told:?}, receives: {receives}");
                    sleep(Duration::from_millis(5)).await;
                }
            }
        }
    });
}

#[test]
fn a_standby_waits_for_what_it_has_not_replayed_until_it_is_promoted() {
    let server = standby();
    block_on(async {
        let pool = pool_at(&server.url(), 2).await;
        let mut conn = pool.acquire().await.unwrap();
        let driver = pool.driver();
        let runtime = millpond::runtime::current().expect("inside block_on");
        let replayed = driver.position(&mut conn).await.unwrap();
        assert!(driver.reached(&mut conn, &replayed, Duration::ZERO).await.unwrap());

        let never = Position::new("FFFFFFFF/0");
        assert!(!driver.reached(&mut conn, &never, Duration::ZERO).await.unwrap());
        let (start, limit) = (runtime.now(), Duration::from_millis(100));
        assert!(!driver.reached(&mut conn, &never, limit).await.unwrap());
        let waited = runtime.now() - start;
        assert!(waited >= limit && waited < LONG, "{waited:?}");

        // A primary is not waited for: what it has lost does not come.
        let promotion = async {
            sleep(Duration::from_millis(50)).await;
            pool.query("SELECT pg_promote()", &[]).await.unwrap();
        };
        let (reached, ()) = join(driver.reached(&mut conn, &never, LONG * 9), promotion).await;
        assert!(!reached.unwrap());
        assert!(runtime.now() - start < LONG, "{:?}", runtime.now() - start);
    });
}
