//! One server of its own: started, asked, stopped, killed, frozen.
//!
//! Knows when and in which order; what is different between the databases is the
//! engine's.

mod replicas;

use std::fmt::{self, Debug, Formatter};
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::Engine;
use crate::mariadb::Mariadb;
use crate::mysql::Mysql;
use crate::pgbouncer::Pgbouncer;
use crate::place::{Place, run};
use crate::postgres::Postgres;
use crate::supervisor::Supervisor;
use crate::{template, tls};

pub(crate) const USER: &str = "millpond";
pub(crate) const PASSWORD: &str = "secret";
pub(crate) const DATABASE: &str = "test";

/// Longer than any start or stop takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running or stopped server. Dropping it kills it and removes its folder.
///
/// All its methods take `&self`, so that one thread may kill what another uses.
pub struct Server {
    engine: Arc<dyn Engine>,
    place: Place,
    tls: bool,
    replicated: bool,
    settings: Vec<(String, String)>,
    // Before the process: it ends the process, and then the process is reaped.
    supervisor: Supervisor,
    process: Mutex<Option<Process>>,
}

/// The server process. Reaped in the end, so that its number stays its own until
/// the supervisor is done with it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Killed by the supervisor, if it had not ended by itself.
        let _ = self.0.wait();
    }
}

/// Settings of a server that is about to start.
#[derive(Debug)]
#[must_use = "a builder starts nothing before `start()`"]
pub struct Builder {
    engine: Arc<dyn Engine>,
    tls: Tls,
    replicated: bool,
    settings: Vec<(String, String)>,
}

#[derive(Debug, PartialEq)]
enum Tls {
    On,
    Elsewhere,
    Off,
}

impl Builder {
    pub(crate) fn of(engine: impl Engine + 'static) -> Self {
        Self { engine: Arc::new(engine), tls: Tls::On, replicated: false, settings: Vec::new() }
    }

    /// Sets what `postgresql.conf` or `my.cnf` would; a later one wins, also over
    /// those of the harness.
    pub fn setting(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Offers no TLS. By default it is offered and not required.
    pub fn without_tls(mut self) -> Self {
        self.tls = Tls::Off;
        self
    }

    /// Shows a certificate for another host, signed by the right authority.
    pub fn with_certificate_for_elsewhere(mut self) -> Self {
        self.tls = Tls::Elsewhere;
        self
    }

    /// Makes it fit to have [replicas](Server::replica). PostgreSQL always is;
    /// MariaDB keeps a log for them, and its user may no longer change whether it
    /// is read-only, because one who may is not bound by that.
    ///
    /// # Panics
    ///
    /// When the harness knows no replication of this database.
    pub fn replicated(mut self) -> Self {
        self.replicated = self.engine.replication().is_some();
        assert!(self.replicated, "the harness makes no replicas of {}", self.engine.name());
        self
    }

    /// Starts it, and waits until it takes connections.
    ///
    /// # Panics
    ///
    /// When it does not; the message holds the end of its log.
    pub fn start(self) -> Server {
        let elsewhere = self.tls == Tls::Elsewhere;
        let server = self.place();
        template::furnish(&server.place, server.engine.as_ref());
        if elsewhere {
            tls::show_elsewhere(&server.place);
        }
        if let Some(replication) = server.engine.replication().filter(|_| server.replicated) {
            replication.prepare(&server.place);
        }
        server.start_again();
        server
    }

    /// A stopped server in an empty folder.
    fn place(self) -> Server {
        let Self { engine, tls, replicated, settings } = self;
        let place = Place::new(engine.account());
        let supervisor = Supervisor::of(&place.folder, engine.leftovers());
        let (tls, process) = (tls != Tls::Off, Mutex::new(None));
        Server { engine, place, tls, replicated, settings, supervisor, process }
    }
}

impl Server {
    /// A PostgreSQL server of the newest version that is installed.
    ///
    /// # Panics
    ///
    /// When there is none; the message says how to install it.
    pub fn postgres() -> Builder {
        Builder::of(Postgres::new())
    }

    /// A MariaDB server.
    ///
    /// # Panics
    ///
    /// When it is not installed; the message says how to.
    pub fn mariadb() -> Builder {
        Builder::of(Mariadb::new())
    }

    /// A MySQL server; none unless the environment variable `MILLPOND_MYSQL` names
    /// the folder where `scripts/mysql-server` unpacked it.
    ///
    /// # Panics
    ///
    /// When that folder holds no MySQL.
    pub fn mysql() -> Option<Builder> {
        let folder = std::env::var_os("MILLPOND_MYSQL").filter(|folder| !folder.is_empty());
        if folder.is_none() {
            eprintln!("NO MYSQL: MILLPOND_MYSQL is not set (scripts/mysql-server prepares one)");
        }
        folder.map(|folder| Builder::of(Mysql::new(folder.into())))
    }

    /// PgBouncer in transaction mode, in front of the PostgreSQL server at this
    /// address, which may be that of a [proxy](crate::Proxy); none unless Debian's
    /// package `pgbouncer` is installed (`scripts/servers pgbouncer` does it), which
    /// is said aloud.
    ///
    /// Its [settings](Builder::setting) are those of `pgbouncer.ini`:
    /// `default_pool_size`, `query_wait_timeout`; `max_prepared_statements` from
    /// version 1.21. The user administers it too, in the database `pgbouncer`.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed here.
    pub fn pgbouncer(target: SocketAddr) -> Option<Builder> {
        let pgbouncer = Pgbouncer::new(target);
        if pgbouncer.is_none() {
            eprintln!("NO PGBOUNCER: it is not installed (scripts/servers pgbouncer does it)");
        }
        pgbouncer.map(Builder::of)
    }

    /// A URL of a user who may do everything, with password, over TCP.
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// As [`url`](Self::url), with URL parameters: `"sslmode=require"`.
    pub fn url_with(&self, parameters: &str) -> String {
        format!("{}?{parameters}", self.url())
    }

    /// As [`url`](Self::url), of another address that leads here.
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("{}://{USER}:{PASSWORD}@{address}/{DATABASE}", self.engine.scheme())
    }

    /// The user of the URL.
    pub fn user(&self) -> &'static str {
        USER
    }

    /// The password of the URL.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// The database of the URL.
    pub fn database(&self) -> &'static str {
        DATABASE
    }

    /// 127.0.0.1 with its port.
    pub fn address(&self) -> SocketAddr {
        self.place.port.address()
    }

    /// Its port, the same as long as it lives, whether it runs or not.
    pub fn port(&self) -> u16 {
        self.place.port.number()
    }

    /// The folder of its Unix socket. PostgreSQL chooses the name in it, MariaDB's
    /// and MySQL's is `socket`.
    pub fn socket_folder(&self) -> &Path {
        &self.place.folder
    }

    /// The certificate, in PEM, of the authority that signed the server's, which
    /// is for `localhost` and 127.0.0.1.
    pub fn ca(&self) -> PathBuf {
        self.place.folder.join(tls::CA)
    }

    /// The certificate of an authority that did not sign the server's.
    pub fn other_ca(&self) -> PathBuf {
        self.place.folder.join(tls::OTHER_CA)
    }

    /// Runs statements by the server's own client through the Unix socket. Gives
    /// the rows of all of them, as text, null as `NULL`.
    ///
    /// # Panics
    ///
    /// When one fails, with what the client said.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> Vec<Vec<String>> {
        self.sql_in(DATABASE, statements)
    }

    /// As [`sql`](Self::sql), in another database.
    ///
    /// # Panics
    ///
    /// When a statement fails, with what the client said.
    #[track_caller]
    pub fn sql_in(&self, database: &str, statements: &str) -> Vec<Vec<String>> {
        match run(&mut self.engine.client(&self.place, database), statements) {
            Ok(output) => self.engine.table(&output),
            Err(error) => panic!("{statements}: {error}"),
        }
    }

    /// Makes an empty database `name`, and gives its URL.
    ///
    /// # Panics
    ///
    /// When there is one of that name, or the server does not run.
    #[track_caller]
    pub fn new_database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE {name}"));
        let url = self.url();
        let (server, _) = url.rsplit_once('/').expect("it ends in a database");
        format!("{server}/{name}")
    }

    /// How many sessions of clients are in the database `of` or go by that name:
    /// their `application_name` on PostgreSQL, their user elsewhere.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    #[track_caller]
    pub fn sessions(&self, of: &str) -> usize {
        self.count(&self.engine.count_sessions(of, false))
    }

    /// How many of [these sessions](Self::sessions) are running a statement.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    #[track_caller]
    pub fn running(&self, of: &str) -> usize {
        self.count(&self.engine.count_sessions(of, true))
    }

    #[track_caller]
    fn count(&self, statement: &str) -> usize {
        self.sql(statement)[0][0].parse().expect("a count")
    }

    /// Ends it in order, without waiting for its clients. Thaws it before.
    ///
    /// # Panics
    ///
    /// When it does not end.
    pub fn stop(&self) {
        let mut process = self.lock();
        if let Some(running) = process.as_mut() {
            self.supervisor.signal_everything("CONT");
            self.supervisor.signal(self.engine.stop_signal());
            self.ended(running);
            self.supervisor.watch(None);
            *process = None;
        }
    }

    /// Ends all its processes at once, as a power failure would.
    pub fn kill(&self) {
        let mut process = self.lock();
        if let Some(running) = process.as_mut() {
            self.supervisor.signal_everything("KILL");
            self.ended(running);
            self.supervisor.watch(None);
            *process = None;
        }
    }

    /// Stops the clock of all its processes: connections stay open, new ones are
    /// taken by the kernel, and nothing is answered.
    pub fn freeze(&self) {
        let _running = self.lock();
        self.supervisor.signal_everything("STOP");
    }

    /// Lets a frozen server go on where it was.
    pub fn thaw(&self) {
        let _running = self.lock();
        self.supervisor.signal_everything("CONT");
    }

    /// Starts a stopped or killed server, on the same port and data, and waits
    /// until it takes connections. Does nothing to one that runs.
    ///
    /// # Panics
    ///
    /// When it does not start; the message holds the end of its log.
    pub fn start_again(&self) {
        let mut process = self.lock();
        if process.is_some() {
            return;
        }
        let running = process.insert(self.launch());
        let give_up = Instant::now() + PATIENCE;
        while !self.engine.is_ready(&self.place, running.0.id()) {
            if let Some(status) = exit(running) {
                self.supervisor.watch(None);
                *process = None;
                self.complain(&format!("ended instead of starting ({status})"));
            }
            if Instant::now() > give_up {
                self.complain(&format!("did not start within {PATIENCE:?}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// [Stops](Self::stop) it and [starts it again](Self::start_again).
    ///
    /// # Panics
    ///
    /// When it does not stop or does not start.
    pub fn restart(&self) {
        self.stop();
        self.start_again();
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.place.log()).unwrap_or_default()).into_owned()
    }

    /// The supervisor learns the number of the process before the process becomes
    /// a server: until then it is a shell that waits for a line, and ends without
    /// one if this process dies.
    fn launch(&self) -> Process {
        let log = File::options().create(true).append(true).open(self.place.log());
        let log = log.expect("the folder can be written to");
        let replication = self.engine.replication().filter(|_| self.replicated);
        let mut settings = replication.map_or_else(Vec::new, |it| it.settings(&self.place));
        settings.extend_from_slice(&self.settings);
        let mut command = self.place.command("sh");
        command
            .args(["-c", r#"read -r _ && exec "$@" </dev/null"#, "launch"])
            .args(self.engine.command_line(&self.place, self.tls, &settings))
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            // Ctrl-C in a terminal goes to a whole group; the supervisor ends it.
            .process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("sh: {error}"));
        self.supervisor.watch(Some(child.id()));
        let mut go = child.stdin.take().expect("piped");
        go.write_all(b"\n").expect("the shell reads");
        Process(child)
    }

    fn ended(&self, process: &mut Process) {
        let give_up = Instant::now() + PATIENCE;
        while exit(process).is_none() {
            if Instant::now() > give_up {
                self.complain(&format!("did not end within {PATIENCE:?}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn complain(&self, what: &str) -> ! {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n");
        panic!("the {} server {what}; its log ends with:\n{last}", self.engine.name())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How it ended, if it did.
fn exit(process: &mut Process) -> Option<ExitStatus> {
    process.0.try_wait().expect("it is our child")
}

impl Debug for Server {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("engine", &self.engine)
            .field("folder", &self.place.folder)
            .field("port", &self.port())
            .finish_non_exhaustive()
    }
}
