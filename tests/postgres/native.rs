//! What native use leaves behind, and what comes unasked.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, poll_fn, select};
use futures_util::{FutureExt, SinkExt, StreamExt};
use millpond::drivers::postgres::{Postgres, error};
use millpond::runtime::{Runtime, block_on, current};
use millpond::{Cause, Driver, Pool, Reset, Session, params};
use millpond_harness::{Proxy, postgres};

use super::odd::{Odd, connected};
use super::{pool, pool_at, sleep, until};

/// Everybody gets their own row.
async fn own_row(pool: &Pool<Postgres>) {
    for number in 0..3 {
        let rows = pool.query("SELECT $1::int", &params![number]).await.unwrap();
        assert_eq!(rows.scalar::<i64>().unwrap(), number, "somebody else's row");
    }
}

#[test]
fn a_session_used_natively_is_proved_clean_without_a_reset() {
    block_on(async {
        let pool = pool(1).await;
        let conn = pool.acquire().await.unwrap();
        for _ in 0..100 {
            conn.client().query("SELECT 1", &[]).await.unwrap();
            // The task may not be asleep yet.
            let driver = pool.driver();
            let mut told = driver.session(&conn);
            while told == Session::Unverified {
                sleep(Duration::from_micros(100)).await;
                told = driver.session(&conn);
            }
            assert_eq!(told, Session::Clean);
        }
    });
}

/// The request is in the client's queue, and nobody has seen it yet.
#[test]
fn a_native_statement_dropped_before_it_was_sent_is_not_called_clean() {
    block_on(async {
        let pool = pool(1).await;
        for _ in 0..20 {
            let conn = pool.acquire().await.unwrap();
            let id = conn.id();
            assert!(conn.client().simple_query("SELECT pg_sleep(600)").now_or_never().is_none());
            let told = pool.driver().session(&conn);
            assert!(matches!(told, Session::Busy | Session::Unverified), "{told:?}");
            drop(conn);
            own_row(&pool).await;
            assert_eq!(pool.acquire().await.unwrap().id(), id, "it was closed, not settled");
        }
    });
}

#[test]
fn a_native_transaction_that_is_dropped_is_undone() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE TABLE undone (n int)").await.unwrap();
        for begins in [true, false] {
            let mut conn = pool.acquire().await.unwrap();
            if begins {
                let transaction = conn.client_mut().transaction().await.unwrap();
                transaction.batch_execute("INSERT INTO undone VALUES (1)").await.unwrap();
            } else {
                conn.client().batch_execute("BEGIN; INSERT INTO undone VALUES (1)").await.unwrap();
            }
            drop(conn);
            let rows = pool.query("SELECT count(*) FROM undone", &[]).await.unwrap();
            assert_eq!(rows.scalar::<i64>().unwrap(), 0);
        }
        pool.batch("DROP TABLE undone").await.unwrap();
    });
}

#[test]
fn a_copy_works_and_one_half_done_leaves_nothing() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE TABLE copied (n int)").await.unwrap();
        for finishes in [true, false] {
            let conn = pool.acquire().await.unwrap();
            {
                let sink = conn.client().copy_in("COPY copied FROM STDIN").await.unwrap();
                let mut sink = pin!(sink);
                let data: &'static [u8] = b"1\n2\n";
                sink.send(data).await.unwrap();
                assert_ne!(pool.driver().session(&conn), Session::Clean);
                if finishes {
                    assert_eq!(sink.finish().await.unwrap(), 2);
                }
            }
            drop(conn);
            own_row(&pool).await;
            let rows = pool.query("SELECT count(*) FROM copied", &[]).await.unwrap();
            assert_eq!(rows.scalar::<i64>().unwrap(), 2);
        }
        let conn = pool.acquire().await.unwrap();
        let sql = "COPY (SELECT generate_series(1, 100000)) TO STDOUT";
        let mut rows = Box::pin(conn.client().copy_out(sql).await.unwrap());
        rows.next().await.expect("a piece").unwrap();
        drop(rows);
        drop(conn);
        own_row(&pool).await;
        pool.batch("DROP TABLE copied").await.unwrap();
    });
}

#[test]
fn a_copy_that_needs_the_client_is_refused_with_the_way_round() {
    block_on(async {
        let pool = pool(1).await;
        let error = pool.query("COPY pg_class TO STDOUT", &[]).await.unwrap_err();
        assert!(error.to_string().contains("copy_out of conn.client()"), "{error}");
        own_row(&pool).await;
        // The client itself gives up here, and the connection with it.
        pool.batch("COPY pg_class TO STDOUT").await.unwrap_err();
        own_row(&pool).await;
    });
}

#[test]
fn a_statement_left_running_is_stopped_on_the_server() {
    let server = postgres();
    let url = server.new_database("left_running");
    block_on(async {
        let pool = pool_at(&url, 4).await;
        for natively in [true, false] {
            let mut conn = pool.acquire().await.unwrap();
            {
                let sql = "SELECT pg_sleep(600)";
                let running = if natively {
                    conn.client().simple_query(sql).map(drop).boxed()
                } else {
                    conn.query(sql, &[]).map(drop).boxed()
                };
                let begun = pin!(until(|| server.running("left_running") == 1));
                let first = select(running, begun).await;
                assert!(matches!(first, Either::Right(_)), "it ended");
            }
            drop(conn);
            until(|| server.running("left_running") == 0).await;
            own_row(&pool).await;
        }
    });
}

/// Also through TLS, and to the socket it came from.
#[test]
fn a_cancel_goes_to_the_server_it_belongs_to() {
    let server = postgres();
    let folder = server.socket_folder().display().to_string();
    let socket = format!("host={folder}&port={}", server.port());
    for url in [server.url_with("sslmode=disable"), server.url(), server.url_with(&socket)] {
        block_on(async {
            let pool = pool_at(&url, 1).await;
            let mut conn = pool.acquire().await.unwrap();
            let id = conn.id();
            assert!(conn.query("SELECT pg_sleep(600)", &[]).now_or_never().is_none());
            drop(conn);
            own_row(&pool).await;
            assert_eq!(pool.acquire().await.unwrap().id(), id);
        });
    }
}

#[test]
fn notifications_come_until_the_connection_ends() {
    let server = postgres();
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let mut earlier = conn.notifications();
        let mut notifications = conn.notifications();
        assert!(earlier.next().await.is_none(), "one stream for a connection");
        conn.batch("LISTEN orders").await.unwrap();
        server.sql("NOTIFY orders, 'first'; NOTIFY orders, 'second'");
        for payload in ["first", "second"] {
            let notification = notifications.next().await.expect("a notification").unwrap();
            assert_eq!((notification.channel(), notification.payload()), ("orders", payload));
        }
        let pid = conn.query("SELECT pg_backend_pid()", &[]).await.unwrap();
        server.sql(&format!("SELECT pg_terminate_backend({})", pid.scalar::<i64>().unwrap()));
        let error = notifications.next().await.expect("the end").unwrap_err();
        assert_eq!(error.cause(), Cause::Shutdown, "{error:?}");
        assert!(notifications.next().await.is_none());
    });
}

#[test]
fn notifications_that_nobody_reads_are_given_up() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let notifications = conn.notifications();
        conn.batch("LISTEN flood").await.unwrap();
        let flood = "SELECT pg_notify('flood', n::text) FROM generate_series(1, 2000) AS n";
        conn.query(flood, &[]).await.unwrap();
        own_row_on(&mut conn).await;
        let all: Vec<_> = notifications.collect().await;
        assert_eq!(all.len(), 1025);
        assert!(all[1024].as_ref().unwrap_err().to_string().contains("behind"));
    });
}

async fn own_row_on(conn: &mut millpond::PooledConnection<Postgres>) {
    let rows = conn.query("SELECT 7", &[]).await.unwrap();
    assert_eq!(rows.scalar::<i64>().unwrap(), 7);
}

#[test]
fn many_statements_in_the_queue_are_all_waited_for() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        for _ in 0..100 {
            // Seldom is one answered already.
            drop(conn.client().simple_query("SELECT 1").now_or_never());
        }
        pool.driver().reset(&mut conn, Reset::Boundary).await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::Clean);
        own_row_on(&mut conn).await;
        assert_eq!(
            error(conn.client().query("SELEC", &[]).await.unwrap_err()).cause(),
            Cause::Caller
        );
    });
}

/// More than the socket takes at once, so part of it stays behind in the client.
#[test]
fn a_large_statement_that_is_dropped_is_not_called_clean() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let text = "x".repeat(32 << 20);
        let sql = "SELECT length($1::text), pg_sleep(0.05)";
        let params = params![&*text];
        for polls in 1..20 {
            {
                let mut query = pin!(conn.query(sql, &params));
                let mut left = polls;
                poll_fn(|cx| match query.as_mut().poll(cx) {
                    std::task::Poll::Pending if left > 0 => {
                        left -= 1;
                        cx.waker().wake_by_ref();
                        std::task::Poll::Pending
                    }
                    _ => std::task::Poll::Ready(()),
                })
                .await;
            }
            if pool.driver().session(&conn) != Session::Clean {
                pool.driver().reset(&mut conn, Reset::Boundary).await.unwrap();
            }
            own_row_on(&mut conn).await;
        }
    });
}

/// It is looked at, as by `Debug`, while somebody holds the client.
#[test]
fn a_session_that_is_looked_at_stays_lent() {
    block_on(async {
        let pool = pool(1).await;
        let conn = pool.acquire().await.unwrap();
        let client = conn.client();
        client.batch_execute("SELECT 1").await.unwrap();
        until(|| pool.driver().session(&conn) == Session::Clean).await;
        drop(client.batch_execute("BEGIN").now_or_never());
        assert_ne!(pool.driver().session(&conn), Session::Clean);
        drop(conn);
        let conn = pool.acquire().await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::Clean, "somebody else's transaction");
    });
}

/// The client then waits for one answer more than the server gives, and would take
/// the next for it. A server of today ends the session by itself.
#[test]
fn a_copy_that_was_begun_as_a_query_costs_the_connection() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE TABLE begun (n int)").await.unwrap();
        let conn = pool.acquire().await.unwrap();
        conn.client().query("COPY begun FROM STDIN", &[]).await.unwrap_err();
        let next = conn.client().query("SELECT 'lost'", &[]).boxed();
        select(next, sleep(Duration::from_millis(100)).boxed()).await;
        drop(conn);
        for _ in 0..2 {
            let late = sleep(Duration::from_secs(10)).boxed();
            let first = select(own_row(&pool).boxed(), late).await;
            assert!(matches!(first, Either::Left(_)), "no answer");
        }
        pool.batch("DROP TABLE begun").await.unwrap();
    });
}

/// The server then answers twice, to the statement and to the end of the data.
#[test]
fn a_copy_that_fails_before_its_data_disturbs_nobody() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch(
            "CREATE TABLE guarded (n int); \
             CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_sleep(TG_ARGV[0]::float); RAISE 'not here'; END $$",
        )
        .await
        .unwrap();
        for pause in [0.0, 0.02] {
            let trigger = format!(
                "CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON guarded \
                 FOR EACH STATEMENT EXECUTE FUNCTION refuse({pause})"
            );
            pool.batch(&trigger).await.unwrap();
            for round in 0..8 {
                let conn = pool.acquire().await.unwrap();
                if let Ok(sink) = conn.client().copy_in("COPY guarded FROM STDIN").await {
                    let mut sink = pin!(sink);
                    // Much, so that the server is busy with it for a while.
                    for _ in 0..round * 16 {
                        let _ = sink.send(&[b'\n'; 1 << 16][..]).await;
                    }
                    if round % 2 == 0 {
                        let _ = sink.finish().await;
                    }
                }
                drop(conn);
                own_row(&pool).await;
            }
        }
        pool.batch("DROP TABLE guarded; DROP FUNCTION refuse").await.unwrap();
    });
}

/// The end of its data, which the client sends nevertheless, was answered as well,
/// and the next statement was given that answer.
#[test]
fn a_copy_that_is_refused_before_it_begins_disturbs_nobody() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE TABLE forbidden (n int)").await.unwrap();
        for round in 0..16 {
            let mut conn = pool.acquire().await.unwrap();
            conn.batch("SET default_transaction_read_only = on").await.unwrap();
            let client = conn.client();
            let copy = client.prepare("COPY forbidden FROM STDIN").await.unwrap();
            let refused = client.copy_in::<_, &[u8]>(&copy).await.map(drop);
            assert_eq!(error(refused.unwrap_err()).cause(), Cause::WrongRole);
            if round % 2 == 0 {
                conn.batch("SELECT 1/0").await.expect_err("an answer of the copy's");
            }
            drop(conn);
            own_row(&pool).await;
        }
        pool.batch("DROP TABLE forbidden").await.unwrap();
    });
}

#[test]
fn a_copy_that_failed_is_proved_to_be_over_and_kept() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE TABLE picky (n int)").await.unwrap();
        let id = pool.acquire().await.unwrap().id();
        for data in [b"one\n", b"1\n2\n"] {
            let conn = pool.acquire().await.unwrap();
            let sink = conn.client().copy_in("COPY picky FROM STDIN").await.unwrap();
            let mut sink = pin!(sink);
            sink.send(&data[..]).await.unwrap();
            assert_eq!(sink.finish().await.is_ok(), data[0] == b'1');
            drop(conn);
            own_row(&pool).await;
        }
        assert_eq!(pool.acquire().await.unwrap().id(), id);
        pool.batch("DROP TABLE picky").await.unwrap();
    });
}

#[test]
fn a_connection_dropped_with_a_request_in_its_queue_leaves_nothing_running() {
    let server = postgres();
    let url = server.new_database("queued");
    block_on(async {
        let driver = Postgres::from_url(&url).unwrap();
        let idle = Odd::idle();
        let runtime: Arc<dyn Runtime> = idle.clone();
        let conn = connected(&driver, &runtime).await.unwrap();
        assert!(conn.client().simple_query("SELECT pg_sleep(600)").now_or_never().is_none());
        drop(conn);
        let here = current().expect("inside block_on");
        idle.take().into_iter().for_each(|task| here.spawn(task));
        until(|| server.sessions("queued") == 0).await;
    });
}

/// Its server has the request, or will have it, and acts on it at any time.
#[test]
fn a_cancel_that_was_left_half_way_costs_the_connection() {
    let server = postgres();
    let proxy = Proxy::to(server.address());
    block_on(async {
        let url = format!("{}?sslmode=disable", server.url_at(proxy.address()));
        let pool = pool_at(&url, 1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.query("SELECT 1", &[]).await.unwrap();
        let is_clean = || pool.driver().session(&conn) == Session::Clean;
        until(is_clean).await;
        // The request leaves, and that the server has done with it is not heard.
        proxy.stall();
        let cancel = pool.driver().cancel(&conn).expect("a handle");
        select(pin!(cancel.run()), pin!(until(|| !is_clean()))).await;
        proxy.pass();
        assert_ne!(pool.driver().session(&conn), Session::Clean);
        pool.driver().reset(&mut conn, Reset::Boundary).await.unwrap_err();
        drop(conn);
        own_row(&pool).await;
    });
}
