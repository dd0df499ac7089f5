//! What a client sees through the proxy, and of the impostors, with an echo in
//! place of a database.
//!
//! Starts no server.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "threads and the real clock are what is under test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use millpond_harness::{Cut, Fault, Impostor, Proxy, closed_port};

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(3600);
/// How long nothing must come before it counts as nothing.
const NOTHING: Duration = Duration::from_millis(50);

/// Sends back what comes, and keeps it.
struct Echo {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Echo {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let log = Arc::clone(&log);
                thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        log.lock().expect("no panic").extend_from_slice(&buffer[..length]);
                        if stream.write_all(&buffer[..length]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("no panic").clone()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).expect("it listens")
}

fn say(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).expect("the line is open");
}

fn hear(stream: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).expect("an answer");
    bytes
}

fn hears_nothing(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(NOTHING)).expect("a time");
    let heard = stream.read(&mut [0]);
    stream.set_read_timeout(None).expect("no time");
    heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

fn is_reset(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < give_up, "it never came");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A proxy before an echo, and a connection through it that works.
fn line() -> (Echo, Proxy, TcpStream) {
    let echo = Echo::new();
    let proxy = Proxy::to(echo.address);
    let mut client = connect(proxy.address());
    say(&mut client, b"hello");
    assert_eq!(hear(&mut client, 5), b"hello");
    (echo, proxy, client)
}

#[test]
fn bytes_and_the_end_pass_both_ways() {
    let (_echo, proxy, mut client) = line();
    assert_eq!((proxy.connections(), proxy.accepted()), (1, 1));
    say(&mut client, b"bye");
    client.shutdown(Shutdown::Write).expect("open");
    assert_eq!(hear(&mut client, 3), b"bye");
    assert!(is_closed(&mut client));
    until(|| proxy.connections() == 0);
    assert_eq!(proxy.accepted(), 1);
}

#[test]
fn a_client_that_leaves_is_no_longer_counted() {
    let (_echo, proxy, client) = line();
    drop(client);
    until(|| proxy.connections() == 0);
}

#[test]
fn a_delay_is_kept_and_ends_with_its_fault() {
    let (_echo, proxy, mut client) = line();
    let delay = Duration::from_millis(30);
    proxy.to_client(Fault::Delay(delay));
    let began = Instant::now();
    say(&mut client, b"late");
    hear(&mut client, 4);
    assert!(began.elapsed() >= delay);

    proxy.to_client(Fault::Delay(LONG));
    say(&mut client, b"now");
    assert!(hears_nothing(&mut client));
    proxy.pass();
    assert_eq!(hear(&mut client, 3), b"now");
}

#[test]
fn refused_connections_do_not_touch_those_there_are() {
    let (_echo, proxy, mut client) = line();
    proxy.refuse();
    assert!(is_refused(proxy.address()));
    say(&mut client, b"still");
    assert_eq!(hear(&mut client, 5), b"still");
    proxy.pass();
    let mut second = connect(proxy.address());
    say(&mut second, b"back");
    assert_eq!(hear(&mut second, 4), b"back");
}

#[test]
fn ignored_connections_are_accepted_and_never_answered() {
    let (echo, proxy, mut client) = line();
    proxy.ignore();
    let mut ignored = connect(proxy.address());
    say(&mut ignored, b"anybody?");
    assert!(hears_nothing(&mut ignored));
    say(&mut client, b"!");
    assert_eq!(hear(&mut client, 1), b"!");
    assert_eq!(echo.heard(), b"hello!");
    assert_eq!(proxy.connections(), 2);
    drop(ignored);
    until(|| proxy.connections() == 1);
}

#[test]
fn a_stalled_direction_holds_back_and_the_other_does_not() {
    let (echo, proxy, mut client) = line();
    proxy.to_client(Fault::Stall);
    say(&mut client, b"heard");
    until(|| echo.heard() == b"helloheard");
    assert!(hears_nothing(&mut client));
    proxy.pass();
    assert_eq!(hear(&mut client, 5), b"heard");
}

#[test]
fn a_stalled_connection_hides_that_the_server_is_gone() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Proxy::to(listener.local_addr().expect("bound"));
    let mut client = connect(proxy.address());
    let (server, _) = listener.accept().expect("the proxy");
    proxy.stall();
    drop(server);
    assert!(hears_nothing(&mut client));
    proxy.pass();
    assert!(is_closed(&mut client));
}

#[test]
fn cut_connections_see_an_end_and_new_ones_work() {
    let (echo, proxy, mut client) = line();
    proxy.cut();
    assert_eq!(proxy.connections(), 0);
    assert!(is_closed(&mut client));
    let mut second = connect(proxy.address());
    say(&mut second, b"again");
    assert_eq!(hear(&mut second, 5), b"again");
    assert_eq!(echo.heard(), b"helloagain");
}

#[test]
fn reset_connections_see_a_reset() {
    let (_echo, proxy, mut client) = line();
    proxy.reset();
    assert_eq!(proxy.connections(), 0);
    assert!(is_reset(&mut client));
}

#[test]
fn stalled_and_ignored_connections_are_reset_too() {
    let (_echo, proxy, mut stalled) = line();
    proxy.stall();
    say(&mut stalled, b"lost");
    proxy.ignore();
    let mut ignored = connect(proxy.address());
    until(|| proxy.accepted() == 2);
    proxy.reset();
    assert_eq!(proxy.connections(), 0);
    assert!(is_reset(&mut stalled));
    assert!(is_reset(&mut ignored));
}

#[test]
fn a_connection_that_nobody_reads_is_cut() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let proxy = Proxy::to(listener.local_addr().expect("bound"));
    let mut client = connect(proxy.address());
    let _server = listener.accept().expect("the proxy");
    client.set_write_timeout(Some(NOTHING)).expect("a time");
    while client.write(&[0; 64 * 1024]).is_ok() {}
    proxy.reset();
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn a_line_is_cut_after_the_very_byte_and_only_once() {
    let (_echo, proxy, mut client) = line();
    proxy.to_client(Fault::CutAfter(4, Cut::Close));
    say(&mut client, b"abc");
    assert_eq!(hear(&mut client, 3), b"abc");
    say(&mut client, b"defg");
    assert_eq!(hear(&mut client, 1), b"d");
    assert!(is_closed(&mut client));
    let mut second = connect(proxy.address());
    say(&mut second, b"abcdefg");
    assert_eq!(hear(&mut second, 7), b"abcdefg");
}

#[test]
fn a_line_cut_after_nothing_is_cut_at_the_first_byte() {
    let (echo, proxy, mut client) = line();
    proxy.to_server(Fault::CutAfter(0, Cut::Reset));
    say(&mut client, b"a");
    assert!(is_reset(&mut client));
    assert_eq!(echo.heard(), b"hello");
}

#[test]
fn a_pattern_in_two_pieces_cuts_before_its_end() {
    let (echo, proxy, mut client) = line();
    proxy.to_server(Fault::CutBefore(b"COMMIT".to_vec(), Cut::Reset));
    say(&mut client, b"CO");
    assert_eq!(hear(&mut client, 2), b"CO");
    say(&mut client, b"MMIT");
    assert!(is_reset(&mut client));
    assert_eq!(echo.heard(), b"helloCO");
}

#[test]
fn a_lost_answer_was_given() {
    let (echo, proxy, mut client) = line();
    proxy.to_server(Fault::CutAnswer(b"COMMIT".to_vec(), Cut::Close));
    say(&mut client, b"BEGIN");
    assert_eq!(hear(&mut client, 5), b"BEGIN");
    say(&mut client, b"COMMIT");
    assert!(is_closed(&mut client));
    assert_eq!(echo.heard(), b"helloBEGINCOMMIT");
    let mut second = connect(proxy.address());
    say(&mut second, b"COMMIT");
    assert_eq!(hear(&mut second, 6), b"COMMIT");
}

#[test]
fn a_target_that_refuses_resets_the_client() {
    let closed = closed_port();
    let proxy = Proxy::to(closed.address());
    let mut client = connect(proxy.address());
    assert!(is_reset(&mut client));
}

#[test]
fn a_dropped_proxy_closes_everything() {
    let (_echo, proxy, mut client) = line();
    let address = proxy.address();
    drop(proxy);
    assert!(is_closed(&mut client));
    assert!(is_refused(address));
}

#[test]
fn a_closed_port_refuses() {
    let port = closed_port();
    assert!(is_refused(port.address()));
    assert_eq!(port.address().port(), port.number());
}

#[test]
fn a_silent_impostor_says_nothing() {
    let impostor = Impostor::silent();
    let mut client = connect(impostor.address());
    say(&mut client, b"hello?");
    assert!(hears_nothing(&mut client));
    drop(impostor);
    assert!(is_closed(&mut client));
}

#[test]
fn a_closing_impostor_closes() {
    let impostor = Impostor::closing();
    assert!(is_closed(&mut connect(impostor.address())));
}

#[test]
fn a_web_server_answers_once_and_closes() {
    let impostor = Impostor::http();
    let mut client = connect(impostor.address());
    say(&mut client, &[0, 0, 0, 8, 4, 210, 22, 47]);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400"));
}

#[test]
fn a_secure_shell_speaks_first() {
    let impostor = Impostor::ssh();
    assert_eq!(hear(&mut connect(impostor.address()), 4), b"SSH-");
}
