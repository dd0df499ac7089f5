//! The whole answer to one statement.
//!
//! Owns [`Rows`]: columns, rows, and what the database says of a change. Does
//! not know the statement.

use std::{slice, vec};

use super::{Column, Columns, Row};
use crate::{Error, FromValue, Result, Value};

/// The answer to one statement: rows, or what was changed, or both.
///
/// ```
/// use millpond_driver::{Columns, Row, Rows, params};
///
/// let columns = Columns::from_iter(["id", "name"]);
/// let rows = [params![1, "Ada"], params![2, "Grace"]];
/// let rows = rows.into_iter().map(|values| Row::new(columns.clone(), values)).collect();
/// let rows = Rows::new(columns, rows);
///
/// assert_eq!(rows.len(), 2);
/// for row in &rows {
///     assert!(!row.get::<String>("name")?.is_empty());
/// }
/// assert_eq!(rows.scalar::<i64>()?, 1);
/// # Ok::<(), millpond_driver::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Rows {
    columns: Columns,
    rows: Vec<Row>,
    affected: Option<u64>,
    last_insert_id: Option<u64>,
}

impl Rows {
    /// Rows of these columns. The columns are there even if no row is.
    pub fn new(columns: Columns, rows: Vec<Row>) -> Self {
        Self { columns, rows, affected: None, last_insert_id: None }
    }

    /// No rows and no columns: the answer to a statement that yields none.
    pub fn none() -> Self {
        Self::default()
    }

    /// One row of one column.
    pub fn one(name: impl Into<Column>, value: impl Into<Value>) -> Self {
        let columns = Columns::from_iter([name]);
        let row = Row::new(columns.clone(), [value.into()]);
        Self::new(columns, vec![row])
    }

    /// Says how many rows the statement changed.
    #[must_use]
    pub fn with_affected(mut self, rows: u64) -> Self {
        self.affected = Some(rows);
        self
    }

    /// Says which id the database generated.
    #[must_use]
    pub fn with_last_insert_id(mut self, id: u64) -> Self {
        self.last_insert_id = Some(id);
        self
    }

    /// The columns, also if there are no rows.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How many rows the statement inserted, updated or deleted, if the
    /// database says so.
    pub fn affected(&self) -> Option<u64> {
        self.affected
    }

    /// The id that the database generated for an inserted row. PostgreSQL has
    /// no such answer: there, `RETURNING` the column.
    ///
    /// Generated ids are never negative, and MySQL's may exceed [`i64::MAX`].
    pub fn last_insert_id(&self) -> Option<u64> {
        self.last_insert_id
    }

    /// The row at this position, from 0.
    pub fn get(&self, index: usize) -> Option<&Row> {
        self.rows.get(index)
    }

    /// The first row.
    pub fn first(&self) -> Option<&Row> {
        self.rows.first()
    }

    /// The first row, owned.
    pub fn into_first(self) -> Option<Row> {
        self.into_iter().next()
    }

    /// The first column of the first row, for statements such as
    /// `SELECT count(*)`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Decode`](crate::ErrorKind::Decode) if there is no row, or as
    /// for [`Row::get`].
    pub fn scalar<T: FromValue>(&self) -> Result<T> {
        let row = self.first().ok_or_else(|| Error::decode("the answer has no row"))?;
        row.get(0)
    }

    /// All rows as a type that deserializes, each as
    /// [`Row::deserialize`] says.
    ///
    /// ```
    /// use millpond_driver::Rows;
    ///
    /// assert_eq!(Rows::one("answer", 42).deserialize::<u8>()?, [42]);
    /// # Ok::<(), millpond_driver::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As for `Row::deserialize`: the first row that does not fit, with its
    /// position.
    #[cfg(feature = "serde")]
    pub fn deserialize<T: serde::de::DeserializeOwned>(&self) -> Result<Vec<T>> {
        let rows = self.iter().enumerate();
        rows.map(|(i, row)| row.deserialize().map_err(|e| e.within(format_args!("row {i}"))))
            .collect()
    }

    /// The rows in order.
    pub fn iter(&self) -> slice::Iter<'_, Row> {
        self.rows.iter()
    }
}

impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = vec::IntoIter<Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.rows.into_iter()
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Row;
    type IntoIter = slice::Iter<'a, Row>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_a_row_of_a_column() {
        let rows = Rows::one("answer", 42);
        assert_eq!((rows.len(), rows.columns().len()), (1, 1));
        assert_eq!(rows.scalar::<u8>().expect("a number"), 42);
        assert_eq!(rows.get(0).expect("a row").get::<i64>("answer").expect("a number"), 42);
        assert!(rows.get(1).is_none());
        assert_eq!(rows.iter().len(), (&rows).into_iter().len());
        assert_eq!(rows.into_first().expect("a row").len(), 1);
    }

    #[test]
    fn columns_are_known_without_rows() {
        let rows = Rows::new(Columns::from_iter(["id"]), Vec::new());
        assert!(rows.is_empty());
        assert_eq!(rows.columns()[0].name(), "id");
        assert!(rows.first().is_none());
    }

    #[test]
    fn a_scalar_needs_a_row() {
        let error = Rows::none().scalar::<i64>().expect_err("no row");
        assert_eq!(error.to_string(), "the answer has no row");
    }

    #[test]
    fn a_change_is_told_without_rows() {
        let rows = Rows::none();
        assert_eq!((rows.affected(), rows.last_insert_id()), (None, None));
        let rows = rows.with_affected(1).with_last_insert_id(u64::MAX);
        assert_eq!((rows.affected(), rows.last_insert_id()), (Some(1), Some(u64::MAX)));
        assert_eq!(rows.into_iter().count(), 0);
    }
}
