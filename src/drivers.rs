//! The databases, by name: the only file of this crate that names one.
//!
//! Owns the way from a feature to a driver: feature `x` brings the crate
//! `millpond-x` as `drivers::x`. Knows nothing of what a driver does; the rest
//! of the crate sees the [`Driver`](millpond_driver::Driver) trait and nothing
//! else.

mod any;

pub use any::{Any, AnyConnection};
#[cfg(feature = "fake")]
#[doc(inline)]
pub use millpond_fake as fake;
#[cfg(feature = "sqlite-system")]
#[doc(inline)]
pub use millpond_sqlite as sqlite;

use millpond_driver::{Error, Result};

use crate::Pool;

/// The databases that a URL may name: scheme, name, feature.
const SCHEMES: [(&str, &str, &str); 5] = [
    ("sqlite", "SQLite", "sqlite"),
    ("postgres", "PostgreSQL", "postgres"),
    ("postgresql", "PostgreSQL", "postgres"),
    ("mysql", "MySQL", "mysql"),
    ("mariadb", "MariaDB", "mysql"),
];

impl Any {
    /// The driver that a URL names: `sqlite://path/to/file.db`,
    /// `sqlite::memory:`.
    ///
    /// # Errors
    ///
    /// An unknown scheme, a database whose feature is off, or what the driver
    /// says of the rest. Never repeats the URL: it may hold a password.
    pub fn from_url(url: &str) -> Result<Self> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            #[cfg(feature = "sqlite-system")]
            "sqlite" => Ok(Self::new(sqlite::Sqlite::from_url(url)?)),
            _ => Err(refuse(scheme)),
        }
    }
}

/// Opens a pool on the database that a URL names, and proves it: one
/// connection is opened and pinged within `connect_timeout`.
///
/// Parameters named as settings of [`PoolConfig`](crate::PoolConfig) are the pool's, the others
/// the driver's: `sqlite://data.db?max_open_conns=8&busy_timeout=2s`.
///
#[cfg_attr(
    all(
        feature = "sqlite-system",
        any(feature = "tokio", feature = "smol", feature = "async-std")
    ),
    doc = "```"
)]
#[cfg_attr(
    not(all(
        feature = "sqlite-system",
        any(feature = "tokio", feature = "smol", feature = "async-std")
    )),
    doc = "```ignore"
)]
/// # millpond::runtime::block_on(async {
/// let pool = millpond::connect("sqlite::memory:?max_open_conns=4").await?;
/// let rows = pool.query("SELECT 40 + 2", &[]).await?;
/// assert_eq!(rows.scalar::<i64>()?, 42);
/// # Ok::<_, millpond::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As for [`Any::from_url`] and [`Builder::build`](crate::Builder::build).
///
/// # Cancellation
///
/// Dropping the future closes what was opened.
pub async fn connect(url: &str) -> Result<Pool<Any>> {
    let (config, url) = crate::config::url::split(url)?;
    Pool::builder(Any::from_url(&url)?).config(config).build().await
}

/// Why a scheme cannot be had.
fn refuse(scheme: &str) -> Error {
    let known = SCHEMES.iter().find(|(name, ..)| *name == scheme);
    Error::config(match known {
        Some((_, database, feature)) if *feature == "sqlite" => {
            format!("{database} is not enabled: add the feature `{feature}` of millpond")
        }
        Some((_, database, _)) => {
            format!("this version of millpond has no driver for {database}")
        }
        None if scheme.is_empty() => {
            "the URL has no scheme: begin it with sqlite:, as in sqlite://data.db".to_owned()
        }
        None => format!("unknown scheme {scheme:?}: known is sqlite:"),
    })
}

/// The README's example, run.
#[cfg(all(
    doctest,
    feature = "sqlite-system",
    any(feature = "tokio", feature = "smol", feature = "async-std")
))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_names_no_driver_is_refused_and_not_repeated() {
        for (url, expected) in [
            ("mongo://user:secret@host", "unknown scheme \"mongo\": known is sqlite:"),
            (
                "postgres://user:secret@host",
                "this version of millpond has no driver for PostgreSQL",
            ),
            ("user:secret", "unknown scheme \"user\": known is sqlite:"),
            ("data.db", "the URL has no scheme: begin it with sqlite:, as in sqlite://data.db"),
        ] {
            assert_eq!(Any::from_url(url).expect_err(url).to_string(), expected);
        }
    }

    #[cfg(not(feature = "sqlite-system"))]
    #[test]
    fn a_driver_that_is_off_says_which_feature_brings_it() {
        let error = Any::from_url("sqlite://data.db").expect_err("it is off");
        assert_eq!(
            error.to_string(),
            "SQLite is not enabled: add the feature `sqlite` of millpond"
        );
    }
}
