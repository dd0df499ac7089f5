//! Values to PostgreSQL.
//!
//! Decides how a parameter is sent. Where the server's type is the value's own,
//! in its binary form; else as text, which the server reads as it reads a
//! literal: so text becomes whatever type the statement wants.

use std::error::Error as StdError;
use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};
use millpond_driver::{Date, DateTime, Error, Outcome, Value};
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

use super::base;

/// A parameter and its number, from 1.
pub(crate) struct Param<'a>(pub(crate) usize, pub(crate) &'a Value);

impl Param<'_> {
    fn is_binary(&self, kind: &Type) -> bool {
        match (self.1, base(kind)) {
            (Value::Bool(_), kind) => *kind == Type::BOOL,
            (Value::I64(_), kind) => {
                matches!(*kind, Type::INT2 | Type::INT4 | Type::INT8 | Type::OID)
            }
            (Value::F64(_), kind) => *kind == Type::FLOAT8,
            (Value::Uuid(_), kind) => *kind == Type::UUID,
            (_, kind) => *kind == Type::BYTEA,
        }
    }

    fn write(&self, kind: &Type, out: &mut BytesMut) -> Result<(), Error> {
        match self.1 {
            Value::Bytes(bytes) if *base(kind) == Type::BYTEA => out.put_slice(bytes),
            _ if !self.is_binary(kind) && !matches!(self.1, Value::Bytes(_)) => {
                literal(out, self.1).map_err(|_| self.unfit(kind))?;
            }
            Value::Bool(value) => out.put_u8((*value).into()),
            Value::F64(value) => out.put_f64(*value),
            Value::Uuid(bytes) => out.put_slice(bytes),
            Value::I64(value) => self.write_integer(*value, kind, out)?,
            _ => return Err(self.unfit(kind)),
        }
        Ok(())
    }

    fn write_integer(&self, value: i64, kind: &Type, out: &mut BytesMut) -> Result<(), Error> {
        let out_of_range =
            || self.refuse(format_args!("{value}, which is out of range for {kind}"));
        match *base(kind) {
            Type::INT2 => out.put_i16(value.try_into().map_err(|_| out_of_range())?),
            Type::INT4 => out.put_i32(value.try_into().map_err(|_| out_of_range())?),
            Type::OID => out.put_u32(value.try_into().map_err(|_| out_of_range())?),
            _ => out.put_i64(value),
        }
        Ok(())
    }

    #[cold]
    fn unfit(&self, kind: &Type) -> Error {
        self.refuse(format_args!("a value of kind {}, which {kind} is not", self.1.kind()))
    }

    #[cold]
    fn refuse(&self, what: fmt::Arguments<'_>) -> Error {
        Error::statement(format!("parameter {} is {what}", self.0)).with_outcome(Outcome::NotSent)
    }
}

/// No value: the client's log may show it.
impl fmt::Debug for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1.kind())
    }
}

impl ToSql for Param<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        if self.1.is_null() {
            return Ok(IsNull::Yes);
        }
        self.write(kind, out)?;
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, kind: &Type) -> Format {
        if self.is_binary(kind) { Format::Binary } else { Format::Text }
    }

    to_sql_checked!();
}

/// As in SQL, without the quotes.
fn literal(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value {
        Value::Null => out.write_str("NULL"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::I64(value) => write!(out, "{value}"),
        Value::U64(value) => write!(out, "{value}"),
        // Not hundreds of zeros.
        Value::F64(value) => write!(out, "{value:e}"),
        Value::Text(text) | Value::Decimal(text) | Value::Json(text) => out.write_str(text),
        Value::Bytes(bytes) => {
            out.write_str("\\x")?;
            bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Value::Date(date) => day(out, *date, ""),
        Value::Time(time) => write!(out, "{time}"),
        Value::DateTime(moment) => when(out, *moment, ""),
        Value::Timestamp(stamp) => when(out, stamp.utc(), "Z"),
        Value::Uuid(bytes) => write!(out, "{:032x}", u128::from_be_bytes(*bytes)),
        Value::Array(elements) => array(out, elements),
        _ => Err(fmt::Error),
    }
}

fn when(out: &mut dyn Write, moment: DateTime, zone: &str) -> fmt::Result {
    day(out, moment.date(), &format!(" {}{zone}", moment.time()))
}

/// The year 0 is 1 BC.
fn day(out: &mut dyn Write, date: Date, rest: &str) -> fmt::Result {
    let (year, month, day) = date.ymd();
    match year {
        1.. => write!(out, "{year:04}-{month:02}-{day:02}{rest}"),
        _ => write!(out, "{:04}-{month:02}-{day:02}{rest} BC", 1 - i64::from(year)),
    }
}

fn array(out: &mut dyn Write, elements: &[Value]) -> fmt::Result {
    out.write_char('{')?;
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            out.write_char(',')?;
        }
        match element {
            Value::Null | Value::Array(_) => literal(out, element)?,
            _ => {
                out.write_char('"')?;
                literal(&mut Quoted(out), element)?;
                out.write_char('"')?;
            }
        }
    }
    out.write_char('}')
}

/// Inside the quotes of an array's element.
struct Quoted<'a>(&'a mut dyn Write);

impl Write for Quoted<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if matches!(character, '"' | '\\') {
                self.0.write_char('\\')?;
            }
            self.0.write_char(character)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use millpond_driver::{Time, params};

    use super::*;

    fn sent(value: Value, kind: Type) -> Result<Vec<u8>, String> {
        let mut out = BytesMut::new();
        let param = Param(2, &value);
        match param.to_sql(&kind, &mut out) {
            Ok(_) => Ok(out.to_vec()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_number_goes_as_its_type_or_not_at_all() {
        assert_eq!(sent(Value::I64(-2), Type::INT2), Ok(vec![0xff, 0xfe]));
        assert_eq!(sent(Value::I64(7), Type::NUMERIC), Ok(b"7".to_vec()));
        assert_eq!(sent(Value::U64(u64::MAX), Type::NUMERIC), Ok(u64::MAX.to_string().into()));
        assert_eq!(sent(Value::F64(1e300), Type::NUMERIC), Ok(b"1e300".to_vec()));
        for (kind, name) in [(Type::INT2, "int2"), (Type::INT4, "int4"), (Type::OID, "oid")] {
            assert_eq!(
                sent(Value::I64(-3_000_000_000), kind),
                Err(format!("parameter 2 is -3000000000, which is out of range for {name}"))
            );
        }
    }

    #[test]
    fn bytes_are_bytea_and_nothing_else_is() {
        assert_eq!(sent(Value::Bytes([1, 2].into()), Type::BYTEA), Ok(vec![1, 2]));
        assert_eq!(
            sent(Value::Bytes([1].into()), Type::TEXT),
            Err("parameter 2 is a value of kind bytes, which text is not".to_owned())
        );
        assert_eq!(
            sent("x".into(), Type::BYTEA),
            Err("parameter 2 is a value of kind text, which bytea is not".to_owned())
        );
    }

    #[test]
    fn moments_before_christ_are_written_as_the_server_reads_them() {
        let date = Date::new(-43, 3, 15).expect("a day");
        assert_eq!(sent(Value::Date(date), Type::DATE), Ok(b"0044-03-15 BC".to_vec()));
        let noon = DateTime::new(date, Time::new(12, 0, 0, 0).expect("noon"));
        let expected = b"0044-03-15 12:00:00 BC".to_vec();
        assert_eq!(sent(Value::DateTime(noon), Type::TIMESTAMP), Ok(expected));
        let far = Date::new(12_024, 1, 2).expect("a day");
        assert_eq!(sent(Value::Date(far), Type::DATE), Ok(b"12024-01-02".to_vec()));
    }

    #[test]
    fn an_array_is_written_as_a_literal() {
        let values = Value::Array(params!["a\"b\\", None::<i32>, "", "NULL"].into());
        assert_eq!(sent(values, Type::TEXT_ARRAY), Ok(br#"{"a\"b\\",NULL,"","NULL"}"#.to_vec()));
        let rows = Value::Array([Value::Array(params![1, 2].into())].into());
        assert_eq!(sent(rows, Type::INT4_ARRAY), Ok(br#"{{"1","2"}}"#.to_vec()));
        let bytes = Value::Array([Value::Bytes([0xab].into())].into());
        assert_eq!(sent(bytes, Type::BYTEA_ARRAY), Ok(br#"{"\\xab"}"#.to_vec()));
    }

    #[test]
    fn a_parameter_shows_no_value_in_logs() {
        assert_eq!(format!("{:?}", Param(1, &"secret".into())), "text");
    }
}
