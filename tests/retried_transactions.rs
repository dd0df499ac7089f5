//! Transactions under a policy, on scripted databases: what is sent again, what
//! is not, and what is left when the future is dropped.

#[path = "support/undoing.rs"]
mod undoing;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::retry::Replay;
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{
    AccessMode, Cause, Driver, Error, ErrorKind, Event, IsolationLevel, Outcome, Pool, Result,
    Retry, Session, TransactionOptions,
};
use undoing::Undoing;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

async fn one_connection(sim: &Sim, fake: &Fake) -> Pool<Fake> {
    Pool::builder(fake.clone()).max_open_conns(1).runtime(sim.clone()).build().await.unwrap()
}

fn conflict() -> Act {
    let error = Error::statement("could not serialize").with_cause(Cause::Conflict);
    Act::Fail(error.with_outcome(Outcome::RolledBack))
}

fn refusal(cause: Cause) -> Act {
    Act::Fail(Error::statement("no").with_cause(cause))
}

/// One statement in a transaction under this policy.
async fn work(pool: &Pool<Fake>, policy: &Retry) -> Result<u64> {
    pool.transaction(policy, |tx| Box::pin(tx.execute("work", &[]))).await
}

const ONCE: [&str; 3] = ["BEGIN", "work", "COMMIT"];

#[test]
fn work_is_done_between_begin_and_commit() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        assert_eq!(work(&pool, &Retry::new()).await.unwrap(), 1);
        assert_eq!(fake.statements(), ONCE);
        assert_eq!(fake.counts().resets, 0, "nothing is left to clean");
    });
}

#[test]
fn a_conflict_rolls_back_and_begins_anew() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        fake.next_queries([Act::Answer, conflict()]);
        work(&pool, &Retry::new()).await.unwrap();
        assert_eq!(fake.statements(), ["BEGIN", "work", "ROLLBACK", "BEGIN", "work", "COMMIT"]);
        assert!(sim.elapsed() <= MS, "a conflict is over soon: {:?}", sim.elapsed());
        assert_eq!(fake.counts().opened, 1);
    });
}

#[test]
fn each_cause_that_passes_repeats_the_work() {
    Sim::new(1).run(async |sim| {
        for (cause, attempts) in [
            (Cause::Conflict, 2),
            (Cause::LockTimeout, 2),
            (Cause::WrongRole, 2),
            (Cause::StaleStatement, 2),
            (Cause::Caller, 1),
            (Cause::Timeout, 1),
            (Cause::Corrupt, 1),
        ] {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            fake.next_queries([Act::Answer, refusal(cause)]);
            let done = work(&pool, &Retry::new()).await.is_ok();
            let begun = fake.statements().iter().filter(|sql| *sql == "BEGIN").count();
            assert_eq!((begun, done), (attempts, attempts == 2), "{cause:?}");
        }
    });
}

#[test]
fn a_commit_that_was_refused_is_repeated_with_all_of_the_work() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        fake.next_queries([Act::Answer, Act::Answer, conflict()]);
        work(&pool, &Retry::new()).await.unwrap();
        assert_eq!(fake.statements(), [ONCE, ONCE].concat());
        // A constraint that is checked at the end would fail again.
        let violated = Error::statement("duplicate key").with_outcome(Outcome::RolledBack);
        fake.next_queries([Act::Answer, Act::Answer, Act::Fail(violated)]);
        assert_eq!(work(&pool, &Retry::new()).await.unwrap_err().cause(), Cause::Caller);
        assert_eq!(fake.statements(), [ONCE, ONCE, ONCE].concat());
    });
}

#[test]
fn a_connection_lost_before_the_commit_costs_nothing_but_time() {
    Sim::new(1).run(async |sim| {
        for lost_at in 0..2 {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            fake.next_queries((0..lost_at).map(|_| Act::Answer).chain([Act::cut()]));
            work(&pool, &Retry::new()).await.unwrap();
            assert_eq!(fake.statements()[lost_at + 1..], ONCE);
            assert_eq!(fake.counts().opened, 2);
        }
    });
}

#[test]
fn a_commit_that_was_not_sent_is_repeated_with_all_of_the_work() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut runs = 0;
        let policy = Retry::new();
        let done = pool.transaction(&policy, |tx| {
            runs += 1;
            let (first, fake) = (runs == 1, &fake);
            Box::pin(async move {
                tx.execute("work", &[]).await?;
                if first {
                    fake.restart();
                }
                Ok(())
            })
        });
        done.await.unwrap();
        assert_eq!(fake.statements(), ["BEGIN", "work", "BEGIN", "work", "COMMIT"]);
    });
}

/// A commit whose answer was lost may have taken effect: were it repeated, the
/// work would be done twice.
#[test]
fn a_commit_of_unknown_outcome_is_an_error_of_its_own_and_not_repeated() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        fake.next_queries([Act::Answer, Act::Answer, Act::cut()]);
        let error = work(&pool, &Retry::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::CommitUnknown, Outcome::Unknown));
        assert_eq!(error.to_string(), "it is unknown whether the transaction committed");
        let source = std::error::Error::source(&error).expect("the loss");
        assert_eq!(source.to_string(), "connection reset by peer");
        assert_eq!(fake.statements(), ONCE);
    });
}

#[test]
fn a_commit_of_unknown_outcome_is_repeated_where_twice_is_as_good_as_once() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let lost = [Act::Answer, Act::Answer, Act::cut()];
        fake.next_queries(lost.clone());
        work(&pool, &Retry::new().replay(Replay::Idempotent)).await.unwrap();
        assert_eq!(fake.statements(), [ONCE, ONCE].concat());
        fake.next_queries(lost);
        let policy = Retry::new();
        pool.transaction(&policy, |tx| Box::pin(tx.query("read", &[])))
            .options(TransactionOptions::new().access(AccessMode::ReadOnly))
            .await
            .unwrap();
        let begun = fake.statements().iter().filter(|sql| sql.ends_with("READ ONLY")).count();
        assert_eq!(begun, 2);
    });
}

#[test]
fn verifying_finds_out_what_became_of_a_commit() {
    Sim::new(1).run(async |sim| {
        for (answer, statements) in [(true, ONCE.to_vec()), (false, [ONCE, ONCE].concat())] {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            fake.next_queries([Act::Answer, Act::Answer, Act::cut()]);
            let (mut asked, policy) = (0, Retry::new());
            let value = pool
                .transaction(&policy, |tx| Box::pin(tx.execute("work", &[])))
                .verify(|pool| {
                    asked += 1;
                    async move { pool.acquire().await.map(|_| answer) }
                })
                .await;
            assert_eq!((value.unwrap(), asked), (1, 1));
            assert_eq!(fake.statements(), statements);
        }
    });
}

#[test]
fn what_cannot_be_verified_stays_unknown() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        fake.next_queries([Act::Answer, Act::Answer, Act::cut()]);
        let policy = Retry::new();
        let error = pool
            .transaction(&policy, |tx| Box::pin(tx.execute("work", &[])))
            .verify(async |_| Err(Error::connect("connection refused")))
            .await
            .unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::CommitUnknown, Outcome::Unknown));
        assert_eq!(
            error.to_string(),
            "cannot be verified (connection refused): \
             it is unknown whether the transaction committed"
        );
        assert_eq!(fake.statements(), ONCE);
    });
}

#[derive(Debug)]
struct NotEnough {
    missing: i64,
}

impl std::fmt::Display for NotEnough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} short", self.missing)
    }
}

impl std::error::Error for NotEnough {}

#[test]
fn a_reason_of_the_applications_own_rolls_back_and_comes_out() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let policy = Retry::new();
        let stopped: Result<()> = pool
            .transaction(&policy, |tx| {
                Box::pin(async {
                    tx.execute("work", &[]).await?;
                    Err(Error::aborted(NotEnough { missing: 7 }))
                })
            })
            .await;
        let error = stopped.unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Aborted, "7 short"));
        let source = std::error::Error::source(&error).expect("the reason");
        assert_eq!(source.downcast_ref::<NotEnough>().expect("as it was").missing, 7);
        assert_eq!(fake.statements(), ["BEGIN", "work", "ROLLBACK"]);
    });
}

#[test]
fn the_errors_of_all_attempts_come_out() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        fake.next_queries([Act::cut(), Act::Answer, conflict(), Act::Answer, Act::Answer]);
        fake.next_queries([refusal(Cause::LockTimeout)]);
        let error = work(&pool, &Retry::new()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed after 3 attempts: no; \
             before that: connection reset by peer; could not serialize"
        );
        assert_eq!(error.cause(), Cause::LockTimeout);
    });
}

#[test]
fn each_repetition_is_told_once_with_the_error_it_makes_up_for() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let told = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&told);
        let pool = Pool::builder(fake.clone())
            .runtime(sim.clone())
            .observer(move |event: &Event<'_>| {
                if let Event::Retried { retries, error, .. } = event {
                    writer.lock().unwrap().push(format!("{retries}: {error}"));
                }
            })
            .build()
            .await
            .unwrap();
        fake.next_queries([Act::cut(), Act::Answer, conflict()]);
        work(&pool, &Retry::new()).await.unwrap();
        fake.next_queries([refusal(Cause::Overload)]);
        pool.run(&Retry::new(), |conn| Box::pin(conn.query("mine", &[]))).await.unwrap();
        assert_eq!(
            *told.lock().unwrap(),
            ["1: connection reset by peer", "2: could not serialize", "1: no"]
        );
    });
}

#[test]
fn all_attempts_share_one_limit() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            fake.always_query(Act::FailAfter(
                MS * 30,
                Error::statement("locked").with_cause(Cause::LockTimeout),
            ));
            let policy = Retry::new().max_attempts(1000).timeout(SECOND).budget(None);
            let error = work(&pool, &policy).await.unwrap_err();
            assert!(error.earlier().len() > 1, "{error}");
            assert!(sim.elapsed() <= SECOND + MS * 60, "{:?}", sim.elapsed());
        });
    }
}

#[test]
fn a_level_that_is_asked_for_holds_for_each_attempt() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        fake.next_queries([Act::Answer, conflict()]);
        let policy = Retry::new();
        pool.transaction(&policy, |tx| Box::pin(tx.execute("work", &[])))
            .options(TransactionOptions::new().isolation(IsolationLevel::Serializable))
            .await
            .unwrap();
        let begin = "START TRANSACTION ISOLATION LEVEL SERIALIZABLE";
        assert_eq!(fake.statements(), [begin, "work", "ROLLBACK", begin, "work", "COMMIT"]);
    });
}

#[test]
fn a_transaction_that_is_dropped_anywhere_leaves_nothing_to_the_next() {
    for polls in 0..24 {
        Sim::new(polls).run(async |sim| {
            let fake = Fake::new();
            let pool = one_connection(&sim, &fake).await;
            fake.next_queries([Act::After(MS), conflict()]);
            fake.always_query(Act::After(MS));
            cancel_after(polls, work(&pool, &Retry::new())).await;
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!(pool.driver().session(&conn), Session::Clean);
            // The conflict may still be to come.
            let rows = match conn.query("mine", &[]).await {
                Ok(rows) => rows,
                Err(_) => conn.query("mine", &[]).await.unwrap(),
            };
            assert_eq!(rows.scalar::<String>().unwrap(), "mine");
        });
    }
}

#[test]
fn a_panic_in_the_work_rolls_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let own = pool.clone();
        let task = sim.task(async move {
            let policy = Retry::new();
            let work = own.transaction(&policy, |tx| {
                Box::pin(async {
                    tx.execute("work", &[]).await?;
                    panic!("in the work")
                })
            });
            let _: Result<()> = work.await;
        });
        let conn = pool.acquire().await.unwrap();
        assert_eq!(pool.driver().session(&conn), Session::Clean);
        assert!(!fake.statements().contains(&"COMMIT".to_owned()));
        drop(task);
    });
}

/// Also if the work takes no notice of the error: what it does afterwards is
/// refused, for the same reason.
#[test]
fn work_that_the_database_has_undone_is_repeated_whole() {
    Sim::new(1).run(async |sim| {
        for notices in [true, false] {
            let deadlock = Error::statement("deadlock").with_cause(Cause::Conflict);
            let driver = Undoing::with([deadlock.with_outcome(Outcome::RolledBack)]);
            let pool = Pool::builder(driver.clone()).runtime(sim.clone()).build().await.unwrap();
            let policy = Retry::new();
            let done = pool.transaction(&policy, |tx| {
                Box::pin(async move {
                    tx.execute("debit", &[]).await?;
                    let met = tx.execute("fault", &[]).await;
                    if notices {
                        met?;
                    }
                    let _ = tx.execute("credit", &[]).await;
                    Ok(())
                })
            });
            done.await.unwrap();
            assert_eq!(driver.kept(), ["debit", "fault", "credit"]);
        }
    });
}

/// It was taken for its own: verified, it panicked, for nothing had been committed.
#[test]
fn a_commit_of_another_pool_that_nobody_knows_of_is_the_works_own_affair() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let policy = Retry::new();
        let foreign = Error::commit_unknown(Error::lost("the other pool's"));
        let work = pool.transaction(&policy, |_| {
            let foreign = foreign.clone();
            Box::pin(async move { Err::<(), _>(foreign) })
        });
        let error = work.verify(async |_| Ok(true)).await.unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::CommitUnknown, 1));
        assert_eq!(fake.statements()[0], "BEGIN");
        assert!(!fake.statements().contains(&"COMMIT".to_owned()));
    });
}
