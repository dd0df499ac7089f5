//! What happens in a pool or a cluster, told to the crates that applications observe
//! themselves with.
//!
//! Owns one file for each crate, behind the feature of its name. Each is
//! an [`Observer`](crate::Observer) or reads a
//! [`Source`](crate::metrics::Source); none knows more of the pool than these.
//! For OpenTelemetry there is the crate `millpond-opentelemetry`.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "tracing")]
mod tracing;

#[cfg(feature = "metrics")]
pub use facade::Facade;
#[cfg(feature = "tracing")]
pub use tracing::{Tracing, log, log_cluster};
