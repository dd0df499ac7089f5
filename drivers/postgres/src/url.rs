//! Reads a server from a URL.
//!
//! Decides what a URL may say and what is said of a wrong one: never its
//! password. Does not connect. Parameters of a pool are not its business:
//! whoever owns the pool takes them out first.

use std::net::IpAddr;
use std::path::PathBuf;

use millpond_driver::url::{choice, decode, duration, number, pairs, unknown, wrong};
use millpond_driver::{Error, Keepalive, Result};
use tokio_postgres::config::ChannelBinding;

use crate::options::{DEFAULT_PORT, Host, Options, Place, TargetSession};
use crate::{Postgres, TlsMode};

const PARAMETERS: [&str; 21] = [
    "application_name",
    "channel_binding",
    "connect_timeout",
    "dbname",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement_cache",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

const TLS_MODES: [(&str, TlsMode); 5] = [
    ("disable", TlsMode::Disable),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

const SESSIONS: [(&str, TargetSession); 6] = [
    ("any", TargetSession::Any),
    ("read-write", TargetSession::ReadWrite),
    ("read-only", TargetSession::ReadOnly),
    ("primary", TargetSession::Primary),
    ("standby", TargetSession::Standby),
    ("prefer-standby", TargetSession::PreferStandby),
];

const BINDINGS: [(&str, ChannelBinding); 3] = [
    ("disable", ChannelBinding::Disable),
    ("prefer", ChannelBinding::Prefer),
    ("require", ChannelBinding::Require),
];

pub(crate) fn parse(url: &str) -> Result<Postgres> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let Some(rest) = rest else {
        return Err(Error::config(
            "the URL of a PostgreSQL server begins with postgres:// or postgresql://",
        ));
    };
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, hosts) = match authority.rsplit_once('@') {
        // Then what looks like hosts may be half a password, and is not shown.
        Some((login, _)) if login.contains(':') && is_cut(rest) => return Err(ambiguous()),
        None if authority.contains(':') && rest.contains('@') => return Err(ambiguous()),
        Some((login, hosts)) => (Some(login), hosts),
        None => (None, authority),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let hosts = each(hosts, |text| host(text, login.is_some()))?;
    let inherited = hosts.iter().map(|(_, port)| *port).collect();
    let mut server = Server { hosts, inherited, ..Server::default() };
    if let Some(login) = login {
        let (user, password) =
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        if !user.is_empty() {
            server.options.login.user(decode("user", user)?);
        }
        if let Some(password) = password {
            server.options.login.password(decode("password", password)?);
        }
    }
    let database = decode("database", path.strip_prefix('/').unwrap_or(path))?;
    if !database.is_empty() {
        server.options.login.dbname(database);
    }
    for (name, value) in pairs(query) {
        let name = decode("parameter", name)?;
        server.set(&name, decode(&name, value)?)?;
    }
    server.finish()
}

/// What has been read so far.
struct Server {
    options: Options,
    hosts: Vec<(String, Option<u16>)>,
    addresses: Vec<String>,
    ports: Vec<Option<u16>>,
    /// Those that stand before the path, for hosts that are named after it.
    inherited: Vec<Option<u16>>,
    mode: Option<TlsMode>,
    /// The root certificates are to be the system's.
    has_system_roots: bool,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            options: Options::new(Vec::new()),
            hosts: Vec::new(),
            addresses: Vec::new(),
            ports: Vec::new(),
            inherited: Vec::new(),
            mode: None,
            has_system_roots: false,
            certificate: None,
            key: None,
        }
    }
}

impl Server {
    fn set(&mut self, name: &str, value: String) -> Result<()> {
        let Self { options, .. } = self;
        let Options { login, socket, .. } = options;
        match name {
            "application_name" => drop(login.application_name(value)),
            "channel_binding" => drop(login.channel_binding(choice(name, &value, &BINDINGS)?)),
            "connect_timeout" => {
                let limit = duration(name, &value, "s")?;
                options.connect_timeout = (!limit.is_zero()).then_some(limit);
            }
            "dbname" => drop(login.dbname(value)),
            "host" => {
                self.hosts = value.split(',').map(|host| (host.to_owned(), None)).collect();
            }
            "hostaddr" => self.addresses = value.split(',').map(str::to_owned).collect(),
            "keepalives" => match &*value {
                "0" => socket.keepalive = None,
                "1" => drop(socket.keepalive.get_or_insert_default()),
                _ => return Err(wrong(name, &value, "is not one of 0, 1")),
            },
            "keepalives_count" => self.keepalive().retries = number(name, &value)?,
            "keepalives_idle" => self.keepalive().idle = duration(name, &value, "s")?,
            "keepalives_interval" => self.keepalive().interval = duration(name, &value, "s")?,
            "options" => drop(login.options(value)),
            "password" => drop(login.password(value)),
            "port" => self.ports = value.split(',').map(port).collect::<Result<_>>()?,
            "sslcert" => self.certificate = Some(value.into()),
            "sslkey" => self.key = Some(value.into()),
            "sslmode" => self.mode = Some(choice(name, &value, &TLS_MODES)?),
            "sslrootcert" => {
                self.has_system_roots = value == "system";
                options.tls.roots = (value != "system").then(|| value.into());
            }
            "statement_cache" => options.statement_cache = number(name, &value)?,
            "target_session_attrs" => options.session = choice(name, &value, &SESSIONS)?,
            "tcp_user_timeout" => {
                let limit = duration(name, &value, "ms")?;
                socket.user_timeout = (!limit.is_zero()).then_some(limit);
            }
            "user" => drop(login.user(value)),
            _ => return Err(unknown(name, "PostgreSQL", &PARAMETERS)),
        }
        Ok(())
    }

    fn keepalive(&mut self) -> &mut Keepalive {
        self.options.socket.keepalive.get_or_insert_default()
    }

    fn finish(self) -> Result<Postgres> {
        let Self {
            mut options,
            hosts,
            addresses,
            mut ports,
            inherited,
            mode,
            has_system_roots,
            certificate,
            key,
        } = self;
        let count = hosts.len().max(addresses.len());
        for (what, given) in [("host", hosts.len()), ("hostaddr", addresses.len())] {
            if given > 0 && given != count {
                return Err(Error::config(format!("{what}: there are {given} for {count} hosts")));
            }
        }
        // As with libpq: other hosts, the same ports. Those of the same hosts are
        // theirs already.
        if ports.is_empty() && inherited.iter().any(Option::is_some) {
            ports = inherited;
        }
        if ports.len() > 1 && ports.len() != count {
            let given = ports.len();
            return Err(Error::config(format!("port: there are {given} for {count} hosts")));
        }
        for index in 0..count {
            let (name, own) = hosts.get(index).cloned().unwrap_or_default();
            let shared = ports.get(index).or_else(|| ports.first()).copied().flatten();
            let port = own.or(shared).unwrap_or(DEFAULT_PORT);
            let address = match addresses.get(index).filter(|address| !address.is_empty()) {
                None => None,
                Some(text) => {
                    let parsed = text.parse::<IpAddr>();
                    Some(parsed.map_err(|_| wrong("hostaddr", text, "is not an IP address"))?)
                }
            };
            options.hosts.push(match address {
                Some(address) if name.is_empty() => {
                    Host { place: Place::Name(address.to_string(), Some(address)), port }
                }
                Some(address) => Host { place: Place::Name(name, Some(address)), port },
                None if name.is_empty() => Host::new("localhost", port),
                None => Host::new(name, port),
            });
        }
        options.tls.identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(Error::config("sslcert and sslkey: one needs the other")),
        };
        options.tls.mode = match (mode, has_system_roots) {
            // As with libpq: anybody has a certificate of such an authority.
            (None | Some(TlsMode::VerifyFull), true) => TlsMode::VerifyFull,
            (Some(_), true) => {
                return Err(Error::config("sslmode: sslrootcert=system asks for verify-full"));
            }
            (mode, false) => mode.unwrap_or_default(),
        };
        options.tls.check()?;
        Ok(Postgres { options })
    }
}

/// Whether the password went on after what ended it: no name of a database or a
/// parameter has an @.
fn is_cut(rest: &str) -> bool {
    rest.split('=').next().is_some_and(|names| names.contains('@'))
}

fn ambiguous() -> Error {
    Error::config("user and password: / and ? in them are written %2F and %3F, and @ elsewhere %40")
}

fn each<T>(list: &str, read: impl Fn(&str) -> Result<T>) -> Result<Vec<T>> {
    list.split(',').map(read).collect()
}

/// `name`, `name:port`, `[::1]:port`, `%2Frun%2Fpostgresql`, or nothing. Without a
/// login before it, what should be a port may be a password.
fn host(text: &str, has_login: bool) -> Result<(String, Option<u16>)> {
    let (name, rest) = match text.strip_prefix('[') {
        Some(text) => text
            .split_once(']')
            .ok_or_else(|| Error::config("host: a [ has no ] that ends the address"))?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(text) => match port(text) {
            Err(_) if !has_login => {
                return Err(Error::config(
                    "port: it is not a number from 1 to 65535; if it is a password, @ and a host \
                     come after it",
                ));
            }
            port => port?,
        },
        None if rest.is_empty() => None,
        None => return Err(Error::config("host: after ] comes : and a port, or nothing")),
    };
    Ok((decode("host", name)?, port))
}

fn port(text: &str) -> Result<Option<u16>> {
    match text.parse() {
        Ok(0) | Err(_) if !text.is_empty() => {
            Err(wrong("port", text, "is not a number from 1 to 65535"))
        }
        parsed => Ok(parsed.ok()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn options(url: &str) -> Options {
        parse(url).expect(url).options
    }

    fn refused(url: &str) -> String {
        let error = parse(url).expect_err(url);
        assert!(error.is_permanent(), "{url}");
        error.to_string()
    }

    #[test]
    fn every_form_of_a_url_names_its_hosts() {
        for (url, hosts) in [
            ("postgres://", &["localhost:5432"][..]),
            ("postgresql:///db", &["localhost:5432"]),
            ("postgres://db.example.com/x", &["db.example.com:5432"]),
            ("postgres://u:p@a:1,b:2/x", &["a:1", "b:2"]),
            ("postgres://u@a,b:2,c/x?port=9", &["a:9", "b:2", "c:9"]),
            ("postgres://u@[::1]:7/x", &["[::1]:7"]),
            ("postgres://u@[fe80::1],127.0.0.1", &["[fe80::1]:5432", "127.0.0.1:5432"]),
            ("postgres://%2Frun%2Fpg/x", &["/run/pg:5432"]),
            ("postgres://u@%2Frun%2Fpg:6/x", &["/run/pg:6"]),
            ("postgres:///x?host=/run/pg&port=6", &["/run/pg:6"]),
            ("postgres:///x?host=a,b&port=1,2", &["a:1", "b:2"]),
            ("postgres://app@localhost:5433/db?host=/run/postgresql", &["/run/postgresql:5433"]),
            ("postgres://:5433/db?host=/run/postgresql", &["/run/postgresql:5433"]),
            ("postgres://:7/db?host=a,b", &["a:7", "b:7"]),
            ("postgres://x:1,y/db?host=a,b", &["a:1", "b:5432"]),
            ("postgres://x:1/db?port=6&host=/run/pg", &["/run/pg:6"]),
            ("postgres://x:1/db?host=a&host=b", &["b:1"]),
            ("postgres://x,y/db?host=a", &["a:5432"]),
            ("postgres://?hostaddr=10.0.0.1", &["10.0.0.1:5432"]),
        ] {
            let found: Vec<_> = options(url).hosts.iter().map(ToString::to_string).collect();
            assert_eq!(found, hosts, "{url}");
        }
        let hosts = options("postgres://db/x?hostaddr=10.0.0.1").hosts;
        let address = Some("10.0.0.1".parse().expect("an address"));
        assert_eq!(hosts[0].place, Place::Name("db".to_owned(), address));
    }

    #[test]
    fn user_password_and_database_are_decoded() {
        for url in [
            "postgres://a%40b:p%2Fs%3A%25@h/d%20b",
            "postgres://h/?user=a%40b&password=p%2Fs%3A%25&dbname=d%20b",
        ] {
            let login = options(url).login;
            assert_eq!(login.get_user(), Some("a@b"));
            assert_eq!(login.get_password(), Some(&b"p/s:%"[..]));
            assert_eq!(login.get_dbname(), Some("d b"));
        }
        let login = options("postgres://u:p@ss:w@h").login;
        assert_eq!(login.get_password(), Some(&b"p@ss:w"[..]));
        assert_eq!(options("postgres://u@h").login.get_password(), None);
        assert_eq!(options("postgres://h").login.get_user(), None);
    }

    #[test]
    fn every_parameter_reaches_its_option() {
        let options = options(
            "postgres://h/d?application_name=shop&channel_binding=require&connect_timeout=3\
             &keepalives_count=4&keepalives_idle=20&keepalives_interval=500ms\
             &options=-c%20statement_timeout%3D1s&sslmode=disable&sslrootcert=/ca.pem\
             &sslcert=/c.pem&sslkey=/k.pem&statement_cache=7&target_session_attrs=read-write\
             &tcp_user_timeout=1500",
        );
        assert_eq!(options.login.get_application_name(), Some("shop"));
        assert_eq!(options.login.get_channel_binding(), ChannelBinding::Require);
        assert_eq!(options.login.get_options(), Some("-c statement_timeout=1s"));
        assert_eq!(options.connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(options.socket.user_timeout, Some(Duration::from_millis(1500)));
        let keepalive = options.socket.keepalive.expect("probes");
        assert_eq!((keepalive.retries, keepalive.idle), (4, Duration::from_secs(20)));
        assert_eq!(keepalive.interval, Duration::from_millis(500));
        assert_eq!(options.tls.mode, TlsMode::Disable);
        assert_eq!(options.tls.roots, Some("/ca.pem".into()));
        assert_eq!(options.tls.identity, Some(("/c.pem".into(), "/k.pem".into())));
        assert_eq!(options.session, TargetSession::ReadWrite);
        assert_eq!(options.statement_cache, 7);
    }

    #[test]
    fn without_parameters_dead_peers_are_noticed_and_hosts_share_the_time() {
        let options = options("postgres://h/d");
        assert_eq!(options.socket, millpond_driver::SocketOptions::default());
        assert_eq!(options.connect_timeout, None);
        assert_eq!(options.tls.mode, TlsMode::default());
        let off = "postgres://h/d?keepalives=0&tcp_user_timeout=0&connect_timeout=0";
        let off = parse(off).expect("a good URL").options;
        assert_eq!((off.socket.keepalive, off.socket.user_timeout), (None, None));
        assert_eq!(off.connect_timeout, None);
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_the_known_ones_and_the_nearest() {
        let error = refused("postgres://h/d?sslmod=require");
        assert!(error.starts_with("\"sslmod\" is not a parameter of a PostgreSQL URL"), "{error}");
        assert!(error.ends_with("did you mean sslmode?"), "{error}");
        assert!(!refused("postgres://h/d?colour=red").contains("did you mean"));
    }

    #[test]
    fn a_bad_value_is_answered_with_its_field_and_the_rule() {
        for (pair, error) in [
            (
                "sslmode=allow",
                "sslmode: \"allow\" is not one of disable, prefer, require, verify-ca, verify-full",
            ),
            (
                "connect_timeout=soon",
                "connect_timeout: \"soon\" is not a duration such as 5s or 250ms",
            ),
            ("keepalives=yes", "keepalives: \"yes\" is not one of 0, 1"),
            ("keepalives_count=-1", "keepalives_count: \"-1\" is not a whole number"),
            ("port=0", "port: \"0\" is not a number from 1 to 65535"),
            ("port=1,2", "port: there are 2 for 1 hosts"),
            ("hostaddr=db", "hostaddr: \"db\" is not an IP address"),
            ("sslcert=/c.pem", "sslcert and sslkey: one needs the other"),
            ("options=%2", "options: a % is not followed by two hexadecimal digits"),
            ("user=%ff", "user: is not UTF-8"),
            ("user=a%00b", "user: has a zero byte, which no text has"),
        ] {
            assert_eq!(refused(&format!("postgres://h/d?{pair}")), error);
        }
        assert_eq!(
            refused("postgres://u:p@h:port/d"),
            "port: \"port\" is not a number from 1 to 65535"
        );
        assert!(refused("postgres://[::1/d").contains("has no ]"));
        assert!(refused("mysql://h").contains("begins with postgres://"));
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    #[test]
    fn the_roots_of_the_system_are_for_a_server_that_proves_its_name() {
        for pairs in ["sslrootcert=system", "sslrootcert=system&sslmode=verify-full"] {
            let tls = options(&format!("postgres://h/d?{pairs}")).tls;
            assert_eq!((tls.mode, tls.roots), (TlsMode::VerifyFull, None), "{pairs}");
        }
        let error = refused("postgres://h/d?sslmode=require&sslrootcert=system");
        assert_eq!(error, "sslmode: sslrootcert=system asks for verify-full");
    }

    #[test]
    fn a_value_may_have_an_at_sign() {
        let login = options("postgres://u:p@h/d?application_name=a@b&user=c@d").login;
        assert_eq!((login.get_application_name(), login.get_user()), (Some("a@b"), Some("c@d")));
    }

    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    #[test]
    fn tls_that_this_build_lacks_is_refused_with_the_features_that_bring_it() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let error = refused(&format!("postgres://h/d?sslmode={mode}"));
            assert!(error.contains("feature `rustls` or `native-tls`"), "{error}");
        }
    }

    #[test]
    fn no_text_shows_the_password() {
        for url in [
            "postgres://u:hun/ter2@h/d",
            "postgres://u:hun?ter2@h/d",
            "postgres://u:p@hun/ter2@h/d",
            "postgres://u:p@hun?ter2@h/d",
            "postgres://u:hunter2/d",
            "postgres://u:hunter2%@h/d",
            "postgres://u:hunter2@h:x/d",
            "postgres://u:hunter2@h/d?colour=red",
            "postgres://h/d?password=hunter2%",
        ] {
            let error = format!("{:?}", parse(url).expect_err(url));
            assert!(!error.contains("hun") && !error.contains("ter2"), "{error}");
        }
        let shown = format!("{:#?}", parse("postgres://u:hunter2@h/d").expect("a good URL"));
        assert!(!shown.contains("hunter2") && shown.contains("\"u\""), "{shown}");
    }
}
