//! Whose rows the next borrower gets when futures are dropped: the same storm
//! over millpond and its peers, on PostgreSQL and MariaDB.
//!
//! ```text
//! cargo run --release --manifest-path bench/servers/Cargo.toml --bin cancelled
//! .. --bin cancelled -- --rounds 50 --seed 2 mariadb
//! ```
//!
//! In a round a task asks for a text of its own and drops the future at a random
//! point, if it has not answered before; then it asks for another text, and
//! compares. Two ways: the dropped future had the connection with it, or its
//! borrower goes on with the same client before giving it back. Then a
//! statement of five seconds is dropped on each connection, and a second later
//! the server is asked what it still runs.
//!
//! What the client itself does to a borrower who goes on is no pool's doing; it
//! stands in a line of its own, `same borrower`.

mod mysql;
mod postgres;
mod storm;

use std::env;
use std::process::ExitCode;
use std::time::Duration;

use millpond_harness::{Server, mariadb, postgres as postgresql};
use mysql::Check;
use storm::{Next, Pool, Question, Tally};

/// What the command line says.
struct Plan {
    rounds: usize,
    seed: u64,
    /// Of these servers; of all if empty.
    servers: Vec<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(plan) = plan() else {
        eprintln!("usage: cancelled [--rounds N] [--seed S] [postgres] [mariadb]");
        return ExitCode::FAILURE;
    };
    let wanted =
        |name: &str| plan.servers.is_empty() || plan.servers.iter().any(|server| server == name);
    if wanted("postgres") {
        use postgres::{Bb8, Deadpool, Millpond, Sqlx, question};
        let sea = Sea { server: postgresql(), connects: POSTGRES_CONNECTS, question, plan: &plan };
        for next in [Next::Borrower, Next::Same] {
            sea.title("PostgreSQL", next);
            sea.storm("millpond", next, Millpond::open).await;
            sea.storm("deadpool-postgres", next, Deadpool::open).await;
            sea.storm("bb8-postgres", next, Bb8::open).await;
            sea.storm("sqlx", next, Sqlx::open).await;
        }
    }
    if wanted("mariadb") {
        use mysql::{Bb8, Deadpool, Millpond, Own, Sqlx, question};
        let sea = Sea { server: mariadb(), connects: MARIADB_CONNECTS, question, plan: &plan };
        for next in [Next::Borrower, Next::Same] {
            sea.title("MariaDB", next);
            sea.storm("millpond", next, Millpond::open).await;
            for (name, check) in [
                ("deadpool, no check", Check::Nothing),
                ("deadpool, ping", Check::Ping),
                ("deadpool, flag", Check::Flag),
            ] {
                sea.storm(name, next, |url| Deadpool::open(url, check)).await;
            }
            for (name, check) in [
                ("bb8, no check", Check::Nothing),
                ("bb8, ping", Check::Ping),
                ("bb8, flag", Check::Flag),
            ] {
                sea.storm(name, next, |url| Bb8::open(url, check)).await;
            }
            sea.storm("mysql_async, its pool", next, Own::open).await;
            sea.storm("sqlx", next, Sqlx::open).await;
        }
    }
    ExitCode::SUCCESS
}

/// How many connections a server has accepted so far.
const POSTGRES_CONNECTS: &str = "SELECT sum(sessions) FROM pg_stat_database";
const MARIADB_CONNECTS: &str = "SELECT variable_value FROM information_schema.global_status \
     WHERE variable_name = 'CONNECTIONS'";

/// Where the storms are: a server, and what is particular to it.
struct Sea<'a> {
    server: &'static Server,
    connects: &'static str,
    question: Question,
    plan: &'a Plan,
}

impl Sea<'_> {
    fn title(&self, server: &str, next: Next) {
        let who = match next {
            Next::Borrower => "after a drop the connection is given back",
            Next::Same => "after a drop its borrower goes on with the client",
        };
        let Plan { rounds, seed, .. } = self.plan;
        println!("\n{server}, {rounds} rounds a task, seed {seed}: {who}");
        println!(
            "{:<23}{:>8}{:>9}{:>12}{:>8}{:>10}{:>15}",
            "", "asked", "dropped", "wrong rows", "errors", "connects", "still running"
        );
    }

    async fn storm<P: Pool, F: Future<Output = P>>(
        &self,
        name: &str,
        next: Next,
        open: impl FnOnce(String) -> F,
    ) {
        let Self { server, question, plan, .. } = *self;
        let database = format!("storm{}", fastrand::u64(..));
        let pool = open(server.new_database(&database)).await;
        let before = self.connects();
        let outcome = storm::rage(&pool, question, next, plan.rounds, plan.seed).await;
        // The servers' statistics are a moment behind.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let connects = self.connects() - before - 1;
        storm::leave_behind(&pool, question, next).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let running = server.running(&database);
        if next == Next::Same {
            println!("{}", line(name, &outcome.same));
            let after = line("  next borrower", &outcome.borrowed);
            println!("{after}{connects:>10}{running:>15}");
        } else {
            println!("{}{connects:>10}{running:>15}", line(name, &outcome.borrowed));
        }
        for tally in [&outcome.same, &outcome.borrowed] {
            if let Some(error) = &tally.error {
                println!("    {error}");
            }
        }
    }

    fn connects(&self) -> i64 {
        self.server.sql(self.connects)[0][0].parse().expect("a count")
    }
}

fn line(name: &str, tally: &Tally) -> String {
    let Tally { asked, dropped, wrong, errors, .. } = tally;
    format!("{name:<23}{asked:>8}{dropped:>9}{wrong:>12}{errors:>8}")
}

fn plan() -> Option<Plan> {
    let mut plan = Plan { rounds: 250, seed: 1, servers: Vec::new() };
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--rounds" => plan.rounds = arguments.next()?.parse().ok()?,
            "--seed" => plan.seed = arguments.next()?.parse().ok()?,
            "postgres" | "mariadb" => plan.servers.push(argument),
            _ => return None,
        }
    }
    Some(plan)
}
