//! Transactions: where they run, and what they wait for.

use futures_executor::block_on;
use millpond_driver::{
    AccessMode, Cause, Driver, Fate, IsolationLevel, Outcome, Reset, Session, TransactionOptions,
    params,
};
use millpond_sqlite::{JournalMode, Sqlite};

use crate::support::{Bench, Folder, Threads};

#[test]
fn a_transaction_begins_and_reads_on_the_callers_thread_and_commits_off_it() {
    let folder = Folder::new();
    let bench = Bench::new(Sqlite::file(folder.join("a.db")));
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a); INSERT INTO t VALUES (7)");
    let options = TransactionOptions::new().isolation(IsolationLevel::ReadCommitted);
    let (jobs, ()) =
        bench.jobs_of(|| block_on(bench.driver.begin(&mut conn, &options)).expect("begun"));
    assert_eq!((jobs, bench.driver.session(&conn)), (0, Session::InTransaction));
    let (jobs, seven) = bench.jobs_of(|| bench.number(&mut conn, "SELECT a FROM t"));
    assert_eq!((jobs, seven), (0, 7));
    let (jobs, ()) = bench.jobs_of(|| block_on(bench.driver.commit(&mut conn)).expect("committed"));
    assert_eq!((jobs, bench.driver.session(&conn)), (1, Session::Clean));
}

#[test]
fn a_heavy_read_in_a_transaction_moves_and_keeps_the_transaction() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    block_on(bench.driver.begin(&mut conn, &TransactionOptions::new())).expect("begun");
    bench.query(&mut conn, "INSERT INTO t VALUES (?)", &params![1]).expect("inserted");
    assert_eq!(bench.number(&mut conn, crate::support::HEAVY), 20_000);
    assert_eq!(bench.driver.session(&conn), Session::InTransaction);
    block_on(bench.driver.commit(&mut conn)).expect("committed");
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 1);
}

#[test]
fn a_transaction_that_only_reads_never_leaves_the_callers_thread() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let read_only = TransactionOptions::new().access(AccessMode::ReadOnly);
    let (jobs, ()) = bench.jobs_of(|| {
        block_on(async {
            for _ in 0..10 {
                bench.driver.begin(&mut conn, &read_only).await.expect("begun");
                bench.driver.query(&mut conn, "SELECT 1", &[]).await.expect("a row");
                bench.driver.commit(&mut conn).await.expect("ended");
                bench.driver.begin(&mut conn, &read_only).await.expect("begun");
                bench.driver.rollback(&mut conn).await.expect("ended");
            }
        });
    });
    assert_eq!((jobs, bench.driver.session(&conn)), (0, Session::Clean));
}

#[test]
fn a_busy_commit_is_repeated_and_leaves_the_transaction_open_when_patience_ends() {
    let folder = Folder::new();
    let driver = Sqlite::file(folder.join("a.db")).journal_mode(JournalMode::Delete);
    let bench = Bench { driver, runtime: Threads::hasty() };
    let (mut writer, mut reader) = (bench.connect(), bench.connect());
    bench.run(&mut writer, "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
    bench.run(&mut reader, "BEGIN; SELECT * FROM t");
    block_on(bench.driver.begin(&mut writer, &TransactionOptions::new())).expect("begun");
    bench.query(&mut writer, "INSERT INTO t VALUES (2)", &[]).expect("inserted");

    let error = block_on(bench.driver.commit(&mut writer)).expect_err("a reader is in the way");
    assert_eq!(
        (error.outcome(), error.fate(), error.cause()),
        (Outcome::Rejected, Fate::NeedsRollback, Cause::LockTimeout)
    );
    assert_eq!(bench.driver.session(&writer), Session::InTransaction);

    bench.run(&mut reader, "COMMIT");
    block_on(bench.driver.commit(&mut writer)).expect("the same transaction");
    assert_eq!(bench.number(&mut writer, "SELECT count(*) FROM t"), 2);
}

#[test]
fn a_reset_to_a_boundary_rolls_back_and_one_of_the_session_is_refused() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a); BEGIN; INSERT INTO t VALUES (1)");
    block_on(bench.driver.reset(&mut conn, Reset::Boundary)).expect("clean");
    assert_eq!(bench.driver.session(&conn), Session::Clean);
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 0);
    let (jobs, reset) = bench.jobs_of(|| block_on(bench.driver.reset(&mut conn, Reset::Boundary)));
    assert_eq!((jobs, reset.is_ok()), (0, true));
    block_on(bench.driver.reset(&mut conn, Reset::Session)).expect_err("open another");
}
