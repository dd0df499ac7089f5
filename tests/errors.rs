//! What an error says when an acquire fails: the phase, the database's last
//! word, who holds what. The texts of the plain cases are in `deadlines.rs`.

use std::error::Error as _;
use std::pin::pin;
use std::time::Duration;

use futures_util::poll;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, Error, Pool};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

#[test]
fn a_borrower_without_a_label_is_named_by_its_place() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build_lazy().unwrap();
        drop(pool.acquire().label("earlier").await.unwrap());
        let _held = pool.acquire().await.unwrap();
        let error = pool.acquire().timeout(MS * 200).await.unwrap_err();
        let place = error.report().and_then(|report| report.oldest.clone()).unwrap().place;
        assert!(error.to_string().ends_with(&format!("; oldest held for 200ms at {place}")));
    });
}

#[test]
fn the_source_is_the_last_refusal_not_the_first() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::refuse()]);
        fake.always_connect(Act::Fail(Error::connect("the database system is starting up")));
        let error = pool_of(&fake, &sim, 4)
            .build_lazy()
            .unwrap()
            .acquire()
            .timeout(SECOND)
            .await
            .unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "the database system is starting up");
    });
}

#[test]
fn a_connect_without_an_answer_is_told() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Hang);
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        let error = pool.acquire().timeout(MS * 400).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "no connection opened within 400ms: 0 of 4 in use, 0 idle, 1 opening, 1 waiting"
        );
        let error = pool.acquire().timeout(SECOND * 9).await.unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), "no answer from the database within 5s");
    });
}

/// Elsewhere what the check met is forgotten, and "timed out" is all one reads.
#[test]
fn what_the_last_check_met_is_the_source() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        drop(pool.acquire().await.unwrap());
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::cut()).always_connect(Act::Hang);
        let error = pool.acquire().timeout(MS * 400).await.unwrap_err();
        let source = error.source().expect("the error of the check").to_string();
        assert_eq!(source, "connection reset by peer");
    });
}

#[test]
fn a_cleaning_under_way_is_told() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::Hang);
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        pool.query("BEGIN", &[]).await.unwrap();
        assert_eq!(
            pool.acquire().timeout(MS * 400).await.unwrap_err().to_string(),
            "no connection free within 400ms: \
             0 of 1 in use, 0 idle, 0 opening, 1 cleaning, 1 waiting"
        );
    });
}

#[test]
fn a_caller_that_does_not_wait_is_told_the_same() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build_lazy().unwrap();
        let _held = pool.acquire().await.unwrap();
        sim.sleep(SECOND).await;
        let text = pool.acquire().timeout(Duration::ZERO).await.unwrap_err().to_string();
        let start = "no connection free within 0ns: \
                     1 of 1 in use, 0 idle, 0 opening, 1 waiting; oldest held for 1s at ";
        assert!(text.starts_with(start), "{text}");
    });
}

#[test]
fn an_overloaded_pool_says_by_which_limit() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).max_waiters(2).build_lazy().unwrap();
        let _held = pool.acquire().await.unwrap();
        let mut waiters = [pin!(pool.acquire()), pin!(pool.acquire())];
        for waiter in &mut waiters {
            assert!(poll!(waiter).is_pending());
        }
        assert_eq!(
            pool.acquire().await.unwrap_err().to_string(),
            "2 callers wait for a connection already (max_waiters)"
        );
    });
}

#[test]
fn a_pool_that_is_full_does_not_blame_an_outage_that_is_over() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::refuse()]);
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let _held = pool.acquire().await.unwrap();
        let error = pool.acquire().timeout(MS * 100).await.unwrap_err();
        assert!(error.source().is_none(), "{error:?}");
        assert_eq!(error.report().unwrap().failed_connects, 0);
    });
}

#[test]
fn a_panic_that_goes_on_is_the_source_of_the_timeout() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::Panic);
        let error = pool_of(&fake, &sim, 1)
            .build_lazy()
            .unwrap()
            .acquire()
            .timeout(SECOND)
            .await
            .unwrap_err();
        let source = error.source().expect("the panic").to_string();
        assert_eq!(source, "the driver panicked: the fake driver was told to panic");
    });
}
