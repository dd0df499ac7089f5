//! Streaming replication of PostgreSQL.
//!
//! A standby is told by the file that makes it one, so nothing about it is kept
//! here, and one that is started again is what it was.

use std::fs::File;
use std::io::Write;

use super::Postgres;
use crate::engine::{Engine, Replication};
use crate::place::{Place, run};
use crate::server::{DATABASE, PASSWORD, USER};

impl Postgres {
    /// The first cell of what the server answers.
    fn ask(&self, place: &Place, statements: &str) -> Result<String, String> {
        let output = run(&mut self.client(place, DATABASE), statements)?;
        let cell = self.table(&output).pop().and_then(|mut row| row.pop());
        Ok(cell.unwrap_or_default())
    }

    fn says_yes(&self, place: &Place, statement: &str) -> Result<bool, String> {
        self.ask(place, statement).map(|answer| answer == "t")
    }
}

impl Replication for Postgres {
    /// By the primary's own protocol: a copy of its files would have to be asked
    /// for in the same way, and be made whole afterwards.
    fn copy(&self, replica: &Place, primary: &Place) {
        let mut backup = replica.command(self.programs.join("pg_basebackup"));
        backup
            .args(["--pgdata=data", "--write-recovery-conf", "--checkpoint=fast"])
            .args(["--wal-method=stream", "--no-sync", "--no-manifest", "--no-password"])
            .arg(format!("--dbname={}", connection(primary)))
            .env("PGPASSWORD", PASSWORD);
        run(&mut backup, "").unwrap_or_else(|error| panic!("{error}"));
    }

    fn is_replica(&self, place: &Place) -> bool {
        place.data().join("standby.signal").is_file()
    }

    /// The last line of a name counts. A server that runs would take a statement
    /// for it too, which is more work than a line.
    fn turn(&self, replica: &Place, primary: &Place) -> Result<(), String> {
        let file = File::options().append(true).open(replica.data().join("postgresql.auto.conf"));
        let line = format!("primary_conninfo = '{} password={PASSWORD}'\n", connection(primary));
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(|error| format!("postgresql.auto.conf: {error}"))?;
        self.ask(replica, "SELECT pg_reload_conf()").map(drop)
    }

    /// A replica that has more than a promoted primary streams too, for a moment
    /// and again and again, but on the timeline that the primary has left.
    fn follows(&self, replica: &Place, primary: &Place) -> Result<bool, String> {
        let timeline =
            self.ask(primary, "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)")?;
        let port = primary.port.number();
        self.says_yes(
            replica,
            &format!(
                "SELECT count(*) = 1 FROM pg_stat_wal_receiver \
                 WHERE status = 'streaming' AND sender_port = {port} \
                 AND lpad(upper(to_hex(received_tli)), 8, '0') = '{timeline}'"
            ),
        )
    }

    fn promote(&self, replica: &Place) -> Result<(), String> {
        self.ask(replica, "SELECT pg_promote(false)").map(drop)
    }

    fn is_writable(&self, place: &Place) -> Result<bool, String> {
        self.says_yes(place, "SELECT NOT pg_is_in_recovery()")
    }

    /// A commit that waits for no standby takes all before it to the disk, also
    /// what was committed without waiting. Only what is there is sent.
    fn position(&self, primary: &Place) -> Result<String, String> {
        self.ask(
            primary,
            "SET synchronous_commit = local; \
             SELECT pg_logical_emit_message(true, 'harness', 'catch up'); \
             SELECT pg_current_wal_flush_lsn()",
        )
    }

    fn has_replayed(&self, replica: &Place, position: &str) -> Result<bool, String> {
        self.says_yes(replica, &format!("SELECT pg_last_wal_replay_lsn() >= '{position}'"))
    }

    fn pause(&self, replica: &Place) -> Result<(), String> {
        self.ask(replica, "SELECT pg_wal_replay_pause()")?;
        // What it is replaying at the moment it finishes.
        while self.ask(replica, "SELECT pg_get_wal_replay_pause_state()")? == "pause requested" {}
        Ok(())
    }

    fn resume(&self, replica: &Place) -> Result<(), String> {
        self.ask(replica, "SELECT pg_wal_replay_resume()").map(drop)
    }
}

/// Without TLS, which nobody looks at here, and without the password.
fn connection(primary: &Place) -> String {
    let (address, port) = (primary.port.address().ip(), primary.port.number());
    format!("host={address} port={port} user={USER} sslmode=disable")
}
