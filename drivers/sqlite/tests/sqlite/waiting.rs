//! Waiting for locks.

use std::time::Duration;

use futures_executor::block_on;
use millpond_driver::{Cause, Driver, Fate, Outcome, TransactionOptions};
use millpond_sqlite::{Sqlite, SqliteConnection};

use crate::support::{Bench, Folder, Threads, poll_once};

/// Two connections that know the table `t`.
fn pair(bench: &Bench) -> (SqliteConnection, SqliteConnection) {
    let mut first = bench.connect();
    bench.run(&mut first, "CREATE TABLE t (a)");
    (first, bench.connect())
}

#[test]
fn a_locked_database_is_waited_for_off_the_callers_thread_and_not_longer_than_asked() {
    let bench = Bench { driver: Sqlite::memory(), runtime: Threads::hasty() };
    let (mut holder, mut other) = pair(&bench);
    bench.run(&mut holder, "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)");
    for sql in ["INSERT INTO t VALUES (2)", "BEGIN IMMEDIATE"] {
        let (jobs, refused) = bench.jobs_of(|| bench.query(&mut other, sql, &[]));
        let error = refused.expect_err("locked");
        assert_eq!(jobs, 1);
        assert_eq!(
            (error.outcome(), error.fate(), error.cause()),
            (Outcome::Rejected, Fate::Reusable, Cause::LockTimeout),
            "{error:?}"
        );
    }
}

#[test]
fn without_patience_a_locked_database_is_refused_at_once() {
    let bench = Bench::new(Sqlite::memory().busy_timeout(Duration::ZERO));
    let (mut holder, mut other) = pair(&bench);
    bench.run(&mut holder, "BEGIN IMMEDIATE");
    let error = bench.query(&mut other, "INSERT INTO t VALUES (2)", &[]).expect_err("locked");
    assert_eq!(error.cause(), Cause::LockTimeout);
}

#[test]
fn a_writer_that_waits_goes_on_when_the_lock_is_let_go() {
    let folder = Folder::new();
    let driver = Sqlite::file(folder.join("a.db")).busy_timeout(Duration::from_secs(600));
    let bench = Bench::new(driver);
    let (mut holder, mut other) = pair(&bench);
    bench.run(&mut holder, "BEGIN IMMEDIATE");
    let options = TransactionOptions::new();
    let mut begin = Box::pin(bench.driver.begin(&mut other, &options));
    assert!(poll_once(&mut begin).is_none());
    bench.run(&mut holder, "COMMIT");
    block_on(begin).expect("its turn");
}

#[test]
fn a_read_that_finds_the_database_locked_waits_off_the_callers_thread() {
    let bench = Bench::new(Sqlite::memory().busy_timeout(Duration::from_secs(600)));
    let (mut holder, mut reader) = pair(&bench);
    bench.run(&mut holder, "BEGIN EXCLUSIVE; INSERT INTO t VALUES (7)");
    let before = bench.runtime.jobs();
    let mut read = Box::pin(bench.driver.query(&mut reader, "SELECT a FROM t", &[]));
    assert!(poll_once(&mut read).is_none());
    assert_eq!(bench.runtime.jobs() - before, 1);
    bench.run(&mut holder, "COMMIT");
    assert_eq!(block_on(read).expect("a row").scalar::<i64>().expect("a number"), 7);
}

#[test]
fn a_wait_for_a_lock_ends_when_it_is_cancelled() {
    let bench = Bench::new(Sqlite::memory().busy_timeout(Duration::from_secs(600)));
    let (mut holder, mut other) = pair(&bench);
    bench.run(&mut holder, "BEGIN IMMEDIATE");
    let cancel = bench.driver.cancel(&other).expect("a handle");
    let mut begin = Box::pin(bench.driver.query(&mut other, "BEGIN IMMEDIATE", &[]));
    assert!(poll_once(&mut begin).is_none());
    block_on(cancel.run()).expect("delivered");
    block_on(begin).expect_err("it gave up");
    assert_eq!(bench.number(&mut other, "SELECT 1"), 1);
}

#[test]
fn a_users_busy_timeout_does_not_block_the_callers_thread() {
    let bench = Bench { driver: Sqlite::memory(), runtime: Threads::hasty() };
    let (mut holder, mut other) = (bench.connect(), bench.connect());
    bench.query(&mut other, "PRAGMA busy_timeout = 600000", &[]).expect("set");
    bench.run(&mut holder, "CREATE TABLE t (a); BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)");
    bench.query(&mut other, "SELECT * FROM t", &[]).expect_err("locked");
}

#[test]
fn a_new_table_behind_a_lock_is_waited_for_and_not_called_unknown() {
    let bench = Bench::new(Sqlite::memory().busy_timeout(Duration::from_secs(600)));
    let (mut holder, mut reader) = (bench.connect(), bench.connect());
    bench.run(&mut holder, "CREATE TABLE t (a); INSERT INTO t VALUES (7)");
    bench.run(&mut holder, "BEGIN EXCLUSIVE; INSERT INTO t VALUES (8)");
    let mut read = Box::pin(bench.driver.query(&mut reader, "SELECT min(a) FROM t", &[]));
    assert!(poll_once(&mut read).is_none());
    bench.run(&mut holder, "COMMIT");
    assert_eq!(block_on(read).expect("a row").scalar::<i64>().expect("a number"), 7);
}
