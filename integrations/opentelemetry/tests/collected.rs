//! What an exporter gets: names, units, attributes and numbers of the pool.

use std::collections::BTreeMap;
use std::time::Duration;

use millpond::Pool;
use millpond::drivers::fake::{Act, Fake};
use millpond::metrics::{BOUNDS, Kind, Source, Value};
use millpond::testing::sim::Sim;
use millpond_opentelemetry::{Durations, register};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};

const MS: Duration = Duration::from_millis(1);

/// A metric as it was collected: its unit, and a number for each set of
/// attributes.
type Collected = BTreeMap<String, (String, BTreeMap<String, f64>)>;

struct Exported {
    provider: SdkMeterProvider,
    exporter: InMemoryMetricExporter,
}

impl Exported {
    fn new() -> Self {
        let exporter = InMemoryMetricExporter::default();
        let reader = PeriodicReader::builder(exporter.clone()).build();
        Self { provider: SdkMeterProvider::builder().with_reader(reader).build(), exporter }
    }

    fn collect(&self) -> Collected {
        self.exporter.reset();
        self.provider.force_flush().unwrap();
        let mut all = Collected::new();
        for resource in self.exporter.get_finished_metrics().unwrap() {
            for metric in resource.scope_metrics().flat_map(|scope| scope.metrics()) {
                let points = points(metric.data());
                all.insert(metric.name().to_owned(), (metric.unit().to_owned(), points));
            }
        }
        all
    }
}

fn say<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut words: Vec<_> = attributes.map(|word| format!("{}={}", word.key, word.value)).collect();
    words.sort();
    words.join(" ")
}

/// The numbers of gauges and counters, the counts of histograms.
fn points(data: &AggregatedMetrics) -> BTreeMap<String, f64> {
    match data {
        AggregatedMetrics::U64(MetricData::Sum(sum)) => {
            assert!(sum.is_monotonic());
            sum.data_points().map(|point| (say(point.attributes()), point.value() as f64)).collect()
        }
        AggregatedMetrics::I64(MetricData::Sum(sum)) => {
            assert!(!sum.is_monotonic());
            sum.data_points().map(|point| (say(point.attributes()), point.value() as f64)).collect()
        }
        AggregatedMetrics::F64(MetricData::Histogram(histogram)) => histogram
            .data_points()
            .map(|point| {
                assert!(point.bounds().eq(BOUNDS));
                (say(point.attributes()), point.count() as f64)
            })
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn names_units_attributes_and_numbers_are_those_of_the_pool() {
    Sim::new(1).run(async |sim| {
        let exported = Exported::new();
        let meter = exported.provider.meter("millpond");
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 20));
        let durations = Durations::new(&meter, "shop", "fake");
        let builder = Pool::builder(fake.clone()).name("shop").max_open_conns(1);
        let pool = builder.runtime(sim).observer(durations).build_lazy().unwrap();
        register(&meter, pool.downgrade());
        pool.query("well", &[]).await.unwrap();
        fake.next_queries([Act::reject()]);
        pool.query("badly", &[]).await.unwrap_err();
        for round in 0..2 {
            let mut collected = exported.collect();
            for metric in pool.metrics() {
                // What has no value yet is not exported.
                if metric.points.is_empty() {
                    continue;
                }
                let (unit, points) = collected.remove(metric.name).expect(metric.name);
                assert_eq!(unit, metric.unit, "{}", metric.name);
                for point in &metric.points {
                    let Value::Number(expected) = point.value else { continue };
                    let labels: Vec<_> = point
                        .attributes
                        .iter()
                        .map(|(key, value)| KeyValue::new(*key, value.to_string()))
                        .collect();
                    assert_eq!(points[&say(labels.iter())], expected as f64, "{}", metric.name);
                }
                let shop = "db.client.connection.pool.name=shop";
                let expected = match metric.name {
                    _ if metric.kind != Kind::Histogram => continue,
                    "db.client.operation.duration" => vec![
                        (format!("{shop} db.system.name=fake"), 1.0),
                        (format!("{shop} db.system.name=fake error.type=caller"), 1.0),
                    ],
                    "db.client.connection.use_time" => {
                        vec![(shop.to_owned(), 2.0 + f64::from(round))]
                    }
                    _ => vec![(shop.to_owned(), 1.0)],
                };
                assert_eq!(points.into_iter().collect::<Vec<_>>(), expected, "{}", metric.name);
            }
            assert!(collected.is_empty(), "not of the pool: {collected:?}");
            drop(pool.acquire().await.unwrap());
        }
    });
}

#[test]
fn the_meter_does_not_keep_the_pool_open() {
    Sim::new(1).run(async |sim| {
        let exported = Exported::new();
        let fake = Fake::new();
        let pool = Pool::builder(fake.clone()).runtime(sim.clone()).build().await.unwrap();
        register(&exported.provider.meter("millpond"), pool.downgrade());
        assert!(!exported.collect().is_empty());
        drop(pool);
        sim.sleep(MS).await;
        assert_eq!(fake.counts().live, 0);
        assert!(exported.collect().values().all(|(_, points)| points.is_empty()));
    });
}
