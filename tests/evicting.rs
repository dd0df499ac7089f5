//! What is evicted goes, wherever it is at that moment. Evicting the idle and the
//! borrowed is in `lifecycle.rs`.

use std::time::Duration;

use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, Pool};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

#[test]
fn what_is_checked_or_cleaned_when_all_are_evicted_is_closed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let (mut soiled, idle) = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        drop(idle);
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::After(SECOND / 2)).always_reset(Act::After(SECOND / 2));
        assert!(pool.try_acquire().is_none());
        soiled.query("BEGIN", &[]).await.unwrap();
        drop(soiled);
        assert_eq!((pool.snapshot().checking, pool.snapshot().cleaning), (1, 1));
        assert_eq!(pool.evict(), 2);
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().open, fake.counts().live), (0, 0));
    });
}

#[test]
fn a_connection_evicted_while_its_hook_is_asked_is_not_lent() {
    Sim::new(1).run(async |sim| {
        let clock = sim.clone();
        let pool = pool_of(&Fake::new(), &sim, 1)
            .before_acquire(move |_| {
                let clock = clock.clone();
                Box::pin(async move {
                    clock.sleep(MS * 10).await;
                    Ok(())
                })
            })
            .build()
            .await
            .unwrap();
        let caller = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.unwrap().id() }
        });
        sim.sleep(MS * 5).await;
        assert_eq!(pool.evict(), 1);
        assert_eq!(caller.await, 2);
    });
}

#[test]
fn what_is_opened_after_an_eviction_is_kept() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2).build().await.unwrap();
        pool.evict();
        drop(pool.acquire().await.unwrap());
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().idle, pool.acquire().await.unwrap().id()), (1, 2));
    });
}

#[test]
fn a_connect_under_way_when_all_are_evicted_is_closed_when_it_ends() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        assert!(pool.try_acquire().is_none());
        sim.sleep(MS).await;
        assert_eq!(pool.snapshot().opening, 1);
        pool.evict();
        sim.sleep(SECOND * 2).await;
        assert_eq!((pool.snapshot().open, fake.counts().live), (0, 0));
    });
}
