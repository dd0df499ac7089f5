//! Rows one by one.

use std::pin::pin;

use futures_executor::block_on;
use futures_util::{StreamExt, TryStreamExt};
use millpond_driver::{Driver, Reset, Row, Session, Value, params};
use millpond_sqlite::{Sqlite, SqliteConnection};

use crate::support::{Bench, HEAVY};

const COUNT: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) \
     SELECT i FROM n";

fn memory() -> (Bench, SqliteConnection) {
    let bench = Bench::new(Sqlite::memory());
    let conn = bench.connect();
    (bench, conn)
}

fn number(row: &Row) -> i64 {
    row.get(0).expect("a number")
}

#[test]
fn a_long_stream_gives_every_row_once_and_in_order() {
    let (bench, mut conn) = memory();
    let rows: Vec<i64> = block_on(
        bench
            .driver
            .query_stream(&mut conn, COUNT, &params![10_001])
            .map_ok(|row| number(&row))
            .try_collect(),
    )
    .expect("rows");
    assert!(rows.iter().copied().eq(1..=10_001));
    assert_eq!(bench.driver.session(&conn), Session::Clean);
}

#[test]
fn a_short_stream_stays_on_the_callers_thread() {
    let (bench, mut conn) = memory();
    let (jobs, rows) = bench.jobs_of(|| {
        let rows = bench.driver.query_stream(&mut conn, "VALUES (1), (2)", &[]);
        block_on(rows.try_collect::<Vec<_>>()).expect("rows")
    });
    assert_eq!((jobs, rows.len()), (0, 2));
}

#[test]
fn a_stream_left_half_way_stops_its_statement_and_leaves_the_connection_usable() {
    let (bench, mut conn) = memory();
    for _ in 0..20 {
        {
            let given = params![i64::MAX];
            let mut rows = pin!(bench.driver.query_stream(&mut conn, COUNT, &given));
            for expected in 1..300 {
                let row = block_on(rows.next()).expect("a row").expect("a row");
                assert_eq!(number(&row), expected);
            }
        }
        assert_eq!(bench.number(&mut conn, "SELECT 7"), 7);
        assert_eq!(bench.driver.session(&conn), Session::Clean);
    }
}

#[test]
fn a_stream_that_gives_no_row_for_long_is_stopped_too() {
    let (bench, mut conn) = memory();
    {
        let sql = crate::support::ENDLESS;
        let mut rows = pin!(bench.driver.query_stream(&mut conn, sql, &[]));
        let mut next = Box::pin(rows.next());
        assert!(crate::support::poll_once(&mut next).is_none());
    }
    assert_eq!(bench.number(&mut conn, HEAVY), 20_000);
}

#[test]
fn an_error_in_the_middle_ends_a_stream_after_the_rows_before_it() {
    let (bench, mut conn) = memory();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
               SELECT CASE WHEN i < 2000 THEN i ELSE abs(-9223372036854775808) END FROM n";
    let rows: Vec<_> = block_on(bench.driver.query_stream(&mut conn, sql, &[]).collect());
    assert_eq!(rows.len(), 2000);
    let error = rows.last().expect("a last").as_ref().expect_err("overflow");
    assert!(error.message().contains("integer overflow"), "{error}");
    assert_eq!(bench.driver.session(&conn), Session::Clean);
}

#[test]
fn a_stream_of_a_write_left_half_way_keeps_what_it_wrote_and_its_transaction() {
    let (bench, mut conn) = memory();
    bench.run(&mut conn, "CREATE TABLE t (a); BEGIN");
    {
        let sql = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                   WHERE i < 1000) SELECT i FROM n RETURNING a";
        let mut rows = pin!(bench.driver.query_stream(&mut conn, sql, &[]));
        block_on(rows.next()).expect("a row").expect("a row");
    }
    assert_eq!(bench.number(&mut conn, "SELECT count(*) FROM t"), 1000);
    assert_eq!(bench.driver.session(&conn), Session::InTransaction);
    block_on(bench.driver.reset(&mut conn, Reset::Boundary)).expect("clean");
}

#[test]
fn a_bad_parameter_is_the_first_item_of_a_stream() {
    let (bench, mut conn) = memory();
    for sql in ["SELECT 1", "DELETE FROM t"] {
        let given = [Value::Null];
        let items: Vec<_> = block_on(bench.driver.query_stream(&mut conn, sql, &given).collect());
        assert_eq!(items.len(), 1);
        items[0].as_ref().expect_err(sql);
    }
}
