//! Runs a command beside a fresh server, which ends with it.
//!
//!     cargo run -p millpond-harness --features servers --bin with-server -- postgres psql {url}
//!
//! `{url}` in the command stands for the server's URL. Servers: `postgres`,
//! `mariadb`, and `mysql` where `scripts/mysql-server` has unpacked one. Knows
//! nothing of what the command is for.

use std::process::{Command, ExitCode};

use millpond_harness::Server;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (Some(name), Some(program)) = (words.next(), words.next()) else {
        return refuse("usage: with-server SERVER COMMAND...");
    };
    let server = match name.as_str() {
        "postgres" => Server::postgres(),
        "mariadb" => Server::mariadb(),
        "mysql" => match Server::mysql() {
            Some(server) => server,
            None => return refuse("there is no MySQL: run scripts/mysql-server, and set MILLPOND_MYSQL to its folder"),
        },
        other => return refuse(&format!("no server is called {other}: there are postgres, mariadb and mysql")),
    }
    .start();
    let url = server.url();
    let ended = Command::new(&program).args(words.map(|word| word.replace("{url}", &url))).status();
    match ended {
        Ok(status) => u8::try_from(status.code().unwrap_or(1)).unwrap_or(1).into(),
        Err(error) => refuse(&format!("{program}: {error}")),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("with-server: {why}");
    ExitCode::FAILURE
}
