//! The databases, by name: the only file of this crate that names one.
//!
//! Owns the way from a feature to a driver: feature `x` brings the crate
//! `millpond-x` as `drivers::x`. Knows nothing of what a driver does; the rest
//! of the crate sees the [`Driver`](millpond_driver::Driver) trait and nothing
//! else.

mod any;

pub use any::{Any, AnyConnection};
#[cfg(feature = "fake")]
#[doc(inline)]
pub use millpond_fake as fake;
