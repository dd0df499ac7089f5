//! The task that moves a connection's bytes, for as long as it lives.
//!
//! Keeps what the server says unasked: notices, notifications, parameters, and
//! why it ended the connection. Does not know requests.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Connection};

use crate::error;
use crate::link::{Link, bell};
use crate::wire::Wire;

/// Its end is told however it comes, also when a runtime drops it unpolled.
pub(crate) fn drive(
    connection: Connection<Wire, Wire>,
    link: Arc<Link>,
) -> impl Future<Output = ()> + Send {
    move_bytes(End(link), connection)
}

async fn move_bytes(end: End, mut connection: Connection<Wire, Wire>) {
    let link = &*end.0;
    let bell = bell(&end.0);
    poll_fn(|cx| {
        link.wakes(cx);
        if link.is_abandoned() {
            return Poll::Ready(());
        }
        loop {
            match connection.poll_message(&mut Context::from_waker(&bell)) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => keep(link, message),
                Poll::Ready(Some(Err(end))) => {
                    link.past().end = Some(error::error(end));
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
            }
        }
        if link.take_parameters_changed() {
            look(&connection, link);
        }
        link.sleeps();
        Poll::Pending
    })
    .await;
    // Those who wait for answers learn that none come before the end is told.
    drop(connection);
    drop(end);
}

/// The role, which changes when a standby is promoted.
pub(crate) fn look(connection: &Connection<Wire, Wire>, link: &Link) {
    link.set_standby(connection.parameter("in_hot_standby").map(|told| told == "on"));
}

fn keep(link: &Link, message: AsyncMessage) {
    match message {
        AsyncMessage::Notification(notification) => {
            let mailbox = link.past().mailbox.clone();
            if let Some(mailbox) = mailbox {
                mailbox.deliver(notification);
            }
        }
        AsyncMessage::Notice(notice) if notice.parsed_severity() == Some(Severity::Warning) => {
            link.past().warning = Some(error::of_server(notice));
        }
        _ => {}
    }
}

struct End(Arc<Link>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.ends();
    }
}
