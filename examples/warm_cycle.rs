//! Takes a connection and gives it back, as often as the argument says, and
//! does nothing else: `scripts/instructions` counts what that costs.
//!
//!     cargo run --release --example warm_cycle -- 1000000

#[path = "../tests/support/still.rs"]
mod still;

use std::hint::black_box;

use futures_util::FutureExt;
use millpond::drivers::fake::Fake;
use millpond::{Pool, Result};
use still::Still;

fn main() -> Result<()> {
    let cycles = std::env::args().nth(1).and_then(|argument| argument.parse().ok()).unwrap_or(1);
    let pool = Pool::builder(Fake::new()).runtime(Still::new()).build();
    let pool = pool.now_or_never().expect("the scripted database answers at once")?;
    for _ in 0..cycles {
        black_box(pool.acquire().now_or_never().expect("the connection lies idle")?);
    }
    Ok(())
}
