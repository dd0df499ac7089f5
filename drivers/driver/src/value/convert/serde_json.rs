//! JSON, parsed and written with the serde_json crate.
//!
//! Owns [`Json`] and the errors of parsing, which never quote the text. Does
//! not know whether the database has a type for JSON: text serves as well.

use std::fmt;
use std::marker::PhantomData;

use ::serde_json::de::{Deserializer as Parser, IoRead};
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::mismatch;
use crate::{Error, FromValue, Result, Value};

/// JSON as a type of your own.
///
/// Reads what is JSON in the database, or JSON in text. Written with
/// `Value::try_from`, because not everything that serializes is JSON: a map
/// whose keys are lists is not.
///
/// To serde it is transparent, but for a row's deserializer, which looks
/// inside the text.
///
/// ```
/// use millpond_driver::{Error, FromValue, Json, Value};
///
/// let tags = Value::try_from(Json(vec!["a", "b"]))?;
/// assert_eq!(tags, Value::Json(r#"["a","b"]"#.into()));
/// let Json(tags) = Json::<Vec<String>>::from_value(tags)?;
/// assert_eq!(tags, ["a", "b"]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json<T>(pub T);

/// The name by which a [`Cell`](super::de::Cell) knows that a [`Json`] asks.
pub(crate) const JSON: &str = "$millpond::Json";

impl From<::serde_json::Value> for Value {
    fn from(json: ::serde_json::Value) -> Self {
        Self::Json(json.to_string().into())
    }
}

impl FromValue for ::serde_json::Value {
    fn from_value(value: Value) -> Result<Self> {
        Json::from_value(value).map(|Json(json)| json)
    }
}

impl<T: Serialize> TryFrom<Json<T>> for Value {
    type Error = Error;

    fn try_from(Json(value): Json<T>) -> Result<Self> {
        match ::serde_json::to_string(&value) {
            Ok(text) => Ok(Self::Json(text.into())),
            Err(error) => Err(Error::decode("cannot write this as JSON").with_source(error)),
        }
    }
}

impl<T: DeserializeOwned> FromValue for Json<T> {
    fn from_value(value: Value) -> Result<Self> {
        match &value {
            Value::Json(text) | Value::Text(text) => {
                ::serde_json::from_str(text).map(Json).map_err(|error| fault(&error))
            }
            other => Err(mismatch(other, "Json")),
        }
    }
}

impl<T: Serialize> Serialize for Json<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(JSON, &self.0)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Json<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inside<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Inside<T> {
            type Value = Json<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("Json")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                inside: D,
            ) -> Result<Json<T>, D::Error> {
                T::deserialize(inside).map(Json)
            }
        }

        deserializer.deserialize_newtype_struct(JSON, Inside(PhantomData))
    }
}

/// Lets `read` deserialize from JSON text.
pub(super) fn parse<T>(
    text: &str,
    read: impl FnOnce(&mut Parser<IoRead<&[u8]>>) -> ::serde_json::Result<T>,
) -> Result<T> {
    // As from a reader: a parser over the text itself would lend parts of it
    // to the result, which outlives the text.
    let mut parser = Parser::from_reader(text.as_bytes());
    let value = read(&mut parser);
    value.and_then(|value| parser.end().map(|()| value)).map_err(|error| fault(&error))
}

/// The parser's messages quote the text, but for one.
#[cold]
fn fault(error: &::serde_json::Error) -> Error {
    let message = error.to_string();
    if error.is_data() && message.starts_with("missing field") {
        return Error::decode(message);
    }
    let what = if error.is_data() { "JSON of another shape" } else { "not JSON" };
    Error::decode(format!("{what} at line {} column {}", error.line(), error.column()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ::serde_json::json;

    use super::super::tests::{refusal, returns};
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Profile {
        name: String,
        age: u8,
    }

    #[test]
    fn what_goes_in_comes_out() {
        returns(json!({"a": [1, 0.5, null, "b"], "c": {"d": true}}));
        returns(json!(null));
        returns(Some(json!(u64::MAX)));
        returns(None::<::serde_json::Value>);
    }

    #[test]
    fn json_is_read_from_text_as_well() {
        for value in [Value::Json(r#"{"a":1}"#.into()), r#" {"a": 1} "#.into()] {
            let json = ::serde_json::Value::from_value(value).expect("JSON");
            assert_eq!(json, json!({"a": 1}));
        }
        assert_eq!(refusal::<::serde_json::Value>(Value::I64(1)), "cannot read i64 as Json");
        assert_eq!(
            refusal::<::serde_json::Value>(Value::Null),
            "cannot read null as Json; ask for an Option"
        );
    }

    #[test]
    fn a_type_of_ones_own_goes_both_ways() {
        let ada = || Profile { name: "Ada".into(), age: 36 };
        let value = Value::try_from(Json(ada())).expect("JSON");
        assert_eq!(value, Value::Json(r#"{"name":"Ada","age":36}"#.into()));
        assert_eq!(Json::from_value(value).expect("a profile"), Json(ada()));
    }

    #[test]
    fn json_is_transparent_to_other_formats() {
        let list: Json<Vec<u8>> = ::serde_json::from_str("[1, 2]").expect("a list");
        assert_eq!(list, Json(vec![1, 2]));
        assert_eq!(::serde_json::to_string(&list).expect("a list"), "[1,2]");
    }

    #[test]
    fn an_error_says_where_and_never_what() {
        let refusal = |text: &str| refusal::<Json<Profile>>(text.into());
        assert_eq!(refusal("hunter2"), "not JSON at line 1 column 1");
        assert_eq!(refusal(r#"{"name": "hunter2""#), "not JSON at line 1 column 18");
        assert_eq!(
            refusal(r#"{"name": "Ada", "age": "hunter2"}"#),
            "JSON of another shape at line 1 column 32"
        );
        assert_eq!(refusal(r#"{"name": "Ada"}"#), "missing field `age` at line 1 column 15");
    }

    #[test]
    fn what_is_not_json_is_not_written() {
        let map = BTreeMap::from([(vec![1], 1)]);
        let error = Value::try_from(Json(map)).expect_err("a list as a key");
        assert_eq!(error.to_string(), "cannot write this as JSON");
    }
}
