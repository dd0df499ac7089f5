//! Batches and savepoints.

use millpond::drivers::mysql::Mysql;
use millpond::runtime::block_on;
use millpond::{Cause, Outcome, Pool, Retry};

use super::several::{dropped_anywhere, savepoints, set_and_read};
use super::{both, pool_at};

#[test]
fn a_batch_dropped_anywhere_leaves_nothing_to_the_next_borrower() {
    block_on(async {
        for server in both() {
            let batch = "SELECT 'theirs'; SELECT SLEEP(0.002); SELECT 1 UNION SELECT 2; DO 1";
            dropped_anywhere(pool_at(&server.url(), 1).await, batch).await;
        }
    });
}

#[test]
fn five_thousand_tasks_with_two_statements_each_get_their_own_answers() {
    block_on(async {
        for server in both() {
            let set = |one, other| format!("SET @one = {one}; SET @other = {other}");
            let read = "SELECT CONCAT(@one, ' ', @other)";
            set_and_read(pool_at(&server.url(), 8).await, set, read).await;
        }
    });
}

#[test]
fn a_rollback_to_a_savepoint_leaves_the_transaction_open() {
    block_on(async {
        for server in both() {
            savepoints(pool_at(&server.url(), 1).await).await;
        }
    });
}

async fn create(pool: &Pool<Mysql>, table: &str) {
    let sql = format!(
        "DROP TABLE IF EXISTS {table}; CREATE TABLE {table} (n INT) ENGINE = InnoDB;
         DROP PROCEDURE IF EXISTS fill_{table}; DROP PROCEDURE IF EXISTS refuse_{table}"
    );
    pool.batch(&sql).await.unwrap();
}

async fn count(pool: &Pool<Mysql>, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    pool.query(&sql, &[]).await.unwrap().scalar().unwrap()
}

/// A statement that says it is in conflict, by a number that is repeated.
fn conflict(number: u16) -> String {
    format!("SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'no'")
}

/// The last part's error said that nothing was done, so all of it was done again.
#[test]
fn what_was_done_before_a_part_failed_is_not_done_twice() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            for number in [1020, 1213] {
                create(&pool, "partly").await;
                let (refuse, insert) = (conflict(number), "INSERT INTO partly VALUES (1)");
                let procedure =
                    format!("CREATE PROCEDURE fill_partly() BEGIN {insert}; {refuse}; END");
                pool.query(&procedure, &[]).await.unwrap();
                let several = format!("{insert}; {refuse}");
                let calls = "/* now */ call fill_partly()".to_owned();
                let texts = [calls, several.clone(), format!("SELECT 1; {several}")];
                let mut done = 0;
                for sql in texts.iter().map(|sql| &**sql) {
                    for batch in [true, false] {
                        let error = pool
                            .run(&Retry::new(), |conn| {
                                Box::pin(async move {
                                    match batch {
                                        true => conn.batch(sql).await,
                                        false => conn.query(sql, &[]).await.map(drop),
                                    }
                                })
                            })
                            .await
                            .unwrap_err();
                        done += 1;
                        assert_eq!(error.outcome(), Outcome::Unknown, "{sql}: {error}");
                        assert_eq!(error.cause(), Cause::Conflict, "{sql}: {error}");
                        assert!(error.to_string().ends_with(&format!("({number})")), "{error}");
                        assert_eq!(count(&pool, "partly").await, done, "{sql}");
                    }
                }
            }
        });
    }
}

#[test]
fn what_failed_before_any_part_was_done_is_rejected() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            create(&pool, "firstly").await;
            let mut conn = pool.acquire().await.unwrap();
            let refuse = conflict(1020);
            let insert = "INSERT INTO firstly VALUES (1)";
            conn.query("CREATE PROCEDURE refuse_firstly(n INT) DO n", &[]).await.unwrap();
            for (sql, number) in [
                (format!("{refuse}; {insert}"), 1020),
                (format!("{refuse};\n"), 1020),
                ("CALL no_such_procedure()".to_owned(), 1305),
                ("CALL refuse_firstly()".to_owned(), 1318),
                ("CALL refuse_firstly(1".to_owned(), 1064),
                ("BEGIN NOW".to_owned(), 1064),
            ] {
                let error = conn.batch(&sql).await.unwrap_err();
                assert!(error.to_string().ends_with(&format!("({number})")), "{error}");
                assert_eq!(error.outcome(), Outcome::Rejected, "{sql}: {error}");
            }
            drop(conn);
            assert_eq!(count(&pool, "firstly").await, 0);
        });
    }
}

#[test]
fn what_failed_in_a_transaction_is_told_as_ever() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            create(&pool, "within").await;
            let (refuse, insert) = (conflict(1412), "INSERT INTO within VALUES (1)");
            let mut tx = pool.begin().await.unwrap();
            let error = tx.batch(&format!("{insert}; {refuse}")).await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::Rejected, "{error}");
            tx.rollback().await.unwrap();
            assert_eq!(count(&pool, "within").await, 0);
        });
    }
}
