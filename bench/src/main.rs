//! Measures what a pool costs, beside its peers: same machine, same run.
//!
//! ```text
//! cargo run --release --manifest-path bench/Cargo.toml              all works
//! cargo run --release --manifest-path bench/Cargo.toml -- queue 51  one work, 51 rounds
//! ```
//!
//! Works: `single`, `pair`, `queue`, `crowd`, `cancel`, and, of
//! millpond alone, `metrics` and `pick`; each says in its file under `work/` what
//! it does. A round
//! runs a work once on each pool in turn, so that a busy moment of the machine
//! falls on all of them; the tables show medians over the rounds, the lowest
//! first. Ratios and their targets carry over from machine to machine,
//! nanoseconds do not.
//!
//! What makes it fair: every pool keeps its defaults but for the size, 8. Every
//! manager connects and checks at once, over `()` as the connection, so that
//! only the pool is measured; millpond's driver (`peer/millpond.rs`) answers
//! that its session is clean, as the peers' managers answer that theirs is
//! valid. millpond's timeouts, lifetimes, leak notes and counters are on;
//! deadpool has no timeout by default, bb8 and mobc have one. All run on the
//! same tokio; r2d2 blocks, so it is in the works where nobody waits.

mod peer;
mod table;
mod work;

use std::process::ExitCode;

use peer::bb8::Bb8;
use peer::deadpool::Deadpool;
use peer::millpond::Millpond;
use peer::mobc::Mobc;
use peer::r2d2::R2d2;
use table::Table;
use work::Work;
use work::cancel::Cancel;
use work::crowd::Crowd;
use work::metrics;
use work::pair::Pair;
use work::pick;
use work::queue::Queue;
use work::single::Single;
use work::swap;

/// Odd, so that a median is a measured value.
const ROUNDS: usize = 21;

type Measure = fn(usize);

const WORKS: [(&str, Measure); 7] = [
    ("single", measure::<Single>),
    ("pair", measure::<Pair>),
    ("queue", measure::<Queue>),
    ("crowd", measure::<Crowd>),
    ("cancel", measure::<Cancel>),
    ("metrics", metrics::measure),
    ("pick", pick::measure),
];

fn main() -> ExitCode {
    let mut rounds = ROUNDS;
    let mut chosen = Vec::new();
    for argument in std::env::args().skip(1) {
        if let Ok(number) = argument.parse() {
            rounds = number;
        } else if let Some((_, measure)) = WORKS.iter().find(|(name, _)| *name == argument) {
            chosen.push(*measure);
        } else {
            let names = WORKS.map(|(name, _)| name).join(", ");
            eprintln!("no work `{argument}`: give a number of rounds, or any of {names}");
            return ExitCode::FAILURE;
        }
    }
    if rounds == 0 {
        eprintln!("at least one round");
        return ExitCode::FAILURE;
    }
    if chosen.is_empty() {
        chosen.extend(WORKS.map(|(_, measure)| measure));
    }
    println!("medians of {rounds} rounds; unit: an uncontended atomic swap pair, {:.1} ns", {
        swap::pair_ns(rounds)
    });
    for measure in chosen {
        measure(rounds);
    }
    ExitCode::SUCCESS
}

fn measure<W: Work>(rounds: usize) {
    let runtime = W::runtime();
    let mut table = Table::new::<W>();
    for _ in 0..rounds {
        table.record::<Millpond>(W::run::<Millpond>(&runtime));
        table.record::<Deadpool>(W::run::<Deadpool>(&runtime));
        table.record::<Bb8>(W::run::<Bb8>(&runtime));
        table.record::<Mobc>(W::run::<Mobc>(&runtime));
        if !W::WAITS {
            table.record::<R2d2>(W::run::<R2d2>(&runtime));
        }
    }
    println!("\n{table}");
}
