//! What errors of real statements say.

use std::fs;

use futures_executor::block_on;
use millpond_driver::{AccessMode, Cause, Driver, Fate, Outcome, Scope, TransactionOptions};
use millpond_sqlite::Sqlite;

use crate::support::{Bench, Folder};

#[test]
fn a_broken_constraint_is_the_callers_and_the_transaction_goes_on() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)");
    let error = bench.query(&mut conn, "INSERT INTO t VALUES (1)", &[]).expect_err("twice");
    assert_eq!(error.to_string(), "UNIQUE constraint failed: t.a (1555)");
    assert_eq!((error.cause(), error.fate()), (Cause::Caller, Fate::Reusable));
    bench.run(&mut conn, "INSERT INTO t VALUES (2); COMMIT");
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 2);
}

#[test]
fn a_statement_that_rolls_the_transaction_back_says_so() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)");
    let sql = "INSERT OR ROLLBACK INTO t VALUES (1)";
    let error = bench.query(&mut conn, sql, &[]).expect_err("twice");
    assert_eq!((error.outcome(), error.fate()), (Outcome::RolledBack, Fate::Reusable));
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 0);
}

#[test]
fn a_reader_that_wants_to_write_too_late_needs_a_new_transaction() {
    let folder = Folder::new();
    let bench = Bench::new(Sqlite::file(folder.join("a.db")));
    let (mut reader, mut writer) = (bench.connect(), bench.connect());
    bench.run(&mut writer, "CREATE TABLE t (a)");
    bench.run(&mut reader, "BEGIN; SELECT * FROM t");
    bench.run(&mut writer, "INSERT INTO t VALUES (1)");
    let error = bench.query(&mut reader, "INSERT INTO t VALUES (2)", &[]).expect_err("stale");
    assert_eq!(error.code(), Some(&millpond_driver::Code::Number(517)));
    assert_eq!(
        (error.outcome(), error.fate(), error.cause(), error.scope()),
        (Outcome::Rejected, Fate::NeedsRollback, Cause::Conflict, Scope::Transaction)
    );
}

#[test]
fn a_replaced_file_discards_the_connection() {
    let folder = Folder::new();
    let path = folder.join("a.db");
    let bench = Bench::new(Sqlite::file(&path).journal_mode(millpond_sqlite::JournalMode::Delete));
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    fs::rename(&path, folder.join("b.db")).expect("renamed");
    let error = bench.query(&mut conn, "INSERT INTO t VALUES (1)", &[]).expect_err("moved");
    assert_eq!((error.fate(), error.scope()), (Fate::Discard, Scope::Node), "{error:?}");
}

#[test]
fn a_damaged_file_discards_the_connection() {
    let folder = Folder::new();
    let path = folder.join("a.db");
    let bench = Bench::new(Sqlite::file(&path));
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a); CREATE INDEX i ON t (a)");
    bench.run(&mut conn, "INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE)");
    block_on(bench.driver.close(conn));
    let mut bytes = fs::read(&path).expect("bytes");
    bytes[4096..].fill(0x55);
    fs::write(&path, bytes).expect("damaged");
    let mut conn = bench.connect();
    let error = bench.query(&mut conn, "SELECT * FROM t", &[]).expect_err("damaged");
    assert_eq!((error.fate(), error.cause()), (Fate::Discard, Cause::Corrupt), "{error:?}");
}

#[test]
fn a_session_asked_to_be_read_only_blames_the_caller_for_a_write() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    block_on(bench.driver.set_read_only(&mut conn, true)).expect("set");
    let error = bench.query(&mut conn, "INSERT INTO t VALUES (1)", &[]).expect_err("read-only");
    assert_eq!((error.cause(), error.fate()), (Cause::Caller, Fate::Reusable));
    block_on(bench.driver.begin(&mut conn, &TransactionOptions::new())).expect("a read begins");
    block_on(bench.driver.rollback(&mut conn)).expect("rolled back");
    block_on(bench.driver.set_read_only(&mut conn, false)).expect("set back");
    bench.run(&mut conn, "INSERT INTO t VALUES (1)");
}

#[test]
fn a_read_only_transaction_refuses_writes_and_only_then() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    let read_only = TransactionOptions::new().access(AccessMode::ReadOnly);
    block_on(bench.driver.begin(&mut conn, &read_only)).expect("begun");
    let error = bench.query(&mut conn, "INSERT INTO t VALUES (1)", &[]).expect_err("read-only");
    assert_eq!(error.outcome(), Outcome::Rejected);
    block_on(bench.driver.batch(&mut conn, "DELETE FROM t")).expect_err("read-only");
    bench.run(&mut conn, "COMMIT; BEGIN; INSERT INTO t VALUES (1); COMMIT");
    for end in [true, false] {
        block_on(async {
            bench.driver.begin(&mut conn, &read_only).await.expect("begun");
            if end {
                bench.driver.commit(&mut conn).await
            } else {
                bench.driver.rollback(&mut conn).await
            }
            .expect("ended");
            bench.driver.begin(&mut conn, &TransactionOptions::new()).await.expect("begun");
        });
        bench.run(&mut conn, "INSERT INTO t VALUES (1); COMMIT");
    }
}
