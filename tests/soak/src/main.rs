//! A pool under load, operation and outages for as long as one likes: what only
//! shows in time.
//!
//!     scripts/soak            10 minutes
//!     scripts/soak 60         an hour
//!
//! Callers move money, read, stream, time out, give up and panic; an operator
//! resizes, pauses, evicts; PostgreSQL is restarted and killed, SQLite's file is
//! locked by somebody else. Every few seconds a line tells memory, files and
//! counts. Fails at the first answer that is somebody else's and the first error
//! that nothing explains, and at the end if money, a connection or memory is
//! missing.

#[cfg(unix)]
mod callers;
#[cfg(unix)]
mod ledger;
#[cfg(unix)]
mod operator;
#[cfg(unix)]
mod site;
#[cfg(unix)]
mod trouble;

#[cfg(not(unix))]
fn main() {
    eprintln!("soak: the servers of the harness run on Unix only");
}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    use std::time::Duration;

    let minutes =
        match std::env::args().nth(1).map_or(Ok(10), |text| text.parse().map_err(|_| text)) {
            Ok(minutes) => minutes,
            Err(text) => {
                eprintln!("soak: minutes = {text:?}: must be a whole number");
                return ExitCode::from(2);
            }
        };
    println!("soak: {minutes} minutes");
    trouble::expect_panics();
    match millpond::runtime::block_on(site::soak(Duration::from_secs(60 * minutes))) {
        Ok(()) => {
            println!("soak: well");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in faults {
                eprintln!("soak: {fault}");
            }
            ExitCode::FAILURE
        }
    }
}
