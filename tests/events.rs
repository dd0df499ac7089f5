//! What a pool tells of itself, one by one and in numbers: each thing once, in
//! order, with whom and for how long.

use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use millpond::drivers::fake::{Act, Fake};
use millpond::metrics::{Kind, Metric, Source, Value};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{Builder, CloseReason, Event, Pool};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What was told, a word and a number each.
type Told = Arc<Mutex<Vec<String>>>;

fn observed(fake: &Fake, sim: &Sim, max_open: usize) -> (Builder<Fake>, Told) {
    let told = Told::default();
    let writer = Arc::clone(&told);
    let builder = Pool::builder(fake.clone())
        .max_open_conns(max_open)
        .runtime(sim.clone())
        .observer(move |event: &Event<'_>| writer.lock().unwrap().push(say(event)));
    (builder, told)
}

fn say(event: &Event<'_>) -> String {
    match event {
        Event::Connected { connection, took, .. } => format!("{connection} connected in {took:?}"),
        Event::ConnectFailed { error, took, .. } => format!("no connect in {took:?}: {error}"),
        Event::Acquired { connection, waited, label, .. } => {
            format!("{connection} lent after {waited:?} to {}", label.unwrap_or("nobody"))
        }
        Event::AcquireFailed { label, .. } => format!("none for {}", label.unwrap_or("nobody")),
        Event::Released { connection, held, .. } => format!("{connection} back after {held:?}"),
        Event::CheckFailed { connection, error, .. } => format!("{connection} unfit: {error}"),
        Event::Statement { connection, took, error: None, .. } => {
            format!("{connection} answered in {took:?}")
        }
        Event::Statement { connection, error: Some(error), .. } => format!("{connection}: {error}"),
        Event::Retried { retries, .. } => format!("retry {retries}"),
        Event::Closed { connection, reason, .. } => {
            format!("{connection} closed: {}", reason.as_str())
        }
        Event::Leak(leak) if leak.returned => format!("{} was held", leak.connection),
        Event::Leak(leak) => format!("{} is held", leak.connection),
        other => format!("{other:?}"),
    }
}

fn take(told: &Told) -> Vec<String> {
    std::mem::take(&mut told.lock().unwrap())
}

#[test]
fn a_life_is_told_in_order_with_numbers_and_durations() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 20)).always_query(Act::After(MS * 8));
        let (builder, told) = observed(&fake, &sim, 1);
        let pool = builder.leak_after(MS * 100).build_lazy().unwrap();
        let mut conn = pool.acquire().label("checkout").await.unwrap();
        conn.query("mine", &[]).await.unwrap();
        sim.sleep(MS * 192).await;
        drop(conn);
        pool.close().await;
        let expected = [
            "1 connected in 20ms",
            "1 lent after 20ms to checkout",
            "1 answered in 8ms",
            "1 is held",
            "1 back after 200ms",
            "1 was held",
            "1 closed: pool_closed",
        ];
        let mut told = take(&told);
        // A leak that ends is told with the return, before or after it.
        told.sort_by_key(|line| expected.iter().position(|other| other == line));
        assert_eq!(told, expected);
    });
}

#[test]
fn what_goes_wrong_is_told_with_its_reason() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::refuse()]);
        let (builder, told) = observed(&fake, &sim, 1);
        let pool = builder.build_lazy().unwrap();
        let mut conn = pool.acquire().await.unwrap();
        assert_eq!(take(&told)[0], "no connect in 0ns: connection refused");
        fake.next_queries([Act::reject()]);
        conn.query("wrong", &[]).await.unwrap_err();
        pool.acquire().timeout(MS).label("hasty").await.unwrap_err();
        assert_eq!(take(&told), ["1: no such table", "none for hasty"]);
        drop(conn);
        sim.sleep(SECOND * 2).await;
        fake.next_pings([Act::cut()]);
        pool.query("mine", &[]).await.unwrap();
        let told = take(&told);
        assert!(told.contains(&"1 unfit: connection reset by peer".to_owned()), "{told:?}");
        assert!(told.contains(&"1 closed: failed_check".to_owned()), "{told:?}");
    });
}

#[test]
fn a_statement_tried_again_is_told_for_each_attempt() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let (builder, told) = observed(&fake, &sim, 1);
        let pool = builder.build().await.unwrap();
        fake.restart();
        take(&told);
        pool.query("mine", &[]).await.unwrap();
        let told = take(&told);
        let kinds: Vec<_> = told.iter().map(|line| line.split(' ').nth(1).unwrap()).collect();
        let attempts = kinds.iter().filter(|kind| **kind == "lent").count();
        assert_eq!((attempts, kinds.contains(&"1")), (2, true), "{told:?}");
    });
}

#[test]
fn a_stream_ends_with_its_last_row() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let (builder, told) = observed(&fake, &sim, 1);
        let pool = builder.build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        take(&told);
        {
            let mut rows = pin!(conn.query_stream("mine", &[]));
            rows.next().await.unwrap().unwrap();
            sim.sleep(MS * 40).await;
            assert!(take(&told).is_empty(), "not before it is read to the end");
            assert!(rows.next().await.is_none());
        }
        assert_eq!(take(&told), ["1 answered in 40ms"]);
    });
}

#[test]
fn an_observer_that_panics_harms_nobody() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone())
            .max_open_conns(1)
            .runtime(sim.clone())
            .observer(|_: &Event<'_>| resume_unwind(Box::new("the observer")))
            .build()
            .await
            .unwrap();
        for _ in 0..3 {
            pool.query("mine", &[]).await.unwrap();
        }
        assert!(pool.drain(SECOND).await.is_complete());
        assert_eq!(fake.counts().live, 0);
    });
}

/// The numbers of a metric by the word that tells its points apart.
fn numbers(pool: &Pool<Fake>, name: &str) -> Vec<(String, u64)> {
    let metric = metric(pool, name);
    let number = |value: &Value| match value {
        Value::Number(number) => *number,
        Value::Distribution(distribution) => distribution.count(),
        other => panic!("{other:?}"),
    };
    let word = |point: &millpond::metrics::Point| match point.attributes.get(1) {
        Some((_, word)) => word.to_string(),
        None => String::new(),
    };
    metric.points.iter().map(|point| (word(point), number(&point.value))).collect()
}

fn metric(pool: &Pool<Fake>, name: &str) -> Metric {
    let metrics = pool.metrics();
    metrics.into_iter().find(|metric| metric.name == name).expect(name)
}

fn number(pool: &Pool<Fake>, name: &str, word: &str) -> u64 {
    let numbers = numbers(pool, name);
    numbers.iter().find(|(other, _)| other == word).unwrap_or_else(|| panic!("{numbers:?}")).1
}

#[test]
fn closes_are_counted_by_reason_and_add_up() {
    Sim::new(1).run(async |sim| {
        let pool = Pool::builder(Fake::new())
            .max_open_conns(8)
            .conn_max_idle_time(SECOND)
            .conn_max_uses(2)
            .runtime(sim.clone())
            .build_lazy()
            .unwrap();
        pool.acquire().await.unwrap().discard();
        drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
        sim.sleep(SECOND * 2).await;
        drop(pool.acquire().await.unwrap());
        drop(pool.acquire().await.unwrap());
        drop(pool.acquire().await.unwrap());
        pool.evict();
        let _mine = pool.acquire().await.unwrap().detach();
        drop(pool.acquire().await.unwrap());
        pool.close().await;
        let reasons = [
            (CloseReason::Discarded, 1),
            (CloseReason::Idle, 2),
            (CloseReason::Uses, 1),
            (CloseReason::Evicted, 1),
            (CloseReason::Detached, 1),
            (CloseReason::PoolClosed, 1),
        ];
        for (reason, count) in reasons {
            let closed = number(&pool, "millpond.connection.closed", reason.as_str());
            assert_eq!(closed, count, "{reason:?}");
        }
        let all: u64 =
            numbers(&pool, "millpond.connection.closed").iter().map(|(_, count)| count).sum();
        assert_eq!((all, pool.snapshot().closed), (7, 7));
    });
}

#[test]
fn statements_under_way_failed_and_abandoned_are_told_apart() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).max_open_conns(2).runtime(sim.clone()).build().await;
        let pool = pool.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::Answer, Act::reject(), Act::After(SECOND), Act::After(SECOND)]);
        conn.query("well", &[]).await.unwrap();
        conn.query("badly", &[]).await.unwrap_err();
        cancel_after(1, conn.query("dropped", &[])).await;
        let running = sim.task({
            let pool = pool.clone();
            async move { pool.query("slow", &[]).await.map(drop) }
        });
        sim.sleep(MS).await;
        let of = |name| number(&pool, name, "");
        assert_eq!(of("millpond.operation.active"), 1);
        assert_eq!(of("millpond.operation.abandoned"), 1);
        assert_eq!(number(&pool, "millpond.operation.errors", "caller"), 1);
        running.await.unwrap();
        let durations = metric(&pool, "db.client.operation.duration");
        let Value::Distribution(durations) = &durations.points[0].value else { panic!("no") };
        assert_eq!((durations.count(), durations.max()), (3, SECOND));
        assert_eq!(of("millpond.operation.active"), 0);
    });
}

#[test]
fn names_and_units_are_those_of_opentelemetry() {
    Sim::new(1).run(async |sim| {
        let pool = Pool::builder(Fake::new()).name("shop").runtime(sim).build().await.unwrap();
        let standard = [
            ("db.client.operation.duration", "s", Kind::Histogram),
            ("db.client.connection.count", "{connection}", Kind::Gauge),
            ("db.client.connection.idle.max", "{connection}", Kind::Gauge),
            ("db.client.connection.idle.min", "{connection}", Kind::Gauge),
            ("db.client.connection.max", "{connection}", Kind::Gauge),
            ("db.client.connection.pending_requests", "{request}", Kind::Gauge),
            ("db.client.connection.timeouts", "{timeout}", Kind::Counter),
            ("db.client.connection.create_time", "s", Kind::Histogram),
            ("db.client.connection.wait_time", "s", Kind::Histogram),
            ("db.client.connection.use_time", "s", Kind::Histogram),
        ];
        for (name, unit, kind) in standard {
            let metric = metric(&pool, name);
            assert_eq!((metric.unit, metric.kind), (unit, kind), "{name}");
            let (attribute, pool) = &metric.points[0].attributes[0];
            assert_eq!((*attribute, &**pool), ("db.client.connection.pool.name", "shop"));
        }
        for metric in pool.metrics() {
            let ours = metric.name.starts_with("millpond.");
            assert!(ours || standard.iter().any(|(name, ..)| *name == metric.name), "{metric:?}");
        }
    });
}

#[test]
fn without_metrics_the_counts_remain() {
    Sim::new(1).run(async |sim| {
        let builder = Pool::builder(Fake::new()).metrics_enabled(false).runtime(sim);
        let pool = builder.build().await.unwrap();
        pool.query("mine", &[]).await.unwrap();
        assert_eq!(number(&pool, "millpond.acquired", ""), 1);
        assert!(pool.metrics().iter().all(|metric| metric.kind != Kind::Histogram));
    });
}
