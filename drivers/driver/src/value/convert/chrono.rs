//! Dates and times of the chrono crate.
//!
//! Decides what happens at the edges: chrono counts nanoseconds and leap
//! seconds and reaches fewer years. Does not know time zones: they are dropped
//! on the way in, and UTC on the way out.

use ::chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Timelike, Utc};

use super::{mismatch, unfit};
use crate::{Date, DateTime, FromValue, Result, Time, Timestamp, Value};

/// The day 0 of a [`Date`] in chrono's count from the first day of year 1.
const UNIX_EPOCH_FROM_CE: i32 = 719_163;

impl From<NaiveDate> for Value {
    fn from(date: NaiveDate) -> Self {
        Self::Date(to_date(date))
    }
}

impl From<NaiveTime> for Value {
    /// Drops what is finer than a microsecond; a leap second becomes the last
    /// microsecond before it.
    fn from(time: NaiveTime) -> Self {
        Self::Time(to_time(time))
    }
}

impl From<NaiveDateTime> for Value {
    /// As for [`NaiveTime`].
    fn from(at: NaiveDateTime) -> Self {
        Self::DateTime(DateTime::new(to_date(at.date()), to_time(at.time())))
    }
}

impl<Z: TimeZone> From<::chrono::DateTime<Z>> for Value {
    /// The point in time, without its zone. Drops what is finer than a
    /// microsecond.
    fn from(at: ::chrono::DateTime<Z>) -> Self {
        Self::Timestamp(Timestamp::from_micros(at.timestamp_micros()))
    }
}

impl FromValue for NaiveDate {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Date(date) => {
                from_date(date).ok_or_else(|| unfit(&value, date, "NaiveDate", years()))
            }
            other => Err(mismatch(&other, "NaiveDate")),
        }
    }
}

impl FromValue for NaiveTime {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Time(time) => Ok(from_time(time)),
            other => Err(mismatch(&other, "NaiveTime")),
        }
    }
}

impl FromValue for NaiveDateTime {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::DateTime(at) => from_date(at.date())
                .map(|date| date.and_time(from_time(at.time())))
                .ok_or_else(|| unfit(&value, at, "NaiveDateTime", years())),
            other => Err(mismatch(&other, "NaiveDateTime")),
        }
    }
}

impl FromValue for ::chrono::DateTime<Utc> {
    fn from_value(value: Value) -> Result<Self> {
        match value {
            Value::Timestamp(stamp) => Self::from_timestamp_micros(stamp.micros())
                .ok_or_else(|| unfit(&value, stamp, "DateTime<Utc>", years())),
            other => Err(mismatch(&other, "DateTime<Utc>")),
        }
    }
}

fn years() -> String {
    format!("outside {} to {}", NaiveDate::MIN, NaiveDate::MAX)
}

fn to_date(date: NaiveDate) -> Date {
    use ::chrono::Datelike;
    Date::from_days(date.num_days_from_ce() - UNIX_EPOCH_FROM_CE)
}

fn from_date(date: Date) -> Option<NaiveDate> {
    NaiveDate::from_num_days_from_ce_opt(date.days().checked_add(UNIX_EPOCH_FROM_CE)?)
}

fn to_time(time: NaiveTime) -> Time {
    let seconds = i64::from(time.num_seconds_from_midnight());
    let micros = i64::from(time.nanosecond() / 1000).min(999_999);
    Time::from_micros(seconds * 1_000_000 + micros).expect("chrono's seconds end with the day")
}

fn from_time(time: Time) -> NaiveTime {
    let seconds = (time.micros() / 1_000_000) as u32;
    NaiveTime::from_num_seconds_from_midnight_opt(seconds, time.microsecond() * 1000)
        .expect("a time of day ends with the day")
}

#[cfg(test)]
mod tests {
    use ::chrono::{FixedOffset, Utc};

    use super::super::tests::{refusal, returns};
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    fn time(text: &str) -> NaiveTime {
        text.parse().expect("a time of day")
    }

    #[test]
    fn what_goes_in_comes_out() {
        for day in [date("2024-02-29"), date("-0044-03-15"), NaiveDate::MIN, NaiveDate::MAX] {
            returns(day);
            returns(day.and_time(time("23:59:59.999999")));
            returns(day.and_time(time("00:00:00")).and_utc());
        }
        returns(time("13:45:07.250001"));
        returns(Some(date("1969-12-31")));
        returns(None::<NaiveTime>);
    }

    #[test]
    fn the_texts_of_both_sides_agree() {
        let at = date("2024-02-29").and_time(time("13:45:07"));
        assert_eq!(Value::from(at), Value::DateTime("2024-02-29T13:45:07".parse().expect("ISO")));
        let stamp = "2024-02-29T13:45:07Z".parse().expect("ISO");
        assert_eq!(Value::from(at.and_utc()), Value::Timestamp(stamp));
    }

    #[test]
    fn a_zone_is_dropped_and_the_point_in_time_kept() {
        let offset = FixedOffset::east_opt(2 * 3600).expect("an offset");
        let utc: ::chrono::DateTime<Utc> = "2024-02-29T13:45:07Z".parse().expect("a point");
        assert_eq!(Value::from(utc.with_timezone(&offset)), Value::from(utc));
    }

    #[test]
    fn nanoseconds_go_to_the_earlier_microsecond() {
        let fine = time("00:00:00.000001999");
        assert_eq!(Value::from(fine), Value::Time(Time::from_micros(1).expect("a time")));
        let before = date("1969-12-31").and_time(time("23:59:59.999999999")).and_utc();
        assert_eq!(Value::from(before), Value::Timestamp(Timestamp::from_micros(-1)));
    }

    #[test]
    fn a_leap_second_stays_on_its_day() {
        let leap = time("23:59:60.5");
        let last = "23:59:59.999999".parse().expect("the last of the day");
        assert_eq!(Value::from(leap), Value::Time(last));
    }

    #[test]
    fn years_that_chrono_lacks_are_refused_by_its_range() {
        let far = Date::new(300_000, 1, 1).expect("a day");
        assert_eq!(
            refusal::<NaiveDate>(far.into()),
            "cannot read date +300000-01-01 as NaiveDate: \
             outside -262143-01-01 to +262142-12-31"
        );
        refusal::<NaiveDate>(Date::from_days(i32::MAX).into());
        refusal::<NaiveDateTime>(DateTime::new(far, Time::MIDNIGHT).into());
        refusal::<::chrono::DateTime<Utc>>(Timestamp::from_micros(i64::MIN).into());
    }

    #[test]
    fn each_type_reads_its_own_kind() {
        let stamp = Value::Timestamp(Timestamp::from_micros(0));
        assert_eq!(refusal::<NaiveDate>(stamp.clone()), "cannot read timestamp as NaiveDate");
        refusal::<NaiveDateTime>(stamp.clone());
        refusal::<NaiveTime>(stamp);
        refusal::<::chrono::DateTime<Utc>>("1970-01-01T00:00:00Z".into());
    }
}
