//! Whether sessions of the server are shared behind the connection.
//!
//! Owns the judgement by the number of the server's process: who stands between
//! client and server, and answers the login itself, has another. Does not know
//! who it is, nor how it shares.

/// What is known of what stands between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooler {
    /// Nobody has asked the server yet.
    Unknown,
    /// The session at the server is the client's own.
    None,
    /// A pooler gives the client one after another.
    There,
}

impl Pooler {
    /// By the numbers that the login and a statement have told.
    pub(crate) fn judge(login: u32, statement: Option<i32>) -> Self {
        match statement {
            // Whoever tells no number may be anybody.
            _ if login == 0 => Self::Unknown,
            None => Self::Unknown,
            Some(process) if process as u32 == login => Self::None,
            Some(_) => Self::There,
        }
    }

    /// Whether to take it for one. Poolers make up the number, of 32 bits, and no
    /// process of Linux has one of more than 22.
    pub(crate) fn is_likely(self, login: u32) -> bool {
        const LARGEST: u32 = 1 << 22;

        match self {
            Self::Unknown => login > LARGEST,
            Self::None => false,
            Self::There => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_process_than_that_of_the_login_is_behind_a_pooler() {
        for (login, statement, pooler) in [
            (4711, Some(4711), Pooler::None),
            (4711, Some(4712), Pooler::There),
            (0xFFFF_FFFF, Some(4711), Pooler::There),
            (4711, None, Pooler::Unknown),
            (0, Some(4711), Pooler::Unknown),
        ] {
            assert_eq!(Pooler::judge(login, statement), pooler, "{login}, {statement:?}");
        }
    }

    #[test]
    fn a_number_that_no_process_has_is_taken_for_a_poolers_until_it_is_known() {
        for (login, likely) in [(0, false), (1 << 22, false), (0x8000_0000, true)] {
            assert_eq!(Pooler::Unknown.is_likely(login), likely, "{login}");
            assert!(Pooler::There.is_likely(login) && !Pooler::None.is_likely(login));
        }
    }
}
