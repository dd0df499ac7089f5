//! Conversions between [`Value`] and Rust types.
//!
//! Decides which conversions exist: those that lose nothing. Does not know
//! rows or columns; a [`Row`](crate::Row) adds the column's name to the errors
//! made here. Those name kinds and numbers, and never text, which may be a
//! secret.

#[cfg(feature = "chrono")]
mod chrono;
#[cfg(feature = "serde")]
mod de;
#[cfg(feature = "rust_decimal")]
mod rust_decimal;
#[cfg(feature = "serde_json")]
mod serde_json;
#[cfg(feature = "time")]
mod time;
#[cfg(feature = "uuid")]
mod uuid;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Date, DateTime, Time, Timestamp, Value};
use crate::{Error, Result};

#[cfg(feature = "serde")]
pub(crate) use de::{Cell, Fault};
#[cfg(feature = "serde_json")]
pub(crate) use serde_json::JSON;
#[cfg(feature = "serde_json")]
pub use serde_json::Json;

/// A Rust type that a [`Value`] can become.
///
/// | Type | Reads |
/// | --- | --- |
/// | [`Value`] | anything |
/// | `Option<T>` | null, and what `T` reads |
/// | `bool` | bool; the integers 0 and 1 |
/// | integers | integers in range |
/// | `f64`, `f32` | f64, rounded to the nearest `f32`; integers it can hold exactly |
/// | `String`, `Box<str>` | text, json, decimal |
/// | `Vec<u8>` | bytes |
/// | `[u8; 16]` | uuid; 16 bytes |
/// | `Vec<T>` | array |
/// | [`Date`], [`Time`], [`DateTime`], [`Timestamp`] | their own kind |
/// | [`SystemTime`] | timestamp |
///
/// With the feature of the same name, also types of other crates, each of which
/// becomes a [`Value`] by `From` as well:
///
/// | Feature | Type | Reads |
/// | --- | --- | --- |
/// | `chrono` | `NaiveDate`, `NaiveTime`, `NaiveDateTime` | date, time, datetime |
/// | | `DateTime<Utc>` | timestamp, in range |
/// | `time` | `Date`, `Time`, `PrimitiveDateTime` | date, time, datetime |
/// | | `OffsetDateTime` | timestamp, in range |
/// | `uuid` | `Uuid` | uuid; 16 bytes; text of 36 characters |
/// | `rust_decimal` | `Decimal` | decimals, integers and text it can hold exactly |
/// | `serde_json` | `Value`, `Json<T>` of this crate | json; text that is JSON |
///
/// Types of your own delegate to one of these:
///
/// ```
/// use millpond_driver::{Error, FromValue, Result, Value};
///
/// #[derive(Debug, PartialEq)]
/// enum Status { Active, Closed }
///
/// impl FromValue for Status {
///     fn from_value(value: Value) -> Result<Self> {
///         match &*String::from_value(value)? {
///             "active" => Ok(Self::Active),
///             "closed" => Ok(Self::Closed),
///             _ => Err(Error::decode("neither active nor closed")),
///         }
///     }
/// }
///
/// assert_eq!(Status::from_value("active".into())?, Status::Active);
/// # Ok::<(), Error>(())
/// ```
pub trait FromValue: Sized {
    /// Converts a value.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if the value is of
    /// another kind or out of range.
    fn from_value(value: Value) -> Result<Self>;

    /// Converts a value to a list, on behalf of `Vec<Self>`.
    ///
    /// Default: an array, element by element. Only `u8` overrides it, since a
    /// list of `u8` is bytes.
    ///
    /// # Errors
    ///
    /// As for [`from_value`](Self::from_value).
    fn list_from_value(value: Value) -> Result<Vec<Self>> {
        match value {
            Value::Array(items) => (items.into_iter().enumerate())
                .map(|(i, item)| {
                    Self::from_value(item).map_err(|e| e.within(format_args!("element {i}")))
                })
                .collect(),
            other => Err(mismatch(&other, "Vec")),
        }
    }
}

impl FromValue for Value {
    fn from_value(value: Value) -> Result<Self> {
        Ok(value)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: Value) -> Result<Self> {
        if value.is_null() { Ok(None) } else { T::from_value(value).map(Some) }
    }
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: Value) -> Result<Self> {
        T::list_from_value(value)
    }
}

impl FromValue for bool {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Bool(value) => Ok(value),
            Value::I64(0) => Ok(false),
            Value::I64(1) => Ok(true),
            Value::I64(number) => Err(unfit(&value, number, "bool", "neither 0 nor 1")),
            other => Err(mismatch(&other, "bool")),
        }
    }
}

impl FromValue for u8 {
    fn from_value(value: Value) -> Result<Self> {
        integer(&value, "u8")
    }

    fn list_from_value(value: Value) -> Result<Vec<Self>> {
        match value {
            Value::Bytes(bytes) => Ok(bytes.into()),
            other => Err(mismatch(&other, "Vec<u8>")),
        }
    }
}

macro_rules! integers {
    ($($int:ident)*) => {$(
        impl FromValue for $int {
            fn from_value(value: Value) -> Result<Self> {
                integer(&value, stringify!($int))
            }
        }
    )*};
}
integers!(i8 i16 i32 i64 isize u16 u32 u64 usize);

fn integer<T: TryFrom<i64> + TryFrom<u64>>(value: &Value, wanted: &str) -> Result<T> {
    match *value {
        Value::I64(n) => T::try_from(n).map_err(|_| unfit(value, n, wanted, "out of range")),
        Value::U64(n) => T::try_from(n).map_err(|_| unfit(value, n, wanted, "out of range")),
        _ => Err(mismatch(value, wanted)),
    }
}

macro_rules! floats {
    ($($float:ident)*) => {$(
        impl FromValue for $float {
            fn from_value(value: Value) -> Result<Self> {
                if let Value::F64(number) = value {
                    let float = number as Self;
                    return if float.is_finite() || !number.is_finite() {
                        Ok(float)
                    } else {
                        Err(unfit(&value, number, stringify!($float), "out of range"))
                    };
                }
                let number = whole(&value, stringify!($float))?;
                let float = number as Self;
                // Compared as i128: the largest integers round up, and the way
                // back to a narrower type would hide it.
                if float as i128 == number {
                    Ok(float)
                } else {
                    Err(unfit(&value, number, stringify!($float), "not exact"))
                }
            }
        }
    )*};
}
floats!(f32 f64);

fn whole(value: &Value, wanted: &str) -> Result<i128> {
    match *value {
        Value::I64(number) => Ok(number.into()),
        Value::U64(number) => Ok(number.into()),
        _ => Err(mismatch(value, wanted)),
    }
}

impl FromValue for Box<str> {
    fn from_value(value: Value) -> Result<Self> {
        text(value, "Box<str>")
    }
}

impl FromValue for Arc<str> {
    fn from_value(value: Value) -> Result<Self> {
        text(value, "Arc<str>").map(Self::from)
    }
}

impl FromValue for String {
    fn from_value(value: Value) -> Result<Self> {
        text(value, "String").map(Self::from)
    }
}

fn text(value: Value, wanted: &str) -> Result<Box<str>> {
    match value {
        Value::Text(text) | Value::Json(text) | Value::Decimal(text) => Ok(text),
        other => Err(mismatch(&other, wanted)),
    }
}

impl FromValue for [u8; 16] {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Uuid(bytes) => Ok(bytes),
            Value::Bytes(bytes) => Self::try_from(&*bytes).map_err(|_| {
                Error::decode(format!("cannot read {} bytes as [u8; 16]", bytes.len()))
            }),
            other => Err(mismatch(&other, "[u8; 16]")),
        }
    }
}

macro_rules! dates_and_times {
    ($($name:ident)*) => {$(
        impl FromValue for $name {
            fn from_value(value: Value) -> Result<Self> {
                match value {
                    Value::$name(value) => Ok(value),
                    other => Err(mismatch(&other, stringify!($name))),
                }
            }
        }

        impl From<$name> for Value {
            fn from(value: $name) -> Self {
                Self::$name(value)
            }
        }
    )*};
}
dates_and_times!(Date Time DateTime Timestamp);

impl FromValue for SystemTime {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Timestamp(stamp) => stamp.try_into(),
            other => Err(mismatch(&other, "SystemTime")),
        }
    }
}

#[cold]
fn mismatch(found: &Value, wanted: impl fmt::Display) -> Error {
    let hint = if found.is_null() { "; ask for an Option" } else { "" };
    Error::decode(format!("cannot read {} as {wanted}{hint}", found.kind()))
}

#[cold]
fn unfit(found: &Value, number: impl fmt::Display, wanted: &str, why: impl fmt::Display) -> Error {
    unread(format_args!("{} {number}", found.kind()), wanted, why)
}

fn unread(found: impl fmt::Display, wanted: &str, why: impl fmt::Display) -> Error {
    Error::decode(format!("cannot read {found} as {wanted}: {why}"))
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

macro_rules! into_i64 {
    ($($int:ident)*) => {$(
        impl From<$int> for Value {
            fn from(value: $int) -> Self {
                Self::I64(value.into())
            }
        }
    )*};
}
into_i64!(i8 i16 i32 i64 u8 u16 u32);

impl From<u64> for Value {
    /// [`I64`](Self::I64) if it fits, so that equal numbers are equal values.
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Self::U64(value), Self::I64)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        // No machine has longer ones.
        Self::from(value as u64)
    }
}

impl From<isize> for Value {
    fn from(value: isize) -> Self {
        Self::I64(value as i64)
    }
}

impl From<char> for Value {
    fn from(value: char) -> Self {
        Self::Text(value.to_string().into())
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Self::F64(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::F64(value)
    }
}

macro_rules! into_text {
    ($($text:ty)*) => {$(
        impl From<$text> for Value {
            fn from(value: $text) -> Self {
                Self::Text(value.into())
            }
        }
    )*};
}
into_text!(&str String Box<str> Cow<'_, str>);

impl From<Arc<str>> for Value {
    fn from(value: Arc<str>) -> Self {
        Self::Text((&*value).into())
    }
}

impl<T: Clone + Into<Self>> From<&T> for Value {
    /// A copy of it.
    fn from(value: &T) -> Self {
        value.clone().into()
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Bytes(value.into())
    }
}

impl<const N: usize> From<[u8; N]> for Value {
    fn from(value: [u8; N]) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value.into())
    }
}

impl From<Vec<Self>> for Value {
    fn from(values: Vec<Self>) -> Self {
        Self::Array(values.into())
    }
}

macro_rules! into_array {
    ($($item:ty)*) => {$(
        impl From<Vec<$item>> for Value {
            fn from(values: Vec<$item>) -> Self {
                values.into_iter().collect()
            }
        }

        impl From<&[$item]> for Value {
            fn from(values: &[$item]) -> Self {
                values.iter().collect()
            }
        }
    )*};
}
// Not of `u8`, which are bytes. Others collect.
into_array!(bool i16 i32 i64 f32 f64 &str String);

impl<T: Into<Self>> FromIterator<T> for Value {
    /// Collects an [`Array`](Self::Array).
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}

impl From<SystemTime> for Value {
    /// As [`Timestamp::from`].
    fn from(value: SystemTime) -> Self {
        Self::Timestamp(value.into())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    /// `None` is [`Null`](Self::Null).
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// An array of [`Value`]s, each made from an expression with `From`.
///
/// ```
/// use millpond_driver::{Value, params};
///
/// let name = String::from("Ada");
/// let values: [Value; 3] = params![1, &name, None::<i64>];
/// assert_eq!(values, [Value::I64(1), Value::Text("Ada".into()), Value::Null]);
/// assert!(params![].is_empty());
/// ```
#[macro_export]
macro_rules! params {
    () => {{
        const NONE: [$crate::Value; 0] = [];
        NONE
    }};
    ($($value:expr),+ $(,)?) => {
        [$($crate::Value::from($value)),+]
    };
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::ErrorKind;

    pub(super) fn returns<T>(value: T)
    where
        T: FromValue + Into<Value> + Clone + PartialEq + Debug,
    {
        let back = T::from_value(value.clone().into()).expect("what went in");
        assert_eq!(back, value);
    }

    pub(super) fn refusal<T: FromValue + Debug>(value: Value) -> String {
        let error = T::from_value(value).expect_err("no conversion");
        assert_eq!(error.kind(), ErrorKind::Decode);
        error.to_string()
    }

    #[test]
    fn what_goes_in_comes_out() {
        returns(true);
        returns(i8::MIN);
        returns(u8::MAX);
        returns(i16::MIN);
        returns(u16::MAX);
        returns(i32::MIN);
        returns(u32::MAX);
        returns(i64::MIN);
        returns(i64::MAX);
        returns(0_u64);
        returns(u64::MAX);
        returns(usize::MAX);
        returns(isize::MIN);
        returns(0.1_f32);
        returns(f64::MIN_POSITIVE);
        returns(f32::INFINITY);
        returns(String::from("text"));
        returns(Box::<str>::from("text"));
        returns(Arc::<str>::from("text"));
        returns(vec![0_u8, 255]);
        returns(Some(7));
        returns(None::<String>);
        returns(vec![Value::Null, Value::I64(1)]);
        returns(Date::from_days(-1));
        returns(Time::MIDNIGHT);
        returns(DateTime::new(Date::from_days(1), Time::MIDNIGHT));
        returns(Timestamp::from_micros(i64::MIN));
        returns(UNIX_EPOCH + Duration::from_micros(1));
        returns(Value::Uuid([1; 16]));
    }

    #[test]
    fn references_characters_and_slices_go_in_as_what_they_are_of() {
        let (number, name, none) = (7_i64, String::from("Ada"), None::<i32>);
        assert_eq!(
            crate::params![&number, &name, &none, &&7, 'x'],
            [
                Value::I64(7),
                Value::Text("Ada".into()),
                Value::Null,
                Value::I64(7),
                Value::Text("x".into())
            ]
        );
        let numbers = || Value::Array([Value::I64(1), Value::I64(2)].into());
        assert_eq!(Value::from(vec![1, 2]), numbers());
        assert_eq!(Value::from(&[1_i64, 2][..]), numbers());
        assert_eq!(Value::from(&vec![1_i16, 2]), numbers());
        assert_eq!(Value::from(vec!["a"]), Value::from(&[String::from("a")][..]));
        assert_eq!(Value::from(*b"ab"), Value::Bytes([b'a', b'b'].into()));
        assert_eq!(Value::from(b"ab"), Value::from(vec![b'a', b'b']));
    }

    #[test]
    fn equal_integers_are_equal_values_whatever_their_width() {
        assert_eq!(Value::from(7_u64), Value::from(7_i8));
        assert_eq!(Value::from(i64::MAX as u64), Value::I64(i64::MAX));
        assert_eq!(Value::from(i64::MAX as u64 + 1), Value::U64(1 << 63));
    }

    #[test]
    fn an_integer_out_of_range_is_named() {
        assert_eq!(refusal::<u8>(Value::I64(256)), "cannot read i64 256 as u8: out of range");
        assert_eq!(refusal::<u64>(Value::I64(-1)), "cannot read i64 -1 as u64: out of range");
        assert_eq!(
            refusal::<i64>(Value::U64(u64::MAX)),
            "cannot read u64 18446744073709551615 as i64: out of range"
        );
        assert_eq!(i8::from_value(Value::U64(127)).expect("in range"), 127);
    }

    #[test]
    fn a_bool_is_read_from_zero_and_one_but_no_integer_from_a_bool() {
        assert!(!bool::from_value(Value::I64(0)).expect("false"));
        assert!(bool::from_value(Value::I64(1)).expect("true"));
        assert_eq!(refusal::<bool>(Value::I64(2)), "cannot read i64 2 as bool: neither 0 nor 1");
        assert_eq!(refusal::<i64>(Value::Bool(true)), "cannot read bool as i64");
    }

    #[test]
    fn a_float_takes_only_integers_it_can_hold() {
        assert_eq!(f64::from_value(Value::I64(1 << 53)).expect("exact"), 9_007_199_254_740_992.0);
        assert_eq!(f32::from_value(Value::U64(1 << 63)).expect("exact"), 9.223_372e18);
        assert_eq!(
            refusal::<f64>(Value::I64((1 << 53) + 1)),
            "cannot read i64 9007199254740993 as f64: not exact"
        );
        assert_eq!(
            refusal::<f32>(Value::I64(16_777_217)),
            "cannot read i64 16777217 as f32: not exact"
        );
        refusal::<f64>(Value::I64(i64::MAX));
        refusal::<f64>(Value::U64(u64::MAX));
    }

    #[test]
    fn an_f32_rounds_but_never_becomes_infinite() {
        assert_eq!(f32::from_value(Value::F64(0.1)).expect("rounded"), 0.1);
        assert!(f32::from_value(Value::F64(f64::NAN)).expect("still no number").is_nan());
        assert_eq!(f32::from_value(Value::F64(f64::INFINITY)).expect("infinite"), f32::INFINITY);
        assert_eq!(
            refusal::<f32>(Value::F64(1e39)),
            "cannot read f64 1000000000000000000000000000000000000000 as f32: out of range"
        );
    }

    #[test]
    fn a_string_reads_whatever_is_text() {
        for value in [Value::Text("1".into()), Value::Json("1".into()), Value::Decimal("1".into())]
        {
            assert_eq!(String::from_value(value).expect("text"), "1");
        }
        assert_eq!(refusal::<String>(Value::I64(1)), "cannot read i64 as String");
    }

    #[test]
    fn a_uuid_is_sixteen_bytes() {
        let bytes: Vec<u8> = (0..16).collect();
        assert_eq!(<[u8; 16]>::from_value(bytes.into()).expect("16 bytes")[15], 15);
        assert_eq!(refusal::<[u8; 16]>(vec![0_u8].into()), "cannot read 1 bytes as [u8; 16]");
    }

    #[test]
    fn null_needs_an_option() {
        assert_eq!(refusal::<i32>(Value::Null), "cannot read null as i32; ask for an Option");
        assert_eq!(<Option<i32>>::from_value(Value::Null).expect("none"), None);
    }

    #[test]
    fn an_array_becomes_a_list_and_its_errors_name_the_element() {
        let array: Value = [Some(1), None].into_iter().collect();
        assert_eq!(<Vec<Option<i32>>>::from_value(array.clone()).expect("a list"), [Some(1), None]);
        assert_eq!(
            refusal::<Vec<i32>>(array),
            "element 1: cannot read null as i32; ask for an Option"
        );
        assert_eq!(refusal::<Vec<i32>>(vec![1_u8].into()), "cannot read bytes as Vec");
        assert_eq!(
            refusal::<Vec<u8>>([1, 2].into_iter().collect()),
            "cannot read array as Vec<u8>"
        );
    }

    #[test]
    fn an_error_never_repeats_text() {
        for value in [
            Value::Text("hunter2".into()),
            Value::Json("hunter2".into()),
            Value::Decimal("hunter2".into()),
            Value::from(&b"hunter2"[..]),
            ["hunter2"].into_iter().collect(),
        ] {
            let kind = value.kind();
            assert_eq!(refusal::<Date>(value), format!("cannot read {kind} as Date"));
        }
    }

    #[test]
    fn params_takes_anything_convertible_and_also_nothing() {
        let text = String::from("b");
        let values = params![1_u8, "a", &text, Cow::Borrowed("c"), None::<i64>, vec![1_u8], 0.5,];
        assert_eq!(
            values,
            [
                Value::I64(1),
                Value::Text("a".into()),
                Value::Text("b".into()),
                Value::Text("c".into()),
                Value::Null,
                Value::Bytes([1].into()),
                Value::F64(0.5),
            ]
        );
        let none = params![];
        assert_eq!(none.len(), 0);
    }
}
