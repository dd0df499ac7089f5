//! Errors that take a whole transaction along by setting and version, and do not
//! say so: what follows in it must not be kept alone.

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
