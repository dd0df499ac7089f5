//! What each server does when it is stopped, killed, frozen and left behind.
//!
//! Each claim is checked on each database. Some run this program a second time,
//! as a test process to be killed.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "threads and the real clock are what is under test")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use millpond_harness::{Builder, Proxy, Server, closed_port};

/// How long nothing must come before it counts as nothing.
const NOTHING: Duration = Duration::from_millis(100);

/// Makes a test of each claim on each database.
macro_rules! on_each_database {
    ($($claim:ident)*) => {
        mod postgres {
            $(#[test] fn $claim() { super::$claim("postgres") })*
        }
        mod mariadb {
            $(#[test] fn $claim() { super::$claim("mariadb") })*
        }
        mod mysql {
            $(#[test] fn $claim() {
                if millpond_harness::Server::mysql().is_some() {
                    super::$claim("mysql");
                }
            })*
        }
    };
}

on_each_database! {
    statements_give_rows_of_text
    a_stopped_server_refuses_and_comes_back_with_its_data
    a_killed_server_ends_its_sessions_and_comes_back_with_its_data
    a_frozen_server_accepts_and_answers_when_thawed
    a_frozen_server_can_be_stopped_and_killed
    sessions_and_running_statements_are_counted_by_database
    settings_win_over_those_of_the_harness
    a_wrong_setting_fails_with_the_log
    its_certificate_is_for_this_host_and_of_its_authority
    a_server_without_tls_offers_none
    it_is_reached_through_a_proxy
    a_dropped_server_leaves_nothing
    a_killed_test_process_leaves_nothing
    processes_that_start_at_once_make_one_template
}

fn make(database: &str) -> Builder {
    match database {
        "postgres" => Server::postgres(),
        "mariadb" => Server::mariadb(),
        _ => Server::mysql().expect("MILLPOND_MYSQL is set"),
    }
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < give_up, "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Whether any process was started on what is in the folder. What is at the port of
/// a server that is gone may be that of another test.
fn is_in_use(folder: &Path) -> bool {
    let all = Command::new("ps").args(["-A", "-o", "args="]).output().expect("ps runs").stdout;
    String::from_utf8_lossy(&all).contains(folder.to_str().expect("UTF-8"))
}

/// A connection that waits for the first byte of the server, which PostgreSQL says
/// when asked for TLS, and the others at once.
fn knock(address: SocketAddr, database: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the kernel accepts");
    if database == "postgres" {
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("open");
    }
    stream
}

/// A statement that takes an hour.
fn long(database: &str) -> &'static str {
    if database == "postgres" { "SELECT pg_sleep(3600)" } else { "SELECT sleep(3600)" }
}

fn statements_give_rows_of_text(database: &str) {
    let server = make(database).start();
    let rows = server.sql("SELECT 1, NULL, 'a\nb\tc'; SELECT 2");
    assert_eq!(rows, [vec!["1", "NULL", "a\nb\tc"], vec!["2"]]);
    assert!(server.sql("CREATE TABLE t (a INT)").is_empty());
}

fn a_stopped_server_refuses_and_comes_back_with_its_data(database: &str) {
    let server = make(database).start();
    server.sql("CREATE TABLE t (a INT); INSERT INTO t VALUES (7)");
    let url = server.url();
    server.stop();
    server.stop();
    assert!(is_refused(server.address()));
    server.start_again();
    server.start_again();
    knock(server.address(), database).read_exact(&mut [0]).expect("an answer");
    assert_eq!(server.sql("SELECT a FROM t"), [["7"]]);
    assert_eq!(server.url(), url);
    server.restart();
    assert_eq!(server.sql("SELECT a FROM t"), [["7"]]);
}

fn a_killed_server_ends_its_sessions_and_comes_back_with_its_data(database: &str) {
    let server = make(database).start();
    server.sql("CREATE TABLE t (a INT); INSERT INTO t VALUES (7)");
    thread::scope(|scope| {
        let statement = scope.spawn(|| server.sql(long(database)));
        until(|| server.running("test") == 1);
        server.kill();
        assert!(statement.join().is_err());
    });
    assert!(is_refused(server.address()));
    server.start_again();
    assert_eq!(server.sql("SELECT a FROM t"), [["7"]]);
}

fn a_frozen_server_accepts_and_answers_when_thawed(database: &str) {
    let server = make(database).start();
    server.freeze();
    let mut client = knock(server.address(), database);
    client.set_read_timeout(Some(NOTHING)).expect("a time");
    assert!(client.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    client.set_read_timeout(None).expect("no time");
    server.thaw();
    client.read_exact(&mut [0]).expect("an answer");
}

fn a_frozen_server_can_be_stopped_and_killed(database: &str) {
    let server = make(database).start();
    server.freeze();
    server.stop();
    server.start_again();
    server.freeze();
    server.kill();
    server.start_again();
    server.freeze();
    let folder = server.socket_folder().to_path_buf();
    drop(server);
    assert!(!folder.exists());
}

fn sessions_and_running_statements_are_counted_by_database(database: &str) {
    let server = make(database).start();
    let url = server.new_database("other");
    assert!(url.ends_with("/other"), "{url}");
    assert_eq!((server.sessions("other"), server.running("other")), (0, 0));
    thread::scope(|scope| {
        let statement = scope.spawn(|| server.sql_in("other", long(database)));
        until(|| server.running("other") == 1);
        assert_eq!((server.sessions("other"), server.sessions("test")), (1, 0));
        server.kill();
        assert!(statement.join().is_err());
    });
}

fn settings_win_over_those_of_the_harness(database: &str) {
    let server = make(database).setting("max_connections", 17).start();
    let show =
        if database == "postgres" { "SHOW max_connections" } else { "SELECT @@max_connections" };
    assert_eq!(server.sql(show), [["17"]]);
}

fn a_wrong_setting_fails_with_the_log(database: &str) {
    let start = || make(database).setting("no_such_setting", 1).start();
    let panic = std::panic::catch_unwind(start).expect_err("it cannot start");
    let message = panic.downcast::<String>().expect("a text");
    assert!(message.contains("ended instead of starting"), "{message}");
    assert!(message.replace('-', "_").contains("no_such_setting"), "{message}");
}

/// Whether OpenSSL can shake hands, trusting `ca` and expecting `host`.
fn trusts(server: &Server, database: &str, ca: &Path, host: &str) -> bool {
    let mut openssl = Command::new("openssl");
    let kind = if database == "postgres" { "postgres" } else { "mysql" };
    openssl.args([
        "s_client",
        "-verify_return_error",
        "-no-CAfile",
        "-no-CApath",
        "-starttls",
        kind,
    ]);
    openssl.args(["-connect", &server.address().to_string(), "-verify_hostname", host]);
    openssl.arg("-CAfile").arg(ca).stdin(Stdio::null()).stderr(Stdio::null());
    openssl.stdout(Stdio::null()).status().expect("openssl is installed").success()
}

fn its_certificate_is_for_this_host_and_of_its_authority(database: &str) {
    let server = make(database).start();
    assert!(trusts(&server, database, &server.ca(), "localhost"));
    assert!(!trusts(&server, database, &server.ca(), "elsewhere.invalid"));
    assert!(!trusts(&server, database, &server.other_ca(), "localhost"));
    let elsewhere = make(database).with_certificate_for_elsewhere().start();
    assert!(trusts(&elsewhere, database, &elsewhere.ca(), "elsewhere.invalid"));
    assert!(!trusts(&elsewhere, database, &elsewhere.ca(), "localhost"));
}

fn a_server_without_tls_offers_none(database: &str) {
    let server = make(database).without_tls().start();
    assert!(!trusts(&server, database, &server.ca(), "localhost"));
    assert_eq!(server.sql("SELECT 1"), [["1"]]);
}

fn it_is_reached_through_a_proxy(database: &str) {
    let server = make(database).start();
    let proxy = Proxy::to(server.address());
    assert!(server.url_at(proxy.address()).contains(&proxy.port().to_string()));
    knock(proxy.address(), database).read_exact(&mut [0]).expect("an answer");
}

fn a_dropped_server_leaves_nothing(database: &str) {
    let server = make(database).start();
    let folder = server.socket_folder().to_path_buf();
    assert!(is_in_use(&folder));
    drop(server);
    until(|| !is_in_use(&folder));
    assert!(!folder.exists());
}

/// Tells the copies of this program what they are.
const VICTIM: &str = "MILLPOND_HARNESS_VICTIM";

/// A test process that starts a server, says where, and waits for its end.
struct Victim {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Victim {
    fn of(program: &Path, database: &str) -> Self {
        let mut process = Command::new(program)
            .args(["--exact", "victim", "--nocapture"])
            .env(VICTIM, database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        Self { process, output }
    }

    /// Where its server is, once it runs.
    fn server(&mut self) -> (SocketAddr, PathBuf) {
        let mut lines = self.output.by_ref().lines().map_while(Result::ok);
        let line = lines.find_map(|line| line.strip_prefix("at ").map(str::to_owned));
        let line = line.expect("the victim started its server");
        let (address, folder) = line.split_once(' ').expect("two words");
        (address.parse().expect("an address"), folder.into())
    }
}

/// Does nothing unless it is run by the tests below.
#[test]
fn victim() {
    let server = match env::var(VICTIM).as_deref() {
        Ok("postgres") => millpond_harness::postgres(),
        Ok("mariadb") => millpond_harness::mariadb(),
        Ok("mysql") => millpond_harness::mysql().expect("MILLPOND_MYSQL is set"),
        _ => return,
    };
    assert_eq!(server.sql("SELECT 1"), [["1"]]);
    println!("\nat {} {}", server.address(), server.socket_folder().display());
    // Until the parent closes the pipe. The server is in a static: never dropped.
    let _ = std::io::stdin().read(&mut [0]);
}

fn a_killed_test_process_leaves_nothing(database: &str) {
    let program = env::current_exe().expect("a path");
    let mut victim = Victim::of(&program, database);
    let (address, folder) = victim.server();
    assert!(folder.exists() && is_in_use(&folder));
    assert!(!is_refused(address));
    victim.process.kill().expect("it runs");
    victim.process.wait().expect("it ends");
    until(|| !folder.exists());
    until(|| !is_in_use(&folder));
}

fn processes_that_start_at_once_make_one_template(database: &str) {
    // A copy of this program in an empty target folder, where no template is.
    let port = closed_port();
    let target = env::temp_dir().join(format!("millpond-race-{}", port.number()));
    fs::create_dir(&target).expect("a new folder");
    fs::write(target.join("CACHEDIR.TAG"), "").expect("it can be written to");
    let program = target.join("copy");
    fs::copy(env::current_exe().expect("a path"), &program).expect("a copy");

    let mut victims: Vec<_> = (0..3).map(|_| Victim::of(&program, database)).collect();
    let servers: Vec<_> = victims.iter_mut().map(Victim::server).collect();
    let templates = fs::read_dir(target.join("millpond-servers")).expect("it was made").count();
    for (victim, (_, folder)) in victims.iter_mut().zip(servers) {
        drop(victim.process.stdin.take());
        assert!(victim.process.wait().expect("it ends").success());
        until(|| !folder.exists());
    }
    fs::remove_dir_all(&target).expect("it is there");
    assert_eq!(templates, 1);
}
