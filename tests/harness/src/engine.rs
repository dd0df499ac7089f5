//! What the harness has to know about one kind of database, alone and with
//! replicas, and how its programs are found.
//!
//! Does not know when a server is started, stopped or promoted;
//! [`Server`](crate::Server) does that.

use std::env;
use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::place::Place;

/// One row of text a line of the result.
pub(crate) type Table = Vec<Vec<String>>;

/// Names and values.
pub(crate) type Settings = Vec<(String, String)>;

/// The differences between the databases.
pub(crate) trait Engine: Debug + Send + Sync {
    /// Names the template, with the version.
    fn name(&self) -> &'static str;

    /// The scheme of its URLs.
    fn scheme(&self) -> &'static str;

    /// The version of the server program, as it says it.
    fn version(&self) -> String;

    /// The text that decides what [`install`](Self::install) makes: a template
    /// made by another one is not used.
    fn recipe(&self) -> &'static str;

    /// The accounts under which it would rather run than under `nobody`.
    fn account(&self) -> &'static str;

    /// Makes the data folder, with the user and the database.
    fn install(&self, place: &Place);

    /// The program and its arguments. A later setting wins.
    fn command_line(
        &self,
        place: &Place,
        tls: bool,
        settings: &[(String, String)],
    ) -> Vec<OsString>;

    /// Whether the server takes connections, which runs as this process.
    fn is_ready(&self, place: &Place, process: u32) -> bool;

    /// Ends the server without waiting for its clients.
    fn stop_signal(&self) -> &'static str;

    /// Shell commands that remove what a killed server leaves outside its folder;
    /// `$folder` is that folder.
    fn leftovers(&self) -> &'static str {
        ":"
    }

    /// The client that reads statements from its standard input, in a database.
    fn client(&self, place: &Place, database: &str) -> Command;

    /// What the client printed, as rows.
    fn table(&self, output: &str) -> Table;

    /// A statement that counts the sessions of clients, itself left out, which
    /// are in the database `of` or call themselves so; of these only the ones
    /// running a statement if `running`.
    fn count_sessions(&self, of: &str, running: bool) -> String;

    /// How its servers follow each other, if the harness knows.
    fn replication(&self) -> Option<&dyn Replication> {
        None
    }
}

/// How servers of one kind follow each other. What asks a server fails with what
/// the client said.
pub(crate) trait Replication {
    /// What a server with replicas, and a replica, is started with, beside the
    /// settings of all.
    fn settings(&self, _place: &Place) -> Settings {
        Vec::new()
    }

    /// Prepares the folder of a new server that shall have replicas, before its
    /// first start.
    fn prepare(&self, _place: &Place) {}

    /// Fills the empty folder of a replica, so that it follows the primary from
    /// its start, and takes no connection before it has something to show.
    fn copy(&self, replica: &Place, primary: &Place);

    /// Whether the server in this folder is a replica, running or not.
    fn is_replica(&self, place: &Place) -> bool;

    /// Turns a running replica to another primary.
    fn turn(&self, replica: &Place, primary: &Place) -> Result<(), String>;

    /// Whether the replica receives from this primary now.
    fn follows(&self, replica: &Place, primary: &Place) -> Result<bool, String>;

    /// Has the replica become a primary. What it received it replays before.
    fn promote(&self, replica: &Place) -> Result<(), String>;

    fn is_writable(&self, place: &Place) -> Result<bool, String>;

    /// How far the primary has written.
    fn position(&self, primary: &Place) -> Result<String, String>;

    /// Whether the replica shows what the primary had written at this position.
    fn has_replayed(&self, replica: &Place, position: &str) -> Result<bool, String>;

    /// From when this returns the replica receives, and does not replay.
    fn pause(&self, replica: &Place) -> Result<(), String>;

    fn resume(&self, replica: &Place) -> Result<(), String>;
}

/// The program `name`: where `PATH` says, or in one of `folders`.
pub(crate) fn program(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(folders.iter().cloned())
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// As [`program`], for what no server can do without.
///
/// # Panics
///
/// When it is missing; the message says how to install `product`, from `package`.
pub(crate) fn needed(name: &str, folders: &[PathBuf], product: &str, package: &str) -> PathBuf {
    program(name, folders).unwrap_or_else(|| {
        panic!(
            "{product} is not installed ({name} is missing): run scripts/servers, \
             or apt-get install {package}"
        )
    })
}

/// The folders with system programs, which `PATH` of an ordinary user may lack.
pub(crate) fn system_folders() -> Vec<PathBuf> {
    ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from).to_vec()
}

/// The version a program prints.
pub(crate) fn version_of(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// The folders under `parent` whose names are versions, newest first, each with
/// `inside` appended.
pub(crate) fn newest(parent: &str, inside: &str) -> Vec<PathBuf> {
    let mut versions: Vec<u32> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable_by(|a, b| b.cmp(a));
    versions.iter().map(|version| format!("{parent}/{version}/{inside}").into()).collect()
}
