//! What the pool says of itself and what it costs the server: counts that add
//! up, no connect too many, no connection left behind.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join, join_all, select};
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::testing::sim::Sim;
use millpond::{
    Acquire, Builder, ErrorKind, Pool, PoolConfig, PooledConnection, Snapshot, Transaction,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// What the documentation of [`Snapshot`] promises.
fn adds_up(now: &Snapshot) {
    assert_eq!(now.open, now.in_use + now.idle + now.checking + now.cleaning + now.closing);
    assert!(now.max_open.is_none_or(|max| now.open + now.opening <= max), "{now:#}");
    assert_eq!(now.created - now.closed, now.open as u64);
    assert_eq!(now.acquired - now.released, now.in_use as u64);
}

#[test]
fn a_lazy_pool_has_asked_for_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        sim.sleep(MINUTE).await;
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!(now.to_string(), "0 of 8 open: 0 in use, 0 idle; 0 waiting");
        assert_eq!((now.opening, now.created, now.acquired), (0, 0, 0));
        assert_eq!((now.connects_failed, now.timeouts, now.overloads), (0, 0, 0));
        assert_eq!(fake.counts().connects, 0);
    });
}

#[test]
fn a_pool_that_was_proved_has_one_idle_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).build().await.unwrap();
        assert_eq!(pool.snapshot().to_string(), "1 of 8 open: 0 in use, 1 idle; 0 waiting");
        assert_eq!((fake.counts().connects, fake.counts().pings), (1, 1));
    });
}

#[test]
fn sequential_use_never_opens_a_second_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        for _ in 0..16 {
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!(conn.id(), 1);
            conn.query("work", &[]).await.unwrap();
        }
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!((now.open, now.acquired, now.released), (1, 16, 16));
        assert_eq!(fake.counts().connects, 1);
    });
}

#[test]
fn a_hundred_tasks_over_three_connections_leave_three_idle() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::After(SECOND / 100));
            let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
            let tasks = (0..100).map(|_| {
                let (world, pool) = (sim.clone(), pool.clone());
                sim.task(async move {
                    let _conn = pool.acquire().await.unwrap();
                    adds_up(&pool.snapshot());
                    world.sleep(Duration::from_millis(world.below(10))).await;
                })
            });
            join_all(tasks.collect::<Vec<_>>()).await;
            let now = pool.snapshot();
            adds_up(&now);
            assert_eq!(now.to_string(), "3 of 3 open: 0 in use, 3 idle; 0 waiting");
            assert_eq!((now.acquired, fake.counts().connects), (100, 3));
        });
    }
}

#[test]
fn ten_rounds_of_ten_thousand_tasks_complete() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 10).build_lazy().unwrap();
        for round in 1..=10 {
            let tasks = (0..10_000).map(|_| async {
                let _conn = pool.acquire().await.unwrap();
                sim.sleep(Duration::from_millis(1)).await;
            });
            join_all(tasks).await;
            let now = pool.snapshot();
            adds_up(&now);
            assert_eq!((now.acquired, now.waiting, now.in_use), (round * 10_000, 0, 0));
        }
        assert!(fake.counts().opened <= 10);
    });
}

/// The connect ends in its own time, whatever its caller does meanwhile.
#[test]
fn a_scope_cancelled_after_the_return_costs_no_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        for _ in 0..16 {
            let scope = async {
                pool.query("work", &[]).await.unwrap();
                drop(pool.acquire().await.unwrap());
                pending::<()>().await;
            };
            select(pin!(scope), pin!(sim.sleep(SECOND / 10))).await;
        }
        assert_eq!((pool.snapshot().acquired, fake.counts().connects), (32, 1));
    });
}

#[test]
fn an_acquire_that_is_never_polled_asks_for_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        drop(pool.acquire());
        drop((pool.query("work", &[]), pool.begin(), pool.query_stream("work", &[])));
        sim.sleep(SECOND).await;
        let now = pool.snapshot();
        assert_eq!((now.acquired, now.waiting, now.opening), (0, 0, 0));
        assert_eq!(fake.counts().connects, 0);
    });
}

#[test]
fn a_connect_under_way_counts_as_opening() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let gate = Gate::new();
        fake.always_connect(Act::Wait(gate.clone()));
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        let shared = pool.clone();
        let caller = sim.task(async move { drop(shared.acquire().await.unwrap()) });
        sim.sleep(SECOND).await;
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!(now.to_string(), "0 of 8 open: 0 in use, 0 idle, 1 opening; 1 waiting");
        gate.open();
        caller.await;
        assert_eq!(pool.snapshot().to_string(), "1 of 8 open: 0 in use, 1 idle; 0 waiting");
    });
}

#[test]
fn a_connect_under_way_is_counted_beside_one_in_use() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let gate = Gate::new();
        let pool = pool_of(&fake, &sim, 8).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        fake.always_connect(Act::Wait(gate.clone()));
        assert!(pool.try_acquire().is_none());
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!(now.to_string(), "1 of 8 open: 1 in use, 0 idle, 1 opening; 0 waiting");
        drop(held);
        let now = pool.snapshot();
        assert_eq!(now.to_string(), "1 of 8 open: 0 in use, 1 idle, 1 opening; 0 waiting");
        gate.open();
        sim.sleep(SECOND).await;
        assert_eq!(pool.snapshot().idle, 2);
    });
}

#[test]
fn every_phase_of_a_connection_is_counted() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let held = join_all((0..4).map(|_| pool.acquire())).await;
        let [first, second, third, mut fourth] =
            <[_; 4]>::try_from(held).unwrap().map(Result::unwrap);
        drop(first);
        sim.sleep(SECOND * 2).await;

        fake.always_ping(Act::Hang).always_close(Act::Hang).always_reset(Act::Hang);
        assert!(pool.try_acquire().is_none(), "checked in the background");
        fourth.query("BEGIN", &[]).await.unwrap();
        drop(fourth);
        third.discard();
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!(
            now.to_string(),
            "4 of 4 open: 1 in use, 0 idle, 1 checking, 1 cleaning, 1 closing; 0 waiting"
        );
        drop(second);
    });
}

#[test]
fn batches_of_slow_queries_open_what_is_allowed_and_keep_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_query(Act::After(SECOND / 10));
        let pool = pool_of(&fake, &sim, 10).build_lazy().unwrap();
        for batch in 1..=2 {
            let start = sim.elapsed();
            for result in join_all((0..50).map(|_| pool.query("slow", &[]))).await {
                result.unwrap();
            }
            assert_eq!(sim.elapsed() - start, SECOND / 2, "ten at a time");
            let now = pool.snapshot();
            adds_up(&now);
            assert_eq!((now.idle, now.acquired), (10, batch * 50));
        }
        assert_eq!(fake.counts().connects, 10);
    });
}

#[test]
fn a_failed_connect_is_counted_and_leaves_no_trace_in_the_limit() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::refuse(), Act::Panic, Act::refuse()]);
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        drop(pool.acquire().await.unwrap());
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!((now.connects_failed, now.created, now.idle), (3, 1, 1));
    });
}

#[test]
fn clones_share_one_pool() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let clone = pool.clone();
        let held = clone.acquire().await.unwrap();
        assert_eq!(pool.snapshot(), clone.snapshot());
        assert_eq!(pool.snapshot().in_use, 1);
        drop(pool);
        sim.sleep(SECOND).await;
        assert!(!clone.is_closed());
        drop(held);
        clone.close().await;
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn the_last_handle_dropped_closes_what_is_idle() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build().await.unwrap();
        drop(join_all((0..3).map(|_| pool.acquire())).await);
        let clone = pool.clone();
        drop(pool);
        sim.sleep(SECOND / 2).await;
        assert_eq!(fake.counts().live, 3);
        drop(clone);
        sim.sleep(SECOND / 2).await;
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (0, 3));
    });
}

#[test]
fn a_guard_that_outlives_its_pool_works_on_and_closes_its_connection() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let mut guard = pool.acquire().await.unwrap();
        drop(pool.acquire().await.unwrap());
        drop(pool);
        sim.sleep(SECOND / 2).await;
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (1, 1));
        guard.query("work", &[]).await.unwrap();
        drop(guard);
        sim.sleep(SECOND / 2).await;
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (0, 2));
    });
}

#[test]
fn a_snapshot_reads_as_a_table_on_request() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).max_waiters(0).build().await.unwrap();
        for _ in 0..1200 {
            drop(pool.acquire().await.unwrap());
        }
        let _held = (pool.acquire().await.unwrap(), pool.acquire().timeout(SECOND).await);
        assert_eq!(
            format!("{:#}", pool.snapshot()),
            "\
now                     since start                 
open                1   created                    1
  in use            1   closed                     0
  idle              0   acquired               1 201
  checking          0   released               1 200
  cleaning          0   connects failed            0
  closing           0   timeouts                   0
opening             1   overloads                  1
waiting             0   leaks                      0
max open            2
waits       none
connects    1: half within 0.0ns, 99 % within 0.0ns, all within 0.0ns
holds       1200: half within 0.0ns, 99 % within 0.0ns, all within 0.0ns
statements  none"
        );
    });
}

#[test]
fn the_snapshot_of_a_closed_pool_says_so() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2).build().await.unwrap();
        pool.close().await;
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!(now.to_string(), "0 of 2 open: 0 in use, 0 idle; 0 waiting; closed");
        assert!(format!("{now:#}").starts_with("now            closed   since start"));
    });
}

#[test]
fn a_pool_without_a_limit_opens_more_than_the_default_limit() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 0).build_lazy().unwrap();
        let held = join_all((0..30).map(|_| pool.acquire())).await;
        let now = pool.snapshot();
        adds_up(&now);
        assert_eq!((now.max_open, now.in_use), (None, 30));
        assert_eq!(now.to_string(), "30 open: 30 in use, 0 idle; 0 waiting");
        assert!(format!("{now:#}").contains("max open    unlimited\n"));
        drop(held);
    });
}

#[test]
fn a_limit_alone_is_a_valid_configuration() {
    PoolConfig::new().max_open_conns(4).validate().unwrap();
    PoolConfig::new().conn_max_lifetime(SECOND).validate().unwrap();
}

/// What a builder says of contradicting settings, built either way.
fn faults(sim: &Sim, set: impl Fn(Builder<Fake>) -> Builder<Fake>) -> String {
    let error = set(pool_of(&Fake::new(), sim, 4)).build_lazy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.is_permanent());
    error.to_string()
}

#[test]
fn contradicting_settings_are_named_with_value_and_rule_all_at_once() {
    Sim::new(1).run(async |sim| {
        assert_eq!(
            faults(&sim, |builder| builder.max_idle_conns(5)),
            "invalid pool configuration: \
             max_idle_conns = 5: must not exceed max_open_conns (4)"
        );
        assert_eq!(
            faults(&sim, |builder| builder
                .conn_max_lifetime(MINUTE)
                .conn_max_idle_time(MINUTE * 2)),
            "invalid pool configuration: \
             conn_max_idle_time = 120s: must not exceed conn_max_lifetime (60s)"
        );
        assert_eq!(
            faults(&sim, |builder| {
                builder.max_idle_conns(5).min_idle_conns(6).check_timeout(Duration::ZERO)
            }),
            "invalid pool configuration: \
             max_idle_conns = 5: must not exceed max_open_conns (4); \
             min_idle_conns = 6: must not exceed max_idle_conns (5); \
             check_timeout = 0ns: must be above 0"
        );
    });
}

#[test]
fn a_wrong_configuration_is_refused_before_the_database_is_asked() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let error = pool_of(&fake, &sim, 4).max_idle_conns(5).build().await.unwrap_err();
        assert_eq!((error.kind(), fake.counts().connects), (ErrorKind::Config, 0));
    });
}

#[test]
#[cfg(not(any(feature = "tokio", feature = "smol", feature = "async-std")))]
fn without_a_runtime_the_error_names_the_features() {
    let error = Pool::builder(Fake::new()).build_lazy().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(
        error.to_string(),
        "no async runtime: build the pool inside a tokio runtime (feature `tokio`), \
         enable the feature `smol` or `async-std`, or name one with Builder::runtime"
    );
}

#[test]
fn waits_and_connects_are_timed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND / 4));
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let waiting = async { drop(pool.acquire().await.unwrap()) };
        let release = async {
            sim.sleep(SECOND * 2).await;
            drop(held);
        };
        join(waiting, release).await;
        drop(pool.acquire().await.unwrap());

        let now = pool.snapshot();
        let (waits, connects) = (now.waits.unwrap(), now.connects.unwrap());
        assert_eq!((waits.count, waits.max, waits.mean()), (1, SECOND * 2, SECOND * 2));
        assert_eq!((connects.count, connects.max, connects.total), (1, SECOND / 4, SECOND / 4));
        let table = format!("{now:#}");
        assert!(table.contains("waits       1: half within 2.0s, "), "{table}");
    });
}

#[test]
fn an_empty_a_warm_and_two_contended_acquires_are_told_apart() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(SECOND / 4));
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let told = || {
            let now = pool.snapshot();
            let waits = now.waits.unwrap();
            (now.acquired, waits.count, waits.total)
        };
        drop(pool.acquire().await.unwrap());
        assert_eq!(told(), (1, 1, SECOND / 4), "it waited for the connect");
        let held = pool.acquire().await.unwrap();
        assert_eq!(told(), (2, 1, SECOND / 4), "it did not wait");
        let contended = join_all((0..2).map(|_| async { drop(pool.acquire().await.unwrap()) }));
        let release = async {
            sim.sleep(SECOND).await;
            drop(held);
        };
        join(contended, release).await;
        assert_eq!(told(), (4, 3, SECOND * 9 / 4));
    });
}

#[test]
fn with_metrics_disabled_counts_are_kept_and_nothing_is_timed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).metrics_enabled(false).build().await.unwrap();
        drop(pool.acquire().await.unwrap());
        let now = pool.snapshot();
        assert_eq!((now.acquired, now.created), (1, 1));
        assert_eq!((now.waits, now.connects), (None, None));
        assert!(!format!("{now:#}").contains("waits"), "{now:#}");
    });
}

#[test]
fn pools_guards_and_futures_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    fn is_send_value<T: Send>(_: T) {}
    fn futures(pool: &Pool<Fake>, conn: &mut PooledConnection<Fake>) {
        is_send_value(pool.acquire());
        is_send_value(pool.query("", &[]));
        is_send_value(pool.execute("", &[]));
        is_send_value(pool.batch(""));
        is_send_value(pool.begin());
        is_send_value(pool.close());
        is_send_value(pool.drain(SECOND));
        is_send_value(conn.query("", &[]));
        is_send_value(conn.query_stream("", &[]));
        is_send_value(conn.begin());
    }
    is_send::<Pool<Fake>>();
    is_sync::<Pool<Fake>>();
    is_send::<PooledConnection<Fake>>();
    is_send::<Transaction<'static, Fake>>();
    is_send::<Acquire<'static, Fake>>();
    is_send::<Builder<Fake>>();
    is_send::<Snapshot>();
    let _ = futures;
}
