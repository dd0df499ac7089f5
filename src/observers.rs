//! What happens in a pool or a cluster, told to the crates that applications observe
//! themselves with.
//!
//! Owns one file for each crate, behind the feature of its name. What is in it
//! is an [`Observer`](crate::Observer), reads a [`Source`](crate::metrics::Source),
//! or logs a report or an event; none knows more of pools and clusters than these.
//! For OpenTelemetry there is the crate `millpond-opentelemetry`.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "tracing")]
mod tracing;

#[cfg(feature = "metrics")]
pub use facade::Facade;
#[cfg(feature = "tracing")]
pub use tracing::{Tracing, log, log_cluster};
