//! Settings written as text: in a URL, in the environment.
//!
//! Owns how a value is read and what is said of a wrong one. Does not know
//! which settings there are.

use std::time::Duration;

use millpond_driver::Reset;
use millpond_driver::url::parse_duration;

use super::Unset;

use super::IdleOrder;

/// A kind of value that a setting can have.
pub(crate) trait Setting: Sized {
    /// What it looks like, for the error: "a whole number".
    const FORM: &'static str;

    fn from_text(text: &str) -> Option<Self>;
}

/// Reads the value of a setting.
pub(crate) fn read<T: Setting>(text: &str) -> Result<T, Unset> {
    T::from_text(text).ok_or(Unset::Not(T::FORM))
}

impl Setting for usize {
    const FORM: &'static str = "a whole number";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for u32 {
    const FORM: &'static str = "a whole number from 0 to 4294967295";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Setting for u64 {
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
        parse_duration(text)
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

impl Setting for IdleOrder {
    const FORM: &'static str = "lifo or fifo";

    fn from_text(text: &str) -> Option<Self> {
        match text {
            "lifo" => Some(Self::Lifo),
            "fifo" => Some(Self::Fifo),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_value_is_answered_with_the_form_it_must_have() {
        assert_eq!(read::<usize>("8"), Ok(8));
        assert_eq!(read::<Duration>("5"), Err(Unset::Not(<Duration as Setting>::FORM)));
        assert_eq!(read::<Reset>("all"), Err(Unset::Not("boundary or session")));
        for text in ["-1", "1.5", "many", "", "99999999999999999999"] {
            assert_eq!(read::<usize>(text), Err(Unset::Not("a whole number")), "{text}");
        }
    }
}
