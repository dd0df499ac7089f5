//! Sends every strategy of a cluster through the same faults, and shows what
//! callers see of them.
//!
//! ```text
//! cargo run --release --manifest-path bench/balancing/Cargo.toml
//! ```
//!
//! Prints a table for each scenario, draws `docs/balancing-latency.svg` and
//! `docs/balancing-share.svg`, and takes a minute or two. The clusters and their
//! pools are real; their servers, the requests and the time are simulated
//! (`tests/support/queueing.rs` says how), so the figures are of the strategies
//! and not of the machine. A number as its argument is another seed than 1.

mod plot;
#[path = "../../../tests/support/queueing.rs"]
mod queueing;
mod scenario;
mod svg;

use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, thread};

use scenario::{SCENARIOS, STRATEGIES, Scenario, Seen};

fn main() -> ExitCode {
    let seed = match env::args().nth(1).map(|given| given.parse()) {
        None => 1,
        Some(Ok(seed)) => seed,
        Some(Err(_)) => {
            eprintln!("the only argument is a seed");
            return ExitCode::FAILURE;
        }
    };
    let mut all = Vec::new();
    for scenario in SCENARIOS {
        let seen = run(scenario, seed);
        println!("### {}\n\n{}", scenario.title, table(&seen));
        all.push(seen);
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (name, drawn) in [("latency", plot::latencies(&all)), ("share", plot::shares(&all))] {
        let path = docs.join(format!("balancing-{name}.svg"));
        if let Err(error) = fs::write(&path, drawn) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// All strategies, each on a thread of its own.
fn run(scenario: &Scenario, seed: u64) -> Vec<Seen> {
    thread::scope(|scope| {
        let runs = STRATEGIES.map(|(name, set)| scope.spawn(move || scenario.run(name, set, seed)));
        runs.map(|run| run.join().expect("no panic")).into()
    })
}

fn table(seen: &[Seen]) -> String {
    let mut table = String::from(
        "| strategy | p50 ms | p95 | p99 | p99.9 | share | errors |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for Seen { strategy, percentiles, share, errors, .. } in seen {
        let [p50, p95, p99, p999] = percentiles.map(|ms| match ms < 10.0 {
            true => format!("{ms:.1}"),
            false => format!("{ms:.0}"),
        });
        let (share, errors) = (100.0 * share, 100.0 * errors);
        table += &format!(
            "| {strategy} | {p50} | {p95} | {p99} | {p999} | {share:.1} % | {errors:.2} % |\n"
        );
    }
    table
}
