//! Settings in documents: what is read, what is written, and that everything
//! wrong with a document is said at once.
#![cfg(feature = "serde")]

use std::time::Duration;

use millpond::{PoolConfig, Reset};
use serde_json::json;

const SECOND: Duration = Duration::from_secs(1);

fn from_json(document: &str) -> Result<PoolConfig, String> {
    serde_json::from_str(document).map_err(|error| faults(&error.to_string()))
}

/// What is said, without where in the document.
fn faults(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(message, _)| message).to_owned()
}

/// The document of the Go guide that this project implements: its names, its
/// defaults, its durations as Go writes them.
#[test]
fn a_document_that_go_wrote_has_the_meaning_it_had_there() {
    let config = from_json(
        r#"{
            "max_open_conns": 25,
            "max_idle_conns": 10,
            "conn_max_lifetime": 1800000000000,
            "conn_max_idle_time": 600000000000,
            "max_retries": 3,
            "retry_interval": 1000000000,
            "health_interval": 30000000000,
            "metrics_enabled": true
        }"#,
    );
    let expected = PoolConfig::new()
        .max_open_conns(25)
        .max_idle_conns(10)
        .conn_max_lifetime(SECOND * 60 * 30)
        .conn_max_idle_time(SECOND * 60 * 10)
        .max_retries(3)
        .retry_interval(SECOND)
        .health_interval(SECOND * 30)
        .metrics_enabled(true);
    assert_eq!(config.as_ref(), Ok(&expected));
    expected.validate().expect("they do not contradict");
}

#[test]
fn json_and_toml_say_the_same_and_durations_may_have_units() {
    let json = from_json(
        r#"{ "max_open_conns": 8, "conn_max_lifetime": "1h30m", "acquire_timeout": "250ms",
             "check_after_idle": 0, "connect_timeout": "0", "reset": "session",
             "metrics_enabled": false }"#,
    );
    let toml = toml::from_str(
        "max_open_conns = 8\n\
         conn_max_lifetime = '1h30m'\n\
         acquire_timeout = '250ms'\n\
         check_after_idle = 0\n\
         connect_timeout = '0'\n\
         reset = 'session'\n\
         metrics_enabled = false",
    );
    let expected = PoolConfig::new()
        .max_open_conns(8)
        .conn_max_lifetime(SECOND * 5400)
        .acquire_timeout(SECOND / 4)
        .check_after_idle(Duration::ZERO)
        .connect_timeout(Duration::ZERO)
        .reset(Reset::Session)
        .metrics_enabled(false);
    assert_eq!(json.as_ref(), Ok(&expected));
    assert_eq!(toml.as_ref(), Ok(&expected));
}

#[test]
fn every_fault_of_a_document_is_named_at_once() {
    let said = from_json(
        r#"{
            "max_open_conns": "8",
            "max_idle_conns": -1,
            "min_idle_conns": 1.5,
            "max_waiters": 99999999999999999999,
            "max_retries": 4294967296,
            "connect_concurrency": null,
            "conn_max_lifetime": -1,
            "conn_max_idle_time": "ten minutes",
            "acquire_timeout": [30],
            "connect_timeout": { "secs": 5 },
            "retry_interval": 2.5,
            "metrics_enabled": 1,
            "reset": "all",
            "health_intervall": 0,
            "password": "secret",
            "check_timeout": "1s",
            "check_timeout": "2s"
        }"#,
    );
    let duration = "must be a duration: nanoseconds, or text with units as in 1h30m, 2.5s or 250ms";
    let whole = "must be a whole number, 0 or more";
    assert_eq!(
        said.expect_err("nearly nothing is right"),
        format!(
            "invalid pool configuration: \
             max_open_conns = \"8\": {whole}; \
             max_idle_conns = -1: {whole}; \
             min_idle_conns = 1.5: {whole}; \
             max_waiters = 1e20: {whole}; \
             max_retries = 4294967296: must be a whole number from 0 to 4294967295; \
             connect_concurrency = null: {whole}; \
             conn_max_lifetime = -1: {duration}; \
             conn_max_idle_time = \"ten minutes\": {duration}; \
             acquire_timeout = a list: {duration}; \
             connect_timeout = a map: {duration}; \
             retry_interval = 2.5: {duration}; \
             metrics_enabled = 1: must be true or false; \
             reset = \"all\": must be boundary or session; \
             health_intervall: is not a setting; did you mean health_interval?; \
             password: is not a setting; \
             check_timeout: is given twice"
        )
    );
}

#[test]
fn a_document_that_is_no_map_is_refused() {
    for document in ["5", "\"max_open_conns\"", "[8]", "null", "true"] {
        let said = from_json(document).expect_err(document);
        assert!(said.ends_with("expected the settings of a pool"), "{said}");
    }
    assert_eq!(from_json("{}"), Ok(PoolConfig::new()));
}

/// Under `#[serde(flatten)]` as well, where a field that is neither is an error.
#[test]
fn inside_a_document_of_another_the_settings_are_found() {
    #[derive(Debug, serde::Deserialize)]
    struct Service {
        port: u16,
        pool: PoolConfig,
        #[serde(flatten)]
        flat: PoolConfig,
    }
    let document = r#"{ "port": 80, "pool": { "max_retries": 1 }, "max_open_conns": 8 }"#;
    let service: Service = serde_json::from_str(document).expect("nothing is wrong");
    assert_eq!(service.port, 80);
    assert_eq!(service.pool, PoolConfig::new().max_retries(1));
    assert_eq!(service.flat, PoolConfig::new().max_open_conns(8));
    let typo = document.replace("max_open_conns", "max_open_conn");
    let refused = serde_json::from_str::<Service>(&typo).expect_err("nobody's field");
    assert!(refused.to_string().contains("did you mean max_open_conns?"), "{refused}");
}

/// What a document leaves open, code or the environment may complete.
#[test]
fn contradictions_are_left_to_the_builder() {
    let file = from_json(r#"{ "max_idle_conns": 40 }"#).expect("nothing is wrong with it alone");
    file.validate().expect_err("25 is the default of max_open_conns");
    PoolConfig::new().max_open_conns(50).or(file).validate().expect("completed by code");
}

#[test]
fn only_what_was_set_is_written_and_durations_as_go_writes_them() {
    let config = PoolConfig::new()
        .max_open_conns(8)
        .conn_max_lifetime(SECOND * 1800)
        .reset(Reset::Session)
        .metrics_enabled(false);
    let expected = json!({
        "max_open_conns": 8,
        "conn_max_lifetime": 1_800_000_000_000_u64,
        "reset": "session",
        "metrics_enabled": false,
    });
    assert_eq!(serde_json::to_value(&config).expect("JSON"), expected);
    assert_eq!(serde_json::to_string(&PoolConfig::new()).expect("JSON"), "{}");
}

#[test]
fn what_was_written_reads_as_it_was() {
    let long = Duration::from_nanos(i64::MAX as u64);
    for config in [
        PoolConfig::new(),
        PoolConfig::new().max_open_conns(0).max_idle_conns(3).max_retries(u32::MAX),
        PoolConfig::new().acquire_timeout(Duration::ZERO).connect_timeout(long),
        PoolConfig::new().check_timeout(Duration::from_nanos(1)).retry_interval(SECOND * 90),
        PoolConfig::new().reset(Reset::Boundary).metrics_enabled(true),
        PoolConfig::new().reset(Reset::Session).metrics_enabled(false),
    ] {
        let json = serde_json::to_string(&config).expect("JSON");
        assert_eq!(from_json(&json).as_ref(), Ok(&config), "{json}");
        let toml = toml::to_string(&config).expect("TOML");
        assert_eq!(toml::from_str(&toml).as_ref(), Ok(&config), "{toml}");
    }
    // Longer than Go and TOML can say: as long as they can.
    let forever = serde_json::to_string(&PoolConfig::new().conn_max_lifetime(Duration::MAX));
    assert_eq!(from_json(&forever.expect("JSON")), Ok(PoolConfig::new().conn_max_lifetime(long)));
}

#[test]
fn a_url_where_settings_belong_is_not_shown() {
    let error = serde_json::from_str::<PoolConfig>(r#""postgres://app:secret@host/db""#);
    let error = error.unwrap_err().to_string();
    let other = toml::from_str::<std::collections::BTreeMap<String, PoolConfig>>(
        "main = 'postgres://app:secret@host/db'",
    );
    let other = other.unwrap_err().message().to_owned();
    assert!(!error.contains("secret") && !other.contains("secret"), "{error} / {other}");
}

/// A bare number in a document is nanoseconds: a pool that looked every 30 of them did
/// nothing else.
#[test]
fn what_is_done_again_and_again_is_not_done_more_often_than_each_millisecond() {
    let nano = Duration::from_nanos(30);
    let config = PoolConfig::new()
        .conn_max_lifetime(nano)
        .conn_max_idle_time(nano)
        .health_interval(nano)
        .leak_after(nano);
    assert_eq!(
        config.validate().unwrap_err().message(),
        "invalid pool configuration: \
         conn_max_lifetime = 30ns: must be 0, or at least 1ms; \
         conn_max_idle_time = 30ns: must be 0, or at least 1ms; \
         health_interval = 30ns: must be 0, or at least 1ms; \
         leak_after = 30ns: must be 0, or at least 1ms"
    );
    let zero = PoolConfig::new().health_interval(Duration::ZERO).leak_after(Duration::ZERO);
    zero.conn_max_lifetime(Duration::ZERO).validate().unwrap();
}
