//! What the world does to a database: restarts, kills, locks.
//!
//! Tells the ledger when it begins and ends. Knows nothing of pools.

use std::sync::Arc;
use std::time::Duration;

use millpond::Pool;
use millpond::drivers::Any;
use millpond_harness::Server;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::ledger::Ledger;

/// Restarts, kills and freezes a server, and ends its sessions.
pub(crate) async fn shake(server: Arc<Server>, ledger: Arc<Ledger>) {
    while !ledger.is_over() {
        pause(&ledger, fastrand::u64(5..25)).await;
        if ledger.is_over() {
            return;
        }
        ledger.disturb();
        let shaken = Arc::clone(&server);
        let what = fastrand::u8(..4);
        let done = spawn_blocking(move || match what {
            0 => shaken.restart(),
            1 => {
                shaken.kill();
                shaken.start_again();
            }
            2 => {
                shaken.freeze();
                std::thread::sleep(Duration::from_millis(1500));
                shaken.thaw();
            }
            _ => drop(shaken.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'soak'",
            )),
        });
        done.await.expect("the harness does what it says");
        ledger.calm();
    }
}

/// Locks a SQLite file now and then, as another process would, for less than
/// `busy_timeout`.
pub(crate) async fn lock(elsewhere: Pool<Any>, ledger: Arc<Ledger>) {
    while !ledger.is_over() {
        pause(&ledger, fastrand::u64(1..8)).await;
        if let Ok(mut transaction) = elsewhere.begin().await {
            let touch = "UPDATE account SET balance = balance WHERE id = 0";
            if transaction.execute(touch, &[]).await.is_ok() {
                sleep(Duration::from_millis(fastrand::u64(..300))).await;
            }
        }
    }
}

/// Sleeps in short pieces, so that the end is not waited for.
async fn pause(ledger: &Ledger, seconds: u64) {
    for _ in 0..seconds * 10 {
        if ledger.is_over() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Panics of callers are part of the game and not worth a line each.
pub(crate) fn expect_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&"a caller") {
            print(info);
        }
    }));
}
