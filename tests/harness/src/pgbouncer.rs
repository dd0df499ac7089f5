//! PgBouncer, a pooler that clients take for a PostgreSQL server.
//!
//! Knows its program and its settings. Does not know the server behind it, but an
//! address that leads there.

use std::ffi::OsString;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use crate::engine::{Engine, Table, program, system_folders, version_of};
use crate::place::Place;
use crate::postgres::Postgres;
use crate::server::{PASSWORD, USER};
use crate::tls;

#[derive(Debug)]
pub(crate) struct Pgbouncer {
    program: PathBuf,
    /// What lies behind it, for whose client it is the same.
    postgres: Postgres,
    target: SocketAddr,
}

const SETTINGS: &str = "\
auth_type = scram-sha-256
auth_file = users
pool_mode = transaction
max_client_conn = 1000
";

impl Pgbouncer {
    pub(crate) fn new(target: SocketAddr) -> Option<Self> {
        let program = program("pgbouncer", &system_folders())?;
        Some(Self { program, postgres: Postgres::new(), target })
    }
}

impl Engine for Pgbouncer {
    fn name(&self) -> &'static str {
        "pgbouncer"
    }

    fn scheme(&self) -> &'static str {
        self.postgres.scheme()
    }

    fn version(&self) -> String {
        version_of(&self.program)
    }

    fn recipe(&self) -> &'static str {
        include_str!("pgbouncer.rs")
    }

    fn account(&self) -> &'static str {
        self.postgres.account()
    }

    /// It keeps nothing.
    fn install(&self, _place: &Place) {}

    fn command_line(
        &self,
        place: &Place,
        tls: bool,
        settings: &[(String, String)],
    ) -> Vec<OsString> {
        let (host, port) = (self.target.ip(), self.target.port());
        let (own_port, folder) = (place.port.number(), place.folder.display());
        let mut file = format!(
            "[databases]\n* = host={host} port={port}\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nlisten_port = {own_port}\nunix_socket_dir = {folder}\n\
             admin_users = {USER}\n{SETTINGS}"
        );
        if tls {
            file += &format!(
                "client_tls_sslmode = allow\nclient_tls_cert_file = {}\nclient_tls_key_file = {}\n",
                tls::CERTIFICATE,
                tls::KEY
            );
        }
        for (name, value) in settings {
            file += &format!("{name} = {value}\n");
        }
        let users = format!("\"{USER}\" \"{PASSWORD}\"\n");
        fs::write(place.folder.join("pgbouncer.ini"), file)
            .and_then(|()| fs::write(place.folder.join("users"), users))
            .expect("the folder can be written to");
        vec![(&self.program).into(), "pgbouncer.ini".into()]
    }

    fn is_ready(&self, place: &Place, _process: u32) -> bool {
        TcpStream::connect(place.port.address()).is_ok()
    }

    /// What ends it without waiting is another signal in each version; this one
    /// ends those too that do not know it.
    fn stop_signal(&self) -> &'static str {
        "QUIT"
    }

    fn client(&self, place: &Place, database: &str) -> Command {
        self.postgres.client(place, database)
    }

    fn table(&self, output: &str) -> Table {
        self.postgres.table(output)
    }

    fn count_sessions(&self, of: &str, running: bool) -> String {
        self.postgres.count_sessions(of, running)
    }
}
