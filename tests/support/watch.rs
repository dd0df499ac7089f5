//! A server that goes away, falls silent and comes back, as a health checker
//! sees it.
//!
//! Knows no database: any server of the harness will do, and any driver.

use std::sync::Arc;
use std::time::Duration;

use millpond::health::{HealthChecker, HealthConfig, HealthStatus, Reason, State};
use millpond::runtime::current;
use millpond::{Driver, Pool};
use millpond_harness::Server;

use super::outage::aside;

const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_secs(1);
/// Checks that must fail.
const FAILURES: u32 = 3;

/// A checker that has found its server up.
pub(crate) async fn watch<D: Driver>(pool: &Pool<D>) -> HealthChecker {
    let config = HealthConfig::new().interval(INTERVAL).timeout(TIMEOUT).unhealthy_after(FAILURES);
    let health = HealthChecker::start(pool, config).expect("good settings");
    once(&health, |status| status.state == State::Up).await;
    health
}

/// The status in which it is so.
pub(crate) async fn once(
    health: &HealthChecker,
    so: impl Fn(&HealthStatus) -> bool,
) -> HealthStatus {
    let mut status = health.status();
    while !so(&status) {
        assert!(health.is_alive(), "{status}");
        status = health.changed(&status).await;
    }
    status
}

/// Stopped, it is out for the right reason, and back by itself; the
/// same when it falls silent. A pool that is used up changes nothing.
pub(crate) async fn stopped_and_frozen<D: Driver>(server: Arc<Server>, pool: Pool<D>) {
    let here = current().expect("inside block_on");
    let health = watch(&pool).await;
    for silent in [false, true] {
        let away = Arc::clone(&server);
        let begun = here.now();
        aside(&*here, move || if silent { away.freeze() } else { away.stop() }).await;
        let out = once(&health, |status| !status.state.is_serving()).await;
        println!("{:?} after the server was told: {out}", out.since - begun);
        assert!(!health.is_ready() && health.answer().0 == 503);
        let error = out.last_error.as_ref().expect("an error");
        if silent {
            assert!(error.is_timeout(), "{error:?}");
            assert_eq!(out.reason, Some(Reason::Faults));
            assert!(out.consecutive_failures >= FAILURES, "{out}");
        }
        assert!(!health.answer().1.contains(server.password()), "{}", health.answer().1);

        let back = Arc::clone(&server);
        aside(&*here, move || if silent { back.thaw() } else { back.start_again() }).await;
        let up = once(&health, |status| status.state == State::Up).await;
        println!("{:?} after that: {up}", up.since - out.since);
        assert!(health.is_ready() && up.weight < 1.0);
        let held = pool.acquire().await.expect("the pool goes on");
        assert_eq!(pool.snapshot().in_use, 1);
        assert!(health.check_now().await.is_ready(), "all connections are in use");
        drop(held);
    }
    health.stop().await;
}
