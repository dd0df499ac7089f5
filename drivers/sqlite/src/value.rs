//! Values to and from SQLite.
//!
//! Decides how a [`Value`] is stored and which declared column types give more
//! than SQLite's five storage classes. Does not know statements.

use millpond_driver::{Date, DateTime, Error, Result, Time, Timestamp, Value};
use rusqlite::Statement;
use rusqlite::types::ValueRef;

use crate::error::Fault;

/// Binds the parameters by position.
pub(crate) fn bind(statement: &mut Statement<'_>, params: &[Value]) -> Result<(), Fault> {
    let wanted = statement.parameter_count();
    if wanted != params.len() {
        return Err(Fault::Ours(Error::statement(format!(
            "the statement has {wanted} parameters, {} values were given",
            params.len()
        ))));
    }
    for (index, value) in (1..).zip(params) {
        match value {
            Value::Null => statement.raw_bind_parameter(index, rusqlite::types::Null),
            Value::Bool(value) => statement.raw_bind_parameter(index, value),
            Value::I64(value) => statement.raw_bind_parameter(index, value),
            Value::F64(value) if value.is_nan() => {
                return Err(unfit(index, "NaN, which SQLite stores as null"));
            }
            Value::F64(value) => statement.raw_bind_parameter(index, value),
            Value::Text(text) | Value::Decimal(text) | Value::Json(text) => {
                statement.raw_bind_parameter(index, &**text)
            }
            Value::Bytes(bytes) => statement.raw_bind_parameter(index, &**bytes),
            Value::Uuid(bytes) => statement.raw_bind_parameter(index, &bytes[..]),
            Value::Date(date) => statement.raw_bind_parameter(index, date.to_string()),
            Value::Time(time) => statement.raw_bind_parameter(index, time.to_string()),
            Value::DateTime(moment) => statement.raw_bind_parameter(index, written(*moment)),
            Value::Timestamp(stamp) => statement.raw_bind_parameter(index, written(stamp.utc())),
            Value::U64(value) => {
                return Err(unfit(
                    index,
                    format_args!("{value}, and SQLite's integers end at {}", i64::MAX),
                ));
            }
            other => {
                return Err(unfit(
                    index,
                    format_args!("a value of kind {}, which SQLite does not have", other.kind()),
                ));
            }
        }
        .map_err(Fault::Sqlite)?;
    }
    Ok(())
}

#[cold]
fn unfit(index: usize, what: impl std::fmt::Display) -> Fault {
    Fault::Ours(Error::statement(format!("parameter {index} is {what}")))
}

/// As SQLite's own functions write it, so that texts compare as moments do.
fn written(moment: DateTime) -> String {
    format!("{} {}", moment.date(), moment.time())
}

/// What the declared type of a column says about its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The storage class says all.
    Plain,
    Bool,
    Date,
    Time,
    DateTime,
    Timestamp,
    Uuid,
    Json,
}

impl Kind {
    /// By the declared type, as in `created DATETIME`.
    pub(crate) fn declared(name: Option<&str>) -> Self {
        const NAMES: [(&str, Kind); 8] = [
            ("BOOLEAN", Kind::Bool),
            ("BOOL", Kind::Bool),
            ("DATE", Kind::Date),
            ("TIME", Kind::Time),
            ("DATETIME", Kind::DateTime),
            ("TIMESTAMP", Kind::Timestamp),
            ("UUID", Kind::Uuid),
            ("JSON", Kind::Json),
        ];
        let name = name.unwrap_or_default();
        let name = name.split('(').next().unwrap_or_default().trim();
        let found = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(Self::Plain, |&(_, kind)| kind)
    }

    /// The value of a cell: of this kind if the cell fits it, else as stored.
    pub(crate) fn decode(self, cell: ValueRef<'_>) -> Value {
        match (self, cell) {
            (_, ValueRef::Null) => Value::Null,
            (Self::Bool, ValueRef::Integer(number @ (0 | 1))) => Value::Bool(number == 1),
            (_, ValueRef::Integer(number)) => Value::I64(number),
            (_, ValueRef::Real(number)) => Value::F64(number),
            (_, ValueRef::Text(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => self.decode_text(text),
                Err(_) => Value::Bytes(bytes.into()),
            },
            (Self::Uuid, ValueRef::Blob(bytes)) => match bytes.try_into() {
                Ok(bytes) => Value::Uuid(bytes),
                Err(_) => Value::Bytes(bytes.into()),
            },
            (_, ValueRef::Blob(bytes)) => Value::Bytes(bytes.into()),
        }
    }

    fn decode_text(self, text: &str) -> Value {
        let value = match self {
            Self::Plain | Self::Bool | Self::Uuid => None,
            Self::Json => Some(Value::Json(text.into())),
            Self::Date => text.parse::<Date>().ok().map(Value::Date),
            Self::Time => text.parse::<Time>().ok().map(Value::Time),
            Self::DateTime | Self::Timestamp => self.decode_moment(text),
        };
        value.unwrap_or_else(|| Value::Text(text.into()))
    }

    /// A moment with a zone is a timestamp whatever the column says; one
    /// without is what the column says, UTC as SQLite's functions have it.
    fn decode_moment(self, text: &str) -> Option<Value> {
        let (text, minutes_east) = match zone(text) {
            Some((text, east)) => (text, Some(east)),
            None => (text, None),
        };
        let moment: DateTime = text.parse().ok()?;
        if self == Self::DateTime && minutes_east.is_none() {
            return Some(Value::DateTime(moment));
        }
        let micros_east = minutes_east.unwrap_or(0) * 60_000_000;
        let micros = Timestamp::from_utc(moment)?.micros().checked_sub(micros_east)?;
        Some(Value::Timestamp(Timestamp::from_micros(micros)))
    }
}

/// Cuts `Z` or `+02:00` off, giving minutes east of UTC.
fn zone(text: &str) -> Option<(&str, i64)> {
    if let Some(text) = text.strip_suffix('Z') {
        return Some((text, 0));
    }
    let (text, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let sign = match offset.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let offset: Time = format!("{}:00", &offset[1..]).parse().ok()?;
    Some((text, sign * (i64::from(offset.hour()) * 60 + i64::from(offset.minute()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, text: &str) -> Value {
        kind.decode(ValueRef::Text(text.as_bytes()))
    }

    fn stamp(text: &str) -> Value {
        Value::Timestamp(text.parse().expect("a timestamp"))
    }

    #[test]
    fn declared_types_are_known_in_any_case_and_with_a_size() {
        assert_eq!(Kind::declared(Some("boolean")), Kind::Bool);
        assert_eq!(Kind::declared(Some("DateTime(6)")), Kind::DateTime);
        assert_eq!(Kind::declared(Some("VARCHAR(20)")), Kind::Plain);
        assert_eq!(Kind::declared(None), Kind::Plain);
    }

    #[test]
    fn a_cell_that_does_not_fit_its_declared_type_stays_as_stored() {
        assert_eq!(Kind::Bool.decode(ValueRef::Integer(2)), Value::I64(2));
        assert_eq!(text(Kind::Bool, "yes"), Value::from("yes"));
        assert_eq!(text(Kind::Date, "tomorrow"), Value::from("tomorrow"));
        assert_eq!(text(Kind::Timestamp, "now"), Value::from("now"));
        assert_eq!(Kind::Timestamp.decode(ValueRef::Integer(7)), Value::I64(7));
        assert_eq!(Kind::Uuid.decode(ValueRef::Blob(b"short")), Value::Bytes((*b"short").into()));
    }

    #[test]
    fn moments_are_read_with_and_without_a_zone() {
        let utc = "2024-02-29T13:45:07Z";
        assert_eq!(text(Kind::Timestamp, "2024-02-29 13:45:07"), stamp(utc));
        assert_eq!(text(Kind::Timestamp, "2024-02-29T15:45:07+02:00"), stamp(utc));
        assert_eq!(text(Kind::Timestamp, "2024-02-29 12:15:07-01:30"), stamp(utc));
        assert_eq!(text(Kind::DateTime, utc), stamp(utc));
        let civil = Value::DateTime("2024-02-29 13:45:07".parse().expect("a moment"));
        assert_eq!(text(Kind::DateTime, "2024-02-29 13:45:07"), civil);
    }

    #[test]
    fn a_zone_is_cut_off_only_where_one_is() {
        for odd in ["", "Z", "é-00:00", "2024-02-29 13:45:07+2:00", "2024-02-29", "\u{20ac}00:00"]
        {
            assert_eq!(text(Kind::Timestamp, odd), Value::from(odd), "{odd}");
        }
    }

    #[test]
    fn text_that_is_not_utf8_comes_as_bytes() {
        assert_eq!(Kind::Plain.decode(ValueRef::Text(b"\xff")), Value::Bytes([0xff].into()));
    }
}
