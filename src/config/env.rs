//! The settings of a pool in the environment of the process.
//!
//! Owns the names of the variables, and what is said of one that is nearly a
//! setting. Knows neither which settings there are nor how a value is read.

use std::collections::BTreeMap;
use std::ffi::OsString;

use millpond_driver::Result;
use millpond_driver::url::nearest;

use super::{PoolConfig, Unset, fault, refuse};

impl PoolConfig {
    /// The settings in the environment: with the prefix `APP_`,
    /// [`max_open_conns`](Self::max_open_conns) is `APP_MAX_OPEN_CONNS`.
    ///
    /// Values are written as in a URL: `8`, `true`, `1h30m`, `250ms`,
    /// `session`. Other variables with the prefix, such as `APP_URL`, are
    /// somebody else's. Whether settings contradict each other is left to the
    /// builder.
    ///
    /// ```
    /// use millpond::PoolConfig;
    ///
    /// let config = PoolConfig::from_env("APP_DB_")?.or(PoolConfig::new().max_open_conns(8));
    /// assert_eq!(config, PoolConfig::new().max_open_conns(8));
    /// # Ok::<_, millpond::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Every variable at once that has a wrong value, that is not UTF-8, or
    /// that is nearly a setting, with the nearest.
    pub fn from_env(prefix: &str) -> Result<Self> {
        read(prefix, std::env::vars_os())
    }
}

/// The settings in these variables, names and values.
fn read(
    prefix: &str,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<PoolConfig> {
    let mut config = PoolConfig::new();
    let mut faults = Vec::new();
    // In order of their names: the system has none.
    let variables: BTreeMap<_, _> = variables.into_iter().collect();
    for (variable, value) in &variables {
        let Some(variable) = variable.to_str() else { continue };
        let Some(upper) = variable.strip_prefix(prefix) else { continue };
        let name = upper.to_ascii_lowercase();
        if upper != name.to_ascii_uppercase() || !PoolConfig::SETTINGS.contains(&&*name) {
            // A setting of one short word is near too many words.
            let meant = nearest(&name, PoolConfig::SETTINGS).filter(|name| name.contains('_'));
            if let Some(setting) = meant {
                let setting = setting.to_ascii_uppercase();
                faults
                    .push(format!("{variable}: is not a setting; did you mean {prefix}{setting}?"));
            }
            continue;
        }
        let Some(text) = value.to_str() else {
            faults.push(format!("{variable}: is not UTF-8"));
            continue;
        };
        if let Err(Unset::Not(form)) = config.set(&name, text) {
            faults.push(fault(variable, format_args!("{text:?}"), form));
        }
    }
    refuse(&faults)?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read_text(variables: &[(&str, &str)]) -> Result<PoolConfig> {
        read("APP_", variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn variables_with_the_prefix_are_settings_and_all_others_somebody_elses() {
        let config = read_text(&[
            ("APP_MAX_OPEN_CONNS", "8"),
            ("APP_ACQUIRE_TIMEOUT", "250ms"),
            ("APP_METRICS_ENABLED", "false"),
            ("APP_RESET", "session"),
            ("APP_URL", "x://user:secret@host"),
            ("APP_TEST", "near to a short word"),
            ("MAX_IDLE_CONNS", "without the prefix"),
            ("OTHER_MAX_IDLE_CONNS", "with another"),
        ]);
        let expected = PoolConfig::new()
            .max_open_conns(8)
            .acquire_timeout(Duration::from_millis(250))
            .metrics_enabled(false)
            .reset(millpond_driver::Reset::Session);
        assert_eq!(config.expect("all is well"), expected);
    }

    #[test]
    fn every_fault_in_the_environment_is_named_at_once() {
        let error = read_text(&[
            ("APP_URL", "x://user:secret@host"),
            ("APP_MAX_RETRY", "3"),
            ("APP_MAX_OPEN_CONNS", "many"),
            ("APP_max_idle_conns", "3"),
            ("APP_CONNECT_TIMEOUT", ""),
        ]);
        assert_eq!(
            error.expect_err("four faults").to_string(),
            "invalid pool configuration: \
             APP_CONNECT_TIMEOUT = \"\": must be a duration with units, as in 1h30m, 2.5s or \
             250ms, or 0; \
             APP_MAX_OPEN_CONNS = \"many\": must be a whole number; \
             APP_MAX_RETRY: is not a setting; did you mean APP_MAX_RETRIES?; \
             APP_max_idle_conns: is not a setting; did you mean APP_MAX_IDLE_CONNS?"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf_8_is_an_error_only_where_it_is_a_setting() {
        use std::os::unix::ffi::OsStringExt;

        let bytes = || OsString::from_vec(vec![0xff, b'8']);
        let others = [("APP_URL".into(), bytes()), (bytes(), bytes())];
        assert_eq!(read("APP_", others).expect("not ours"), PoolConfig::new());
        let error = read("APP_", [("APP_RESET".into(), bytes())]).expect_err("ours");
        assert_eq!(error.to_string(), "invalid pool configuration: APP_RESET: is not UTF-8");
    }
}
