//! Rows.
use crate::Value;
/// Rows.
#[derive(Debug, Clone, Default)]
pub struct Rows(Vec<Row>);
impl Rows {
    /// One row of one column.
    pub fn one(_name: &str, _value: impl Into<Value>) -> Self { Self(vec![Row]) }
}
impl IntoIterator for Rows {
    type Item = Row;
    type IntoIter = std::vec::IntoIter<Row>;
    fn into_iter(self) -> Self::IntoIter { self.0.into_iter() }
}
/// Row.
#[derive(Debug, Clone, Default)]
pub struct Row;
/// Column.
#[derive(Debug)]
pub struct Column;
/// Columns.
#[derive(Debug)]
pub struct Columns;
/// Cells.
pub trait Cells {}
/// Index.
pub trait ColumnIndex {}
