//! What the server's errors mean, each provoked.

use std::time::Duration;

use futures_util::future::join;
use millpond::runtime::block_on;
use millpond::{Cause, Code, Driver, Error, ErrorKind, Fate, Outcome, Reset, Session, params};
use millpond_harness::{Cut, Fault, Proxy, postgres};

use super::{pool, pool_at, until};

pub(super) fn state(error: &Error) -> String {
    match error.code() {
        Some(code @ Code::SqlState(_)) => code.to_string(),
        other => panic!("no code but {other:?}: {error:?}"),
    }
}

/// Statements on a connection of their own, the last of which fails.
async fn fails(statements: &[&str]) -> (Error, Session) {
    let pool = pool(1).await;
    let mut conn = pool.acquire().await.unwrap();
    let [before @ .., last] = statements else { panic!("no statement") };
    for sql in before {
        conn.query(sql, &[]).await.unwrap();
    }
    let error = conn.query(last, &[]).await.expect_err(last);
    let session = pool.driver().session(&conn);
    (error, session)
}

#[test]
fn a_refused_statement_tells_outcome_fate_and_cause() {
    use Fate::{NeedsRollback, Reusable};
    use Outcome::{Rejected, RolledBack};
    use Session::{Clean, FailedTransaction};

    let unique = "CREATE TEMPORARY TABLE u (n int UNIQUE); INSERT INTO u VALUES (1)";
    let (create, insert) = unique.split_once("; ").expect("two statements");
    for (statements, code, outcome, fate, cause, session) in [
        (&[create, insert, insert][..], "23505", Rejected, Reusable, Cause::Caller, Clean),
        (
            &["BEGIN", "SELECT 1/0"],
            "22012",
            Rejected,
            NeedsRollback,
            Cause::Caller,
            FailedTransaction,
        ),
        (
            &["BEGIN READ ONLY", "CREATE TABLE never (n int)"],
            "25006",
            Rejected,
            NeedsRollback,
            Cause::WrongRole,
            FailedTransaction,
        ),
        (
            &["SET statement_timeout = '20ms'", "SELECT pg_sleep(60)"],
            "57014",
            Rejected,
            Reusable,
            Cause::Timeout,
            Clean,
        ),
        (
            &["DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53200'; END $$"],
            "53200",
            Rejected,
            Reusable,
            Cause::Overload,
            Clean,
        ),
        (
            &["DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'XX001'; END $$"],
            "XX001",
            RolledBack,
            Reusable,
            Cause::Corrupt,
            Clean,
        ),
        (&["SELEC 1"], "42601", Rejected, Reusable, Cause::Caller, Clean),
    ] {
        let (error, found) = block_on(fails(statements));
        assert_eq!(state(&error), code, "{error:?}");
        let said = (error.outcome(), error.fate(), error.cause(), found);
        assert_eq!(said, (outcome, fate, cause, session), "{statements:?}: {error:?}");
    }
}

#[test]
fn a_failed_transaction_refuses_what_follows() {
    block_on(async {
        let pool = pool(1).await;
        let mut transaction = pool.begin().await.unwrap();
        transaction.query("SELECT 1/0", &[]).await.unwrap_err();
        let error = transaction.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(state(&error), "25P02");
        assert_eq!((error.outcome(), error.fate()), (Outcome::Rejected, Fate::NeedsRollback));
        transaction.rollback().await.unwrap();
    });
}

#[test]
fn the_detail_of_an_error_is_in_its_source() {
    use millpond::drivers::postgres::tokio_postgres::error::DbError;

    let (error, _) = block_on(fails(&[
        "CREATE TEMPORARY TABLE u (n int CONSTRAINT only_one UNIQUE)",
        "INSERT INTO u VALUES (1), (1)",
    ]));
    let source = std::error::Error::source(&error).expect("a source");
    let server = source.downcast_ref::<DbError>().expect("the server's own");
    assert_eq!(server.constraint(), Some("only_one"));
    assert!(server.detail().is_some_and(|detail| detail.contains("(n)=(1)")));
}

#[test]
fn of_two_that_wait_for_each_other_one_is_rolled_back() {
    block_on(async {
        let pool = pool(2).await;
        pool.batch("CREATE TABLE deadlock (n int); INSERT INTO deadlock VALUES (1), (2)")
            .await
            .unwrap();
        let (mut one, mut two) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
        let sql = "UPDATE deadlock SET n = n WHERE n = $1";
        one.query(sql, &params![1]).await.unwrap();
        two.query(sql, &params![2]).await.unwrap();
        let (p2, p1) = (params![2], params![1]);
        let (first, second) = join(
            async {
                let done = one.query(sql, &p2).await;
                (done.err(), one.rollback().await).0
            },
            async {
                let done = two.query(sql, &p1).await;
                (done.err(), two.rollback().await).0
            },
        )
        .await;
        let error = first.or(second).expect("one gives way");
        assert_eq!(state(&error), "40P01");
        assert_eq!((error.outcome(), error.cause()), (Outcome::RolledBack, Cause::Conflict));
        pool.batch("DROP TABLE deadlock").await.unwrap();
    });
}

#[test]
fn of_two_that_read_what_the_other_writes_one_is_rolled_back() {
    use millpond::{IsolationLevel, TransactionOptions};

    block_on(async {
        let pool = pool(2).await;
        pool.batch("CREATE TABLE skew (n int); INSERT INTO skew VALUES (1), (2)").await.unwrap();
        let serializable = TransactionOptions::new().isolation(IsolationLevel::Serializable);
        let mut one = pool.begin_with(serializable.clone()).await.unwrap();
        let mut two = pool.begin_with(serializable).await.unwrap();
        for transaction in [&mut one, &mut two] {
            transaction.query("SELECT sum(n) FROM skew", &[]).await.unwrap();
            transaction.query("INSERT INTO skew VALUES (3)", &[]).await.unwrap();
        }
        one.commit().await.unwrap();
        let error = two.commit().await.unwrap_err();
        assert_eq!(state(&error), "40001");
        assert_eq!((error.outcome(), error.cause()), (Outcome::RolledBack, Cause::Conflict));
        pool.batch("DROP TABLE skew").await.unwrap();
    });
}

#[test]
fn a_lock_that_is_taken_is_told_from_a_mistake() {
    block_on(async {
        let pool = pool(2).await;
        pool.batch("CREATE TABLE taken (n int)").await.unwrap();
        let mut holder = pool.begin().await.unwrap();
        holder.query("LOCK TABLE taken", &[]).await.unwrap();
        let error = pool.query("LOCK TABLE taken NOWAIT", &[]).await.unwrap_err();
        // Outside a transaction it is refused for another reason.
        assert_eq!(state(&error), "25P01");
        let mut other = pool.begin().await.unwrap();
        let error = other.query("LOCK TABLE taken NOWAIT", &[]).await.unwrap_err();
        assert_eq!((&*state(&error), error.cause()), ("55P03", Cause::LockTimeout));
        other.rollback().await.unwrap();
        holder.rollback().await.unwrap();
        pool.batch("DROP TABLE taken").await.unwrap();
    });
}

/// A connection dies while nobody uses it, and the reason reaches whoever does
/// next.
#[test]
fn a_session_that_the_server_ended_says_why() {
    for (last, code, cause) in [
        ("SET idle_session_timeout = '10ms'", "57P05", Cause::Timeout),
        ("BEGIN; SET idle_in_transaction_session_timeout = '10ms'", "25P03", Cause::Timeout),
    ] {
        block_on(async {
            let pool = pool(1).await;
            let mut conn = pool.acquire().await.unwrap();
            conn.batch(last).await.unwrap();
            until(|| pool.driver().session(&conn) == Session::Closed).await;
            let error = conn.query("SELECT 1", &[]).await.unwrap_err();
            assert_eq!((&*state(&error), error.cause()), (code, cause), "{error:?}");
            assert_eq!((error.outcome(), error.fate()), (Outcome::NotSent, Fate::Discard));
        });
    }
}

#[test]
fn a_session_that_was_killed_says_so_whether_idle_or_not() {
    let server = postgres();
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let pid = conn.query("SELECT pg_backend_pid()", &[]).await.unwrap();
        let kill = format!("SELECT pg_terminate_backend({})", pid.scalar::<i64>().unwrap());
        server.sql(&kill);
        until(|| pool.driver().session(&conn) == Session::Closed).await;
        let error = conn.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!((&*state(&error), error.cause()), ("57P01", Cause::Shutdown), "{error:?}");
        assert_eq!(error.outcome(), Outcome::NotSent);
        drop(conn);

        let mut conn = pool.acquire().await.unwrap();
        let suicide = "SELECT pg_terminate_backend(pg_backend_pid())";
        let error = conn.query(suicide, &[]).await.unwrap_err();
        assert_eq!((&*state(&error), error.outcome()), ("57P01", Outcome::Unknown), "{error:?}");
        assert_eq!(error.fate(), Fate::Discard);
        drop(conn);
        pool.query("SELECT 1", &[]).await.unwrap();
    });
}

/// The prepared statement no longer fits, or was thrown away past the driver.
#[test]
fn a_stale_statement_is_prepared_again_outside_a_transaction_only() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("CREATE TEMPORARY TABLE stale (n int); INSERT INTO stale VALUES (1)")
            .await
            .unwrap();
        let sql = "SELECT * FROM stale";
        assert_eq!(conn.query(sql, &[]).await.unwrap().columns().len(), 1);
        conn.batch("ALTER TABLE stale ADD m int").await.unwrap();
        assert_eq!(conn.query(sql, &[]).await.unwrap().columns().len(), 2);
        conn.batch("DEALLOCATE ALL").await.unwrap();
        assert_eq!(conn.query(sql, &[]).await.unwrap().columns().len(), 2);

        conn.batch("ALTER TABLE stale ADD k int").await.unwrap();
        conn.batch("BEGIN").await.unwrap();
        let error = conn.query(sql, &[]).await.unwrap_err();
        assert_eq!((&*state(&error), error.cause()), ("0A000", Cause::StaleStatement));
        assert_eq!(error.fate(), Fate::NeedsRollback);
        pool.driver().reset(&mut conn, Reset::Boundary).await.unwrap();
        assert_eq!(conn.query(sql, &[]).await.unwrap().columns().len(), 3);

        conn.batch("BEGIN; DEALLOCATE ALL").await.unwrap();
        let error = conn.query(sql, &[]).await.unwrap_err();
        assert_eq!((&*state(&error), error.cause()), ("26000", Cause::StaleStatement));
        assert_eq!(error.fate(), Fate::NeedsRollback);
        pool.driver().reset(&mut conn, Reset::Boundary).await.unwrap();
        assert_eq!(conn.query(sql, &[]).await.unwrap().columns().len(), 3);
    });
}

/// The transaction may have been committed, and here it was.
#[test]
fn a_commit_whose_answer_is_lost_is_unknown() {
    let server = postgres();
    block_on(async {
        let proxy = Proxy::to(server.address());
        let url = format!("{}?sslmode=disable", server.url_at(proxy.address()));
        let pool = pool_at(&url, 1).await;
        pool.batch("CREATE TABLE lost (n int)").await.unwrap();
        for (fault, rows) in [
            (Fault::CutAnswer(b"COMMIT".to_vec(), Cut::Reset), 1),
            (Fault::CutBefore(b"COMMIT".to_vec(), Cut::Close), 1),
        ] {
            let mut transaction = pool.begin().await.unwrap();
            transaction.query("INSERT INTO lost VALUES (1)", &[]).await.unwrap();
            proxy.to_server(fault);
            let error = transaction.commit().await.unwrap_err();
            assert_eq!(
                (error.kind(), error.outcome()),
                (ErrorKind::CommitUnknown, Outcome::Unknown)
            );
            proxy.to_server(Fault::Pass);
            let count = pool.query("SELECT count(*) FROM lost", &[]).await.unwrap();
            assert_eq!(count.scalar::<i64>().unwrap(), rows);
        }
        pool.batch("DROP TABLE lost").await.unwrap();
    });
}

#[test]
fn a_server_that_stopped_says_so_and_is_used_again_when_it_is_back() {
    let server = millpond_harness::Server::postgres().start();
    block_on(async {
        let pool = pool_at(&server.url(), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        server.stop();
        until(|| pool.driver().session(&conn) == Session::Closed).await;
        let error = conn.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!((&*state(&error), error.cause()), ("57P01", Cause::Shutdown), "{error:?}");
        drop(conn);
        server.start_again();
        let mut conn = pool.acquire().timeout(Duration::from_secs(10)).await.unwrap();
        conn.query("SELECT 1", &[]).await.unwrap();
    });
}

#[test]
fn a_broken_rule_has_the_same_name_everywhere() {
    block_on(async {
        let pool = pool(1).await;
        crate::violations::a_broken_rule_has_the_same_name_everywhere(&pool).await;
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("CREATE TABLE stay (room int4range, EXCLUDE USING gist (room WITH &&))")
            .await
            .unwrap();
        conn.query("INSERT INTO stay VALUES ('[1,3)')", &[]).await.unwrap();
        let error = conn.query("INSERT INTO stay VALUES ('[2,4)')", &[]).await.unwrap_err();
        assert_eq!(error.violation(), Some(millpond::Violation::Exclusion), "{error}");
    });
}
