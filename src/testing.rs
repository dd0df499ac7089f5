//! Tools for tests: of this crate, of drivers, and of applications.
//!
//! Owns nothing itself; each tool is a module. Nothing here is needed to run a
//! pool.

pub mod cancel;
pub mod conformance;
pub mod sim;
