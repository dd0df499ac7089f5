//! Who has logged in last, and with what.
//!
//! A session outlives the password that it was opened with. What must log in
//! for it later, as `KILL QUERY` does, asks here for one that is good now. Does
//! not know how a login is done.

use std::sync::{Arc, Mutex, PoisonError};

use mysql_async::Opts;

/// The last login that the server took. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct LastLogin(Arc<Mutex<Option<Opts>>>);

impl LastLogin {
    pub(crate) fn set(&self, login: &Opts) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(login.clone());
    }

    /// The last login, if it was the same user's; else the one asked with.
    pub(crate) fn in_place_of(&self, login: &Opts) -> Opts {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.filter(|last| last.user() == login.user()).unwrap_or_else(|| login.clone())
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::OptsBuilder;

    use super::*;

    fn login(user: &str, password: &str) -> Opts {
        OptsBuilder::default().user(Some(user)).pass(Some(password)).into()
    }

    #[test]
    fn a_login_is_replaced_by_a_newer_one_of_its_user_only() {
        let last = LastLogin::default();
        let mine = login("app", "old");
        assert_eq!(last.in_place_of(&mine).pass(), Some("old"));
        last.set(&login("app", "new"));
        assert_eq!(last.in_place_of(&mine).pass(), Some("new"));
        last.set(&login("other", "newer"));
        assert_eq!(last.in_place_of(&mine).pass(), Some("old"));
    }
}
