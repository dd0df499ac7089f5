//! Passwords that change while a pool lives.

use std::sync::{Arc, Mutex};

use futures_util::future::join;
use millpond::runtime::current;
use millpond::{Cause, ConnectContext, Credentials, Driver, Reset, Session};

use super::*;

#[test]
fn a_password_that_is_changed_needs_no_restart_and_ends_no_session() {
    let server = postgres();
    server.sql("CREATE ROLE rotating LOGIN PASSWORD 'first'");
    let given = |password: &str| Credentials::new().user("rotating").password(password);
    let newest = Arc::new(Mutex::new(given("first")));
    let provider = {
        let newest = Arc::clone(&newest);
        move || {
            let answer = newest.lock().unwrap().clone();
            async move { Ok(answer) }
        }
    };
    block_on(async {
        let driver = Postgres::from_url(&server.url_with("application_name=rotating"));
        let driver = driver.expect("a good URL");
        let builder = Pool::builder(driver).max_open_conns(2).credentials(provider);
        let pool = builder.build().await.unwrap();
        let mut old = pool.acquire().await.unwrap();
        server.sql("ALTER ROLE rotating PASSWORD 'second'");
        let here = current().expect("inside block_on");
        let first = given("first");
        let context = ConnectContext::new(&here, here.now() + LONG).with_credentials(&first);
        let error = pool.driver().connect(&context).await.expect_err("it is good no more");
        assert_eq!(error.cause(), Cause::Auth, "{error:?}");

        *newest.lock().unwrap() = given("second");
        let mut new = pool.acquire().await.unwrap();
        for conn in [&mut old, &mut new] {
            let rows = conn.query("SELECT session_user::text", &[]).await.unwrap();
            assert_eq!(rows.scalar::<String>().unwrap(), "rotating");
            assert_eq!(pool.driver().session(conn), Session::Clean);
        }

        let stop = pool.driver().cancel(&old).expect("it can");
        let stopped = async {
            until(|| server.running("rotating") > 0).await;
            stop.run().await.unwrap();
        };
        let (slept, ()) = join(old.query("SELECT pg_sleep(60)", &[]), stopped).await;
        assert_eq!(slept.unwrap_err().cause(), Cause::Timeout);
        pool.driver().reset(&mut old, Reset::Session).await.unwrap();
        old.query("SELECT 1", &[]).await.unwrap();
    });
}
