//! The two pictures: what requests took, and who was sent to the server that had
//! gone wrong.
//!
//! Owns scales and places. How a shape is written is `svg`'s.

use crate::scenario::{SCENARIOS, STRATEGIES, Seen};
use crate::svg::{COLOURS, Svg};

const LEFT: f64 = 130.0;
const WIDTH: f64 = 620.0;
const TOP: f64 = 40.0;

/// Milliseconds at the ends of the scale.
const LEAST: f64 = 2.0;
const MOST: f64 = 5000.0;
const ROW: f64 = 18.0;

/// Percentiles of every strategy in every scenario, on one logarithmic scale.
pub(crate) fn latencies(all: &[Vec<Seen>]) -> String {
    let height = ROW * STRATEGIES.len() as f64;
    let pitch = height + 62.0;
    let mut svg = Svg::new(
        "Percentiles of latency by strategy and fault",
        LEFT + WIDTH + 20.0,
        TOP + pitch * all.len() as f64,
    );
    svg.legend([LEFT, 18.0], &["p50", "p95", "p99", "p99.9"]);
    svg.text([LEFT + WIDTH, 18.0], "end", "latency in ms, logarithmic");
    let scale = |ms: f64| (ms.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    let x = |ms: f64| LEFT + WIDTH * scale(ms);
    for (at, (scenario, seen)) in SCENARIOS.iter().zip(all).enumerate() {
        let top = TOP + 24.0 + pitch * at as f64;
        svg.heading([LEFT, top - 8.0], scenario.title);
        for ms in [2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0] {
            svg.line([x(ms), top], [x(ms), top + height]);
            svg.text([x(ms), top + height + 14.0], "middle", ms);
        }
        for (row, seen) in seen.iter().enumerate() {
            let y = top + ROW * (row as f64 + 0.5);
            svg.text([LEFT - 10.0, y + 4.0], "end", seen.strategy);
            svg.line([x(seen.percentiles[0]), y], [x(seen.percentiles[3]), y]);
            for (ms, colour) in seen.percentiles.iter().zip(COLOURS) {
                svg.dot([x(*ms), y], colour);
            }
        }
    }
    svg.end()
}

const HEIGHT: f64 = 130.0;
const PITCH: f64 = HEIGHT + 66.0;
/// The highest share that is drawn.
const FULL: f64 = 0.8;

/// The share of the first server over time, where it goes wrong and comes back.
pub(crate) fn shares(all: &[Vec<Seen>]) -> String {
    let faults: Vec<_> = SCENARIOS
        .iter()
        .zip(all)
        .filter(|(scenario, _)| scenario.fault().1 < scenario.length())
        .collect();
    let mut svg = Svg::new(
        "Share of requests that a server gets while something is wrong with it, and after",
        LEFT + WIDTH + 20.0,
        TOP + PITCH * faults.len() as f64,
    );
    svg.legend([LEFT, 18.0], &STRATEGIES.map(|(name, _)| name));
    for (at, (scenario, seen)) in faults.iter().enumerate() {
        let top = TOP + 24.0 + PITCH * at as f64;
        let end = f64::from(scenario.length());
        let x = |second: f64| LEFT + WIDTH * second / end;
        let y = |share: f64| top + HEIGHT * (1.0 - share.min(FULL) / FULL);
        svg.heading([LEFT, top - 8.0], scenario.title);
        let (from, to) = scenario.fault();
        let (from, to) = (x(from.into()), x(to.into()));
        svg.fault([from, top], to - from, HEIGHT);
        for percent in [0, 20, 40, 60, 80] {
            let y = y(f64::from(percent) / 100.0);
            svg.line([LEFT, y], [LEFT + WIDTH, y]);
            svg.text([LEFT - 10.0, y + 4.0], "end", format_args!("{percent} %"));
        }
        for second in (0..=scenario.length()).step_by(5) {
            let x = x(f64::from(second));
            svg.text([x, top + HEIGHT + 16.0], "middle", format_args!("{second} s"));
        }
        for (seen, colour) in seen.iter().zip(COLOURS) {
            let points = seen.shares.iter().enumerate();
            let points = points.map(|(half, share)| [x(half as f64 / 2.0 + 0.25), y(*share)]);
            svg.polyline(points, colour);
        }
        svg.text([16.0, top + HEIGHT / 2.0], "start", "share of");
        svg.text([16.0, top + HEIGHT / 2.0 + 15.0], "start", "the server");
    }
    svg.end()
}
