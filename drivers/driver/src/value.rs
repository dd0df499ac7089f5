//! One value of a row or a parameter, the same for every database.

/// A value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// NULL.
    Null,
    /// Integer.
    I64(i64),
    /// Text.
    Text(Box<str>),
}
impl From<&str> for Value {
    fn from(v: &str) -> Self { Self::Text(v.into()) }
}
/// Date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date;
/// Date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DateTime;
/// Typed access.
pub trait FromValue: Sized {}
