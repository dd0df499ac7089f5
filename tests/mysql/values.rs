//! Which values come back, and that both forms of an answer say the same.

use millpond::{ErrorKind, PooledConnection, Value};

use super::*;

/// The value of an expression, which is the same from a statement that is sent
/// as text and from one that is prepared.
async fn value(conn: &mut PooledConnection<Mysql>, from: &str) -> Value {
    let text = conn.query(&format!("SELECT {from}"), &[]).await.expect(from);
    let sql = format!("SELECT {from} WHERE ? = 1");
    let prepared = conn.query(&sql, &millpond::params![1]).await.expect(from);
    let (text, prepared) = (text.scalar::<Value>(), prepared.scalar::<Value>());
    let text = text.expect(from);
    assert_eq!(text, prepared.expect(from), "{from}");
    text
}

#[test]
fn every_type_has_its_value_in_both_forms() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.batch(
            "SET sql_mode = '';
             CREATE OR REPLACE TABLE every (
                 t1 TINYINT(1), t2 TINYINT(1), t4 TINYINT, tu TINYINT UNSIGNED, s SMALLINT,
                 m MEDIUMINT, i INT, iu INT UNSIGNED, b BIGINT, bu BIGINT UNSIGNED, y YEAR,
                 f FLOAT, d DOUBLE, n DECIMAL(20, 4), b1 BIT(1), b10 BIT(10),
                 c CHAR(5), v VARCHAR(50), x TEXT, e ENUM('small', 'large'), st SET('a', 'b'),
                 bi BINARY(4), vb VARBINARY(10), bl BLOB,
                 da DATE, z DATE, ti TIME(6), tl TIME, tn TIME(2), dt DATETIME(3), zt DATETIME,
                 ts TIMESTAMP(6) NULL, j JSON, l VARCHAR(5) CHARACTER SET latin1)
                 ENGINE = InnoDB CHARACTER SET utf8mb4;
             INSERT INTO every VALUES (
                 1, 2, -128, 255, -32768, 8388607, -2147483648, 4294967295, -9223372036854775808,
                 18446744073709551615, 2024, 0.25, 0.1, -12.5, 1, 1023,
                 'abc', 'größer 🦀', 'text', 'large', 'a,b',
                 'ab', 0xff00, 0x00ff80, '2024-02-29', '0000-00-00', '13:45:07.25', '838:59:59',
                 '-01:00:00.5', '2024-02-29 13:45:07.125', '0000-00-00 00:00:00',
                 '2024-02-29 13:45:07.25', '{\"a\": 1}', 'é')",
        )
        .await
        .unwrap();
        let moment = |text: &str| Value::DateTime(text.parse().expect("a moment"));
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.into());
        for (column, expected) in [
            ("t1", Value::Bool(true)),
            ("t2", Value::I64(2)),
            ("t4", Value::I64(-128)),
            ("tu", Value::I64(255)),
            ("s", Value::I64(-32_768)),
            ("m", Value::I64(8_388_607)),
            ("i", Value::I64(i32::MIN.into())),
            ("iu", Value::I64(u32::MAX.into())),
            ("b", Value::I64(i64::MIN)),
            ("bu", Value::U64(u64::MAX)),
            ("y", Value::I64(2024)),
            ("f", Value::F64(0.25)),
            ("d", Value::F64(0.1)),
            ("n", Value::Decimal("-12.5000".into())),
            ("b1", Value::Bool(true)),
            ("b10", Value::I64(1023)),
            ("c", Value::from("abc")),
            ("v", Value::from("größer 🦀")),
            ("x", Value::from("text")),
            ("e", Value::from("large")),
            ("st", Value::from("a,b")),
            ("bi", bytes(b"ab\0\0")),
            ("vb", bytes(b"\xff\0")),
            ("bl", bytes(b"\0\xff\x80")),
            ("da", Value::Date("2024-02-29".parse().expect("a day"))),
            ("z", Value::from("0000-00-00")),
            ("ti", Value::Time("13:45:07.25".parse().expect("a time"))),
            ("tl", Value::from("838:59:59")),
            ("tn", Value::from("-01:00:00.500000")),
            ("dt", moment("2024-02-29 13:45:07.125")),
            ("zt", Value::from("0000-00-00 00:00:00")),
            ("ts", Value::Timestamp("2024-02-29T13:45:07.25Z".parse().expect("a stamp"))),
            ("j", Value::from(r#"{"a": 1}"#)),
            ("l", Value::from("é")),
        ] {
            assert_eq!(
                value(&mut conn, &format!("{column} FROM every")).await,
                expected,
                "{column}"
            );
        }
    });
}

#[test]
fn a_type_without_a_value_is_an_error_that_names_the_column() {
    block_on(async {
        let pool = pool(1).await;
        let rows = pool.query("SELECT ST_GeomFromText('POINT(1 2)') AS place, 7 AS n", &[]);
        let rows = rows.await.unwrap();
        let row = rows.first().expect("a row");
        // What nobody reads is no error.
        assert_eq!(row.get::<i64>("n").unwrap(), 7);
        let error = row.value("place").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Decode);
        for part in ["\"place\"", "GEOMETRY", "ST_AsText", "client()"] {
            assert!(error.message().contains(part), "{error}");
        }
    });
}

#[test]
fn a_uuid_is_compared_as_the_bytes_it_is_stored_as() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE OR REPLACE TABLE keyed (id BINARY(16) PRIMARY KEY)").await.unwrap();
        let id = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
        let key = [Value::Uuid(id)];
        pool.query("INSERT INTO keyed VALUES (?)", &key).await.unwrap();
        let rows = pool.query("SELECT id FROM keyed WHERE id = ?", &key).await.unwrap();
        assert_eq!(rows.scalar::<Value>().unwrap(), Value::Bytes(id.into()));
    });
}

#[test]
fn columns_say_their_types() {
    block_on(async {
        let pool = pool(1).await;
        let sql = "SELECT 1 AS a, 'x' AS b, CAST(1 AS UNSIGNED) AS c, NOW() AS d, NULL AS e";
        let rows = pool.query(sql, &[]).await.unwrap();
        let told: Vec<_> = rows.columns().iter().filter_map(|column| column.type_name()).collect();
        assert_eq!(told, ["INT", "VARCHAR", "INT UNSIGNED", "DATETIME", "NULL"]);
    });
}
