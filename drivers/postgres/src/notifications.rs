//! Notifications of `NOTIFY`, as a stream.
//!
//! Owns the queue between the connection's task and whoever listens. Does not
//! say what is listened to: `LISTEN` does.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use millpond_driver::{Error, Result};
use tokio_postgres::Notification;

use crate::link::Link;

/// Notifications that may wait for their reader.
const CAPACITY: usize = 1024;

#[derive(Debug, Default)]
pub(crate) struct Mailbox(Mutex<Letters>);

#[derive(Debug, Default)]
struct Letters {
    waiting: VecDeque<Notification>,
    reader: Option<Waker>,
    /// Nothing comes any more.
    closed: bool,
    /// Something came that had no room.
    overflown: bool,
}

impl Mailbox {
    /// Keeps a notification; gives it up, and all that follow, without room.
    pub(crate) fn deliver(&self, notification: Notification) {
        let mut letters = self.letters();
        if letters.waiting.len() < CAPACITY && !letters.closed {
            letters.waiting.push_back(notification);
        } else {
            letters.overflown |= !letters.closed;
            letters.closed = true;
        }
        letters.ring();
    }

    /// Nothing comes any more.
    pub(crate) fn end(&self) {
        let mut letters = self.letters();
        letters.closed = true;
        letters.ring();
    }

    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Letters {
    fn ring(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

/// The notifications of a connection, made by
/// [`PostgresConnection::notifications`](crate::PostgresConnection::notifications).
///
/// Ends with an error when the connection does, and when its reader falls more
/// than 1024 notifications behind.
pub struct Notifications {
    link: Arc<Link>,
    mailbox: Arc<Mailbox>,
    done: bool,
}

impl Notifications {
    /// Those of a link from now on; an earlier stream of it ends.
    pub(crate) fn of(link: &Arc<Link>) -> Self {
        let mailbox = Arc::<Mailbox>::default();
        let earlier = link.past().mailbox.replace(Arc::clone(&mailbox));
        if let Some(earlier) = earlier {
            earlier.end();
        }
        if link.has_ended() {
            mailbox.end();
        }
        Self { link: Arc::clone(link), mailbox, done: false }
    }
}

impl Stream for Notifications {
    type Item = Result<Notification>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.done {
            return Poll::Ready(None);
        }
        let mut letters = self.mailbox.letters();
        if let Some(notification) = letters.waiting.pop_front() {
            return Poll::Ready(Some(Ok(notification)));
        }
        if !letters.closed {
            letters.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let overflown = letters.overflown;
        drop(letters);
        self.done = true;
        Poll::Ready(match (overflown, self.link.has_ended()) {
            (true, _) => Some(Err(Error::overloaded(format!(
                "the reader of the notifications is more than {CAPACITY} behind"
            )))),
            (false, true) => Some(Err(self.link.lost())),
            // Another stream has taken over.
            (false, false) => None,
        })
    }
}

impl fmt::Debug for Notifications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notifications").field("done", &self.done).finish_non_exhaustive()
    }
}
