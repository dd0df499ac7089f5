//! Where statements run.

use millpond_driver::{Driver, params};
use millpond_sqlite::Sqlite;

use crate::support::{Bench, Folder, HEAVY, Threads, poll_once};

fn table() -> (Bench, millpond_sqlite::SqliteConnection) {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)");
    bench.run(&mut conn, "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')");
    (bench, conn)
}

#[test]
fn a_short_read_stays_on_the_callers_thread() {
    let (bench, mut conn) = table();
    for sql in [
        "SELECT name FROM t WHERE id = ?",
        "WITH x AS (SELECT ? AS i) SELECT name FROM t, x WHERE id = i",
    ] {
        let (jobs, rows) = bench.jobs_of(|| bench.query(&mut conn, sql, &params![2]));
        assert_eq!(rows.expect(sql).scalar::<String>().expect("text"), "two");
        assert_eq!(jobs, 0, "{sql}");
    }
}

#[test]
fn a_short_read_never_loses_its_budget_to_earlier_runs() {
    let (bench, mut conn) = table();
    let (jobs, ()) = bench.jobs_of(|| {
        for _ in 0..10_000 {
            bench.query(&mut conn, "SELECT name FROM t", &[]).expect("rows");
        }
    });
    assert_eq!(jobs, 0);
}

#[test]
fn a_heavy_read_moves_to_a_blocking_thread_and_gives_the_right_rows() {
    let (bench, mut conn) = table();
    let (jobs, count) = bench.jobs_of(|| bench.number(&mut conn, HEAVY));
    assert_eq!((jobs, count), (1, 20_000));
}

#[test]
fn a_read_that_was_heavy_goes_to_the_blocking_thread_until_it_is_light_again() {
    let (bench, mut conn) = table();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) \
               SELECT count(*) FROM n";
    let mut jobs = |limit: i64| {
        let (jobs, rows) = bench.jobs_of(|| bench.query(&mut conn, sql, &params![limit]));
        assert_eq!(rows.expect(sql).scalar::<i64>().expect("a number"), limit);
        jobs
    };
    assert_eq!([jobs(5), jobs(20_000), jobs(5), jobs(5)], [0, 1, 1, 0]);
}

#[test]
fn a_read_that_took_long_in_few_steps_goes_to_the_blocking_thread_too() {
    let bench = Bench { driver: Sqlite::memory(), runtime: Threads::hasty() };
    let mut conn = bench.connect();
    let mut jobs =
        || bench.jobs_of(|| bench.number(&mut conn, "SELECT count(*) FROM sqlite_master")).0;
    assert_eq!([jobs(), jobs()], [0, 1]);
}

#[test]
fn writes_run_off_the_callers_thread() {
    let (bench, mut conn) = table();
    for sql in [
        "INSERT INTO t VALUES (7, 'seven')",
        "UPDATE t SET name = 'x' WHERE id = 7",
        "INSERT INTO t VALUES (8, 'eight') RETURNING id",
        "WITH x AS (SELECT 7 AS i) DELETE FROM t WHERE id IN (SELECT i FROM x)",
        "CREATE TABLE u (a)",
        "PRAGMA user_version = 3",
        "PRAGMA integrity_check",
    ] {
        let (jobs, rows) = bench.jobs_of(|| bench.query(&mut conn, sql, &[]));
        rows.expect(sql);
        assert_eq!(jobs, 1, "{sql}");
    }
}

#[test]
fn without_a_budget_nothing_runs_on_the_callers_thread() {
    let bench = Bench::new(Sqlite::memory().inline_steps(0));
    let mut conn = bench.connect();
    let (jobs, one) = bench.jobs_of(|| bench.number(&mut conn, "SELECT 1"));
    assert_eq!((jobs, one), (1, 1));
}

#[test]
fn columns_follow_a_changed_schema() {
    let folder = Folder::new();
    let bench = Bench::new(Sqlite::file(folder.join("a.db")));
    let (mut reader, mut writer) = (bench.connect(), bench.connect());
    bench.run(&mut writer, "CREATE TABLE t (a BOOLEAN); INSERT INTO t VALUES (1)");
    let mut names = |change: &str| {
        bench.run(&mut writer, change);
        let rows = bench.query(&mut reader, "SELECT * FROM t", &[]).expect("rows");
        rows.columns().iter().map(|column| column.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("SELECT 1"), ["a"]);
    assert_eq!(names("ALTER TABLE t RENAME COLUMN a TO b"), ["b"]);
    assert_eq!(names("ALTER TABLE t ADD COLUMN c"), ["b", "c"]);
    assert_eq!(names("DELETE FROM t; ALTER TABLE t DROP COLUMN b"), ["c"]);
}

#[test]
fn columns_follow_a_schema_that_changed_while_the_statement_was_out_of_the_cache() {
    let bench = Bench::new(Sqlite::memory().statement_cache(1));
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a)");
    bench.query(&mut conn, "SELECT * FROM t", &[]).expect("rows");
    bench.run(&mut conn, "ALTER TABLE t RENAME COLUMN a TO b");
    bench.query(&mut conn, "SELECT 1", &[]).expect("rows");
    let rows = bench.query(&mut conn, "SELECT * FROM t", &[]).expect("rows");
    assert_eq!(rows.columns()[0].name(), "b");
}

#[test]
fn a_cache_of_nothing_still_runs_statements() {
    let bench = Bench::new(Sqlite::memory().statement_cache(0));
    let mut conn = bench.connect();
    assert_eq!((1..4).map(|_| bench.number(&mut conn, "SELECT 5")).sum::<i64>(), 15);
}

#[test]
fn what_the_driver_returns_may_cross_threads() {
    fn spawned<T: Send>(_: T) {}
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    spawned(bench.driver.query(&mut conn, "SELECT 1", &[]));
    spawned(bench.driver.query_stream(&mut conn, "SELECT 1", &[]));
    spawned(conn.with(|_| Ok(())));
    spawned(bench.driver.close(conn));
}

/// Without it such a loop starves everything else on a runtime of one thread.
#[test]
fn a_loop_over_quick_reads_lets_other_tasks_run() {
    let (bench, mut conn) = table();
    let mut reads = Box::pin(async {
        for _ in 0..100 {
            bench.driver.query(&mut conn, "SELECT 1", &[]).await.expect("a row");
        }
    });
    let mut polls = 1;
    while poll_once(&mut reads).is_none() {
        polls += 1;
    }
    assert!(polls >= 3, "{polls} polls for 100 reads");
}
