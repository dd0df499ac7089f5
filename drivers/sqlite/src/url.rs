//! Reads a database from a URL.
//!
//! Decides what a URL may say and what is said of a wrong one. Does not open
//! anything. Parameters of a pool are not its business: whoever owns the pool
//! takes them out first.

use std::path::PathBuf;

use millpond_driver::url::{choice, decode, duration, number, pairs, unknown};
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
    let path = decode("path", path)?;
    if path.is_empty() {
        return Err(Error::config(
            "path: the URL names no file; sqlite::memory: is a database in memory",
        ));
    }
    pairs(query).try_fold(Sqlite::file(PathBuf::from(path)), |database, (name, value)| {
        set(database, name, value)
    })
}

fn set(database: Sqlite, name: &str, value: &str) -> Result<Sqlite> {
    Ok(match name {
        "mode" => database.mode(choice(name, value, Mode::NAMES)?),
        "journal_mode" => database.journal_mode(choice(name, value, JournalMode::NAMES)?),
        "synchronous" => database.synchronous(choice(name, value, Synchronous::NAMES)?),
        "busy_timeout" => database.busy_timeout(duration(name, value, "ms")?),
        "foreign_keys" => database.foreign_keys(choice(name, value, &SWITCH)?),
        "statement_cache" => database.statement_cache(number(name, value)?),
        "inline_steps" => database.inline_steps(number(name, value)?),
        _ => return Err(unknown(name, "SQLite", &PARAMETERS)),
    })
}

const SWITCH: [(&str, bool); 4] = [("on", true), ("off", false), ("true", true), ("false", false)];

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
