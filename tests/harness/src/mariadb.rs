//! MariaDB: its programs, its settings, and what it says about itself.
//!
//! What MySQL has in common with it is written here and used there.

mod replication;

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::engine::{Engine, Replication, Table, needed, system_folders, version_of};
use crate::place::{Place, run};
use crate::server::{DATABASE, PASSWORD, USER};
use crate::tls;

#[derive(Debug)]
pub(crate) struct Mariadb {
    server: PathBuf,
    install: PathBuf,
    client: PathBuf,
}

/// What tests need and no setting of a test should have to repeat. Nothing is
/// made durable: the folder goes with the server.
pub(crate) const SETTINGS: &[&str] = &[
    "bind-address=127.0.0.1",
    "skip-name-resolve",
    "max-connections=300",
    // Broken handshakes are what tests make; the default shuts a host out after
    // a hundred of them.
    "max-connect-errors=1000000000",
    "innodb-buffer-pool-size=32M",
    // A commit outlives the server, not the machine.
    "innodb-flush-log-at-trx-commit=2",
    "innodb-flush-method=nosync",
    "innodb-buffer-pool-dump-at-shutdown=OFF",
    "innodb-buffer-pool-load-at-startup=OFF",
];

/// The server starts on these without accounts, so they are loaded first.
const ACCOUNTS: &[&str] = &[
    "FLUSH PRIVILEGES",
    // Logins from localhost would be taken for theirs.
    "DELETE FROM mysql.global_priv WHERE user = ''",
    "FLUSH PRIVILEGES",
];

impl Mariadb {
    pub(crate) fn new() -> Self {
        let folders = system_folders();
        let server = |name| needed(name, &folders, "MariaDB", "mariadb-server-core");
        Self {
            server: server("mariadbd"),
            install: server("mariadb-install-db"),
            client: needed("mariadb", &folders, "MariaDB's client", "mariadb-client-core"),
        }
    }
}

impl Engine for Mariadb {
    fn name(&self) -> &'static str {
        "mariadb"
    }

    fn scheme(&self) -> &'static str {
        "mysql"
    }

    fn version(&self) -> String {
        version_of(&self.server)
    }

    fn recipe(&self) -> &'static str {
        include_str!("mariadb.rs")
    }

    fn account(&self) -> &'static str {
        "mysql"
    }

    fn install(&self, place: &Place) {
        let log_size = "--innodb-log-file-size=8M";
        let mut install = place.command(&self.install);
        install
            .args(["--no-defaults", "--skip-test-db", "--skip-name-resolve", log_size])
            .arg(format!("--datadir={}", place.data().display()));
        let mut bootstrap = place.command(&self.server);
        bootstrap
            .args(["--no-defaults", "--bootstrap", "--skip-log-error", log_size])
            .arg(format!("--datadir={}", place.data().display()));
        let statements: String = ACCOUNTS
            .iter()
            .map(|&statement| statement.to_owned())
            .chain(user_and_database())
            .map(|statement| statement + ";\n")
            .collect();
        run(&mut install, "")
            .and_then(|_| run(&mut bootstrap, &statements))
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn command_line(
        &self,
        place: &Place,
        tls: bool,
        settings: &[(String, String)],
    ) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![(&self.server).into(), "--no-defaults".into()];
        words.extend(options(place));
        words.push("--innodb-log-file-size=8M".into());
        words.extend(if tls { tls_options(place) } else { vec!["--skip-ssl".into()] });
        words.extend(settings.iter().map(|(name, value)| format!("--{name}={value}").into()));
        words
    }

    fn is_ready(&self, place: &Place, _process: u32) -> bool {
        greets(place)
    }

    fn stop_signal(&self) -> &'static str {
        "TERM"
    }

    fn client(&self, place: &Place, database: &str) -> Command {
        let mut client = place.command(&self.client);
        client_options(&mut client, place, database);
        client
    }

    fn table(&self, output: &str) -> Table {
        table(output)
    }

    fn count_sessions(&self, of: &str, running: bool) -> String {
        count_sessions(of, running)
    }

    fn replication(&self) -> Option<&dyn Replication> {
        Some(self)
    }
}

pub(crate) fn user_and_database() -> [String; 3] {
    [
        format!("CREATE DATABASE {DATABASE}"),
        format!("CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'"),
        format!("GRANT ALL PRIVILEGES ON *.* TO '{USER}'@'%' WITH GRANT OPTION"),
    ]
}

pub(crate) fn options(place: &Place) -> Vec<OsString> {
    let own = [
        format!("datadir={}", place.data().display()),
        format!("port={}", place.port.number()),
        format!("socket={}", place.folder.join("socket").display()),
        format!("pid-file={}", place.folder.join("pid").display()),
        format!("tmpdir={}", place.folder.display()),
    ];
    let all = SETTINGS.iter().map(|&setting| setting.to_owned()).chain(own);
    all.map(|setting| format!("--{setting}").into()).collect()
}

pub(crate) fn tls_options(place: &Place) -> Vec<OsString> {
    [("ca", tls::CA), ("cert", tls::CERTIFICATE), ("key", tls::KEY)]
        .map(|(name, file)| format!("--ssl-{name}={}", place.folder.join(file).display()).into())
        .to_vec()
}

/// A server that takes connections speaks first.
pub(crate) fn greets(place: &Place) -> bool {
    let greeting = || {
        let mut stream = UnixStream::connect(place.folder.join("socket"))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.read_exact(&mut [0; 5])
    };
    greeting().is_ok()
}

pub(crate) fn client_options(client: &mut Command, place: &Place, database: &str) {
    client
        .args(["--no-defaults", "--batch", "--skip-column-names"])
        .args(["--default-character-set=utf8mb4", "--user", USER, "--database", database])
        .arg(format!("--socket={}", place.folder.join("socket").display()))
        .env("MYSQL_PWD", PASSWORD);
}

pub(crate) fn table(output: &str) -> Table {
    output.lines().map(|row| row.split('\t').map(unescape).collect()).collect()
}

/// Batch mode escapes what would look like a border of a cell.
fn unescape(cell: &str) -> String {
    let mut text = String::new();
    let mut characters = cell.chars();
    while let Some(character) = characters.next() {
        text.push(match (character, character == '\\') {
            (_, true) => match characters.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('0') => '\0',
                Some(other) => other,
                None => '\\',
            },
            (other, false) => other,
        });
    }
    text
}

/// The system user is a thread that replays what another server did.
pub(crate) fn count_sessions(of: &str, running: bool) -> String {
    let of = of.replace('\\', r"\\").replace('\'', "''");
    let running = if running { "AND command NOT IN ('Sleep', 'Daemon')" } else { "" };
    format!(
        "SELECT count(*) FROM information_schema.processlist \
         WHERE id <> connection_id() AND user <> 'system user' AND '{of}' IN (db, user) {running}"
    )
}
