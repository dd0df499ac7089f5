//! Draws `docs/metrics.svg`: what a monitor reports of a pool whose database
//! grows slow and then goes away.
//!
//!     cargo run --manifest-path examples/observability/Cargo.toml --bin picture > docs/metrics.svg
//!
//! The pool is real, its database scripted and its clock simulated, so the
//! picture is the same on every machine.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::Pool;
use millpond::drivers::fake::{Act, Fake};
use millpond::metrics::{Monitor, MonitorReport, Value};
use millpond::testing::sim::Sim;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const CALLERS: usize = 24;
const SAMPLES: usize = 120;
const EACH: Duration = Duration::from_millis(500);

fn main() {
    print!("{}", drawn(&observed()));
}

/// A minute of a pool of 8: slow answers from second 12 to 20, no database from
/// second 35 to 42.
fn observed() -> Vec<MonitorReport> {
    let reports = Arc::new(Mutex::new(Vec::new()));
    Sim::new(7).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 15)).always_query(Act::After(MS * 18));
        let pool = Pool::builder(fake.clone()).name("shop").max_open_conns(8);
        let pool = pool.acquire_timeout(SECOND).runtime(sim.clone()).build().await.expect("a pool");
        for _ in 0..CALLERS {
            let (pool, sim) = (pool.clone(), sim.clone());
            let here = sim.clone();
            sim.task(async move {
                loop {
                    here.sleep(MS * (20 + here.below(120) as u32)).await;
                    let _ = pool.query("SELECT price", &[]).await;
                }
            });
        }
        let sink = Arc::clone(&reports);
        let keep =
            move |report: &MonitorReport| sink.lock().expect("no panic").push(report.clone());
        let _monitor = Monitor::start(&pool, EACH, keep).expect("a good interval");
        sim.sleep(SECOND * 12).await;
        fake.always_query(Act::After(MS * 110));
        sim.sleep(SECOND * 8).await;
        fake.always_query(Act::After(MS * 18));
        sim.sleep(SECOND * 15).await;
        fake.restart().always_connect(Act::refuse());
        sim.sleep(SECOND * 7).await;
        fake.always_connect(Act::After(MS * 15));
        sim.sleep(EACH * SAMPLES as u32 - SECOND * 42 + MS).await;
    });
    let mut reports = reports.lock().expect("no panic");
    std::mem::take(&mut *reports)
}

/// The sum of a metric's numbers, over the points with this word.
fn number(report: &MonitorReport, name: &str, word: &str) -> f64 {
    let metric = report.metrics.iter().find(|metric| metric.name == name);
    let points = metric.iter().flat_map(|metric| &metric.points);
    let named = points
        .filter(|point| word.is_empty() || point.attributes.iter().any(|(_, value)| value == word));
    let numbers = named.filter_map(|point| match point.value {
        Value::Number(number) => Some(number as f64),
        _ => None,
    });
    numbers.sum()
}

/// A quantile of a metric's durations, in milliseconds.
fn quantile(report: &MonitorReport, name: &str, share: f64) -> f64 {
    let metric = report.metrics.iter().find(|metric| metric.name == name);
    match metric.map(|metric| &metric.points[0].value) {
        Some(Value::Distribution(all)) => all.quantile(share).as_secs_f64() * 1e3,
        _ => 0.0,
    }
}

type Read = fn(&MonitorReport) -> f64;

/// A chart: its heading, and its lines by name, colour and what they show.
type Chart = (&'static str, &'static [(&'static str, &'static str, Read)]);

const CHARTS: [Chart; 4] = [
    (
        "connections",
        &[
            ("in use", "#2f7ed8", |r| number(r, "millpond.connection.count", "in_use")),
            ("idle", "#3a9d5d", |r| number(r, "millpond.connection.count", "idle")),
            ("opening", "#d98324", |r| number(r, "millpond.connection.count", "opening")),
        ],
    ),
    (
        "callers that wait",
        &[("pending", "#8a5cc2", |r| number(r, "db.client.connection.pending_requests", ""))],
    ),
    (
        "wait for a connection, ms",
        &[
            ("p50", "#2f7ed8", |r| quantile(r, "db.client.connection.wait_time", 0.5)),
            ("p99", "#c2403d", |r| quantile(r, "db.client.connection.wait_time", 0.99)),
        ],
    ),
    (
        "per second",
        &[
            ("statements", "#3a9d5d", |r| number(r, "millpond.acquired", "") / EACH.as_secs_f64()),
            ("timeouts", "#c2403d", |r| {
                number(r, "db.client.connection.timeouts", "") / EACH.as_secs_f64()
            }),
            ("failed connects", "#d98324", |r| {
                number(r, "millpond.connection.errors", "") / EACH.as_secs_f64()
            }),
        ],
    ),
];

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 110.0;
const LEFT: f64 = 50.0;
const PITCH: f64 = 150.0;

fn drawn(reports: &[MonitorReport]) -> String {
    let mut svg = String::new();
    let (width, height) = (LEFT + WIDTH + 20.0, PITCH * CHARTS.len() as f64 + 40.0);
    let mut put = |text: String| writeln!(svg, "{text}").expect("a String takes all text");
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">"
    ));
    put("<title>A pool of 8 whose database is slow from second 12 to 20 and gone from 35 to 42</title>".to_owned());
    put("<style>text{fill:#57606a}line{stroke:#8c959f55}polyline{fill:none;stroke-width:1.5}\
         .slow{fill:#d9832422}.gone{fill:#c2403d22}</style>"
        .to_owned());
    let x = |second: f64| LEFT + second / (SAMPLES as f64 * EACH.as_secs_f64()) * WIDTH;
    for (at, (heading, lines)) in CHARTS.iter().enumerate() {
        let top = 30.0 + PITCH * at as f64;
        for (class, from, to) in [("slow", 12.0, 20.0), ("gone", 35.0, 42.0)] {
            put(format!(
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{HEIGHT}\"/>",
                x(from),
                x(to) - x(from)
            ));
        }
        let highest = lines.iter().flat_map(|(.., read)| reports.iter().map(read));
        let most = rounded_up(highest.fold(1.0, f64::max));
        for share in [0.0, 0.5, 1.0] {
            let y = top + HEIGHT * (1.0 - share);
            put(format!("<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>", LEFT + WIDTH));
            let label = most * share;
            put(format!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                y + 4.0
            ));
        }
        put(format!(
            "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{heading}</text>",
            top - 8.0
        ));
        let mut legend = LEFT + 190.0;
        for (name, colour, read) in *lines {
            put(format!(
                "<text x=\"{legend}\" y=\"{}\" style=\"fill:{colour}\">{name}</text>",
                top - 8.0
            ));
            legend += 30.0 + 7.0 * name.len() as f64;
            let mut points = String::new();
            for (at, report) in reports.iter().enumerate() {
                let second = (at + 1) as f64 * EACH.as_secs_f64();
                let y = top + HEIGHT * (1.0 - read(report) / most);
                write!(points, "{:.1},{y:.1} ", x(second)).expect("a String takes all text");
            }
            put(format!("<polyline stroke=\"{colour}\" points=\"{}\"/>", points.trim_end()));
        }
    }
    for second in (0..=60).step_by(10) {
        let (x, y) = (x(f64::from(second)), height - 24.0);
        put(format!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{second} s</text>"));
    }
    put("</svg>".to_owned());
    svg
}

/// The next of 1, 2, 4, 6, 8 or 10 times a power of ten.
fn rounded_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.map(|step| step * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}
