//! A cluster of MariaDB servers that all take writes.
//!
//! Knows what makes a server a node. Does not know when one is started or killed:
//! a node is a server like any other.

use std::env;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::iter;
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, ScopedJoinHandle};

use crate::engine::{Engine, Table};
use crate::mariadb::Mariadb;
use crate::place::{Place, run, run_with_log};
use crate::port::Port;
use crate::server::{Builder, DATABASE, Server};

/// Where Debian's package has it.
const PROVIDER: &str = "/usr/lib/galera/libgalera_smm.so";

/// Where a node keeps its place in the cluster.
const STATE: &str = "grastate.dat";

const SETTINGS: &[&str] = &[
    "wsrep-on=ON",
    "wsrep-cluster-name=millpond",
    "wsrep-sst-method=harness",
    "binlog-format=ROW",
    "innodb-autoinc-lock-mode=2",
];

/// Quicker than the defaults: a node that says nothing is left out after two
/// seconds, and one that was killed may come back at once. It comes back as a
/// new one, because it would be taken for what is left of the old.
const PROVIDER_OPTIONS: &str = "gcache.size=32M;pc.recovery=false;gmcast.time_wait=PT0.3S;\
    evs.join_retrans_period=PT0.3S;evs.keepalive_period=PT0.2S;\
    evs.inactive_check_period=PT0.2S;evs.suspect_timeout=PT2S";

/// Servers of which each has what any of them commits.
///
/// A node that was killed or stopped joins again when it is
/// [started again](Server::start_again), and is ready when that returns: it has
/// what it missed. The others are the cluster as long as they are most of those
/// that were there before; one of which no node is left cannot be started again.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<Server>,
}

impl Galera {
    /// Starts a cluster of so many nodes; none unless Debian's package `galera-4`
    /// is installed (`scripts/servers galera` does it), which is said aloud.
    ///
    /// # Panics
    ///
    /// When MariaDB is not installed, or a node does not start; the message says
    /// what to do, or holds the end of its log.
    pub fn start(nodes: usize) -> Option<Self> {
        if !Path::new(PROVIDER).is_file() {
            eprintln!("NO GALERA: {PROVIDER} is missing (scripts/servers galera installs it)");
            return None;
        }
        let ports: Vec<_> = (0..nodes).map(|_| Port::hold()).collect();
        let addresses: Vec<_> = ports.iter().map(|port| port.address().to_string()).collect();
        let peers = format!("gcomm://{}", addresses.join(","));
        let mut ports = ports.into_iter();
        let mut node = |begins| {
            let (mariadb, peers) = (Mariadb::new(), peers.clone());
            let group = ports.next().expect("a cluster has nodes");
            Builder::of(Node { mariadb, peers, group, transfer: Port::hold(), begins })
        };
        // It founds the cluster twice: what it left at the end of the first is what
        // the others begin with, because a node without a past joins only by a copy.
        let first = node(Beginning::New(AtomicU32::new(2))).start();
        first.stop();
        let past = first.socket_folder().join("past");
        let mut cp = Command::new("cp");
        cp.arg("-Rp").arg(first.socket_folder().join("data")).arg(&past);
        run(&mut cp, "").unwrap_or_else(|error| panic!("{error}"));
        first.start_again();
        let others: Vec<_> = (1..nodes).map(|_| node(Beginning::CopyOf(past.clone()))).collect();
        let mut all = vec![first];
        thread::scope(|scope| {
            let starts: Vec<_> =
                others.into_iter().map(|node| scope.spawn(|| node.start())).collect();
            let ended = starts.into_iter().map(ScopedJoinHandle::join);
            all.extend(ended.map(|node| node.unwrap_or_else(|why| resume_unwind(why))));
        });
        fs::remove_dir_all(past).expect("it was made here");
        Some(Self { nodes: all })
    }

    /// Its nodes, running or not.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }
}

/// A server that is a node.
#[derive(Debug)]
struct Node {
    mariadb: Mariadb,
    /// The addresses of all, itself among them.
    peers: String,
    /// Where it talks with them.
    group: Port,
    /// Where it is sent what it missed.
    transfer: Port,
    begins: Beginning,
}

/// What a node does at its first start.
#[derive(Debug)]
enum Beginning {
    /// It founds the cluster, at as many starts.
    New(AtomicU32),
    /// It joins, with a copy of this data folder.
    CopyOf(PathBuf),
}

impl Node {
    /// Where it stands, if it has been in a cluster. A server that ended in order
    /// wrote it down; of a killed one it is asked for.
    fn position(&self, place: &Place, words: &[OsString]) -> Option<String> {
        let state = fs::read_to_string(place.data().join(STATE)).ok()?;
        let value = |name: &str| {
            let line = state.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        if value("seqno:") != "-1" {
            return Some(format!("{}:{}", value("uuid:"), value("seqno:")));
        }
        let mut recover = place.command(&words[0]);
        recover.args(&words[1..]).arg("--wsrep-recover");
        let (_, log) = run_with_log(&mut recover, "").unwrap_or_else(|error| panic!("{error}"));
        let found = log.lines().find_map(|line| line.split_once("Recovered position: "));
        let (_, position) = found.unwrap_or_else(|| panic!("no position is in the log:\n{log}"));
        Some(position.trim().to_owned())
    }

    /// Whether it founds the cluster now.
    fn begin(&self, place: &Place) -> bool {
        match &self.begins {
            Beginning::New(left) => {
                let one_less = |left: u32| left.checked_sub(1);
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
            }
            Beginning::CopyOf(past) => {
                let data = place.data();
                if !data.join(STATE).is_file() {
                    fs::remove_dir_all(&data).expect("it is from the template");
                    let mut cp = place.command("cp");
                    cp.arg("-Rp").args([past, &data]);
                    run(&mut cp, "").unwrap_or_else(|error| panic!("{error}"));
                }
                false
            }
        }
    }
}

/// The search path that leads to the script, which the server looks for by the name
/// of its method.
fn with_transfer(place: &Place) -> OsString {
    let script = place.folder.join("wsrep_sst_harness");
    fs::write(&script, include_str!("galera/transfer.sh"))
        .and_then(|()| fs::set_permissions(&script, Permissions::from_mode(0o755)))
        .expect("the folder can be written to");
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = iter::once(place.folder.clone()).chain(env::split_paths(&path));
    let path = env::join_paths(folders).expect("the folder has no separator in its name");
    let mut word = OsString::from("PATH=");
    word.push(path);
    word
}

impl Engine for Node {
    fn name(&self) -> &'static str {
        self.mariadb.name()
    }

    fn scheme(&self) -> &'static str {
        self.mariadb.scheme()
    }

    fn version(&self) -> String {
        self.mariadb.version()
    }

    fn recipe(&self) -> &'static str {
        self.mariadb.recipe()
    }

    fn account(&self) -> &'static str {
        self.mariadb.account()
    }

    fn install(&self, place: &Place) {
        self.mariadb.install(place);
    }

    fn command_line(
        &self,
        place: &Place,
        tls: bool,
        settings: &[(String, String)],
    ) -> Vec<OsString> {
        let (group, transfer) = (self.group.address(), self.transfer.address());
        let mut words = vec!["env".into(), with_transfer(place)];
        words.extend(self.mariadb.command_line(place, tls, settings));
        words.extend(SETTINGS.iter().map(|setting| format!("--{setting}").into()));
        words.extend([
            format!("--wsrep-provider={PROVIDER}").into(),
            format!("--wsrep-node-address={group}").into(),
            format!("--wsrep-cluster-address={}", self.peers).into(),
            format!(
                "--wsrep-provider-options={PROVIDER_OPTIONS};gmcast.listen_addr=tcp://{group};\
                 ist.recv_addr={transfer}"
            )
            .into(),
        ]);
        let founds = self.begin(place);
        if let Some(position) = self.position(place, &words) {
            words.push(format!("--wsrep-start-position={position}").into());
        }
        if founds {
            words.push("--wsrep-new-cluster".into());
        }
        words
    }

    /// It takes connections long before it takes statements.
    fn is_ready(&self, place: &Place, process: u32) -> bool {
        const READY: &str = "SHOW STATUS WHERE variable_name = 'wsrep_ready' AND value = 'ON' \
            OR variable_name = 'wsrep_local_state_comment' AND value = 'Synced'";
        let answer = || run(&mut self.client(place, DATABASE), READY);
        self.mariadb.is_ready(place, process)
            && answer().is_ok_and(|answer| self.table(&answer).len() == 2)
    }

    fn stop_signal(&self) -> &'static str {
        self.mariadb.stop_signal()
    }

    fn client(&self, place: &Place, database: &str) -> Command {
        self.mariadb.client(place, database)
    }

    fn table(&self, output: &str) -> Table {
        self.mariadb.table(output)
    }

    fn count_sessions(&self, of: &str, running: bool) -> String {
        self.mariadb.count_sessions(of, running)
    }
}
