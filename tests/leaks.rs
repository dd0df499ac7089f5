//! Connections that are held for too long: told once, with who and where, and
//! never taken away.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use millpond::drivers::fake::Fake;
use millpond::testing::sim::Sim;
use millpond::{Leak, Pool, WeakPool};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What a pool has told, and when, by the simulated clock.
type Told = Arc<Mutex<Vec<(Duration, Leak)>>>;

fn pool_of(sim: &Sim, leak_after: Duration) -> (Pool<Fake>, Told) {
    let told = Told::default();
    let pool = Pool::builder(Fake::new())
        .max_open_conns(3)
        .leak_after(leak_after)
        .on_leak({
            let (told, sim) = (Arc::clone(&told), sim.clone());
            move |leak| told.lock().unwrap().push((sim.elapsed(), leak.clone()))
        })
        .runtime(sim.clone())
        .build_lazy()
        .unwrap();
    (pool, told)
}

#[test]
fn a_loan_is_reported_once_at_its_time_with_place_and_label() {
    Sim::new(1).run(async |sim| {
        let (pool, told) = pool_of(&sim, SECOND * 30);
        sim.sleep(SECOND * 10).await;
        let mut held = pool.acquire().label("checkout-service").await.unwrap();
        let taken = line!() - 1;
        sim.sleep(SECOND * 30 + MS).await;
        {
            let told = told.lock().unwrap();
            let (at, leak) = &told[0];
            assert_eq!((told.len(), *at), (1, SECOND * 40));
            assert_eq!(
                leak.to_string(),
                format!(
                    "connection 1 is held for 30s by \"checkout-service\" at tests/leaks.rs:{taken}:29"
                )
            );
        }
        sim.sleep(SECOND * 300).await;
        assert_eq!((told.lock().unwrap().len(), pool.snapshot().leaks), (1, 1));
        held.query("still mine", &[]).await.expect("never taken away");
    });
}

#[test]
fn the_return_of_a_reported_connection_is_told_as_well() {
    Sim::new(1).run(async |sim| {
        let (pool, told) = pool_of(&sim, SECOND);
        let held = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 4).await;
        drop(held);
        let told = told.lock().unwrap();
        let (at, leak) = told.last().unwrap();
        assert_eq!((told.len(), *at, leak.returned), (2, SECOND * 4, true));
        assert!(leak.to_string().starts_with("connection 1 was given back, held for 4s at "));
    });
}

#[test]
fn loans_that_end_in_time_are_not_reported_however_many_there_are() {
    Sim::new(1).run(async |sim| {
        let (pool, told) = pool_of(&sim, SECOND);
        for _ in 0..100 {
            let held = pool.acquire().await.unwrap();
            sim.sleep(MS * 900).await;
            drop(held);
        }
        assert!(told.lock().unwrap().is_empty());
    });
}

/// The connection is there already when the loan begins, so nothing but the
/// loan itself could tell the keeper.
#[test]
fn each_loan_of_a_connection_is_reported_for_itself_and_on_time() {
    Sim::new(1).run(async |sim| {
        let (pool, told) = pool_of(&sim, SECOND * 10);
        let mut due = Vec::new();
        for pause in [3, 7, 1] {
            sim.sleep(SECOND * pause).await;
            let held = pool.acquire().await.unwrap();
            due.push(sim.elapsed() + SECOND * 10);
            sim.sleep(SECOND * 12).await;
            drop(held);
        }
        let told = told.lock().unwrap();
        let at: Vec<_> =
            told.iter().filter(|(_, leak)| !leak.returned).map(|(at, _)| *at).collect();
        assert_eq!(at, due);
    });
}

#[test]
fn a_limit_set_on_a_running_pool_reports_those_who_hold_already() {
    Sim::new(1).run(async |sim| {
        let (pool, told) = pool_of(&sim, Duration::ZERO);
        let _held = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 60).await;
        assert!(told.lock().unwrap().is_empty(), "off");
        pool.reconfigure(|config| config.leak_after(SECOND * 5)).unwrap();
        sim.sleep(SECOND * 6).await;
        assert_eq!(told.lock().unwrap().len(), 1);
    });
}

#[test]
fn a_pool_at_rest_wakes_no_more_than_once_for_each_such_time() {
    Sim::new(1).run(async |sim| {
        let (pool, _told) = pool_of(&sim, SECOND * 60);
        drop(pool.acquire().await.unwrap());
        sim.sleep(SECOND).await;
        let before = sim.polls();
        sim.sleep(SECOND * 540).await;
        assert!(sim.polls() - before < 80, "{} polls", sim.polls() - before);
    });
}

/// The listener is called outside the lock.
#[test]
fn a_listener_may_evict_what_it_is_told_of() {
    Sim::new(1).run(async |sim| {
        let home: Arc<OnceLock<WeakPool<Fake>>> = Arc::default();
        let pool = Pool::builder(Fake::new())
            .max_open_conns(1)
            .leak_after(SECOND)
            .on_leak({
                let home = Arc::clone(&home);
                move |leak| {
                    let pool = home.get().and_then(WeakPool::upgrade).expect("it is there");
                    assert_eq!(pool.snapshot().leaks, 1);
                    pool.evict_one(leak.connection);
                }
            })
            .runtime(sim.clone())
            .build()
            .await
            .unwrap();
        home.set(pool.downgrade()).expect("set once");
        let mut held = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 2).await;
        held.query("still mine", &[]).await.unwrap();
        drop(held);
        assert_eq!(pool.acquire().await.unwrap().id(), 2);
    });
}
