//! Claims about statements and their answers.
//!
//! Knows what every database answers. Drops nothing half-way: those claims are
//! in `dropped`.

use std::pin::pin;

use futures_util::TryStreamExt;
use millpond_driver::{Date, DateTime, Fate, Outcome, Session, Time, Timestamp, Value};

use super::lab::{Lab, Stop, Table, Verdict, ensure};
use super::subject::{Ability, Subject};

/// Rows enough to come in more than one piece.
const MANY: u32 = 1000;

/// The kinds of values there are, but for null, which goes with each.
pub(super) const KINDS: [&str; 14] = [
    "bool",
    "i64",
    "u64",
    "f64",
    "decimal",
    "text",
    "bytes",
    "date",
    "time",
    "datetime",
    "timestamp",
    "uuid",
    "json",
    "array",
];

pub(super) async fn a_connection_answers_and_says_who_it_is<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    conn.ping().await?;
    let system = conn.server().system;
    ensure!(!system.is_empty(), "the server has no name");
    lab.told(&pool, &conn, Session::Clean, "after a ping")?;
    lab.own_rows(&mut conn).await
}

pub(super) async fn every_statement_gets_its_own_answer<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(2).await?;
    let (mut one, mut other) = (pool.acquire().await?, pool.acquire().await?);
    for _ in 0..10 {
        lab.own_rows(&mut one).await?;
        lab.own_rows(&mut other).await?;
    }
    Ok(())
}

pub(super) async fn an_empty_answer_has_columns<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(1).await?;
    let table = lab.table(&pool, Table::NUMBERS).await?;
    let rows = pool.query(&format!("SELECT n, n FROM {}", table.name), &[]).await?;
    ensure!(rows.is_empty(), "an empty table gives {} rows", rows.len());
    let columns = rows.columns();
    ensure!(
        columns.len() == 2 && columns[0].name() == "n",
        "without rows the columns are {columns:?}, not n and n"
    );
    lab.remove(&pool, &table).await
}

pub(super) async fn a_change_tells_how_many_rows_it_affected<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(1).await?;
    let table = lab.table(&pool, Table::NUMBERS).await?;
    let name = &table.name;
    for (sql, expected) in [
        (format!("INSERT INTO {name} (n) VALUES (1), (2), (3)"), 3),
        (format!("UPDATE {name} SET n = n + 10 WHERE n > 1"), 2),
        (format!("UPDATE {name} SET n = n + 10 WHERE n > 100"), 0),
        (format!("DELETE FROM {name}"), 3),
    ] {
        let affected = pool.query(&sql, &[]).await?.affected();
        ensure!(affected == Some(expected), "{sql} tells {affected:?}, not {expected}");
    }
    lab.remove(&pool, &table).await
}

pub(super) async fn an_insert_tells_the_generated_id<S: Subject>(lab: &Lab<S>) -> Verdict {
    lab.needs(Ability::Tables)?;
    let column = lab.given("column with generated ids", lab.subject.generated_id())?.to_owned();
    let pool = lab.pool(1).await?;
    let table = lab.table(&pool, &format!("id {column}, n BIGINT")).await?;
    for _ in 0..2 {
        let told = pool.query(&table.insert(), &[]).await?.last_insert_id();
        let newest = format!("SELECT max(id) FROM {}", table.name);
        let stored = pool.query(&newest, &[]).await?.scalar::<u64>()?;
        ensure!(told == Some(stored), "the id {stored} is told as {told:?}");
    }
    lab.remove(&pool, &table).await
}

pub(super) async fn a_refused_statement_leaves_the_connection_usable<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    let id = conn.id();
    let refused = lab.subject.refused();
    let error = match conn.query(&refused, &[]).await {
        Ok(rows) => return Err(Stop::failed(format_args!("not refused: {rows:?}"))),
        Err(error) => error,
    };
    let said = (error.outcome(), error.fate());
    ensure!(
        said == (Outcome::Rejected, Fate::Reusable),
        "outcome and fate are {said:?}, not rejected and reusable: {error:?}"
    );
    lab.told(&pool, &conn, Session::Clean, "after a refusal")?;
    lab.own_rows(&mut conn).await?;
    drop(conn);
    let conn = lab.next(&pool).await?;
    ensure!(conn.id() == id, "the connection was closed for a refusal");
    Ok(())
}

pub(super) async fn a_batch_runs_all_its_statements<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(1).await?;
    let table = lab.table(&pool, Table::NUMBERS).await?;
    let insert = table.insert();
    pool.batch(&format!("{insert}; {insert};\n{insert};")).await?;
    let mut conn = lab.next(&pool).await?;
    let count = table.count(&mut conn).await?;
    ensure!(count == 3, "of three statements {count} ran");
    drop(conn);
    lab.remove(&pool, &table).await
}

pub(super) async fn a_stream_yields_all_rows_in_order<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    for count in [1, MANY] {
        let sql = lab.given("statement of many rows", lab.subject.rows(count))?;
        let mut expected = 1;
        {
            let mut rows = pin!(conn.query_stream(&sql, &[]));
            while let Some(row) = rows.try_next().await? {
                let number: u32 = row.get(0)?;
                ensure!(number == expected, "row {expected} of {count} is {number}");
                expected += 1;
            }
        }
        ensure!(expected == count + 1, "{} rows of {count}", expected - 1);
        lab.told(&pool, &conn, Session::Clean, "after a stream has ended")?;
        lab.own_rows(&mut conn).await?;
    }
    Ok(())
}

/// Values of one kind, and null, go into a column and come out the same.
pub(super) async fn values_come_back<S: Subject>(lab: &Lab<S>, kind: &'static str) -> Verdict {
    lab.needs(Ability::Tables)?;
    let column =
        lab.given(&format!("column for values of kind {kind}"), lab.subject.column(kind))?;
    let columns = format!("number BIGINT, v {column}");
    let pool = lab.pool(1).await?;
    let table = lab.table(&pool, &columns).await?;
    let insert = format!(
        "INSERT INTO {} (number, v) VALUES ({}, {})",
        table.name,
        lab.subject.placeholder(1),
        lab.subject.placeholder(2)
    );
    let select =
        format!("SELECT v FROM {} WHERE number = {}", table.name, lab.subject.placeholder(1));
    for (number, value) in (1..).zip(samples(kind)) {
        pool.query(&insert, &[Value::I64(number), value.clone()]).await?;
        let back: Value = pool.query(&select, &[Value::I64(number)]).await?.scalar()?;
        ensure!(back == value, "{value:?} came back from a {column} as {back:?}");
    }
    lab.remove(&pool, &table).await
}

fn samples(kind: &str) -> Vec<Value> {
    let moment = DateTime::new(
        Date::new(2024, 2, 29).expect("a leap day"),
        Time::from_micros(49_507_250_000).expect("before midnight"),
    );
    let stamp = Timestamp::from_utc(moment).expect("within range");
    let mut samples = match kind {
        "bool" => vec![Value::Bool(true), Value::Bool(false)],
        "i64" => [0, -1, i64::MIN, i64::MAX].map(Value::I64).into(),
        "u64" => vec![Value::U64(u64::MAX)],
        "f64" => [0.1, -2.5e200, 0.0].map(Value::F64).into(),
        "decimal" => ["12.50", "-0.01"].map(|text| Value::Decimal(text.into())).into(),
        "text" => ["", "it's", "?1 $1 %s \\", "größer als ∅ 🦀"].map(Value::from).into(),
        "bytes" => [&b""[..], b"\0\xff\x80'\\"].map(|bytes| Value::Bytes(bytes.into())).into(),
        "date" => vec![Value::Date(moment.date())],
        "time" => vec![Value::Time(moment.time())],
        "datetime" => vec![Value::DateTime(moment)],
        "timestamp" => vec![Value::Timestamp(stamp)],
        "uuid" => {
            vec![Value::Uuid(*b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff")]
        }
        "json" => vec![Value::Json(r#"{"a": [1, "b"]}"#.into())],
        "array" => vec![Value::Array([1, 2, 3].map(Value::I64).into())],
        other => unreachable!("the list of kinds has no {other}"),
    };
    samples.push(Value::Null);
    samples
}
