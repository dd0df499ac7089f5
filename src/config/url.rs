//! The settings of a pool among the parameters of a database's URL.
//!
//! Owns the division of a URL between pool and driver: parameters named as
//! settings of a pool, or of who else asks, are taken out, everything else is the
//! driver's. Knows no scheme, and never repeats a URL in an error: it may hold a
//! password.

use std::borrow::Cow;

use millpond_driver::url::{decode, nearest, pairs};
use millpond_driver::{Error, Result};

use super::{PoolConfig, Unset, fault};

/// The settings in `url`, and the URL without them.
pub(crate) fn split(url: &str) -> Result<(PoolConfig, String)> {
    let mut faults = Vec::new();
    let parts = take(url, &mut faults);
    if faults.is_empty() { Ok(parts) } else { Err(Error::config(faults.join("; "))) }
}

/// As [`split`], with every fault noted. What is left of the URL is whole
/// whatever is wrong with the settings.
pub(crate) fn take(url: &str, faults: &mut Vec<String>) -> (PoolConfig, String) {
    let mut config = PoolConfig::new();
    let url =
        take_named(url, PoolConfig::SETTINGS, faults, |name, text| match in_units(name, text) {
            Some(text) => config.set(name, &text),
            None => Ok(()),
        });
    (config, url)
}

/// The text of a setting with its unit; `None`: it is left as it is. What PostgreSQL's
/// own tools call `connect_timeout` is in seconds, where 0 sets nothing, and URLs
/// that are handed out contain it so.
fn in_units<'t>(name: &str, text: &'t str) -> Option<Cow<'t, str>> {
    let is_bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if name != "connect_timeout" || !is_bare {
        return Some(text.into());
    }
    let is_nothing = text.bytes().all(|byte| byte == b'0');
    (!is_nothing).then(|| format!("{text}s").into())
}

/// Makes settings of the parameters with these names, every fault noted. The URL
/// without them.
pub(crate) fn take_named(
    url: &str,
    names: &[&str],
    faults: &mut Vec<String>,
    mut set: impl FnMut(&str, &str) -> Result<(), Unset>,
) -> String {
    let Some((before, query)) = url.split_once('?') else {
        return url.to_owned();
    };
    let mut rest = Vec::new();
    let mut seen = Vec::new();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !names.contains(&name) {
            rest.push(pair);
            continue;
        }
        if seen.contains(&name) {
            faults.push(format!("{name}: given twice in the URL"));
        }
        seen.push(name);
        match decode(name, value) {
            Ok(text) => {
                if let Err(Unset::Not(form)) = set(name, &text) {
                    faults.push(fault(name, format_args!("{text:?}"), form));
                }
            }
            Err(error) => faults.push(error.to_string()),
        }
    }
    match rest.as_slice() {
        [] => before.to_owned(),
        rest => format!("{before}?{}", rest.join("&")),
    }
}

/// What a driver says of a URL, with the setting that was meant where it does
/// not know the parameter: it cannot tell a setting of the pool with a letter
/// missing from one that nobody has.
pub(crate) fn hint(url: &str, error: Error) -> Error {
    match refused(url, &error).and_then(|name| nearest(name, PoolConfig::SETTINGS)) {
        Some(setting) => Error::config(format!("{error}; of the pool there is {setting}")),
        None => error,
    }
}

/// The parameter that a driver does not know, if that is what it says of a URL.
pub(crate) fn refused<'u>(url: &'u str, error: &Error) -> Option<&'u str> {
    let (_, query) = url.split_once('?').unwrap_or_default();
    let said = |name: &str| error.message().starts_with(&format!("{name:?} "));
    pairs(query).map(|(name, _)| name).find(|name| said(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn settings_are_taken_out_and_the_rest_is_the_drivers() {
        let url = "x://data?mode=rw&max_open_conns=8&x=%zz&acquire_timeout=250ms";
        let (config, rest) = split(url).expect("all is well");
        let expected =
            PoolConfig::new().max_open_conns(8).acquire_timeout(Duration::from_millis(250));
        assert_eq!(config, expected);
        assert_eq!(rest, "x://data?mode=rw&x=%zz");
    }

    /// So it stands in URLs that hosting services hand out.
    #[test]
    fn a_bare_connect_timeout_is_in_seconds_and_zero_sets_none() {
        let seconds = |number| PoolConfig::new().connect_timeout(Duration::from_secs(number));
        for (text, expected) in [
            ("10", seconds(10)),
            ("10s", seconds(10)),
            ("1m", seconds(60)),
            ("0", PoolConfig::new()),
            ("00", PoolConfig::new()),
        ] {
            let (config, rest) = split(&format!("x://h/d?connect_timeout={text}")).expect(text);
            assert_eq!((config, &*rest), (expected, "x://h/d"));
        }
        split("x://h/d?acquire_timeout=10").expect_err("a unit is missing");
        let empty = split("x://h/d?connect_timeout=").expect_err("nothing is no number");
        assert!(empty.to_string().contains("a duration with units"), "{empty}");
    }

    #[test]
    fn a_setting_with_a_letter_missing_is_told_from_what_nobody_has() {
        let refuse = |name: &str| {
            let error = Error::config(format!("{name:?} is not a parameter of a URL"));
            hint(&format!("x://host?mode=rw&{name}=3"), error).to_string()
        };
        assert_eq!(
            refuse("max_open_conn"),
            "\"max_open_conn\" is not a parameter of a URL; of the pool there is max_open_conns"
        );
        assert_eq!(refuse("colour"), "\"colour\" is not a parameter of a URL");
    }

    #[test]
    fn a_url_of_settings_alone_loses_its_question_mark() {
        assert_eq!(split("x:y?max_open_conns=1").expect("valid").1, "x:y");
    }

    #[test]
    fn every_fault_names_its_setting_and_never_the_url() {
        for (url, expected) in [
            (
                "x://user:secret@host/?max_open_conns=many",
                "max_open_conns = \"many\": must be a whole number",
            ),
            ("x://user:secret@host/?reset=all", "reset = \"all\": must be boundary or session"),
            (
                "x://user:secret@host/?max_open_conns=1&max_open_conns=2",
                "max_open_conns: given twice in the URL",
            ),
            (
                "x://user:secret@host/?max_open_conns=%4",
                "max_open_conns: a % is not followed by two hexadecimal digits",
            ),
            (
                "x://user:secret@host/?reset=all&mode=rw&max_retries=-1&max_idle_conns=%4",
                "reset = \"all\": must be boundary or session; \
                 max_retries = \"-1\": must be a whole number from 0 to 4294967295; \
                 max_idle_conns: a % is not followed by two hexadecimal digits",
            ),
        ] {
            assert_eq!(split(url).expect_err(url).to_string(), expected);
        }
    }
}
