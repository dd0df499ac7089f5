//! What only a real PostgreSQL can show, on whichever real runtime is enabled:
//! how connecting fails, what errors mean, what native use leaves behind, and
//! which values come back.
#![cfg(all(
    unix,
    feature = "postgres",
    any(feature = "tokio", feature = "async-std", feature = "smol")
))]

#[path = "postgres/batches.rs"]
mod batches;
#[path = "support/begun.rs"]
mod begun;
#[path = "postgres/clusters.rs"]
mod clusters;
#[path = "postgres/conflicts.rs"]
mod conflicts;
#[path = "postgres/connecting.rs"]
mod connecting;
#[path = "postgres/dropped.rs"]
mod dropped;
#[path = "postgres/endings.rs"]
mod endings;
#[path = "postgres/errors.rs"]
mod errors;
#[path = "postgres/health.rs"]
mod health;
#[path = "postgres/native.rs"]
mod native;
#[path = "postgres/odd.rs"]
mod odd;
#[path = "support/outage.rs"]
mod outage;
#[path = "postgres/outages.rs"]
mod outages;
#[path = "postgres/outcomes.rs"]
mod outcomes;
#[path = "support/pair.rs"]
mod pair;
#[path = "postgres/passwords.rs"]
mod passwords;
#[path = "postgres/poolers.rs"]
mod poolers;
#[path = "postgres/positions.rs"]
mod positions;
#[path = "support/several.rs"]
mod several;
#[path = "postgres/standby.rs"]
mod standby;
#[path = "support/storm.rs"]
mod storm;
#[path = "support/transfers.rs"]
mod transfers;
#[path = "postgres/values.rs"]
mod values;
#[path = "support/violations.rs"]
mod violations;
#[path = "support/watch.rs"]
mod watch;

use std::time::Duration;

use millpond::drivers::postgres::Postgres;
use millpond::runtime::block_on;
use millpond::{Error, Pool};
use millpond_harness::postgres;

/// Longer than anything takes that does not hang.
const LONG: Duration = Duration::from_secs(20);

/// A pool of so many connections on the shared server.
async fn pool(max_open: usize) -> Pool<Postgres> {
    pool_at(&postgres().url(), max_open).await
}

async fn pool_at(url: &str, max_open: usize) -> Pool<Postgres> {
    let driver = Postgres::from_url(url).expect("a good URL");
    Pool::builder(driver).max_open_conns(max_open).build().await.expect("a pool")
}

/// Why a pool cannot be built on this URL, given this long.
async fn refused(url: &str, limit: Duration) -> Error {
    let driver = Postgres::from_url(url).expect("a good URL");
    let built = Pool::builder(driver).connect_timeout(limit).build().await;
    let error = built.expect_err(url);
    assert!(!format!("{error:?}").contains(postgres().password()), "{error:?}");
    error
}

/// The same, long before its time is over.
async fn refused_at_once(url: &str) -> Error {
    let runtime = millpond::runtime::current().expect("inside block_on");
    let start = runtime.now();
    let error = refused(url, LONG).await;
    assert!(runtime.now() - start < LONG / 2, "{error}");
    error
}

/// A sleep of the runtime.
async fn sleep(time: Duration) {
    let runtime = millpond::runtime::current().expect("inside block_on");
    runtime.sleep_until(runtime.now() + time).await;
}

/// Asks until it is so.
async fn until(mut so: impl FnMut() -> bool) {
    let mut pause = Duration::from_millis(1);
    while !so() {
        assert!(pause < Duration::from_secs(10), "it never came to be");
        sleep(pause).await;
        pause *= 2;
    }
}

#[test]
fn a_commit_of_a_failed_transaction_is_an_error() {
    block_on(async {
        let pool = pool(1).await;
        let mut transaction = pool.begin().await.unwrap();
        transaction.query("SELECT 1/0", &[]).await.unwrap_err();
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.outcome(), millpond::Outcome::RolledBack, "{error:?}");
    });
}

#[test]
fn a_commit_that_is_refused_has_undone_everything() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE TABLE late (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)").await.unwrap();
        let mut transaction = pool.begin().await.unwrap();
        transaction.query("INSERT INTO late VALUES (1), (1)", &[]).await.unwrap();
        let error = transaction.commit().await.unwrap_err();
        assert_eq!(error.outcome(), millpond::Outcome::RolledBack, "{error:?}");
        assert_eq!(error.fate(), millpond::Fate::Reusable);
        pool.batch("DROP TABLE late").await.unwrap();
    });
}

#[test]
fn only_changes_tell_how_many_rows_they_affected() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        for (sql, affected) in [
            ("CREATE TEMPORARY TABLE changed (n int)", None),
            ("INSERT INTO changed SELECT generate_series(1, 3)", Some(3)),
            ("WITH gone AS (SELECT 1) DELETE FROM changed WHERE n = 1", Some(1)),
            ("UPDATE changed SET n = 0 WHERE n > 9 RETURNING n", Some(0)),
            ("SELECT * FROM changed", None),
            ("SET work_mem = '4MB'", None),
        ] {
            assert_eq!(conn.query(sql, &[]).await.unwrap().affected(), affected, "{sql}");
        }
    });
}

#[test]
fn the_status_tells_role_and_place() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let driver = pool.driver();
        for _ in 0..2 {
            let status = millpond::Driver::status(driver, &mut conn).await.unwrap();
            assert_eq!((status.role, status.writable), (millpond::Role::Primary, Some(true)));
            assert!(status.position.is_some_and(|position| position > 0));
            assert_eq!((status.lag, status.lag_bytes), (None, None));
            // That it was asked to refuse writes says nothing of the node.
            millpond::Driver::set_read_only(driver, &mut conn, true).await.unwrap();
        }
        assert_eq!(conn.server().system, "postgresql");
        assert!(conn.server().version.starts_with(|first: char| first.is_ascii_digit()));
    });
}

#[test]
fn a_read_only_session_stays_so_when_it_is_reset() {
    use millpond::{Driver, Reset};

    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        pool.driver().set_read_only(&mut conn, true).await.unwrap();
        for to in [Reset::Boundary, Reset::Session] {
            pool.driver().begin(&mut conn, &Default::default()).await.unwrap();
            pool.driver().reset(&mut conn, to).await.unwrap();
            let error = conn.query("CREATE TABLE never (n int)", &[]).await.unwrap_err();
            assert_eq!(error.cause(), millpond::Cause::WrongRole, "{error:?}");
        }
    });
}

#[test]
fn a_session_that_is_reset_keeps_its_statements_and_nothing_else() {
    block_on(async {
        let driver = Postgres::from_url(&postgres().url()).expect("a good URL");
        let builder = Pool::builder(driver).max_open_conns(1).reset(millpond::Reset::Session);
        let pool = builder.build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.batch(
            "CREATE TEMPORARY TABLE scratch (n int); SET work_mem = '5MB'; LISTEN there; \
             SELECT pg_advisory_lock(7)",
        )
        .await
        .unwrap();
        assert_eq!(conn.query("SELECT 41 + $1::int", &[1.into()]).await.unwrap().len(), 1);
        drop(conn);
        let mut conn = pool.acquire().await.unwrap();
        for (sql, left) in [
            ("SELECT count(*) FROM pg_class WHERE relname = 'scratch'", "0"),
            ("SELECT current_setting('work_mem')", "4MB"),
            ("SELECT count(*) FROM pg_listening_channels()", "0"),
            ("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0"),
            (
                "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT 41 +%'",
                "1",
            ),
        ] {
            let sql = format!("SELECT ({sql})::text");
            assert_eq!(conn.query(&sql, &[]).await.unwrap().scalar::<String>().unwrap(), left);
        }
    });
}
