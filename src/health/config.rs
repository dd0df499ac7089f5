//! What a user may set of a checker, and which settings make no sense.
//!
//! Owns [`HealthConfig`]. Knows no checker.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use millpond_driver::{Error, Result};

use super::node::Rules;
use super::status::HealthStatus;

/// Whose business a change is.
pub(super) type Listener = Arc<dyn Fn(&HealthStatus) + Send + Sync>;

/// The settings of a [`HealthChecker`](super::HealthChecker).
///
/// ```
/// use millpond::health::HealthConfig;
/// use std::time::Duration;
///
/// let config = HealthConfig::new().interval(Duration::ZERO).unhealthy_after(0);
/// assert_eq!(
///     config.validate().unwrap_err().to_string(),
///     "invalid health configuration: interval = 0ns: must be from 1ms to 24h; \
///      unhealthy_after = 0: must be at least 1"
/// );
/// ```
#[derive(Clone)]
#[must_use]
pub struct HealthConfig {
    pub(super) rules: Rules,
    pub(super) timeout: Duration,
    pub(super) on_change: Option<Listener>,
}

impl HealthConfig {
    /// All defaults.
    pub fn new() -> Self {
        Self { rules: Rules::default(), timeout: Duration::from_secs(1), on_change: None }
    }

    /// The time between checks; each draws its own from 80 to 120 % of this, so
    /// that processes started together do not ask together. Default: 5 seconds.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.rules.interval = interval;
        self
    }

    /// The same while the node is out. Default: 200 milliseconds, or `interval`
    /// if that is less.
    pub fn recovery_interval(mut self, interval: Duration) -> Self {
        self.rules.recovery_interval = Some(interval);
        self
    }

    /// The longest a check takes, connecting included. Default: 1 second.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many checks in a row fail before the node is out. Default: 3. A
    /// connect that is refused is tried again at once, and if that is refused
    /// too, the node is out without more.
    pub fn unhealthy_after(mut self, failures: u32) -> Self {
        self.rules.unhealthy_after = failures;
        self
    }

    /// How many checks in a row succeed before it is back. Default: 1.
    pub fn healthy_after(mut self, successes: u32) -> Self {
        self.rules.healthy_after = successes;
        self
    }

    /// Is told each change of state, role or writability, by the checker's task,
    /// so it must not block; a panic in it is dropped.
    pub fn on_change(mut self, listener: impl Fn(&HealthStatus) + Send + Sync + 'static) -> Self {
        self.on_change = Some(Arc::new(listener));
        self
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) fn probe_timeout(&self) -> Duration {
        self.timeout
    }

    /// Checks the settings. [`HealthChecker::start`](super::HealthChecker::start)
    /// does so too.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), listing every fault with
    /// field, value and rule.
    pub fn validate(&self) -> Result<()> {
        let faults = self.faults();
        match faults.is_empty() {
            true => Ok(()),
            false => {
                Err(Error::config(format!("invalid health configuration: {}", faults.join("; "))))
            }
        }
    }

    /// Every fault, each as field, value and rule.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let intervals = [
            ("interval", Some(self.rules.interval)),
            ("recovery_interval", self.rules.recovery_interval),
            ("timeout", Some(self.timeout)),
        ];
        for (name, value) in intervals {
            if let Some(value) = value.filter(|value| !(SHORTEST..=LONGEST).contains(value)) {
                faults.push(format!("{name} = {value:?}: must be from 1ms to 24h"));
            }
        }
        let (often, rarely) = (self.rules.recovery_interval, self.rules.interval);
        if let Some(often) = often.filter(|often| *often > rarely) {
            faults.push(format!(
                "recovery_interval = {often:?}: must not exceed interval ({rarely:?})"
            ));
        }
        for (name, value) in [
            ("unhealthy_after", self.rules.unhealthy_after),
            ("healthy_after", self.rules.healthy_after),
        ] {
            if value == 0 {
                faults.push(format!("{name} = 0: must be at least 1"));
            }
        }
        faults
    }
}

/// Below, a checker would do nothing but check.
const SHORTEST: Duration = Duration::from_millis(1);
/// Above, it would not be one; and no clock overflows.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

impl Default for HealthConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HealthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthConfig")
            .field("rules", &self.rules)
            .field("timeout", &self.timeout)
            .field("on_change", &self.on_change.is_some())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_so_are_the_bounds() {
        HealthConfig::new().validate().unwrap();
        HealthConfig::new().interval(SHORTEST).timeout(LONGEST).validate().unwrap();
        HealthConfig::new().interval(LONGEST).recovery_interval(LONGEST).validate().unwrap();
    }

    #[test]
    fn every_fault_is_told_with_field_value_and_rule() {
        let config = HealthConfig::new()
            .interval(Duration::MAX)
            .timeout(Duration::ZERO)
            .recovery_interval(Duration::from_nanos(1))
            .unhealthy_after(0)
            .healthy_after(0);
        let told = config.validate().unwrap_err().to_string();
        let faults: Vec<_> = told.split("; ").collect();
        assert_eq!(faults.len(), 5, "{told}");
        assert!(told.contains("timeout = 0ns: must be from 1ms to 24h"), "{told}");
        let slower = HealthConfig::new().recovery_interval(Duration::from_secs(6));
        assert_eq!(
            slower.validate().unwrap_err().to_string(),
            "invalid health configuration: recovery_interval = 6s: must not exceed interval (5s)"
        );
    }
}
