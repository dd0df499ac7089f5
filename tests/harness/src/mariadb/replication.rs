//! Replication of MariaDB by global transaction identifiers (GTID).
//!
//! A replica is told by the file in which it keeps its primary, so nothing about
//! it is kept here, and one that is started again is what it was.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{Mariadb, client_options};
use crate::engine::{Engine, Replication, Settings};
use crate::place::{Place, run};
use crate::server::{PASSWORD, PATIENCE, USER};
use crate::template;

/// The user of replicas, and of the harness where that of the tests may not do
/// what is asked.
const REPLICATOR: &str = "harness";

/// What a server does at its first start, before it takes connections.
const FIRST: &str = "first.sql";

/// The number by which a server marks what it has done.
const NUMBER: &str = "server-id";

impl Mariadb {
    fn replicator(&self, place: &Place) -> Command {
        let mut client = place.command(&self.client);
        client_options(&mut client, place, "mysql");
        // The later of two wins.
        client.args(["--user", REPLICATOR]);
        client
    }

    /// The first cell of what the server answers.
    fn ask(&self, place: &Place, statements: &str) -> Result<String, String> {
        let output = run(&mut self.replicator(place), statements)?;
        let cell = self.table(&output).pop().and_then(|row| row.into_iter().next());
        Ok(cell.unwrap_or_default())
    }

    /// What a replica says about itself after these statements; nothing on any
    /// other server.
    fn status(&self, replica: &Place, after: &str) -> Result<Status, String> {
        let mut client = self.replicator(replica);
        let output = run(client.arg("--column-names"), &format!("{after}SHOW SLAVE STATUS"))?;
        let mut rows = self.table(&output).into_iter();
        let names = rows.next().unwrap_or_default();
        Ok(Status(names.into_iter().zip(rows.next().unwrap_or_default()).collect()))
    }
}

#[derive(Debug)]
struct Status(Settings);

impl Status {
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }
}

impl Replication for Mariadb {
    fn settings(&self, place: &Place) -> Settings {
        let number = fs::read_to_string(place.folder.join(NUMBER)).expect("a number was given");
        let mut settings = vec![
            ("server-id", number),
            ("log-bin", "binlog".to_owned()),
            ("relay-log", "relay".to_owned()),
            ("binlog-format", "ROW".to_owned()),
            // A replica may become a primary.
            ("log-slave-updates", "1".to_owned()),
            // One that has what its primary never had says so.
            ("gtid-strict-mode", "1".to_owned()),
            ("slave-net-timeout", "5".to_owned()),
        ];
        if self.is_replica(place) {
            settings.push(("read-only", "1".to_owned()));
        }
        // Its log is begun by the first start.
        if !keeps_log(place) {
            settings.push(("init-file", place.folder.join(FIRST).display().to_string()));
        }
        settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn prepare(&self, place: &Place) {
        begin(place, accounts().into());
    }

    /// A new server that replays the whole log of the primary, which begins with
    /// the template of both. It takes no connection before it has done so.
    fn copy(&self, replica: &Place, primary: &Place) {
        assert!(keeps_log(primary), "a MariaDB server has replicas if it is `replicated()`");
        template::furnish(replica, self);
        let position = self.position(primary).unwrap_or_else(|error| panic!("{error}"));
        let follow = [
            "SET GLOBAL read_only = 1".to_owned(),
            change_master(primary),
            "START SLAVE".to_owned(),
            format!("DO MASTER_GTID_WAIT('{position}', {})", PATIENCE.as_secs()),
        ];
        begin(replica, accounts().into_iter().chain(follow).collect());
    }

    fn is_replica(&self, place: &Place) -> bool {
        place.data().join("master.info").is_file()
    }

    fn turn(&self, replica: &Place, primary: &Place) -> Result<(), String> {
        let change = change_master(primary);
        self.ask(replica, &format!("STOP SLAVE; {change}; START SLAVE")).map(drop)
    }

    /// A primary names its log when it has found there what the replica has.
    fn follows(&self, replica: &Place, primary: &Place) -> Result<bool, String> {
        let status = self.status(replica, "")?;
        Ok(status.get("Master_Port") == primary.port.number().to_string()
            && status.get("Slave_IO_Running") == "Yes"
            && status.get("Slave_SQL_Running") == "Yes"
            && !status.get("Master_Log_File").is_empty())
    }

    fn promote(&self, replica: &Place) -> Result<(), String> {
        // In this order: what was received is thrown away when neither runs.
        let last = "START SLAVE SQL_THREAD; STOP SLAVE IO_THREAD; ";
        let status = self.status(replica, last)?;
        let received = status.get("Gtid_IO_Pos");
        let statements = format!(
            "SELECT MASTER_GTID_WAIT('{received}', {}); \
             STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0",
            PATIENCE.as_secs()
        );
        match self.ask(replica, &statements)?.as_str() {
            "0" => Ok(()),
            _ => Err(format!("did not replay up to {received}: {}", status.get("Last_Error"))),
        }
    }

    fn is_writable(&self, place: &Place) -> Result<bool, String> {
        self.ask(place, "SELECT @@GLOBAL.read_only").map(|answer| answer == "0")
    }

    fn position(&self, primary: &Place) -> Result<String, String> {
        self.ask(primary, "SELECT @@GLOBAL.gtid_binlog_pos")
    }

    fn has_replayed(&self, replica: &Place, position: &str) -> Result<bool, String> {
        let wait = format!("SELECT MASTER_GTID_WAIT('{position}', 0)");
        self.ask(replica, &wait).map(|answer| answer == "0")
    }

    fn pause(&self, replica: &Place) -> Result<(), String> {
        self.ask(replica, "STOP SLAVE SQL_THREAD").map(drop)
    }

    fn resume(&self, replica: &Place) -> Result<(), String> {
        self.ask(replica, "START SLAVE SQL_THREAD").map(drop)
    }
}

fn keeps_log(place: &Place) -> bool {
    place.data().join("binlog.index").is_file()
}

/// With a number of its own, also where another server was before: what that one
/// did would be taken for its own, and left out.
fn begin(place: &Place, statements: Vec<String>) {
    static NUMBERS: AtomicU32 = AtomicU32::new(1);
    let number = NUMBERS.fetch_add(1, Ordering::Relaxed).to_string();
    fs::write(place.folder.join(NUMBER), number).expect("the folder can be written to");
    let statements: String = statements.into_iter().map(|statement| statement + ";\n").collect();
    fs::write(place.folder.join(FIRST), statements).expect("the folder can be written to");
}

/// Every server makes them by itself, and logs nothing of it: else each would have
/// what no other has.
fn accounts() -> [String; 5] {
    [
        "SET sql_log_bin = 0".to_owned(),
        format!("CREATE USER '{REPLICATOR}'@'%' IDENTIFIED BY '{PASSWORD}'"),
        format!("GRANT ALL PRIVILEGES ON *.* TO '{REPLICATOR}'@'%'"),
        // Who may switch it is not bound by it.
        format!("REVOKE READ_ONLY ADMIN ON *.* FROM '{USER}'@'%'"),
        "SET sql_log_bin = 1".to_owned(),
    ]
}

fn change_master(primary: &Place) -> String {
    let (address, port) = (primary.port.address().ip(), primary.port.number());
    format!(
        "CHANGE MASTER TO MASTER_HOST = '{address}', MASTER_PORT = {port}, \
         MASTER_USER = '{REPLICATOR}', MASTER_PASSWORD = '{PASSWORD}', MASTER_SSL = 0, \
         MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1, MASTER_HEARTBEAT_PERIOD = 1"
    )
}
