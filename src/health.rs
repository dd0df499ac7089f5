//! Whether a node may be used: asked in the background, decided by facts.
//!
//! Owns the decision ([`Node`], a state machine without clock, randomness or
//! task) and one runner of it ([`HealthChecker`]). Does not know what is asked:
//! a [`Pool`](crate::Pool) is one thing that is [`Probed`].
//!
//! ```
//! use millpond::{Pool, drivers::fake::{Act, Fake}, testing::sim::Sim};
//! use millpond::health::{HealthChecker, HealthConfig, State};
//!
//! Sim::new(1).run(async |sim| {
//!     let server = Fake::new();
//!     let pool = Pool::builder(server.clone()).max_open_conns(1).runtime(sim).build().await?;
//!     let health = HealthChecker::start(&pool, HealthConfig::new())?;
//!
//!     // A pool that is used up is no database that is down.
//!     let _all_there_are = pool.acquire().await?;
//!     let status = health.check_now().await;
//!     assert_eq!(status.state, State::Up);
//!     assert!(health.is_ready());
//!     assert_eq!(health.answer().0, 200);
//!
//!     server.restart().always_connect(Act::refuse());
//!     let status = health.changed(&status).await;
//!     assert_eq!((status.state, health.is_ready()), (State::Ejected, false));
//!     let told = "(a refused connect was confirmed): connection refused; last answer ";
//!     assert!(status.to_string().contains(told), "{status}");
//!     assert_eq!(health.answer().0, 503);
//!     Ok::<_, millpond::Error>(())
//! })?;
//! # Ok::<_, millpond::Error>(())
//! ```

mod checker;
mod config;
mod fact;
mod node;
mod probe;
mod record;
mod status;
mod window;

pub use checker::HealthChecker;
pub use config::HealthConfig;
pub use fact::Fact;
pub use node::{Decision, Node, Reason, Rules, State};
pub use probe::{Probe, Probed};
pub use status::HealthStatus;
