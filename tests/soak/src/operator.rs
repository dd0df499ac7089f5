//! What an operator does to a running pool, at random.

use std::sync::Arc;
use std::time::Duration;

use millpond::Pool;
use millpond::drivers::Any;
use tokio::time::sleep;

use crate::ledger::Ledger;

/// The most connections it allows.
pub(crate) const MOST: usize = 12;

pub(crate) async fn operate(pool: Pool<Any>, ledger: Arc<Ledger>) {
    let weak = pool.downgrade();
    while !ledger.is_over() {
        sleep(Duration::from_millis(fastrand::u64(20..600))).await;
        match fastrand::u8(..8) {
            0 | 1 => pool.resize(fastrand::usize(2..=MOST)).expect("a good limit"),
            2 => {
                pool.pause();
                sleep(Duration::from_millis(fastrand::u64(..200))).await;
                pool.resume();
            }
            3 => drop(pool.evict()),
            4 => drop(pool.retain(|info, _| info.uses < 100)),
            5 => {
                if let Some(conn) = pool.try_acquire() {
                    drop(pool.add(conn.detach()));
                }
            }
            6 => {
                let (uses, life) = (fastrand::u64(50..500), fastrand::u64(2..20));
                pool.reconfigure(|config| {
                    config
                        .conn_max_uses(uses)
                        .conn_max_lifetime(Duration::from_secs(life))
                        .conn_max_idle_time(Duration::from_secs(2))
                        .health_interval(Duration::from_secs(1))
                })
                .expect("good settings");
            }
            _ => drop(weak.upgrade().expect("the pool is there").holders()),
        }
    }
}
