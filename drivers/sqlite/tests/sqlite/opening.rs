//! Opening databases, and what keeps one in memory.

use std::fs;

use futures_executor::block_on;
use millpond_driver::{Cause, Driver, Error, ErrorKind, Outcome, Session};
use millpond_sqlite::{JournalMode, Mode, Sqlite, Synchronous};

use crate::support::{Bench, Folder};

fn refused(driver: Sqlite) -> Error {
    let error = block_on(Bench::new(driver).try_connect()).expect_err("refused");
    assert_eq!(error.outcome(), Outcome::NotSent);
    error
}

#[test]
fn a_file_is_created_with_the_defaults_that_suit_a_service() {
    let folder = Folder::new();
    let bench = Bench::new(Sqlite::file(folder.join("new.db")));
    let mut conn = bench.connect();
    let journal = bench.query(&mut conn, "PRAGMA journal_mode", &[]).expect("a mode");
    assert_eq!(journal.scalar::<String>().expect("text"), "wal");
    assert_eq!(bench.number(&mut conn, "PRAGMA synchronous"), 1);
    assert_eq!(bench.number(&mut conn, "PRAGMA foreign_keys"), 1);
    assert_eq!(bench.driver.session(&conn), Session::Clean);
    let server = bench.driver.server(&conn);
    assert_eq!((&*server.system, bench.driver.name()), ("sqlite", "sqlite"));
    assert!(server.version.starts_with("3."));
}

#[test]
fn options_reach_the_connection() {
    let folder = Folder::new();
    let driver = Sqlite::file(folder.join("a.db"))
        .journal_mode(JournalMode::Truncate)
        .synchronous(Synchronous::Extra)
        .foreign_keys(false);
    let bench = Bench::new(driver);
    let mut conn = bench.connect();
    let journal = bench.query(&mut conn, "PRAGMA journal_mode", &[]).expect("a mode");
    assert_eq!(journal.scalar::<String>().expect("text"), "truncate");
    assert_eq!(bench.number(&mut conn, "PRAGMA synchronous"), 3);
    assert_eq!(bench.number(&mut conn, "PRAGMA foreign_keys"), 0);
}

#[test]
fn what_cannot_be_opened_is_permanent_and_named() {
    let folder = Folder::new();
    let absent = folder.join("absent.db");
    fs::write(folder.join("letter.txt"), "Dear reader, this is no database at all. ".repeat(40))
        .expect("a file");
    for (driver, path, why) in [
        (Sqlite::file(&absent).mode(Mode::ReadWrite), "absent.db", "the file does not exist"),
        (Sqlite::file(&absent).mode(Mode::ReadOnly), "absent.db", "the file does not exist"),
        (Sqlite::file(folder.join("no/a.db")), "no/a.db", "its folder does not exist"),
        (Sqlite::file(folder.join("")), "", "it is a folder"),
        (Sqlite::file(folder.join("letter.txt")), "letter.txt", "the file is not a database"),
    ] {
        let error = refused(driver);
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Connect, Cause::Config), "{error:?}");
        assert!(error.is_permanent());
        assert!(error.message().contains(path) && error.message().ends_with(why), "{error}");
    }
    assert!(!absent.exists());
}

#[test]
fn a_database_locked_by_others_is_told_and_may_be_tried_again() {
    let folder = Folder::new();
    let path = folder.join("a.db");
    let first = Bench::new(Sqlite::file(&path));
    let _holds_the_log = first.connect();
    let driver = Sqlite::file(&path).journal_mode(JournalMode::Delete);
    let error = refused(driver.busy_timeout(std::time::Duration::ZERO));
    assert_eq!(error.cause(), Cause::LockTimeout);
    assert!(!error.is_permanent());
    assert!(error.message().ends_with("it is locked"), "{error}");
}

#[test]
fn a_database_in_memory_is_shared_by_its_driver_and_by_nobody_else() {
    let bench = Bench::new(Sqlite::memory());
    let (mut one, mut two) = (bench.connect(), bench.connect());
    bench.run(&mut one, "CREATE TABLE t (a); INSERT INTO t VALUES (7)");
    assert_eq!(bench.number(&mut two, "SELECT a FROM t"), 7);

    let other = Bench::new(Sqlite::memory());
    let mut stranger = other.connect();
    other.query(&mut stranger, "SELECT a FROM t", &[]).expect_err("another database");
}

#[test]
fn a_database_in_memory_outlives_its_connections_and_ends_with_its_driver() {
    let bench = Bench::new(Sqlite::memory());
    let mut conn = bench.connect();
    bench.run(&mut conn, "CREATE TABLE t (a); INSERT INTO t VALUES (7)");
    let sql = "SELECT file FROM pragma_database_list WHERE name = 'main'";
    bench.query(&mut conn, sql, &[]).expect("a name");
    block_on(bench.driver.close(conn));

    let clone = Bench::new(bench.driver.clone());
    drop(bench);
    let mut conn = clone.connect();
    assert_eq!(clone.number(&mut conn, "SELECT a FROM t"), 7);
}

#[test]
fn a_read_only_file_is_read_and_says_that_it_takes_no_writes() {
    let folder = Folder::new();
    let path = folder.join("a.db");
    let owner = Bench::new(Sqlite::file(&path));
    let mut conn = owner.connect();
    owner.run(&mut conn, "CREATE TABLE t (a); INSERT INTO t VALUES (7)");
    assert_eq!(block_on(owner.driver.status(&mut conn)).expect("a status").writable, Some(true));

    let reader = Bench::new(Sqlite::file(&path).mode(Mode::ReadOnly));
    let mut conn = reader.connect();
    assert_eq!(reader.number(&mut conn, "SELECT a FROM t"), 7);
    assert_eq!(block_on(reader.driver.status(&mut conn)).expect("a status").writable, Some(false));
    let error = reader.query(&mut conn, "DELETE FROM t", &[]).expect_err("read-only");
    assert_eq!(error.cause(), Cause::WrongRole);
}

#[test]
fn debug_names_the_place_and_prints_nothing_else_of_it() {
    let shown = format!("{:?}", Sqlite::memory());
    assert!(shown.starts_with("Sqlite(a database in memory, "), "{shown}");
    assert!(format!("{:?}", Sqlite::file("a.db")).starts_with("Sqlite(\"a.db\", "));
    let conn = Bench::new(Sqlite::memory()).connect();
    assert_eq!(format!("{conn:?}"), "SqliteConnection(Clean)");
}
