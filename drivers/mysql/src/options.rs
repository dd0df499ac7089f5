//! Where a database is and how it is reached.
//!
//! Owns the driver with its options and their defaults. Does not open anything.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use millpond_driver::{Credentials, Error, Result};
use mysql_async::{Opts, OptsBuilder, SslOpts};

use crate::login::LastLogin;
use crate::url;

/// Prepared statements that a connection keeps.
const STATEMENT_CACHE: usize = 100;
/// Idle time before the system asks whether the peer is still there; its own is
/// two hours.
const TCP_KEEPALIVE: Duration = Duration::from_secs(10);
/// The largest packet that any server takes. The server refuses what is too
/// large for it, and the client need not ask for the limit at each connect.
const MAX_PACKET: usize = 1 << 30;
/// The longest that Linux takes.
const LONGEST_KEEPALIVE: Duration = Duration::from_secs(32_767);
/// How a certificate begins.
const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";
/// The client's pool uses it, which is not used here; given, it is not asked
/// for at each connect.
const UNUSED: usize = 28_800;

/// A MySQL or MariaDB server, and a database on it.
///
/// ```
/// use std::time::Duration;
/// use millpond_mysql::{Mysql, Tls};
///
/// let orders = Mysql::host("db.example").user("app").password("secret").database("orders");
/// # #[cfg(feature = "rustls")]
/// let orders = orders.tls(Tls::VerifyIdentity).tcp_keepalive(Duration::from_secs(30));
/// let orders = Mysql::from_url("mysql://app:secret@db.example/orders?statement_cache=20")?;
/// # Ok::<(), millpond_driver::Error>(())
/// ```
///
/// What the client can do beyond these options is given as its own
/// [`Opts`], to [`from_opts`](Self::from_opts).
#[derive(Clone)]
pub struct Mysql {
    pub(crate) opts: Opts,
    tls: Tls,
    pub(crate) last_login: LastLogin,
}

/// Whether and how a connection is encrypted. The names are those of MySQL's
/// own `ssl-mode`.
///
/// `PREFERRED`, which goes on in the clear where the server has no TLS, is
/// missing on purpose: the client cannot do it, and whoever listens could force
/// it. So is `VERIFY_CA`: the client always compares the name as well.
///
/// Disabled unless asked for, the feature `rustls` or not. The first connection with
/// TLS makes ring the process's default of rustls, if that has none by then; an
/// application that wants another installs it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Tls {
    /// Not at all (`disabled`).
    #[default]
    Disabled,
    /// Encrypted, to whoever answers: the certificate is not looked at
    /// (`required`).
    Required,
    /// Encrypted, with a certificate of a known authority for this very host
    /// (`verify_identity`).
    VerifyIdentity,
}

impl Mysql {
    /// The server on this host, on port 3306.
    ///
    /// Its sessions count the rows that an `UPDATE` finds, as other databases
    /// do, not those that it changes.
    pub fn host(host: impl Into<String>) -> Self {
        let opts = OptsBuilder::default()
            .ip_or_hostname(host)
            // Else it connects by TCP, asks for the socket, and connects again.
            .prefer_socket(false)
            .client_found_rows(true)
            .stmt_cache_size(STATEMENT_CACHE)
            .tcp_keepalive(Some(TCP_KEEPALIVE))
            .max_allowed_packet(Some(MAX_PACKET))
            .wait_timeout(Some(UNUSED));
        Self { opts: opts.into(), tls: Tls::Disabled, last_login: LastLogin::default() }
    }

    /// The server and database that a URL names:
    /// `mysql://user:password@host:3306/database?ssl-mode=required`, or
    /// `mariadb://` with the same meaning.
    ///
    /// Blanks and other special characters are written as `%20`. The
    /// parameters are `ssl-mode` (`disabled`, `required`, `verify_identity`),
    /// `ssl-ca` (a PEM file), `socket` (a path; the host is then not used),
    /// `statement_cache` and `tcp_keepalive`.
    ///
    /// # Errors
    ///
    /// The URL names no host, or a parameter is unknown or has a bad value; the
    /// message says which, and what is known. It repeats neither the URL nor
    /// the password.
    pub fn from_url(url: &str) -> Result<Self> {
        let database = url::parse(url)?;
        database.check()?;
        Ok(database)
    }

    /// What the client's own options say. The driver adds its set-up of a
    /// session, keeps one prepared statement at least, and changes nothing else.
    pub fn from_opts(opts: Opts) -> Self {
        let tls = match opts.ssl_opts() {
            None => Tls::Disabled,
            Some(tls) if tls.accept_invalid_certs() => Tls::Required,
            Some(_) => Tls::VerifyIdentity,
        };
        let statements = opts.stmt_cache_size();
        let database = Self { opts, tls, last_login: LastLogin::default() };
        if statements == 0 { database.statement_cache(statements) } else { database }
    }

    /// The port. Default: 3306.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.with(|opts| opts.tcp_port(port))
    }

    /// Who logs in. Default: nobody, an anonymous user.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        self.with(|opts| opts.user(Some(user)))
    }

    /// The password. Default: none.
    #[must_use]
    pub fn password(self, password: impl Into<String>) -> Self {
        self.with(|opts| opts.pass(Some(password)))
    }

    /// The database that statements mean by default. Default: none.
    #[must_use]
    pub fn database(self, name: impl Into<String>) -> Self {
        self.with(|opts| opts.db_name(Some(name)))
    }

    /// A Unix socket to connect through. Default: none, TCP.
    #[must_use]
    pub fn socket(self, path: impl Into<String>) -> Self {
        self.with(|opts| opts.socket(Some(path)))
    }

    /// Whether and how connections are encrypted. Default: not at all. Needs
    /// the feature `rustls`; without it connecting is an error.
    ///
    /// Certificates are checked against the authorities that browsers know;
    /// [`ca`](Self::ca) names another.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        let keep = self.opts.ssl_opts().cloned().unwrap_or_default();
        let options = match tls {
            Tls::Disabled => None,
            Tls::Required => Some(keep.with_danger_accept_invalid_certs(true)),
            Tls::VerifyIdentity => Some(
                keep.with_danger_accept_invalid_certs(false)
                    .with_danger_skip_domain_validation(false),
            ),
        };
        self.with(|opts| opts.ssl_opts(options))
    }

    /// Encrypts, and takes certificates of the authorities in this PEM file and
    /// of no other, for this very host: [`Tls::VerifyIdentity`].
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds no certificate. It is read here and now.
    pub fn ca(mut self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let pem = std::fs::read(path).map_err(|error| {
            Error::config(format!("ssl-ca: {path:?} cannot be read: {error}")).with_source(error)
        })?;
        if !pem.windows(PEM.len()).any(|text| text == PEM) {
            return Err(Error::config(format!("ssl-ca: {path:?} holds no certificate as PEM")));
        }
        self.tls = Tls::VerifyIdentity;
        let options =
            SslOpts::default().with_root_certs(vec![pem.into()]).with_disable_built_in_roots(true);
        Ok(self.with(|opts| opts.ssl_opts(options)))
    }

    /// How many prepared statements a connection keeps, on the server too: one
    /// at least, for the client closes them only to keep another. Default: 100.
    #[must_use]
    pub fn statement_cache(self, statements: usize) -> Self {
        self.with(|opts| opts.stmt_cache_size(statements.max(1)))
    }

    /// After how long without traffic the system asks whether the peer is still
    /// there, from 1 s to 32,767 s. Default: 10 s. Zero: never.
    #[must_use]
    pub fn tcp_keepalive(self, idle: Duration) -> Self {
        self.with(|opts| opts.tcp_keepalive(Some(idle).filter(|idle| !idle.is_zero())))
    }

    pub(crate) fn with(self, change: impl FnOnce(OptsBuilder) -> OptsBuilder) -> Self {
        // A host that came in a URL has brackets around an IPv6 address, with
        // which it would not be found.
        let host = self.opts.ip_or_hostname().trim_matches(['[', ']']).to_owned();
        let opts = OptsBuilder::from_opts(self.opts).ip_or_hostname(host);
        Self { opts: change(opts).into(), tls: self.tls, last_login: LastLogin::default() }
    }

    /// What to log in with, where this is given for one connect.
    pub(crate) fn login(&self, given: Option<&Credentials>) -> Opts {
        let Some(given) = given else { return self.opts.clone() };
        let mut login = self.clone();
        if let Some(user) = &given.user {
            login = login.user(user);
        }
        if let Some(password) = &given.password {
            login = login.password(password);
        }
        login.opts
    }

    /// What can be known to be wrong before anything is opened.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(idle) = self.opts.tcp_keepalive() {
            if !(Duration::from_secs(1)..=LONGEST_KEEPALIVE).contains(&idle) {
                return Err(Error::config(format!(
                    "tcp_keepalive: {idle:?} is not between 1s and 32767s, nor zero"
                )));
            }
        }
        if self.tls == Tls::Disabled {
            return Ok(());
        }
        if cfg!(not(feature = "rustls")) {
            return Err(Error::config(
                "ssl-mode: TLS is not enabled: add the feature `rustls` of millpond",
            ));
        }
        if self.opts.socket().is_some() {
            return Err(Error::config(
                "ssl-mode: a Unix socket is not encrypted; leave socket or ssl-mode out",
            ));
        }
        Ok(())
    }

    /// What TLS needs and the process has once.
    pub(crate) fn prepare_tls(&self) {
        #[cfg(feature = "rustls")]
        if self.tls != Tls::Disabled {
            choose_cryptography();
        }
    }

    /// Where it is, for messages.
    pub(crate) fn place(&self) -> String {
        match self.opts.socket() {
            Some(path) => path.to_owned(),
            None => {
                let (host, port) = (self.opts.ip_or_hostname(), self.opts.tcp_port());
                if host.contains(':') && !host.starts_with('[') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
        }
    }
}

/// The client takes the default of the process, and rustls panics where there is
/// none and two crates of the program each bring another.
#[cfg(feature = "rustls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Refused where another thread was first, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

impl fmt::Debug for Mysql {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mysql")
            .field("place", &self.place())
            .field("user", &self.opts.user())
            .field("database", &self.opts.db_name())
            .field("tls", &self.tls)
            .field("statement_cache", &self.opts.stmt_cache_size())
            .field("tcp_keepalive", &self.opts.tcp_keepalive())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_where_and_never_the_password() {
        let database = Mysql::host("db").user("app").password("secret").database("orders");
        let text = format!("{database:?} {database:#?}");
        assert!(text.contains("db:3306") && text.contains("orders"), "{text}");
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn a_url_of_the_client_keeps_its_host_through_further_options() {
        let opts = Opts::from_url("mysql://app@[::1]:3307/orders").expect("a good URL");
        let database = Mysql::from_opts(opts).user("other");
        assert_eq!(database.opts.ip_or_hostname(), "::1");
        assert_eq!(database.place(), "[::1]:3307");
    }

    #[test]
    fn tls_is_refused_where_it_cannot_be_had() {
        let database = Mysql::host("db").tls(Tls::Required);
        assert_eq!(database.check().is_ok(), cfg!(feature = "rustls"));
        let error = database.socket("/run/mysqld.sock").check().expect_err("no TLS on sockets");
        assert!(error.is_permanent());
        assert!(error.message().starts_with("ssl-mode: "), "{error}");
    }

    #[test]
    fn whoever_asks_for_the_identity_has_the_name_compared() {
        let lax = SslOpts::default()
            .with_danger_accept_invalid_certs(true)
            .with_danger_skip_domain_validation(true);
        let opts: Opts = OptsBuilder::default().ssl_opts(Some(lax)).into();
        let database = Mysql::from_opts(opts).tls(Tls::VerifyIdentity);
        let tls = database.opts.ssl_opts().expect("TLS");
        assert!(!tls.accept_invalid_certs() && !tls.skip_domain_validation(), "{tls:?}");
    }

    #[test]
    fn an_authority_without_a_certificate_is_named_at_once() {
        let error = Mysql::host("db").ca("Cargo.toml").expect_err("no certificate");
        assert_eq!(error.message(), "ssl-ca: \"Cargo.toml\" holds no certificate as PEM");
    }

    #[test]
    fn an_authority_that_cannot_be_read_is_named_at_once() {
        let error = Mysql::host("db").ca("/no/such/ca.pem").expect_err("no such file");
        assert!(
            error.message().starts_with("ssl-ca: \"/no/such/ca.pem\" cannot be read"),
            "{error}"
        );
    }
}
