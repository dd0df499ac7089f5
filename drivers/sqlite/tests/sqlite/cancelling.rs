//! Futures that are dropped, and statements that are stopped.

use futures_executor::block_on;
use millpond_driver::{Cause, Driver, Fate, Outcome, Reset, Session, TransactionOptions, params};
use millpond_sqlite::Sqlite;

use crate::support::{Bench, ENDLESS, HEAVY, poll_once};

#[test]
fn a_dropped_write_goes_on_and_the_connection_shows_where_it_is() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    bench.runtime.hold();
    let mut insert = Box::pin(bench.driver.query(&mut conn, "INSERT INTO t VALUES (1)", &[]));
    assert!(poll_once(&mut insert).is_none());
    drop(insert);
    assert_eq!(bench.driver.session(&conn), Session::Busy);
    bench.runtime.release();
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 1);
    assert_eq!(bench.driver.session(&conn), Session::Clean);
}

#[test]
fn a_dropped_begin_leaves_a_transaction_that_shows() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.runtime.hold();
    let mut begin = Box::pin(bench.driver.query(&mut conn, "BEGIN", &[]));
    assert!(poll_once(&mut begin).is_none());
    drop(begin);
    bench.runtime.release();
    while bench.driver.session(&conn) == Session::Busy {
        std::thread::yield_now();
    }
    assert_eq!(bench.driver.session(&conn), Session::InTransaction);
    block_on(bench.driver.reset(&mut conn, Reset::Boundary)).expect("clean");
    assert_eq!(bench.driver.session(&conn), Session::Clean);
}

#[test]
fn a_cancelled_statement_ends_early_and_leaves_the_connection_in_step() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let cancel = bench.driver.cancel(&conn).expect("a handle");
    let mut endless = Box::pin(bench.driver.query(&mut conn, ENDLESS, &[]));
    assert!(poll_once(&mut endless).is_none());
    block_on(cancel.run()).expect("delivered");
    let error = block_on(endless).expect_err("stopped");
    assert_eq!(
        (error.outcome(), error.fate(), error.cause()),
        (Outcome::Rejected, Fate::Reusable, Cause::Timeout)
    );
    assert_eq!(bench.number(&mut conn, "SELECT 7"), 7);
}

#[test]
fn a_statement_cancelled_before_it_starts_never_does() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    bench.runtime.hold();
    let mut insert = Box::pin(bench.driver.query(&mut conn, "INSERT INTO t VALUES (1)", &[]));
    assert!(poll_once(&mut insert).is_none());
    drop(insert);
    block_on(bench.driver.cancel(&conn).expect("a handle").run()).expect("delivered");
    bench.runtime.release();
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 0);
}

#[test]
fn a_late_cancel_does_not_hit_the_next_statement() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let mut heavy = Box::pin(bench.driver.query(&mut conn, HEAVY, &[]));
    assert!(poll_once(&mut heavy).is_none());
    drop(heavy);
    let late = bench.driver.cancel(&conn).expect("a handle");
    assert_eq!(bench.number(&mut conn, "SELECT 1"), 1);
    bench.runtime.hold();
    let mut next = Box::pin(bench.driver.query(&mut conn, HEAVY, &[]));
    assert!(poll_once(&mut next).is_none());
    block_on(late.run()).expect("delivered to nobody");
    bench.runtime.release();
    assert_eq!(block_on(next).expect("a row").scalar::<i64>().expect("a number"), 20_000);
}

#[test]
fn a_batch_stops_between_its_statements_too() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    let cancel = bench.driver.cancel(&conn).expect("a handle");
    let sql = "INSERT INTO t VALUES (1);".repeat(100_000);
    let mut batch = Box::pin(bench.driver.batch(&mut conn, &sql));
    assert!(poll_once(&mut batch).is_none());
    block_on(cancel.run()).expect("delivered");
    block_on(batch).expect_err("stopped");
}

#[test]
fn an_interrupted_write_in_a_transaction_says_whether_the_transaction_is_gone() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    block_on(bench.driver.begin(&mut conn, &TransactionOptions::new())).expect("begun");
    let sql = format!("INSERT INTO t {ENDLESS}");
    let cancel = bench.driver.cancel(&conn).expect("a handle");
    let mut insert = Box::pin(bench.driver.query(&mut conn, &sql, &[]));
    assert!(poll_once(&mut insert).is_none());
    block_on(cancel.run()).expect("delivered");
    let error = block_on(insert).expect_err("stopped");
    // Stopped before it began it has touched nothing.
    let gone = bench.driver.session(&conn) == Session::Clean;
    assert_eq!(error.outcome() == Outcome::RolledBack, gone, "{error:?}");
}

#[test]
fn a_reset_stops_what_still_runs() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    let mut endless = Box::pin(bench.driver.query(&mut conn, ENDLESS, &[]));
    assert!(poll_once(&mut endless).is_none());
    drop(endless);
    block_on(bench.driver.reset(&mut conn, Reset::Boundary)).expect("clean");
    assert_eq!(bench.driver.session(&conn), Session::Clean);
}

#[test]
fn a_connection_dropped_while_it_works_is_closed_when_that_ends() {
    let bench = Bench::new(Sqlite::memory());
    let (mut conn, mut other) = (bench.connect(), bench.connect());
    bench.run(&mut conn, "CREATE TABLE t (a); BEGIN IMMEDIATE");
    bench.runtime.hold();
    let mut insert = Box::pin(bench.driver.query(&mut conn, "INSERT INTO t VALUES (1)", &[]));
    assert!(poll_once(&mut insert).is_none());
    drop(insert);
    drop(conn);
    bench.runtime.release();
    // Its lock goes with it.
    bench.run(&mut other, "INSERT INTO t VALUES (2)");
    assert_eq!(bench.number(&mut other, "SELECT count(*) FROM t"), 1);
}

#[test]
fn work_lost_with_its_runtime_is_told_and_loses_no_connection() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    bench.runtime.hold();
    let mut insert = Box::pin(bench.driver.query(&mut conn, "INSERT INTO t VALUES (1)", &[]));
    assert!(poll_once(&mut insert).is_none());
    bench.runtime.lose();
    let error = block_on(insert).expect_err("lost");
    assert_eq!(error.outcome(), Outcome::NotSent);
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 0);
}

#[test]
fn after_a_thousand_dropped_queries_every_query_gets_its_own_rows() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let statements =
        ["SELECT ?", HEAVY, ENDLESS, "INSERT INTO t VALUES (1)", "BEGIN", "SELECT * FROM absent"];
    for round in 0..1000_i64 {
        let sql = statements[random(statements.len() as u64) as usize];
        let given = if sql.contains('?') { params![-round].to_vec() } else { Vec::new() };
        let mut dropped = Box::pin(bench.driver.query(&mut conn, sql, &given));
        for _ in 0..random(3) {
            if poll_once(&mut dropped).is_some() {
                break;
            }
        }
        drop(dropped);
        if sql == ENDLESS || random(2) == 0 {
            block_on(bench.driver.reset(&mut conn, Reset::Boundary)).expect("clean");
            assert_eq!(bench.driver.session(&conn), Session::Clean);
        }
        let rows = bench.query(&mut conn, "SELECT ?", &params![round]).expect("a row");
        assert_eq!(rows.scalar::<i64>().expect("a number"), round);
    }
}
