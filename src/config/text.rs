//! Settings written as text: in a URL, in the environment.
//!
//! Owns how a value is read and what is said of a wrong one. Does not know
//! which settings there are.

use std::time::Duration;

use millpond_driver::{Error, Reset, Result};

/// A kind of value that a setting can have.
pub(super) trait Setting: Sized {
    /// What it looks like, for the error: "a whole number".
    const FORM: &'static str;

    fn from_text(text: &str) -> Option<Self>;
}

/// Reads the value of the setting `name`.
pub(super) fn read<T: Setting>(name: &str, text: &str) -> Result<T> {
    T::from_text(text)
        .ok_or_else(|| Error::config(format!("{name} = {text:?}: must be {}", T::FORM)))
}

impl Setting for usize {
    const FORM: &'static str = "a whole number";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for u32 {
    const FORM: &'static str = "a whole number";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for bool {
    const FORM: &'static str = "true or false";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for Duration {
    const FORM: &'static str = "a duration with units, as in 1h30m, 2.5s or 250ms, or 0";

    fn from_text(text: &str) -> Option<Self> {
        duration(text)
    }
}

impl Setting for Reset {
    const FORM: &'static str = "boundary or session";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "boundary" => Some(Self::Boundary),
            "session" => Some(Self::Session),
            _ => None,
        }
    }
}

/// Go's notation: numbers with units, added up. No sign, and no number without
/// a unit but 0.
fn duration(text: &str) -> Option<Duration> {
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
            assert_eq!(duration(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in
            ["", "5", "s", ".s", "5 s", "-1s", "1.2.3s", "1d", "99999999999h", "1s5", "5S", "1e3s"]
        {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_its_setting_and_the_rule() {
        let error = read::<Duration>("acquire_timeout", "5").expect_err("no unit");
        assert_eq!(
            error.to_string(),
            "acquire_timeout = \"5\": must be a duration with units, as in 1h30m, 2.5s or \
             250ms, or 0"
        );
    }
}
