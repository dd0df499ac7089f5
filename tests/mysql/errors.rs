//! What the errors of a real server mean, provoked one by one.

use futures_util::future::{Either, join, select};
use millpond::{
    AccessMode, Cause, Driver, Fate, Outcome, PooledConnection, Scope, Session, TransactionOptions,
};
use millpond_harness::{Cut, Fault, Proxy, Server};

use super::*;

type Conn = PooledConnection<Mysql>;

const CALLER: (Outcome, Fate, Cause) = (Outcome::Rejected, Fate::Reusable, Cause::Caller);

fn said(error: &Error) -> (Outcome, Fate, Cause) {
    (error.outcome(), error.fate(), error.cause())
}

async fn fails(conn: &mut Conn, sql: &str) -> Error {
    conn.query(sql, &[]).await.expect_err(sql)
}

/// A table of two rows, of a test's own.
async fn table(conn: &mut Conn, name: &str) {
    let sql = format!(
        "DROP TABLE IF EXISTS {name};
         CREATE TABLE {name} (id INT PRIMARY KEY, n INT) ENGINE = InnoDB;
         INSERT INTO {name} VALUES (1, 0), (2, 0)"
    );
    conn.batch(&sql).await.unwrap();
}

async fn begin(pool: &Pool<Mysql>, conn: &mut Conn) {
    pool.driver().begin(conn, &TransactionOptions::new()).await.unwrap();
}

#[test]
fn a_statement_that_is_wrong_is_the_callers() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        table(&mut conn, "wrong").await;
        for (sql, code) in [
            ("INSERT INTO wrong VALUES (1, 0)", "(1062)"),
            ("SELECT * FROM no_such_table", "(1146)"),
            ("SELECT no_such_column FROM wrong", "(1054)"),
            ("SELEKT 1", "(1064)"),
        ] {
            let error = fails(&mut conn, sql).await;
            assert_eq!(said(&error), CALLER, "{error}");
            assert!(error.to_string().ends_with(code), "{error}");
        }
        let error = fails(&mut conn, "USE no_such_database").await;
        assert_eq!(said(&error), (Outcome::Rejected, Fate::Reusable, Cause::Auth));
        // The client would give the connection up.
        let few = conn.query("SELECT ?, ?", &millpond::params![1]).await.unwrap_err();
        assert_eq!(few.message(), "the statement takes 2 parameters and 1 were given");
        assert_eq!(said(&few), CALLER);
        assert_eq!(conn.query("SELECT 7", &[]).await.unwrap().scalar::<i64>().unwrap(), 7);
    });
}

/// Every number of the table that this server gives only when something is badly
/// wrong, or never: it sends what it is told to.
#[test]
fn a_number_in_a_transaction_means_what_the_table_says() {
    use Cause::{Conflict, Corrupt, LockTimeout, Overload, Shutdown, Starting, Timeout};
    use Fate::{Discard, NeedsRollback, Reusable};
    use Outcome::{Rejected, RolledBack, Unknown};

    block_on(async {
        let pool = pool(1).await;
        for (number, outcome, fate, cause) in [
            (1021, Rejected, NeedsRollback, Corrupt),
            (1034, Rejected, NeedsRollback, Corrupt),
            (1037, Rejected, NeedsRollback, Overload),
            (1047, Rejected, Reusable, Starting),
            (1053, Unknown, Discard, Shutdown),
            (1158, Unknown, Discard, Cause::Transport),
            (1206, Rejected, NeedsRollback, Overload),
            (1317, Rejected, NeedsRollback, Timeout),
            (1613, RolledBack, NeedsRollback, Conflict),
            (1615, Rejected, Reusable, Cause::StaleStatement),
            (1637, Rejected, NeedsRollback, Overload),
            (1689, Rejected, NeedsRollback, Conflict),
            (1836, Rejected, NeedsRollback, Cause::WrongRole),
            (1927, Unknown, Discard, Cause::Transport),
            (3032, Rejected, Discard, Shutdown),
            (3100, Unknown, Discard, Conflict),
            (3101, RolledBack, NeedsRollback, Conflict),
            (3168, Rejected, Discard, Shutdown),
            (3572, Rejected, NeedsRollback, LockTimeout),
        ] {
            let mut conn = pool.acquire().await.unwrap();
            begin(&pool, &mut conn).await;
            let text = "WSREP has not yet prepared node for application use";
            let sql = format!(
                "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{text}'"
            );
            let error = fails(&mut conn, &sql).await;
            assert_eq!(said(&error), (outcome, fate, cause), "{error}");
            drop(conn);
            // Whatever it was, the next borrower is well.
            assert_eq!(pool.query("SELECT 7", &[]).await.unwrap().scalar::<i64>().unwrap(), 7);
        }
    });
}

#[test]
fn a_table_that_changed_under_a_snapshot_is_a_conflict() {
    block_on(async {
        let pool = pool(2).await;
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        table(&mut other, "changed").await;
        one.batch("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.unwrap();
        other.batch("ALTER TABLE changed ADD m INT, ALGORITHM = COPY").await.unwrap();
        let error = fails(&mut one, "SELECT * FROM changed").await;
        assert_eq!(said(&error), (Outcome::Rejected, Fate::NeedsRollback, Cause::Conflict));
        assert!(error.to_string().ends_with("(1412)"), "{error}");
    });
}

#[test]
fn an_account_with_no_right_or_too_many_sessions_is_told_which() {
    block_on(async {
        let server = mariadb();
        server.sql(
            "CREATE USER stranger IDENTIFIED BY 'stranger';
             CREATE USER single IDENTIFIED BY 'single' WITH MAX_USER_CONNECTIONS 1;
             GRANT SELECT ON *.* TO single",
        );
        let login = |name: &str| {
            let ours = format!("{}:{}@", server.user(), server.password());
            server.url().replace(&ours, &format!("{name}:{name}@"))
        };
        let error = refused(&login("stranger"), Duration::from_secs(20)).await;
        assert!(error.to_string().ends_with("(1044)"), "{error}");
        assert_eq!((error.cause(), error.is_permanent()), (Cause::Auth, true));
        let _one = pool_at(&login("single"), 1).await;
        let error = refused(&login("single"), Duration::from_secs(20)).await;
        assert!(error.to_string().ends_with("(1226)"), "{error}");
        assert_eq!((error.cause(), error.is_permanent()), (Cause::Overload, false));
        assert_eq!(error.outcome(), Outcome::NotSent);
    });
}

#[test]
fn a_deadlock_has_rolled_back_and_leaves_the_connection_usable() {
    block_on(async {
        let pool = pool(2).await;
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        table(&mut one, "deadlock").await;
        for conn in [&mut one, &mut other] {
            begin(&pool, conn).await;
        }
        one.query("UPDATE deadlock SET n = 1 WHERE id = 1", &[]).await.unwrap();
        other.query("UPDATE deadlock SET n = 2 WHERE id = 2", &[]).await.unwrap();
        let (first, second) = join(
            one.query("UPDATE deadlock SET n = 1 WHERE id = 2", &[]),
            other.query("UPDATE deadlock SET n = 2 WHERE id = 1", &[]),
        )
        .await;
        let (error, victim) = match (first, second) {
            (Err(error), Ok(_)) => (error, &mut one),
            (Ok(_), Err(error)) => (error, &mut other),
            both => panic!("one of the two is the victim: {both:?}"),
        };
        let expected = (Outcome::RolledBack, Fate::Reusable, Cause::Conflict);
        assert_eq!((said(&error), error.scope()), (expected, Scope::Transaction), "{error}");
        assert_eq!(pool.driver().session(victim), Session::Clean);
    });
}

#[test]
fn a_lock_not_got_in_time_undoes_the_statement_and_the_transaction_needs_a_rollback() {
    block_on(async {
        let pool = pool(2).await;
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        table(&mut one, "waiting").await;
        begin(&pool, &mut one).await;
        one.query("UPDATE waiting SET n = 1 WHERE id = 1", &[]).await.unwrap();
        other.query("SET innodb_lock_wait_timeout = 0", &[]).await.unwrap();
        let expected = (Outcome::Rejected, Fate::Reusable, Cause::LockTimeout);
        let alone = fails(&mut other, "UPDATE waiting SET n = 2 WHERE id = 1").await;
        assert_eq!(said(&alone), expected, "outside a transaction: {alone}");
        begin(&pool, &mut other).await;
        other.query("UPDATE waiting SET n = 2 WHERE id = 2", &[]).await.unwrap();
        let error = fails(&mut other, "UPDATE waiting SET n = 2 WHERE id = 1").await;
        assert_eq!(said(&error), (Outcome::Rejected, Fate::NeedsRollback, Cause::LockTimeout));
        assert_eq!(pool.driver().session(&other), Session::FailedTransaction);
        // Its earlier write is there still, until it is rolled back on its way back.
        drop(other);
        pool.driver().rollback(&mut one).await.unwrap();
        let changed = "SELECT count(*) FROM waiting WHERE n <> 0";
        let mut next = pool.acquire().await.unwrap();
        assert_eq!(next.query(changed, &[]).await.unwrap().scalar::<i64>().unwrap(), 0);
    });
}

#[test]
fn a_statement_that_is_stopped_was_refused_and_costs_nothing() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        // Not SLEEP, which answers when it is stopped.
        let sql = "SET STATEMENT max_statement_time = 0.01 FOR \
                   SELECT SUM(a.seq * b.seq) FROM seq_1_to_1000000 a, seq_1_to_1000000 b";
        let error = fails(&mut conn, sql).await;
        assert_eq!(said(&error), (Outcome::Rejected, Fate::Reusable, Cause::Timeout), "{error}");
        assert_eq!(conn.query("SELECT 7", &[]).await.unwrap().scalar::<i64>().unwrap(), 7);
    });
}

#[test]
fn a_read_only_transaction_is_the_callers_and_a_read_only_server_the_wrong_node() {
    block_on(async {
        let server = Server::mariadb().start();
        let pool = pool_at(&server.url(), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        table(&mut conn, "reading").await;
        let reads = TransactionOptions::new().access(AccessMode::ReadOnly);
        pool.driver().begin(&mut conn, &reads).await.unwrap();
        let write = "INSERT INTO reading VALUES (3, 0)";
        assert_eq!(said(&fails(&mut conn, write).await), CALLER);
        assert_eq!(pool.driver().session(&conn), Session::InTransaction);
        pool.driver().rollback(&mut conn).await.unwrap();

        server.sql(
            "CREATE USER reader IDENTIFIED BY 'reader';
             GRANT SELECT, INSERT ON *.* TO reader;
             SET GLOBAL read_only = 1",
        );
        let url = server
            .url()
            .replace(&format!("{}:{}@", server.user(), server.password()), "reader:reader@");
        let pool = pool_at(&url, 1).await;
        let mut conn = pool.acquire().await.unwrap();
        let error = fails(&mut conn, write).await;
        assert_eq!(said(&error), (Outcome::Rejected, Fate::Reusable, Cause::WrongRole), "{error}");
        assert_eq!(error.scope(), Scope::Node);
        // Who may not see the replication still learns what counts.
        let status = pool.driver().status(&mut conn).await.unwrap();
        assert_eq!((status.writable, status.lag), (Some(false), None));
        assert_eq!(pool.driver().session(&conn), Session::Clean);
        assert_eq!(said(&fails(&mut conn, "SELECT * FROM mysql.no_such").await), CALLER);
    });
}

#[test]
fn a_connection_killed_under_a_statement_is_lost_and_nobody_knows_what_it_did() {
    block_on(async {
        let pool = pool(2).await;
        let (mut one, mut other) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        let kill = format!("KILL {}", mysql_id(&one));
        let killed = {
            let running = std::pin::pin!(one.query("SELECT SLEEP(600)", &[]));
            let killing = std::pin::pin!(async {
                while mariadb().running(mariadb().database()) < 1 {}
                other.query(&kill, &[]).await.unwrap();
            });
            match select(running, killing).await {
                Either::Left((ended, _)) => ended,
                Either::Right(((), running)) => running.await,
            }
        };
        let error = killed.expect_err("killed");
        assert_eq!((error.outcome(), error.fate()), (Outcome::Unknown, Fate::Discard), "{error}");
        assert_eq!(pool.driver().session(&one), Session::Closed);
        let after = fails(&mut one, "SELECT 1").await;
        assert_eq!((after.outcome(), after.fate()), (Outcome::NotSent, Fate::Discard));
        drop(one);
        assert_eq!(pool.query("SELECT 7", &[]).await.unwrap().scalar::<i64>().unwrap(), 7);
    });
}

fn mysql_id(conn: &Conn) -> u32 {
    // Through the pooled connection, which has an id of its own.
    let client: &millpond::drivers::mysql::MysqlConnection = conn;
    let client: &millpond::drivers::mysql::mysql_async::Conn = client;
    client.id()
}

#[test]
fn a_commit_whose_answer_is_lost_is_unknown() {
    block_on(async {
        let proxy = Proxy::to(mariadb().address());
        let pool = pool_at(&mariadb().url_at(proxy.address()), 1).await;
        let mut conn = pool.acquire().await.unwrap();
        table(&mut conn, "lost").await;
        begin(&pool, &mut conn).await;
        conn.query("INSERT INTO lost VALUES (3, 0)", &[]).await.unwrap();
        proxy.to_server(Fault::CutAnswer(b"COMMIT".to_vec(), Cut::Reset));
        let error = pool.driver().commit(&mut conn).await.unwrap_err();
        assert_eq!((error.outcome(), error.fate()), (Outcome::Unknown, Fate::Discard), "{error}");
        drop(conn);
        let committed = pool.query("SELECT count(*) FROM lost", &[]).await.unwrap();
        assert_eq!(committed.scalar::<i64>().unwrap(), 3, "here it was");
    });
}

#[test]
fn a_packet_that_is_too_large_is_refused_and_costs_the_connection() {
    block_on(async {
        let pool = pool(1).await;
        let mut conn = pool.acquire().await.unwrap();
        let most = conn.query("SELECT @@max_allowed_packet", &[]).await.unwrap();
        let text = "x".repeat(most.scalar::<u32>().unwrap() as usize + 1);
        let error = fails(&mut conn, &format!("SELECT '{text}'")).await;
        assert_eq!(error.fate(), Fate::Discard);
        assert_eq!(pool.driver().session(&conn), Session::Closed, "{error}");
        drop(conn);
        assert_eq!(pool.query("SELECT 7", &[]).await.unwrap().scalar::<i64>().unwrap(), 7);
    });
}

#[test]
fn a_broken_rule_has_the_same_name_everywhere() {
    block_on(async {
        for server in both() {
            let pool = pool_at(&server.url(), 1).await;
            violations::a_broken_rule_has_the_same_name_everywhere(&pool).await;
        }
    });
}
