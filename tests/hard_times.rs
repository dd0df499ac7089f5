//! Silence, lateness and full servers, as those see them who watch a pool and
//! those who try again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::future::{Either, select};
use millpond::drivers::fake::{Act, Fake};
use millpond::health::{HealthChecker, HealthConfig};
use millpond::metrics::{Metric, Monitor, Source, Value};
use millpond::testing::sim::Sim;
use millpond::{Cause, Error, Event, Pool, Retry, WeakPool};

const SECOND: Duration = Duration::from_secs(1);

fn shortest(metrics: &[Metric]) -> u64 {
    let uses = metrics.iter().find(|m| m.name == "db.client.connection.use_time").unwrap();
    let Value::Distribution(all) = &uses.points[0].value else { panic!() };
    all.cumulative(&[Duration::from_micros(100)])[0]
}

#[test]
fn the_bucket_of_short_loans_never_falls() {
    Sim::new(1).run(async |sim| {
        let weak: Arc<OnceLock<WeakPool<Fake>>> = Arc::default();
        let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
        let (watched, told) = (Arc::clone(&weak), Arc::clone(&seen));
        let observer = move |event: &Event<'_>| {
            if let (Event::Released { .. }, Some(pool)) = (event, watched.get()) {
                told.lock().unwrap().push(shortest(&pool.metrics()));
            }
        };
        let pool = Pool::builder(Fake::new())
            .max_open_conns(1)
            .runtime(sim.clone())
            .observer(observer)
            .build()
            .await
            .unwrap();
        for _ in 0..5 {
            drop(pool.acquire().await.unwrap());
        }
        let before = shortest(&pool.metrics());
        weak.set(pool.downgrade()).ok().unwrap();
        let conn = pool.acquire().await.unwrap();
        sim.sleep(SECOND).await;
        drop(conn);
        let during = seen.lock().unwrap()[0];
        let after = shortest(&pool.metrics());
        assert!(before <= during && during <= after, "{before}, then {during}, then {after}");
    });
}

#[test]
fn no_report_begins_once_a_monitor_is_stopped() {
    for seed in 0..50 {
        Sim::new(seed).run(async |sim| {
            let pool = Pool::builder(Fake::new()).runtime(sim.clone()).build().await.unwrap();
            let stopped = Arc::new(AtomicBool::new(false));
            let late = Arc::new(AtomicBool::new(false));
            let (is_stopped, is_late) = (Arc::clone(&stopped), Arc::clone(&late));
            let monitor = Monitor::start(&pool, SECOND, move |_| {
                is_late.fetch_or(is_stopped.load(Ordering::SeqCst), Ordering::SeqCst);
            })
            .unwrap();
            sim.sleep(SECOND).await;
            monitor.stop();
            stopped.store(true, Ordering::SeqCst);
            sim.sleep(SECOND).await;
            assert!(!late.load(Ordering::SeqCst), "seed {seed}: a report began after the stop");
        });
    }
}

#[test]
fn a_node_without_room_that_is_not_ready_says_why() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).runtime(sim.clone()).build().await.unwrap();
        let full = Error::connect("too many connections").with_cause(Cause::Overload);
        fake.always_connect(Act::Fail(full));
        let health = HealthChecker::start(&pool, HealthConfig::new()).unwrap();
        let status = health.check_now().await;
        assert!(!status.is_ready());
        let (code, body) = status.answer();
        assert_eq!(code, 503);
        assert!(body.contains("too many connections"), "{body} / {status}");
    });
}

#[test]
fn work_that_gives_up_on_a_silent_server_is_not_held_up_by_the_rollback() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).max_open_conns(1).runtime(sim.clone());
        let pool = pool.build().await.unwrap();
        // BEGIN is answered, then the server falls silent.
        fake.next_queries([Act::Answer]).always_query(Act::Hang);
        let policy = Retry::new().timeout(SECOND * 2);
        let here = sim.clone();
        let work = pool.transaction(&policy, |tx| {
            let here = here.clone();
            Box::pin(async move {
                let limit = Box::pin(async { here.sleep(SECOND).await });
                match select(Box::pin(tx.execute("slow", &[])), limit).await {
                    Either::Left((done, _)) => done,
                    Either::Right(_) => Err(Error::aborted("enough")),
                }
            })
        });
        let limit = Box::pin(async { sim.sleep(SECOND * 3600).await });
        let ended = select(std::future::IntoFuture::into_future(work), limit).await;
        assert!(matches!(ended, Either::Left(_)), "still waits after an hour");
    });
}

#[test]
fn a_probe_on_a_forgotten_idle_connection_is_asked_again_on_a_new_one() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).runtime(sim.clone()).build().await.unwrap();
        let config = HealthConfig::new().interval(SECOND * 600).unhealthy_after(1);
        let health = HealthChecker::start(&pool, config).unwrap();
        assert!(health.check_now().await.is_ready());
        // Only the old connection is silent: the next asks on a new one are answered.
        fake.next_pings([Act::Hang]);
        let status = health.check_now().await;
        assert!(status.is_ready(), "{status}");
    });
}
