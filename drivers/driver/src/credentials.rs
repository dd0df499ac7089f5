//! Who logs in, where that changes while the program runs.
//!
//! Owns [`Credentials`] and keeps the password out of what is printed. Does not
//! know where they come from, nor how long they are good for.

use std::fmt;

/// What one session logs in with, in place of what its driver was configured
/// with. What is `None` leaves the driver's own.
///
/// ```
/// use millpond_driver::Credentials;
///
/// let credentials = Credentials::new().user("app").password("of this hour");
/// assert!(!format!("{credentials:?}").contains("hour"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// Who logs in, if not whom the driver knows.
    pub user: Option<String>,
    /// The password, or a token that serves as one, if not the driver's.
    pub password: Option<String>,
}

impl Credentials {
    /// Those of the driver.
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs in as this user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Logs in with this password.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }
}

impl fmt::Debug for Credentials {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_user_and_never_the_password() {
        let credentials = Credentials::new().user("app").password("secret");
        let text = format!("{credentials:?} {credentials:#?}");
        assert!(text.contains("app") && !text.contains("secret"), "{text}");
    }
}
