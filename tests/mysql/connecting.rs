//! How a connection is opened, and what is said where it cannot be.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use futures_util::poll;
use millpond::drivers::mysql::mysql_async::{Opts, OptsBuilder};
use millpond::runtime::current;
use millpond::{Cause, ConnectContext, Driver, Outcome};
use millpond_harness::{Cut, Fault, Impostor, Proxy, Server, closed_port};

use super::*;

/// Longer than any answer that is there at once.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

#[test]
fn a_login_turned_away_says_why_and_is_permanent() {
    block_on(async {
        let url = mariadb().url();
        let (login, place) = url.split_once('@').expect("a login");
        for (url, text, code) in [
            (format!("{login}x@{place}"), "Access denied for user", 1045),
            (url.replace("/test", "/no_such_database"), "Unknown database", 1049),
        ] {
            let error = refused(&url, LONG).await;
            assert!(error.to_string().contains(text), "{error}");
            assert!(error.to_string().ends_with(&format!("({code})")), "{error}");
            let said = (error.outcome(), error.cause(), error.is_permanent());
            assert_eq!(said, (Outcome::NotSent, Cause::Auth, true), "{error}");
        }
    });
}

#[test]
fn where_nobody_answers_the_error_says_so_and_may_pass() {
    block_on(async {
        let (closed, gone) = (closed_port(), Impostor::closing());
        for (url, text) in [
            (mariadb().url_at(closed.address()), "refused"),
            ("mysql://a@no-such-host.invalid/b".to_owned(), "lookup address"),
            ("mysql:///b?socket=/no/such/socket".to_owned(), "/no/such/socket"),
            (mariadb().url_at(gone.address()), "closed the connection"),
        ] {
            let error = refused(&url, LONG).await;
            assert!(error.to_string().contains(text), "{error}");
            let said = (error.outcome(), error.cause(), error.is_permanent());
            assert_eq!(said, (Outcome::NotSent, Cause::Transport, false), "{error}");
        }
    });
}

#[test]
fn a_server_that_never_answers_takes_no_longer_than_it_may() {
    block_on(async {
        let here = current().expect("inside block_on");
        for impostor in [Impostor::silent(), Impostor::http()] {
            let start = here.now();
            let error = refused(&mariadb().url_at(impostor.address()), SHORT).await;
            assert!(error.is_timeout(), "{error}");
            let took = here.now() - start;
            assert!((SHORT..LONG).contains(&took), "{took:?}");
        }
    });
}

#[test]
fn what_is_no_database_is_told_at_once() {
    block_on(async {
        let impostor = Impostor::ssh();
        let error = refused(&mariadb().url_at(impostor.address()), LONG).await;
        assert!(error.to_string().contains("does not speak MySQL's protocol"), "{error}");
        assert!(error.is_permanent(), "{error:?}");
    });
}

#[test]
fn a_server_that_is_full_is_overloaded_and_not_wrong() {
    block_on(async {
        let server = Server::mariadb().setting("max_connections", 10).without_tls().start();
        let full = pool_at(&server.url(), 11).await;
        let mut held = Vec::new();
        // One more than the server lets in is for its administrator.
        for _ in 0..11 {
            match full.acquire().timeout(SHORT).await {
                Ok(conn) => held.push(conn),
                Err(_) => break,
            }
        }
        let error = refused(&server.url(), LONG).await;
        assert!(error.to_string().contains("Too many connections"), "{error}");
        assert_eq!((error.cause(), error.outcome()), (Cause::Overload, Outcome::NotSent));
        assert!(!error.is_permanent());
        #[cfg(feature = "rustls")]
        {
            drop(held);
            full.close().await;
            let error = refused(&format!("{}?ssl-mode=required", server.url()), LONG).await;
            assert!(error.to_string().contains("the server does not offer it"), "{error}");
            assert!(error.is_permanent(), "{error:?}");
        }
    });
}

#[test]
fn a_unix_socket_is_a_way_in() {
    block_on(async {
        let path = mariadb().socket_folder().join("socket");
        let pool = pool_at(&mariadb().url_with(&format!("socket={}", path.display())), 1).await;
        let rows = pool.query(
            "SELECT SUBSTRING_INDEX(HOST, ':', 1) FROM \
             information_schema.processlist WHERE id = CONNECTION_ID()",
            &[],
        );
        assert_eq!(rows.await.unwrap().scalar::<String>().unwrap(), "localhost");
    });
}

#[test]
fn a_dropped_connect_leaves_nothing_open() {
    for server in both() {
        block_on(async {
            let url = server.new_database("dropped_connects");
            let driver = Mysql::from_url(&url).expect("a good URL");
            let here = current().expect("inside block_on");
            for polls in 1..12 {
                let context = ConnectContext::new(&here, here.now() + LONG);
                let mut connect = pin!(driver.connect(&context));
                let mut left = polls;
                poll_fn(|cx| {
                    left -= 1;
                    let ready = connect.as_mut().poll(cx).is_ready();
                    if ready || left == 0 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            while server.sessions("dropped_connects") > 0 {
                here.sleep_until(here.now() + Duration::from_millis(10)).await;
            }
        });
    }
}

#[cfg(feature = "rustls")]
#[test]
fn tls_is_what_was_asked_for_or_an_error() {
    block_on(async {
        let cipher = "SHOW SESSION STATUS LIKE 'Ssl_cipher'";
        let (ca, other) = (mariadb().ca(), mariadb().other_ca());
        for (parameters, encrypted) in [
            ("ssl-mode=disabled".to_owned(), false),
            ("ssl-mode=required".to_owned(), true),
            (format!("ssl-ca={}", ca.display()), true),
            (format!("ssl-mode=verify_identity&ssl-ca={}", ca.display()), true),
        ] {
            let pool = pool_at(&mariadb().url_with(&parameters), 1).await;
            let rows = pool.query(cipher, &[]).await.unwrap();
            let used: String = rows.first().expect("a row").get("Value").unwrap();
            assert_eq!(!used.is_empty(), encrypted, "{parameters}: {used}");
        }
        for parameters in
            ["ssl-mode=verify_identity".to_owned(), format!("ssl-ca={}", other.display())]
        {
            let error = refused(&mariadb().url_with(&parameters), LONG).await;
            assert!(error.to_string().contains("certificate"), "{error}");
            let said = (error.outcome(), error.cause(), error.is_permanent());
            assert_eq!(said, (Outcome::NotSent, Cause::Config, true), "{error}");
        }
    });
}

#[cfg(feature = "rustls")]
#[test]
fn a_certificate_for_another_host_is_refused_unless_nobody_looks() {
    block_on(async {
        let server = Server::mariadb().with_certificate_for_elsewhere().start();
        let ca = server.ca();
        let error = refused(&server.url_with(&format!("ssl-ca={}", ca.display())), LONG).await;
        assert!(error.to_string().contains("not valid for name"), "{error}");
        assert!(error.is_permanent(), "{error:?}");
        pool_at(&server.url_with("ssl-mode=required"), 1).await;
    });
}

/// A server that stops in the middle of a login was taken for something that
/// is no database, which is permanent.
#[test]
fn a_login_cut_at_any_byte_may_be_tried_again() {
    for server in both() {
        block_on(async {
            let parameters: &[&str] =
                if cfg!(feature = "rustls") { &["", "ssl-mode=required"] } else { &[""] };
            for parameters in parameters {
                let proxy = Proxy::to(server.address());
                let url = format!("{}?{parameters}", server.url_at(proxy.address()));
                for bytes in (1..).step_by(7) {
                    proxy.to_client(Fault::CutAfter(bytes, Cut::Close));
                    let driver = Mysql::from_url(&url).expect("a good URL");
                    let here = current().expect("inside block_on");
                    let context = ConnectContext::new(&here, here.now() + LONG);
                    let Err(error) = driver.connect(&context).await else { break };
                    let said = (error.outcome(), error.cause(), error.is_permanent());
                    assert_eq!(
                        said,
                        (Outcome::NotSent, Cause::Transport, false),
                        "{bytes}: {error}"
                    );
                }
            }
        });
    }
}

/// The client went on reading what was left of an answer, on a connection that
/// nobody counted.
#[test]
fn a_connect_dropped_within_an_answer_closes_its_socket() {
    block_on(async {
        let name = "dropped_answers";
        let opts = OptsBuilder::from_opts(Opts::from_url(&mariadb().new_database(name)).unwrap());
        let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             SELECT SLEEP(0.05), REPEAT('x', 20000) FROM n";
        let driver = Mysql::from_opts(opts.setup(vec![rows]).into());
        let here = current().expect("inside block_on");
        let moment = || here.sleep_until(here.now() + Duration::from_millis(10));
        let context = ConnectContext::new(&here, here.now() + LONG);
        let mut connect = Box::pin(driver.connect(&context));
        let mut left = 20;
        while left > 0 {
            assert!(poll!(connect.as_mut()).is_pending(), "it has many rows to read");
            left -= mariadb().running(name).min(1);
            moment().await;
        }
        drop(connect);
        let start = here.now();
        while mariadb().sessions(name) > 0 {
            assert!(here.now() - start < LONG, "it is still being read");
            moment().await;
        }
    });
}
