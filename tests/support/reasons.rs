//! Why the connections of a pool are closed, as its observer is told.

use std::sync::{Arc, Mutex};

use millpond::drivers::fake::Fake;
use millpond::{Builder, CloseReason, Event};

pub(crate) type Reasons = Arc<Mutex<Vec<CloseReason>>>;

/// The same pool, and why its connections are closed, in order.
pub(crate) fn reasons(builder: Builder<Fake>) -> (Builder<Fake>, Reasons) {
    let seen = Reasons::default();
    let writer = Arc::clone(&seen);
    let builder = builder.observer(move |event: &Event<'_>| {
        if let Event::Closed { reason, .. } = event {
            writer.lock().unwrap().push(*reason);
        }
    });
    (builder, seen)
}
