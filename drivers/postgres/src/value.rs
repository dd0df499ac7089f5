//! Values from PostgreSQL, and in the files below to it.
//!
//! Decides which column types are which [`Value`]. Does not know statements.

mod numeric;
mod param;

use std::error::Error as StdError;

use millpond_driver::{Cells, Date, Error, Result, Time, Timestamp, Value};
use tokio_postgres::types::{FromSql, Kind, Type};

pub(crate) use param::Param;

/// 2000-01-01, where PostgreSQL counts from, in Unix time.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS as i64 * MICROS_PER_DAY;
const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A row as the client has it, decoded on request.
pub(crate) struct Lazy(pub(crate) tokio_postgres::Row);

impl Cells for Lazy {
    fn cell(&self, index: usize) -> Result<Value> {
        match self.0.try_get::<_, Cell>(index) {
            Ok(Cell(value)) => value,
            Err(error) => Err(crate::error(error)),
        }
    }
}

/// A cell of any type.
struct Cell(Result<Value>);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(decode(kind, bytes)))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Self(Ok(Value::Null)))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// The type under domains.
fn base(mut kind: &Type) -> &Type {
    while let Kind::Domain(inner) = kind.kind() {
        kind = inner;
    }
    kind
}

fn decode(kind: &Type, bytes: &[u8]) -> Result<Value> {
    let kind = base(kind);
    Ok(match *kind {
        Type::BOOL => Value::Bool(fixed::<1>(bytes)? != [0]),
        Type::INT2 => Value::I64(i16::from_be_bytes(fixed(bytes)?).into()),
        Type::INT4 => Value::I64(i32::from_be_bytes(fixed(bytes)?).into()),
        Type::INT8 => Value::I64(i64::from_be_bytes(fixed(bytes)?)),
        Type::OID => Value::I64(u32::from_be_bytes(fixed(bytes)?).into()),
        Type::FLOAT4 => Value::F64(f32::from_be_bytes(fixed(bytes)?).into()),
        Type::FLOAT8 => Value::F64(f64::from_be_bytes(fixed(bytes)?)),
        Type::NUMERIC => Value::Decimal(numeric::decode(bytes).ok_or_else(damaged)?.into()),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN | Type::XML => {
            Value::Text(text(bytes)?)
        }
        Type::BYTEA => Value::Bytes(bytes.into()),
        Type::DATE => Value::Date(date(i32::from_be_bytes(fixed(bytes)?))?),
        Type::TIME => {
            let micros = i64::from_be_bytes(fixed(bytes)?);
            match Time::from_micros(micros) {
                Some(time) => Value::Time(time),
                None if micros == MICROS_PER_DAY => Value::from("24:00:00"),
                None => return Err(damaged()),
            }
        }
        Type::TIMESTAMP => Value::DateTime(moment(bytes)?.utc()),
        Type::TIMESTAMPTZ => Value::Timestamp(moment(bytes)?),
        Type::UUID => Value::Uuid(fixed(bytes)?),
        Type::JSON => Value::Json(text(bytes)?),
        Type::JSONB => match bytes {
            [1, json @ ..] => Value::Json(text(json)?),
            _ => return Err(damaged()),
        },
        // What functions give that are called for their effect.
        Type::VOID => Value::Null,
        _ => match kind.kind() {
            Kind::Array(element) => array(element, bytes)?,
            Kind::Enum(_) => Value::Text(text(bytes)?),
            _ if kind.name() == "citext" => Value::Text(text(bytes)?),
            _ => return Err(unmapped(kind)),
        },
    })
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| damaged())
}

fn text(bytes: &[u8]) -> Result<Box<str>> {
    Ok(std::str::from_utf8(bytes).map_err(|_| damaged())?.into())
}

fn date(days: i32) -> Result<Date> {
    match days {
        i32::MAX | i32::MIN => Err(infinite("date")),
        _ => days.checked_add(EPOCH_DAYS).map(Date::from_days).ok_or_else(|| far("date")),
    }
}

/// Of a clock on the wall it is the point at which it would be so in UTC.
fn moment(bytes: &[u8]) -> Result<Timestamp> {
    match i64::from_be_bytes(fixed(bytes)?) {
        i64::MAX | i64::MIN => Err(infinite("timestamp")),
        micros => micros
            .checked_add(EPOCH_MICROS)
            .map(Timestamp::from_micros)
            .ok_or_else(|| far("timestamp")),
    }
}

/// Dimensions, a mark of nulls and the type come first; then the elements, each
/// with its length. Arrays of more dimensions are lists of lists.
fn array(element: &Type, bytes: &[u8]) -> Result<Value> {
    let mut words = Words(bytes);
    let dimensions = usize::try_from(words.next()?).map_err(|_| damaged())?;
    let (_has_null, _type) = (words.next()?, words.next()?);
    let mut lengths = Vec::new();
    for _ in 0..dimensions.min(MOST_DIMENSIONS) {
        lengths.push(usize::try_from(words.next()?).map_err(|_| damaged())?);
        let _first_index = words.next()?;
    }
    // One without elements has no dimensions; of empty lists there could be billions.
    match lengths.contains(&0) || lengths.is_empty() {
        true => Ok(Value::Array([].into())),
        false => list(element, &lengths, &mut words),
    }
}

/// The server allows no more.
const MOST_DIMENSIONS: usize = 6;

fn list(element: &Type, lengths: &[usize], words: &mut Words<'_>) -> Result<Value> {
    let [length, inner @ ..] = lengths else {
        let length = words.next()?;
        return match usize::try_from(length) {
            Ok(length) => decode(element, words.take(length)?),
            Err(_) if length == -1 => Ok(Value::Null),
            Err(_) => Err(damaged()),
        };
    };
    (0..*length).map(|_| list(element, inner, words)).collect::<Result<_>>().map(Value::Array)
}

struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(fixed(self.take(4)?)?))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cold]
fn damaged() -> Error {
    Error::decode("the bytes are not of this type")
}

#[cold]
fn unmapped(kind: &Type) -> Error {
    Error::decode(format!(
        "{kind} has no neutral value: cast it in the statement, as in column::text, \
         or read it with the client, as in conn.client().query(..)"
    ))
}

#[cold]
fn infinite(what: &str) -> Error {
    Error::decode(format!(
        "an infinite {what} is no {what}: cast it in the statement, as in column::text"
    ))
}

#[cold]
fn far(what: &str) -> Error {
    Error::decode(format!(
        "the {what} is too far away: cast it in the statement, as in column::text"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_a_value_is_told_with_the_ways_round() {
        let error = decode(&Type::INTERVAL, &[0; 16]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "interval has no neutral value: cast it in the statement, as in column::text, or read \
             it with the client, as in conn.client().query(..)"
        );
    }

    #[test]
    fn an_infinite_moment_is_an_error() {
        for (kind, bytes) in [
            (Type::DATE, &i32::MAX.to_be_bytes()[..]),
            (Type::DATE, &i32::MIN.to_be_bytes()),
            (Type::TIMESTAMP, &i64::MIN.to_be_bytes()),
            (Type::TIMESTAMPTZ, &i64::MAX.to_be_bytes()),
        ] {
            let error = decode(&kind, bytes).unwrap_err();
            assert!(error.to_string().starts_with("an infinite"), "{kind}: {error}");
        }
    }

    #[test]
    fn an_array_of_two_dimensions_is_a_list_of_lists() {
        let mut bytes = Vec::new();
        for word in [2, 1, 23, 2, 1, 1, 1] {
            bytes.extend(i32::to_be_bytes(word));
        }
        bytes.extend([4, 7].into_iter().flat_map(i32::to_be_bytes));
        bytes.extend((-1_i32).to_be_bytes());
        let list = |value| Value::Array([value].into());
        let expected = Value::Array([list(Value::I64(7)), list(Value::Null)].into());
        assert_eq!(decode(&Type::INT4_ARRAY, &bytes).unwrap(), expected);
        for cut in 0..bytes.len() {
            assert!(decode(&Type::INT4_ARRAY, &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn an_array_of_empty_lists_takes_no_memory() {
        let words = [2, 0, 23, 100_000_000, 1, 0, 1];
        let bytes: Vec<u8> = words.into_iter().flat_map(i32::to_be_bytes).collect();
        assert_eq!(decode(&Type::INT4_ARRAY, &bytes).unwrap(), Value::Array([].into()));
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for kind in [Type::BOOL, Type::INT2, Type::UUID, Type::NUMERIC, Type::JSONB, Type::DATE] {
            assert!(decode(&kind, &[0xff; 3]).is_err(), "{kind}");
        }
        assert!(decode(&Type::TEXT, &[0xff]).is_err());
    }
}
