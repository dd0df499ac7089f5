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
#[cfg(feature = "mysql")]
#[doc(inline)]
pub use millpond_mysql as mysql;
#[cfg(feature = "postgres")]
#[doc(inline)]
pub use millpond_postgres as postgres;
#[cfg(feature = "sqlite-system")]
#[doc(inline)]
pub use millpond_sqlite as sqlite;

use millpond_driver::{Error, Result, Role};

use crate::balance::config::NodeConfig;
use crate::balance::url;
use crate::{Cluster, ClusterConfig, Pool, PoolConfig};

/// The schemes that a URL may have, with the database and the feature.
const SCHEMES: [(&str, &str, &str); 5] = [
    ("postgres", "PostgreSQL", "postgres"),
    ("postgresql", "PostgreSQL", "postgres"),
    ("mysql", "MySQL", "mysql"),
    ("mariadb", "MariaDB", "mysql"),
    ("sqlite", "SQLite", "sqlite"),
];

impl Any {
    /// The driver that a URL names: `postgres://user:password@host/database`,
    /// `mysql://…`, `mariadb://…`, `sqlite://path/to/file.db`,
    /// `sqlite::memory:`.
    ///
    /// # Errors
    ///
    /// An unknown scheme, a database whose feature is off, or what the driver
    /// says of the rest. Never repeats the URL: it may hold a password.
    pub fn from_url(url: &str) -> Result<Self> {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme {
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Ok(Self::new(mysql::Mysql::from_url(url)?)),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => Ok(Self::new(postgres::Postgres::from_url(url)?)),
            #[cfg(feature = "sqlite-system")]
            "sqlite" => Ok(Self::new(sqlite::Sqlite::from_url(url)?)),
            _ => Err(refuse(scheme)),
        }
    }
}

/// Opens a pool on the database that a URL names, and proves it: one
/// connection is opened and pinged within `connect_timeout`.
///
/// Parameters named as settings of [`PoolConfig`] are the pool's, the others
/// the driver's: `postgres://user@host/database?max_open_conns=8&sslmode=require`.
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
    let driver = Any::from_url(&url).map_err(|error| crate::config::url::hint(&url, error))?;
    Pool::builder(driver).config(config).build().await
}

/// Opens a cluster on what a URL names, and asks all its nodes: it is there as
/// soon as all have answered or failed to, if one has answered.
///
/// - `postgres://user:password@a,b:5433,c/database`: a node for each host, named
///   by host and port as they are written; `mysql://` and `mariadb://` alike. A
///   host may be an address in brackets, `[::1]:5433`, or a socket's folder,
///   `%2Frun%2Fpostgresql`. The nodes say themselves which of them is the primary.
/// - `sqlite://path/to/file.db`, `sqlite::memory:`: two nodes on one database. The
///   `writer` has one connection, so that writers queue in order instead of
///   meeting a lock; the `reader` has as many as `max_open_conns` says, all of
///   which refuse writes.
///
/// Parameters are
///
/// - those named as settings of [`PoolConfig`], for the pool of each node;
///   `acquire_timeout` is how long a caller of the cluster waits as well;
/// - `max_lag`, how far a replica may be
///   [behind](crate::balance::Builder::max_lag): `max_lag=5s`;
/// - `strategy`, who of several nodes is picked: `least_cost`,
///   `least_connections`, `round_robin`, `two_choices` or `weighted_random`;
/// - `probe_interval` and `probe_timeout`, [how often](crate::health::HealthConfig::interval)
///   a node is asked how it is and [how long](crate::health::HealthConfig::timeout)
///   it may take to answer;
/// - the driver's: `sslmode=require`.
///
/// [`ClusterConfig`] is the same with more to say in code, or from a document.
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
/// use millpond::{Route, params};
///
/// # millpond::runtime::block_on(async {
/// let cluster = millpond::connect_cluster("sqlite::memory:?max_open_conns=4").await?;
/// cluster.execute("CREATE TABLE visit (page TEXT)", &[]).await?;
/// cluster.execute("INSERT INTO visit VALUES (?)", &params!["/cart"]).await?;
/// let rows = cluster.query(Route::Replica, "SELECT page FROM visit", &[]).await?;
/// assert_eq!(rows.scalar::<String>()?, "/cart");
/// # Ok::<_, millpond::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
///
/// As for [`ClusterConfig::from_url`] and
/// [`balance::Builder::build`](crate::balance::Builder::build).
///
/// # Cancellation
///
/// Dropping the future closes what was opened.
pub async fn connect_cluster(url: &str) -> Result<Cluster<Any>> {
    ClusterConfig::from_url(url)?.builder().build().await
}

/// The nodes on the database of a URL that has no setting any more, each with
/// these of its pool.
pub(crate) fn nodes(url: &str, pool: &PoolConfig) -> Result<Vec<NodeConfig>, Vec<Error>> {
    if is_one_database(url) {
        let driver = Any::from_url(url).map_err(|error| vec![error])?;
        let writer = NodeConfig::new("writer", driver.clone(), pool.clone().limited_to(1));
        let reader = NodeConfig::new("reader", driver, pool.clone());
        return Ok(vec![writer.role(Role::Primary), reader.role(Role::Replica)]);
    }
    let mut faults: Vec<Error> = Vec::new();
    let mut nodes = Vec::new();
    let hosts = url::hosts(url)?;
    for host in &hosts {
        match Any::from_url(&host.url) {
            Ok(driver) => nodes.push(NodeConfig::new(&*host.name, driver, pool.clone())),
            // What is wrong with all is said once.
            Err(error) if faults.iter().any(|it| it.message() == error.message()) => {}
            Err(error) => faults.push(error),
        }
    }
    // Before that, what looks like a host may be half a password.
    if faults.is_empty() {
        let alike = |(n, host): (usize, &url::Host)| {
            let earlier = hosts[..n].iter().filter(|other| other.name == host.name).count();
            (earlier == 1).then(|| Error::config(format!("{}: is given twice", host.name)))
        };
        faults.extend(hosts.iter().enumerate().filter_map(alike));
    }
    if faults.is_empty() { Ok(nodes) } else { Err(faults) }
}

/// The driver of one node on a URL that has no setting of its pool any more.
#[cfg(feature = "serde")]
pub(crate) fn node(url: &str) -> Result<Any, Vec<Error>> {
    if !is_one_database(url) {
        let hosts = url::hosts(url)?.len();
        if hosts > 1 {
            let fault = format!("host: must be one, as a node is one server, and not {hosts}");
            return Err(vec![Error::config(fault)]);
        }
    }
    Any::from_url(url).map_err(|error| vec![error])
}

/// Whether the database of a URL is in a file or in memory, and not on hosts.
fn is_one_database(url: &str) -> bool {
    url.starts_with("sqlite:")
}

/// Why a scheme cannot be had.
fn refuse(scheme: &str) -> Error {
    if scheme.is_empty() {
        return Error::config(
            "the URL has no scheme: begin it with the database, as in \
             postgres://user@host/database or sqlite://data.db",
        );
    }
    let known = SCHEMES.iter().find(|(name, ..)| *name == scheme);
    Error::config(match known {
        Some((_, database, feature)) => {
            format!("{database} is not enabled: add the feature `{feature}` of millpond")
        }
        None => {
            let known = SCHEMES.map(|(name, ..)| name).join(", ");
            format!("unknown scheme {scheme:?}: known are {known}")
        }
    })
}

/// The README's examples, run by `scripts/examples`.
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
        let unknown = |scheme| {
            format!(
                "unknown scheme {scheme:?}: known are postgres, postgresql, mysql, mariadb, sqlite"
            )
        };
        for (url, expected) in [
            ("mongo://user:secret@host", unknown("mongo")),
            ("user:secret", unknown("user")),
            (
                "data.db",
                "the URL has no scheme: begin it with the database, as in \
                 postgres://user@host/database or sqlite://data.db"
                    .to_owned(),
            ),
        ] {
            assert_eq!(Any::from_url(url).expect_err(url).to_string(), expected);
        }
    }

    #[test]
    fn a_driver_that_is_off_says_which_feature_brings_it() {
        for (url, is_on, expected) in [
            (
                "postgres://user:secret@host/database",
                cfg!(feature = "postgres"),
                "PostgreSQL is not enabled: add the feature `postgres` of millpond",
            ),
            (
                "mariadb://user:secret@host/database",
                cfg!(feature = "mysql"),
                "MariaDB is not enabled: add the feature `mysql` of millpond",
            ),
            (
                "sqlite://data.db",
                cfg!(feature = "sqlite-system"),
                "SQLite is not enabled: add the feature `sqlite` of millpond",
            ),
        ] {
            match Any::from_url(url) {
                Ok(_) => assert!(is_on, "{url}"),
                Err(error) => assert_eq!((is_on, error.to_string().as_str()), (false, expected)),
            }
        }
    }
}
