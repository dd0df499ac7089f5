//! The numbers agree with what has happened: each thing counted once, whatever
//! its kind and its end.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use millpond::drivers::Any;
use millpond::drivers::fake::{Act, Fake, Faults};
use millpond::metrics::{Metric, Source, Timings, Value, openmetrics};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{Pool, PoolRegistry};

const MS: Duration = Duration::from_millis(1);

/// The sum of a metric's numbers, or of those with this word.
fn number(source: &dyn Source, name: &str, word: &str) -> u64 {
    number_of(&source.metrics(), name, word)
}

fn number_of(metrics: &[Metric], name: &str, word: &str) -> u64 {
    let metric = metrics.iter().find(|metric| metric.name == name).expect(name);
    let named = metric
        .points
        .iter()
        .filter(|point| word.is_empty() || point.attributes.iter().any(|(_, value)| value == word));
    let numbers = named.map(|point| match &point.value {
        Value::Number(number) => *number,
        other => panic!("{name}: {other:?}"),
    });
    numbers.sum()
}

fn statements(pool: &Pool<Fake>) -> Timings {
    pool.snapshot().statements.expect("metrics are on")
}

async fn one_connection(sim: &Sim, fake: &Fake) -> Pool<Fake> {
    let builder = Pool::builder(fake.clone()).max_open_conns(1).runtime(sim.clone());
    builder.build().await.unwrap()
}

/// The seed's bugs 13 and 14: a query counted as over, and its time as taken,
/// before its rows were read.
#[test]
fn a_stream_is_under_way_until_its_last_row_and_takes_that_long() {
    Sim::new(1).run(async |sim| {
        let pool = one_connection(&sim, &Fake::new()).await;
        let mut conn = pool.acquire().await.unwrap();
        {
            let mut rows = pin!(conn.query_stream("mine", &[]));
            rows.next().await.unwrap().unwrap();
            sim.sleep(MS * 40).await;
            assert_eq!(number(&pool, "millpond.operation.active", ""), 1);
            assert_eq!(statements(&pool).count, 0);
            assert!(rows.next().await.is_none());
        }
        assert_eq!(number(&pool, "millpond.operation.active", ""), 0);
        assert_eq!(statements(&pool).total, MS * 40);
    });
}

/// Bug 15: failures counted as completed, errors of rows as none, and callers
/// that gave up as errors.
#[test]
fn failures_are_counted_by_cause_and_callers_that_give_up_are_none() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::reject(), Act::reject(), Act::After(MS), Act::cut()]);
        conn.query("mine", &[]).await.unwrap_err();
        {
            let mut rows = pin!(conn.query_stream("mine", &[]));
            rows.next().await.unwrap().unwrap_err();
        }
        cancel_after(1, conn.query("mine", &[])).await;
        assert_eq!(number(&pool, "millpond.operation.errors", ""), 2);
        assert_eq!(number(&pool, "millpond.operation.errors", "caller"), 2);
        assert_eq!(number(&pool, "millpond.operation.abandoned", ""), 1);
        conn.query("mine", &[]).await.unwrap_err();
        assert_eq!(number(&pool, "millpond.operation.errors", "transport"), 1);
        assert_eq!(number(&pool, "millpond.operation.active", ""), 0);
    });
}

/// Bug 16: only queries were measured.
#[test]
fn whatever_runs_on_a_connection_is_measured() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = one_connection(&sim, &fake).await;
        let mut seen = statements(&pool).count;
        let mut one_more = |what: &str, count: u64| {
            let now = statements(&pool).count;
            assert_eq!(now - seen, count, "{what}");
            seen = now;
        };
        let mut conn = pool.acquire().await.unwrap();
        conn.execute("mine", &[]).await.unwrap();
        one_more("execute", 1);
        conn.batch("mine; yours").await.unwrap();
        one_more("batch", 1);
        conn.ping().await.unwrap();
        one_more("ping", 1);
        let transaction = conn.begin().await.unwrap();
        one_more("begin", 1);
        transaction.commit().await.unwrap();
        one_more("commit", 1);
        let transaction = conn.begin().await.unwrap();
        transaction.rollback().await.unwrap();
        one_more("begin and rollback", 2);
    });
}

/// Bug 18: the factory and the manager had metrics that nobody wrote.
#[test]
fn a_registry_tells_of_each_of_its_pools_by_name() {
    Sim::new(1).run(async |sim| {
        let registry = PoolRegistry::new();
        for name in ["main", "reports", "unused"] {
            let sim = sim.clone();
            let make = move || Ok(Pool::builder(Any::new(Fake::new())).runtime(sim.clone()));
            registry.register(name, make).unwrap();
        }
        assert!(registry.metrics().is_empty(), "nothing is built");
        registry.get("main").await.unwrap().query("mine", &[]).await.unwrap();
        registry.get("reports").await.unwrap();
        let loans = ["main", "reports"].map(|name| number(&registry, "millpond.acquired", name));
        assert_eq!(loans, [1, 0]);
        let names = registry.metrics();
        let mut names: Vec<_> = names.iter().map(|metric| metric.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "each name once");
        let text = openmetrics(&[&registry]);
        assert!(text.contains(r#"pool_name="reports"} 0"#) && !text.contains("unused"), "{text}");
    });
}

/// At each moment of a pool under load and faults, in the numbers that leave it.
#[test]
fn what_is_exported_adds_up_at_every_moment() {
    for seed in 0..30 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let mut faults = Faults::each(MS * 5, 20);
            // Either would end the caller.
            (faults.hang, faults.panic) = (0.0, 0.0);
            fake.faults(faults);
            let pool = Pool::builder(fake.clone())
                .max_open_conns(3)
                .acquire_timeout(MS * 40)
                .conn_max_uses(7)
                .runtime(sim.clone())
                .build_lazy()
                .unwrap();
            let callers: Vec<_> = (0..8)
                .map(|_| {
                    let (pool, here) = (pool.clone(), sim.clone());
                    sim.task(async move {
                        for _ in 0..20 {
                            let polls = here.below(12);
                            match here.below(3) {
                                0 => drop(cancel_after(polls, pool.query("mine", &[])).await),
                                1 => drop(pool.acquire().await),
                                _ => drop(pool.query("mine", &[]).await),
                            }
                            here.sleep(MS * here.below(20) as u32).await;
                        }
                    })
                })
                .collect();
            let adds_up = || {
                let now = pool.metrics();
                let number = |name, word| number_of(&now, name, word);
                let open = number("db.client.connection.count", "");
                let state = |word| number("millpond.connection.count", word);
                let all = state("");
                assert_eq!(all - state("opening"), open);
                assert_eq!(state("idle"), number("db.client.connection.count", "idle"));
                let gone = number("millpond.connection.closed", "") - state("closing");
                assert_eq!(number("millpond.connection.created", "") - gone, open);
                let out = number("millpond.acquired", "") - number("millpond.released", "");
                assert_eq!(out, state("in_use"));
                assert!(all <= number("db.client.connection.max", ""));
            };
            for _ in 0..200 {
                adds_up();
                sim.sleep(MS * 3).await;
            }
            for caller in callers {
                caller.await;
            }
            adds_up();
            assert_eq!(number(&pool, "millpond.operation.active", ""), 0);
            assert_eq!(number(&pool, "db.client.connection.pending_requests", ""), 0);
        });
    }
}
