//! A primary and two standbys of PostgreSQL, whose reads spread and whose primary
//! falls while you watch.
//!
//!     scripts/servers postgres
//!     cargo run --example replicas --features postgres,tokio
//!
//! Starts servers of its own in temporary folders. Each line is half a second: who
//! answered how many reads and writes, and what callers saw of it.

#[cfg(unix)]
mod show;

#[cfg(unix)]
fn main() -> millpond::Result<()> {
    show::show()
}

#[cfg(not(unix))]
fn main() {
    eprintln!("replicas: the servers of the harness run on Unix only");
}
