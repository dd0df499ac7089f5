//! Transactions on the scripted database: what is sent, in which order, when
//! one is committed, rolled back, nested, dropped or interrupted.

use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{AccessMode, Driver, ErrorKind, IsolationLevel, Pool, Session, TransactionOptions};

async fn one_connection(sim: &Sim, fake: &Fake) -> Pool<Fake> {
    Pool::builder(fake.clone()).max_open_conns(1).runtime(sim.clone()).build().await.unwrap()
}

#[test]
fn a_committed_transaction_begins_works_and_commits() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut tx = pool.begin().await.unwrap();
        tx.execute("work", &[]).await.unwrap();
        assert_eq!(pool.driver().session(&tx), Session::InTransaction);
        tx.commit().await.unwrap();
        assert_eq!(fake.statements(), ["BEGIN", "work", "COMMIT"]);
        assert_eq!(fake.counts().resets, 0, "a committed transaction leaves nothing to clean");
    });
}

#[test]
fn a_dropped_transaction_is_rolled_back_before_the_next_borrower() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut tx = pool.begin().await.unwrap();
        tx.execute("work", &[]).await.unwrap();
        drop(tx);
        let conn = pool.acquire().await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::Clean);
        assert_eq!(fake.counts().resets, 1);
    });
}

#[test]
fn a_dropped_lent_transaction_is_rolled_back_before_the_next_statement() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut conn = pool.acquire().await.unwrap();
        drop(conn.begin().await.unwrap());
        conn.query("after", &[]).await.unwrap();
        assert_eq!(fake.statements(), ["BEGIN", "ROLLBACK", "after"]);
    });
}

#[test]
fn a_nested_transaction_is_a_savepoint() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut tx = pool.begin().await.unwrap();
        let mut inner = tx.begin().await.unwrap();
        inner.begin().await.unwrap().rollback().await.unwrap();
        inner.commit().await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            fake.statements(),
            [
                "BEGIN",
                "SAVEPOINT millpond_2",
                "SAVEPOINT millpond_3",
                "ROLLBACK TO SAVEPOINT millpond_3",
                "RELEASE SAVEPOINT millpond_2",
                "COMMIT",
            ]
        );
    });
}

#[test]
fn a_dropped_savepoint_undoes_its_part_only() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut tx = pool.begin().await.unwrap();
        {
            let mut outer = tx.begin().await.unwrap();
            drop(outer.begin().await.unwrap());
        }
        tx.query("after", &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            fake.statements(),
            [
                "BEGIN",
                "SAVEPOINT millpond_2",
                "SAVEPOINT millpond_3",
                "ROLLBACK TO SAVEPOINT millpond_2",
                "after",
                "COMMIT",
            ]
        );
    });
}

/// One was left for each, nested in the one before.
#[test]
fn of_levels_that_are_undone_one_savepoint_is_left_at_most() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut tx = pool.begin().await.unwrap();
        tx.begin().await.unwrap().rollback().await.unwrap();
        drop(tx.begin().await.unwrap());
        tx.begin().await.unwrap().commit().await.unwrap();
        drop(tx.begin().await.unwrap());
        tx.commit().await.unwrap();
        let begin = "SAVEPOINT millpond_2";
        let anew = "RELEASE SAVEPOINT millpond_2; SAVEPOINT millpond_2";
        let undo = "ROLLBACK TO SAVEPOINT millpond_2";
        let release = "RELEASE SAVEPOINT millpond_2";
        let expected = ["BEGIN", begin, undo, anew, undo, anew, release, begin, undo, "COMMIT"];
        assert_eq!(fake.statements(), expected);
    });
}

#[test]
fn a_begin_dropped_in_flight_leaves_no_transaction_to_the_next_borrower() {
    for polls in 0..3 {
        Sim::new(polls).run(async |sim| {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            fake.always_query(Act::After(Duration::from_millis(5)));
            cancel_after(polls, pool.begin()).await;
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!(pool.driver().session(&conn), Session::Clean);
            let rows = conn.query("mine", &[]).await.unwrap();
            assert_eq!(rows.scalar::<String>().unwrap(), "mine");
        });
    }
}

/// Three times on each of two connections: a statement is refused, and the
/// caller leaves at once.
#[test]
fn transactions_whose_statements_fail_leave_the_pool_serving() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool =
            Pool::builder(fake.clone()).max_open_conns(2).runtime(sim).build().await.unwrap();
        for _ in 0..3 {
            let mut both = [pool.begin().await.unwrap(), pool.begin().await.unwrap()];
            for tx in &mut both {
                fake.next_queries([Act::reject()]);
                tx.query("no such table", &[]).await.unwrap_err();
                assert_eq!(pool.driver().session(tx), Session::FailedTransaction);
            }
        }
        let both = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        for conn in &both {
            assert_eq!(pool.driver().session(conn), Session::Clean);
        }
        assert_eq!((fake.counts().opened, fake.counts().resets), (2, 6));
    });
}

#[test]
fn a_transaction_dropped_with_its_statement_in_flight_is_rolled_back_or_closed() {
    for (reset, id) in [(Act::Answer, 1), (Act::cut(), 2), (Act::Hang, 2)] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            fake.always_reset(reset);
            let pool = one_connection(&sim, &fake).await;
            let mut tx = pool.begin().await.unwrap();
            fake.next_queries([Act::Hang]);
            cancel_after(1, tx.query("work", &[])).await;
            drop(tx);
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!((conn.id(), pool.driver().session(&conn)), (id, Session::Clean));
            let rows = conn.query("mine", &[]).await.unwrap();
            assert_eq!(rows.scalar::<String>().unwrap(), "mine");
            assert_eq!((fake.counts().cancels, fake.counts().live), (1, 1));
        });
    }
}

#[test]
fn a_begin_that_is_refused_keeps_its_connection_and_one_that_breaks_it_does_not() {
    for (act, id) in [(Act::reject(), 1), (Act::cut(), 2)] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            fake.next_queries([act]);
            pool.begin().await.unwrap_err();
            assert_eq!(pool.acquire().await.unwrap().id(), id);
            assert_eq!((fake.counts().resets, fake.counts().live), (0, 1));
        });
    }
}

/// A commit whose answer is lost may have taken effect: it is not repeated and
/// not called failed.
#[test]
fn a_commit_whose_answer_is_lost_is_unknown() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let tx = pool.begin().await.unwrap();
        fake.next_queries([Act::cut()]);
        let error = tx.commit().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CommitUnknown);
        assert_eq!(error.outcome(), millpond::Outcome::Unknown);
        assert_eq!(fake.statements(), ["BEGIN", "COMMIT"]);
    });
}

#[test]
fn a_connection_lost_at_the_end_of_a_transaction_is_told_and_costs_nothing() {
    for commits in [true, false] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            let mut tx = pool.begin().await.unwrap();
            tx.execute("work", &[]).await.unwrap();
            fake.restart();
            let error = if commits { tx.commit().await } else { tx.rollback().await }.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Lost);
            assert_eq!(fake.statements(), ["BEGIN", "work"], "not tried again elsewhere");
            assert_eq!(pool.acquire().await.unwrap().id(), 2);
            assert_eq!((fake.counts().live, pool.snapshot().closed), (1, 1));
        });
    }
}

#[test]
fn modes_are_asked_for_at_the_start_and_refused_inside() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let options = TransactionOptions::new()
            .isolation(IsolationLevel::Serializable)
            .access(AccessMode::ReadOnly);
        let mut tx = pool.begin_with(options.clone()).await.unwrap();
        let error = tx.begin_with(&options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(
            fake.statements(),
            ["START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"]
        );
    });
}

/// A connection that died within the second in which it is not checked.
#[test]
fn a_transaction_begins_on_another_connection_if_the_first_proves_dead() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool =
            Pool::builder(fake.clone()).max_open_conns(3).runtime(sim).build().await.unwrap();
        let held = [pool.acquire().await.unwrap(), pool.acquire().await.unwrap()];
        drop(held);
        fake.restart();
        let mut tx = pool.begin().await.unwrap();
        tx.execute("work", &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(pool.query("again", &[]).await.unwrap().len(), 1);
    });
}

#[test]
fn a_connection_that_is_lent_already_becomes_a_transaction_that_owns_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let tx = pool.acquire().await.unwrap().into_transaction().await.unwrap();
        drop(tx);
        let tx = pool.acquire().await.unwrap().into_transaction().await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(pool.snapshot().idle, 1);
        assert_eq!(fake.statements(), ["BEGIN", "BEGIN", "COMMIT"]);
    });
}
