//! Errors that take a whole transaction along by setting and version, and do not
//! say so: what follows in it must not be kept alone.

use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::join;
use millpond::{Driver, Fate, PooledConnection, Session, TransactionOptions};

use super::*;

async fn count(pool: &Pool<Mysql>, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table} WHERE id > 2");
    pool.query(&sql, &[]).await.unwrap().scalar().unwrap()
}

async fn create(pool: &Pool<Mysql>, table: &str) {
    let sql = format!(
        "CREATE TABLE {table} (id INT PRIMARY KEY, n INT) ENGINE = InnoDB;
         INSERT INTO {table} VALUES (1, 0), (2, 0)"
    );
    pool.batch(&sql).await.unwrap();
}

/// MariaDB from 11.6.2 on does so by default; earlier ones where they are told to.
#[test]
fn a_row_that_changed_since_the_snapshot_takes_the_transaction_along() {
    block_on(async {
        let pool = pool(2).await;
        create(&pool, "outdated").await;
        let mut one = pool.acquire().await.unwrap();
        one.query("SET innodb_snapshot_isolation = ON", &[]).await.unwrap();
        let mut tx = one.begin().await.unwrap();
        tx.query("SELECT n FROM outdated", &[]).await.unwrap();
        tx.query("INSERT INTO outdated VALUES (3, 0)", &[]).await.unwrap();
        pool.query("UPDATE outdated SET n = 9 WHERE id = 2", &[]).await.unwrap();
        let error = tx.query("UPDATE outdated SET n = n + 1 WHERE id = 2", &[]).await.unwrap_err();
        assert_eq!((error.outcome(), error.cause()), (Outcome::RolledBack, Cause::Conflict));
        tx.query("INSERT INTO outdated VALUES (4, 0)", &[]).await.unwrap_err();
        tx.rollback().await.unwrap();
        assert_eq!(count(&pool, "outdated").await, 0);
    });
}

#[test]
fn a_lock_not_got_in_time_takes_the_transaction_along_where_the_server_is_set_so() {
    block_on(async {
        for (setting, undone) in [("ON", true), ("OFF", false)] {
            let server = Server::mariadb().setting("innodb-rollback-on-timeout", setting).start();
            let pool = pool_at(&server.url(), 2).await;
            create(&pool, "late").await;
            let mut other = pool.acquire().await.unwrap();
            other.query("SET innodb_lock_wait_timeout = 1", &[]).await.unwrap();
            let mut holder = pool.begin().await.unwrap();
            holder.query("UPDATE late SET n = 1 WHERE id = 1", &[]).await.unwrap();
            let mut tx = other.begin().await.unwrap();
            tx.query("INSERT INTO late VALUES (3, 0)", &[]).await.unwrap();
            let late = "UPDATE late SET n = 2 WHERE id = 1";
            let error = tx.query(late, &[]).await.unwrap_err();
            let expected = if undone { Outcome::RolledBack } else { Outcome::Rejected };
            assert_eq!((error.outcome(), error.cause()), (expected, Cause::LockTimeout));
            let follows = tx.query("INSERT INTO late VALUES (4, 0)", &[]).await;
            assert_eq!(follows.is_err(), undone, "{follows:?}");
            tx.rollback().await.unwrap();
            holder.rollback().await.unwrap();
            assert_eq!(count(&pool, "late").await, 0);
        }
    });
}

/// Its number was taken for the proof of a rollback, and the transaction went on
/// to the next borrower, whose `BEGIN` committed it.
#[test]
fn a_deadlock_that_undid_nothing_is_rolled_back() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 1).await;
            create(&pool, "signalled").await;
            let trigger = "CREATE TRIGGER refusing BEFORE UPDATE ON signalled FOR EACH ROW
                 SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213";
            pool.batch(trigger).await.unwrap();
            for way in ["query", "stream", "batch"] {
                let mut tx = pool.begin().await.unwrap();
                tx.query("INSERT INTO signalled VALUES (3, 0)", &[]).await.unwrap();
                let sql = "UPDATE signalled SET n = 1";
                let error = match way {
                    "query" => tx.query(sql, &[]).await.unwrap_err(),
                    "stream" => {
                        let mut rows = pin!(tx.query_stream(sql, &[]));
                        rows.next().await.expect("an answer").unwrap_err()
                    }
                    _ => tx.batch(sql).await.unwrap_err(),
                };
                let said = (error.outcome(), error.fate(), error.cause());
                assert_eq!(
                    said,
                    (Outcome::Rejected, Fate::NeedsRollback, Cause::Conflict),
                    "{way}"
                );
                tx.rollback().await.unwrap();
                pool.begin().await.unwrap().rollback().await.unwrap();
                assert_eq!(count(&pool, "signalled").await, 0, "{way}");
            }
        });
    }
}

#[test]
fn a_deadlock_over_locks_by_name_is_told_as_what_it_left() {
    block_on(async {
        let pool = pool(2).await;
        create(&pool, "named").await;
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        for (conn, own) in [(&mut one, 3), (&mut other, 4)] {
            pool.driver().begin(conn, &TransactionOptions::new()).await.unwrap();
            conn.query(&format!("INSERT INTO named VALUES ({own}, 0)"), &[]).await.unwrap();
            conn.query(&format!("SELECT GET_LOCK('named{own}', 20)"), &[]).await.unwrap();
        }
        let ask = async |conn: &mut PooledConnection<Mysql>, others: i64| {
            let sql = format!("SELECT GET_LOCK('named{others}', 20)");
            let Err(error) = conn.query(&sql, &[]).await else { return 0 };
            assert!(error.to_string().ends_with("(1213)"), "{error}");
            let open = conn.query("SELECT @@in_transaction", &[]).await.unwrap();
            let open = open.scalar::<i64>().unwrap() == 1;
            assert_eq!(error.outcome() != Outcome::RolledBack, open, "{error}");
            // The other still waits for the lock that the victim has.
            conn.query("DO RELEASE_ALL_LOCKS()", &[]).await.unwrap();
            1
        };
        let (first, second) = join(ask(&mut one, 4), ask(&mut other, 3)).await;
        assert_eq!(first + second, 1, "one of the two is the victim");
        drop((one, other));
        assert_eq!(count(&pool, "named").await, 0);
    });
}

/// A call that deadlocks over rows is one of them, whatever ran in it.
#[test]
fn a_deadlock_in_a_call_or_a_batch_takes_the_transaction_along() {
    for server in both() {
        block_on(async {
            let pool = pool_at(&server.url(), 2).await;
            create(&pool, "called").await;
            pool.query(
                "CREATE PROCEDURE change_called(a INT) UPDATE called SET n = n + 1 WHERE id = a",
                &[],
            )
            .await
            .unwrap();
            for way in ["call", "batch"] {
                let (mut one, mut other) =
                    (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
                for (conn, own) in [(&mut one, 1), (&mut other, 2)] {
                    pool.driver().begin(conn, &TransactionOptions::new()).await.unwrap();
                    conn.query(&format!("CALL change_called({own})"), &[]).await.unwrap();
                }
                let change = async |conn: &mut PooledConnection<Mysql>, id: i64| {
                    let sql = format!("CALL change_called({id})");
                    match way {
                        "call" => conn.query(&sql, &[]).await.map(drop),
                        _ => conn.batch(&format!("DO 1; {sql}")).await,
                    }
                };
                let (first, second) = join(change(&mut one, 2), change(&mut other, 1)).await;
                let (error, victim) = match (first, second) {
                    (Err(error), Ok(())) => (error, &mut one),
                    (Ok(()), Err(error)) => (error, &mut other),
                    both => panic!("one of the two is the victim: {both:?}"),
                };
                let said = (error.outcome(), error.fate(), error.cause());
                assert_eq!(said, (Outcome::RolledBack, Fate::Reusable, Cause::Conflict), "{way}");
                assert_eq!(pool.driver().session(victim), Session::Clean, "{way}");
            }
        });
    }
}
