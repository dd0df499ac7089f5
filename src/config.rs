//! What a user may set, what it defaults to, and which settings contradict.
//!
//! Owns [`PoolConfig`]. Knows neither pool nor driver.

#[cfg(feature = "serde")]
pub(crate) mod document;
mod env;
pub(crate) mod text;
pub(crate) mod url;

use std::fmt;
use std::time::Duration;

use millpond_driver::{Error, Reset, Result};

use crate::pool::MAX_CONNECTIONS;
use crate::retry::Retry;

/// The settings of a pool.
///
/// A setting not made has the default stated. [`validate`](Self::validate) is
/// called by the builder.
///
/// ```
/// use millpond::PoolConfig;
///
/// let config = PoolConfig::new().max_open_conns(4).max_idle_conns(8);
/// assert_eq!(
///     config.validate().unwrap_err().to_string(),
///     "invalid pool configuration: max_idle_conns = 8: must not exceed max_open_conns (4)"
/// );
/// ```
///
/// Settings come from code, from [the environment](Self::from_env), from a URL
/// ([`connect`](crate::connect)) and, with the feature `serde`, from a document
/// in JSON, TOML or any other format that describes itself. [`or`](Self::or)
/// lays them one over another.
///
/// # In documents
///
/// A document is a map from settings to values, by the names of the setters: a
/// duration is a whole number of nanoseconds or a text such as `"1h30m"` or
/// `"250ms"`, [`reset`](Self::reset) is `"boundary"` or `"session"`. Everything
/// that is wrong with it is reported at once, each as field, value and rule; so
/// is a field that is no setting, and one given twice. Whether settings
/// contradict each other is left to the builder: what a document leaves open,
/// code may complete. Written is what was set, durations in nanoseconds.
///
#[cfg_attr(feature = "serde", doc = "```")]
#[cfg_attr(not(feature = "serde"), doc = "```ignore")]
/// use millpond::PoolConfig;
/// use std::time::Duration;
///
/// let config: PoolConfig = toml::from_str("max_open_conns = 8\nacquire_timeout = '250ms'")?;
/// let expected = PoolConfig::new().max_open_conns(8).acquire_timeout(Duration::from_millis(250));
/// assert_eq!(config, expected);
///
/// let error = toml::from_str::<PoolConfig>("max_open_conn = 8\nmax_retries = -1").unwrap_err();
/// assert_eq!(
///     error.message(),
///     "invalid pool configuration: \
///      max_open_conn: is not a setting; did you mean max_open_conns?; \
///      max_retries = -1: must be a whole number from 0 to 4294967295"
/// );
/// # Ok::<_, toml::de::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct PoolConfig {
    max_open_conns: Option<usize>,
    max_idle_conns: Option<usize>,
    min_idle_conns: Option<usize>,
    max_waiters: Option<usize>,
    connect_concurrency: Option<usize>,
    conn_max_lifetime: Option<Duration>,
    conn_max_idle_time: Option<Duration>,
    conn_max_uses: Option<u64>,
    idle_order: Option<IdleOrder>,
    acquire_timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    check_after_idle: Option<Duration>,
    check_timeout: Option<Duration>,
    reset_timeout: Option<Duration>,
    reset: Option<Reset>,
    health_interval: Option<Duration>,
    max_retries: Option<u32>,
    retry_interval: Option<Duration>,
    leak_after: Option<Duration>,
    metrics_enabled: Option<bool>,
}

/// Which of the idle connections is lent first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdleOrder {
    /// The one used last. A few connections do the work and stay warm; those
    /// that a burst has left grow idle and are closed.
    #[default]
    Lifo,
    /// The one used longest ago. All are used in turn, so none grows idle: for
    /// servers behind a balancer that counts connections. Costs the fast path:
    /// each acquire takes the pool's lock.
    Fifo,
}

/// One setter each for configuration, builder and text, with the same words.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty;)+) => {
        impl PoolConfig {
            /// The names of the settings.
            pub(crate) const SETTINGS: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Makes the setting `name` from text.
            fn set(&mut self, name: &str, text: &str) -> Result<(), Unset> {
                match name {
                    $(stringify!($name) => self.$name = Some(text::read(text)?),)+
                    _ => return Err(Unset::NoSuchName),
                }
                Ok(())
            }

            /// Makes the setting `name` from a value of a document.
            #[cfg(feature = "serde")]
            fn set_from(&mut self, name: &str, value: &document::Node) -> Result<(), Unset> {
                match name {
                    $(stringify!($name) => self.$name = Some(document::read(value)?),)+
                    _ => return Err(Unset::NoSuchName),
                }
                Ok(())
            }

            /// The settings made, as a document writes them.
            #[cfg(feature = "serde")]
            fn made(&self) -> impl Iterator<Item = (&'static str, document::Node)> {
                let all = [$((stringify!($name), self.$name.as_ref().map(document::write))),+];
                all.into_iter().filter_map(|(name, value)| Some((name, value?)))
            }

            /// These settings, and those of `other` where none is made here.
            ///
            /// ```
            /// use millpond::PoolConfig;
            ///
            /// let file = PoolConfig::new().max_open_conns(8).max_retries(5);
            /// let config = PoolConfig::new().max_open_conns(4).or(file);
            /// assert_eq!(config, PoolConfig::new().max_open_conns(4).max_retries(5));
            /// ```
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name)),+ }
            }

            $($(#[doc = $doc])+
            pub fn $name(mut self, value: $type) -> Self {
                self.$name = Some(value);
                self
            })+
        }

        impl<D: millpond_driver::Driver> crate::Builder<D> {
            $($(#[doc = $doc])+
            pub fn $name(mut self, value: $type) -> Self {
                self.config = self.config.$name(value);
                self
            })+
        }
    };
}

settings! {
    /// The most connections the pool may have, in use or not. Default: 25.
    /// 0: unlimited (65 504).
    max_open_conns: usize;
    /// The most connections kept idle once a burst is over. Default: 10, or
    /// `max_open_conns` if that is less. 0: none is kept.
    max_idle_conns: usize;
    /// How many connections are kept idle and ready beside those in use, opened
    /// in the background. Default: 0.
    min_idle_conns: usize;
    /// The most callers that may wait at a time; more are refused with
    /// [`ErrorKind::Overloaded`](crate::ErrorKind::Overloaded). Default: 65 536.
    /// 0: nobody may wait.
    max_waiters: usize;
    /// The most connects at a time. While the database does not accept
    /// connections there is one. Default: 4.
    connect_concurrency: usize;
    /// The longest life of a connection; each draws its own from 80 to 100 % of
    /// this when it is opened. Default: 30 minutes. 0: unlimited.
    conn_max_lifetime: Duration;
    /// The longest time a connection is kept idle. Default: 10 minutes, or
    /// `conn_max_lifetime` if that is less. 0: unlimited.
    conn_max_idle_time: Duration;
    /// How often a connection is lent before it is replaced. Default: 0,
    /// unlimited.
    conn_max_uses: u64;
    /// Which idle connection is lent first. Default:
    /// [`IdleOrder::Lifo`](crate::IdleOrder::Lifo).
    idle_order: IdleOrder;
    /// The longest an acquire takes, whatever it meets: waiting, checking,
    /// connecting. Default: 30 seconds. 0: it does not wait.
    acquire_timeout: Duration;
    /// The longest a connect takes: dial, TLS, login. Default: 5 seconds.
    connect_timeout: Duration;
    /// How long a connection may have been idle and still be lent without a
    /// check. Default: 1 second. 0: every one is checked.
    check_after_idle: Duration;
    /// The longest such a check takes. Default: 1 second.
    check_timeout: Duration;
    /// The longest the cleaning of a returned connection takes before it is
    /// closed instead. Default: 5 seconds.
    reset_timeout: Duration;
    /// How far connections are reset between borrowers. Default:
    /// [`Reset::Boundary`](crate::Reset::Boundary), which costs nothing when the
    /// borrower left none in flight.
    reset: Reset;
    /// How long a connection lies idle before it is checked in the background,
    /// and again after that. A dead one is replaced before a caller meets it,
    /// and firewalls see that the others are in use. Default: 30 seconds. 0:
    /// off.
    health_interval: Duration;
    /// How often a statement on the pool is tried again, on another connection,
    /// when the one it got proved dead before anything was sent. Default: 3. 0:
    /// one attempt.
    max_retries: u32;
    /// The longest wait before such a retry; each draws its own from 0 to
    /// this, but the first follows at once. Default: 1 second. 0: none waits.
    retry_interval: Duration;
    /// How long a connection may be held before it is reported to
    /// [`Builder::on_leak`](crate::Builder::on_leak) with who holds it: once when
    /// that is noticed, and once more if it comes back. It is never taken away. Default: 0, off.
    leak_after: Duration;
    /// Whether the pool measures how long callers wait, connects and statements
    /// take, and connections are held: the timings of a
    /// [`Snapshot`](crate::Snapshot), and the histograms among its
    /// [metrics](crate::metrics). Default: true. Counts
    /// are always kept.
    metrics_enabled: bool;
}

impl PoolConfig {
    /// The same with at most so many connections, and no higher limit on those
    /// that are idle.
    pub(crate) fn limited_to(mut self, max_open: usize) -> Self {
        self.max_open_conns = Some(max_open);
        if max_open > 0 {
            for idle in [&mut self.max_idle_conns, &mut self.min_idle_conns] {
                *idle = idle.map(|limit| limit.min(max_open));
            }
        }
        self
    }

    /// The longest an acquire takes, if that is set.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.acquire_timeout
    }

    /// All defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config), listing every fault with
    /// field, value and rule.
    pub fn validate(&self) -> Result<()> {
        self.resolve().map(drop)
    }

    /// The settings in force: set, or by default.
    pub(crate) fn resolve(&self) -> Result<Settings> {
        let settings = self.in_force();
        refuse(&settings.faults())?;
        Ok(settings)
    }

    /// How the settings contradict each other.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        self.in_force().faults()
    }

    fn in_force(&self) -> Settings {
        let unlimited = |limit: Duration| Some(limit).filter(|limit| !limit.is_zero());
        let max_open = match self.max_open_conns.unwrap_or(25) {
            0 => MAX_CONNECTIONS,
            limit => limit,
        };
        let max_lifetime = unlimited(self.conn_max_lifetime.unwrap_or(MINUTE * 30));
        let max_idle_time = match self.conn_max_idle_time {
            Some(limit) => unlimited(limit),
            None => Some(max_lifetime.map_or(MINUTE * 10, |limit| limit.min(MINUTE * 10))),
        };
        let acquire_timeout = self.acquire_timeout.unwrap_or(Duration::from_secs(30));
        Settings {
            made: self.clone(),
            max_open,
            min_idle: self.min_idle_conns.unwrap_or(0),
            max_idle: self.max_idle_conns.unwrap_or_else(|| max_open.min(10)),
            max_waiters: self.max_waiters.unwrap_or(65_536),
            connect_concurrency: self.connect_concurrency.unwrap_or(4),
            max_lifetime,
            max_idle_time,
            max_uses: Some(self.conn_max_uses.unwrap_or(0)).filter(|most| *most > 0),
            idle_order: self.idle_order.unwrap_or_default(),
            acquire_timeout,
            connect_timeout: self.connect_timeout.unwrap_or(Duration::from_secs(5)),
            check_after_idle: self.check_after_idle.unwrap_or(Duration::from_secs(1)),
            check_timeout: self.check_timeout.unwrap_or(Duration::from_secs(1)),
            reset_timeout: self.reset_timeout.unwrap_or(Duration::from_secs(5)),
            reset: self.reset.unwrap_or_default(),
            health_interval: unlimited(self.health_interval.unwrap_or(Duration::from_secs(30))),
            retry: Retry::of_pool(
                self.max_retries.unwrap_or(3),
                self.retry_interval.unwrap_or(Duration::from_secs(1)),
                acquire_timeout,
            ),
            leak_after: unlimited(self.leak_after.unwrap_or_default()),
            metrics_enabled: self.metrics_enabled.unwrap_or(true),
        }
    }
}

/// Why a setting was not made.
#[derive(Debug, PartialEq)]
pub(crate) enum Unset {
    /// There is none of that name.
    NoSuchName,
    /// The value is not of this form.
    Not(&'static str),
}

/// A setting with a wrong value, the value as it was written.
pub(crate) fn fault(name: &str, value: impl fmt::Display, form: &str) -> String {
    format!("{name} = {value}: must be {form}")
}

/// The error of a configuration with these faults; none if there is none.
fn refuse(faults: &[String]) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!("invalid pool configuration: {}", faults.join("; "))))
}

const MINUTE: Duration = Duration::from_secs(60);
/// What the pool does again and again it does not more often.
const SHORTEST: Duration = Duration::from_millis(1);

/// The settings in force.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// What they follow from.
    pub(crate) made: PoolConfig,
    pub(crate) max_open: usize,
    pub(crate) max_idle: usize,
    pub(crate) min_idle: usize,
    pub(crate) max_waiters: usize,
    pub(crate) connect_concurrency: usize,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) max_idle_time: Option<Duration>,
    pub(crate) max_uses: Option<u64>,
    pub(crate) idle_order: IdleOrder,
    pub(crate) acquire_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) check_after_idle: Duration,
    pub(crate) check_timeout: Duration,
    pub(crate) reset_timeout: Duration,
    pub(crate) reset: Reset,
    pub(crate) health_interval: Option<Duration>,
    pub(crate) retry: Retry,
    pub(crate) leak_after: Option<Duration>,
    pub(crate) metrics_enabled: bool,
}

impl Settings {
    /// Whether a pool that was built with these can go over to others.
    pub(crate) fn allows_change_to(&self, others: &Self) -> Result<()> {
        let fixed = match () {
            () if self.idle_order != others.idle_order => "idle_order",
            () if self.metrics_enabled != others.metrics_enabled => "metrics_enabled",
            () => return Ok(()),
        };
        Err(Error::config(format!("{fixed}: cannot be changed once the pool is built")))
    }

    /// Every fault, each as field, value and rule.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.max_open > MAX_CONNECTIONS {
            faults.push(format!(
                "max_open_conns = {}: must not exceed {MAX_CONNECTIONS}",
                self.max_open
            ));
        }
        if self.max_idle > self.max_open {
            faults.push(format!(
                "max_idle_conns = {}: must not exceed max_open_conns ({})",
                self.max_idle, self.max_open
            ));
        }
        if self.min_idle > self.max_idle {
            faults.push(format!(
                "min_idle_conns = {}: must not exceed max_idle_conns ({})",
                self.min_idle, self.max_idle
            ));
        }
        if let (Some(idle), Some(life)) = (self.max_idle_time, self.max_lifetime) {
            if idle > life {
                faults.push(format!(
                    "conn_max_idle_time = {idle:?}: must not exceed conn_max_lifetime ({life:?})"
                ));
            }
        }
        if self.connect_concurrency == 0 {
            faults.push("connect_concurrency = 0: must be at least 1".to_owned());
        }
        for (name, span) in [
            ("conn_max_lifetime", self.max_lifetime),
            ("conn_max_idle_time", self.max_idle_time),
            ("health_interval", self.health_interval),
            ("leak_after", self.leak_after),
        ] {
            // A bare number in a document is nanoseconds, and was hardly meant so.
            if let Some(span) = span.filter(|span| *span < SHORTEST) {
                faults.push(format!("{name} = {span:?}: must be 0, or at least {SHORTEST:?}"));
            }
        }
        for (name, limit) in [
            ("connect_timeout", self.connect_timeout),
            ("check_timeout", self.check_timeout),
            ("reset_timeout", self.reset_timeout),
        ] {
            if limit.is_zero() {
                faults.push(format!("{name} = 0ns: must be above 0"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millpond_driver::ErrorKind;

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let settings = PoolConfig::new().resolve().expect("the defaults are valid");
        assert_eq!((settings.max_open, settings.max_idle), (25, 10));
        assert_eq!(settings.max_lifetime, Some(MINUTE * 30));
        assert_eq!(settings.max_idle_time, Some(MINUTE * 10));
        let second = Duration::from_secs(1);
        assert_eq!(settings.health_interval, Some(second * 30));
        let retry = Retry::of_pool(3, second, second * 30);
        assert_eq!(format!("{:?}", settings.retry), format!("{retry:?}"));
        assert!(settings.metrics_enabled);
    }

    #[test]
    fn defaults_give_way_to_a_smaller_limit_that_is_set() {
        let settings = PoolConfig::new()
            .max_open_conns(4)
            .conn_max_lifetime(MINUTE)
            .resolve()
            .expect("nothing contradicts");
        assert_eq!(settings.max_idle, 4);
        assert_eq!(settings.max_idle_time, Some(MINUTE));
    }

    #[test]
    fn zero_means_unlimited_or_off_where_it_says_so() {
        let settings = PoolConfig::new()
            .max_open_conns(0)
            .max_idle_conns(0)
            .conn_max_lifetime(Duration::ZERO)
            .conn_max_idle_time(Duration::ZERO)
            .health_interval(Duration::ZERO)
            .resolve()
            .expect("zero is valid");
        assert_eq!((settings.max_open, settings.max_idle), (MAX_CONNECTIONS, 0));
        assert_eq!((settings.max_lifetime, settings.max_idle_time), (None, None));
        assert_eq!(settings.health_interval, None);
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let error = PoolConfig::new()
            .max_open_conns(4)
            .max_idle_conns(5)
            .conn_max_lifetime(MINUTE)
            .conn_max_idle_time(MINUTE * 2)
            .connect_concurrency(0)
            .connect_timeout(Duration::ZERO)
            .validate()
            .expect_err("four faults");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert_eq!(
            error.to_string(),
            "invalid pool configuration: \
             max_idle_conns = 5: must not exceed max_open_conns (4); \
             conn_max_idle_time = 120s: must not exceed conn_max_lifetime (60s); \
             connect_concurrency = 0: must be at least 1; \
             connect_timeout = 0ns: must be above 0"
        );
    }
}
