//! `SELECT 1` by eight tasks on eight connections, on PostgreSQL and on
//! MariaDB: through the raw clients, through millpond on three runtimes and
//! through its peers, in one run with interleaved rounds.
//!
//! ```text
//! cargo run --release --manifest-path bench/servers/Cargo.toml --bin speed
//! .. --bin speed -- --rounds 5 --seconds 0.2 postgres
//! ```
//!
//! In a round each contender asks for the same time, one after the other; each
//! round begins with another one. A ratio is the median of the ratios of the
//! rounds, and stands with its 95 % interval. Every pool has its defaults but
//! for the size, and every runtime two threads. The raw client is on tokio, one
//! connection a task, and asks the way in which millpond does.

mod contender;
mod millpond;
mod mysql;
mod postgres;
mod table;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use contender::{Contender, Executor, THREADS};
use millpond_harness::{mariadb, postgres as postgresql};
use table::{Goal, Table};

/// What the tables call millpond.
mod names {
    pub(crate) const HELD: &str = "millpond, connection held";
    pub(crate) const TOKIO: &str = "millpond, pool.query";
    pub(crate) const ASYNC_STD: &str = "the same on async-std";
    pub(crate) const SMOL: &str = "the same on smol";
}

const RAW_GOAL: f64 = 0.95;
const POSTGRES_RUNTIME_GOAL: f64 = 0.85;
const MYSQL_RUNTIME_GOAL: f64 = 0.75;

struct Runtimes {
    tokio: Executor,
    async_std: Executor,
    smol: Executor,
}

/// What the command line says.
struct Plan {
    rounds: usize,
    time: Duration,
    /// Of these servers; of all if empty.
    servers: Vec<String>,
}

fn main() -> ExitCode {
    let Some(plan) = plan() else {
        eprintln!("usage: speed [--rounds N] [--seconds S] [postgres] [mariadb]");
        return ExitCode::FAILURE;
    };
    limit_threads();
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime");
    let on = Runtimes {
        tokio: Executor::Tokio(tokio.handle().clone()),
        async_std: Executor::AsyncStd,
        smol: Executor::Smol,
    };
    let wanted =
        |name: &str| plan.servers.is_empty() || plan.servers.iter().any(|server| server == name);
    if wanted("postgres") {
        let contenders = postgres::contenders(&postgresql().url(), &on);
        measure("PostgreSQL", contenders, &tokio, &plan, POSTGRES_RUNTIME_GOAL);
    }
    if wanted("mariadb") {
        let contenders = mysql::contenders(&mariadb().url(), &on);
        measure("MariaDB", contenders, &tokio, &plan, MYSQL_RUNTIME_GOAL);
    }
    ExitCode::SUCCESS
}

fn measure(
    server: &str,
    mut contenders: Vec<Contender>,
    tokio: &tokio::runtime::Runtime,
    plan: &Plan,
    runtime_goal: f64,
) {
    let mut table = Table::new(contenders.iter().map(|contender| contender.name));
    for round in 0..plan.rounds {
        for turn in 0..contenders.len() {
            let next = (round + turn) % contenders.len();
            table.record(next, contenders[next].turn(plan.time));
        }
    }
    println!("{server}, SELECT 1, {} rounds of {:?} each\n{table}", plan.rounds, plan.time);
    let goals = [
        Goal { of: names::TOKIO, to: table.unit(), at_least: RAW_GOAL },
        Goal { of: names::ASYNC_STD, to: names::TOKIO, at_least: runtime_goal },
        Goal { of: names::SMOL, to: names::TOKIO, at_least: runtime_goal },
    ];
    for goal in &goals {
        println!("{}", table.judge(goal));
    }
    println!();
    // Some close their connections by tasks of their own.
    let _entered = tokio.enter();
    drop(contenders);
}

fn plan() -> Option<Plan> {
    let mut plan = Plan { rounds: 31, time: Duration::from_millis(400), servers: Vec::new() };
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--rounds" => plan.rounds = arguments.next()?.parse().ok().filter(|n| *n > 0)?,
            "--seconds" => {
                let seconds = arguments.next()?.parse().ok()?;
                plan.time = Duration::try_from_secs_f64(seconds).ok().filter(|t| !t.is_zero())?;
            }
            "postgres" | "mariadb" => plan.servers.push(argument),
            _ => return None,
        }
    }
    Some(plan)
}

/// async-std and smol take the number of their threads from the environment,
/// which a process may safely change for the next one only.
fn limit_threads() {
    const NAMES: [&str; 2] = ["ASYNC_STD_THREAD_COUNT", "SMOL_THREADS"];
    let threads = THREADS.to_string();
    if NAMES.iter().all(|name| env::var(name).as_deref() == Ok(&threads)) {
        return;
    }
    let program = env::current_exe().expect("this program");
    let again = Command::new(program)
        .args(env::args_os().skip(1))
        .envs(NAMES.map(|name| (name, &threads)))
        .exec();
    panic!("cannot start again: {again}");
}
