//! Values there and back.

use millpond_driver::{Code, Error, Outcome, Value, params};
use millpond_sqlite::{Sqlite, SqliteConnection};

use crate::support::Bench;

fn memory() -> (Bench, SqliteConnection) {
    let bench = Bench::new(Sqlite::memory());
    let conn = bench.connect();
    (bench, conn)
}

#[test]
fn every_value_comes_back_from_a_column_of_its_type() {
    let (bench, mut conn) = memory();
    let moment = "2024-02-29T13:45:07.250000";
    for (declared, value) in [
        ("BOOLEAN", Value::Bool(true)),
        ("INTEGER", Value::I64(i64::MIN)),
        ("REAL", Value::F64(0.1)),
        ("TEXT", Value::from("grüße")),
        ("BLOB", Value::Bytes([0, 255].into())),
        ("DATE", Value::Date("2024-02-29".parse().expect("a date"))),
        ("TIME", Value::Time("13:45:07.25".parse().expect("a time"))),
        ("DATETIME", Value::DateTime(moment.parse().expect("a moment"))),
        ("TIMESTAMP", Value::Timestamp(format!("{moment}Z").parse().expect("a stamp"))),
        ("UUID", Value::Uuid([7; 16])),
        ("JSON", Value::Json(r#"{"a": 1}"#.into())),
        ("TEXT", Value::Null),
    ] {
        bench.run(&mut conn, &format!("DROP TABLE IF EXISTS t; CREATE TABLE t (v {declared})"));
        let stored =
            bench.query(&mut conn, "INSERT INTO t VALUES (?)", std::slice::from_ref(&value));
        stored.expect(declared);
        let rows = bench.query(&mut conn, "SELECT v FROM t", &[]).expect(declared);
        assert_eq!(rows.scalar::<Value>().expect(declared), value, "{declared}");
        assert_eq!(rows.columns()[0].type_name(), Some(declared));
    }
}

#[test]
fn a_decimal_keeps_its_digits_in_a_text_column() {
    let (bench, mut conn) = memory();
    bench.run(&mut conn, "CREATE TABLE t (v TEXT)");
    let price = Value::Decimal("19.90".into());
    bench.query(&mut conn, "INSERT INTO t VALUES (?)", &[price]).expect("stored");
    let rows = bench.query(&mut conn, "SELECT v FROM t", &[]).expect("rows");
    assert_eq!(rows.scalar::<String>().expect("text"), "19.90");
}

#[test]
fn sqlites_own_moments_are_read_and_compare_with_ours() {
    let (bench, mut conn) = memory();
    bench.run(&mut conn, "CREATE TABLE t (at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, n)");
    bench.run(&mut conn, "INSERT INTO t (n) VALUES (1)");
    let rows = bench.query(&mut conn, "SELECT at FROM t", &[]).expect("rows");
    let at = rows.scalar::<Value>().expect("a value");
    assert_eq!(at.kind(), "timestamp");
    let sql = "SELECT count(*) FROM t WHERE at = ?";
    let rows = bench.query(&mut conn, sql, &[at]).expect("rows");
    assert_eq!(rows.scalar::<i64>().expect("a number"), 1);
}

fn refused(sql: &str, params: &[Value]) -> Error {
    let (bench, mut conn) = memory();
    let error = bench.query(&mut conn, sql, params).expect_err(sql);
    assert_eq!(error.outcome(), Outcome::Rejected);
    assert_eq!(bench.number(&mut conn, "SELECT 1"), 1);
    error
}

#[test]
fn a_wrong_number_of_parameters_is_told_with_both_numbers() {
    for sql in ["SELECT ?, ?", "PRAGMA user_version", "CREATE TABLE t (a)"] {
        let error = refused(sql, &params![1, 2, 3]);
        assert!(error.message().ends_with("parameters, 3 values were given"), "{error}");
    }
    assert_eq!(
        refused("SELECT ?1 + ?2", &params![1]).to_string(),
        "the statement has 2 parameters, 1 values were given"
    );
}

#[test]
fn a_value_sqlite_lacks_is_told_with_its_parameter() {
    for (value, message) in [
        (
            Value::Array([].into()),
            "parameter 2 is a value of kind array, which SQLite does not have",
        ),
        (
            Value::U64(u64::MAX),
            "parameter 2 is 18446744073709551615, and SQLite's integers end at 9223372036854775807",
        ),
        (Value::F64(f64::NAN), "parameter 2 is NaN, which SQLite stores as null"),
    ] {
        assert_eq!(refused("SELECT ?, ?", &[Value::Null, value]).to_string(), message);
    }
}

#[test]
fn several_statements_are_refused_with_the_way_to_run_them() {
    for sql in ["SELECT 1; SELECT 2", "CREATE TABLE t (a); DROP TABLE t"] {
        assert!(refused(sql, &[]).message().contains("batch runs them all"));
    }
    assert_eq!(refused(" -- nothing", &[]).to_string(), "the statement is empty");
}

#[test]
fn a_mistake_in_the_statement_is_told_with_its_place_and_code() {
    let error = refused("SELECT 1 FORM t", &[]);
    // Where it is, only newer libraries say.
    let place = if cfg!(feature = "bundled") { " at byte 14" } else { "" };
    assert_eq!(error.to_string(), format!("near \"t\": syntax error{place} (1)"));
    assert_eq!(error.code(), Some(&Code::Number(1)));
}

#[test]
fn changes_and_ids_are_told() {
    let (bench, mut conn) = memory();
    let mut told = |sql: &str| {
        let rows = bench.query(&mut conn, sql, &[]).expect(sql);
        (rows.affected(), rows.last_insert_id(), rows.len())
    };
    assert_eq!(told("CREATE TABLE t (id INTEGER PRIMARY KEY, n)"), (Some(0), None, 0));
    assert_eq!(told("INSERT INTO t (n) VALUES (1), (2)"), (Some(2), Some(2), 0));
    assert_eq!(told("INSERT INTO t (n) VALUES (3) RETURNING n"), (Some(1), Some(3), 1));
    assert_eq!(told("INSERT OR IGNORE INTO t VALUES (1, 1)"), (Some(0), None, 0));
    assert_eq!(told("UPDATE t SET n = 9 WHERE id > 1"), (Some(2), None, 0));
    assert_eq!(told("CREATE INDEX i ON t (n)"), (Some(0), None, 0));
    assert_eq!(told("DELETE FROM t"), (Some(3), None, 0));
    assert_eq!(told("SELECT * FROM t"), (None, None, 0));
    assert_eq!(told("BEGIN"), (None, None, 0));
}

#[test]
fn columns_are_known_without_rows() {
    let (bench, mut conn) = memory();
    bench.run(&mut conn, "CREATE TABLE t (id INTEGER, at DATE)");
    let rows = bench.query(&mut conn, "SELECT id, at AS day FROM t", &[]).expect("rows");
    let columns: Vec<_> = rows.columns().iter().map(|c| (c.name(), c.type_name())).collect();
    assert_eq!(columns, [("id", Some("INTEGER")), ("day", Some("DATE"))]);
}
