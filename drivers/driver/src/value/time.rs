//! Times of day and points in time, to the microsecond.
//!
//! Owns [`Time`], [`DateTime`] and [`Timestamp`]. Knows no time zone but UTC
//! and does not know what time it is.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::date::{Date, digits, two_digits};
use crate::Error;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// A time of day, from `00:00:00` to `23:59:59.999999`.
///
/// PostgreSQL's `24:00:00` and the longer spans that MySQL's `TIME` can hold
/// are not times of day; drivers give them as text.
///
/// ```
/// use millpond_driver::Time;
///
/// let time = Time::new(13, 45, 7, 250_000).expect("a time of day");
/// assert_eq!(time.to_string(), "13:45:07.250000");
/// assert_eq!("13:45:07.25".parse::<Time>()?, time);
/// assert_eq!(Time::new(24, 0, 0, 0), None);
/// # Ok::<(), millpond_driver::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    micros: i64,
}

impl Time {
    /// The start of a day.
    pub const MIDNIGHT: Self = Self { micros: 0 };

    /// A time of day. `None` if a part is too large; there are no leap seconds.
    pub fn new(hour: u8, minute: u8, second: u8, micro: u32) -> Option<Self> {
        if hour > 23 || minute > 59 || second > 59 || micro > 999_999 {
            return None;
        }
        let seconds = 3600 * i64::from(hour) + 60 * i64::from(minute) + i64::from(second);
        Some(Self { micros: seconds * MICROS_PER_SECOND + i64::from(micro) })
    }

    /// The time so many microseconds after midnight. `None` unless it is on the
    /// same day.
    pub fn from_micros(micros: i64) -> Option<Self> {
        (0..MICROS_PER_DAY).contains(&micros).then_some(Self { micros })
    }

    /// Microseconds since midnight.
    pub const fn micros(self) -> i64 {
        self.micros
    }

    /// The hour, 0 to 23.
    pub const fn hour(self) -> u8 {
        (self.micros / (3600 * MICROS_PER_SECOND)) as u8
    }

    /// The minute of the hour.
    pub const fn minute(self) -> u8 {
        (self.micros / (60 * MICROS_PER_SECOND) % 60) as u8
    }

    /// The second of the minute.
    pub const fn second(self) -> u8 {
        (self.micros / MICROS_PER_SECOND % 60) as u8
    }

    /// The microsecond of the second.
    pub const fn microsecond(self) -> u32 {
        (self.micros % MICROS_PER_SECOND) as u32
    }

    fn parse(text: &str) -> Option<Self> {
        let (text, micro) = match text.split_once('.') {
            Some((text, fraction)) if matches!(fraction.len(), 1..=6) => {
                (text, digits(fraction)? * 10_u32.pow(6 - fraction.len() as u32))
            }
            Some(_) => return None,
            None => (text, 0),
        };
        let (hour, text) = text.split_once(':')?;
        let (minute, second) = text.split_once(':')?;
        Self::new(two_digits(hour)?, two_digits(minute)?, two_digits(second)?, micro)
    }
}

impl fmt::Display for Time {
    /// ISO 8601; six places after the second unless they are all zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}:{:02}", self.hour(), self.minute(), self.second())?;
        match self.microsecond() {
            0 => Ok(()),
            micro => write!(f, ".{micro:06}"),
        }
    }
}

impl FromStr for Time {
    type Err = Error;

    /// Hours, minutes and seconds, with up to six places after the second.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).ok_or_else(|| Error::decode("not a time of day as 13:45:07.25"))
    }
}

/// A day and a time of day, in no particular time zone: what a clock on the
/// wall shows.
///
/// ```
/// use millpond_driver::{Date, DateTime, Time};
///
/// let noon = DateTime::new(Date::from_days(0), Time::new(12, 0, 0, 0).expect("noon"));
/// assert_eq!(noon.to_string(), "1970-01-01T12:00:00");
/// assert_eq!("1970-01-01 12:00:00".parse::<DateTime>()?, noon);
/// # Ok::<(), millpond_driver::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DateTime {
    date: Date,
    time: Time,
}

impl DateTime {
    /// A time on a day.
    pub const fn new(date: Date, time: Time) -> Self {
        Self { date, time }
    }

    /// The day.
    pub const fn date(self) -> Date {
        self.date
    }

    /// The time of day.
    pub const fn time(self) -> Time {
        self.time
    }

    fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(['T', ' '])?;
        Some(Self::new(Date::parse(date)?, Time::parse(time)?))
    }
}

impl fmt::Display for DateTime {
    /// ISO 8601.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}T{}", self.date, self.time)
    }
}

impl FromStr for DateTime {
    type Err = Error;

    /// A date and a time with `T` or, as databases write it, a space between.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).ok_or_else(|| Error::decode("not a date and time as 2024-02-29T13:45:07"))
    }
}

/// A point in time: microseconds since the Unix epoch.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use millpond_driver::Timestamp;
///
/// let stamp = Timestamp::from(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400));
/// assert_eq!(stamp.micros(), 86_400_000_000);
/// assert_eq!(stamp.to_string(), "1970-01-02T00:00:00Z");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    micros: i64,
}

impl Timestamp {
    /// The point so many microseconds after 1970-01-01T00:00:00Z, or before it
    /// if negative.
    pub const fn from_micros(micros: i64) -> Self {
        Self { micros }
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.micros
    }

    /// The point when clocks on UTC show `utc`. `None` more than about 292 000
    /// years away.
    pub fn from_utc(utc: DateTime) -> Option<Self> {
        let micros = i128::from(utc.date.days()) * i128::from(MICROS_PER_DAY);
        let micros = i64::try_from(micros + i128::from(utc.time.micros)).ok()?;
        Some(Self { micros })
    }

    /// What clocks on UTC show.
    pub const fn utc(self) -> DateTime {
        let days = self.micros.div_euclid(MICROS_PER_DAY) as i32;
        let time = Time { micros: self.micros.rem_euclid(MICROS_PER_DAY) };
        DateTime::new(Date::from_days(days), time)
    }
}

impl fmt::Display for Timestamp {
    /// ISO 8601 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}Z", self.utc())
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    /// As written: a date and time of UTC followed by `Z`.
    fn from_str(text: &str) -> Result<Self, Error> {
        text.strip_suffix('Z')
            .and_then(DateTime::parse)
            .and_then(Self::from_utc)
            .ok_or_else(|| Error::decode("not a timestamp as 2024-02-29T13:45:07Z"))
    }
}

impl From<SystemTime> for Timestamp {
    /// Drops what is finer than a microsecond; more than 292 000 years away, the
    /// farthest point there is.
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            // Up, so that both sides of the epoch round to the earlier microsecond.
            Err(before) => i64::try_from(before.duration().as_nanos().div_ceil(1000))
                .map_or(i64::MIN, |micros| -micros),
        };
        Self { micros }
    }
}

impl TryFrom<Timestamp> for SystemTime {
    type Error = Error;

    /// Fails where the operating system's time does not reach so far: on
    /// Windows before 1601.
    fn try_from(stamp: Timestamp) -> Result<Self, Error> {
        let span = Duration::from_micros(stamp.micros.unsigned_abs());
        if stamp.micros < 0 { UNIX_EPOCH.checked_sub(span) } else { UNIX_EPOCH.checked_add(span) }
            .ok_or_else(|| Error::decode("cannot read timestamp as SystemTime: out of range"))
    }
}

macro_rules! debug_as_display {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
debug_as_display!(Time DateTime Timestamp);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_ends_before_midnight() {
        let last = Time::new(23, 59, 59, 999_999).expect("the last of the day");
        assert_eq!(last.micros(), MICROS_PER_DAY - 1);
        assert_eq!(Time::from_micros(last.micros()), Some(last));
        assert_eq!(Time::from_micros(MICROS_PER_DAY), None);
        assert_eq!(Time::from_micros(-1), None);
        for (hour, minute, second, micro) in
            [(24, 0, 0, 0), (0, 60, 0, 0), (0, 0, 60, 0), (0, 0, 0, 1_000_000)]
        {
            assert_eq!(Time::new(hour, minute, second, micro), None);
        }
    }

    #[test]
    fn a_time_of_day_gives_back_its_parts() {
        let time = Time::new(13, 45, 7, 250_001).expect("a time of day");
        let parts = (time.hour(), time.minute(), time.second(), time.microsecond());
        assert_eq!(parts, (13, 45, 7, 250_001));
    }

    #[test]
    fn times_read_as_they_are_written() {
        for text in ["00:00:00", "23:59:59.999999", "13:45:07.000001"] {
            assert_eq!(text.parse::<Time>().expect(text).to_string(), text);
        }
        for text in ["2024-02-29T13:45:07", "-0001-12-31T00:00:00.100000"] {
            assert_eq!(text.parse::<DateTime>().expect(text).to_string(), text);
            let utc = format!("{text}Z");
            assert_eq!(utc.parse::<Timestamp>().expect(text).to_string(), utc);
        }
    }

    #[test]
    fn other_forms_of_times_are_refused() {
        for text in
            ["", "1:02:03", "01:02", "01:02:03.", "01:02:03.1234567", "01:02:+3", "24:00:00"]
        {
            text.parse::<Time>().expect_err(text);
            format!("2024-02-29T{text}").parse::<DateTime>().expect_err(text);
        }
        for text in ["2024-02-29T13:45:07", "2024-02-29T13:45:07+00:00", "+5000000-01-01T00:00:00Z"]
        {
            text.parse::<Timestamp>().expect_err(text);
        }
    }

    #[test]
    fn a_timestamp_and_its_utc_clock_agree() {
        for micros in [i64::MIN, -MICROS_PER_DAY, -1, 0, 1, MICROS_PER_DAY, i64::MAX] {
            let stamp = Timestamp::from_micros(micros);
            assert_eq!(Timestamp::from_utc(stamp.utc()), Some(stamp), "{micros}");
        }
        let before = Timestamp::from_micros(-1);
        assert_eq!(before.to_string(), "1969-12-31T23:59:59.999999Z");
        let far = DateTime::new(Date::from_days(i32::MAX), Time::MIDNIGHT);
        assert_eq!(Timestamp::from_utc(far), None);
    }

    #[test]
    fn system_time_goes_both_ways() {
        for micros in [-MICROS_PER_DAY - 1, -1, 0, 1, 1_709_214_307_250_000] {
            let stamp = Timestamp::from_micros(micros);
            let time = SystemTime::try_from(stamp).expect("near the epoch");
            assert_eq!(Timestamp::from(time), stamp);
        }
    }

    #[test]
    fn system_time_rounds_to_the_earlier_microsecond() {
        let nano = Duration::from_nanos(1);
        assert_eq!(Timestamp::from(UNIX_EPOCH + nano), Timestamp::from_micros(0));
        assert_eq!(Timestamp::from(UNIX_EPOCH - nano), Timestamp::from_micros(-1));
    }
}
