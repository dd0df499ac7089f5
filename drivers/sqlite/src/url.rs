//! Reads a database from a URL.
//!
//! Decides what a URL may say and what is said of a wrong one. Does not open
//! anything. Parameters of a pool are not its business: whoever owns the pool
//! takes them out first.

use std::path::PathBuf;
use std::time::Duration;

use millpond_driver::{Error, Result};

use crate::Sqlite;
use crate::options::{JournalMode, Mode, Named, Synchronous};

const PARAMETERS: [&str; 7] = [
    "mode",
    "busy_timeout",
    "journal_mode",
    "synchronous",
    "foreign_keys",
    "statement_cache",
    "inline_steps",
];

pub(crate) fn parse(url: &str) -> Result<Sqlite> {
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return Err(Error::config("the URL of a SQLite database begins with sqlite:"));
    };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = decode(path).ok_or_else(|| {
        Error::config(format!("path: {path:?} has a % that no two hexadecimal digits follow"))
    })?;
    if path.is_empty() {
        return Err(Error::config(
            "path: the URL names no file; sqlite::memory: is a database in memory",
        ));
    }
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.try_fold(Sqlite::file(PathBuf::from(path)), |database, pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(database, name, value)
    })
}

fn set(database: Sqlite, name: &str, value: &str) -> Result<Sqlite> {
    Ok(match name {
        "mode" => database.mode(choice::<Mode>(name, value)?),
        "journal_mode" => database.journal_mode(choice::<JournalMode>(name, value)?),
        "synchronous" => database.synchronous(choice::<Synchronous>(name, value)?),
        "busy_timeout" => database.busy_timeout(duration(name, value)?),
        "foreign_keys" => database.foreign_keys(choice::<bool>(name, value)?),
        "statement_cache" => database.statement_cache(number(name, value)?),
        "inline_steps" => database.inline_steps(number(name, value)?),
        _ => return Err(unknown(name)),
    })
}

impl Named for bool {
    const NAMES: &[(&str, Self)] =
        &[("on", true), ("off", false), ("true", true), ("false", false)];
}

fn choice<T: Named>(name: &str, value: &str) -> Result<T> {
    let found = T::NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(value));
    found.map(|&(_, choice)| choice).ok_or_else(|| {
        let known: Vec<&str> = T::NAMES.iter().map(|&(known, _)| known).collect();
        wrong(name, value, &format!("is not one of {}", known.join(", ")))
    })
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| wrong(name, value, "is not a whole number"))
}

fn duration(name: &str, value: &str) -> Result<Duration> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &value[digits.len()..] {
        "" | "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        _ => None,
    };
    let amount = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok());
    unit.zip(amount.flatten())
        .and_then(|(unit, amount): (u64, u64)| amount.checked_mul(unit))
        .map(Duration::from_millis)
        .ok_or_else(|| wrong(name, value, "is not a duration such as 5s or 250ms"))
}

fn wrong(name: &str, value: &str, rule: &str) -> Error {
    Error::config(format!("{name}: {value:?} {rule}"))
}

fn unknown(name: &str) -> Error {
    let known = PARAMETERS.join(", ");
    let nearest = PARAMETERS.into_iter().map(|known| (distance(name, known), known)).min();
    let hint = match nearest {
        Some((far, nearest)) if far <= 2.max(name.len() / 3) => {
            format!("; did you mean {nearest}?")
        }
        _ => String::new(),
    };
    Error::config(format!("{name:?} is not a parameter of a SQLite URL, which are {known}{hint}"))
}

/// How many letters must be added, dropped or changed.
fn distance(from: &str, to: &str) -> usize {
    let mut above: Vec<usize> = (0..=to.len()).collect();
    for (row, a) in (1..).zip(from.bytes()) {
        let mut corner = above[0];
        above[0] = row;
        for (column, b) in (1..).zip(to.bytes()) {
            let changed = corner + usize::from(!a.eq_ignore_ascii_case(&b));
            corner = above[column];
            above[column] = changed.min(above[column] + 1).min(above[column - 1] + 1);
        }
    }
    above[to.len()]
}

/// Resolves `%20` and its like.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        format!("{:?}", parse(url).expect(url))
    }

    fn refused(url: &str) -> String {
        let error = parse(url).expect_err(url);
        assert!(error.is_permanent(), "{url}");
        error.to_string()
    }

    #[test]
    fn every_form_of_a_url_names_its_file() {
        for (url, path) in [
            ("sqlite:app.db", "app.db"),
            ("sqlite://app.db", "app.db"),
            ("sqlite:///var/app.db", "/var/app.db"),
            ("sqlite:/var/app.db", "/var/app.db"),
            ("sqlite:///a%20b%3f.db?mode=ro", "/a b?.db"),
        ] {
            assert!(shown(url).contains(&format!("{path:?}")), "{url}: {}", shown(url));
        }
        for url in ["sqlite::memory:", "sqlite://:memory:"] {
            assert!(shown(url).contains("memory"), "{}", shown(url));
        }
    }

    #[test]
    fn every_parameter_reaches_its_option() {
        let url = "sqlite:a.db?mode=rw&busy_timeout=250ms&journal_mode=DELETE&synchronous=full\
                   &foreign_keys=off&statement_cache=7&inline_steps=0";
        let options = parse(url).expect("a good URL").options;
        assert_eq!(options.mode, Mode::ReadWrite);
        assert_eq!(options.busy_timeout, Duration::from_millis(250));
        assert_eq!(options.journal_mode, Some(JournalMode::Delete));
        assert_eq!(options.synchronous, Some(Synchronous::Full));
        assert!(!options.foreign_keys);
        assert_eq!((options.statement_cache, options.inline_steps), (7, 0));
    }

    #[test]
    fn a_duration_is_read_with_its_unit_and_without() {
        for (text, millis) in [("5s", 5000), ("250ms", 250), ("250", 250), ("2m", 120_000)] {
            assert_eq!(duration("x", text).expect(text), Duration::from_millis(millis));
        }
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_the_known_ones_and_the_nearest() {
        let error = refused("sqlite:a.db?busy_timout=5s");
        assert!(error.starts_with("\"busy_timout\" is not a parameter of a SQLite URL"), "{error}");
        assert!(error.contains("mode, busy_timeout, journal_mode"), "{error}");
        assert!(error.ends_with("did you mean busy_timeout?"), "{error}");
        assert!(!refused("sqlite:a.db?colour=red").contains("did you mean"));
    }

    #[test]
    fn a_bad_value_is_answered_with_its_field_and_the_rule() {
        for (pair, error) in [
            ("mode=rx", "mode: \"rx\" is not one of ro, rw, rwc"),
            ("busy_timeout=soon", "busy_timeout: \"soon\" is not a duration such as 5s or 250ms"),
            ("busy_timeout=-1", "busy_timeout: \"-1\" is not a duration such as 5s or 250ms"),
            ("busy_timeout=", "busy_timeout: \"\" is not a duration such as 5s or 250ms"),
            ("statement_cache=many", "statement_cache: \"many\" is not a whole number"),
            ("inline_steps", "inline_steps: \"\" is not a whole number"),
            ("foreign_keys=maybe", "foreign_keys: \"maybe\" is not one of on, off, true, false"),
        ] {
            assert_eq!(refused(&format!("sqlite:a.db?{pair}")), error);
        }
    }

    #[test]
    fn a_url_without_a_file_or_of_another_scheme_is_refused() {
        assert!(refused("postgres://x").contains("begins with sqlite:"));
        assert!(refused("sqlite://").contains("names no file"));
        assert!(refused("sqlite:?mode=ro").contains("names no file"));
        assert!(refused("sqlite:a%2.db").contains("hexadecimal"));
    }
}
