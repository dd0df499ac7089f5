//! `numeric` as the server sends it, to decimal text.
//!
//! Owns the format: digits of base 10 000, the weight of the first, a sign, and
//! how many decimal places are shown. Does not calculate.

use std::fmt::Write;

const NEGATIVE: u16 = 0x4000;

/// The number as PostgreSQL writes it. `None`: these are not its bytes.
pub(super) fn decode(bytes: &[u8]) -> Option<String> {
    if bytes.len() % 2 != 0 {
        return None;
    }
    let words: Vec<u16> =
        bytes.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect();
    let [count, weight, sign, places, digits @ ..] = &words[..] else { return None };
    match *sign {
        0 | NEGATIVE => {}
        0xc000 => return Some("NaN".to_owned()),
        0xd000 => return Some("Infinity".to_owned()),
        0xf000 => return Some("-Infinity".to_owned()),
        _ => return None,
    }
    if digits.len() != usize::from(*count) || digits.iter().any(|&digit| digit > 9999) {
        return None;
    }
    let weight = i32::from(*weight as i16);
    let digit = |position: i32| {
        let index = usize::try_from(weight - position).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let mut text = String::new();
    if *sign == NEGATIVE {
        text.push('-');
    }
    let first = weight.max(0);
    write!(text, "{}", digit(first)).ok()?;
    for position in (0..first).rev() {
        write!(text, "{:04}", digit(position)).ok()?;
    }
    let places = usize::from(*places);
    if places > 0 {
        text.push('.');
        let end = text.len() + places;
        for position in (1..).map(|after| -after) {
            if text.len() >= end {
                break;
            }
            write!(text, "{:04}", digit(position)).ok()?;
        }
        text.truncate(end);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(words: &[u16]) -> Option<String> {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        decode(&bytes)
    }

    #[test]
    fn numbers_are_written_as_the_server_writes_them() {
        for (words, text) in [
            (&[0, 0, 0, 0][..], "0"),
            (&[0, 0, 0, 2], "0.00"),
            (&[1, 0, 0, 0, 7], "7"),
            (&[2, 0, 0, 2, 19, 9000], "19.90"),
            (&[2, 1, NEGATIVE, 0, 1, 2], "-10002"),
            (&[1, 2, 0, 0, 12], "1200000000"),
            (&[1, -1_i16 as u16, 0, 4, 1], "0.0001"),
            (&[1, -2_i16 as u16, 0, 8, 1234], "0.00001234"),
            (&[1, -2_i16 as u16, NEGATIVE, 6, 1200], "-0.000012"),
            (&[2, 0, 0, 1, 5, 5000], "5.5"),
            (&[0, 0, 0xc000, 0], "NaN"),
            (&[0, 0, 0xd000, 0], "Infinity"),
            (&[0, 0, 0xf000, 0], "-Infinity"),
        ] {
            assert_eq!(decoded(words).as_deref(), Some(text), "{words:?}");
        }
    }

    #[test]
    fn what_is_no_number_is_not_read_as_one() {
        for words in [&[][..], &[0, 0, 0], &[1, 0, 0, 0], &[1, 0, 0, 0, 10_000], &[0, 0, 0x1234, 0]]
        {
            assert_eq!(decoded(words), None, "{words:?}");
        }
        assert_eq!(decode(&[0; 9]), None);
    }
}
