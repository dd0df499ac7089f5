//! What is tested where it is installed, and said to be missing elsewhere: a
//! Galera cluster, PgBouncer.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "threads and the real clock are what is under test")]

use std::thread;
use std::time::{Duration, Instant};

use millpond_harness::{Builder, Galera, Server};

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < give_up, "it never came");
        thread::sleep(Duration::from_millis(5));
    }
}

mod galera {
    use super::*;

    /// How many nodes this one sees, itself among them.
    fn size(node: &Server) -> String {
        node.sql("SHOW STATUS LIKE 'wsrep_cluster_size'").concat()[1].clone()
    }

    fn values(node: &Server) -> Vec<String> {
        // It waits until it has what the others have committed.
        node.sql("SET wsrep_sync_wait = 1; SELECT a FROM t ORDER BY a").concat()
    }

    #[test]
    fn each_node_has_what_any_of_them_commits() {
        let Some(cluster) = Galera::start(3) else { return };
        let [a, b, c] = cluster.nodes() else { panic!("three were asked for") };
        a.sql("CREATE TABLE t (a INT PRIMARY KEY)");
        b.sql("SET wsrep_sync_wait = 15; INSERT INTO t VALUES (1)");
        c.sql("SET wsrep_sync_wait = 15; INSERT INTO t VALUES (2)");
        for node in [a, b, c] {
            assert_eq!(values(node), ["1", "2"]);
            assert_eq!(size(node), "3");
        }
    }

    #[test]
    fn a_killed_node_comes_back_with_what_it_missed() {
        let Some(cluster) = Galera::start(3) else { return };
        let [a, b, c] = cluster.nodes() else { panic!("three were asked for") };
        a.sql("CREATE TABLE t (a INT PRIMARY KEY)");
        // The founder too.
        for (node, other, value) in [(a, b, 1), (b, c, 2), (c, a, 3)] {
            node.kill();
            other.sql(&format!("SET wsrep_sync_wait = 15; INSERT INTO t VALUES ({value})"));
            node.start_again();
            assert_eq!(values(node).len(), value);
            assert_eq!(size(node), "3");
        }
    }

    #[test]
    fn a_stopped_node_comes_back_with_what_it_missed() {
        let Some(cluster) = Galera::start(3) else { return };
        let [a, b, _] = cluster.nodes() else { panic!("three were asked for") };
        a.sql("CREATE TABLE t (a INT PRIMARY KEY)");
        a.stop();
        b.sql("SET wsrep_sync_wait = 15; INSERT INTO t VALUES (1)");
        a.start_again();
        assert_eq!(values(a), ["1"]);
    }

    #[test]
    fn a_frozen_node_is_left_out_and_taken_in_again() {
        let Some(cluster) = Galera::start(3) else { return };
        let [a, b, c] = cluster.nodes() else { panic!("three were asked for") };
        a.sql("CREATE TABLE t (a INT PRIMARY KEY)");
        c.freeze();
        until(|| size(a) == "2");
        b.sql("SET wsrep_sync_wait = 15; INSERT INTO t VALUES (1)");
        c.thaw();
        until(|| size(a) == "3");
        until(|| c.sql("SHOW STATUS LIKE 'wsrep_ready'").concat()[1] == "ON");
        assert_eq!(values(c), ["1"]);
    }
}

mod pgbouncer {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    /// PgBouncer with one session for all clients, and the server behind it.
    fn in_front(settings: &[(&str, &str)]) -> Option<(Server, Server)> {
        let server = Server::postgres().start();
        let builder = Server::pgbouncer(server.address())?.setting("default_pool_size", 1);
        let set = |builder: Builder, (name, value): &(&str, &str)| builder.setting(name, value);
        Some((settings.iter().fold(builder, set).start(), server))
    }

    #[test]
    fn clients_share_the_sessions_of_the_server() {
        let Some((bouncer, server)) = in_front(&[]) else { return };
        let session = || bouncer.sql("SELECT pg_backend_pid()");
        assert_eq!(session(), session());
        assert_eq!(server.sessions("test"), 1);
        assert!(bouncer.url().contains(&bouncer.port().to_string()));
    }

    #[test]
    fn a_client_that_waits_too_long_is_sent_away() {
        let settings = [("query_wait_timeout", "1")];
        let Some((bouncer, server)) = in_front(&settings) else { return };
        thread::scope(|scope| {
            let long = scope.spawn(|| bouncer.sql("SELECT pg_sleep(3600)"));
            until(|| server.running("test") == 1);
            let waits = catch_unwind(AssertUnwindSafe(|| bouncer.sql("SELECT 1")));
            let message = waits.expect_err("no session is free").downcast::<String>();
            let message = message.expect("a text");
            assert!(message.contains("query_wait_timeout"), "{message}");
            server.kill();
            assert!(long.join().is_err());
        });
    }

    #[test]
    fn it_is_stopped_killed_and_started_again_beside_a_server_that_stays() {
        let Some((bouncer, server)) = in_front(&[]) else { return };
        for end in [Server::stop, Server::kill] {
            end(&bouncer);
            assert!(TcpStream::connect(bouncer.address()).is_err());
            assert_eq!(server.sql("SELECT 1"), [["1"]]);
            bouncer.start_again();
            assert_eq!(bouncer.sql("SELECT 1"), [["1"]]);
        }
    }

    #[test]
    fn it_offers_tls_unless_told_not_to() {
        let server = Server::postgres().start();
        let Some(bouncer) = Server::pgbouncer(server.address()) else { return };
        let plain = Server::pgbouncer(server.address()).map(Builder::without_tls);
        for (bouncer, answer) in [(Some(bouncer), b'S'), (plain, b'N')] {
            let bouncer = bouncer.expect("there was one").start();
            let mut stream = TcpStream::connect(bouncer.address()).expect("it listens");
            stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).expect("open");
            let mut answered = [0];
            stream.read_exact(&mut answered).expect("an answer");
            assert_eq!(answered, [answer]);
        }
    }

    #[test]
    fn it_is_administered_by_statements() {
        let Some((bouncer, _server)) = in_front(&[]) else { return };
        assert!(bouncer.sql_in("pgbouncer", "SHOW POOLS").concat().contains(&"1".to_owned()));
    }
}
