//! Decimal numbers of the rust_decimal crate.
//!
//! Decides which numbers it can hold: those it holds exactly. Refuses `f64`,
//! whose digits are not those that were written.

use ::rust_decimal::Decimal;

use super::{mismatch, unread};
use crate::{FromValue, Result, Value};

impl From<Decimal> for Value {
    /// As it is written, zeros at its end included.
    fn from(number: Decimal) -> Self {
        Self::Decimal(number.to_string().into())
    }
}

impl FromValue for Decimal {
    fn from_value(value: Value) -> Result<Self> {
        match &value {
            Value::Decimal(text) | Value::Text(text) => Self::from_str_exact(text).map_err(|_| {
                unread(
                    value.kind(),
                    "Decimal",
                    "not a number of 96 bits with up to 28 decimal places",
                )
            }),
            Value::I64(number) => Ok((*number).into()),
            Value::U64(number) => Ok((*number).into()),
            other => Err(mismatch(other, "Decimal")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, returns};
    use super::*;

    fn decimal(text: &str) -> Value {
        Value::Decimal(text.into())
    }

    #[test]
    fn what_goes_in_comes_out() {
        returns(Decimal::MAX);
        returns(Decimal::MIN);
        returns(Decimal::new(1, 28));
        returns(Some(Decimal::ZERO));
        returns(None::<Decimal>);
    }

    #[test]
    fn digits_are_kept_as_they_are_written() {
        for text in ["19.90", "-12.50", "0.00", "79228162514264337593543950335"] {
            let number = Decimal::from_value(decimal(text)).expect("a decimal");
            assert_eq!(Value::from(number), decimal(text));
        }
    }

    #[test]
    fn whole_numbers_and_numbers_in_text_are_read() {
        assert_eq!(Decimal::from_value(Value::I64(-7)).expect("a number"), Decimal::from(-7));
        let most = Decimal::from_value(Value::U64(u64::MAX)).expect("a number");
        assert_eq!(most, Decimal::from(u64::MAX));
        assert_eq!(Decimal::from_value("1.5".into()).expect("a number"), Decimal::new(15, 1));
    }

    #[test]
    fn what_it_cannot_hold_exactly_is_refused_by_its_range() {
        let rule = "not a number of 96 bits with up to 28 decimal places";
        for text in [
            "79228162514264337593543950336",
            "0.00000000000000000000000000001",
            "NaN",
            "Infinity",
            "hunter2",
            "",
        ] {
            let error = refusal::<Decimal>(decimal(text));
            assert_eq!(error, format!("cannot read decimal as Decimal: {rule}"), "{text}");
        }
        assert_eq!(
            refusal::<Decimal>("hunter2".into()),
            format!("cannot read text as Decimal: {rule}")
        );
        assert_eq!(refusal::<Decimal>(Value::F64(0.1)), "cannot read f64 as Decimal");
    }
}
