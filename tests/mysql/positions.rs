//! What a server says of its place in a cluster, to whom, and how one's own
//! writes are found again on another node.

use millpond::{Driver, ErrorKind, NodeStatus, Position, Role, Session};

use super::*;

/// Longer than anything takes that does not hang.
const LONG: Duration = Duration::from_secs(20);

/// MariaDB that logs, and MySQL that does and names what it logs.
fn both_logging() -> Vec<Server> {
    let mut servers = vec![Server::mariadb().setting("log-bin", "log").start()];
    servers.extend(millpond_harness::Server::mysql().map(|server| {
        server
            .setting("log-bin", "log")
            .setting("gtid-mode", "ON")
            .setting("enforce-gtid-consistency", "ON")
            .start()
    }));
    servers
}

/// The URL of one who may log in, and nothing else.
fn of_an_ordinary_user(server: &Server) -> String {
    server.sql("CREATE USER ordinary IDENTIFIED BY 'ordinary'");
    server.sql(&format!("GRANT ALL ON {}.* TO ordinary", server.database()));
    let login = format!("{}:{}@", server.user(), server.password());
    server.url().replace(&login, "ordinary:ordinary@")
}

async fn status(pool: &Pool<Mysql>) -> NodeStatus {
    let mut conn = pool.acquire().await.unwrap();
    pool.driver().status(&mut conn).await.unwrap()
}

#[test]
fn an_ordinary_user_learns_how_far_the_log_goes() {
    for server in both_logging() {
        let url = of_an_ordinary_user(&server);
        block_on(async {
            let pool = pool_at(&url, 1).await;
            pool.batch("CREATE TABLE written (n INT) ENGINE = InnoDB").await.unwrap();
            let before = status(&pool).await;
            assert_eq!((before.writable, before.role), (Some(true), Role::Unknown), "{before:?}");
            assert_eq!((before.timeline, &before.cluster), (None, &None));
            for _ in 0..3 {
                pool.query("INSERT INTO written VALUES (1)", &[]).await.unwrap();
            }
            let after = status(&pool).await;
            let (before, after) = (before.position.unwrap(), after.position.unwrap());
            assert_eq!(after, before + 3, "each transaction counts");
        });
    }
}

#[test]
fn what_a_session_has_committed_is_before_its_position() {
    for server in both_logging() {
        block_on(async {
            let pool = pool_at(&of_an_ordinary_user(&server), 2).await;
            let driver = pool.driver();
            let (mut writer, mut reader) =
                (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            writer.batch("CREATE TABLE written (n INT) ENGINE = InnoDB").await.unwrap();
            let before = driver.position(&mut writer).await.unwrap();
            writer.query("INSERT INTO written VALUES (1)", &[]).await.unwrap();
            let after = driver.position(&mut writer).await.unwrap();
            assert_ne!(before, after);
            for position in [before, after] {
                for limit in [Duration::ZERO, Duration::from_secs(5), Duration::MAX] {
                    let reached = driver.reached(&mut reader, &position, limit).await.unwrap();
                    assert!(reached, "{position} within {limit:?}");
                }
            }
            // Who has written nothing has read what is there.
            let position = driver.position(&mut reader).await.unwrap();
            assert!(driver.reached(&mut writer, &position, Duration::ZERO).await.unwrap());
            assert_eq!(driver.session(&reader), Session::Clean);
        });
    }
}

/// A cluster asks whichever session is free: MariaDB tells each session the place
/// of its own last transaction, and others have come after that.
#[test]
fn a_position_is_after_what_any_session_has_committed() {
    for server in both_logging() {
        block_on(async {
            let pool = pool_at(&server.url(), 2).await;
            let driver = pool.driver();
            let (mut one, mut other) =
                (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            one.batch("CREATE TABLE written (n INT) ENGINE = InnoDB").await.unwrap();
            let before = driver.position(&mut one).await.unwrap();
            other.query("INSERT INTO written VALUES (1)", &[]).await.unwrap();
            let after = driver.position(&mut one).await.unwrap();
            assert_ne!(before, after);
            assert_eq!(after, driver.position(&mut other).await.unwrap());
        });
    }
}

#[test]
fn what_is_not_there_is_waited_for_no_longer_than_the_limit() {
    for server in both_logging() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            let (driver, runtime) =
                (pool.driver(), millpond::runtime::current().expect("inside block_on"));
            // A primary of MariaDB is not waited for: nothing comes to it.
            conn.query("SET GLOBAL read_only = 1", &[]).await.unwrap();
            let never = match conn.server().system.as_ref() {
                "mariadb" => Position::new("0-77-999999"),
                _ => Position::new("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5"),
            };
            assert!(!driver.reached(&mut conn, &never, Duration::ZERO).await.unwrap());
            for limit in [Duration::from_micros(1), Duration::from_millis(150)] {
                let start = runtime.now();
                assert!(!driver.reached(&mut conn, &never, limit).await.unwrap());
                let waited = runtime.now() - start;
                assert!(waited >= limit, "{waited:?}");
                assert!(waited < LONG, "{waited:?}");
            }
            assert_eq!(driver.session(&conn), Session::Clean);
        });
    }
}

#[test]
fn a_position_that_a_primary_has_lost_is_not_waited_for() {
    let server = Server::mariadb().setting("log-bin", "log").start();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        let lost = Position::new("0-77-999999");
        assert!(!pool.driver().reached(&mut conn, &lost, Duration::MAX).await.unwrap());
    });
}

#[test]
fn what_is_no_position_of_this_server_is_a_wrong_setting() {
    for server in both_logging() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            let mut conn = pool.acquire().await.unwrap();
            for text in ["0/16B3748", "'", "0-1"] {
                let position = Position::new(text);
                let reached = pool.driver().reached(&mut conn, &position, Duration::ZERO).await;
                assert_eq!(reached.unwrap_err().kind(), ErrorKind::Config, "{text}");
            }
            assert_eq!(pool.driver().session(&conn), Session::Clean);
        });
    }
}

#[test]
fn a_server_that_does_not_log_has_no_positions_and_says_why() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            assert_eq!(status(&pool).await.position, None);
            let mut conn = pool.acquire().await.unwrap();
            let error = pool.driver().position(&mut conn).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("log_bin"), "{error}");
        });
    }
}

#[test]
fn a_server_that_logs_without_names_has_no_positions_and_says_why() {
    let Some(server) = millpond_harness::Server::mysql() else { return };
    let server = server.setting("log-bin", "log").setting("gtid-mode", "OFF").start();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        assert_eq!(status(&pool).await.position, None);
        let mut conn = pool.acquire().await.unwrap();
        let position = Position::new("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5");
        let told = pool.driver().position(&mut conn).await.map(drop);
        let waited = pool.driver().reached(&mut conn, &position, LONG).await.map(drop);
        for error in [told.unwrap_err(), waited.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("gtid_mode"), "{error}");
        }
    });
}

/// A primary and who follows it by names of transactions, both of which take
/// writes.
fn two() -> (Server, Server) {
    let of = |id| Server::mariadb().setting("log-bin", "log").setting("server-id", id);
    let (primary, replica) = (of(1).start(), of(2).start());
    primary.sql(
        "CREATE USER follower IDENTIFIED BY 'follower'; \
         GRANT REPLICATION SLAVE ON *.* TO follower; RESET MASTER",
    );
    replica.sql(&format!(
        "RESET MASTER; SET GLOBAL gtid_slave_pos = ''; CHANGE MASTER TO \
         MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'follower', \
         MASTER_PASSWORD = 'follower', MASTER_USE_GTID = slave_pos; START SLAVE",
        primary.port()
    ));
    (primary, replica)
}

/// Asks until it says so.
async fn becomes(pool: &Pool<Mysql>, role: Role) -> NodeStatus {
    let runtime = millpond::runtime::current().expect("inside block_on");
    let start = runtime.now();
    loop {
        let told = status(pool).await;
        if told.role == role {
            return told;
        }
        assert!(runtime.now() - start < LONG, "{told:?}");
        runtime.sleep_until(runtime.now() + Duration::from_millis(10)).await;
    }
}

#[test]
fn a_replica_that_takes_writes_is_known_to_those_who_may_not_see_the_replication() {
    let (_primary, replica) = two();
    let url = of_an_ordinary_user(&replica);
    block_on(async {
        let pool = pool_at(&url, 1).await;
        let told = becomes(&pool, Role::Replica).await;
        assert_eq!((told.writable, told.lag), (Some(true), None));
    });
}

#[test]
fn a_replica_that_is_stopped_and_takes_writes_is_a_primary() {
    let (primary, replica) = two();
    block_on(async {
        let pool = pool_at(&replica.url(), 1).await;
        // As each node of a ring is, while its channel runs.
        assert_eq!(becomes(&pool, Role::Replica).await.writable, Some(true));
        // Its primary is away, and may come back.
        primary.stop();
        for _ in 0..3 {
            assert_eq!(status(&pool).await.role, Role::Replica);
        }
        for (settings, role) in [
            ("STOP SLAVE IO_THREAD; SET GLOBAL read_only = 1", Role::Replica),
            ("SET GLOBAL read_only = 0", Role::Replica),
            ("STOP SLAVE; SET GLOBAL read_only = 1", Role::Replica),
            ("SET GLOBAL read_only = 0", Role::Primary),
            ("START SLAVE", Role::Replica),
        ] {
            replica.sql(settings);
            assert_eq!(status(&pool).await.role, role, "{settings}");
        }
    });
}

#[test]
fn a_channel_that_has_a_name_makes_a_replica_as_well() {
    let (primary, replica) = (
        Server::mariadb().setting("log-bin", "log").setting("server-id", 1).start(),
        Server::mariadb().setting("log-bin", "log").setting("server-id", 2).start(),
    );
    replica.sql(&format!(
        "CHANGE MASTER 'named' TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, \
         MASTER_USER = 'nobody', MASTER_USE_GTID = slave_pos; START SLAVE 'named'",
        primary.port()
    ));
    block_on(async {
        let pool = pool_at(&replica.url(), 1).await;
        let told = status(&pool).await;
        assert_eq!((told.role, told.writable), (Role::Replica, Some(true)));
    });
}

#[test]
fn a_replica_waits_for_what_it_has_not_replayed() {
    let (primary, replica) = two();
    block_on(async {
        let (one, other) = (pool_at(&primary.url(), 1).await, pool_at(&replica.url(), 1).await);
        let (mut writer, mut reader) =
            (one.acquire().await.unwrap(), other.acquire().await.unwrap());
        let mut query = format!("CREATE TABLE {}.written (n INT)", primary.database());
        for number in 0..20 {
            writer.query(&query, &[]).await.unwrap();
            let position = one.driver().position(&mut writer).await.unwrap();
            assert!(other.driver().reached(&mut reader, &position, LONG).await.unwrap());
            let sql = format!("SELECT count(*) FROM {}.written", primary.database());
            let rows = reader.query(&sql, &[]).await.unwrap();
            assert_eq!(rows.scalar::<i64>().unwrap(), number);
            query = format!("INSERT INTO {}.written VALUES (1)", primary.database());
        }
        let told = other.driver().status(&mut reader).await.unwrap();
        let followed = one.driver().status(&mut writer).await.unwrap();
        assert_eq!((told.role, told.position), (Role::Replica, followed.position));

        reader.query("STOP SLAVE SQL_THREAD", &[]).await.unwrap();
        writer.query(&query, &[]).await.unwrap();
        let position = one.driver().position(&mut writer).await.unwrap();
        let driver = other.driver();
        assert!(!driver.reached(&mut reader, &position, Duration::ZERO).await.unwrap());
    });
}
