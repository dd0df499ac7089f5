//! What a borrower may do with the client, and what the next one gets.

use std::pin::pin;
use std::task::Poll;

use futures_util::{StreamExt, poll};
use millpond::drivers::mysql::mysql_async::ChangeUserOpts;
use millpond::drivers::mysql::mysql_async::prelude::Queryable;
use millpond::{Driver, Fate, PooledConnection, Reset, Session};

use super::*;

/// Asks the client for a number, and goes away before the answer is there.
async fn abandon(conn: &mut PooledConnection<Mysql>, number: i64) {
    let sql = format!("SELECT IF(SLEEP(0.02), 0, {number})");
    let mut query = pin!(conn.client().query_drop(sql));
    assert!(matches!(poll!(query.as_mut()), Poll::Pending), "no answer is there at once");
}

async fn answer(conn: &mut PooledConnection<Mysql>, number: i64) -> millpond::Result<i64> {
    conn.query("SELECT ?", &millpond::params![number]).await?.scalar()
}

#[test]
fn native_use_in_order_keeps_the_connection() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            let id = conn.id();
            let seven: Option<i64> = conn.client().query_first("SELECT 7").await.unwrap();
            assert_eq!(seven, Some(7));
            assert_eq!(pool.driver().session(&conn), Session::Unverified);
            // A transaction begun natively is rolled back on the way to the next.
            conn.client().query_drop("BEGIN").await.unwrap();
            drop(conn);
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!(pool.driver().session(&conn), Session::Clean);
            assert_eq!((conn.id(), answer(&mut conn, 8).await.unwrap()), (id, 8));
        });
    }
}

#[test]
fn the_driver_trusts_a_lent_client_only_after_proof_and_keeps_its_transaction() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            conn.client().query_drop("BEGIN").await.unwrap();
            assert_eq!(answer(&mut conn, 7).await.unwrap(), 7);
            assert_eq!(pool.driver().session(&conn), Session::InTransaction);
        });
    }
}

#[test]
fn a_session_of_another_user_is_nobody_elses() {
    block_on(async {
        let sql =
            "CREATE OR REPLACE USER tenant IDENTIFIED BY 'tenant'; GRANT ALL ON *.* TO tenant";
        mariadb().sql(sql);
        let pool = pool(1).await;
        let user = async |conn: &mut PooledConnection<Mysql>| {
            let rows = conn.query("SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)", &[]).await;
            rows.unwrap().scalar::<String>().unwrap()
        };
        let mut conn = pool.acquire().await.unwrap();
        let own = user(&mut conn).await;
        let tenant = ChangeUserOpts::new()
            .with_user(Some("tenant".to_owned()))
            .with_pass(Some("tenant".to_owned()));
        conn.client().change_user(tenant).await.unwrap();
        // Who logged in may go on, and the next one is who the pool says.
        assert_eq!(user(&mut conn).await, "tenant");
        drop(conn);
        assert_eq!(user(&mut pool.acquire().await.unwrap()).await, own);
    });
}

/// The client answers the next questions with what it was asked before, and
/// looks well: a ping succeeds. Whoever comes next must not meet that.
#[test]
fn futures_dropped_natively_are_nobody_elses_answers() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            for dropped in 1..4 {
                for used_after in [false, true] {
                    let mut conn = pool.acquire().await.unwrap();
                    for number in 0..dropped {
                        abandon(&mut conn, number).await;
                    }
                    if used_after {
                        let wrong: Result<Option<i64>, _> =
                            conn.client().query_first("SELECT 77").await;
                        assert_ne!(wrong.ok().flatten(), Some(77), "the client has lost its place");
                    }
                    drop(conn);
                    let mut conn = pool.acquire().await.unwrap();
                    assert_eq!(answer(&mut conn, 99).await.unwrap(), 99);
                }
            }
            let now = pool.snapshot();
            assert_eq!((now.in_use, now.open), (0, 1), "{now}");
        });
    }
}

#[test]
fn the_driver_refuses_a_client_that_lost_its_place() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            abandon(&mut conn, 1).await;
            assert_eq!(pool.driver().session(&conn), Session::Busy);
            assert_eq!(answer(&mut conn, 7).await.unwrap_err().fate(), Fate::Discard);
            // The client itself hides it now.
            let wrong: Option<i64> = conn.client().query_first("SELECT 2").await.unwrap();
            assert_eq!(wrong, Some(1));
            assert_eq!(answer(&mut conn, 7).await.unwrap_err().fate(), Fate::Discard);
        });
    }
}

#[test]
fn an_answer_left_unread_natively_is_read_before_the_next_borrower() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            let id = conn.id();
            let mut result =
                conn.client().query_iter("SELECT 1 UNION SELECT 2; SELECT 3").await.unwrap();
            let first: Option<i64> = result
                .stream::<i64>()
                .await
                .unwrap()
                .expect("rows")
                .next()
                .await
                .transpose()
                .unwrap();
            assert_eq!(first, Some(1));
            drop(result);
            drop(conn);
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), answer(&mut conn, 9).await.unwrap()), (id, 9));
        });
    }
}

#[test]
fn no_reset_brings_a_marked_connection_back() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            for to in [Reset::Boundary, Reset::Session] {
                let mut conn = pool.acquire().await.unwrap();
                {
                    let mut query = pin!(conn.query("SELECT SLEEP(0.02)", &[]));
                    assert!(poll!(query.as_mut()).is_pending());
                }
                assert_eq!(pool.driver().session(&conn), Session::Busy);
                pool.driver().reset(&mut conn, to).await.expect_err("it owes an answer");
                conn.discard();
            }
            let mut conn = pool.acquire().await.unwrap();
            abandon(&mut conn, 1).await;
            let _ = conn.client().ping().await;
            pool.driver().reset(&mut conn, Reset::Session).await.expect_err("it lost its place");
        });
    }
}

/// The client's own reset undoes what the driver sets up in each session.
#[test]
fn a_session_reset_natively_is_set_up_again_for_the_next_borrower() {
    block_on(async {
        let server = millpond_harness::Server::mariadb()
            .setting("default-time-zone", "+05:00")
            .setting("character-set-server", "latin1")
            .start();
        let pool = pool_at(&server.url(), 1).await;
        let settings = async |conn: &mut PooledConnection<Mysql>| {
            let sql = "SELECT CONCAT_WS(' ', @@time_zone, IF(@@autocommit, 1, 0),
                 @@character_set_client, IF(@@tx_read_only, 1, 0))";
            conn.query(sql, &[]).await.unwrap().scalar::<String>().unwrap()
        };
        let id = pool.acquire().await.unwrap().id();
        for read_only in [false, true] {
            for (login, used_after) in [(false, false), (false, true), (true, false), (true, true)]
            {
                let mut conn = pool.acquire().await.unwrap();
                pool.driver().set_read_only(&mut conn, read_only).await.unwrap();
                let begun = settings(&mut conn).await;
                assert_eq!(begun, format!("+00:00 1 utf8mb4 {}", i32::from(read_only)));
                match login {
                    false => assert!(conn.client().reset().await.unwrap()),
                    true => conn.client().change_user(ChangeUserOpts::new()).await.unwrap(),
                }
                if used_after {
                    // What the borrower did is the borrower's.
                    assert_ne!(settings(&mut conn).await, begun);
                    assert_ne!(pool.driver().session(&conn), Session::Clean);
                }
                drop(conn);
                let mut conn = pool.acquire().await.unwrap();
                assert_eq!((settings(&mut conn).await, conn.id()), (begun, id));
                assert_eq!(pool.driver().session(&conn), Session::Clean);
            }
        }
    });
}
