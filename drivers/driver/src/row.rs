//! One row of an answer.
//!
//! Owns [`Row`] and the seam [`Cells`] through which a driver decodes cells on
//! request; the files below own the columns and the whole answer. Does not
//! know where a row came from, nor how bytes become values.

mod columns;
#[cfg(feature = "serde")]
mod de;
mod rows;

use std::fmt;
use std::sync::Arc;

use crate::{Error, FromValue, Result, Value};

pub use columns::{Column, ColumnIndex, Columns};
pub use rows::Rows;

/// One row: columns, and a value for each.
///
/// ```
/// use millpond_driver::{Columns, Row, params};
///
/// let columns = Columns::from_iter(["id", "name", "age"]);
/// let row = Row::new(columns, params![7, "Ada", None::<i64>]);
///
/// let id: i64 = row.get("id")?;
/// let name = row.get::<String>(1)?;
/// let age: Option<u8> = row.get("age")?;
/// assert_eq!((id, &*name, age), (7, "Ada", None));
///
/// let error = row.get::<String>("naem").unwrap_err();
/// assert_eq!(error.to_string(), "no column \"naem\"; the row has id, name, age");
/// # Ok::<(), millpond_driver::Error>(())
/// ```
#[derive(Clone)]
pub struct Row {
    columns: Columns,
    cells: Source,
}

#[derive(Clone)]
enum Source {
    Values(Box<[Value]>),
    Lazy(Arc<dyn Cells>),
}

/// Cells of a row that are decoded when they are asked for.
///
/// For drivers whose client hands over rows that own their bytes: what nobody
/// reads is never decoded. Others give values, to [`Row::new`].
pub trait Cells: Send + Sync + 'static {
    /// Decodes the cell at `index`, which is below the number of columns.
    ///
    /// # Errors
    ///
    /// The cell does not decode. The error need not name the column: [`Row`]
    /// does.
    fn cell(&self, index: usize) -> Result<Value>;
}

impl Row {
    /// A row of values.
    ///
    /// # Panics
    ///
    /// If there are not as many values as columns.
    pub fn new(columns: Columns, values: impl Into<Box<[Value]>>) -> Self {
        let values = values.into();
        assert_eq!(values.len(), columns.len(), "a row has one value for each column");
        Self { columns, cells: Source::Values(values) }
    }

    /// A row whose cells are decoded on request, one for each column.
    pub fn lazy(columns: Columns, cells: impl Cells) -> Self {
        Self { columns, cells: Source::Lazy(Arc::new(cells)) }
    }

    /// The columns.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there are no columns.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// The value of a column as a Rust type.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if there is no such
    /// column or its value does not convert; see [`FromValue`].
    pub fn get<T: FromValue>(&self, index: impl ColumnIndex) -> Result<T> {
        let index = self.find(&index)?;
        self.cell(index).and_then(T::from_value).map_err(|error| error.within(self.place(index)))
    }

    /// The value of a column.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get).
    pub fn value(&self, index: impl ColumnIndex) -> Result<Value> {
        self.get(index)
    }

    /// The row as a type that deserializes.
    ///
    /// A struct or a map takes the columns by name, a tuple by position, and
    /// anything else the only column. A field finds its column as
    /// [`Columns::index_of`] does. Columns that nobody asks for are ignored and
    /// not decoded; a field that is an `Option` is `None` also if there is no
    /// column for it. Types that take whatever comes, such as `serde_json`'s
    /// `Value` or `rust_decimal`'s `Decimal`, are offered a map: ask for
    /// `(Decimal,)`.
    ///
    /// Cells convert as [`FromValue`] says. Beyond it, text becomes an enum's
    /// variant; decimals, UUIDs, dates, times and timestamps are their text to
    /// types that want text; and, with the feature `serde_json`, JSON becomes
    /// whatever its text describes.
    ///
    /// ```
    /// use millpond_driver::{Columns, Date, Row, params};
    /// use serde::Deserialize;
    ///
    /// #[derive(Debug, PartialEq, Deserialize)]
    /// #[serde(rename_all = "lowercase")]
    /// enum Plan { Free, Paid }
    ///
    /// #[derive(Debug, PartialEq, Deserialize)]
    /// struct User { id: u32, name: String, plan: Plan, born: Option<Date> }
    ///
    /// let columns = Columns::from_iter(["id", "name", "plan", "born", "shoe_size"]);
    /// let row = Row::new(columns, params![7, "Ada", "paid", None::<Date>, 38.5]);
    ///
    /// let ada = User { id: 7, name: "Ada".into(), plan: Plan::Paid, born: None };
    /// assert_eq!(row.deserialize::<User>()?, ada);
    /// assert_eq!(row.deserialize::<(u32, String)>()?, (7, "Ada".into()));
    /// # Ok::<(), millpond_driver::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if a column is missing or
    /// does not convert. The message names the column and not the text in it,
    /// but for what a type's own `Deserialize` says.
    #[cfg(feature = "serde")]
    pub fn deserialize<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        de::deserialize(self)
    }

    /// All values, in the order of the columns.
    ///
    /// # Errors
    ///
    /// As for [`get`](Self::get): the first cell that does not decode.
    pub fn into_values(self) -> Result<Vec<Value>> {
        match self.cells {
            Source::Values(values) => Ok(values.into()),
            Source::Lazy(_) => (0..self.len()).map(|index| self.value(index)).collect(),
        }
    }

    fn find(&self, index: &impl ColumnIndex) -> Result<usize> {
        index
            .index_in(&self.columns)
            .filter(|&found| found < self.len())
            .ok_or_else(|| self.lacks(index))
    }

    #[cold]
    fn lacks(&self, index: impl fmt::Debug) -> Error {
        let names = self.columns.names();
        Error::decode(format!("no column {index:?}; the row has {names}"))
    }

    fn cell(&self, index: usize) -> Result<Value> {
        match &self.cells {
            Source::Values(values) => Ok(values[index].clone()),
            Source::Lazy(cells) => cells.cell(index),
        }
    }

    #[cold]
    fn place(&self, index: usize) -> String {
        let column = &self.columns[index];
        match column.type_name() {
            Some(kind) => format!("column {:?} ({kind})", column.name()),
            None => format!("column {:?}", column.name()),
        }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_map();
        for (index, column) in self.columns.iter().enumerate() {
            out.key(&column.name());
            match self.cell(index) {
                Ok(value) => out.value(&value),
                Err(error) => out.value(&error),
            };
        }
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{Cause, ErrorKind, params};

    /// The index as the value, but for the third cell, which is damaged.
    struct Counted(Arc<AtomicUsize>);

    impl Cells for Counted {
        fn cell(&self, index: usize) -> Result<Value> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match index {
                2 => Err(Error::decode("bad bytes").with_cause(Cause::Corrupt)),
                _ => Ok(Value::I64(index as i64)),
            }
        }
    }

    fn lazy(names: &[&str]) -> (Row, Arc<AtomicUsize>) {
        let decoded = Arc::new(AtomicUsize::new(0));
        let columns = names.iter().copied().collect();
        (Row::lazy(columns, Counted(Arc::clone(&decoded))), decoded)
    }

    #[test]
    fn rows_cross_threads_and_are_cheap_to_move() {
        fn assert_send_sync<T: Send + Sync + Clone + 'static>() {}
        assert_send_sync::<Row>();
        assert_send_sync::<Rows>();
        assert_eq!(size_of::<Row>(), 5 * size_of::<usize>());
    }

    #[test]
    fn a_cell_is_found_by_number_and_by_name() {
        let row = Row::new(Columns::from_iter(["id", "name"]), params![1, "a"]);
        assert_eq!(row.get::<i32>(0).expect("by number"), 1);
        assert_eq!(row.get::<String>("name").expect("by name"), "a");
        assert_eq!(row.get::<String>(&String::from("name")).expect("by string"), "a");
        assert_eq!(row.value("id").expect("a value"), Value::I64(1));
        assert_eq!((row.len(), row.is_empty()), (2, false));
        assert_eq!(row.into_values().expect("values"), params![1, "a"]);
    }

    #[test]
    fn an_unknown_column_is_answered_with_the_known_ones() {
        let row = Row::new(Columns::from_iter(["id", "name"]), params![1, "a"]);
        let error = row.value("naem").expect_err("no such column");
        assert_eq!(error.kind(), ErrorKind::Decode);
        assert_eq!(error.to_string(), "no column \"naem\"; the row has id, name");
        let error = row.value(2).expect_err("too far");
        assert_eq!(error.to_string(), "no column 2; the row has id, name");
        let error = Row::new(Columns::default(), []).value(0).expect_err("nothing there");
        assert_eq!(error.to_string(), "no column 0; the row has no columns");
    }

    #[test]
    fn a_failed_conversion_names_column_and_type() {
        let columns = [Column::new("age").with_type_name("int8"), Column::new("note")];
        let row = Row::new(columns.into_iter().collect(), params![300, None::<i32>]);
        assert_eq!(
            row.get::<u8>("age").expect_err("too large").to_string(),
            "column \"age\" (int8): cannot read i64 300 as u8: out of range"
        );
        assert_eq!(
            row.get::<String>("note").expect_err("null").to_string(),
            "column \"note\": cannot read null as String; ask for an Option"
        );
    }

    #[test]
    fn a_lazy_row_decodes_only_what_is_asked_for() {
        let (row, decoded) = lazy(&["a", "b"]);
        assert_eq!(decoded.load(Ordering::Relaxed), 0);
        assert_eq!(row.clone().get::<i64>("b").expect("decoded"), 1);
        assert_eq!(decoded.load(Ordering::Relaxed), 1);
        assert_eq!(row.into_values().expect("all"), params![0, 1]);
    }

    #[test]
    fn a_cell_that_does_not_decode_keeps_its_error_and_gains_the_column() {
        let (row, _) = lazy(&["a", "b", "c"]);
        let error = row.value("c").expect_err("damaged");
        assert_eq!(error.to_string(), "column \"c\": bad bytes");
        assert_eq!(error.cause(), Cause::Corrupt);
        assert_eq!(row.into_values().expect_err("damaged").message(), error.message());
    }

    #[test]
    fn debug_shows_names_and_values() {
        let row = Row::new(Columns::from_iter(["id", "name"]), params![1, "a"]);
        assert_eq!(format!("{row:?}"), r#"{"id": I64(1), "name": Text("a")}"#);
        assert!(format!("{:?}", lazy(&["a", "b", "c"]).0).contains("bad bytes"));
    }

    #[test]
    #[should_panic = "one value for each column"]
    fn a_row_of_the_wrong_length_is_a_bug_of_the_driver() {
        Row::new(Columns::from_iter(["id"]), params![]);
    }
}
