//! Reads a server and a database from a URL.
//!
//! Decides what a URL may say and what is said of a wrong one. Does not open
//! anything. Parameters of a pool are not its business: whoever owns the pool
//! takes them out first.

use millpond_driver::url::{decode, duration, pairs, unknown, wrong};
use millpond_driver::{Error, Result};

use crate::{Mysql, Tls};

const PARAMETERS: [&str; 5] = ["ssl-mode", "ssl-ca", "socket", "statement_cache", "tcp_keepalive"];

/// `ssl-mode` and `ssl-ca` also as others write them.
const ALIASES: [(&str, &str); 5] = [
    ("sslmode", "ssl-mode"),
    ("ssl_mode", "ssl-mode"),
    ("ssl_ca", "ssl-ca"),
    ("sslca", "ssl-ca"),
    ("sslrootcert", "ssl-ca"),
];

const MODES: [(&str, Tls); 3] = [
    ("disabled", Tls::Disabled),
    ("required", Tls::Required),
    ("verify_identity", Tls::VerifyIdentity),
];

pub(crate) fn parse(url: &str) -> Result<Mysql> {
    let rest = url.strip_prefix("mysql://").or_else(|| url.strip_prefix("mariadb://"));
    let Some(rest) = rest else {
        return Err(Error::config(
            "the URL of a MySQL or MariaDB server begins with mysql:// or mariadb://",
        ));
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if query.contains('#') || rest.contains('#') {
        return Err(misplaced('#', "%23"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if path.contains('@') && !authority.contains('@') {
        return Err(misplaced('/', "%2F"));
    }
    // An @ in a password ought to be %40; the last one is the one that divides.
    let (login, address) = match authority.rsplit_once('@') {
        Some((login, address)) => (Some(login), address),
        None => (None, authority),
    };
    let parameters = parameters(query)?;
    let through_socket = parameters.iter().any(|(name, _)| *name == "socket");
    let (host, port) = split_address(address)?;
    if host.is_empty() && !through_socket {
        return Err(Error::config("host: the URL names none"));
    }
    let mut database = Mysql::host(decode("host", host)?);
    if let Some(port) = port {
        database = database.port(port);
    }
    if let Some(login) = login {
        let (user, password) =
            login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
        if !user.is_empty() {
            database = database.user(decode("user", user)?);
        }
        if let Some(password) = password {
            database = database.password(decode("password", password)?);
        }
    }
    if !path.is_empty() {
        database = database.database(decode("database", path)?);
    }
    set_all(database, &parameters)
}

/// Host and port of `host`, `host:3307`, `[::1]` and `[::1]:3307`.
fn split_address(address: &str) -> Result<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(|| {
            Error::config("host: an IPv6 address in a URL stands between [ and ]")
        })?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(Error::config("host: only a port may follow the address")),
        }
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    // Not repeated: without an @ it may be part of a password.
    let fault = || Error::config("port: the URL has one that is not a number from 1 to 65535");
    let port = port.map(|port| match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(fault()),
    });
    Ok((host, port.transpose()?))
}

/// The parameters by their own names, each once.
fn parameters(query: &str) -> Result<Vec<(&'static str, String)>> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for (name, value) in pairs(query) {
        let own = ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, own)| own);
        let Some(own) = PARAMETERS.into_iter().find(|known| *known == own) else {
            // Not repeated either: it may be the rest of a password.
            return Err(if query.contains('@') {
                misplaced('?', "%3F")
            } else {
                unknown(name, "MySQL", &PARAMETERS)
            });
        };
        if found.iter().any(|(known, _)| *known == own) {
            return Err(Error::config(format!("{own}: given twice in the URL")));
        }
        found.push((own, decode(own, value)?));
    }
    Ok(found)
}

fn set_all(mut database: Mysql, parameters: &[(&'static str, String)]) -> Result<Mysql> {
    let (mut mode, mut authority) = (None, None);
    for (name, value) in parameters {
        database = match *name {
            "ssl-mode" => {
                mode = Some(tls(name, value)?);
                database
            }
            "ssl-ca" => {
                authority = Some(value);
                database
            }
            "socket" if value.is_empty() => {
                return Err(wrong(name, value, "is not the path of a socket"));
            }
            "socket" => database.socket(value),
            "statement_cache" => {
                let statements = value.parse().ok().filter(|statements| *statements <= 16_382);
                database.statement_cache(statements.ok_or_else(|| {
                    wrong(name, value, "is not a whole number up to 16382, the most of a server")
                })?)
            }
            _ => database.tcp_keepalive(duration(name, value, "ms")?),
        };
    }
    match (mode, authority) {
        (None | Some(Tls::VerifyIdentity), Some(path)) => database.ca(path),
        (Some(mode), Some(_)) => {
            let mode = MODES.iter().find(|(_, known)| *known == mode).map_or("", |(name, _)| name);
            Err(Error::config(format!(
                "ssl-ca: is not used with ssl-mode {mode}; say verify_identity"
            )))
        }
        (Some(mode), None) => Ok(database.tls(mode)),
        (None, None) => Ok(database),
    }
}

fn tls(name: &str, value: &str) -> Result<Tls> {
    let written = value.to_ascii_lowercase().replace('-', "_");
    if let Some((_, mode)) = MODES.iter().find(|(known, _)| *known == written) {
        return Ok(*mode);
    }
    Err(match &*written {
        "preferred" => wrong(
            name,
            value,
            "cannot be kept: the client does not fall back; say disabled or required",
        ),
        "verify_ca" => wrong(
            name,
            value,
            "cannot be kept: the client always compares the host's name; say verify_identity",
        ),
        _ => wrong(name, value, "is not one of disabled, required, verify_identity"),
    })
}

fn misplaced(sign: char, written: &str) -> Error {
    let rule = format!("in a user, password or database it is {written}");
    Error::config(format!("the URL has a {sign} where it has no place; {rule}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(url: &str) -> String {
        let error = Mysql::from_url(url).expect_err(url);
        assert!(error.is_permanent(), "{url}");
        let text = format!("{error} {error:?}");
        assert!(!text.contains("secret"), "{text}");
        error.to_string()
    }

    #[test]
    fn every_form_of_a_url_names_its_server() {
        for (url, place, user, password, name) in [
            ("mysql://db", "db:3306", None, None, None),
            ("mysql://db/", "db:3306", None, None, None),
            ("mariadb://app@db:3307/orders", "db:3307", Some("app"), None, Some("orders")),
            ("mysql://a:b@db/c", "db:3306", Some("a"), Some("b"), Some("c")),
            ("mysql://a:@db", "db:3306", Some("a"), Some(""), None),
            ("mysql://[::1]/c", "[::1]:3306", None, None, Some("c")),
            ("mysql://[fe80::1]:3307", "[fe80::1]:3307", None, None, None),
            ("mysql://a%40b:p%3A%2F%25@db", "db:3306", Some("a@b"), Some("p:/%"), None),
            ("mysql://a:b@c@db", "db:3306", Some("a"), Some("b@c"), None),
            ("mysql://a:b:c@db", "db:3306", Some("a"), Some("b:c"), None),
            ("mysql://db/gr%C3%BC%C3%9Fe", "db:3306", None, None, Some("grüße")),
            (
                "mysql://app@localhost/c?socket=/run/my.sock",
                "/run/my.sock",
                Some("app"),
                None,
                Some("c"),
            ),
            ("mysql:///c?socket=%2Frun%2Fmy.sock", "/run/my.sock", None, None, Some("c")),
        ] {
            let database = parse(url).expect(url);
            assert_eq!(database.place(), place, "{url}");
            let opts = &database.opts;
            assert_eq!((opts.user(), opts.pass(), opts.db_name()), (user, password, name), "{url}");
        }
    }

    #[test]
    fn every_parameter_reaches_its_option() {
        let opts = parse("mysql://db?statement_cache=7&tcp_keepalive=30s").expect("good").opts;
        assert_eq!(opts.stmt_cache_size(), 7);
        assert_eq!(opts.tcp_keepalive(), Some(Duration::from_secs(30)));
        assert_eq!(parse("mysql://db?tcp_keepalive=0").expect("good").opts.tcp_keepalive(), None);
        for (mode, encrypted, verified) in [
            ("ssl-mode=DISABLED", false, false),
            ("sslmode=required", true, false),
            ("ssl_mode=Verify-Identity", true, true),
        ] {
            let database = parse(&format!("mysql://db?{mode}")).expect(mode);
            let tls = database.opts.ssl_opts();
            assert_eq!(tls.is_some(), encrypted, "{mode}");
            assert_eq!(tls.is_some_and(|tls| !tls.accept_invalid_certs()), verified, "{mode}");
        }
    }

    #[cfg(not(feature = "rustls"))]
    #[test]
    fn tls_without_its_feature_says_which_brings_it() {
        assert!(refused("mysql://db?ssl-mode=required").contains("add the feature `rustls`"));
        assert!(Mysql::from_url("mysql://db?ssl-mode=disabled").is_ok());
    }

    #[test]
    fn a_bad_value_is_answered_with_its_name_and_the_rule() {
        for (pair, error) in [
            (
                "ssl-mode=preferred",
                "ssl-mode: \"preferred\" cannot be kept: the client does not fall back; say \
                 disabled or required",
            ),
            (
                "ssl-mode=verify_ca",
                "ssl-mode: \"verify_ca\" cannot be kept: the client always compares the host's \
                 name; say verify_identity",
            ),
            ("sslmode=on", "ssl-mode: \"on\" is not one of disabled, required, verify_identity"),
            (
                "ssl-mode=required&ssl-ca=ca.pem",
                "ssl-ca: is not used with ssl-mode required; say verify_identity",
            ),
            ("tcp_keepalive=soon", "tcp_keepalive: \"soon\" is not a duration such as 5s or 250ms"),
            ("tcp_keepalive=1ms", "tcp_keepalive: 1ms is not between 1s and 32767s, nor zero"),
            (
                "tcp_keepalive=9999999s",
                "tcp_keepalive: 9999999s is not between 1s and 32767s, nor zero",
            ),
            (
                "statement_cache=-1",
                "statement_cache: \"-1\" is not a whole number up to 16382, the most of a server",
            ),
            ("socket=", "socket: \"\" is not the path of a socket"),
            ("sslmode=required&ssl-mode=required", "ssl-mode: given twice in the URL"),
        ] {
            assert_eq!(refused(&format!("mysql://a:secret@db?{pair}")), error);
        }
        assert!(refused("mysql://db?ssl-ca=/no/such.pem").starts_with("ssl-ca: \"/no/such.pem\""));
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_the_known_ones_and_the_nearest() {
        let error = refused("mysql://a:secret@db?statment_cache=5");
        assert!(
            error.starts_with("\"statment_cache\" is not a parameter of a MySQL URL"),
            "{error}"
        );
        assert!(error.contains("ssl-mode, ssl-ca, socket"), "{error}");
        assert!(error.ends_with("did you mean statement_cache?"), "{error}");
        assert!(!refused("mysql://db?charset=latin1").contains("did you mean"));
    }

    #[test]
    fn a_url_that_names_no_server_is_refused_and_not_repeated() {
        assert!(refused("postgres://a:secret@db").contains("begins with mysql://"));
        assert!(refused("mysql://a:secret@/c").contains("host: the URL names none"));
        assert!(refused("mysql://").contains("host: the URL names none"));
        for port in ["0", "65536", "", "x"] {
            let error = refused(&format!("mysql://a:secret@db:{port}/c"));
            assert!(error.starts_with("port: "), "{error}");
        }
        assert!(refused("mysql://a:secret").starts_with("port: "));
        assert!(refused("mysql://a:secret%2@db").starts_with("password: a % "));
        assert!(refused("mysql://a:secret%ff@db").starts_with("password: is not UTF-8"));
        assert!(refused("mysql://a:secret@[::1").contains("between [ and ]"));
        for (password, written) in [
            ("secret#1", "%23"),
            ("x/secret", "%2F"),
            ("x?secret", "%3F"),
            ("x?secret&ssl-mode=y", "%3F"),
        ] {
            assert!(refused(&format!("mysql://a:{password}@db/c")).ends_with(written));
        }
        assert!(refused("mysql://a:b@db/c%00d").starts_with("database: has a zero byte"));
    }
}
