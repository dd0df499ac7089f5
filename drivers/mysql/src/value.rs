//! Translates values: parameters to the client's, cells to ours.
//!
//! Decides what a cell is by the type of its column, alike for the two forms in
//! which a server sends it. Does not know which statement it belongs to.

use std::fmt;

use millpond_driver::{Date, DateTime, Error, Result, Time, Timestamp, Value};
use mysql_async::consts::{ColumnFlags, ColumnType};
use mysql_async::{Column, Params, Value as Native};

/// The number of the character set that means bytes.
const BINARY: u16 = 63;

/// Parameters as the client takes them; none if there are none.
pub(crate) fn encode(params: &[Value]) -> Result<Params> {
    if params.is_empty() {
        return Ok(Params::Empty);
    }
    let values = (1..).zip(params).map(|(number, value)| encode_one(number, value));
    values.collect::<Result<_>>().map(Params::Positional)
}

fn encode_one(number: usize, value: &Value) -> Result<Native> {
    Ok(match value {
        Value::Null => Native::NULL,
        Value::Bool(value) => Native::Int((*value).into()),
        Value::I64(value) => Native::Int(*value),
        Value::U64(value) => Native::UInt(*value),
        Value::F64(value) if value.is_finite() => Native::Double(*value),
        Value::F64(value) => {
            return Err(unfit(number, format_args!("{value}, which MySQL does not store")));
        }
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => {
            Native::Bytes(text.as_bytes().into())
        }
        Value::Bytes(bytes) => Native::Bytes(bytes.to_vec()),
        Value::Uuid(bytes) => Native::Bytes(bytes.into()),
        Value::Date(date) => moment(number, DateTime::new(*date, Time::MIDNIGHT))?,
        Value::Time(time) => {
            Native::Time(false, 0, time.hour(), time.minute(), time.second(), time.microsecond())
        }
        Value::DateTime(time) => moment(number, *time)?,
        Value::Timestamp(stamp) => moment(number, stamp.utc())?,
        other => {
            return Err(unfit(
                number,
                format_args!("a value of kind {}, which MySQL does not have", other.kind()),
            ));
        }
    })
}

fn moment(number: usize, moment: DateTime) -> Result<Native> {
    let (time, (year, month, day)) = (moment.time(), moment.date().ymd());
    let year = u16::try_from(year).ok().filter(|year| *year <= 9999).ok_or_else(|| {
        unfit(number, format_args!("in the year {year}, and MySQL's years are 0 to 9999"))
    })?;
    Ok(Native::Date(
        year,
        month,
        day,
        time.hour(),
        time.minute(),
        time.second(),
        time.microsecond(),
    ))
}

#[cold]
fn unfit(number: usize, what: impl fmt::Display) -> Error {
    Error::statement(format!("parameter {number} is {what}"))
}

/// The value of a cell.
pub(crate) fn decode(column: &Column, cell: &Native) -> Result<Value> {
    use ColumnType::{
        MYSQL_TYPE_BIT, MYSQL_TYPE_DATE, MYSQL_TYPE_DATETIME, MYSQL_TYPE_DATETIME2,
        MYSQL_TYPE_DECIMAL, MYSQL_TYPE_DOUBLE, MYSQL_TYPE_FLOAT, MYSQL_TYPE_GEOMETRY,
        MYSQL_TYPE_JSON, MYSQL_TYPE_NEWDATE, MYSQL_TYPE_NEWDECIMAL, MYSQL_TYPE_TIME,
        MYSQL_TYPE_TIME2, MYSQL_TYPE_TIMESTAMP, MYSQL_TYPE_TIMESTAMP2, MYSQL_TYPE_TYPED_ARRAY,
        MYSQL_TYPE_UNKNOWN, MYSQL_TYPE_VECTOR,
    };

    match (column.column_type(), cell) {
        (_, Native::NULL) => Ok(Value::Null),
        (
            MYSQL_TYPE_GEOMETRY | MYSQL_TYPE_VECTOR | MYSQL_TYPE_TYPED_ARRAY | MYSQL_TYPE_UNKNOWN,
            _,
        ) => Err(unmapped(column)),
        (_, Native::Int(value)) => Ok(integer(column, *value)),
        (_, Native::UInt(value)) => Ok(Value::from(*value)),
        (_, Native::Float(value)) => Ok(Value::F64((*value).into())),
        (_, Native::Double(value)) => Ok(Value::F64(*value)),
        (kind, &Native::Date(year, month, day, hour, minute, second, micro)) => {
            let date = (year, month, day);
            let time = Time::new(hour, minute, second, micro);
            Ok(dated(kind, date, time, || match kind {
                MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => format!("{year:04}-{month:02}-{day:02}"),
                _ => {
                    let clock = clock(hour.into(), minute, second, micro);
                    format!("{year:04}-{month:02}-{day:02} {clock}")
                }
            }))
        }
        (_, &Native::Time(negative, days, hours, minutes, seconds, micros)) => {
            let hours = days.saturating_mul(24).saturating_add(hours.into());
            Ok(span(negative, hours, minutes, seconds, micros))
        }
        (MYSQL_TYPE_BIT, Native::Bytes(bytes)) => bits(column, bytes),
        (kind, Native::Bytes(bytes)) => {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return Ok(Value::Bytes(bytes.as_slice().into()));
            };
            let value = match kind {
                MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => Some(Value::Decimal(text.into())),
                MYSQL_TYPE_JSON => Some(Value::Json(text.into())),
                MYSQL_TYPE_FLOAT => text.parse::<f32>().ok().map(|value| Value::F64(value.into())),
                MYSQL_TYPE_DOUBLE => text.parse().ok().map(Value::F64),
                MYSQL_TYPE_DATE
                | MYSQL_TYPE_NEWDATE
                | MYSQL_TYPE_DATETIME
                | MYSQL_TYPE_DATETIME2
                | MYSQL_TYPE_TIMESTAMP
                | MYSQL_TYPE_TIMESTAMP2 => written_date(kind, text),
                MYSQL_TYPE_TIME | MYSQL_TYPE_TIME2 => written_span(text),
                kind if is_integer(kind) => written_integer(column, text),
                _ if column.character_set() == BINARY => {
                    Some(Value::Bytes(bytes.as_slice().into()))
                }
                _ => Some(Value::Text(text.into())),
            };
            value.ok_or_else(|| {
                Error::decode("the server wrote it in a way that its type does not have")
            })
        }
    }
}

fn is_integer(kind: ColumnType) -> bool {
    use ColumnType::{
        MYSQL_TYPE_INT24, MYSQL_TYPE_LONG, MYSQL_TYPE_LONGLONG, MYSQL_TYPE_SHORT, MYSQL_TYPE_TINY,
        MYSQL_TYPE_YEAR,
    };
    matches!(
        kind,
        MYSQL_TYPE_TINY
            | MYSQL_TYPE_SHORT
            | MYSQL_TYPE_INT24
            | MYSQL_TYPE_LONG
            | MYSQL_TYPE_LONGLONG
            | MYSQL_TYPE_YEAR
    )
}

fn integer(column: &Column, value: i64) -> Value {
    match value {
        0 | 1 if is_bool(column) => Value::Bool(value == 1),
        _ => Value::I64(value),
    }
}

fn written_integer(column: &Column, text: &str) -> Option<Value> {
    let signed = text.parse().ok().map(|value| integer(column, value));
    signed.or_else(|| text.parse::<u64>().ok().map(Value::from))
}

/// `BOOL` and `BOOLEAN` are `TINYINT(1)` to the server.
fn is_bool(column: &Column) -> bool {
    column.column_type() == ColumnType::MYSQL_TYPE_TINY
        && column.column_length() == 1
        && !column.flags().contains(ColumnFlags::UNSIGNED_FLAG)
}

/// `BIT(1)` is a bool, longer ones are numbers.
fn bits(column: &Column, bytes: &[u8]) -> Result<Value> {
    if bytes.len() > 8 {
        return Err(unmapped(column));
    }
    let number = bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    Ok(match column.column_length() {
        1 => Value::Bool(number == 1),
        _ => Value::from(number),
    })
}

/// A day, or a moment of one. Zero dates and days that no calendar has come as
/// the server writes them.
fn dated(
    kind: ColumnType,
    (year, month, day): (u16, u8, u8),
    time: Option<Time>,
    written: impl FnOnce() -> String,
) -> Value {
    use ColumnType::{
        MYSQL_TYPE_DATE, MYSQL_TYPE_NEWDATE, MYSQL_TYPE_TIMESTAMP, MYSQL_TYPE_TIMESTAMP2,
    };

    let date = Date::new(year.into(), month, day);
    let value = date.zip(time).and_then(|(date, time)| match kind {
        MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => Some(Value::Date(date)),
        MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => {
            Timestamp::from_utc(DateTime::new(date, time)).map(Value::Timestamp)
        }
        _ => Some(Value::DateTime(DateTime::new(date, time))),
    });
    value.unwrap_or_else(|| Value::Text(written().into()))
}

/// Reads `2024-02-29` or `2024-02-29 13:45:07.25`.
fn written_date(kind: ColumnType, text: &str) -> Option<Value> {
    let (day, time) = text.split_once(' ').map_or((text, None), |(day, time)| (day, Some(time)));
    let mut parts = day.splitn(3, '-');
    let date =
        (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let time = time.map_or(Some(Time::MIDNIGHT), |time| time.parse().ok());
    Some(dated(kind, date, time, || text.to_owned()))
}

/// A time of day, or a longer or negative span, which comes as text.
fn span(negative: bool, hours: u32, minutes: u8, seconds: u8, micros: u32) -> Value {
    let time = u8::try_from(hours).ok().and_then(|hour| Time::new(hour, minutes, seconds, micros));
    match time.filter(|_| !negative) {
        Some(time) => Value::Time(time),
        None => {
            let sign = if negative { "-" } else { "" };
            Value::Text(format!("{sign}{}", clock(hours, minutes, seconds, micros)).into())
        }
    }
}

/// Reads `13:45:07.25` and `-838:59:59`.
fn written_span(text: &str) -> Option<Value> {
    let (negative, clock) = text.strip_prefix('-').map_or((false, text), |clock| (true, clock));
    let (hours, rest) = clock.split_once(':')?;
    // The rest is a time of day in the first hour.
    let rest: Time = format!("00:{rest}").parse().ok()?;
    let hours = hours.parse().ok()?;
    Some(span(negative, hours, rest.minute(), rest.second(), rest.microsecond()))
}

fn clock(hours: u32, minutes: u8, seconds: u8, micros: u32) -> String {
    let clock = format!("{hours:02}:{minutes:02}:{seconds:02}");
    if micros == 0 { clock } else { format!("{clock}.{micros:06}") }
}

#[cold]
fn unmapped(column: &Column) -> Error {
    Error::decode(format!(
        "millpond has no value for {}; convert it in SQL, as with ST_AsText, or read it with the \
         client itself, from `conn.client()`",
        type_name(column)
    ))
}

/// The type as SQL writes it.
pub(crate) fn type_name(column: &Column) -> &'static str {
    use ColumnType::*;

    let unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
    let binary = column.character_set() == BINARY;
    let pick = |one: bool, yes, no| if one { yes } else { no };
    match column.column_type() {
        MYSQL_TYPE_TINY if is_bool(column) => "TINYINT(1)",
        MYSQL_TYPE_TINY => pick(unsigned, "TINYINT UNSIGNED", "TINYINT"),
        MYSQL_TYPE_SHORT => pick(unsigned, "SMALLINT UNSIGNED", "SMALLINT"),
        MYSQL_TYPE_INT24 => pick(unsigned, "MEDIUMINT UNSIGNED", "MEDIUMINT"),
        MYSQL_TYPE_LONG => pick(unsigned, "INT UNSIGNED", "INT"),
        MYSQL_TYPE_LONGLONG => pick(unsigned, "BIGINT UNSIGNED", "BIGINT"),
        MYSQL_TYPE_YEAR => "YEAR",
        MYSQL_TYPE_FLOAT => "FLOAT",
        MYSQL_TYPE_DOUBLE => "DOUBLE",
        MYSQL_TYPE_DECIMAL | MYSQL_TYPE_NEWDECIMAL => "DECIMAL",
        MYSQL_TYPE_BIT => "BIT",
        MYSQL_TYPE_DATE | MYSQL_TYPE_NEWDATE => "DATE",
        MYSQL_TYPE_TIME | MYSQL_TYPE_TIME2 => "TIME",
        MYSQL_TYPE_DATETIME | MYSQL_TYPE_DATETIME2 => "DATETIME",
        MYSQL_TYPE_TIMESTAMP | MYSQL_TYPE_TIMESTAMP2 => "TIMESTAMP",
        MYSQL_TYPE_JSON => "JSON",
        MYSQL_TYPE_GEOMETRY => "GEOMETRY",
        MYSQL_TYPE_VECTOR => "VECTOR",
        MYSQL_TYPE_NULL => "NULL",
        MYSQL_TYPE_ENUM => "ENUM",
        MYSQL_TYPE_SET => "SET",
        MYSQL_TYPE_STRING if column.flags().contains(ColumnFlags::ENUM_FLAG) => "ENUM",
        MYSQL_TYPE_STRING if column.flags().contains(ColumnFlags::SET_FLAG) => "SET",
        MYSQL_TYPE_STRING => pick(binary, "BINARY", "CHAR"),
        MYSQL_TYPE_VARCHAR | MYSQL_TYPE_VAR_STRING => pick(binary, "VARBINARY", "VARCHAR"),
        MYSQL_TYPE_TINY_BLOB | MYSQL_TYPE_MEDIUM_BLOB | MYSQL_TYPE_LONG_BLOB | MYSQL_TYPE_BLOB => {
            pick(binary, "BLOB", "TEXT")
        }
        MYSQL_TYPE_TYPED_ARRAY | MYSQL_TYPE_UNKNOWN => "an unknown type",
    }
}

#[cfg(test)]
mod tests {
    use ColumnType::*;

    use super::*;

    /// Of `utf8mb4`, as most text is.
    fn column(kind: ColumnType) -> Column {
        Column::new(kind).with_character_set(45).with_column_length(20)
    }

    fn read(column: &Column, cell: Native) -> Value {
        decode(column, &cell).expect("a value")
    }

    fn text(kind: ColumnType, text: &str) -> Value {
        read(&column(kind), Native::Bytes(text.into()))
    }

    #[test]
    fn both_forms_of_a_cell_give_the_same_value() {
        let table = [
            (MYSQL_TYPE_LONG, "-7", Native::Int(-7)),
            (MYSQL_TYPE_LONGLONG, "18446744073709551615", Native::UInt(u64::MAX)),
            (MYSQL_TYPE_YEAR, "2024", Native::Int(2024)),
            (MYSQL_TYPE_FLOAT, "0.1", Native::Float(0.1)),
            (MYSQL_TYPE_DOUBLE, "-2.5e200", Native::Double(-2.5e200)),
            (MYSQL_TYPE_DATE, "2024-02-29", Native::Date(2024, 2, 29, 0, 0, 0, 0)),
            (MYSQL_TYPE_DATE, "0000-00-00", Native::Date(0, 0, 0, 0, 0, 0, 0)),
            (MYSQL_TYPE_DATE, "2024-02-00", Native::Date(2024, 2, 0, 0, 0, 0, 0)),
            (
                MYSQL_TYPE_DATETIME,
                "2024-02-29 13:45:07.250000",
                Native::Date(2024, 2, 29, 13, 45, 7, 250_000),
            ),
            (MYSQL_TYPE_DATETIME, "0000-00-00 00:00:00", Native::Date(0, 0, 0, 0, 0, 0, 0)),
            (MYSQL_TYPE_TIMESTAMP, "1970-01-02 00:00:00", Native::Date(1970, 1, 2, 0, 0, 0, 0)),
            (MYSQL_TYPE_TIME, "13:45:07.25", Native::Time(false, 0, 13, 45, 7, 250_000)),
            (MYSQL_TYPE_TIME, "838:59:59", Native::Time(false, 34, 22, 59, 59, 0)),
            (MYSQL_TYPE_TIME, "-01:00:00.5", Native::Time(true, 0, 1, 0, 0, 500_000)),
        ];
        for (kind, written, native) in table {
            assert_eq!(text(kind, written), read(&column(kind), native), "{kind:?} {written}");
        }
    }

    #[test]
    fn moments_are_read_by_the_type_of_their_column() {
        let written = "2024-02-29 13:45:07";
        let civil: DateTime = written.parse().expect("a moment");
        assert_eq!(text(MYSQL_TYPE_DATETIME, written), Value::DateTime(civil));
        let stamp = Timestamp::from_utc(civil).expect("in range");
        assert_eq!(text(MYSQL_TYPE_TIMESTAMP, written), Value::Timestamp(stamp));
        assert_eq!(text(MYSQL_TYPE_DATE, "2024-02-29"), Value::Date(civil.date()));
        assert_eq!(text(MYSQL_TYPE_TIME, "13:45:07"), Value::Time(civil.time()));
    }

    #[test]
    fn what_no_calendar_or_clock_has_comes_as_text() {
        for (kind, written) in [
            (MYSQL_TYPE_DATE, "0000-00-00"),
            (MYSQL_TYPE_DATE, "2023-02-30"),
            (MYSQL_TYPE_DATETIME, "2024-00-00 00:00:00"),
            (MYSQL_TYPE_TIMESTAMP, "0000-00-00 00:00:00"),
            (MYSQL_TYPE_TIME, "24:00:00"),
            (MYSQL_TYPE_TIME, "-00:00:01"),
        ] {
            assert_eq!(text(kind, written), Value::from(written), "{kind:?}");
        }
    }

    #[test]
    fn a_span_that_no_server_has_is_no_panic() {
        let cell = Native::Time(false, u32::MAX, 23, 59, 59, 0);
        assert_eq!(read(&column(MYSQL_TYPE_TIME), cell), Value::from("4294967295:59:59"));
    }

    #[test]
    fn a_tinyint_of_one_digit_is_a_bool_and_others_are_numbers() {
        let bool = column(MYSQL_TYPE_TINY).with_column_length(1);
        assert_eq!(read(&bool, Native::Int(1)), Value::Bool(true));
        assert_eq!(read(&bool, Native::Bytes(b"0".into())), Value::Bool(false));
        assert_eq!(read(&bool, Native::Int(2)), Value::I64(2));
        assert_eq!(text(MYSQL_TYPE_TINY, "1"), Value::I64(1));
        let unsigned = bool.with_flags(ColumnFlags::UNSIGNED_FLAG);
        assert_eq!(read(&unsigned, Native::Int(1)), Value::I64(1));
    }

    #[test]
    fn bits_are_a_bool_or_a_number() {
        let bit = |length| column(MYSQL_TYPE_BIT).with_column_length(length);
        assert_eq!(read(&bit(1), Native::Bytes(vec![1])), Value::Bool(true));
        assert_eq!(read(&bit(10), Native::Bytes(vec![3, 255])), Value::I64(1023));
        assert_eq!(read(&bit(64), Native::Bytes(vec![255; 8])), Value::U64(u64::MAX));
    }

    #[test]
    fn the_character_set_tells_text_from_bytes() {
        for kind in [MYSQL_TYPE_STRING, MYSQL_TYPE_VAR_STRING, MYSQL_TYPE_BLOB] {
            assert_eq!(text(kind, "é"), Value::from("é"));
            let binary = column(kind).with_character_set(BINARY);
            let cell = Native::Bytes("é".into());
            assert_eq!(read(&binary, cell), Value::Bytes("é".as_bytes().into()));
            let latin = read(&column(kind), Native::Bytes(vec![0xe9]));
            assert_eq!(latin, Value::Bytes([0xe9].into()), "not UTF-8");
        }
        let binary = column(MYSQL_TYPE_NEWDECIMAL).with_character_set(BINARY);
        assert_eq!(read(&binary, Native::Bytes(b"-0.10".into())), Value::Decimal("-0.10".into()));
        assert_eq!(text(MYSQL_TYPE_JSON, "[1]"), Value::Json("[1]".into()));
    }

    #[test]
    fn an_unmapped_type_is_an_error_that_says_the_way_round() {
        let cell = Native::Bytes(vec![0; 25]);
        let error = decode(&column(MYSQL_TYPE_GEOMETRY), &cell).expect_err("no such value");
        assert!(error.message().contains("GEOMETRY"), "{error}");
        assert!(error.message().contains("client()"), "{error}");
        assert_eq!(read(&column(MYSQL_TYPE_GEOMETRY), Native::NULL), Value::Null);
    }

    #[test]
    fn a_parameter_that_mysql_does_not_have_is_named() {
        let far = Value::Date(Date::new(12_000, 1, 1).expect("a day"));
        for (value, expected) in [
            (
                Value::Array([].into()),
                "parameter 2 is a value of kind array, which MySQL does not have",
            ),
            (far, "parameter 2 is in the year 12000, and MySQL's years are 0 to 9999"),
            (Value::F64(f64::NAN), "parameter 2 is NaN, which MySQL does not store"),
        ] {
            let error = encode(&[Value::Null, value]).expect_err("unfit");
            assert_eq!(error.message(), expected);
        }
    }
}
