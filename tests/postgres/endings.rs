//! How a server ends under its clients, and what each of them is told.

use std::process::Command;

use millpond::drivers::postgres::Postgres;
use millpond::runtime::block_on;
use millpond::{Cause, Driver, Error, Fate, Outcome, Pool, Session};
use millpond_harness::Server;

use super::errors::state;
use super::{pool_at, until};

/// Sends a signal to a process of the server.
fn signal(name: &str, process: &str) {
    let sent = Command::new("kill").args(["-s", name, process]).status().expect("kill runs");
    assert!(sent.success(), "the process was there");
}

/// The process that the others of the server are children of.
fn postmaster(server: &Server) -> String {
    server.sql("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)")[0][0].clone()
}

/// What the next statement on a connection is told that the server has ended
/// while it lay idle.
async fn told_after(server: &Server, ending: impl FnOnce(&str)) -> Error {
    let pool = pool_at(&server.url(), 2).await;
    let (mut other, mut conn) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
    let process = other.query("SELECT pg_backend_pid()::text", &[]).await.unwrap();
    ending(&process.scalar::<String>().unwrap());
    until(|| pool.driver().session(&conn) == Session::Closed).await;
    let error = conn.query("SELECT 1", &[]).await.unwrap_err();
    assert_eq!((error.outcome(), error.fate()), (Outcome::NotSent, Fate::Discard), "{error:?}");
    error
}

/// The server says so in a warning, and hangs up without an error.
#[test]
fn when_another_session_crashes_all_are_told_and_the_pool_goes_on() {
    let server = Server::postgres().start();
    block_on(async {
        let error = told_after(&server, |other| signal("KILL", other)).await;
        assert_eq!((&*state(&error), error.cause()), ("57P02", Cause::Shutdown), "{error:?}");
        // It recovers by itself, and whoever comes meanwhile waits.
        let driver = Postgres::from_url(&server.url()).unwrap();
        let pool = Pool::builder(driver).build_lazy().unwrap();
        pool.query("SELECT 1", &[]).await.unwrap();
    });
}

#[test]
fn an_immediate_shutdown_is_told_though_the_server_sends_no_error() {
    let server = Server::postgres().start();
    block_on(async {
        let postmaster = postmaster(&server);
        let error = told_after(&server, |_| signal("QUIT", &postmaster)).await;
        assert_eq!((&*state(&error), error.cause()), ("57P01", Cause::Shutdown), "{error:?}");
    });
}

#[test]
fn a_server_that_waits_for_its_last_clients_takes_no_more_and_that_may_pass() {
    let server = Server::postgres().start();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        let mut held = pool.acquire().await.unwrap();
        signal("TERM", &postmaster(&server));
        let error = loop {
            let driver = pool.driver().clone();
            if let Err(error) = Pool::builder(driver).max_open_conns(1).build().await {
                break error;
            }
        };
        assert_eq!((&*state(&error), error.cause()), ("57P03", Cause::Starting), "{error:?}");
        assert_eq!((error.outcome(), error.is_permanent()), (Outcome::NotSent, false));
        held.query("SELECT 1", &[]).await.unwrap();
    });
}
