//! Dates and times of the time crate.
//!
//! Decides what happens at the edges: the time crate counts nanoseconds and
//! reaches fewer years. Does not know offsets: they are dropped on the way in,
//! and UTC on the way out.

use ::time::{OffsetDateTime, PrimitiveDateTime};

use super::{mismatch, unfit};
use crate::{Date, DateTime, FromValue, Result, Time, Timestamp, Value};

/// The day 0 of a [`Date`] in the astronomers' count.
const UNIX_EPOCH_JULIAN: i32 = 2_440_588;

impl From<::time::Date> for Value {
    fn from(date: ::time::Date) -> Self {
        Self::Date(to_date(date))
    }
}

impl From<::time::Time> for Value {
    /// Drops what is finer than a microsecond.
    fn from(time: ::time::Time) -> Self {
        Self::Time(to_time(time))
    }
}

impl From<PrimitiveDateTime> for Value {
    /// Drops what is finer than a microsecond.
    fn from(at: PrimitiveDateTime) -> Self {
        Self::DateTime(DateTime::new(to_date(at.date()), to_time(at.time())))
    }
}

impl From<OffsetDateTime> for Value {
    /// The point in time, without its offset. Drops what is finer than a
    /// microsecond; more than 292 000 years away, the farthest point there is.
    fn from(at: OffsetDateTime) -> Self {
        let micros = at.unix_timestamp_nanos().div_euclid(1000);
        let farthest = if micros < 0 { i64::MIN } else { i64::MAX };
        Self::Timestamp(Timestamp::from_micros(i64::try_from(micros).unwrap_or(farthest)))
    }
}

impl FromValue for ::time::Date {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Date(date) => {
                from_date(date).ok_or_else(|| unfit(&value, date, "time::Date", years()))
            }
            other => Err(mismatch(&other, "time::Date")),
        }
    }
}

impl FromValue for ::time::Time {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Time(time) => Ok(from_time(time)),
            other => Err(mismatch(&other, "time::Time")),
        }
    }
}

impl FromValue for PrimitiveDateTime {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::DateTime(at) => from_date(at.date())
                .map(|date| date.with_time(from_time(at.time())))
                .ok_or_else(|| unfit(&value, at, "PrimitiveDateTime", years())),
            other => Err(mismatch(&other, "PrimitiveDateTime")),
        }
    }
}

impl FromValue for OffsetDateTime {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Timestamp(stamp) => {
                Self::from_unix_timestamp_nanos(i128::from(stamp.micros()) * 1000)
                    .map_err(|_| unfit(&value, stamp, "OffsetDateTime", years()))
            }
            other => Err(mismatch(&other, "OffsetDateTime")),
        }
    }
}

fn years() -> String {
    format!("outside {} to {}", ::time::Date::MIN, ::time::Date::MAX)
}

fn to_date(date: ::time::Date) -> Date {
    Date::from_days(date.to_julian_day() - UNIX_EPOCH_JULIAN)
}

fn from_date(date: Date) -> Option<::time::Date> {
    ::time::Date::from_julian_day(date.days().checked_add(UNIX_EPOCH_JULIAN)?).ok()
}

fn to_time(time: ::time::Time) -> Time {
    let (hour, minute, second, micro) = time.as_hms_micro();
    Time::new(hour, minute, second, micro).expect("parts of a time of day")
}

fn from_time(time: Time) -> ::time::Time {
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    ::time::Time::from_hms_micro(hour, minute, second, time.microsecond())
        .expect("parts of a time of day")
}

#[cfg(test)]
mod tests {
    use ::time::{Month, UtcOffset};

    use super::super::tests::{refusal, returns};
    use super::*;

    fn date(year: i32, month: Month, day: u8) -> ::time::Date {
        ::time::Date::from_calendar_date(year, month, day).expect("a date")
    }

    fn time(hour: u8, minute: u8, second: u8, nano: u32) -> ::time::Time {
        ::time::Time::from_hms_nano(hour, minute, second, nano).expect("a time of day")
    }

    #[test]
    fn what_goes_in_comes_out() {
        let last = time(23, 59, 59, 999_999_000);
        for day in [
            date(2024, Month::February, 29),
            date(-44, Month::March, 15),
            ::time::Date::MIN,
            ::time::Date::MAX,
        ] {
            returns(day);
            returns(day.with_time(last));
            returns(day.with_time(last).assume_utc());
        }
        returns(time(13, 45, 7, 250_001_000));
        returns(Some(date(1969, Month::December, 31)));
        returns(None::<::time::Time>);
    }

    #[test]
    fn the_texts_of_both_sides_agree() {
        let at = date(2024, Month::February, 29).with_time(time(13, 45, 7, 0));
        assert_eq!(Value::from(at), Value::DateTime("2024-02-29T13:45:07".parse().expect("ISO")));
        let stamp = "2024-02-29T13:45:07Z".parse().expect("ISO");
        assert_eq!(Value::from(at.assume_utc()), Value::Timestamp(stamp));
    }

    #[test]
    fn an_offset_is_dropped_and_the_point_in_time_kept() {
        let utc = OffsetDateTime::UNIX_EPOCH;
        let offset = UtcOffset::from_hms(2, 0, 0).expect("an offset");
        assert_eq!(Value::from(utc.to_offset(offset)), Value::from(utc));
    }

    #[test]
    fn nanoseconds_go_to_the_earlier_microsecond() {
        let fine = time(0, 0, 0, 1_999);
        assert_eq!(Value::from(fine), Value::Time(Time::from_micros(1).expect("a time")));
        let before = OffsetDateTime::UNIX_EPOCH - ::time::Duration::nanoseconds(1);
        assert_eq!(Value::from(before), Value::Timestamp(Timestamp::from_micros(-1)));
    }

    #[test]
    fn years_that_the_time_crate_lacks_are_refused_by_its_range() {
        // Not at the edge: it lies farther with that crate's `large-dates`.
        let far = Date::new(1_000_000, 1, 1).expect("a day");
        let error = refusal::<::time::Date>(far.into());
        let rule = format!("outside {} to {}", ::time::Date::MIN, ::time::Date::MAX);
        assert_eq!(error, format!("cannot read date +1000000-01-01 as time::Date: {rule}"));
        refusal::<::time::Date>(Date::from_days(i32::MAX).into());
        refusal::<PrimitiveDateTime>(DateTime::new(far, Time::MIDNIGHT).into());
    }

    #[test]
    fn each_type_reads_its_own_kind() {
        let stamp = Value::Timestamp(Timestamp::from_micros(0));
        assert_eq!(refusal::<::time::Date>(stamp.clone()), "cannot read timestamp as time::Date");
        refusal::<PrimitiveDateTime>(stamp.clone());
        refusal::<::time::Time>(stamp);
        refusal::<OffsetDateTime>("1970-01-01T00:00:00Z".into());
    }
}
