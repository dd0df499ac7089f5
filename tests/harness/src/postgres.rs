//! PostgreSQL: its programs, its settings, and what it says about itself.

mod replication;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::engine::{Engine, Replication, Table, needed, newest, version_of};
use crate::place::{Place, run};
use crate::server::{DATABASE, PASSWORD, USER};
use crate::tls;

/// The folder of its programs: that of the `postgres` in `PATH`, or of the newest
/// version that Debian's packages installed, which they keep out of `PATH`.
#[derive(Debug)]
pub(crate) struct Postgres {
    programs: PathBuf,
}

/// What tests need and no setting of a test should have to repeat. Nothing is
/// made durable: the folder goes with the server.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    ("fsync", "off"),
    ("full_page_writes", "off"),
    // In the folder, where a killed server leaves nothing behind.
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m %p %a "),
    // A standby that was away finds what it missed, and a server that is stopped
    // does not wait long for a frozen one.
    ("wal_keep_size", "64MB"),
    ("wal_sender_timeout", "5s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "50ms"),
];

/// Passwords everywhere: a client may be refused on the Unix socket too.
const RULES: &str = "\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
local replication all scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

impl Postgres {
    pub(crate) fn new() -> Self {
        static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
        let programs = PROGRAMS.get_or_init(|| {
            let folders = newest("/usr/lib/postgresql", "bin");
            let server = needed("postgres", &folders, "PostgreSQL", "postgresql");
            // A link to it may stand alone; the other programs are beside the file.
            let server = server.canonicalize().expect("it was just found");
            server.parent().expect("in a folder").to_path_buf()
        });
        Self { programs: programs.clone() }
    }
}

impl Engine for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn scheme(&self) -> &'static str {
        "postgres"
    }

    fn version(&self) -> String {
        version_of(&self.programs.join("postgres"))
    }

    fn recipe(&self) -> &'static str {
        include_str!("postgres.rs")
    }

    fn account(&self) -> &'static str {
        "postgres"
    }

    fn install(&self, place: &Place) {
        let password = place.folder.join("password");
        fs::write(&password, PASSWORD).expect("the folder can be written to");
        let mut initdb = place.command(self.programs.join("initdb"));
        initdb
            .args(["--pgdata=data", "--no-sync", "--auth=scram-sha-256", "--pwfile=password"])
            .args(["--encoding=UTF8", "--locale=C", "--wal-segsize=1"])
            .arg(format!("--username={USER}"));
        let mut single = place.command(self.programs.join("postgres"));
        single.args(["--single", "-D", "data", "-c", "fsync=off", "postgres"]);
        run(&mut initdb, "")
            .and_then(|_| run(&mut single, &format!("CREATE DATABASE {DATABASE};\n")))
            .unwrap_or_else(|error| panic!("{error}"));
        fs::write(place.data().join("pg_hba.conf"), RULES).expect("initdb made the folder");
    }

    fn command_line(
        &self,
        place: &Place,
        tls: bool,
        settings: &[(String, String)],
    ) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.programs.join("postgres").into()];
        let mut set = |name: &str, value: &str| {
            words.extend(["-c".into(), format!("{name}={value}").into()]);
        };
        set("data_directory", &place.data().to_string_lossy());
        set("port", &place.port.number().to_string());
        set("unix_socket_directories", &place.folder.to_string_lossy());
        for (name, value) in SETTINGS {
            set(name, value);
        }
        if tls {
            set("ssl", "on");
            let file = |name: &str| place.folder.join(name).to_string_lossy().into_owned();
            set("ssl_cert_file", &file(tls::CERTIFICATE));
            set("ssl_key_file", &file(tls::KEY));
        }
        for (name, value) in settings {
            set(name, value);
        }
        words.extend(["-D".into(), place.data().into()]);
        words
    }

    /// The server writes its state into this file, where `pg_ctl` looks for it.
    fn is_ready(&self, place: &Place, process: u32) -> bool {
        let file = fs::read_to_string(place.data().join("postmaster.pid")).unwrap_or_default();
        let mut lines = file.lines().map(str::trim);
        // A killed server left one too.
        let of_this_one = lines.next() == Some(&process.to_string());
        of_this_one && matches!(lines.nth(6), Some("ready" | "standby"))
    }

    fn stop_signal(&self) -> &'static str {
        "INT"
    }

    /// The segment by which a server knows that another one still runs on its
    /// folder. Its number stands in the file that a killed server leaves.
    fn leftovers(&self) -> &'static str {
        r#"ipcrm -m "$(awk 'NR == 7 { print $2 }' "$folder/data/postmaster.pid")""#
    }

    fn client(&self, place: &Place, database: &str) -> Command {
        let mut psql = place.command(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password"])
            .args(["--set=ON_ERROR_STOP=1", "--field-separator=\u{1f}", "--record-separator-zero"])
            .args(["--pset=null=NULL", "--username", USER, "--dbname", database, "--host"])
            .arg(&place.folder)
            .arg(format!("--port={}", place.port.number()))
            .env("PGPASSWORD", PASSWORD)
            .env("PGAPPNAME", "harness")
            .env("PGCLIENTENCODING", "UTF8");
        psql
    }

    fn table(&self, output: &str) -> Table {
        output
            .split_terminator('\0')
            .map(|row| row.split('\u{1f}').map(str::to_owned).collect())
            .collect()
    }

    fn count_sessions(&self, of: &str, running: bool) -> String {
        let of = of.replace('\'', "''");
        let running = if running { "AND state = 'active'" } else { "" };
        format!(
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
             AND pid <> pg_backend_pid() AND '{of}' IN (datname, application_name) {running}"
        )
    }

    fn replication(&self) -> Option<&dyn Replication> {
        Some(self)
    }
}
