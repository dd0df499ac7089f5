//! The columns of an answer, shared by its rows.
//!
//! Owns [`Columns`] and how a column is found. Does not know any value.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A column: its name and, where the database says it, its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    name: Box<str>,
    type_name: Option<Cow<'static, str>>,
}

impl Column {
    /// A column of unknown type.
    pub fn new(name: impl Into<Box<str>>) -> Self {
        Self { name: name.into(), type_name: None }
    }

    /// Says the type, as the database calls it.
    #[must_use]
    pub fn with_type_name(mut self, type_name: impl Into<Cow<'static, str>>) -> Self {
        self.type_name = Some(type_name.into());
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type as the database calls it, if known.
    pub fn type_name(&self) -> Option<&str> {
        self.type_name.as_deref()
    }
}

impl From<&str> for Column {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// The columns of an answer in order: a shared slice of [`Column`], cheap to
/// clone.
///
/// ```
/// use millpond_driver::Columns;
///
/// let columns = Columns::from_iter(["id", "name"]);
/// assert_eq!(columns.index_of("name"), Some(1));
/// assert_eq!(columns[1].name(), "name");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns(Arc<[Column]>);

impl Columns {
    /// The position of the column with this name.
    ///
    /// A name that differs only in ASCII case is found too if there is no exact
    /// match, since databases disagree on the case of what is not quoted. Of
    /// several columns of one name, the first wins.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.iter()
            .position(|column| column.name() == name)
            .or_else(|| self.iter().position(|column| column.name().eq_ignore_ascii_case(name)))
    }

    /// The names for a message.
    pub(super) fn names(&self) -> String {
        if self.is_empty() {
            return "no columns".into();
        }
        self.iter().map(Column::name).collect::<Vec<_>>().join(", ")
    }
}

impl Deref for Columns {
    type Target = [Column];

    fn deref(&self) -> &[Column] {
        &self.0
    }
}

impl<C: Into<Column>> FromIterator<C> for Columns {
    fn from_iter<I: IntoIterator<Item = C>>(columns: I) -> Self {
        Self(columns.into_iter().map(Into::into).collect())
    }
}

/// What a column is asked for by: its position, or its name as
/// [`Columns::index_of`] finds it.
///
/// `Debug` is how a message shows it.
pub trait ColumnIndex: fmt::Debug {
    /// The position of the column.
    fn index_in(&self, columns: &Columns) -> Option<usize>;
}

impl ColumnIndex for usize {
    fn index_in(&self, columns: &Columns) -> Option<usize> {
        (*self < columns.len()).then_some(*self)
    }
}

impl ColumnIndex for str {
    fn index_in(&self, columns: &Columns) -> Option<usize> {
        columns.index_of(self)
    }
}

impl ColumnIndex for String {
    fn index_in(&self, columns: &Columns) -> Option<usize> {
        columns.index_of(self)
    }
}

impl<T: ColumnIndex + ?Sized> ColumnIndex for &T {
    fn index_in(&self, columns: &Columns) -> Option<usize> {
        (**self).index_in(columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_goes_before_one_of_another_case() {
        let columns = Columns::from_iter(["USERID", "userId", "Name"]);
        assert_eq!(columns.index_of("userId"), Some(1));
        assert_eq!(columns.index_of("userid"), Some(0));
        assert_eq!(columns.index_of("name"), Some(2));
        assert_eq!(columns.index_of("nam"), None);
    }

    #[test]
    fn of_two_columns_of_one_name_the_first_wins() {
        assert_eq!(Columns::from_iter(["a", "id", "id"]).index_of("id"), Some(1));
    }

    #[test]
    fn clones_share_the_list() {
        let columns = Columns::from_iter([Column::new("id").with_type_name("int8")]);
        let clone = columns.clone();
        assert!(std::ptr::eq(&*columns, &*clone));
        assert_eq!(clone[0].type_name(), Some("int8"));
    }
}
