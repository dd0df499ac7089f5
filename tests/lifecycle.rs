//! What an operator does to a running pool: resize, pause, evict, retain, take
//! in and hand out. Closing is in `closing.rs`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{
    Builder, Cause, Driver, Error, ErrorKind, IdleOrder, Phase, Pool, PoolConfig, PooledConnection,
    Reset,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// As many connections at once.
async fn hold(pool: &Pool<Fake>, count: usize) -> Vec<PooledConnection<Fake>> {
    let held = join_all((0..count).map(|_| pool.acquire())).await;
    held.into_iter().map(|conn| conn.unwrap()).collect()
}

/// Has as many connections lie idle.
async fn fill(pool: &Pool<Fake>, count: usize) {
    drop(hold(pool, count).await);
    assert_eq!(pool.snapshot().idle, count);
}

// Size.

#[test]
fn lowering_the_limit_closes_the_idle_above_it_at_once_and_raising_it_opens_none() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 10).build_lazy().unwrap();
        fill(&pool, 10).await;
        pool.resize(5).unwrap();
        sim.sleep(MS).await;
        assert_eq!((fake.counts().live, pool.snapshot().max_open), (5, Some(5)));
        pool.resize(0).unwrap();
        sim.sleep(SECOND / 2).await;
        assert_eq!((fake.counts().opened, pool.snapshot().max_open), (10, None));
        assert_eq!(hold(&pool, 30).await.len(), 30);
    });
}

#[test]
fn those_in_use_above_a_lowered_limit_are_closed_as_they_come_back_though_others_wait() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 5).build_lazy().unwrap();
        let mut held = hold(&pool, 5).await;
        let waiting = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.map(|conn| conn.id()) }
        });
        sim.sleep(MS).await;
        pool.resize(2).unwrap();
        for left in [4, 3, 2] {
            held.pop();
            sim.sleep(MS).await;
            assert_eq!((fake.counts().live, pool.snapshot().waiting), (left, 1));
        }
        let next = held.pop().unwrap().id();
        assert_eq!(waiting.await.unwrap(), next, "served once the limit holds");
        assert_eq!((fake.counts().opened, fake.counts().live), (5, 2));
    });
}

/// Elsewhere a pool shrunk before its first use grows to the old limit, and one
/// shrunk and grown again beyond the new one.
#[test]
fn the_limit_of_the_moment_holds_whatever_it_was_before() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 10).build_lazy().unwrap();
        pool.resize(1).unwrap();
        let first = pool.acquire().await.unwrap();
        pool.acquire().timeout(MS * 10).await.unwrap_err();
        for limit in [2, 1, 5] {
            pool.resize(limit).unwrap();
        }
        let more = hold(&pool, 4).await;
        pool.acquire().timeout(MS * 10).await.unwrap_err();
        drop((first, more));
        assert_eq!(fake.counts().peak_live, 5);
    });
}

#[test]
fn a_connect_under_way_above_a_lowered_limit_is_closed_when_it_ends() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
        let callers: Vec<_> = (0..3)
            .map(|_| {
                let pool = pool.clone();
                sim.task(async move { pool.acquire().await.map(|conn| conn.id()) })
            })
            .collect();
        sim.sleep(MS).await;
        assert_eq!(pool.snapshot().opening, 3);
        pool.resize(1).unwrap();
        for caller in callers {
            caller.await.expect("one connection serves all three");
        }
        sim.sleep(MS).await;
        assert_eq!(pool.snapshot().open, 1);
    });
}

#[test]
fn a_limit_that_cannot_be_is_refused_and_nothing_changes() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 4).build_lazy().unwrap();
        let error = pool.resize(65_505).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid pool configuration: max_open_conns = 65505: must not exceed 65504"
        );
        assert_eq!(pool.snapshot().max_open, Some(4));
    });
}

#[test]
fn resizing_a_closed_pool_has_no_effect() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 4).build_lazy().unwrap();
        pool.close().await;
        pool.resize(9).unwrap();
        pool.pause();
        pool.resume();
        let now = pool.snapshot();
        assert_eq!((now.max_open, now.is_paused, now.is_closed), (Some(4), false, true));
        assert_eq!((pool.evict(), pool.retain(|_, _| true)), (0, vec![]));
    });
}

#[test]
fn shrinking_lowers_the_idle_limits_with_it() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 8)
            .max_idle_conns(6)
            .min_idle_conns(2)
            .build_lazy()
            .unwrap();
        pool.resize(1).unwrap();
        let expected = PoolConfig::new().max_open_conns(1).max_idle_conns(1).min_idle_conns(1);
        assert_eq!(pool.config(), expected);
        assert!(pool.config().validate().is_ok());
    });
}

// Settings.

#[test]
fn other_settings_hold_from_the_next_decision_on() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        fill(&pool, 4).await;
        pool.reconfigure(|config| {
            config.acquire_timeout(MS * 70).conn_max_idle_time(SECOND * 3).min_idle_conns(1)
        })
        .unwrap();
        sim.sleep(SECOND * 4).await;
        assert_eq!(pool.snapshot().idle, 1, "a shorter idle time");
        let _held = hold(&pool, 4).await;
        let before = sim.elapsed();
        pool.acquire().await.unwrap_err();
        assert_eq!(sim.elapsed() - before, MS * 70, "a shorter timeout");
    });
}

#[test]
fn settings_that_contradict_change_nothing() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 4).build_lazy().unwrap();
        let before = pool.config();
        for (change, expected) in [
            (
                PoolConfig::new().max_open_conns(2).max_idle_conns(3),
                "invalid pool configuration: \
                 max_idle_conns = 3: must not exceed max_open_conns (2)",
            ),
            (
                before.clone().metrics_enabled(false),
                "metrics_enabled: cannot be changed once the pool is built",
            ),
            (
                before.clone().idle_order(IdleOrder::Fifo),
                "idle_order: cannot be changed once the pool is built",
            ),
        ] {
            let error = pool.reconfigure(|_| change.clone()).unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (ErrorKind::Config, expected.to_owned()));
        }
        assert_eq!(pool.config(), before);
    });
}

// Pause.

#[test]
fn a_paused_pool_lends_nothing_and_takes_back_and_serves_when_resumed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
        let mut held = hold(&pool, 2).await;
        held.pop();
        pool.pause();
        pool.pause();
        assert!(pool.try_acquire().is_none());
        let waiting = sim.task({
            let (pool, sim) = (pool.clone(), sim.clone());
            async move {
                let conn = pool.acquire().await.unwrap();
                (conn.id(), sim.elapsed())
            }
        });
        sim.sleep(SECOND).await;
        assert_eq!(pool.snapshot().to_string(), "2 of 3 open: 1 in use, 1 idle; 1 waiting; paused");
        held.pop();
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().idle, pool.snapshot().waiting), (2, 1));
        let resumed = sim.elapsed();
        pool.resume();
        pool.resume();
        let (id, served) = waiting.await;
        assert_eq!(served, resumed);
        assert!(id <= 2 && fake.counts().opened == 2, "with one that was there");
        assert!(!pool.snapshot().is_paused && pool.try_acquire().is_some());
    });
}

#[test]
fn a_deadline_holds_during_a_pause_and_says_that_it_was_one() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).min_idle_conns(2).build_lazy().unwrap();
        pool.pause();
        let before = sim.elapsed();
        let error = pool.acquire().timeout(MS * 250).await.unwrap_err();
        assert_eq!(sim.elapsed() - before, MS * 250);
        assert_eq!(error.report().unwrap().phase, Phase::Paused);
        assert!(error.to_string().starts_with("the pool is paused, nothing lent within 250ms: "));
        assert_eq!(pool.snapshot().waiting, 0);
    });
}

#[test]
fn a_paused_pool_opens_nothing_and_fails_nobody_over_a_refusal() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let denied = Error::connect("password authentication failed").with_cause(Cause::Auth);
        fake.next_connects([Act::FailAfter(SECOND, denied)]);
        let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
        let waiting = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.map(|conn| conn.id()) }
        });
        sim.sleep(MS).await;
        pool.pause();
        sim.sleep(SECOND * 20).await;
        assert_eq!((fake.counts().opened, pool.snapshot().waiting), (0, 1));
        pool.resume();
        waiting.await.expect("the database lets us in by now");
    });
}

#[test]
fn a_paused_pool_can_be_closed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
        fill(&pool, 2).await;
        pool.pause();
        let waiting = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.map(|_| ()) }
        });
        sim.sleep(MS).await;
        assert!(pool.close().await.is_complete());
        assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(fake.counts().live, 0);
    });
}

// Out.

#[test]
fn evicting_closes_the_idle_at_once_and_those_in_use_when_they_come_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        let mut held = hold(&pool, 4).await;
        held.truncate(2);
        assert_eq!(pool.evict(), 4);
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().open, fake.counts().live), (2, 2));
        let new = pool.acquire().await.unwrap();
        assert!(new.id() > 4);
        held[0].query("still mine", &[]).await.unwrap();
        drop((held, new));
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().idle, fake.counts().live), (1, 1), "the new one stays");
    });
}

#[test]
fn the_minimum_is_opened_again_after_an_eviction_without_a_caller() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).min_idle_conns(5).build_lazy().unwrap();
        sim.sleep(SECOND).await;
        assert_eq!((pool.evict(), fake.counts().opened), (5, 5));
        sim.sleep(SECOND).await;
        assert_eq!((pool.snapshot().idle, fake.counts().opened), (5, 10));
    });
}

#[test]
fn one_connection_is_evicted_by_its_number() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 4).build_lazy().unwrap();
        let mut held = hold(&pool, 3).await;
        let (in_use, idle) = (held[0].id(), held[1].id());
        held.remove(1);
        assert!(pool.evict_one(idle) && pool.evict_one(in_use));
        assert!(!pool.evict_one(77));
        sim.sleep(MS).await;
        assert!(!pool.evict_one(idle), "it is gone");
        held.remove(0);
        sim.sleep(MS).await;
        assert_eq!(pool.snapshot().to_string(), "1 of 4 open: 1 in use, 0 idle; 0 waiting");
    });
}

#[test]
fn replacing_all_connections_interrupts_nobody() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 5)).always_query(Act::After(MS));
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        let callers: Vec<_> = (0..8)
            .map(|_| {
                let pool = pool.clone();
                sim.task(async move {
                    for _ in 0..100 {
                        pool.query("work", &[]).await.unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..5 {
            sim.sleep(MS * 20).await;
            pool.evict();
        }
        for caller in callers {
            caller.await;
        }
        assert!(fake.counts().opened >= 24 && fake.counts().peak_live <= 4);
    });
}

#[test]
fn retain_closes_exactly_those_not_wanted_and_tells_which() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 5).build_lazy().unwrap();
        let mut held = hold(&pool, 5).await;
        held.truncate(1);
        sim.sleep(MS * 30).await;
        let mut seen = Vec::new();
        let closed = pool.retain(|info, _conn| {
            assert!(info.uses == 1 && info.idle == MS * 30 && info.age >= info.idle, "{info:?}");
            seen.push(info.id);
            seen.len() % 2 == 0
        });
        seen.sort_unstable();
        assert_eq!(seen, [2, 3, 4, 5], "each idle one, once");
        assert_eq!(closed.len(), 2);
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().idle, fake.counts().live), (2, 3));
        let left = hold(&pool, 2).await;
        assert!(left.iter().all(|conn| closed.iter().all(|info| info.id != conn.id())));
    });
}

#[test]
fn retain_keeps_the_order_and_the_idle_times() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 3).build_lazy().unwrap();
        let held = hold(&pool, 3).await;
        for conn in held {
            drop(conn);
            sim.sleep(MS * 40).await;
        }
        assert!(pool.retain(|_, _| true).is_empty());
        let again = [pool.try_acquire(), pool.try_acquire(), pool.try_acquire()];
        let again = again.map(|conn| conn.expect("all are there").info());
        assert_eq!(again.map(|info| info.id), [3, 2, 1]);
        assert_eq!(again.map(|info| info.idle), [MS * 40, MS * 80, MS * 120]);
    });
}

/// Elsewhere every later call panics as well.
#[test]
fn a_panic_in_retain_costs_one_connection_and_nothing_else() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
        fill(&pool, 3).await;
        let mut asked = 0;
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            pool.retain(|_, _| {
                asked += 1;
                if asked == 2 {
                    std::panic::resume_unwind(Box::new("on purpose"));
                }
                true
            })
        }));
        assert!(panicked.is_err());
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().idle, fake.counts().live), (2, 2));
        assert_eq!(hold(&pool, 3).await.len(), 3);
    });
}

#[test]
fn a_caller_is_served_while_retain_asks() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 3).build_lazy().unwrap();
        fill(&pool, 3).await;
        pool.retain(|_, _| {
            assert!(pool.try_acquire().is_some(), "two others are idle");
            true
        });
        assert_eq!(pool.snapshot().idle, 3);
    });
}

#[test]
fn a_detached_connection_leaves_its_place_to_another() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let conn = pool.acquire().await.unwrap();
        let mut mine = conn.detach();
        let now = pool.snapshot();
        assert_eq!((now.open, now.in_use, now.created, now.closed), (0, 0, 1, 1));
        let other = pool.acquire().await.unwrap();
        assert_eq!(other.id(), 2);
        let rows = fake.query(&mut mine, "mine", &[]).await.unwrap();
        assert_eq!(rows.scalar::<String>().unwrap(), "mine");
        drop(other);
        assert!(pool.drain(SECOND).await.is_complete());
        assert_eq!(fake.counts().live, 1, "the pool closes its own only");
    });
}

#[test]
fn a_caller_that_waits_is_served_when_another_detaches() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build_lazy().unwrap();
        let conn = pool.acquire().await.unwrap();
        let waiting = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.map(|conn| conn.id()) }
        });
        sim.sleep(MS).await;
        let _mine = conn.detach();
        assert_eq!(waiting.await.unwrap(), 2);
    });
}

// In.

#[test]
fn a_connection_opened_elsewhere_joins_the_idle_and_is_checked_before_it_is_lent() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let conn = pool.acquire().await.unwrap().detach();
        assert!(pool.add(conn).is_ok());
        let now = pool.snapshot();
        assert_eq!((now.idle, now.created, now.waiting), (1, 2, 0));
        let conn = pool.acquire().await.unwrap();
        assert_eq!((conn.info().uses, fake.counts().pings, fake.counts().opened), (1, 1, 1));
    });
}

#[test]
fn a_connection_is_not_taken_in_by_a_pool_that_is_full_closed_or_cannot_use_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let spare = pool.acquire().await.unwrap().detach();
        let held = hold(&pool, 2).await;
        let (mut spare, error) = pool.add(spare).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(error.to_string(), "the pool is full: it has 2 connections (max_open_conns)");
        drop(held);
        pool.resize(3).unwrap();
        fake.query(&mut spare, "BEGIN", &[]).await.unwrap();
        let (mut spare, error) = pool.add(spare).unwrap_err();
        assert_eq!(error.to_string(), "the session is InTransaction, not clean");
        fake.query(&mut spare, "COMMIT", &[]).await.unwrap();
        pool.close().await;
        let (_spare, error) = pool.add(spare).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(pool.snapshot().open, 0);
    });
}

#[test]
fn a_caller_that_waits_gets_the_connection_that_is_taken_in() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let spare = pool.acquire().await.unwrap().detach();
        fake.always_connect(Act::refuse());
        let waiting = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.map(|conn| conn.info().uses) }
        });
        sim.sleep(MS).await;
        let mut spare = Some(spare);
        while let Some(conn) = spare.take() {
            // While a connect is under way there is no room.
            spare = pool.add(conn).err().map(|(conn, _)| conn);
            sim.sleep(MS).await;
        }
        assert_eq!(waiting.await.unwrap(), 1);
    });
}

// Handles.

#[test]
fn a_weak_handle_does_not_keep_the_pool_open() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let weak = pool.downgrade();
        let conn = weak.upgrade().expect("it is there").acquire().await.unwrap();
        drop(pool);
        sim.sleep(MS).await;
        assert!(weak.upgrade().is_none(), "though a connection is lent");
        drop(conn);
        sim.sleep(MS).await;
        assert!(weak.clone().upgrade().is_none());
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn a_handle_made_of_a_weak_one_keeps_the_pool_open() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2).build_lazy().unwrap();
        let strong = pool.downgrade().upgrade().unwrap();
        drop(pool);
        strong.acquire().await.expect("open");
        strong.close().await;
        let again = strong.downgrade().upgrade().expect("closed by hand, but there");
        assert!(again.is_closed());
    });
}

// Order and wear.

#[test]
fn by_default_the_one_used_last_is_lent_first_and_on_request_the_one_idle_longest() {
    for (order, expected) in [(IdleOrder::Lifo, [3, 2, 1]), (IdleOrder::Fifo, [1, 2, 3])] {
        Sim::new(1).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 3).idle_order(order).build_lazy().unwrap();
            for conn in hold(&pool, 3).await {
                sim.sleep(MS).await;
                drop(conn);
            }
            let ids = hold(&pool, 3).await.into_iter().map(|conn| conn.id());
            assert_eq!(ids.collect::<Vec<_>>(), expected, "{order:?}");
        });
    }
}

#[test]
fn in_either_order_the_surplus_is_trimmed_and_checks_change_no_order() {
    for order in [IdleOrder::Lifo, IdleOrder::Fifo] {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let pool = pool_of(&fake, &sim, 5)
                .idle_order(order)
                .max_idle_conns(3)
                .health_interval(SECOND * 5)
                .build_lazy()
                .unwrap();
            for conn in hold(&pool, 5).await {
                drop(conn);
                sim.sleep(MS * 20).await;
            }
            sim.sleep(SECOND * 30).await;
            assert_eq!((pool.snapshot().idle, pool.snapshot().open), (3, 3));
            let mut ids: Vec<_> = hold(&pool, 3).await.iter().map(|conn| conn.id()).collect();
            if order == IdleOrder::Lifo {
                ids.reverse();
            }
            assert_eq!(ids, [3, 4, 5], "{order:?}: those used last, in their order");
        });
    }
}

#[test]
fn a_connection_is_replaced_after_so_many_uses() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).conn_max_uses(3).build_lazy().unwrap();
        let mut lent = Vec::new();
        for _ in 0..7 {
            let conn = pool.acquire().await.unwrap();
            lent.push((conn.id(), conn.info().uses));
        }
        assert_eq!(lent, [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 1)]);
        assert_eq!(fake.counts().peak_live, 1);
    });
}

#[test]
fn uses_count_when_a_connection_goes_from_caller_to_caller_without_lying_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).conn_max_uses(2).build_lazy().unwrap();
        let callers: Vec<_> = (0..10)
            .map(|_| {
                let pool = pool.clone();
                sim.task(async move { pool.query("work", &[]).await.map(drop) })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        sim.sleep(MS).await;
        assert_eq!((fake.counts().opened, fake.counts().live), (5, 0));
    });
}

#[test]
fn what_is_attached_to_a_connection_stays_with_it() {
    #[derive(Debug, PartialEq)]
    struct Prepared(u32);
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build_lazy().unwrap();
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(conn.attached::<Prepared>(), None);
        assert_eq!(conn.attach(Prepared(7)), None);
        drop(conn);
        let mut conn = pool.acquire().await.unwrap();
        conn.attached_mut::<Prepared>().unwrap().0 += 1;
        assert_eq!(conn.attach(Prepared(1)), Some(Prepared(8)));
        assert_eq!(conn.attached::<String>(), None);
        conn.discard();
        assert_eq!(pool.acquire().await.unwrap().attached::<Prepared>(), None);
    });
}

#[test]
fn who_holds_connections_can_be_listed_at_any_time() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 3).build_lazy().unwrap();
        let _first = pool.acquire().label("first").await.unwrap();
        sim.sleep(SECOND).await;
        let _second = pool.acquire().now_or_never();
        let _second = pool.acquire().label("second").await.unwrap();
        let holders = pool.holders();
        let labels: Vec<_> = holders.iter().map(|holder| holder.label).collect();
        assert_eq!(labels, [Some("first"), Some("second")]);
        assert!(holders[0].held >= SECOND && holders[0].place.file() == file!());
    });
}

/// It came back to the idle as the rule of before had left it.
#[test]
fn a_connection_that_is_cleaned_while_the_reset_changes_is_not_lent_again() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let builder = Pool::builder(fake.clone()).max_open_conns(1).runtime(sim.clone());
        let pool = builder.build().await.unwrap();
        fake.always_reset(Act::After(MS * 50));
        let mut tx = pool.begin().await.unwrap();
        tx.query("SET colour", &[]).await.unwrap();
        drop(tx);
        assert_eq!(pool.snapshot().cleaning, 1);
        pool.reconfigure(|config| config.reset(Reset::Session)).unwrap();
        let conn = pool.acquire().await.unwrap();
        assert!(conn.settings().is_empty(), "{:?}", conn.settings());
    });
}
