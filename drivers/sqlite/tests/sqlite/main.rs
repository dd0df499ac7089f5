//! What the driver promises, on a runtime of plain threads.
//!
//! Owns one file for each promise. Does not know the pool, which has its own
//! tests with this driver.

mod cancelling;
mod errors;
mod inline;
mod native;
mod opening;
mod streaming;
mod support;
mod transactions;
mod values;
mod waiting;
