//! Global transaction identifiers, as the two families write them.
//!
//! Knows which texts are some, which transactions they stand for, and how many.
//! Asks no server.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use millpond_driver::{Error, Result};

/// A place in the log of MariaDB, written as `0-1-42,1-1-7`: for each domain the
/// number of its last transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gtids(BTreeMap<u32, Last>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Last {
    server: u32,
    number: u64,
}

impl Gtids {
    /// Whether everything before `self` is before `other`.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.0.iter().all(|(domain, last)| {
            last.number == 0 || other.0.get(domain).is_some_and(|there| last.number <= there.number)
        })
    }

    /// The later of both, in each domain.
    pub(crate) fn or(mut self, other: Self) -> Self {
        for (domain, last) in other.0 {
            let ours = self.0.entry(domain).or_insert(last);
            if last.number > ours.number {
                *ours = last;
            }
        }
        self
    }

    /// How many transactions, if it is not the very beginning.
    pub(crate) fn count(&self) -> Option<u128> {
        let count = self.0.values().map(|last| u128::from(last.number)).sum();
        (count > 0).then_some(count)
    }
}

impl fmt::Display for Gtids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (domain, Last { server, number })) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{domain}-{server}-{number}")?;
        }
        Ok(())
    }
}

impl FromStr for Gtids {
    type Err = Error;

    /// Nothing is the beginning of the log.
    fn from_str(text: &str) -> Result<Self> {
        let one = |text: &str| {
            let mut numbers = text.trim().split('-');
            let domain = digits(numbers.next()?)?;
            let last = Last { server: digits(numbers.next()?)?, number: digits(numbers.next()?)? };
            numbers.next().is_none().then_some((domain, last))
        };
        let mut all = Self::default();
        for part in text.split(',').filter(|_| !text.trim().is_empty()) {
            let (domain, last) = one(part).ok_or_else(|| wrong("0-1-42", text))?;
            all = all.or(Self(BTreeMap::from([(domain, last)])));
        }
        Ok(all)
    }
}

/// A set of transactions of MySQL, written as `3E11FA47-…:1-5:7, …`, with tags
/// between the intervals since MySQL 8.3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GtidSet {
    text: String,
    count: u128,
}

impl GtidSet {
    /// How many transactions, if it is not the very beginning.
    pub(crate) fn count(&self) -> Option<u128> {
        (self.count > 0).then_some(self.count)
    }
}

impl fmt::Display for GtidSet {
    /// Letters, digits, and `-`, `:`, `,`, `_` alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for GtidSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        const LIKE: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5";

        let bare: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let mut count = 0;
        for part in bare.split(',').filter(|part| !part.is_empty()) {
            let (server, items) = part.split_once(':').ok_or_else(|| wrong(LIKE, text))?;
            let mut good = is_uuid(server);
            for item in items.split(':') {
                match interval(item) {
                    Some(transactions) => count += transactions,
                    None => good &= is_tag(item),
                }
            }
            if !good {
                return Err(wrong(LIKE, text));
            }
        }
        Ok(Self { text: bare, count })
    }
}

/// How many there are in `7` or `1-5`.
fn interval(text: &str) -> Option<u128> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (digits::<u64>(first)?, digits::<u64>(last)?);
    Some(u128::from(last.checked_sub(first)?) + 1)
}

fn is_tag(text: &str) -> bool {
    let first = text.chars().next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic());
    first && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn wrong(like: &str, text: &str) -> Error {
    Error::config(format!("a position here looks like {like}, not like `{text}`"))
}

#[cfg(test)]
mod tests {
    use millpond_driver::ErrorKind;

    use super::*;

    const SERVER: &str = "3E11FA47-71CA-11E1-9E33-C80AA9429562";

    fn gtids(text: &str) -> Gtids {
        text.parse().expect(text)
    }

    #[test]
    fn a_place_of_mariadb_is_written_as_the_server_writes_it() {
        for text in ["", "0-1-42", "0-1-42,7-4294967295-18446744073709551615"] {
            assert_eq!(gtids(text).to_string(), text);
        }
        assert_eq!(gtids("1-1-7, 0-1-42,0-2-41").to_string(), "0-1-42,1-1-7");
    }

    #[test]
    fn a_place_is_before_another_in_each_of_its_domains() {
        for (one, other, within) in [
            ("0-1-42", "0-2-42", true),
            ("0-1-43", "0-2-42", false),
            ("0-1-42", "0-1-99,1-1-1", true),
            ("0-1-42,1-1-1", "0-1-99", false),
            ("", "", true),
            ("0-1-1", "", false),
        ] {
            assert_eq!(gtids(one).is_within(&gtids(other)), within, "{one} in {other}");
        }
        assert_eq!(gtids("0-1-5,1-1-9").or(gtids("0-2-6,1-2-8")), gtids("0-2-6,1-1-9"));
    }

    #[test]
    fn transactions_are_counted_over_all_domains_and_servers() {
        assert_eq!(gtids("0-1-42,3-9-8").count(), Some(50));
        assert_eq!(gtids("").count(), None);
        for (text, count) in [
            (format!("{SERVER}:1-5"), Some(5)),
            (format!("{SERVER}:7"), Some(1)),
            (format!("{SERVER}:1-5:7:9-10,\n{SERVER}:1-100"), Some(108)),
            (format!("{SERVER}:1-5:tag_1:1-3:7"), Some(9)),
            (String::new(), None),
        ] {
            assert_eq!(text.parse::<GtidSet>().expect(&text).count(), count, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_a_wrong_setting_and_never_part_of_a_statement() {
        for text in ["0-1", "0-1-2-3", "0-1-x", "0-1-2,", "a", "0/16B3748", "0-1-+2", "' OR 1"] {
            let error = text.parse::<Gtids>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        }
        for text in [
            "0-1-42".to_owned(),
            SERVER.to_owned(),
            format!("{SERVER}:"),
            format!("{SERVER}:5-1"),
            format!("{SERVER}:1-5:';"),
            format!("{}:1", SERVER.replace('-', "0")),
        ] {
            let error = text.parse::<GtidSet>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
        }
        let set: GtidSet = format!(" {SERVER}:1 ,\n{SERVER}:7").parse().unwrap();
        assert_eq!(set.to_string(), format!("{SERVER}:1,{SERVER}:7"));
    }
}
