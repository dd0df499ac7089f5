//! What it costs to measure: the same pool with its metrics off, on, and on with
//! an observer.

use std::fmt;
use std::hint::black_box;
use std::time::Instant;

use millpond::{Builder, Event, Pool};

use super::{ns_each, one_thread};
use crate::peer::SIZE;
use crate::peer::millpond::Null;
use crate::table::{figure, median};

const CYCLES: usize = 200_000;

type Setting = (&'static str, Option<f64>, fn(Builder<Null>) -> Builder<Null>);

/// Each with the most it should cost, as a multiple of the first.
const SETTINGS: [Setting; 3] = [
    ("off", None, |builder| builder.metrics_enabled(false)),
    ("on", Some(1.4), |builder| builder.metrics_enabled(true)),
    ("on, observed", None, |builder| {
        let observer = |event: &Event<'_>| _ = black_box(event);
        builder.metrics_enabled(true).observer(observer)
    }),
];

pub(crate) fn measure(rounds: usize) {
    let runtime = one_thread();
    let mut samples = SETTINGS.map(|_| Vec::with_capacity(rounds));
    for _ in 0..rounds {
        for ((.., set), samples) in SETTINGS.iter().zip(&mut samples) {
            samples.push(runtime.block_on(warm_cycle(*set)));
        }
    }
    println!("\n{}", Table(samples.map(|samples| median(samples.into_iter()))));
}

async fn warm_cycle(set: fn(Builder<Null>) -> Builder<Null>) -> f64 {
    let builder = Pool::builder(Null).max_open_conns(SIZE);
    let pool = set(builder).build().await.expect("valid settings");
    let start = Instant::now();
    for _ in 0..CYCLES {
        black_box(pool.acquire().await.expect("never refused"));
    }
    ns_each(start.elapsed(), CYCLES)
}

struct Table([f64; SETTINGS.len()]);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("acquire + release, one task, by what is measured\n")?;
        write!(f, "{:<17}{:>9}  x off", "", "ns/op")?;
        for ((name, target, _), ns) in SETTINGS.iter().zip(self.0) {
            write!(f, "\n{name:<17}{ns:>9.1}  {}", figure(ns / self.0[0], *target))?;
        }
        Ok(())
    }
}
