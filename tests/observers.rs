//! What the crates `tracing` and `metrics` are told: each thing at its level,
//! with its fields; each number under its name.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata as RecorderMetadata, Recorder,
    SharedString, Unit, with_local_recorder,
};
use millpond::drivers::fake::{Act, Fake};
use millpond::metrics::{Kind, Monitor, Source, Value};
use millpond::observers::{Facade, Tracing, log, log_cluster};
use millpond::testing::sim::Sim;
use millpond::{Builder, Cluster, Event, Pool, Role};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Metadata, Subscriber};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn shop(fake: &Fake, sim: &Sim) -> Builder<Fake> {
    Pool::builder(fake.clone()).name("shop").max_open_conns(1).runtime(sim.clone())
}

/// Writes down what it is told; spans by their numbers, from 1.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    lines: Mutex<Vec<String>>,
    /// How many handles each span has.
    spans: Mutex<Vec<usize>>,
}

impl Told {
    fn say(&self, line: String) {
        self.0.lines.lock().unwrap().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lines.lock().unwrap())
    }
}

/// Fields in one line, the message first.
struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        }
        .unwrap();
    }
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "millpond"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        let id = {
            let mut spans = self.0.spans.lock().unwrap();
            spans.push(1);
            spans.len()
        };
        self.say(format!("{id} opens: {}{}", attributes.metadata().name(), fields.0));
        Id::from_u64(id as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut fields = Fields(String::new());
        values.record(&mut fields);
        self.say(format!("{} has{}", span.into_u64(), fields.0));
    }

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields(event.metadata().level().to_string());
        event.record(&mut fields);
        self.say(fields.0);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}

    fn clone_span(&self, id: &Id) -> Id {
        self.0.spans.lock().unwrap()[id.into_u64() as usize - 1] += 1;
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let is_last = {
            let mut spans = self.0.spans.lock().unwrap();
            let handles = &mut spans[id.into_u64() as usize - 1];
            *handles -= 1;
            *handles == 0
        };
        if is_last {
            self.say(format!("{} closes", id.into_u64()));
        }
        is_last
    }
}

#[test]
fn events_have_a_level_and_fields_in_the_words_of_opentelemetry() {
    let told = Told::default();
    let lines = told.clone();
    with_default(told, || {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            fake.next_connects([Act::refuse()]);
            fake.always_connect(Act::After(MS * 500));
            let builder = shop(&fake, &sim).leak_after(SECOND);
            let pool = builder.observer(Tracing::new("shop")).build_lazy().unwrap();
            let mut conn = pool.acquire().label("cart").await.unwrap();
            fake.next_queries([Act::reject()]);
            conn.query("secret", &[]).await.unwrap_err();
            pool.acquire().timeout(MS).await.unwrap_err();
            sim.sleep(SECOND * 2).await;
            drop(conn);
            pool.acquire().await.unwrap().discard();
            sim.sleep(SECOND).await;
        });
    });
    let lines = lines.take();
    let pool = "db.client.connection.pool.name=\"shop\"";
    let of_one = format!("{pool} millpond.connection.id=1");
    for expected in [
        format!(
            "WARN connect failed {pool} db.client.connection.create_time=0.0 \
             error.type=\"transport\" exception.message=connection refused"
        ),
        format!("DEBUG connected {of_one} db.client.connection.create_time=0.5"),
        format!(
            "DEBUG statement failed {of_one} db.client.operation.duration=0.0 \
             error.type=\"caller\" exception.message=no such table"
        ),
        format!("TRACE acquired {of_one}"),
        format!("DEBUG closed {of_one} millpond.close.reason=\"discarded\""),
    ] {
        assert!(lines.contains(&expected), "no {expected} in\n{}", lines.join("\n"));
    }
    let some = |level: &str, part: &str| {
        lines.iter().any(|line| line.starts_with(level) && line.contains(part))
    };
    assert!(some("DEBUG", "acquired after a wait") && some("DEBUG", "millpond.label=\"cart\""));
    assert!(some("WARN", "acquire failed") && some("WARN", "connection 1 is held"), "{lines:?}");
    assert!(some("INFO", "connection 1 was given back") && some("TRACE", "released"));
    assert!(!lines.iter().any(|line| line.contains("secret")), "no statement's text");
}

#[test]
fn statements_and_waits_are_spans_that_end_and_say_what_failed() {
    let told = Told::default();
    let lines = told.clone();
    with_default(told, || {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            let pool = shop(&fake, &sim).build().await.unwrap();
            let mut conn = pool.acquire().await.unwrap();
            assert_eq!(lines.take(), [""; 0], "a loan without a wait is no span");
            conn.query("well", &[]).await.unwrap();
            fake.next_queries([Act::reject()]);
            conn.query("badly", &[]).await.unwrap_err();
            pool.acquire().timeout(MS).label("hasty").await.unwrap_err();
        });
    });
    let statement = "statement otel.kind=\"client\" db.system.name=\"fake\" \
         db.client.connection.pool.name=\"shop\" millpond.connection.id=1";
    let told = lines.take();
    assert_eq!(
        told,
        [
            &format!("1 opens: {statement}"),
            "1 closes",
            &format!("2 opens: {statement}"),
            "2 has error.type=\"caller\"",
            "2 closes",
            "3 opens: acquire db.client.connection.pool.name=\"shop\" millpond.label=\"hasty\"",
            "3 has error.type=\"pool\"",
            "3 closes",
        ]
    );
}

#[test]
fn reports_of_a_monitor_are_logged_at_info() {
    let told = Told::default();
    let lines = told.clone();
    with_default(told, || {
        Sim::new(1).run(async |sim| {
            let pool = shop(&Fake::new(), &sim).build().await.unwrap();
            let _monitor = Monitor::start(&pool, SECOND, log).unwrap();
            sim.sleep(SECOND + MS).await;
        });
    });
    let told = lines.take();
    assert!(
        told[0].starts_with("INFO shop in 1.0s: connection.idle.max 1; connection.count idle 1"),
        "{told:?}"
    );
}

#[test]
fn what_happens_in_a_cluster_is_logged_at_the_level_of_its_urgency() {
    let told = Told::default();
    with_default(told.clone(), || {
        Sim::new(7).run(async |sim| {
            let (a, b) = (Fake::new(), Fake::new());
            a.becomes(Role::Primary).timeline(1).of_cluster("7");
            b.follow(&a).timeline(1).of_cluster("7");
            let cluster = Cluster::builder()
                .node("a", Pool::builder(a.clone()))
                .node("b", Pool::builder(b.clone()))
                .runtime(sim.clone())
                .on_event(log_cluster)
                .build()
                .await
                .unwrap();
            b.restart().always_connect(Act::refuse());
            sim.sleep(SECOND * 10).await;
            b.always_connect(Act::Answer).of_cluster("8");
            sim.sleep(SECOND * 10).await;
            cluster.leave("b").await.unwrap();
        });
    });
    let told = told.take();
    for line in [
        "INFO a is used millpond.node=\"a\"",
        "INFO b has left millpond.node=\"b\"",
        "ERROR b is of cluster 8, not 7, and is not used millpond.node=\"b\"",
    ] {
        assert!(told.iter().any(|told| told == line), "{line}: {told:#?}");
    }
    assert!(told.iter().any(|line| line.starts_with("WARN b is out")), "{told:#?}");
}

#[test]
fn each_observer_is_told_and_none_harms_another() {
    Sim::new(1).run(async |sim| {
        let told = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&told);
        let pool = shop(&Fake::new(), &sim)
            .observer(|_: &Event<'_>| std::panic::resume_unwind(Box::new("the first")))
            .observer(move |_: &Event<'_>| *counter.lock().unwrap() += 1)
            .build()
            .await
            .unwrap();
        pool.query("mine", &[]).await.unwrap();
        assert_eq!(*told.lock().unwrap(), 4, "connected, acquired, statement, released");
    });
}

/// Keeps what it is told, by name and labels.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<BTreeMap<String, Number>>>);

#[derive(Debug, Clone)]
enum Number {
    Atomic(Arc<AtomicU64>),
    Durations(Arc<Durations>),
}

#[derive(Debug, Default)]
struct Durations(Mutex<Vec<f64>>);

impl HistogramFn for Durations {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

impl Kept {
    fn number(&self, key: &Key, new: fn() -> Number) -> Number {
        let mut numbers = self.0.lock().unwrap();
        numbers.entry(say(key)).or_insert_with(new).clone()
    }

    fn atomic(&self, key: &Key) -> Arc<AtomicU64> {
        match self.number(key, || Number::Atomic(Arc::default())) {
            Number::Atomic(number) => number,
            Number::Durations(_) => panic!("{key} is a histogram"),
        }
    }
}

fn say(key: &Key) -> String {
    let labels: Vec<_> =
        key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
    format!("{} {}", key.name(), labels.join(" "))
}

impl Recorder for Kept {
    fn describe_counter(&self, _key: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn describe_gauge(&self, _key: KeyName, _unit: Option<Unit>, _text: SharedString) {}

    fn describe_histogram(&self, _key: KeyName, unit: Option<Unit>, _text: SharedString) {
        assert_eq!(unit, Some(Unit::Seconds));
    }

    fn register_counter(&self, key: &Key, _metadata: &RecorderMetadata<'_>) -> Counter {
        Counter::from_arc(self.atomic(key))
    }

    fn register_gauge(&self, key: &Key, _metadata: &RecorderMetadata<'_>) -> Gauge {
        Gauge::from_arc(self.atomic(key))
    }

    fn register_histogram(&self, key: &Key, _metadata: &RecorderMetadata<'_>) -> Histogram {
        match self.number(key, || Number::Durations(Arc::default())) {
            Number::Durations(durations) => Histogram::from_arc(durations),
            Number::Atomic(_) => panic!("{key} is no histogram"),
        }
    }
}

#[test]
fn the_facade_is_told_every_number_under_its_name() {
    let kept = Kept::default();
    with_local_recorder(&kept, || {
        Sim::new(1).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::After(MS * 20)).always_query(Act::After(MS * 8));
            let pool = shop(&fake, &sim).observer(Facade::new("shop")).build_lazy().unwrap();
            pool.query("well", &[]).await.unwrap();
            fake.next_queries([Act::reject()]);
            pool.query("badly", &[]).await.unwrap_err();
            for _ in 0..2 {
                Facade::publish(&pool);
            }
            let numbers = kept.0.lock().unwrap();
            let number = |name: &str| &numbers[name];
            for metric in pool.metrics() {
                for point in &metric.points {
                    let labels: Vec<_> = point
                        .attributes
                        .iter()
                        .map(|(key, value)| format!("{key}={value}"))
                        .collect();
                    let name = format!("{} {}", metric.name, labels.join(" "));
                    match (metric.kind, &point.value) {
                        (Kind::Histogram, _) => {}
                        (kind, Value::Number(expected)) => {
                            let Number::Atomic(told) = number(&name) else { panic!("{name}") };
                            let told = told.load(Ordering::Relaxed);
                            let is_gauge = kind == Kind::Gauge;
                            let told = if is_gauge { f64::from_bits(told) as u64 } else { told };
                            assert_eq!(told, *expected, "{name}");
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            let pool = "db.client.connection.pool.name=shop";
            for (name, expected) in [
                (format!("db.client.connection.create_time {pool}"), vec![0.02]),
                (format!("db.client.connection.wait_time {pool}"), vec![0.02]),
                (format!("db.client.connection.use_time {pool}"), vec![0.008, 0.0]),
                (format!("db.client.operation.duration {pool}"), vec![0.008]),
                (format!("db.client.operation.duration {pool} error.type=caller"), vec![0.0]),
            ] {
                let Number::Durations(told) = number(&name) else { panic!("{name}") };
                assert_eq!(*told.0.lock().unwrap(), expected, "{name}");
            }
        });
    });
}
