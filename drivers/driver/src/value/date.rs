//! A day of the calendar.
//!
//! Owns [`Date`] and the arithmetic of the Gregorian calendar. Does not know
//! time zones, weekdays or today.

use std::fmt;
use std::str::FromStr;

use crate::Error;

/// A day of the Gregorian calendar, extended in both directions to about the
/// year 5 800 000.
///
/// Years are counted as astronomers do: 0 is 1 BC, -1 is 2 BC. Written and
/// read as ISO 8601; years outside 0 to 9999 carry a sign.
///
/// ```
/// use millpond_driver::Date;
///
/// let date = Date::new(2024, 2, 29).expect("a leap year");
/// assert_eq!(date.days(), 19_782);
/// assert_eq!(date.to_string(), "2024-02-29");
/// assert_eq!("2024-02-29".parse::<Date>()?, date);
/// assert_eq!(Date::new(2023, 2, 29), None);
/// # Ok::<(), millpond_driver::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    days: i32,
}

impl Date {
    /// A day by year, month (1 to 12) and day of the month (from 1). `None` if
    /// the calendar has no such day.
    pub fn new(year: i32, month: u8, day: u8) -> Option<Self> {
        if !(1..=12).contains(&month) || !(1..=days_in_month(year, month)).contains(&day) {
            return None;
        }
        // Years that begin in March have the leap day at their end, so that
        // nothing after it needs to be shifted.
        let (year, month) = match month {
            1 | 2 => (i64::from(year) - 1, i64::from(month) + 9),
            _ => (i64::from(year), i64::from(month) - 3),
        };
        let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let days = 365 * year + leap_days + days_before_month(month) + i64::from(day) - 1;
        i32::try_from(days - MARCH_0_TO_1970).ok().map(Self::from_days)
    }

    /// The day so many days after 1970-01-01, or before it if negative.
    pub const fn from_days(days: i32) -> Self {
        Self { days }
    }

    /// Days since 1970-01-01.
    pub const fn days(self) -> i32 {
        self.days
    }

    /// Year, month (1 to 12) and day of the month (from 1).
    pub const fn ymd(self) -> (i32, u8, u8) {
        let days = self.days as i64 + MARCH_0_TO_1970;
        // A century has 36524 days, every fourth one more; within a century a
        // year has 365, every fourth one more. The long one comes last each
        // time, which the `+ 3` provides for.
        let century = (4 * days + 3).div_euclid(DAYS_IN_400_YEARS);
        let day = days - (DAYS_IN_400_YEARS * century).div_euclid(4);
        let year = (4 * day + 3) / DAYS_IN_4_YEARS;
        let day = day - DAYS_IN_4_YEARS * year / 4;
        let month = (5 * day + 2) / 153;
        let day = day - days_before_month(month) + 1;
        let year = 100 * century + year;
        let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
        (year as i32, month as u8, day as u8)
    }

    /// The year.
    pub const fn year(self) -> i32 {
        self.ymd().0
    }

    /// The month, from 1.
    pub const fn month(self) -> u8 {
        self.ymd().1
    }

    /// The day of the month, from 1.
    pub const fn day(self) -> u8 {
        self.ymd().2
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let (text, day) = text.rsplit_once('-')?;
        let (year, month) = text.rsplit_once('-')?;
        let (sign, year) = match year.strip_prefix('-') {
            Some(year) => (-1, year),
            None => (1, year.strip_prefix('+').unwrap_or(year)),
        };
        if year.len() < 4 {
            return None;
        }
        let year = i32::try_from(digits(year)?).ok()?;
        Self::new(sign * year, two_digits(month)?, two_digits(day)?)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.ymd();
        match year {
            0..=9999 => write!(f, "{year:04}-{month:02}-{day:02}"),
            _ => write!(f, "{year:+05}-{month:02}-{day:02}"),
        }
    }
}

impl fmt::Debug for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Date {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text).ok_or_else(|| Error::decode("not a date as 2024-02-29"))
    }
}

/// From the first of March of the year 0.
const MARCH_0_TO_1970: i64 = 719_468;
const DAYS_IN_400_YEARS: i64 = 146_097;
const DAYS_IN_4_YEARS: i64 = 1_461;

/// Days of a year that begins in March before its month number `month`, March
/// being 0. The lengths 31 30 31 30 31 repeat, 153 days for five months.
const fn days_before_month(month: i64) -> i64 {
    (153 * month + 2) / 5
}

fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A number of digits only: `str::parse` alone would take a sign.
pub(super) fn digits(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

pub(super) fn two_digits(text: &str) -> Option<u8> {
    if text.len() == 2 { digits(text)?.try_into().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_from_year_minus_400_to_10000_agrees_with_counting() {
        let lengths = |leap| {
            [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31].into_iter()
        };
        let is_leap = |year: i32| match (year % 400, year % 100, year % 4) {
            (0, _, _) => true,
            (_, 0, _) => false,
            (_, _, rest) => rest == 0,
        };
        let year_length = |year| if is_leap(year) { 366 } else { 365 };

        let mut days: i32 = -(-400..1970).map(year_length).sum::<i32>();
        for year in -400..=10_000 {
            for (month, length) in (1..).zip(lengths(is_leap(year))) {
                for day in 1..=length {
                    assert_eq!(Date::from_days(days).ymd(), (year, month, day), "day {days}");
                    assert_eq!(Date::new(year, month, day), Some(Date::from_days(days)));
                    days += 1;
                }
                assert_eq!(Date::new(year, month, length + 1), None, "{year}-{month}");
            }
        }
    }

    #[test]
    fn the_calendar_repeats_to_both_ends_of_its_range() {
        for days in [i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX] {
            let (year, month, day) = Date::from_days(days).ymd();
            let cycles = i64::from(days).div_euclid(DAYS_IN_400_YEARS);
            let near = i64::from(days) - cycles * DAYS_IN_400_YEARS;
            let (near_year, near_month, near_day) = Date::from_days(near as i32).ymd();
            assert_eq!(i64::from(year), i64::from(near_year) + 400 * cycles);
            assert_eq!((month, day), (near_month, near_day));
            assert_eq!(Date::new(year, month, day), Some(Date::from_days(days)));
        }
        assert_eq!(Date::from_days(i32::MAX).to_string(), "+5881580-07-11");
        assert_eq!(Date::new(5_881_580, 7, 12), None);
        assert_eq!(Date::new(i32::MIN, 1, 1), None);
        assert_eq!(Date::new(i32::MAX, 12, 31), None);
    }

    #[test]
    fn days_the_calendar_lacks_are_refused() {
        for (year, month, day) in
            [(2024, 0, 1), (2024, 13, 1), (2024, 1, 0), (2024, 4, 31), (1900, 2, 29)]
        {
            assert_eq!(Date::new(year, month, day), None, "{year}-{month}-{day}");
        }
        assert!(Date::new(2000, 2, 29).is_some());
    }

    #[test]
    fn dates_read_as_they_are_written() {
        for text in ["1970-01-01", "0000-01-01", "9999-12-31", "-0044-03-15", "+12345-06-07"] {
            let date: Date = text.parse().expect(text);
            assert_eq!(date.to_string(), text);
            assert_eq!(format!("{date:?}"), text);
        }
        assert_eq!("12345-06-07".parse::<Date>().expect("PostgreSQL's form").year(), 12_345);
    }

    #[test]
    fn other_forms_of_dates_are_refused_without_repeating_them() {
        for text in [
            "",
            "2024",
            "2024-02",
            "2024-2-29",
            "2024-02-30",
            "24-02-29",
            "2024-02-+9",
            "--2024-02-09",
            "+-2024-02-09",
            "2024-02-29 ",
            "2024-02-29T00:00:00",
            "99999999999-01-01",
            "２０２４-02-29",
        ] {
            let error = text.parse::<Date>().expect_err(text);
            assert_eq!(error.to_string(), "not a date as 2024-02-29");
        }
    }
}
