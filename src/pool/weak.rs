//! A handle that does not keep its pool open.

use std::fmt;
use std::sync::Weak;

use millpond_driver::Driver;

use super::Pool;
use super::shared::Shared;

/// A handle that does not keep its pool open. Made by [`Pool::downgrade`].
pub struct WeakPool<D: Driver> {
    pub(super) shared: Weak<Shared<D>>,
}

impl<D: Driver> WeakPool<D> {
    /// The pool, unless its last handle is gone. One that was closed by hand is
    /// still there, and says so itself.
    pub fn upgrade(&self) -> Option<Pool<D>> {
        // Connections that are lent keep what is shared alive, but not the pool.
        let shared = self.shared.upgrade()?;
        shared.revive_handle().then(|| Pool { shared })
    }
}

impl<D: Driver> Clone for WeakPool<D> {
    fn clone(&self) -> Self {
        Self { shared: Weak::clone(&self.shared) }
    }
}

impl<D: Driver> fmt::Debug for WeakPool<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPool").finish_non_exhaustive()
    }
}
