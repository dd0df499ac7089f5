//! A row, as serde sees it.
//!
//! Decides which column answers which field, and names the column in errors.
//! Does not know how one value deserializes: [`Cell`] does.

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Visitor,
};

use super::Row;
use crate::value::{Cell, Fault};
use crate::{Error, Result};

pub(super) fn deserialize<T: DeserializeOwned>(row: &Row) -> Result<T> {
    T::deserialize(Whole(row)).map_err(|fault| match fault {
        Fault::Missing(field) => row.lacks(field),
        Fault::Other(error) => error,
    })
}

/// Methods that hand the question on to a cell.
macro_rules! ask_the_cell {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, Fault> {
            let (at, cell) = self.cell(&visitor)?;
            cell.$method($($argument,)* visitor).map_err(|fault| at.name(fault))
        }
    )*};
}

macro_rules! ask_the_cell_for_scalars {
    () => {
        ask_the_cell! {
            deserialize_bool()
            deserialize_i8()
            deserialize_i16()
            deserialize_i32()
            deserialize_i64()
            deserialize_i128()
            deserialize_u8()
            deserialize_u16()
            deserialize_u32()
            deserialize_u64()
            deserialize_u128()
            deserialize_f32()
            deserialize_f64()
            deserialize_char()
            deserialize_str()
            deserialize_string()
            deserialize_bytes()
            deserialize_byte_buf()
            deserialize_unit()
            deserialize_unit_struct(name: &'static str)
            deserialize_enum(name: &'static str, variants: &'static [&'static str])
            deserialize_identifier()
        }
    };
}

/// A row to deserialize from: a map for those who ask by name, a sequence for
/// those who ask by position, its only column for all others.
#[derive(Clone, Copy)]
struct Whole<'a>(&'a Row);

impl<'a> Whole<'a> {
    fn cell(self, wanted: &dyn Expected) -> Result<(At<'a>, Cell), Fault> {
        if self.0.len() != 1 {
            let names = self.0.columns.names();
            let message = format!("{wanted} is read from one column; the row has {names}");
            return Err(Error::decode(message).into());
        }
        At { row: self.0, index: 0 }.cell(wanted)
    }
}

impl<'de> Deserializer<'de> for Whole<'_> {
    type Error = Fault;

    ask_the_cell_for_scalars!();

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_map(ByName { row: self.0, fields: &[], next: 0 })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(ByName { row: self.0, fields, next: 0 })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_seq(ByPosition { row: self.0, next: 0 })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if length > self.0.len() {
            return Err(self.0.lacks(self.0.len()).into());
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

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.len() != 1 {
            return visitor.visit_some(self);
        }
        let (at, cell) = self.cell(&visitor)?;
        cell.deserialize_option(visitor).map_err(|fault| at.name(fault))
    }

    #[cfg_attr(not(feature = "serde_json"), expect(unused_variables, reason = "for JSON"))]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        #[cfg(feature = "serde_json")]
        if name == crate::value::JSON {
            let (at, cell) = self.cell(&visitor)?;
            return cell.deserialize_newtype_struct(name, visitor).map_err(|fault| at.name(fault));
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

/// A cell of a row, decoded when it is asked for.
#[derive(Clone, Copy)]
struct At<'a> {
    row: &'a Row,
    index: usize,
}

impl At<'_> {
    fn cell(self, _wanted: &dyn Expected) -> Result<(Self, Cell), Fault> {
        match self.row.cell(self.index) {
            Ok(value) => Ok((self, Cell(value))),
            Err(error) => Err(self.name(error.into())),
        }
    }

    #[cold]
    fn name(self, fault: Fault) -> Fault {
        fault.within(self.row.place(self.index))
    }
}

impl<'de> Deserializer<'de> for At<'_> {
    type Error = Fault;

    ask_the_cell_for_scalars!();

    ask_the_cell! {
        deserialize_any()
        deserialize_option()
        deserialize_newtype_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }
}

/// The columns with their names, or the names of the fields that ask for them.
struct ByName<'a> {
    row: &'a Row,
    fields: &'static [&'static str],
    next: usize,
}

impl<'a> ByName<'a> {
    /// What the column is called towards serde. `None` if an earlier column has
    /// the same name. Agrees with [`Columns::index_of`](super::Columns::index_of).
    fn key(&self, index: usize) -> Option<&'a str> {
        let columns = &self.row.columns;
        let name = columns[index].name();
        if columns[..index].iter().any(|column| column.name() == name) {
            return None;
        }
        if self.fields.contains(&name) {
            return Some(name);
        }
        let field = self.fields.iter().find(|field| field.eq_ignore_ascii_case(name));
        Some(field.filter(|field| columns.index_of(field) == Some(index)).map_or(name, |f| f))
    }
}

impl<'de> MapAccess<'de> for ByName<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        while self.next < self.row.len() {
            let index = self.next;
            self.next += 1;
            if let Some(key) = self.key(index) {
                return seed
                    .deserialize(key.into_deserializer())
                    .map(Some)
                    .map_err(|fault| At { row: self.row, index }.name(fault));
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(At { row: self.row, index: self.next - 1 })
    }
}

/// The columns in their order.
struct ByPosition<'a> {
    row: &'a Row,
    next: usize,
}

impl<'de> SeqAccess<'de> for ByPosition<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        if self.next == self.row.len() {
            return Ok(None);
        }
        let index = self.next;
        self.next += 1;
        seed.deserialize(At { row: self.row, index }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.row.len() - self.next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fmt::Debug;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde::Deserialize;
    use serde::de::IgnoredAny;

    use super::*;
    use crate::{Cause, Cells, Column, Columns, ErrorKind, Rows, Value, params};

    fn row<const N: usize>(names: [&str; N], values: [Value; N]) -> Row {
        Row::new(Columns::from_iter(names), values)
    }

    fn refusal<T: DeserializeOwned + Debug>(row: &Row) -> String {
        let error = row.deserialize::<T>().expect_err("does not fit");
        assert_eq!(error.kind(), ErrorKind::Decode);
        error.to_string()
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct User {
        id: u32,
        name: String,
        email: Option<String>,
    }

    fn ada(email: Option<&str>) -> User {
        User { id: 7, name: "Ada".into(), email: email.map(Into::into) }
    }

    #[test]
    fn a_struct_takes_its_fields_by_name_and_ignores_the_rest() {
        let row = row(["email", "shoe_size", "name", "id"], params!["a@b", 38.5, "Ada", 7]);
        assert_eq!(row.deserialize::<User>().expect("a user"), ada(Some("a@b")));
    }

    #[test]
    fn a_struct_finds_names_of_another_case_as_the_row_does() {
        let row = row(["ID", "NAME", "name"], params![7, "Grace", "Ada"]);
        assert_eq!(row.deserialize::<User>().expect("a user"), ada(None));
        assert_eq!(row.get::<String>("name").expect("the same"), "Ada");
    }

    #[test]
    fn of_two_columns_of_one_name_the_first_wins() {
        let row = row(["id", "name", "id"], params![7, "Ada", "other"]);
        assert_eq!(row.deserialize::<User>().expect("a user"), ada(None));
        let map: BTreeMap<String, IgnoredAny> = row.deserialize().expect("a map");
        assert_eq!(map.len(), 2);
    }

    #[test]
    fn one_column_never_answers_two_names_of_a_field() {
        #[derive(Debug, Deserialize)]
        struct Aliased {
            #[serde(alias = "ID", alias = "Id")]
            id: u8,
        }
        for name in ["id", "ID", "iD"] {
            let row = row([name], params![7]);
            assert_eq!(row.deserialize::<Aliased>().expect("an id").id, 7, "{name}");
        }
    }

    #[test]
    fn a_missing_field_is_answered_with_the_known_columns() {
        let row = row(["id", "naem"], params![7, "Ada"]);
        assert_eq!(refusal::<User>(&row), "no column \"name\"; the row has id, naem");
    }

    #[test]
    fn a_missing_column_may_have_a_default() {
        #[derive(Debug, Deserialize)]
        struct Paged {
            #[serde(default)]
            offset: u64,
        }
        assert_eq!(row([], []).deserialize::<Paged>().expect("defaults").offset, 0);
    }

    #[test]
    fn a_column_too_many_is_an_error_to_those_who_say_so() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Strict {
            #[serde(rename = "id")]
            _id: u8,
        }
        let row = row(["id", "extra"], params![1, 2]);
        assert_eq!(refusal::<Strict>(&row), "column \"extra\": none of the fields id");
    }

    #[test]
    fn an_error_names_column_and_type_and_not_the_text() {
        let columns = [Column::new("id").with_type_name("varchar"), Column::new("name")];
        let row = Row::new(columns.into_iter().collect(), params!["hunter2", "Ada"]);
        let wanted = "column \"id\" (varchar): cannot read text as u32";
        assert_eq!(refusal::<User>(&row), wanted);
        assert_eq!(refusal::<(u32, String)>(&row), wanted);
        assert_eq!(refusal::<BTreeMap<String, u32>>(&row), wanted);
    }

    #[test]
    fn a_map_takes_all_columns() {
        let map: BTreeMap<String, Option<i64>> =
            row(["a", "b"], params![1, None::<i64>]).deserialize().expect("a map");
        assert_eq!(map, BTreeMap::from([("a".into(), Some(1)), ("b".into(), None)]));
    }

    #[test]
    fn a_tuple_takes_columns_by_position() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Pair(u8, String);
        let row = row(["x", "x"], params![1, "a"]);
        assert_eq!(row.deserialize::<(u8, String)>().expect("a pair"), (1, "a".into()));
        assert_eq!(row.deserialize::<Pair>().expect("a pair"), Pair(1, "a".into()));
        assert_eq!(row.deserialize::<(u8,)>().expect("the first"), (1,));
        assert_eq!(refusal::<(u8, String, u8)>(&row), "no column 2; the row has x, x");
        assert_eq!(refusal::<Vec<u8>>(&row), "column \"x\": cannot read text as u8");
    }

    #[test]
    fn a_single_column_becomes_a_scalar() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Id(u64);
        #[derive(Debug, PartialEq, Deserialize)]
        enum Plan {
            Free,
        }
        let number = row(["n"], params![7]);
        assert_eq!(number.deserialize::<i8>().expect("a number"), 7);
        assert_eq!(number.deserialize::<Id>().expect("an id"), Id(7));
        assert_eq!(number.deserialize::<Option<i8>>().expect("a number"), Some(7));
        assert_eq!(row(["p"], params!["Free"]).deserialize::<Plan>().expect("one"), Plan::Free);
        let null = row(["n"], params![None::<i8>]);
        assert_eq!(null.deserialize::<Option<i8>>().expect("null"), None);
        assert_eq!(refusal::<i8>(&null), "column \"n\": cannot read null as i8; ask for an Option");
    }

    #[test]
    fn what_takes_anything_is_offered_a_map() {
        let row = row(["price"], params![7]);
        assert_eq!(
            refusal::<::rust_decimal::Decimal>(&row),
            "cannot read a row as a Decimal type representing a fixed-point number; \
             ask for a tuple"
        );
        let (price,) = row.deserialize::<(::rust_decimal::Decimal,)>().expect("a price");
        assert_eq!(price, 7.into());
    }

    #[test]
    fn several_columns_are_no_scalar() {
        let row = row(["a", "b"], params![1, 2]);
        assert_eq!(refusal::<i64>(&row), "i64 is read from one column; the row has a, b");
        let none = Row::new(Columns::default(), []);
        assert_eq!(refusal::<()>(&none), "unit is read from one column; the row has no columns");
    }

    #[test]
    fn a_newtype_and_an_option_around_a_struct_are_transparent() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Wrapped(User);
        let row = row(["id", "name"], params![7, "Ada"]);
        assert_eq!(row.deserialize::<Wrapped>().expect("a user"), Wrapped(ada(None)));
        assert_eq!(row.deserialize::<Option<User>>().expect("a user"), Some(ada(None)));
    }

    #[test]
    fn structs_flatten_and_enums_may_be_tagged_by_a_column() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Listed {
            rank: u8,
            #[serde(flatten)]
            user: User,
        }
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(tag = "kind")]
        enum Shape {
            Circle { radius: f64 },
            Point,
        }
        let listed = row(["rank", "id", "name"], params![1, 7, "Ada"]);
        let wanted = Listed { rank: 1, user: ada(None) };
        assert_eq!(listed.deserialize::<Listed>().expect("a user"), wanted);
        let shape = row(["kind", "radius"], params!["Circle", 0.5]);
        assert_eq!(shape.deserialize::<Shape>().expect("a shape"), Shape::Circle { radius: 0.5 });
        let shape = row(["kind", "radius"], params!["Point", None::<f64>]);
        assert_eq!(shape.deserialize::<Shape>().expect("a shape"), Shape::Point);
    }

    /// The index as the value, but for the fourth cell, which is damaged.
    struct Counted(Arc<[AtomicUsize; 4]>);

    impl Cells for Counted {
        fn cell(&self, index: usize) -> Result<Value> {
            self.0[index].fetch_add(1, Ordering::Relaxed);
            match index {
                3 => Err(Error::decode("bad bytes").with_cause(Cause::Corrupt)),
                _ => Ok(Value::I64(index as i64)),
            }
        }
    }

    #[test]
    fn a_lazy_row_decodes_each_asked_cell_once_and_no_other() {
        #[derive(Debug, PartialEq, Deserialize)]
        struct Two {
            c: Option<u8>,
            a: u8,
        }
        let counts = Arc::<[AtomicUsize; 4]>::default();
        let columns = Columns::from_iter(["a", "b", "c", "d"]);
        let row = Row::lazy(columns, Counted(Arc::clone(&counts)));
        assert_eq!(row.deserialize::<Two>().expect("both"), Two { c: Some(2), a: 0 });
        assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [1, 0, 1, 0]);
        assert_eq!(row.deserialize::<(u8, u8)>().expect("both"), (0, 1));
        assert_eq!(counts.each_ref().map(|count| count.load(Ordering::Relaxed)), [2, 1, 1, 0]);
    }

    #[test]
    fn a_damaged_cell_keeps_its_error() {
        let row = Row::lazy(Columns::from_iter(["a", "b", "c", "d"]), Counted(Arc::default()));
        let error = row.deserialize::<BTreeMap<String, u8>>().expect_err("damaged");
        assert_eq!(error.to_string(), "column \"d\": bad bytes");
        assert_eq!(error.cause(), Cause::Corrupt);
    }

    #[test]
    fn all_rows_become_a_list_and_an_error_names_the_row() {
        let columns = Columns::from_iter(["id"]);
        let rows = [1, 300].map(|id| Row::new(columns.clone(), params![id])).into();
        let rows = Rows::new(columns, rows);
        assert_eq!(rows.deserialize::<u16>().expect("both"), [1, 300]);
        let error = rows.deserialize::<u8>().expect_err("the second");
        assert_eq!(
            error.to_string(),
            "row 1: column \"id\": cannot read i64 300 as u8: out of range"
        );
    }

    #[cfg(feature = "serde_json")]
    #[test]
    fn a_column_of_json_becomes_a_field() {
        use crate::Json;

        #[derive(Debug, PartialEq, Deserialize)]
        struct Order {
            lines: Vec<u8>,
            buyer: Json<User>,
        }
        let buyer = r#"{"id": 7, "name": "Ada"}"#;
        let row = row(["lines", "buyer"], [Value::Json("[1, 2]".into()), buyer.into()]);
        let wanted = Order { lines: vec![1, 2], buyer: Json(ada(None)) };
        assert_eq!(row.deserialize::<Order>().expect("an order"), wanted);
        let single = Rows::one("buyer", buyer);
        assert_eq!(single.deserialize::<Json<User>>().expect("a user"), [Json(ada(None))]);
        let any = Rows::one("json", Value::Json("[null]".into()));
        assert_eq!(
            any.deserialize::<serde_json::Value>().expect("a map"),
            [serde_json::json!({"json": [null]})]
        );
    }
}
