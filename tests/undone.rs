//! A database that rolls a whole transaction back because of one statement: what
//! follows must not take effect alone.

#[path = "support/undoing.rs"]
mod undoing;

use millpond::testing::sim::Sim;
use millpond::{Error, Fate, Outcome, Pool, Transaction};
use undoing::Undoing;

/// As MySQL after a deadlock: the transaction is gone, the connection is good.
fn deadlock() -> Error {
    Error::statement("deadlock").with_outcome(Outcome::RolledBack)
}

/// As SQLite over a failing disk: the transaction is gone, and the connection is
/// to go, but works on until then.
fn broken_disk() -> Error {
    let error = Error::statement("disk I/O error").with_outcome(Outcome::Unknown);
    error.with_fate(Fate::Discard)
}

#[test]
fn what_follows_in_a_transaction_that_the_database_has_undone_is_not_kept() {
    Sim::new(1).run(async |sim| {
        let driver = Undoing::with([deadlock()]);
        let pool = Pool::builder(driver.clone()).runtime(sim).build().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("debit", &[]).await.unwrap();
        assert!(tx.execute("fault", &[]).await.is_err());
        let _ = tx.execute("credit", &[]).await;
        let _ = tx.commit().await;
        assert!(driver.kept().is_empty(), "half a transaction is kept");
    });
}

/// A pool of one connection to such a database, in a transaction that it has
/// rolled back.
async fn undone(sim: Sim) -> (Undoing, Pool<Undoing>, Transaction<'static, Undoing>) {
    let driver = Undoing::with([deadlock()]);
    let pool = Pool::builder(driver.clone()).max_open_conns(1).runtime(sim).build().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    tx.execute("debit", &[]).await.unwrap();
    tx.execute("fault", &[]).await.unwrap_err();
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
        assert_eq!(driver.kept(), ["anew"]);
    });
}

#[test]
fn a_rollback_of_what_is_gone_succeeds() {
    Sim::new(1).run(async |sim| {
        let (driver, pool, tx) = undone(sim).await;
        tx.rollback().await.unwrap();
        pool.execute("alone", &[]).await.unwrap();
        assert_eq!(driver.kept(), ["alone"]);
    });
}

#[test]
fn a_savepoint_in_what_is_gone_cannot_save_it() {
    Sim::new(1).run(async |sim| {
        let driver = Undoing::with([deadlock()]);
        let pool = Pool::builder(driver.clone()).max_open_conns(1).runtime(sim);
        let mut conn = pool.build().await.unwrap().acquire().await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        let mut attempt = tx.begin().await.unwrap();
        attempt.execute("fault", &[]).await.unwrap_err();
        attempt.rollback().await.unwrap();
        assert!(tx.execute("credit", &[]).await.is_err());
        let mut attempt = tx.begin().await.map(drop);
        assert!(attempt.is_err());
        attempt = tx.commit().await;
        assert!(attempt.is_err());
        conn.execute("alone", &[]).await.unwrap();
        assert_eq!(driver.kept(), ["alone"]);
    });
}

#[test]
fn what_follows_an_error_that_condemned_the_connection_is_not_kept_alone() {
    Sim::new(1).run(async |sim| {
        let driver = Undoing::with([broken_disk()]);
        let pool = Pool::builder(driver.clone()).runtime(sim).build().await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("debit", &[]).await.unwrap();
        tx.execute("fault", &[]).await.unwrap_err();
        let _ = tx.execute("credit", &[]).await;
        let _ = tx.commit().await;
        assert!(driver.kept().is_empty(), "half a transaction is kept");
    });
}

/// The level within was still to be rolled back, in a transaction that was no more.
#[test]
fn after_its_rollback_the_connection_is_as_good_as_before() {
    Sim::new(1).run(async |sim| {
        let driver = Undoing::with([deadlock()]);
        let pool = Pool::builder(driver.clone()).runtime(sim).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        let mut tx = conn.begin().await.unwrap();
        {
            let mut inner = tx.begin().await.unwrap();
            inner.execute("fault", &[]).await.unwrap_err();
        }
        tx.rollback().await.unwrap();
        conn.execute("alone", &[]).await.unwrap();
        assert_eq!(driver.kept(), ["alone"]);
    });
}

/// Nothing was rolled back, as it was taken to be gone with the connection, which
/// worked on: what followed was told as done, and closed away.
#[test]
fn a_transaction_on_a_connection_that_is_to_go_is_rolled_back_all_the_same() {
    for by_hand in [false, true] {
        Sim::new(1).run(async |sim| {
            let driver = Undoing::with([broken_disk()]).keeping_what_is_open();
            let pool = Pool::builder(driver.clone()).runtime(sim).build().await.unwrap();
            let mut conn = pool.acquire().await.unwrap();
            let mut tx = conn.begin().await.unwrap();
            tx.execute("debit", &[]).await.unwrap();
            tx.execute("fault", &[]).await.unwrap_err();
            match by_hand {
                true => tx.rollback().await.unwrap(),
                false => drop(tx),
            }
            conn.execute("alone", &[]).await.unwrap();
            drop(conn);
            assert_eq!(driver.kept(), ["alone"], "rolled back by hand: {by_hand}");
        });
    }
}
