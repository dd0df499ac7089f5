//! What the server's errors mean, each provoked.

use std::time::Duration;

use futures_util::future::join;
use futures_util::{StreamExt, TryStreamExt};
use millpond::runtime::block_on;
use millpond::{
    Cause, Code, Driver, Error, ErrorKind, Fate, Outcome, Reset, Retry, Session, params,
};
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

/// The client asks for the definitions of types by statements of its own, and does
/// not know when they are thrown away: no new type could be learned ever again.
#[test]
fn after_all_statements_are_thrown_away_a_new_type_is_learned_by_a_new_connection() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch("CREATE TYPE learned AS ENUM ('a'); CREATE TYPE unseen AS ENUM ('b')")
            .await
            .unwrap();
        for discard in ["DISCARD ALL", "DEALLOCATE ALL"] {
            let mut conn = pool.acquire().await.unwrap();
            conn.query("SELECT 'a'::learned", &[]).await.unwrap();
            conn.batch(discard).await.unwrap();
            let error = conn.query("SELECT 'b'::unseen", &[]).await.unwrap_err();
            assert_eq!((&*state(&error), error.cause()), ("26000", Cause::StaleStatement));
            assert_eq!((error.outcome(), error.fate()), (Outcome::Rejected, Fate::Discard));
            drop(conn);
            let rows = pool.query("SELECT 'b'::unseen", &[]).await.unwrap();
            assert_eq!(rows.scalar::<String>().unwrap(), "b");
            pool.acquire().await.unwrap().discard();
        }
        pool.batch("DROP TYPE learned; DROP TYPE unseen").await.unwrap();
    });
}

/// The first was taken for a lost connection, and so was the second.
#[test]
fn a_mistake_in_the_call_of_a_statement_costs_no_connection() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let id = conn.id();
        conn.batch("CREATE TEMPORARY TABLE mistaken (n int)").await.unwrap();

        let forgotten = "UPDATE mistaken SET n = $1";
        let error = conn.query(forgotten, &[]).await.unwrap_err();
        assert_eq!((&*state(&error), error.cause()), ("08P01", Cause::Caller));
        assert_eq!((error.outcome(), error.fate()), (Outcome::Rejected, Fate::Reusable));
        conn.batch("BEGIN").await.unwrap();
        let error = conn.query(forgotten, &[]).await.unwrap_err();
        assert_eq!((error.outcome(), error.fate()), (Outcome::Rejected, Fate::NeedsRollback));
        conn.batch("ROLLBACK").await.unwrap();

        for sql in ["SELECT 'a\0b'", "UPDATE mistaken SET n = 0\0"] {
            let streamed = conn.query_stream(sql, &[]).collect::<Vec<_>>().await;
            for error in [
                conn.query(sql, &[]).await.unwrap_err(),
                conn.batch(sql).await.unwrap_err(),
                streamed.into_iter().next().expect("an item").unwrap_err(),
            ] {
                assert!(error.to_string().contains("zero byte"), "{error}");
                let said = (error.kind(), error.outcome(), error.fate(), error.cause());
                let expected =
                    (ErrorKind::Statement, Outcome::NotSent, Fate::Reusable, Cause::Caller);
                assert_eq!(said, expected, "{error:?}");
            }
        }
        drop(conn);
        assert_eq!(pool.acquire().await.unwrap().id(), id);
    });
}

/// A procedure may commit, and so may a text of several statements: what comes
/// before the failure was done twice.
#[test]
fn what_may_have_committed_a_part_before_it_failed_is_not_repeated() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch(
            "CREATE TABLE halfway (n int); CREATE PROCEDURE halfway_in(code text) \
             LANGUAGE plpgsql AS $$ BEGIN INSERT INTO halfway VALUES (1); COMMIT; \
             RAISE EXCEPTION USING ERRCODE = code; END $$",
        )
        .await
        .unwrap();
        let calls = ["40001", "53200", "26000", "42P05", "42601", "XX000"];
        let fails = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$";
        let begun = "BEGIN; INSERT INTO halfway VALUES (1)";
        let queries = calls.iter().flat_map(|code| {
            [
                format!("CALL halfway_in('{code}')"),
                format!("/* a */ call halfway_in('{code}')"),
                format!("DO $$ BEGIN CALL halfway_in('{code}'); END $$"),
            ]
        });
        let batches = ["COMMIT", "/* a */ commit", "END", "\n-- a\nend work"]
            .map(|commit| format!("{begun}; {commit}; {fails}"));
        let texts = queries.map(|sql| (sql, true)).chain(batches.map(|sql| (sql, false)));
        for (sql, is_one) in texts {
            for way in [Way::Query, Way::Stream, Way::Batch] {
                if !is_one && way != Way::Batch {
                    continue;
                }
                let policy = Retry::new();
                let sql = sql.as_str();
                let work = pool.run(&policy, |conn| match way {
                    Way::Query => Box::pin(async { conn.query(sql, &[]).await.map(drop) }),
                    Way::Stream => Box::pin(async {
                        conn.query_stream(sql, &[]).try_collect::<Vec<_>>().await.map(drop)
                    }),
                    Way::Batch => Box::pin(conn.batch(sql)),
                });
                let error = work.await.expect_err(sql);
                assert_eq!(error.outcome(), Outcome::Unknown, "{sql}, {way:?}: {error:?}");
                assert_eq!(error.fate(), Fate::Reusable, "{sql}, {way:?}: {error:?}");
                let rows = pool.query("DELETE FROM halfway", &[]).await.unwrap();
                assert_eq!(rows.affected(), Some(1), "{sql}, {way:?}");
            }
        }
        // Prepared, and known.
        for code in calls {
            let parameters = params![code];
            let policy = Retry::new();
            let sql = "CALL halfway_in($1)";
            let work = pool.run(&policy, |conn| Box::pin(conn.query(sql, &parameters)));
            assert_eq!(work.await.unwrap_err().outcome(), Outcome::Unknown, "{code}");
            let rows = pool.query("DELETE FROM halfway", &[]).await.unwrap();
            assert_eq!(rows.affected(), Some(1), "{code}");
        }
        pool.batch("DROP PROCEDURE halfway_in; DROP TABLE halfway").await.unwrap();
    });
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Query,
    Stream,
    Batch,
}

#[test]
fn what_certainly_committed_nothing_is_rejected() {
    block_on(async {
        let pool = pool(1).await;
        pool.batch(
            "CREATE PROCEDURE refuses(code text) LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION USING ERRCODE = code; END $$",
        )
        .await
        .unwrap();
        let mut conn = pool.acquire().await.unwrap();
        for sql in ["CALL nowhere()", "CALL refuses(", "DO $$ BEGIN RAISE 'no'; END $$"] {
            let error = conn.query(sql, &[]).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Rejected, "{sql}: {error:?}");
            let error = conn.batch(sql).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Rejected, "{sql}: {error:?}");
        }
        // There it cannot commit.
        conn.batch("BEGIN").await.unwrap();
        let error = conn.query("CALL refuses('53200')", &[]).await.unwrap_err();
        assert_eq!((error.outcome(), error.fate()), (Outcome::Rejected, Fate::NeedsRollback));
        conn.batch("ROLLBACK").await.unwrap();
        // Thrown away past the driver.
        let error = conn.query("CALL refuses($1)", &params!["53200"]).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        conn.batch("DEALLOCATE ALL").await.unwrap();
        let error = conn.query("CALL refuses($1)", &params!["53200"]).await.unwrap_err();
        assert_eq!((&*state(&error), error.outcome()), ("26000", Outcome::Rejected));
        let error = conn.query("CALL refuses($1)", &params!["53200"]).await.unwrap_err();
        assert_eq!((&*state(&error), error.outcome()), ("53200", Outcome::Unknown));
        drop(conn);
        pool.batch("DROP PROCEDURE refuses").await.unwrap();
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
