//! How a server is reached and a session is set up.
//!
//! Owns the options, their defaults and their names. Does not connect, and does
//! not know how they are written in a URL.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use millpond_driver::{Credentials, SocketOptions};
use tokio_postgres::Config;
use tokio_postgres::config::{self, SslMode, SslNegotiation};

use crate::tls::Tls;

pub(crate) const DEFAULT_PORT: u16 = 5432;

#[derive(Clone)]
pub(crate) struct Options {
    /// Tried in this order.
    pub(crate) hosts: Vec<Host>,
    /// Who logs in, to what, and what the server is told.
    pub(crate) login: Config,
    pub(crate) tls: Tls,
    pub(crate) session: TargetSession,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) socket: SocketOptions,
    pub(crate) statement_cache: usize,
}

impl Options {
    /// To these hosts, all else by default.
    pub(crate) fn new(hosts: Vec<Host>) -> Self {
        Self {
            hosts,
            login: Config::new(),
            tls: Tls::default(),
            session: TargetSession::Any,
            connect_timeout: None,
            socket: SocketOptions::default(),
            statement_cache: 100,
        }
    }

    /// The login as the client wants it, with what is given for this one: what
    /// it takes for TLS is done before.
    pub(crate) fn startup(&self, given: Option<&Credentials>) -> Config {
        let mut login = self.login.clone();
        if let Some(user) = given.and_then(|given| given.user.as_ref()) {
            login.user(user);
        }
        if let Some(password) = given.and_then(|given| given.password.as_ref()) {
            login.password(password);
        }
        login.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        if login.get_application_name().is_none() {
            if let Some(name) = program() {
                login.application_name(name);
            }
        }
        login
    }
}

/// The name of this program, by which an operator finds who is connected.
fn program() -> Option<String> {
    let path = std::env::current_exe().ok()?;
    Some(path.file_stem()?.to_string_lossy().into_owned())
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("hosts", &self.hosts)
            .field("user", &self.login.get_user())
            .field("database", &self.login.get_dbname())
            .field("application_name", &self.login.get_application_name())
            .field("tls", &self.tls)
            .field("session", &self.session)
            .field("connect_timeout", &self.connect_timeout)
            .field("socket", &self.socket)
            .field("statement_cache", &self.statement_cache)
            .finish_non_exhaustive()
    }
}

/// A server, which may have several addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    pub(crate) place: Place,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// By name; with an address the name is not looked up.
    Name(String, Option<IpAddr>),
    /// The folder of its Unix socket.
    Folder(PathBuf),
}

impl Host {
    /// A name or address, or, if it begins with a slash, the folder of a socket.
    pub(crate) fn new(name: impl Into<String>, port: u16) -> Self {
        let name = name.into();
        let place = match name.starts_with('/') {
            true => Place::Folder(name.into()),
            false => Place::Name(name, None),
        };
        Self { place, port }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Name(name, _) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Place::Name(name, _) => write!(f, "{name}:{}", self.port),
            Place::Folder(folder) => write!(f, "{}:{}", folder.display(), self.port),
        }
    }
}

/// Which server of several is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum TargetSession {
    /// Any that can be reached (`any`).
    #[default]
    Any,
    /// One whose sessions take writes (`read-write`).
    ReadWrite,
    /// One whose sessions refuse writes (`read-only`).
    ReadOnly,
    /// One that is no standby (`primary`).
    Primary,
    /// A standby (`standby`).
    Standby,
    /// A standby, or any if there is none (`prefer-standby`).
    PreferStandby,
}

/// Options of the client, as far as they are known here: of TLS, only the mode.
impl From<Config> for Options {
    fn from(login: Config) -> Self {
        let names = login.get_hosts();
        let addresses = login.get_hostaddrs();
        let ports = login.get_ports();
        let hosts = (0..names.len().max(addresses.len()))
            .map(|index| {
                let address = addresses.get(index).copied();
                let port =
                    ports.get(index).or_else(|| ports.first()).copied().unwrap_or(DEFAULT_PORT);
                let place = match (names.get(index), address) {
                    (Some(config::Host::Tcp(name)), _) => Place::Name(name.clone(), address),
                    #[cfg(unix)]
                    (Some(config::Host::Unix(folder)), _) => Place::Folder(folder.clone()),
                    (None, address) => {
                        let name = address.map(|address| address.to_string());
                        Place::Name(name.unwrap_or_default(), address)
                    }
                };
                Host { place, port }
            })
            .collect::<Vec<_>>();
        let mut options = Self::new(hosts);
        if options.hosts.is_empty() {
            let port = ports.first().copied().unwrap_or(DEFAULT_PORT);
            options.hosts.push(Host::new("localhost", port));
        }
        options.tls = Tls::with_mode(match login.get_ssl_mode() {
            SslMode::Disable => crate::TlsMode::Disable,
            SslMode::Require => crate::TlsMode::Require,
            _ => crate::TlsMode::default(),
        });
        options.session = match login.get_target_session_attrs() {
            config::TargetSessionAttrs::ReadWrite => TargetSession::ReadWrite,
            config::TargetSessionAttrs::ReadOnly => TargetSession::ReadOnly,
            _ => TargetSession::Any,
        };
        options.connect_timeout = login.get_connect_timeout().copied();
        options.socket.user_timeout =
            login.get_tcp_user_timeout().copied().or(options.socket.user_timeout);
        match (login.get_keepalives(), &mut options.socket.keepalive) {
            (false, keepalive) => *keepalive = None,
            (true, Some(keepalive)) => {
                // Two hours, which the client says where nobody chose.
                if login.get_keepalives_idle() != Config::new().get_keepalives_idle() {
                    keepalive.idle = login.get_keepalives_idle();
                }
                keepalive.interval = login.get_keepalives_interval().unwrap_or(keepalive.interval);
                keepalive.retries = login.get_keepalives_retries().unwrap_or(keepalive.retries);
            }
            (true, None) => {}
        }
        options.login = login;
        options
    }
}
