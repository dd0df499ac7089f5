//! UUIDs of the uuid crate.
//!
//! Decides in which forms databases keep them: as such, as 16 bytes, or as the
//! 36 characters they are written with. Does not know versions or how to make
//! one.

use ::uuid::Uuid;

use super::{mismatch, unread};
use crate::{FromValue, Result, Value};

impl From<Uuid> for Value {
    fn from(uuid: Uuid) -> Self {
        Self::Uuid(uuid.into_bytes())
    }
}

impl From<Vec<Uuid>> for Value {
    fn from(uuids: Vec<Uuid>) -> Self {
        uuids.into_iter().collect()
    }
}

impl From<&[Uuid]> for Value {
    fn from(uuids: &[Uuid]) -> Self {
        uuids.iter().collect()
    }
}

impl FromValue for Uuid {
    fn from_value(value: Value) -> Result<Self> {
        const CANONICAL: usize = 36;
        match &value {
            Value::Text(text) => {
                Self::try_parse(text).ok().filter(|_| text.len() == CANONICAL).ok_or_else(|| {
                    unread("text", "Uuid", "not as 67e55044-10b1-426f-9247-bb680e5fe0c8")
                })
            }
            Value::Bytes(bytes) => Self::from_slice(bytes)
                .map_err(|_| unread(format_args!("{} bytes", bytes.len()), "Uuid", "not 16")),
            Value::Uuid(bytes) => Ok(Self::from_bytes(*bytes)),
            other => Err(mismatch(other, "Uuid")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{refusal, returns};
    use super::*;

    const TEXT: &str = "67e55044-10b1-426f-9247-bb680e5fe0c8";

    #[test]
    fn what_goes_in_comes_out() {
        returns(Uuid::from_bytes([255; 16]));
        returns(Some(Uuid::nil()));
        returns(None::<Uuid>);
    }

    #[test]
    fn it_is_read_from_each_form_databases_keep() {
        let uuid = Uuid::parse_str(TEXT).expect("a uuid");
        for value in [uuid.into(), TEXT.into(), uuid.as_bytes()[..].into()] {
            assert_eq!(Uuid::from_value(value).expect("a uuid"), uuid);
        }
        let upper = TEXT.to_ascii_uppercase();
        assert_eq!(Uuid::from_value(upper.into()).expect("a uuid"), uuid);
    }

    #[test]
    fn other_forms_are_refused_without_repeating_them() {
        let simple = TEXT.replace('-', "");
        for text in ["hunter2", &simple, &format!("{{{TEXT}}}"), &TEXT.replace('-', "+")] {
            assert_eq!(
                refusal::<Uuid>(text.into()),
                format!("cannot read text as Uuid: not as {TEXT}")
            );
        }
        assert_eq!(refusal::<Uuid>(vec![0_u8].into()), "cannot read 1 bytes as Uuid: not 16");
        assert_eq!(refusal::<Uuid>(Value::I64(7)), "cannot read i64 as Uuid");
    }
}
