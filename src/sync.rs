//! Locks, atomics and cells: the one place that chooses between std and the
//! model checker.
//!
//! Nothing else in this crate names either. Knows nothing of pools.

#[cfg(millpond_loom)]
use loom as from;
#[cfg(not(millpond_loom))]
use std as from;

pub(crate) use from::sync::MutexGuard;
pub(crate) use from::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

/// A mutex whose lock survives a panic of its holder: no foreign code runs
/// under any lock of this crate, so a panic leaves nothing half done.
#[derive(Debug)]
pub(crate) struct Mutex<T>(from::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(from::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A cell that the model checker watches for concurrent access.
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(from::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(from::cell::UnsafeCell::new(value))
    }

    /// Lends a pointer to the content. Reading or writing through it is the
    /// caller's claim that nobody else does so now.
    #[cfg(not(millpond_loom))]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }

    #[cfg(millpond_loom)]
    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        self.0.with_mut(access)
    }
}

/// Keeps two values that different threads write from sharing a cache line.
/// 128 bytes: x86 fetches lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

impl<T> std::ops::Deref for CachePadded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
