//! One value of a row or a parameter, the same for every database.
//!
//! Owns [`Value`] and, in the files below, its dates and times and its
//! conversions from and to Rust types. Does not know how a database writes a
//! value on its wire: each driver translates.

mod convert;
mod date;
mod time;

pub use convert::FromValue;
#[cfg(feature = "serde_json")]
pub(crate) use convert::JSON;
#[cfg(feature = "serde_json")]
pub use convert::Json;
#[cfg(feature = "serde")]
pub(crate) use convert::{Cell, Fault};
pub use date::Date;
pub use time::{DateTime, Time, Timestamp};

/// A value of a row or a parameter.
///
/// Made from Rust types with `From` or all at once with
/// [`params!`](crate::params), turned back by [`FromValue`]. Types that have no
/// Rust type in the standard library are named by their variant:
///
/// ```
/// use millpond_driver::Value;
///
/// let price = Value::Decimal("19.90".into());
/// let id = Value::Uuid([7; 16]);
/// assert_eq!(Value::from(Some(3)), Value::I64(3));
/// assert_eq!((price.kind(), id.kind()), ("decimal", "uuid"));
/// ```
///
/// `Debug` prints the value, so what holds values and must keep secrets does
/// not print them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// NULL.
    Null,
    /// True or false. Databases without such a type give 0 and 1.
    Bool(bool),
    /// An integer, signed or not, of any width.
    I64(i64),
    /// An integer above [`i64::MAX`]. Smaller ones are [`I64`](Self::I64), so
    /// that equal numbers are equal values; `Value::from(u64)` chooses.
    U64(u64),
    /// A binary floating-point number.
    F64(f64),
    /// An exact decimal number, as the database writes it: `-12.50`.
    Decimal(Box<str>),
    /// Text.
    Text(Box<str>),
    /// Bytes.
    Bytes(Box<[u8]>),
    /// A day.
    Date(Date),
    /// A time of day.
    Time(Time),
    /// A day and a time of day, in no particular time zone.
    DateTime(DateTime),
    /// A point in time.
    Timestamp(Timestamp),
    /// A UUID, in the order it is written.
    Uuid([u8; 16]),
    /// JSON text.
    Json(Box<str>),
    /// A list, where the database has them.
    Array(Box<[Self]>),
}

impl Value {
    /// The kind of value in one word, for messages: `"null"`, `"i64"`,
    /// `"text"`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::I64(_) => "i64",
            Self::U64(_) => "u64",
            Self::F64(_) => "f64",
            Self::Decimal(_) => "decimal",
            Self::Text(_) => "text",
            Self::Bytes(_) => "bytes",
            Self::Date(_) => "date",
            Self::Time(_) => "time",
            Self::DateTime(_) => "datetime",
            Self::Timestamp(_) => "timestamp",
            Self::Uuid(_) => "uuid",
            Self::Json(_) => "json",
            Self::Array(_) => "array",
        }
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_three_words_on_64_bits() {
        assert_eq!(size_of::<Value>(), 24);
    }

    #[test]
    fn a_value_crosses_threads() {
        fn assert_send_sync<T: Send + Sync + 'static>() {}
        assert_send_sync::<Value>();
    }
}
