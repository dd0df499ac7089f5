//! One value, as serde sees it.
//!
//! Owns [`Cell`], the deserializer over a [`Value`], [`Fault`], its error, and
//! the text form of dates and times. Does not know columns: the row's
//! deserializer does. Numbers follow [`FromValue`]; what has no Rust type in
//! the standard library is given as its text.

use std::error::Error as StdError;
use std::fmt;
use std::iter::Enumerate;
use std::vec;

use serde::de::value::SeqDeserializer;
use serde::de::{
    self, DeserializeSeed, Expected, IntoDeserializer, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[cfg(feature = "serde_json")]
use super::serde_json::{JSON, parse};
use super::{mismatch, whole};
use crate::{Date, DateTime, Error, FromValue, Result, Time, Timestamp, Value};

/// Why something did not deserialize.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A field that nothing was found for. The row adds what it has.
    Missing(&'static str),
    /// All else.
    Other(Error),
}

impl Fault {
    pub(crate) fn within(self, place: impl fmt::Display) -> Self {
        let error = match self {
            Self::Missing(_) => Error::decode(self.to_string()),
            Self::Other(error) => error,
        };
        Self::Other(error.within(place))
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(field) => write!(f, "no field {field:?}"),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl StdError for Fault {}

/// serde's own messages quote the text they did not like; these do not.
impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::decode(message.to_string()).into()
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_value(found, wanted)
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::custom(match found {
            Unexpected::Unit | Unexpected::Option => {
                format!("cannot read null as {wanted}; ask for an Option")
            }
            Unexpected::Bool(_) => format!("cannot read bool as {wanted}"),
            Unexpected::Signed(number) => format!("cannot read i64 {number} as {wanted}"),
            Unexpected::Unsigned(number) => format!("cannot read u64 {number} as {wanted}"),
            Unexpected::Float(number) => format!("cannot read f64 {number} as {wanted}"),
            Unexpected::Char(_) | Unexpected::Str(_) | Unexpected::UnitVariant => {
                format!("cannot read text as {wanted}")
            }
            Unexpected::Bytes(_) => format!("cannot read bytes as {wanted}"),
            Unexpected::Seq => format!("cannot read array as {wanted}"),
            // Cells are no maps to serde, but for JSON, which has errors of its own.
            Unexpected::Map => format!("cannot read a row as {wanted}; ask for a tuple"),
            other => format!("cannot read {other} as {wanted}"),
        })
    }

    fn invalid_length(length: usize, wanted: &dyn Expected) -> Self {
        Self::custom(format_args!("cannot read {length} elements as {wanted}"))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format_args!("none of {}", known.join(", ")))
    }

    fn unknown_field(_: &str, known: &'static [&'static str]) -> Self {
        Self::custom(format_args!("none of the fields {}", known.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// A value to deserialize from.
pub(crate) struct Cell(pub(crate) Value);

macro_rules! scalars {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            visitor.$visit(<$type>::from_value(self.0)?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Cell {
    type Error = Fault;

    scalars! {
        deserialize_bool visit_bool bool;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_f32 visit_f32 f32;
        deserialize_f64 visit_f64 f64;
    }

    fn deserialize_i128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_i128(whole(&self.0, "i128")?)
    }

    fn deserialize_u128<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_u128(u64::from_value(self.0)?.into())
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::I64(number) => visitor.visit_i64(number),
            Value::U64(number) => visitor.visit_u64(number),
            Value::F64(number) => visitor.visit_f64(number),
            Value::Bytes(_) => self.deserialize_bytes(visitor),
            // JSON is parsed or refused, never its text: what comes out must not
            // hang on a feature.
            Value::Json(_) | Value::Array(_) => self.deserialize_seq(visitor),
            _ => self.deserialize_str(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let text = match self.0 {
            Value::Text(text) | Value::Json(text) | Value::Decimal(text) => text.into(),
            Value::Date(date) => date.to_string(),
            Value::Time(time) => time.to_string(),
            Value::DateTime(time) => time.to_string(),
            Value::Timestamp(stamp) => stamp.to_string(),
            Value::Uuid(bytes) => hyphenated(bytes),
            other => return Err(refusal(&other, &visitor)),
        };
        visitor.visit_string(text)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Bytes(bytes) => visitor.visit_byte_buf(bytes.into()),
            Value::Uuid(bytes) => visitor.visit_bytes(&bytes),
            other => Err(refusal(&other, &visitor)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_unit() } else { Err(refusal(&self.0, &visitor)) }
    }

    #[cfg_attr(not(feature = "serde_json"), expect(unused_variables, reason = "for JSON"))]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        #[cfg(feature = "serde_json")]
        if let (JSON, Value::Json(text) | Value::Text(text)) = (name, &self.0) {
            return Ok(parse(text, |json| visitor.visit_newtype_struct(json))?);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Array(items) => {
                visitor.visit_seq(Elements(items.into_vec().into_iter().enumerate()))
            }
            Value::Bytes(bytes) => {
                visitor.visit_seq(SeqDeserializer::new(bytes.into_vec().into_iter()))
            }
            #[cfg(feature = "serde_json")]
            Value::Json(text) => Ok(parse(&text, |json| json.deserialize_any(visitor))?),
            other => Err(refusal(&other, &visitor)),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if let Some(parts) = parts(&self.0).filter(|parts| parts.len() == length) {
            return visitor.visit_seq(SeqDeserializer::new(parts.into_iter()));
        }
        let found = match &self.0 {
            Value::Array(items) => items.len(),
            Value::Bytes(bytes) => bytes.len(),
            _ => length,
        };
        if found != length {
            return Err(de::Error::invalid_length(found, &visitor));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            #[cfg(feature = "serde_json")]
            Value::Json(text) => Ok(parse(&text, |json| json.deserialize_any(visitor))?),
            other => Err(refusal(&other, &visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    #[cfg_attr(not(feature = "serde_json"), expect(unused_variables, reason = "for JSON"))]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Text(text) => visitor.visit_enum(String::from(text).into_deserializer()),
            #[cfg(feature = "serde_json")]
            Value::Json(text) => {
                Ok(parse(&text, |json| json.deserialize_enum(name, variants, visitor))?)
            }
            other => Err(refusal(&other, &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }
}

/// The elements of an array; errors name the element.
struct Elements(Enumerate<vec::IntoIter<Value>>);

impl<'de> SeqAccess<'de> for Elements {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let Some((i, item)) = self.0.next() else { return Ok(None) };
        seed.deserialize(Cell(item))
            .map(Some)
            .map_err(|fault| fault.within(format_args!("element {i}")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

#[cold]
fn refusal(found: &Value, wanted: &dyn Expected) -> Fault {
    mismatch(found, wanted).into()
}

/// What a value is asked for as a tuple of numbers: the bytes of a UUID, and
/// the parts of dates and times as the `time` crate numbers them (year, day of
/// the year, hour, minute, second, nanosecond, offset).
fn parts(value: &Value) -> Option<Vec<i64>> {
    let day = |date: Date| {
        let first = Date::new(date.year(), 1, 1)?;
        Some([date.year().into(), (date.days() - first.days() + 1).into()])
    };
    let clock = |time: Time| {
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        [hour.into(), minute.into(), second.into(), i64::from(time.microsecond()) * 1000]
    };
    Some(match *value {
        Value::Uuid(bytes) => bytes.map(i64::from).into(),
        Value::Date(date) => day(date)?.into(),
        Value::Time(time) => clock(time).into(),
        Value::DateTime(at) => [&day(at.date())?[..], &clock(at.time())].concat(),
        Value::Timestamp(stamp) => {
            let at = stamp.utc();
            [&day(at.date())?[..], &clock(at.time()), &[0; 3]].concat()
        }
        _ => return None,
    })
}

fn hyphenated(bytes: [u8; 16]) -> String {
    let mut text = format!("{:032x}", u128::from_be_bytes(bytes));
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        /// As ISO 8601, the way it is displayed.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        /// From ISO 8601, the way it is parsed.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Parse;

                impl Visitor<'_> for Parse {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(stringify!($name))
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }

                deserializer.deserialize_str(Parse)
            }
        }
    )*};
}
as_text!(Date Time DateTime Timestamp);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::net::IpAddr;

    use serde::de::DeserializeOwned;

    use super::*;

    fn read<T: DeserializeOwned>(value: impl Into<Value>) -> Result<T> {
        T::deserialize(Cell(value.into())).map_err(|fault| match fault {
            Fault::Missing(_) => unreachable!("only rows have fields"),
            Fault::Other(error) => error,
        })
    }

    #[track_caller]
    fn reads<T: DeserializeOwned + PartialEq + Debug>(value: impl Into<Value>, wanted: T) {
        assert_eq!(read::<T>(value).expect("deserializes"), wanted);
    }

    fn refusal<T: DeserializeOwned + Debug>(value: impl Into<Value>) -> String {
        read::<T>(value).expect_err("no such value").to_string()
    }

    fn array(items: impl IntoIterator<Item = impl Into<Value>>) -> Value {
        items.into_iter().collect()
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Plan {
        Free,
        Paid,
        Gift(String),
    }

    #[test]
    fn numbers_follow_the_rules_of_from_value() {
        reads(true, true);
        reads(1, true);
        reads(255, 255_u8);
        reads(i64::MIN, i64::MIN);
        reads(u64::MAX, u64::MAX);
        reads(u64::MAX, u128::from(u64::MAX));
        reads(-1, -1_i128);
        reads(3, 3.0_f64);
        reads(0.5, 0.5_f32);
        assert_eq!(refusal::<u8>(256), "cannot read i64 256 as u8: out of range");
        assert_eq!(refusal::<bool>(2), "cannot read i64 2 as bool: neither 0 nor 1");
        assert_eq!(
            refusal::<f64>((1_i64 << 53) + 1),
            "cannot read i64 9007199254740993 as f64: not exact"
        );
        assert_eq!(refusal::<i64>(true), "cannot read bool as i64");
        assert_eq!(refusal::<i64>(1.0), "cannot read f64 as i64");
        assert_eq!(refusal::<i64>("1"), "cannot read text as i64");
    }

    #[test]
    fn null_needs_an_option() {
        reads(Value::Null, None::<u8>);
        reads(7, Some(7_u8));
        reads(Value::Null, ());
        assert_eq!(refusal::<u8>(Value::Null), "cannot read null as u8; ask for an Option");
        assert_eq!(
            refusal::<String>(Value::Null),
            "cannot read null as a string; ask for an Option"
        );
        assert_eq!(refusal::<()>(0), "cannot read i64 as unit");
    }

    #[test]
    fn text_is_a_string_a_char_or_a_variant() {
        reads("ab", String::from("ab"));
        reads("a", 'a');
        reads("free", Plan::Free);
        reads("127.0.0.1", IpAddr::from([127, 0, 0, 1]));
        assert_eq!(refusal::<Plan>("hunter2"), "none of free, paid, gift");
        assert_eq!(refusal::<Plan>(0), "cannot read i64 as enum Plan");
        assert_eq!(refusal::<Plan>("gift"), "cannot read text as newtype variant");
    }

    #[test]
    fn bytes_are_lists_of_numbers_too() {
        reads(vec![1_u8, 2], vec![1_u8, 2]);
        reads(vec![1_u8, 2], [1_u8, 2]);
        assert_eq!(refusal::<Vec<u8>>("ab"), "cannot read text as a sequence");
        assert_eq!(
            refusal::<[u8; 3]>(vec![1_u8]),
            "cannot read 1 elements as an array of length 3"
        );
    }

    #[test]
    fn arrays_nest_and_their_errors_name_the_element() {
        let nested = || array([array([Some(1), None]), array([Some(3)])]);
        reads(nested(), vec![vec![Some(1_u8), None], vec![Some(3)]]);
        reads(array([params("a", 1), params("b", 2)]), vec![("a".to_owned(), 1), ("b".into(), 2)]);
        assert_eq!(
            refusal::<Vec<Vec<u8>>>(nested()),
            "element 0: element 1: cannot read null as u8; ask for an Option"
        );
    }

    fn params(name: &str, number: i32) -> Value {
        crate::params![name, number].to_vec().into()
    }

    #[test]
    fn an_array_loses_no_element_to_a_tuple() {
        assert_eq!(
            refusal::<(i32, i32)>(array([1, 2, 3])),
            "cannot read 3 elements as a tuple of size 2"
        );
    }

    #[test]
    fn a_newtype_is_what_it_wraps() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Id(u32);
        reads(7, Id(7));
        reads(array([7]), vec![Id(7)]);
    }

    #[test]
    fn what_has_no_type_of_its_own_is_its_text() {
        let uuid = "67e55044-10b1-426f-9247-bb680e5fe0c8";
        let bytes = u128::from_str_radix(&uuid.replace('-', ""), 16).expect("hexadecimal");
        reads(Value::Uuid(bytes.to_be_bytes()), uuid.to_owned());
        reads(Value::Uuid(bytes.to_be_bytes()), bytes.to_be_bytes());
        reads(Value::Decimal("19.90".into()), "19.90".to_owned());
        reads(Value::Json("[1]".into()), "[1]".to_owned());
        reads(Date::from_days(0), "1970-01-01".to_owned());
        reads(Timestamp::from_micros(1), "1970-01-01T00:00:00.000001Z".to_owned());
    }

    #[test]
    fn dates_and_times_deserialize_and_serialize_as_text() {
        let at = DateTime::new(Date::from_days(-1), Time::MIDNIGHT);
        reads(at, at);
        reads(at.date(), at.date());
        reads(at.time(), at.time());
        reads(Timestamp::from_micros(-1), Timestamp::from_micros(-1));
        reads("1969-12-31", at.date());
        assert_eq!(refusal::<Date>("hunter2"), "not a date as 2024-02-29");
        assert_eq!(refusal::<Date>(1), "cannot read i64 as Date");
        // A formatter is a serializer of what is only text.
        struct Shown(DateTime);
        impl fmt::Display for Shown {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.serialize(f)
            }
        }
        assert_eq!(Shown(at).to_string(), "1969-12-31T00:00:00");
    }

    #[test]
    fn chrono_reads_its_types() {
        let at: DateTime = "2024-02-29T13:45:07.25".parse().expect("ISO");
        let naive: ::chrono::NaiveDateTime = "2024-02-29T13:45:07.25".parse().expect("ISO");
        reads(at, naive);
        reads(at.date(), naive.date());
        reads(at.time(), naive.time());
        reads(Time::MIDNIGHT, ::chrono::NaiveTime::MIN);
        reads(Timestamp::from_utc(at).expect("near"), naive.and_utc());
        let far = Date::new(-12_345, 6, 7).expect("a day");
        reads(far, ::chrono::NaiveDate::from_ymd_opt(-12_345, 6, 7).expect("a day"));
    }

    #[test]
    fn the_time_crate_reads_its_types() {
        for text in ["2024-02-29T13:45:07.25", "2024-12-31T00:00:00", "1970-01-01T23:59:59"] {
            let at: DateTime = text.parse().expect("ISO");
            let (year, month, day) = at.date().ymd();
            let month = ::time::Month::try_from(month).expect("a month");
            let date = ::time::Date::from_calendar_date(year, month, day).expect("a day");
            let micros = ::time::Duration::microseconds(at.time().micros());
            let wanted = date.midnight() + micros;
            reads(at, wanted);
            reads(at.date(), wanted.date());
            reads(at.time(), wanted.time());
            reads(Timestamp::from_utc(at).expect("near"), wanted.assume_utc());
        }
    }

    #[test]
    fn the_time_crate_reads_rfc_3339() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(transparent)]
        struct At(#[serde(with = "::time::serde::rfc3339")] ::time::OffsetDateTime);
        reads(Timestamp::from_micros(0), At(::time::OffsetDateTime::UNIX_EPOCH));
    }

    #[test]
    fn uuids_and_decimals_of_other_crates_are_read() {
        reads(Value::Uuid([7; 16]), ::uuid::Uuid::from_bytes([7; 16]));
        reads(Value::Decimal("19.90".into()), ::rust_decimal::Decimal::new(1990, 2));
        reads(7, ::rust_decimal::Decimal::from(7));
    }

    #[test]
    fn an_error_never_repeats_text() {
        for error in [
            refusal::<u8>("hunter2"),
            refusal::<Plan>("hunter2"),
            refusal::<IpAddr>("hunter2"),
            refusal::<char>("hunter2"),
            refusal::<Vec<Date>>(array(["hunter2"])),
            refusal::<::rust_decimal::Decimal>("hunter2"),
            refusal::<::chrono::NaiveDate>("hunter2"),
            refusal::<::uuid::Uuid>("hunter2"),
            refusal::<BTreeMap<String, u8>>("hunter2"),
        ] {
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[cfg(feature = "serde_json")]
    #[test]
    fn json_becomes_what_its_text_describes() {
        use serde_json::json;

        let json = |json: serde_json::Value| Value::from(json);
        reads(json(json!({"a": 1})), BTreeMap::from([("a".to_owned(), 1_u8)]));
        reads(json(json!([1, 2])), vec![1_u8, 2]);
        reads(json(json!([1, "a"])), (1_u8, "a".to_owned()));
        reads(json(json!("free")), Plan::Free);
        reads(json(json!({"gift": "a"})), Plan::Gift("a".into()));
        reads(json(json!({"a": [null]})), json!({"a": [null]}));
        reads(Value::Null, None::<Vec<u8>>);
        reads(" [1] ", crate::Json(vec![1_u8]));
        reads(Value::Json("7".into()), crate::Json(7_u8));
        reads(Value::Null, None::<crate::Json<u8>>);
        assert_eq!(refusal::<crate::Json<u8>>("hunter2"), "not JSON at line 1 column 1");
        assert_eq!(refusal::<Vec<u8>>(Value::Json("[1] 2".into())), "not JSON at line 1 column 5");
    }
}
