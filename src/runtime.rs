//! The async runtimes a pool can run on, and which one it takes by itself.
//!
//! Owns the choice of [`Runtime`] and nothing else: each adapter is a file of
//! its own under its feature, and a feature adds an adapter without choosing
//! it. Does not know what the pool does with a runtime.
//!
#![cfg_attr(feature = "smol", doc = "```")]
#![cfg_attr(not(feature = "smol"), doc = "```ignore")]
//! use std::sync::Arc;
//! use millpond::runtime::{Runtime, Smol, block_on};
//!
//! let runtime: Arc<dyn Runtime> = Arc::new(Smol);
//! block_on(runtime.sleep_until(runtime.now()));
//! ```

use std::future::Future;
use std::sync::Arc;

pub use millpond_driver::{BoxFuture, ByteStream, Keepalive, Runtime, SocketOptions, Target};

#[cfg(feature = "async-std")]
mod async_std;
#[cfg(any(feature = "tokio", feature = "smol", feature = "async-std"))]
mod clock;
#[cfg(any(feature = "smol", feature = "async-std"))]
mod reactor;
#[cfg(feature = "smol")]
mod smol;
#[cfg(any(feature = "tokio", feature = "smol", feature = "async-std"))]
mod socket;
#[cfg(feature = "tokio")]
mod tokio;

#[cfg(feature = "async-std")]
pub use self::async_std::AsyncStd;
#[cfg(feature = "smol")]
pub use self::smol::Smol;
#[cfg(feature = "tokio")]
pub use self::tokio::Tokio;

/// Runs a future to its end on this thread: for examples, tests and small
/// programs without a runtime of their own.
///
/// Takes the first enabled runtime of tokio, smol and async-std. On tokio it
/// is a single-threaded one that lives for this call: tasks still running when
/// the future ends are dropped.
///
/// # Panics
///
/// With none of the three enabled. On tokio: inside another tokio runtime,
/// where blocking the thread would stop it, and if the operating system gives
/// no event queue.
pub fn block_on<F: Future>(future: F) -> F::Output {
    #[cfg(feature = "tokio")]
    return tokio::block_on(future);
    #[cfg(all(feature = "smol", not(feature = "tokio")))]
    return ::smol::block_on(future);
    #[cfg(all(feature = "async-std", not(any(feature = "tokio", feature = "smol"))))]
    return ::async_std::task::block_on(future);
    #[cfg(not(any(feature = "tokio", feature = "smol", feature = "async-std")))]
    {
        drop(future);
        panic!("no async runtime: enable the feature `tokio`, `smol` or `async-std` of millpond")
    }
}

/// The runtime a pool takes when it is given none: tokio where a tokio context
/// is current, else smol or async-std, which need no context.
pub fn current() -> Option<Arc<dyn Runtime>> {
    #[cfg(feature = "tokio")]
    if let Some(tokio) = Tokio::current() {
        return Some(Arc::new(tokio));
    }
    #[cfg(feature = "smol")]
    return Some(Arc::new(Smol));
    #[cfg(all(feature = "async-std", not(feature = "smol")))]
    return Some(Arc::new(AsyncStd));
    #[cfg(not(any(feature = "smol", feature = "async-std")))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_tokio_context_the_choice_is_a_runtime_that_needs_none() {
        let chosen = current().map(|runtime| format!("{runtime:?}"));

        let expected = if cfg!(feature = "smol") {
            Some("Smol")
        } else if cfg!(feature = "async-std") {
            Some("AsyncStd")
        } else {
            None
        };
        assert_eq!(chosen.as_deref(), expected);
    }

    #[test]
    #[cfg(feature = "tokio")]
    fn inside_a_tokio_context_the_choice_is_tokio() {
        let chosen = block_on(async { format!("{:?}", current()) });

        assert!(chosen.starts_with("Some(Tokio"), "{chosen}");
    }
}
