//! A database that rolls a whole transaction back because of one statement: what
//! follows must not take effect alone.

use std::sync::{Arc, Mutex};

use millpond::testing::sim::Sim;
use millpond::{ConnectContext, Driver, Error, Fate, Outcome, Pool, Result, Rows, Session, Value};

/// A database that rolls the whole transaction back when a statement fails, as
/// MySQL does after a deadlock; without a transaction each statement is kept.
#[derive(Clone, Default)]
struct Deadlocks {
    kept: Arc<Mutex<Vec<String>>>,
}

impl Driver for Deadlocks {
    type Connection = Option<Vec<String>>;

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<Self::Connection> {
        Ok(None)
    }

    async fn ping(&self, _: &mut Self::Connection) -> Result<()> {
        Ok(())
    }

    async fn query(&self, conn: &mut Self::Connection, sql: &str, _: &[Value]) -> Result<Rows> {
        match sql {
            "BEGIN" => *conn = Some(Vec::new()),
            "COMMIT" => self.kept.lock().unwrap().extend(conn.take().unwrap_or_default()),
            "ROLLBACK" => *conn = None,
            "deadlock" => {
                *conn = None;
                return Err(Error::statement("deadlock").with_outcome(Outcome::RolledBack));
            }
            _ => match conn {
                Some(pending) => pending.push(sql.to_owned()),
                None => self.kept.lock().unwrap().push(sql.to_owned()),
            },
        }
        Ok(Rows::none())
    }

    fn session(&self, conn: &Self::Connection) -> Session {
        if conn.is_some() { Session::InTransaction } else { Session::Clean }
    }
}

#[test]
fn what_follows_in_a_transaction_that_the_database_has_undone_is_not_kept() {
    Sim::new(1).run(async |sim| {
        let driver = Deadlocks::default();
        let pool = Pool::builder(driver.clone()).runtime(sim).build().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("debit", &[]).await.unwrap();
        assert!(tx.execute("deadlock", &[]).await.is_err());
        let _ = tx.execute("credit", &[]).await;
        let _ = tx.commit().await;
        assert!(driver.kept.lock().unwrap().is_empty(), "half a transaction is kept");
    });
}

/// A pool of one connection to such a database, in a transaction that it has
/// rolled back.
async fn undone(
    sim: Sim,
) -> (Deadlocks, Pool<Deadlocks>, millpond::Transaction<'static, Deadlocks>) {
    let driver = Deadlocks::default();
    let pool = Pool::builder(driver.clone()).max_open_conns(1).runtime(sim).build().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tx.execute("debit", &[]).await.unwrap();
    tx.execute("deadlock", &[]).await.unwrap_err();
    (driver, pool, tx)
}

#[test]
fn statements_and_commit_are_refused_and_say_why() {
    Sim::new(1).run(async |sim| {
        let (driver, pool, mut tx) = undone(sim).await;
        let refused = [
            tx.execute("credit", &[]).await.unwrap_err(),
            tx.batch("credit").await.unwrap_err(),
            tx.begin().await.map(drop).unwrap_err(),
            tx.commit().await.unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.outcome(), Outcome::RolledBack);
            let said = "not sent: an earlier error has undone this transaction";
            assert_eq!(error.to_string(), said);
        }
        let mut tx = pool.begin().await.unwrap();
        assert_eq!(tx.id(), 1, "the connection is as good as before");
        tx.execute("anew", &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(*driver.kept.lock().unwrap(), ["anew"]);
    });
}

#[test]
fn a_rollback_of_what_is_gone_succeeds() {
    Sim::new(1).run(async |sim| {
        let (driver, pool, tx) = undone(sim).await;
        tx.rollback().await.unwrap();
        pool.execute("alone", &[]).await.unwrap();
        assert_eq!(*driver.kept.lock().unwrap(), ["alone"]);
    });
}

#[test]
fn a_savepoint_in_what_is_gone_cannot_save_it() {
    Sim::new(1).run(async |sim| {
        let driver = Deadlocks::default();
        let pool = Pool::builder(driver.clone()).max_open_conns(1).runtime(sim);
        let mut conn = pool.build().await.unwrap().acquire().await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let mut attempt = tx.begin().await.unwrap();
        attempt.execute("deadlock", &[]).await.unwrap_err();
        attempt.rollback().await.unwrap();
        assert!(tx.execute("credit", &[]).await.is_err());
        let mut attempt = tx.begin().await.map(drop);
        assert!(attempt.is_err());
        attempt = tx.commit().await;
        assert!(attempt.is_err());
        conn.execute("alone", &[]).await.unwrap();
        assert_eq!(*driver.kept.lock().unwrap(), ["alone"]);
    });
}

/// A disk that fails in the midst of a transaction: SQLite rolls back, the
/// connection is to go, and until then works on.
#[derive(Clone, Default)]
struct Faulty {
    kept: Arc<Mutex<Vec<String>>>,
}

impl Driver for Faulty {
    type Connection = Option<Vec<String>>;

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<Self::Connection> {
        Ok(None)
    }

    async fn ping(&self, _: &mut Self::Connection) -> Result<()> {
        Ok(())
    }

    async fn query(&self, conn: &mut Self::Connection, sql: &str, _: &[Value]) -> Result<Rows> {
        match sql {
            "BEGIN" => *conn = Some(Vec::new()),
            "COMMIT" => self.kept.lock().unwrap().extend(conn.take().unwrap_or_default()),
            "ROLLBACK" => *conn = None,
            "fault" => {
                *conn = None;
                return Err(Error::statement("disk I/O error")
                    .with_outcome(Outcome::Unknown)
                    .with_fate(Fate::Discard));
            }
            _ => match conn {
                Some(pending) => pending.push(sql.to_owned()),
                None => self.kept.lock().unwrap().push(sql.to_owned()),
            },
        }
        Ok(Rows::none())
    }

    fn session(&self, conn: &Self::Connection) -> Session {
        if conn.is_some() { Session::InTransaction } else { Session::Clean }
    }
}

#[test]
fn what_follows_an_error_that_condemned_the_connection_is_not_kept_alone() {
    Sim::new(1).run(async |sim| {
        let driver = Faulty::default();
        let pool = Pool::builder(driver.clone()).runtime(sim).build().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("debit", &[]).await.unwrap();
        tx.execute("fault", &[]).await.unwrap_err();
        let _ = tx.execute("credit", &[]).await;
        let _ = tx.commit().await;
        assert!(
            driver.kept.lock().unwrap().is_empty(),
            "{driver_kept:?}",
            driver_kept = driver.kept
        );
    });
}
