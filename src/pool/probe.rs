//! How the database behind a pool is asked how it is: on a connection of its
//! own, outside the limit and the queue.
//!
//! Owns that connection: one a pool, opened when somebody asks, kept while
//! anybody may ask again. Does not know what follows from the answer.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use event_listener::Event;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use millpond_driver::{BoxFuture, ConnectContext, Driver, NodeStatus, Purpose, Result, Runtime};

use super::Pool;
use super::entry::is_death;
use super::shared::Shared;
use super::state::State;
use super::tasks::{GOODBYE, drop_quietly};
use crate::health::{Probe, Probed};
use crate::sync::Mutex;

/// The connection kept for probes.
pub(super) struct Aside<C> {
    kept: Mutex<Kept<C>>,
    /// It has been put back, or is gone.
    freed: Event,
}

struct Kept<C> {
    conn: Option<C>,
    /// Somebody asks on it now, or opens it.
    taken: bool,
    /// How many may ask.
    probes: usize,
}

impl<C> Aside<C> {
    pub(super) fn new() -> Self {
        let kept = Kept { conn: None, taken: false, probes: 0 };
        Self { kept: Mutex::new(kept), freed: Event::new() }
    }
}

impl<C> fmt::Debug for Aside<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").finish_non_exhaustive()
    }
}

/// The right to the connection. Given back however that ends; the connection
/// too, if its last answer was awaited and good.
struct Asking<D: Driver> {
    shared: Arc<Shared<D>>,
    conn: Option<D::Connection>,
    /// It is in step, and somebody may ask again.
    keep: bool,
}

impl<D: Driver> Asking<D> {
    /// Waits until nobody else asks.
    async fn begin(shared: &Arc<Shared<D>>) -> Self {
        loop {
            let freed = shared.aside.freed.listen();
            if let Some(asking) = Self::unless_taken(shared, &mut shared.aside.kept.lock()) {
                return asking;
            }
            freed.await;
        }
    }

    fn unless_taken(shared: &Arc<Shared<D>>, kept: &mut Kept<D::Connection>) -> Option<Self> {
        let free = !std::mem::replace(&mut kept.taken, true);
        free.then(|| Self { shared: Arc::clone(shared), conn: kept.conn.take(), keep: true })
    }

    /// Asks on the connection that is there, if any. One that fails is dropped.
    async fn ask(&mut self) -> Option<Result<NodeStatus>> {
        let conn = self.conn.as_mut()?;
        self.keep = false;
        let told = self.shared.driver.status(conn).await;
        self.keep = told.is_ok();
        if !self.keep {
            drop_quietly(self.conn.take());
        }
        Some(told)
    }

    async fn connect(&mut self, cx: ConnectContext<'_>) -> Result<()> {
        let Shared { driver, hooks, .. } = &*self.shared;
        self.conn = Some(match &hooks.login {
            None => driver.connect(&cx).await?,
            Some(login) => {
                let given = login.ask().await?;
                driver.connect(&cx.with_credentials(&given)).await?
            }
        });
        Ok(())
    }

    /// Closes the connection. Nobody opens another before it is gone.
    async fn close(mut self) {
        let Some(conn) = self.conn.take() else { return };
        let shared = &self.shared;
        let goodbye = AssertUnwindSafe(async { shared.driver.close(conn).await });
        let limit = shared.runtime.sleep_until(shared.deadline(GOODBYE));
        select(pin!(goodbye.catch_unwind()), limit).await;
    }
}

impl<D: Driver> Drop for Asking<D> {
    fn drop(&mut self) {
        let mut conn = self.conn.take();
        if !self.keep {
            drop_quietly(conn.take());
        }
        let aside = &self.shared.aside;
        {
            let mut state = aside.kept.lock();
            state.taken = false;
            // A pool that closes after this looks for it.
            if !self.shared.read(State::is_closed) {
                state.conn = conn.take();
            }
        }
        drop_quietly(conn);
        aside.freed.notify(1);
    }
}

/// Closes the connection of a pool that is being closed, unless somebody asks on
/// it now: who does, does not put it back.
pub(super) fn close_aside<D: Driver>(shared: &Arc<Shared<D>>) {
    let asking = Asking::unless_taken(shared, &mut shared.aside.kept.lock());
    close_if_open(asking);
}

fn close_if_open<D: Driver>(asking: Option<Asking<D>>) {
    if let Some(mut asking) = asking.filter(|asking| asking.conn.is_some()) {
        // Not even if the task is dropped before it begins.
        asking.keep = false;
        let shared = Arc::clone(&asking.shared);
        shared.spawn(asking.close());
    }
}

impl<D: Driver> Probed for Pool<D> {
    fn probe(&self) -> Box<dyn Probe> {
        self.shared.aside.kept.lock().probes += 1;
        Box::new(PoolProbe { shared: Arc::clone(&self.shared) })
    }
}

/// A handle that does not keep the pool open. The last one closes the
/// connection.
struct PoolProbe<D: Driver> {
    shared: Arc<Shared<D>>,
}

impl<D: Driver> Probe for PoolProbe<D> {
    fn ask(&self, limit: Duration) -> BoxFuture<'_, Result<NodeStatus>> {
        let shared = &self.shared;
        let deadline = shared.deadline(limit);
        Box::pin(async move {
            let mut asking = Asking::begin(shared).await;
            // It may have been ended alone, or forgotten on the way, while it lay
            // idle: that leaves time to ask on another.
            let half = shared.runtime.sleep_until(shared.deadline(limit / 2));
            match select(pin!(asking.ask()), half).await {
                Either::Left((Some(Err(error)), _)) if is_death(&error) => {}
                Either::Left((Some(told), _)) => return told,
                Either::Left((None, _)) | Either::Right(_) => {}
            }
            drop_quietly(asking.conn.take());
            let cx = ConnectContext::new(&shared.runtime, deadline);
            asking.connect(cx.with_purpose(Purpose::Probe)).await?;
            asking.ask().await.expect("opened above")
        })
    }

    fn closed(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let closing = self.shared.closing.listen();
            if !self.shared.read(State::is_closed) {
                closing.await;
            }
        })
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::clone(&self.shared.runtime)
    }
}

impl<D: Driver> Drop for PoolProbe<D> {
    fn drop(&mut self) {
        let last = {
            let mut kept = self.shared.aside.kept.lock();
            kept.probes -= 1;
            match kept.probes {
                0 => Asking::unless_taken(&self.shared, &mut kept),
                _ => None,
            }
        };
        close_if_open(last);
    }
}
