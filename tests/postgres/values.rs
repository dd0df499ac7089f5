//! Which values go and come back.

use std::pin::pin;

use futures_util::{StreamExt, TryStreamExt};
use millpond::runtime::block_on;
use millpond::{ErrorKind, Outcome, Session, Value, params};

use super::pool;

fn list<const N: usize>(values: [Value; N]) -> Value {
    Value::Array(values.into())
}

/// Sent as a parameter of this type, it comes back as another value or the same.
async fn returned(kind: &str, value: Value) -> millpond::Result<Value> {
    let pool = pool(1).await;
    let rows = pool.query(&format!("SELECT $1::{kind}"), &[value]).await?;
    rows.first().expect("a row").value(0)
}

fn parsed<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect(text)
}

#[test]
fn values_of_every_type_come_back() {
    let decimal = |text: &str| Value::Decimal(text.into());
    let text = |text: &str| Value::from(text);
    for (kind, value) in [
        ("bool", Value::Bool(true)),
        ("int2", Value::I64(-32_768)),
        ("int4", Value::I64(i32::MAX.into())),
        ("int8", Value::I64(i64::MIN)),
        ("oid", Value::I64(u32::MAX.into())),
        ("float4", Value::F64(0.5)),
        ("float8", Value::F64(f64::MIN_POSITIVE)),
        ("numeric", decimal("-12345678901234567890.000012345")),
        ("numeric", decimal("10000")),
        ("numeric", decimal("0.0000")),
        ("numeric", decimal("NaN")),
        ("text", text("naïve")),
        ("varchar(3)", text("abc")),
        ("char(3)", text("a  ")),
        ("name", text("n")),
        ("xml", text("<a/>")),
        ("bytea", Value::Bytes([0, 255].into())),
        ("date", Value::Date(parsed("2024-02-29"))),
        ("date", Value::Date(parsed("-0043-03-15"))),
        ("date", Value::Date(parsed("+12024-01-01"))),
        ("time", Value::Time(parsed("23:59:59.999999"))),
        ("timestamp", Value::DateTime(parsed("1999-12-31T23:59:59.000001"))),
        ("timestamptz", Value::Timestamp(parsed("1969-07-20T20:17:40Z"))),
        ("timestamptz", Value::Timestamp(parsed("-0043-03-15T12:00:00Z"))),
        ("uuid", Value::Uuid([7; 16])),
        ("json", Value::Json("{\"a\": [1]}".into())),
        ("jsonb", Value::Json("{\"a\": [1]}".into())),
        ("int4[]", list(params![1, None::<i32>, 3])),
        ("int8[]", list([])),
        ("text[]", list(params!["a\"b\\c,{}", "", "NULL", None::<&str>])),
        ("int4[]", list([list(params![1, 2]), list(params![3, 4])])),
        ("bytea[]", list([Value::Bytes([1, 2].into())])),
        ("numeric[]", list([decimal("1.50")])),
        ("date[]", list([Value::Date(parsed("2024-02-29"))])),
        ("timestamptz[]", list([Value::Timestamp(parsed("2024-02-29T00:00:00Z"))])),
        ("uuid[]", list([Value::Uuid([9; 16])])),
        ("jsonb[]", list([Value::Json("{\"a\": \"b\"}".into())])),
        ("bool[]", list(params![true, false])),
        ("float8[]", list(params![0.5, f64::INFINITY])),
        ("interval", Value::Null),
    ] {
        let back = block_on(returned(kind, value.clone()));
        assert_eq!(back.unwrap_or_else(|error| panic!("{kind}: {error}")), value, "{kind}");
    }
}

#[test]
fn a_value_is_read_as_the_type_that_is_wanted() {
    for (sql, value, back) in [
        ("SELECT ($1::interval * 2)::text", Value::from("1 day"), Value::from("2 days")),
        ("SELECT ($1::inet)::text", Value::from("10.0.0.1"), Value::from("10.0.0.1/32")),
        ("SELECT $1::numeric", Value::I64(7), Value::Decimal("7".into())),
        (
            "SELECT $1::numeric",
            Value::from(u64::MAX),
            Value::Decimal("18446744073709551615".into()),
        ),
        ("SELECT $1::int4", Value::Decimal("12".into()), Value::I64(12)),
        ("SELECT $1::float8", Value::I64(3), Value::F64(3.0)),
        ("SELECT $1::uuid", Value::from("00000000-0000-0000-0000-000000000001"), {
            let mut bytes = [0; 16];
            bytes[15] = 1;
            Value::Uuid(bytes)
        }),
        ("SELECT '24:00'::time WHERE $1", Value::Bool(true), Value::from("24:00:00")),
        ("SELECT pg_sleep(0) WHERE $1", Value::Bool(true), Value::Null),
    ] {
        block_on(async {
            let rows = pool(1).await.query(sql, &[value]).await;
            let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
            assert_eq!(rows.first().expect("a row").value(0).unwrap(), back, "{sql}");
        });
    }
}

#[test]
fn types_of_ones_own_come_back() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch(
            "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        )
        .await
        .unwrap();
        let sql = "SELECT $1::mood AS m, $2::positive AS p, ARRAY[$1::mood] AS ms";
        let params = params!["glad", 7];
        for _ in 0..2 {
            let rows = pool.query(sql, &params).await.unwrap();
            let row = rows.first().expect("a row");
            assert_eq!(row.get::<String>("m").unwrap(), "glad");
            assert_eq!(row.get::<i64>("p").unwrap(), 7);
            assert_eq!(row.value("ms").unwrap(), Value::Array(params!["glad"].into()));
            assert_eq!(rows.columns()[0].type_name(), Some("mood"));
        }
        // More rows than fit between client and task, of a type nobody knows yet.
        let sql = "SELECT 'sad'::mood FROM generate_series(1, 100000)";
        let other = super::pool(1).await;
        assert_eq!(other.query(sql, &[]).await.unwrap().len(), 100_000);
        drop(other);
        pool.batch("DROP TYPE mood; DROP DOMAIN positive").await.unwrap();
    });
}

#[test]
fn a_type_without_a_value_is_an_error_that_names_column_type_and_ways_round() {
    for (kind, literal) in [
        ("interval", "'1 day'"),
        ("money", "'1.00'"),
        ("inet", "'10.0.0.1'"),
        ("timetz", "'12:00+02'"),
        ("int4range", "'[1,2)'"),
        ("point", "'(1,2)'"),
        ("record", "ROW(1)"),
    ] {
        block_on(async {
            let pool = pool(1).await;
            let sql = match kind {
                "record" => "SELECT ROW(1) AS odd".to_owned(),
                _ => format!("SELECT {literal}::{kind} AS odd"),
            };
            let mut conn = pool.acquire().await.unwrap();
            let rows = conn.query(&sql, &[]).await.unwrap();
            let error = rows.scalar::<Value>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Decode);
            let said = error.to_string();
            let place = format!("column \"odd\" ({kind}): {kind} has no neutral value");
            assert!(said.starts_with(&place), "{said}");
            assert!(said.contains("column::text") && said.contains("conn.client()"), "{said}");
        });
    }
}

#[test]
fn a_moment_without_end_is_an_error() {
    for kind in ["date", "timestamp", "timestamptz"] {
        let error = block_on(returned(kind, "infinity".into())).unwrap_err();
        assert!(error.to_string().contains("an infinite"), "{error}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_refused_before_it_is_sent() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.query("BEGIN", &[]).await.unwrap();
        for (sql, params, said) in [
            (
                "SELECT $1::int2",
                &params![70_000][..],
                "parameter 1 is 70000, which is out of range for int2",
            ),
            ("SELECT $1::oid", &params![-1], "parameter 1 is -1, which is out of range for oid"),
            (
                "SELECT $1::text, $2::text",
                &["a".into(), Value::Bytes([1].into())],
                "parameter 2 is a value of kind bytes, which text is not",
            ),
            ("SELECT $1::int2", &params![], "the statement has 1 parameters, 0 values were given"),
            ("SELECT 1", &params![1, 2], "the statement has 0 parameters, 2 values were given"),
        ] {
            let error = conn.query(sql, params).await.unwrap_err();
            assert_eq!(error.to_string(), said);
            assert_eq!(error.outcome(), Outcome::NotSent);
            // The transaction is as good as before.
            assert_eq!(millpond::Driver::session(pool.driver(), &conn), Session::InTransaction);
        }
        let error = conn.query("SELECT $1::int4", &params!["x"]).await.unwrap_err();
        assert_eq!(error.code().expect("a code").to_string(), "22P02");
    });
}

#[test]
fn a_stream_holds_the_server_back_and_ends_with_its_error() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        // Terabytes, if anybody collected them.
        let sql = "SELECT repeat('x', 1000), generate_series(1, 1000000000) AS n";
        {
            let mut rows = pin!(conn.query_stream(sql, &[]));
            for number in 1..=1000 {
                let row = rows.next().await.expect("a row").unwrap();
                assert_eq!(row.get::<i64>("n").unwrap(), number);
            }
        }
        drop(conn);
        let mut conn = pool.acquire().await.unwrap();
        let sql = "SELECT 10 / (3 - n) FROM generate_series(1, 5) AS n";
        let mut rows = pin!(conn.query_stream(sql, &[]));
        let mut got = Vec::new();
        let error = loop {
            match rows.try_next().await {
                Ok(row) => got.push(row.expect("an error before the end").get::<i64>(0).unwrap()),
                Err(error) => break error,
            }
        };
        assert_eq!(got, [5, 10]);
        assert_eq!(error.code().expect("a code").to_string(), "22012");
        assert!(rows.next().await.is_none());
    });
}

#[test]
fn the_statement_cache_is_bounded_and_takes_whatever_comes() {
    use millpond::Pool;
    use millpond::drivers::postgres::Postgres;

    block_on(async {
        for kept in [0, 3] {
            let driver = Postgres::from_url(&millpond_harness::postgres().url()).expect("a URL");
            let builder = Pool::builder(driver.statement_cache(kept)).max_open_conns(1);
            let pool = builder.build().await.unwrap();
            for round in 0..40 {
                let sql = format!("SELECT $1::int + {}", round % 8);
                let sum = pool.query(&sql, &params![1]).await.unwrap().scalar::<i64>().unwrap();
                assert_eq!(sum, 1 + round % 8);
            }
            let sql = "SELECT count(*) FROM pg_prepared_statements";
            let count = pool.query(sql, &[]).await.unwrap().scalar::<u64>().unwrap();
            assert!(count <= kept as u64 + 1, "{count} statements are prepared, of {kept}");
        }
    });
}
