//! What a cluster of real servers is put through, and how millpond takes it.
//!
//!     scripts/scenarios                    each scenario once
//!     scripts/scenarios F6 F7              these
//!     scripts/scenarios --rounds 20 F7     twenty times, the worst shown
//!     scripts/scenarios --optional         Galera and PgBouncer as well
//!
//! Each scenario starts servers, puts them under a fixed load, does harm to them,
//! and prints a line: how soon that was noticed, what callers saw, what was lost or
//! written twice, how soon all was well again, and whether that meets its target.
//! Fails if a target that counts is missed; one that measures time is only shown
//! as missed, for a busy machine misses it too (`--strict` has these fail as well). One
//! that is missed in a single round is tried once more, and the table says so.

#[cfg(unix)]
mod alone;
#[cfg(unix)]
mod arguments;
#[cfg(unix)]
mod bouncer;
#[cfg(unix)]
mod commits;
#[cfg(unix)]
mod conflict;
#[cfg(unix)]
mod crowded;
#[cfg(unix)]
mod dropped;
#[cfg(unix)]
mod failover;
#[cfg(unix)]
mod flapping;
#[cfg(unix)]
mod galera;
#[cfg(unix)]
mod herd;
#[cfg(unix)]
mod lagging;
#[cfg(unix)]
mod lines;
#[cfg(unix)]
mod load;
#[cfg(unix)]
mod mariadb;
#[cfg(unix)]
mod nodes;
#[cfg(unix)]
mod outage;
#[cfg(unix)]
mod pair;
#[cfg(unix)]
mod pressure;
#[cfg(unix)]
mod roles;
#[cfg(unix)]
mod scrapes;
#[cfg(unix)]
mod sessions;
#[cfg(unix)]
mod silence;
#[cfg(unix)]
mod site;
#[cfg(unix)]
mod slowness;
#[cfg(unix)]
mod table;

#[cfg(not(unix))]
fn main() {
    eprintln!("scenarios: the servers of the harness run on Unix only");
}

/// All scenarios, in order.
#[cfg(unix)]
const SCENARIOS: &[table::Scenario] = &[
    sessions::SOME_ENDED,
    sessions::ALL_ENDED,
    nodes::REPLICA_STOPPED,
    nodes::REPLICA_KILLED,
    silence::REPLICA_FROZEN,
    silence::LINE_DEAD,
    slowness::REPLICA_SLOW,
    failover::PRIMARY_STOPPED,
    failover::PRIMARY_KILLED,
    roles::PRIMARY_RETURNS,
    roles::PRIMARY_READ_ONLY,
    roles::PRIMARY_DEMOTED,
    commits::AMBIGUOUS,
    pressure::USED_UP,
    alone::REPLICAS_STOPPED,
    crowded::SERVER_FULL,
    lagging::REPLICA_LAGS,
    conflict::RECOVERY_CONFLICT,
    outage::ALL_STOPPED,
    herd::SERVER_RESTARTED,
    flapping::REPLICA_FLAPS,
    mariadb::IDLE_KILLED,
    mariadb::IDLE_TIMED_OUT,
    mariadb::REPLICA_SHUT_DOWN,
    galera::NODE_FROZEN,
    galera::NODE_CUT_OFF,
    galera::WRITES_CONFLICT,
    bouncer::BOUNCER_RESTARTED,
    bouncer::QUEUE_TOO_LONG,
    bouncer::SESSION_REPLACED,
    dropped::CALLERS_GIVE_UP,
    scrapes::METRICS_SCRAPED,
];

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    let arguments = match arguments::read(std::env::args().skip(1), SCENARIOS) {
        Ok(arguments) => arguments,
        Err(fault) => {
            eprintln!("scenarios: {fault}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().enable_io().build();
    match table::run(&runtime.expect("a runtime"), SCENARIOS, &arguments) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
