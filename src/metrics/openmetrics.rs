//! Metrics as OpenMetrics text, which Prometheus reads.
//!
//! Owns the text and the names in it: those of OpenTelemetry, translated as its
//! compatibility rules say. Does not know what is measured, nor how the text is
//! sent.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::Duration;

use super::{BOUNDS, Distribution, Kind, Metric, Source, Value, merged};

/// The content type of what [`openmetrics`] writes.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of these sources, as OpenMetrics 1.0 text.
///
/// Metrics of one name become one family; values with the same attributes, as
/// those of two pools of one name, are added up.
///
/// ```
/// use millpond::{Pool, drivers::fake::Fake, metrics, testing::sim::Sim};
///
/// Sim::new(1).run(async |sim| {
///     let pool = Pool::builder(Fake::new()).name("shop").runtime(sim).build().await?;
///     let text = metrics::openmetrics(&[&pool]);
///     assert!(text.contains("\nmillpond_acquired_total{db_client_connection_pool_name=\"shop\"} 0\n"));
///     assert!(text.ends_with("# EOF\n"));
///     Ok::<_, millpond::Error>(())
/// })?;
/// # Ok::<_, millpond::Error>(())
/// ```
pub fn openmetrics(sources: &[&dyn Source]) -> String {
    let mut text = String::new();
    for metric in merged(sources.iter().map(|source| source.metrics())) {
        write(&mut text, &metric).expect("a String takes all text");
    }
    text.push_str("# EOF\n");
    text
}

fn write(text: &mut String, metric: &Metric) -> std::fmt::Result {
    let unit = unit(metric);
    let name = name(metric, unit);
    let kind = match metric.kind {
        Kind::Gauge => "gauge",
        Kind::Counter => "counter",
        Kind::Histogram => "histogram",
    };
    writeln!(text, "# TYPE {name} {kind}")?;
    if !unit.is_empty() {
        writeln!(text, "# UNIT {name} {unit}")?;
    }
    writeln!(text, "# HELP {name} {}", escaped(metric.description))?;
    for point in &metric.points {
        let mut labels = String::new();
        for (key, value) in &point.attributes {
            let comma = if labels.is_empty() { "" } else { "," };
            write!(labels, "{comma}{}=\"{}\"", bare(key), escaped(value))?;
        }
        match &point.value {
            Value::Number(number) => {
                let total = if metric.kind == Kind::Counter { "_total" } else { "" };
                writeln!(text, "{name}{total}{} {number}", braced(&labels))?;
            }
            Value::Distribution(distribution) => buckets(text, &name, &labels, distribution)?,
        }
    }
    Ok(())
}

fn buckets(text: &mut String, name: &str, labels: &str, all: &Distribution) -> std::fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    let bounds = BOUNDS.map(Duration::from_secs_f64);
    for (bound, count) in BOUNDS.iter().zip(all.cumulative(&bounds)) {
        writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound:?}\"}} {count}")?;
    }
    let (labelled, count) = (braced(labels), all.count());
    writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
    writeln!(text, "{name}_sum{labelled} {:?}", all.total().as_secs_f64())?;
    writeln!(text, "{name}_count{labelled} {count}")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

/// The unit as a word; none for what is counted, as `{connection}`.
fn unit(metric: &Metric) -> &'static str {
    match (metric.unit, metric.kind) {
        ("s", _) => "seconds",
        ("ms", _) => "milliseconds",
        ("us", _) => "microseconds",
        ("By", _) => "bytes",
        ("1", Kind::Gauge) => "ratio",
        _ => "",
    }
}

/// The family's name, which ends in its unit and not in `_total`.
fn name(metric: &Metric, unit: &str) -> String {
    let mut name = bare(metric.name);
    if metric.kind == Kind::Counter {
        name.truncate(name.trim_end_matches("_total").len());
    }
    let has_unit = name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_'));
    if !unit.is_empty() && !has_unit {
        name.push('_');
        name.push_str(unit);
    }
    name
}

/// A name of letters, digits and single underscores.
fn bare(name: &str) -> String {
    let mut bare = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if c.is_ascii_alphanumeric() { c } else { '_' };
        if c != '_' || !bare.ends_with('_') {
            bare.push(c);
        }
    }
    if bare.starts_with(|c: char| c.is_ascii_digit()) {
        bare.insert(0, '_');
    }
    bare
}

fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
