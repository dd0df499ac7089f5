//! How connecting succeeds and fails.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use millpond::drivers::postgres::Postgres;
use millpond::runtime::{Runtime, block_on};
use millpond::{Cause, ConnectContext, Driver, ErrorKind, Outcome, Pool};
use millpond_harness::{Impostor, closed_port, postgres};

use super::odd::{Odd, connected};
use super::{pool_at, refused, refused_at_once};

fn asked(url: &str, sql: &str) -> String {
    block_on(async { pool_at(url, 1).await.query(sql, &[]).await.unwrap().scalar().unwrap() })
}

/// Whether a session is encrypted, as the server sees it.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
const ENCRYPTED: &str = "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[test]
fn what_cannot_get_better_fails_at_once_and_says_so() {
    let server = postgres();
    let at = |part: &str, other: &str| server.url().replace(part, other);
    let secret = format!(":{}@", server.password());
    let database = format!("/{}", server.database());
    server.sql("CREATE ROLE crowded LOGIN PASSWORD 'secret' CONNECTION LIMIT 0");
    let crowded = at(&format!("//{}:", server.user()), "//crowded:").replace(&secret, ":secret@");
    for (url, said, cause) in [
        (at(&secret, ":wrong@"), "password authentication failed", Cause::Auth),
        (at(&secret, "@"), "the server asks for a password, and none is given", Cause::Auth),
        (at(&database, "/nowhere"), "\"nowhere\" does not exist", Cause::Auth),
        (
            server.url_with("options=-c%20no_such_setting%3D1"),
            "unrecognized configuration parameter",
            Cause::Config,
        ),
        (crowded, "too many connections for role", Cause::Overload),
    ] {
        let error = block_on(refused_at_once(&url));
        assert!(error.to_string().contains(said), "{error}");
        assert!(error.to_string().contains(&server.port().to_string()), "{error}");
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Connect, cause), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotSent, "{error:?}");
    }
}

#[test]
fn a_host_that_nobody_knows_or_answers_for_is_named() {
    let closed = closed_port();
    for (url, said) in [
        (format!("postgres://u:p@127.0.0.1:{}/d", closed.number()), "refused"),
        ("postgres://u:p@no-such-host.invalid/d".to_owned(), "the name is not found"),
        ("postgres://u:p@%2Fno%2Fsuch%2Ffolder/d".to_owned(), "/no/such/folder:5432"),
    ] {
        let error = block_on(refused_at_once(&url));
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Connect, Cause::Transport));
        assert!(!error.is_permanent());
    }
}

#[test]
fn a_port_where_something_else_listens_is_told_from_a_server() {
    for (impostor, name) in [(Impostor::http(), "http"), (Impostor::ssh(), "ssh")] {
        for mode in ["disable", "prefer", "require"] {
            if mode == "require" && cfg!(not(any(feature = "rustls", feature = "native-tls"))) {
                continue;
            }
            let url = format!("postgres://u:p@{}/d?sslmode={mode}", impostor.address());
            let error = block_on(refused_at_once(&url));
            assert!(error.is_permanent(), "{name} {mode}: {error:?}");
            // What speaks TLS by another library has its own words.
            if cfg!(not(feature = "native-tls")) {
                let said = "this is not a PostgreSQL server";
                assert!(error.to_string().contains(said), "{name} {mode}: {error}");
            }
        }
    }
    let closing = Impostor::closing();
    let error = block_on(refused_at_once(&format!("postgres://u:p@{}/d", closing.address())));
    assert!(!error.is_permanent(), "{error:?}");
}

#[test]
fn a_server_that_never_answers_is_given_up_in_time() {
    let silent = Impostor::silent();
    let url = format!("postgres://u:p@{}/d", silent.address());
    let limit = Duration::from_millis(300);
    let each = format!("{url}?connect_timeout=300ms");
    for error in [block_on(refused(&url, limit)), block_on(refused_at_once(&each))] {
        assert!(error.is_timeout(), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotSent);
    }
}

#[test]
fn hosts_are_tried_in_turn_and_each_failure_is_told() {
    let (server, closed, silent) = (postgres(), closed_port(), Impostor::silent());
    let (user, password, database) = (server.user(), server.password(), server.database());
    let url = |hosts: &str| format!("postgres://{user}:{password}@{hosts}/{database}");
    let dead = format!("{},{}", closed.address(), silent.address());
    let alive = url(&format!("{dead},{}", server.address()));
    let port = asked(&format!("{alive}?connect_timeout=1s"), "SELECT inet_server_port()::text");
    assert_eq!(port, server.port().to_string());

    let error = block_on(refused_at_once(&format!("{}?connect_timeout=1s", url(&dead))));
    for said in [closed.address(), silent.address()].map(|address| address.to_string()) {
        assert!(error.to_string().contains(&said), "{error}");
    }
    assert!(!error.is_permanent());
}

/// Without a limit for each, a host that hangs leaves time for the next.
#[test]
fn a_host_that_hangs_does_not_use_up_the_time_of_the_others() {
    let (server, silent) = (postgres(), Impostor::silent());
    let url = server.url().replace('@', &format!("@{},", silent.address()));
    block_on(async {
        let driver = Postgres::from_url(&url).expect("a good URL");
        let builder = Pool::builder(driver).connect_timeout(Duration::from_secs(2));
        builder.build().await.unwrap().query("SELECT 1", &[]).await.unwrap();
    });
}

#[test]
fn a_role_that_is_asked_for_is_checked() {
    let server = postgres();
    for session in ["any", "read-write", "primary", "prefer-standby"] {
        let url = server.url_with(&format!("target_session_attrs={session}"));
        assert_eq!(asked(&url, "SELECT 'here'"), "here", "{session}");
    }
    for session in ["read-only", "standby"] {
        let url = server.url_with(&format!("target_session_attrs={session}"));
        let error = block_on(refused_at_once(&url));
        assert_eq!(error.cause(), Cause::WrongRole, "{error:?}");
    }
}

#[test]
fn a_unix_socket_is_reached_by_its_folder() {
    let server = postgres();
    let folder = server.socket_folder().display().to_string();
    let (user, password, database) = (server.user(), server.password(), server.database());
    let login = format!("postgres://{user}:{password}@");
    let encoded = folder.replace('/', "%2F");
    let port = server.port();
    for url in [
        format!("{login}{encoded}:{port}/{database}"),
        format!("{login}/{database}?host={folder}&port={port}"),
    ] {
        assert_eq!(asked(&url, "SELECT inet_server_addr() IS NULL || ''"), "true", "{url}");
    }
    let driver = Postgres::new(folder).port(port).user(user).password(password).database(database);
    block_on(async {
        let pool = Pool::builder(driver).build().await.unwrap();
        pool.query("SELECT 1", &[]).await.unwrap();
    });
}

#[test]
fn an_operator_sees_who_is_connected() {
    let server = postgres();
    let sql = "SELECT current_setting('application_name')";
    assert_eq!(asked(&server.url_with("application_name=shop"), sql), "shop");
    assert!(asked(&server.url(), sql).starts_with("postgres"), "the name of this program");
}

#[test]
fn settings_of_the_clients_own_configuration_are_kept() {
    let server = postgres();
    let mut config = millpond::drivers::postgres::tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.port()).dbname(server.database());
    config.user(server.user()).password(server.password()).application_name("native");
    block_on(async {
        let pool = Pool::builder(Postgres::from(config)).build().await.unwrap();
        let rows = pool.query("SELECT current_setting('application_name')", &[]).await.unwrap();
        assert_eq!(rows.scalar::<String>().unwrap(), "native");
    });
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn each_mode_encrypts_and_checks_as_much_as_it_says() {
    let server = postgres();
    let ca = server.ca().display().to_string();
    for (parameters, encrypted) in [
        ("sslmode=disable".to_owned(), "false"),
        (String::new(), "true"),
        ("sslmode=prefer".to_owned(), "true"),
        ("sslmode=require".to_owned(), "true"),
        ("sslmode=require&channel_binding=require".to_owned(), "true"),
        (format!("sslmode=require&sslrootcert={ca}"), "true"),
        (format!("sslmode=verify-ca&sslrootcert={ca}"), "true"),
        (format!("sslmode=verify-full&sslrootcert={ca}"), "true"),
    ] {
        assert_eq!(asked(&server.url_with(&parameters), ENCRYPTED), encrypted, "{parameters}");
    }
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_certificate_that_proves_nothing_is_refused_at_once() {
    let server = postgres();
    let elsewhere = millpond_harness::Server::postgres().with_certificate_for_elsewhere().start();
    let (ca, other) = (server.ca().display().to_string(), server.other_ca().display().to_string());
    let theirs = elsewhere.ca().display().to_string();
    let stranger = "of no known authority; sslrootcert names";
    for (url, said) in [
        (server.url_with(&format!("sslmode=require&sslrootcert={other}")), stranger),
        (server.url_with(&format!("sslmode=verify-ca&sslrootcert={other}")), stranger),
        (server.url_with(&format!("sslmode=verify-full&sslrootcert={other}")), stranger),
        (elsewhere.url_with(&format!("sslmode=verify-full&sslrootcert={theirs}")), "not valid for"),
        (server.url_with("sslmode=verify-full&sslrootcert=/no/such/file.pem"), "sslrootcert"),
    ] {
        let error = block_on(refused_at_once(&url));
        // The system's library has its own words.
        if cfg!(feature = "rustls") {
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(error.is_permanent(), "{url}: {error:?}");
        assert_eq!(error.cause(), Cause::Config, "{url}: {error:?}");
    }
    let url = elsewhere.url_with(&format!("sslmode=verify-ca&sslrootcert={theirs}"));
    assert_eq!(asked(&url, ENCRYPTED), "true", "{ca}");
}

#[cfg(any(feature = "rustls", feature = "native-tls"))]
#[test]
fn a_server_without_tls_is_refused_or_used_as_the_mode_says() {
    let server = millpond_harness::Server::postgres().without_tls().start();
    assert_eq!(asked(&server.url_with("sslmode=prefer"), ENCRYPTED), "false");
    let error = block_on(refused_at_once(&server.url_with("sslmode=require")));
    assert!(error.to_string().contains("the server does not offer it"), "{error}");
    assert!(error.is_permanent(), "{error:?}");
}

/// As `localhost` is, where the server listens on one of its two addresses.
#[test]
fn a_name_with_two_addresses_fails_as_the_one_that_answered() {
    let (server, closed) = (postgres(), closed_port());
    let (user, database) = (server.user(), server.database());
    let url = format!("postgres://{user}:wrong@somewhere/{database}");
    let driver = Postgres::from_url(&url).unwrap();
    block_on(async {
        let runtime: Arc<dyn Runtime> = Odd::naming(&[closed.address(), server.address()]);
        let error = connected(&driver, &runtime).await.unwrap_err();
        assert!(error.is_permanent(), "{error:?}");
        assert!(error.to_string().starts_with("somewhere:5432: password auth"), "{error}");
    });
}

#[test]
fn on_a_runtime_that_has_ended_a_connection_is_lost_and_not_waited_for() {
    let server = postgres();
    let driver = Postgres::from_url(&server.url()).unwrap();
    block_on(async {
        let idle = Odd::idle();
        let runtime: Arc<dyn Runtime> = idle.clone();
        let mut conn = connected(&driver, &runtime).await.unwrap();
        drop(idle.take());
        let late = super::sleep(Duration::from_secs(5)).boxed();
        match select(driver.ping(&mut conn).boxed(), late).await {
            Either::Left((answer, _)) => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Lost),
            Either::Right(_) => panic!("waits for ever"),
        }
        driver.close(conn).await;
    });
}

/// Its name was waited for until the time of all hosts was over.
#[test]
fn a_resolver_that_is_silent_leaves_the_other_hosts_their_share_of_the_time() {
    let server = postgres();
    let url = server.url();
    let (login, host) = url.rsplit_once('@').expect("a login");
    let driver = Postgres::from_url(&format!("{login}@unheard,{host}")).unwrap();
    block_on(async {
        let runtime: Arc<dyn Runtime> = Odd::silent_on("unheard");
        let deadline = runtime.now() + Duration::from_secs(4);
        let cx = ConnectContext::new(&runtime, deadline);
        let late = super::sleep(super::LONG).boxed();
        match select(driver.connect(&cx).boxed(), late).await {
            Either::Left((conn, _)) => driver.ping(&mut conn.unwrap()).await.unwrap(),
            Either::Right(_) => panic!("waits for ever"),
        }
        let alone = Postgres::from_url(&format!("{login}@unheard/x")).unwrap();
        let cx = ConnectContext::new(&runtime, runtime.now() + Duration::from_millis(20));
        let error = alone.connect(&cx).await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert!(error.to_string().starts_with("unheard:5432: the name is not found"), "{error}");
    });
}
