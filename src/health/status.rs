//! What a checker tells: to programs, to people, and over HTTP.
//!
//! Owns the forms. Knows neither how it is found out nor any clock.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use millpond_driver::{Error, Role};

use super::node::{Reason, State};

/// How a node is, as far as its [`HealthChecker`](super::HealthChecker) knows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HealthStatus {
    /// When this was read.
    pub at: Instant,
    /// Whether the node is to be used.
    pub state: State,
    /// When that began.
    pub since: Instant,
    /// Why it went out, while it is out.
    pub reason: Option<Reason>,
    /// The part of its share that the node is to be given, from 0 to 1: it
    /// comes back slowly. See [`Node::weight`](super::Node::weight).
    pub weight: f64,
    /// Whether the checker checks. False once it is stopped, and when its
    /// runtime has ended or stands still: then the rest is what was known
    /// before.
    pub is_running: bool,
    /// Checks in a row that have failed.
    pub consecutive_failures: u32,
    /// The error of the last check that met one, with its source.
    pub last_error: Option<Error>,
    /// When the node last answered.
    pub last_success_at: Option<Instant>,
    /// The node's place in its cluster, as it said last.
    pub role: Role,
    /// Whether it takes writes, as it said last.
    pub writable: Option<bool>,
    /// How old its data is, as it said last.
    pub lag: Option<Duration>,
    /// How much of the log it has not replayed, as it said last.
    pub lag_bytes: Option<u64>,
    /// Checks so far.
    pub checks: u64,
    /// Those that failed.
    pub failures: u64,
    /// How often state, role or writability have changed.
    pub changes: u64,
}

impl HealthStatus {
    /// Whether the node may be used, and somebody is there to say so.
    pub fn is_ready(&self) -> bool {
        self.is_running && self.state.is_serving()
    }

    /// The answer to an HTTP request: 200 if [ready](Self::is_ready), else 503,
    /// and a line of JSON.
    pub fn answer(&self) -> (u16, String) {
        let mut body = format!(
            "{{\"state\":\"{}\",\"ready\":{},\"running\":{}",
            self.state,
            self.is_ready(),
            self.is_running
        );
        let mut add = |name: &str, value: &dyn fmt::Display| {
            // Writing to a string cannot fail.
            let _ = write!(body, ",\"{name}\":{value}");
        };
        if let Some(role) = word(self.role) {
            add("role", &Quoted(role));
        }
        if let Some(writable) = self.writable {
            add("writable", &writable);
        }
        if let Some(lag) = self.lag {
            add("lag_ms", &lag.as_millis());
        }
        if let Some(bytes) = self.lag_bytes {
            add("lag_bytes", &bytes);
        }
        add("consecutive_failures", &self.consecutive_failures);
        add("checks", &self.checks);
        add("failures", &self.failures);
        if let Some(error) = self.present_error() {
            add("error", &Quoted(&error.to_string()));
        }
        body.push('}');
        (if self.is_ready() { 200 } else { 503 }, body)
    }

    /// The last error, unless the node has answered since.
    fn present_error(&self) -> Option<&Error> {
        let present = self.consecutive_failures > 0 || self.state != State::Up;
        self.last_error.as_ref().filter(|_| present)
    }
}

impl fmt::Display for HealthStatus {
    /// For example `up for 12.0s, primary, writable; 34 checks, 2 failed`, or
    /// `ejected for 1.2s (too many faults in a row): no answer within 1s; last
    /// answer 20.1s ago; 40 checks, 5 failed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ago = |then: Instant| self.at.saturating_duration_since(then);
        write!(f, "{} for {:.1?}", self.state, ago(self.since))?;
        if let Some(reason) = self.reason {
            write!(f, " ({reason})")?;
        }
        if let Some(role) = word(self.role) {
            write!(f, ", {role}")?;
        }
        match self.writable {
            Some(true) => f.write_str(", writable")?,
            Some(false) => f.write_str(", read-only")?,
            None => {}
        }
        if let Some(lag) = self.lag {
            write!(f, ", {lag:.1?} behind")?;
        }
        if let Some(error) = self.present_error() {
            write!(f, ": {error}")?;
            if let Some(success) = self.last_success_at {
                write!(f, "; last answer {:.1?} ago", ago(success))?;
            }
        }
        let checks = if self.checks == 1 { "check" } else { "checks" };
        write!(f, "; {} {checks}, {} failed", self.checks, self.failures)?;
        if !self.is_running {
            f.write_str("; not checked any more")?;
        }
        Ok(())
    }
}

fn word(role: Role) -> Option<&'static str> {
    match role {
        Role::Primary => Some("primary"),
        Role::Replica => Some("replica"),
        Role::Peer => Some("peer"),
        Role::Standalone => Some("standalone"),
        _ => None,
    }
}

/// A text as JSON writes it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                // Line separators end a line of JavaScript, and of some logs.
                c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                    write!(f, "\\u{:04x}", u32::from(c))?;
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_escapes_whatever_would_end_the_text_or_the_line() {
        for (text, json) in [
            ("plain é", "\"plain é\""),
            ("a \"b\" \\c", r#""a \"b\" \\c""#),
            ("two\nlines\r\t", r#""two\nlines\u000d\u0009""#),
            ("\u{0}\u{7f}\u{2028}", r#""\u0000\u007f\u2028""#),
        ] {
            assert_eq!(Quoted(text).to_string(), json);
        }
    }
}
