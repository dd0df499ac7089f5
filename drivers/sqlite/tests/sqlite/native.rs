//! The rusqlite connection, lent to a closure.

use futures_executor::block_on;
use millpond_driver::{Cause, Driver, ErrorKind, Session};
use millpond_sqlite::Sqlite;

use crate::support::{Bench, HEAVY};

#[test]
fn a_closure_uses_the_connection_off_the_callers_thread() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let (jobs, sum) = bench.jobs_of(|| {
        block_on(conn.with(|sqlite| {
            let tx = sqlite.transaction()?;
            tx.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (3), (4)")?;
            let sum = tx.query_row("SELECT sum(a) FROM t", [], |row| row.get::<_, i64>(0))?;
            tx.commit()?;
            Ok(sum)
        }))
    });
    assert_eq!((jobs, sum.expect("a sum")), (1, 7));
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 2);
}

#[test]
fn a_transaction_a_closure_leaves_open_shows() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    block_on(conn.with(|sqlite| sqlite.execute_batch("BEGIN"))).expect("begun");
    assert_eq!(bench.driver.session(&conn), Session::InTransaction);
}

#[test]
fn a_closures_error_is_translated() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let error = block_on(conn.with(|sqlite| sqlite.execute_batch("SELECT * FROM absent")));
    let error = error.expect_err("no such table");
    assert_eq!((error.kind(), error.cause()), (ErrorKind::Statement, Cause::Caller));
    assert_eq!(bench.driver.session(&conn), Session::Clean);
}

#[test]
fn a_panic_in_a_closure_closes_the_connection_and_is_told() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let error = block_on(conn.with::<()>(|_| panic!("out of cheese"))).expect_err("a panic");
    assert_eq!((error.kind(), error.message()), (ErrorKind::Panicked, "out of cheese"));
    assert_eq!(bench.driver.session(&conn), Session::Closed);
    let error = bench.query(&mut conn, "SELECT 1", &[]).expect_err("closed");
    assert_eq!(error.to_string(), "the connection is closed");
    bench.connect();
}

#[test]
fn a_closure_cannot_take_the_budget_away() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    block_on(conn.with(|sqlite| {
        let _ = sqlite.progress_handler(1, None::<fn() -> bool>);
        sqlite.busy_timeout(std::time::Duration::from_secs(600))
    }))
    .expect("taken");
    let (jobs, count) = bench.jobs_of(|| bench.number(&mut conn, HEAVY));
    assert_eq!((jobs, count), (1, 20_000));
}

#[test]
fn a_statement_a_closure_leaves_running_closes_the_connection() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let left = block_on(conn.with(|sqlite| {
        let mut statement = sqlite.prepare("SELECT 1 UNION SELECT 2")?;
        let mut rows = statement.query([])?;
        rows.next()?;
        std::mem::forget(rows);
        std::mem::forget(statement);
        Ok(())
    }));
    left.expect_err("still running");
    assert_eq!(bench.driver.session(&conn), Session::Closed);
}
