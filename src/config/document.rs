//! The settings of a pool in a document: JSON, TOML and whatever else serde
//! reads and describes itself.
//!
//! Owns how a value is read and written there. A document is first read into
//! [`Node`]s, which take anything, so that everything wrong with it is found,
//! and not only the first thing. Does not know which settings there are.

use std::fmt;
use std::time::Duration;

use millpond_driver::Reset;
use millpond_driver::url::nearest;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::text::Setting;
use super::{IdleOrder, PoolConfig, Unset, fault, refuse};

/// serde_json's name for a number, as the only field of a map, where some
/// crate of the program has enabled its feature `arbitrary_precision`.
const NUMBER: &str = "$serde_json::private::Number";

/// A value in a document, whatever it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Whole(i128),
    Float(f64),
    Text(String),
    List,
    /// With its names in order, some perhaps more than once.
    Map(Vec<(String, Self)>),
}

impl Node {
    /// A number from its digits.
    fn number(digits: &str) -> Self {
        digits.parse().map_or_else(|_| Self::Float(digits.parse().unwrap_or(f64::NAN)), Self::Whole)
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Whole(value) => value.fmt(f),
            // With a point or an exponent, which Display leaves out.
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List => f.write_str("a list"),
            Self::Map(_) => f.write_str("a map"),
        }
    }
}

/// A kind of setting, as documents hold it.
pub(crate) trait Field: Setting {
    /// What it looks like in a document, for the error.
    const FORM: &'static str = <Self as Setting>::FORM;

    /// Default: as in text.
    fn from_node(node: &Node) -> Option<Self> {
        match node {
            Node::Text(text) => Self::from_text(text),
            _ => None,
        }
    }

    fn to_node(&self) -> Node;
}

/// Reads the value of a setting.
pub(crate) fn read<T: Field>(node: &Node) -> Result<T, Unset> {
    T::from_node(node).ok_or(Unset::Not(<T as Field>::FORM))
}

/// Writes the value of a setting.
pub(super) fn write<T: Field>(value: &T) -> Node {
    value.to_node()
}

/// The whole numbers, each with its form.
macro_rules! whole {
    ($($type:ty: $form:expr;)+) => {
        $(impl Field for $type {
            const FORM: &'static str = $form;

            fn from_node(node: &Node) -> Option<Self> {
                match node {
                    Node::Whole(number) => Self::try_from(*number).ok(),
                    _ => None,
                }
            }

            fn to_node(&self) -> Node {
                Node::Whole(*self as i128)
            }
        })+
    };
}

whole! {
    usize: "a whole number, 0 or more";
    u64: "a whole number, 0 or more";
    u32: <Self as Setting>::FORM;
}

impl Field for bool {
    fn from_node(node: &Node) -> Option<Self> {
        match node {
            Node::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn to_node(&self) -> Node {
        Node::Bool(*self)
    }
}

impl Field for Duration {
    const FORM: &'static str =
        "a duration: nanoseconds, or text with units as in 1h30m, 2.5s or 250ms";

    fn from_node(node: &Node) -> Option<Self> {
        match node {
            Node::Whole(nanos) => u64::try_from(*nanos).ok().map(Self::from_nanos),
            Node::Text(text) => Self::from_text(text),
            _ => None,
        }
    }

    /// At most 292 years, the longest that Go and TOML can hold.
    fn to_node(&self) -> Node {
        Node::Whole(self.as_nanos().min(i64::MAX as u128) as i128)
    }
}

impl Field for Reset {
    fn to_node(&self) -> Node {
        Node::Text(if *self == Self::Session { "session" } else { "boundary" }.to_owned())
    }
}

impl Field for IdleOrder {
    fn to_node(&self) -> Node {
        Node::Text(if *self == Self::Fifo { "fifo" } else { "lifo" }.to_owned())
    }
}

impl PoolConfig {
    /// The settings among these fields, every fault noted. Fields named in
    /// `others` are no settings and are put there.
    pub(crate) fn from_fields<'a>(
        fields: &'a [(String, Node)],
        others: &mut [(&'static str, Option<&'a Node>)],
        faults: &mut Vec<String>,
    ) -> Self {
        let mut config = Self::new();
        for (n, (name, node)) in fields.iter().enumerate() {
            if fields[..n].iter().any(|(earlier, _)| earlier == name) {
                faults.push(format!("{name}: is given twice"));
            } else if let Some((_, other)) = others.iter_mut().find(|(other, _)| other == name) {
                *other = Some(node);
            } else {
                match config.set_from(name, node) {
                    Ok(()) => {}
                    Err(Unset::Not(form)) => faults.push(fault(name, node, form)),
                    Err(Unset::NoSuchName) => faults.push(unknown(name, others)),
                }
            }
        }
        config
    }
}

/// What is said of a field that is not known. Its value may be a password.
fn unknown(name: &str, others: &[(&'static str, Option<&Node>)]) -> String {
    let others = others.iter().map(|(name, _)| *name);
    let known: Vec<&str> = PoolConfig::SETTINGS.iter().copied().chain(others).collect();
    match nearest(name, &known) {
        Some(meant) => format!("{name}: is not a setting; did you mean {meant}?"),
        None => format!("{name}: is not a setting"),
    }
}

impl<'de> Deserialize<'de> for PoolConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As any and not as a struct: formats show what they find instead, and
        // that may be a URL with a password.
        let Node::Map(fields) = deserializer.deserialize_any(AnyNode)? else {
            return Err(D::Error::custom("invalid type: expected the settings of a pool"));
        };
        let mut faults = Vec::new();
        let config = Self::from_fields(&fields, &mut [], &mut faults);
        refuse(&faults).map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl Serialize for PoolConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.made())
    }
}

/// The values of settings; no setting is a list or a map.
impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Whole(value) => match u64::try_from(*value) {
                Ok(value) => serializer.serialize_u64(value),
                Err(_) => serializer.serialize_i128(*value),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Null | Self::List | Self::Map(_) => serializer.serialize_unit(),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyNode)
    }
}

struct AnyNode;

impl<'de> Visitor<'de> for AnyNode {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the settings of a pool")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
        Node::deserialize(inner)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Whole(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Whole(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(match &fields[..] {
            [(name, Node::Text(digits))] if name == NUMBER => Node::number(digits),
            _ => Node::Map(fields),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of a setting's value have one list for reading and another
    /// for writing.
    #[test]
    fn what_a_document_is_given_it_gives_back() {
        fn same<T: Field + PartialEq + fmt::Debug>(value: T) {
            assert_eq!(read(&write(&value)), Ok(value));
        }
        [0, 8, usize::MAX].into_iter().for_each(same);
        [0, u32::MAX].into_iter().for_each(same);
        [true, false].into_iter().for_each(same);
        [Duration::ZERO, Duration::from_nanos(i64::MAX as u64)].into_iter().for_each(same);
        [0, u64::MAX].into_iter().for_each(same);
        [Reset::Boundary, Reset::Session].into_iter().for_each(same);
        [IdleOrder::Lifo, IdleOrder::Fifo].into_iter().for_each(same);
        let forever = write(&Duration::MAX);
        assert_eq!(read(&forever), Ok(Duration::from_nanos(i64::MAX as u64)));
    }

    #[test]
    fn a_number_of_arbitrary_precision_is_a_number() {
        for (digits, expected) in
            [("8", Node::Whole(8)), ("-1", Node::Whole(-1)), ("2.50", Node::Float(2.5))]
        {
            let document = format!(r#"{{"{NUMBER}": "{digits}"}}"#);
            let node: Node = serde_json::from_str(&document).expect("a document");
            assert_eq!(node, expected);
        }
    }
}
