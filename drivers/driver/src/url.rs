//! Reading the URL of a database, for authors of drivers.
//!
//! Owns how parts and parameters are read and what is said of a wrong one, so
//! that every database says the same of the same mistake. Does not know which
//! parameters there are. No error here repeats a part that may be a password.

use std::str::FromStr;
use std::time::Duration;

use crate::{Error, Result};

/// The parameters of a query, `name=value&name=value`, as they are written.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Resolves `%20` and its like in the part of this name.
///
/// # Errors
///
/// A `%` without its digits, or a text that no database takes. It is not shown:
/// the part may be a password.
pub fn decode(part: &str, text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let value = digit().and_then(|high| Some(high * 16 + digit()?));
                value.ok_or_else(|| {
                    Error::config(format!("{part}: a % is not followed by two hexadecimal digits"))
                })? as u8
            }
            byte => byte,
        });
    }
    if bytes.contains(&0) {
        return Err(Error::config(format!("{part}: has a zero byte, which no text has")));
    }
    String::from_utf8(bytes).map_err(|_| Error::config(format!("{part}: is not UTF-8")))
}

/// One of several choices, by name, in upper or lower case.
///
/// # Errors
///
/// None has that name; the error lists those there are.
pub fn choice<T: Copy>(name: &str, value: &str, known: &[(&str, T)]) -> Result<T> {
    let found = known.iter().find(|(known, _)| known.eq_ignore_ascii_case(value));
    found.map(|&(_, choice)| choice).ok_or_else(|| {
        let known: Vec<&str> = known.iter().map(|&(known, _)| known).collect();
        wrong(name, value, &format!("is not one of {}", known.join(", ")))
    })
}

/// A whole number.
///
/// # Errors
///
/// The value is none, or out of the range of `T`.
pub fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| wrong(name, value, "is not a whole number"))
}

/// A duration, as [`parse_duration`] reads it, or a bare number of `unit`s.
///
/// # Errors
///
/// The value is neither.
pub fn duration(name: &str, value: &str, unit: &str) -> Result<Duration> {
    let is_bare = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let parsed =
        if is_bare { parse_duration(&format!("{value}{unit}")) } else { parse_duration(value) };
    parsed.ok_or_else(|| wrong(name, value, "is not a duration such as 5s or 250ms"))
}

/// A duration in Go's notation: numbers with units, added up, as in `1h30m`,
/// `2.5s` and `250ms`. No sign, and no number without a unit but 0.
pub fn parse_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, u64); 7] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, remaining) = after.split_at(unit_end);
        let (_, nanos) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(part(number, *nanos)?)?;
        rest = remaining;
    }
    Some(total)
}

/// `number` times a unit of so many nanoseconds. Exact: a fraction is digits
/// of the unit, not a float.
fn part(number: &str, nanos: u64) -> Option<Duration> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = whole.checked_mul(nanos)?;
    let mut digit_value = nanos;
    for digit in fraction.chars() {
        digit_value /= 10;
        total = total.checked_add(digit_value * u64::from(digit.to_digit(10)?))?;
    }
    Some(Duration::from_nanos(total))
}

/// What is said of a value that breaks a rule: `sslmode: "on" is not one of …`.
pub fn wrong(name: &str, value: &str, rule: &str) -> Error {
    Error::config(format!("{name}: {value:?} {rule}"))
}

/// What is said of a parameter that there is not, in the URL of such a
/// `database`: which there are, and the nearest of them.
pub fn unknown(name: &str, database: &str, known: &[&str]) -> Error {
    let hint = match nearest(name, known) {
        Some(nearest) => format!("; did you mean {nearest}?"),
        None => String::new(),
    };
    let known = known.join(", ");
    Error::config(format!(
        "{name:?} is not a parameter of a {database} URL, which are {known}{hint}"
    ))
}

/// Which of the known names may have been meant; none if all are far.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let (far, nearest) = known.iter().map(|known| (distance(name, known), *known)).min()?;
    (far <= 2.max(name.len() / 3)).then_some(nearest)
}

/// How many letters must be added, dropped or changed: the distance of
/// Levenshtein, 1965.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let ms = Duration::from_millis;
        for (text, expected) in [
            ("0", Some(Duration::ZERO)),
            ("250ms", Some(ms(250))),
            ("1h30m", Some(ms(5_400_000))),
            ("1h15m30.918s", Some(ms(4_530_918))),
            ("1.5h", Some(ms(5_400_000))),
            (".5s", Some(ms(500))),
            ("10µs", Some(Duration::from_micros(10))),
            ("10us", Some(Duration::from_micros(10))),
            ("7ns", Some(Duration::from_nanos(7))),
        ] {
            assert_eq!(parse_duration(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in
            ["", "5", "s", ".s", "5 s", "-1s", "1.2.3s", "1d", "99999999999h", "1s5", "5S", "1e3s"]
        {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_bare_number_is_of_the_unit_that_the_parameter_has() {
        for (text, unit, millis) in
            [("5s", "ms", 5000), ("250", "ms", 250), ("3", "s", 3000), ("0", "s", 0)]
        {
            let read = duration("x", text, unit).expect(text);
            assert_eq!(read, Duration::from_millis(millis), "{text}");
        }
        for text in ["", "soon", "-1"] {
            let rule = "is not a duration such as 5s or 250ms";
            let error = duration("x", text, "s").expect_err(text);
            assert_eq!(error.to_string(), format!("x: {text:?} {rule}"));
        }
    }

    #[test]
    fn an_unknown_parameter_is_answered_with_the_known_ones_and_the_nearest() {
        let known = ["mode", "busy_timeout"];
        assert_eq!(
            unknown("Busy_timout", "SQLite", &known).to_string(),
            "\"Busy_timout\" is not a parameter of a SQLite URL, which are mode, busy_timeout; \
             did you mean busy_timeout?"
        );
        assert!(!unknown("colour", "SQLite", &known).to_string().contains("did you mean"));
    }

    #[test]
    fn a_text_that_does_not_decode_is_not_shown() {
        assert_eq!(decode("user", "a%20b%3f%C3%BC").expect("good"), "a b?ü");
        for (text, rule) in [
            ("secret%2", "a % is not followed by two hexadecimal digits"),
            ("secret%zz", "a % is not followed by two hexadecimal digits"),
            ("secret%ff", "is not UTF-8"),
            ("secret%00", "has a zero byte, which no text has"),
        ] {
            let error = decode("password", text).expect_err(text);
            assert_eq!(error.to_string(), format!("password: {rule}"));
        }
    }

    #[test]
    fn a_choice_is_by_name_and_an_error_lists_the_names() {
        let known = [("on", true), ("off", false)];
        assert!(choice("x", "ON", &known).expect("known"));
        let error = choice("x", "maybe", &known).expect_err("unknown");
        assert_eq!(error.to_string(), "x: \"maybe\" is not one of on, off");
    }
}
