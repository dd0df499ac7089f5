//! The hosts of a URL, and the settings of a cluster among its parameters.
//!
//! Owns how one URL becomes one for each node. Knows no scheme; what a host, a
//! login and a parameter may be is for the driver to say, which is given each
//! URL. Never repeats a part of a URL that no driver has accepted: it may be half
//! a password.

use millpond_driver::Error;
use millpond_driver::url::{decode, nearest, pairs};

use super::config::Settings;
use crate::config::{self, PoolConfig};

/// One host of a URL.
#[derive(Debug, PartialEq)]
pub(crate) struct Host {
    /// Host and port as they are written.
    pub(crate) name: String,
    /// The same URL with this host alone.
    pub(crate) url: String,
}

/// The settings of cluster and pools in `url`, every fault noted, and the URL
/// without them.
pub(super) fn take(url: &str, faults: &mut Vec<String>) -> (Settings, PoolConfig, String) {
    let mut settings = Settings::default();
    let set = |name: &str, text: &str| settings.set(name, text);
    let url = config::url::take_named(url, Settings::NAMES, faults, set);
    let (pool, url) = config::url::take(&url, faults);
    (settings, pool, url)
}

/// What a driver says of a URL, with the setting that was meant where it does not
/// know the parameter.
pub(super) fn hint(url: &str, error: Error) -> Error {
    let meant = config::url::refused(url, &error).and_then(|name| {
        let all = [PoolConfig::SETTINGS, Settings::NAMES].concat();
        nearest(name, &all).filter(|meant| Settings::NAMES.contains(meant))
    });
    match meant {
        Some(setting) => Error::config(format!("{error}; of the cluster there is {setting}")),
        None => config::url::hint(url, error),
    }
}

/// The hosts of a URL, at least one. One that is not named is `localhost`.
///
/// # Errors
///
/// What keeps the URL from being one for each host.
pub(crate) fn hosts(url: &str) -> Result<Vec<Host>, Vec<Error>> {
    let start = url.find("://").map_or(url.len(), |at| at + 3);
    let (scheme, rest) = url.split_at(start);
    let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, list) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
    let (_, query) = rest.split_once('?').unwrap_or_default();
    let hosts: Vec<&str> = list.split(',').collect();

    let mut faults = Vec::new();
    let mut name = None;
    for (parameter, value) in pairs(query) {
        let parameter = decode("parameter", parameter).unwrap_or_default();
        let value = decode(&parameter, value).unwrap_or_default();
        match parameter.as_str() {
            "target_session_attrs" | "load_balance_hosts" => faults.push(format!(
                "{parameter}: must be left out: a cluster finds out by itself which node is the \
                 primary, and callers say by a Route what they need"
            )),
            "host" | "hostaddr" | "port" if value.contains(',') => faults.push(format!(
                "{parameter}: must not be a list: the hosts of a cluster are written before the \
                 database, as in user@a,b:5433/database"
            )),
            "host" | "hostaddr" | "socket" if hosts.len() > 1 => faults.push(format!(
                "{parameter}: must be left out: it would lead all {} nodes to one place",
                hosts.len()
            )),
            "host" | "hostaddr" | "socket" if list.is_empty() => name = Some(value),
            _ => {}
        }
    }
    if login.matches('@').count() > 1 && authority.contains(',') {
        // Which of them ends the login? One may be of a password, or one a login for
        // each host.
        faults.push(
            "login: must be given once, before all hosts, and an @ in it written %40".to_owned(),
        );
    }
    let odd =
        |host: &&str| host.contains(|c: char| c.is_whitespace() || c == ';') || host.ends_with(':');
    if hosts.iter().any(odd) {
        faults.push("host: must be a name or an address, and a port after a colon".to_owned());
    }
    if hosts.len() > 1 && hosts.contains(&"") {
        faults.push("host: must not be empty between commas".to_owned());
    }
    if !faults.is_empty() {
        return Err(faults.into_iter().map(Error::config).collect());
    }
    let name = name.unwrap_or_else(|| "localhost".to_owned());
    let host = |host: &&str| Host {
        name: if host.is_empty() { name.clone() } else { (*host).to_owned() },
        url: format!("{scheme}{login}{host}{rest}"),
    };
    Ok(hosts.iter().map(host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(url: &str) -> Vec<(String, String)> {
        let hosts = hosts(url).expect(url).into_iter();
        hosts.map(|host| (host.name, host.url)).collect()
    }

    fn refused(url: &str) -> Vec<String> {
        hosts(url).expect_err(url).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_host_gets_the_url_with_everything_but_the_other_hosts() {
        for (url, expected) in [
            (
                "x://u:p@a,b:5433,c/d?mode=rw",
                &[
                    ("a", "x://u:p@a/d?mode=rw"),
                    ("b:5433", "x://u:p@b:5433/d?mode=rw"),
                    ("c", "x://u:p@c/d?mode=rw"),
                ][..],
            ),
            ("x://a,b", &[("a", "x://a"), ("b", "x://b")]),
            ("x://a,b?port=1", &[("a", "x://a?port=1"), ("b", "x://b?port=1")]),
            (
                "x://[::1]:7,[fe80::1]/d",
                &[("[::1]:7", "x://[::1]:7/d"), ("[fe80::1]", "x://[fe80::1]/d")],
            ),
            ("x://u%40,%2C:p,w@a/x", &[("a", "x://u%40,%2C:p,w@a/x")]),
            ("x://%2Frun%2Fpg,b/d", &[("%2Frun%2Fpg", "x://%2Frun%2Fpg/d"), ("b", "x://b/d")]),
            ("x://u@/d", &[("localhost", "x://u@/d")]),
            ("x:///d?host=/run/pg", &[("/run/pg", "x:///d?host=/run/pg")]),
            ("x://a/d?x=b,c@d", &[("a", "x://a/d?x=b,c@d")]),
            ("no URL, at all", &[("localhost", "no URL, at all")]),
        ] {
            let found = split(url);
            let found: Vec<_> = found.iter().map(|(name, url)| (&**name, &**url)).collect();
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn a_login_for_each_host_or_a_host_that_is_none_is_refused() {
        for url in ["x://u:secret@a,v:secret@b/d", "x://u:se@cret@a,b/d"] {
            let rule = "login: must be given once, before all hosts, and an @ in it written %40";
            assert_eq!(refused(url), [rule]);
        }
        for url in ["x://a, b/d", "x://a;b/d", "x://u@a,y://b/d", "x://a,b:/d"] {
            let rule = "host: must be a name or an address, and a port after a colon";
            assert_eq!(refused(url), [rule], "{url}");
        }
    }

    #[test]
    fn what_is_for_one_host_or_chooses_among_several_is_refused_at_once() {
        let said = refused("x://u:secret@a,,b/d?target_session_attrs=any&host=c&port=1,2");
        assert_eq!(
            said,
            [
                "target_session_attrs: must be left out: a cluster finds out by itself which node \
                 is the primary, and callers say by a Route what they need",
                "host: must be left out: it would lead all 3 nodes to one place",
                "port: must not be a list: the hosts of a cluster are written before the database, \
                 as in user@a,b:5433/database",
                "host: must not be empty between commas",
            ]
        );
        for url in ["x://a?load%5Fbalance_hosts=random", "x://?host=a,b", "x://a?hostaddr=b%2Cc"] {
            assert_eq!(refused(url).len(), 1, "{url}");
        }
    }

    #[test]
    fn a_setting_with_a_letter_missing_is_told_from_one_of_the_pool() {
        let said = |name: &str| {
            let error = Error::config(format!("{name:?} is not a parameter of a URL"));
            hint(&format!("x://host?mode=rw&{name}=3"), error).to_string()
        };
        let no = |name: &str| format!("{name:?} is not a parameter of a URL");
        for (name, owner) in [
            ("max_lagg", "; of the cluster there is max_lag"),
            ("probe_timout", "; of the cluster there is probe_timeout"),
            ("acquire_timout", "; of the pool there is acquire_timeout"),
            ("colour", ""),
        ] {
            assert_eq!(said(name), format!("{}{owner}", no(name)));
        }
    }
}
