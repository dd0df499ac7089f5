//! The text that Prometheus reads: read back, it says what the sources said.
//!
//! The parser here knows OpenMetrics 1.0 as far as the pool writes it, and
//! refuses the rest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use millpond::Pool;
use millpond::drivers::fake::{Act, Fake};
use millpond::metrics::{BOUNDS, Metric, Source, Value, openmetrics};
use millpond::testing::sim::Sim;

const POOL: &str = "db_client_connection_pool_name";

/// A family as it was written.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: String,
    help: String,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    /// What follows the family's name: `_total`, `_bucket`.
    suffix: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads a whole text.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let text = text.strip_suffix("# EOF\n").expect("ends with the mark");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut open = String::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').expect("a word");
            let (name, said) = rest.split_once(' ').expect("a name");
            if word == "TYPE" {
                let new = !families.contains_key(name);
                assert!(new, "the family {name} is there twice");
                name.clone_into(&mut open);
            }
            assert_eq!(name, open, "{line}");
            let family = families.entry(open.clone()).or_default();
            match word {
                "TYPE" => said.clone_into(&mut family.kind),
                "UNIT" => said.clone_into(&mut family.unit),
                "HELP" => said.clone_into(&mut family.help),
                other => panic!("{other}"),
            }
            continue;
        }
        let family = families.get_mut(&open).expect("a family before its samples");
        family.samples.push(sample(&open, line));
    }
    families
}

fn sample(family: &str, line: &str) -> Sample {
    let rest = line.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
    let end = rest.find(['{', ' ']).expect("a value");
    let (suffix, mut rest) = rest.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        let mut inner = inner;
        loop {
            let (key, after) = inner.split_once("=\"").expect("a label");
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            assert!(!key.is_empty() && key.chars().all(is_name), "{line}");
            let (value, after) = quoted(after);
            assert!(labels.insert(key.to_owned(), value).is_none(), "{key} twice in {line}");
            match after.strip_prefix(',') {
                Some(next) => inner = next,
                None => {
                    rest = after.strip_prefix('}').expect("a closing brace");
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("a space").parse().expect("a number");
    Sample { suffix: suffix.to_owned(), labels, value }
}

/// A text up to its closing quote, and what follows.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next().expect("an escaped character").1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                c => panic!("\\{c} is no escape"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}");
}

/// A name as it is to be written, without its unit.
fn translated(name: &str) -> String {
    name.replace('.', "_")
}

/// Compares what was read with one point of a source.
fn is_told(families: &BTreeMap<String, Family>, metric: &Metric, at: usize) {
    let unit = if metric.unit == "s" { "_seconds" } else { "" };
    let name = format!("{}{unit}", translated(metric.name));
    let family = families.get(&name).unwrap_or_else(|| panic!("no family {name}"));
    let point = &metric.points[at];
    let labels: BTreeMap<_, _> =
        point.attributes.iter().map(|(key, value)| (translated(key), value.to_string())).collect();
    let value = |suffix: &str, le: Option<&str>| {
        let mut labels = labels.clone();
        labels.extend(le.map(|le| ("le".to_owned(), le.to_owned())));
        let same = |sample: &&Sample| sample.suffix == suffix && sample.labels == labels;
        let mut found = family.samples.iter().filter(same);
        let sample = found.next().unwrap_or_else(|| panic!("no {name}{suffix} {labels:?}"));
        assert!(found.next().is_none(), "{name}{suffix} {labels:?} is there twice");
        sample.value
    };
    assert!(family.help.starts_with(char::is_uppercase), "{name}: {}", family.help);
    match &point.value {
        Value::Number(number) => {
            let suffix = if family.kind == "counter" { "_total" } else { "" };
            assert_eq!(value(suffix, None), *number as f64, "{name}");
        }
        Value::Distribution(all) => {
            assert_eq!((family.kind.as_str(), family.unit.as_str()), ("histogram", "seconds"));
            let mut below = 0.0;
            for bound in BOUNDS {
                let count = value("_bucket", Some(&format!("{bound:?}")));
                assert!(count >= below, "{name} falls at {bound}");
                below = count;
            }
            assert!(value("_bucket", Some("+Inf")) >= below);
            assert_eq!(value("_bucket", Some("+Inf")), all.count() as f64);
            assert_eq!(value("_count", None), all.count() as f64);
            assert_eq!(value("_sum", None), all.total().as_secs_f64());
        }
        other => panic!("{other:?}"),
    }
}

/// A name of characters that are easily written wrong.
fn name(sim: &Sim) -> String {
    const PARTS: [&str; 9] = ["\"", "\\", "\n", "\\n", "}", ",le=\"", "# EOF", "ü", "shop"];
    (0..sim.below(6)).map(|_| PARTS[sim.below(9) as usize]).collect()
}

#[test]
fn what_is_written_reads_back_as_it_was() {
    for seed in 0..40 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_query(Act::After(Duration::from_micros(sim.below(200_000))));
            let mut pools = Vec::new();
            for at in 0..3 {
                let pool = Pool::builder(fake.clone())
                    .name(format!("{at}{}", name(&sim)))
                    .max_open_conns(1 + sim.below(3) as usize)
                    .metrics_enabled(!sim.one_in(4))
                    .runtime(sim.clone())
                    .build()
                    .await
                    .unwrap();
                for _ in 0..sim.below(8) {
                    if sim.one_in(3) {
                        fake.next_queries([Act::reject()]);
                    }
                    let _ = pool.query("mine", &[]).await;
                }
                pools.push(pool);
            }
            let sources: Vec<&dyn Source> = pools.iter().map(|pool| pool as _).collect();
            let text = openmetrics(&sources);
            let families = parse(&text);
            for metric in pools.iter().flat_map(Source::metrics) {
                for at in 0..metric.points.len() {
                    is_told(&families, &metric, at);
                }
            }
        });
    }
}

#[test]
fn several_pools_share_families_and_are_told_apart() {
    Sim::new(1).run(async |sim| {
        let pool = async |name| {
            Pool::builder(Fake::new()).name(name).runtime(sim.clone()).build().await.unwrap()
        };
        let (shop, stock) = (pool("shop").await, pool("stock").await);
        drop(stock.acquire().await.unwrap());
        let families = parse(&openmetrics(&[&shop, &stock]));
        let acquired = &families["millpond_acquired"];
        let values: Vec<_> =
            acquired.samples.iter().map(|sample| (&*sample.labels[POOL], sample.value)).collect();
        assert_eq!(values, [("shop", 0.0), ("stock", 1.0)]);
    });
}

/// Prometheus refuses a text in which a value is there twice, and the name of a
/// pool is by default that of its driver.
#[test]
fn pools_of_one_name_are_added_up() {
    Sim::new(1).run(async |sim| {
        let pool = || Pool::builder(Fake::new()).runtime(sim.clone()).build();
        let (one, other) = (pool().await.unwrap(), pool().await.unwrap());
        one.query("mine", &[]).await.unwrap();
        other.query("mine", &[]).await.unwrap();
        let families = parse(&openmetrics(&[&one, &other]));
        for (name, suffix) in [
            ("millpond_acquired", "_total"),
            ("db_client_connection_create_time_seconds", "_count"),
            ("db_client_operation_duration_seconds", "_count"),
        ] {
            let samples = families[name].samples.iter();
            let of: Vec<_> = samples.filter(|sample| sample.suffix == suffix).collect();
            assert_eq!((of.len(), of[0].value), (1, 2.0), "{name}");
        }
    });
}

struct Odd;

impl Source for Odd {
    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        Sim::new(1).run(async |sim| {
            let pool = Pool::builder(Fake::new()).name("odd").runtime(sim).build().await.unwrap();
            metrics = pool.metrics();
        });
        metrics.retain(|metric| metric.name == "millpond.acquired");
        metrics[0].unit = "By";
        metrics[0].points[0].attributes = vec![("a.b--c", Cow::Borrowed("x"))];
        metrics
    }
}

#[test]
fn names_take_their_unit_and_no_strange_character() {
    let text = openmetrics(&[&Odd]);
    assert!(text.contains("# UNIT millpond_acquired_bytes bytes\n"), "{text}");
    assert!(text.contains("\nmillpond_acquired_bytes_total{a_b_c=\"x\"} 0\n"), "{text}");
    assert_eq!(openmetrics(&[]), "# EOF\n");
}

/// A panel that asks for a name that nobody writes stays empty without a word.
#[test]
fn the_dashboard_asks_for_names_that_a_pool_writes() {
    let mut written = BTreeSet::new();
    let mut labels = BTreeSet::new();
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool =
            Pool::builder(fake.clone()).max_open_conns(1).runtime(sim).build().await.unwrap();
        fake.next_queries([Act::reject()]);
        pool.query("mine", &[]).await.unwrap_err();
        pool.acquire().await.unwrap().discard();
        fake.next_connects([Act::refuse()]);
        drop(pool.acquire().await.unwrap());
        for (name, family) in parse(&openmetrics(&[&pool])) {
            for sample in family.samples {
                written.insert(format!("{name}{}", sample.suffix));
                labels.extend(sample.labels.into_keys());
            }
        }
    });
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/grafana/millpond.json");
    let dashboard: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let mut asked = BTreeSet::new();
    for expression in expressions(&dashboard) {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let words = expression.split(|c| !is_word(c));
        asked.extend(
            words.filter(|word| word.contains("_") && !word.starts_with("__")).map(str::to_owned),
        );
    }
    assert!(asked.len() > 10, "the dashboard asks for little: {asked:?}");
    for word in asked {
        let exists = written.contains(&word) || labels.contains(&word);
        assert!(
            exists || word == "histogram_quantile" || word == "label_values",
            "no pool writes {word}"
        );
    }
}

/// What the panels and variables of a dashboard ask Prometheus for.
fn expressions(value: &serde_json::Value) -> Vec<&str> {
    match value {
        serde_json::Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| match value {
                serde_json::Value::String(text) if key == "expr" || key == "query" => vec![&**text],
                other => expressions(other),
            })
            .collect(),
        serde_json::Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}
