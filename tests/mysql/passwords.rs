//! Passwords that change while a pool lives.

use std::sync::{Arc, Mutex};

use futures_util::join;
use millpond::drivers::mysql::mysql_async::Conn;
use millpond::runtime::current;
use millpond::{Cause, ConnectContext, Credentials, Driver, PooledConnection, Reset, Session};

use super::*;

const USER: &str = "rotating";
const LONG: Duration = Duration::from_secs(60);

fn given(password: &str) -> Credentials {
    Credentials::new().user(USER).password(password)
}

/// Stops a statement of a minute, and says what came of the attempt. Where it
/// was in vain, the server's administrator ends it.
async fn stopped(
    server: &Server,
    pool: &Pool<Mysql>,
    conn: &mut PooledConnection<Mysql>,
) -> millpond::Result<()> {
    let here = current().expect("inside block_on");
    let stop = pool.driver().cancel(conn).expect("it can");
    let kill = format!("KILL QUERY {}", Conn::id(conn));
    let start = here.now();
    let stopping = async {
        while server.running(USER) == 0 {
            here.sleep_until(here.now() + Duration::from_millis(10)).await;
        }
        let stopped = stop.run().await;
        if stopped.is_err() {
            server.sql(&kill);
        }
        stopped
    };
    let (_, stopped) = join!(conn.query("SELECT SLEEP(60)", &[]), stopping);
    assert!(here.now() - start < LONG / 2, "it has ended by itself");
    stopped
}

#[test]
fn a_password_that_is_changed_needs_no_restart_and_ends_no_session() {
    for server in both() {
        server.sql(&format!("CREATE USER {USER} IDENTIFIED BY 'first'"));
        let newest = Arc::new(Mutex::new(given("first")));
        let provider = {
            let newest = Arc::clone(&newest);
            move || {
                let answer = newest.lock().unwrap().clone();
                async move { Ok(answer) }
            }
        };
        block_on(async {
            // Without a database a session is cleared by a new login.
            let driver = Mysql::host("127.0.0.1").port(server.port());
            let builder = Pool::builder(driver).max_open_conns(2).credentials(provider);
            let pool = builder.build().await.unwrap();
            let mut old = pool.acquire().await.unwrap();
            stopped(server, &pool, &mut old).await.unwrap();

            server.sql(&format!("ALTER USER {USER} IDENTIFIED BY 'second'"));
            let here = current().expect("inside block_on");
            let first = given("first");
            let context = ConnectContext::new(&here, here.now() + LONG).with_credentials(&first);
            let error = pool.driver().connect(&context).await.expect_err("it is good no more");
            assert_eq!(error.cause(), Cause::Auth, "{error:?}");
            let error = stopped(server, &pool, &mut old).await.expect_err("nor for this");
            assert_eq!(error.cause(), Cause::Auth, "{error:?}");
            assert!(!format!("{error} {error:?}").contains("first"), "{error:?}");

            *newest.lock().unwrap() = given("second");
            let mut new = pool.acquire().await.unwrap();
            for conn in [&mut old, &mut new] {
                let rows = conn.query("SELECT SUBSTRING_INDEX(USER(), '@', 1)", &[]).await.unwrap();
                assert_eq!(rows.scalar::<String>().unwrap(), USER);
                assert_eq!(pool.driver().session(conn), Session::Clean);
            }
            stopped(server, &pool, &mut old).await.unwrap();
            pool.driver().reset(&mut old, Reset::Session).await.unwrap();
            assert_eq!(pool.driver().session(&old), Session::Clean);
        });
    }
}
