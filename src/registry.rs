//! Pools by name, each made when it is first asked for.
//!
//! Owns which names there are, that a pool is built once however many ask for
//! it, and how all of them end. Knows no database and no setting: a pool comes
//! from a function, a URL or a document.

#[cfg(feature = "serde")]
mod document;
mod report;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use event_listener::Event;
use futures_util::future::{Either, join_all, select};
use millpond_driver::url::nearest;
use millpond_driver::{Error, Result};

pub use report::RegistryReport;

use crate::config::{PoolConfig, url};
use crate::drivers::Any;
use crate::metrics::{Metric, Source, merged};
use crate::pool::{Builder, Pool};
use crate::sync::Mutex;

/// Pools by name, each with its own URL and settings.
///
/// A pool is opened by the first [`get`](Self::get) and stays; in metrics it has
/// its name of here, unless its builder gives it another. Dropping the
/// registry drops its handles; a pool closes when its last handle is gone.
///
/// ```
/// use millpond::{Pool, PoolRegistry, drivers::{Any, fake::Fake}, testing::sim::Sim};
///
/// Sim::new(1).run(async |sim| {
///     let registry = PoolRegistry::new();
///     registry.register("main", move || {
///         Ok(Pool::builder(Any::new(Fake::new())).max_open_conns(8).runtime(sim.clone()))
///     })?;
///     let pool = registry.get("main").await?;
///     assert_eq!(pool.query("hello", &[]).await?.scalar::<String>()?, "hello");
///     assert!(registry.close_all().await.is_complete());
///     Ok::<_, millpond::Error>(())
/// })?;
/// # Ok::<_, millpond::Error>(())
/// ```
///
/// # In documents
///
/// With the feature `serde` a registry is read from a document, a map from
/// names to pools: each a `url` and settings as [`PoolConfig`] has them, which
/// override those in the URL. Everything that is wrong is reported at once,
/// contradicting settings included.
///
#[cfg_attr(feature = "serde", doc = "```no_run")]
#[cfg_attr(not(feature = "serde"), doc = "```ignore")]
/// use millpond::PoolRegistry;
///
/// let registry: PoolRegistry = serde_json::from_str(
///     r#"{
///         "main": { "url": "sqlite://main.db", "max_open_conns": 8 },
///         "cache": { "url": "sqlite::memory:", "acquire_timeout": "250ms" }
///     }"#,
/// )?;
/// assert_eq!(registry.names(), ["cache", "main"]);
/// # Ok::<_, serde_json::Error>(())
/// ```
pub struct PoolRegistry {
    /// Held for a look or a note, never while foreign code runs.
    state: Mutex<State>,
    /// A build has ended, one way or another.
    settled: Event,
    /// The registry has been closed.
    closing: Event,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<String, Entry>,
    is_closed: bool,
}

struct Entry {
    make: Arc<Make>,
    seat: Seat,
}

type Make = dyn Fn() -> Result<Builder<Any>> + Send + Sync;

enum Seat {
    Vacant,
    /// Somebody builds the pool, and leaves here what went wrong.
    Building(Failure),
    Built(Pool<Any>),
}

type Failure = Arc<OnceLock<Error>>;

impl PoolRegistry {
    /// No pool yet.
    pub fn new() -> Self {
        Self { state: Mutex::new(State::default()), settled: Event::new(), closing: Event::new() }
    }

    /// Adds the pool of this name, on the database of a URL. Nothing is opened.
    ///
    /// The URL may hold settings, as for [`connect`](crate::connect); those
    /// made in `config` override them.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with the URL and the settings, at once and
    /// without showing the URL; the name is taken;
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn register_url(
        &self,
        name: impl Into<String>,
        url: &str,
        config: PoolConfig,
    ) -> Result<()> {
        let name = name.into();
        let mut faults = Vec::new();
        let entry = Entry::on(&name, url, config, &mut faults);
        refuse(&faults)?;
        self.insert(name, entry)
    }

    /// Adds the pool of this name, which `make` sets up when it is needed.
    ///
    /// It is called at every attempt to build the pool: by the first
    /// [`get`](Self::get), and again after one that failed or was dropped.
    ///
    /// # Errors
    ///
    /// The name is taken; [`Closed`](crate::ErrorKind::Closed).
    pub fn register(
        &self,
        name: impl Into<String>,
        make: impl Fn() -> Result<Builder<Any>> + Send + Sync + 'static,
    ) -> Result<()> {
        self.insert(name.into(), Entry::new(make))
    }

    fn insert(&self, name: String, entry: Entry) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(closed());
        }
        if state.entries.contains_key(&name) {
            return Err(Error::config(format!("a pool named {name:?} is registered already")));
        }
        state.entries.insert(name, entry);
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> Vec<String> {
        self.state.lock().entries.keys().cloned().collect()
    }

    /// The pool of this name, built and proved if it is the first time, as by
    /// [`Builder::build`].
    ///
    /// However many ask at a time, one of them builds and the others wait. They
    /// share what becomes of it, a failure too: a database that is down is not
    /// tried once for each. Whoever asks after that tries again. A pool that was
    /// closed by itself is built anew.
    ///
    /// # Errors
    ///
    /// No pool has this name; what keeps the pool from being built, with its
    /// name; [`Closed`](crate::ErrorKind::Closed).
    ///
    /// # Cancellation
    ///
    /// Dropping the future of the one that builds closes what was opened, and
    /// another of those that wait builds instead.
    pub async fn get(&self, name: &str) -> Result<Pool<Any>> {
        let mut settled = None;
        loop {
            let failure = match self.enter(name)? {
                Entered::Built(pool) => return Ok(pool),
                Entered::Builds(turn) => return turn.build().await,
                Entered::Waits(failure) => failure,
            };
            // Between the first look and the listening it may have settled.
            let Some(listener) = settled.take() else {
                settled = Some(self.settled.listen());
                continue;
            };
            listener.await;
            if let Some(error) = failure.get() {
                return Err(error.clone());
            }
        }
    }

    fn enter<'a>(&'a self, name: &'a str) -> Result<Entered<'a>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(closed());
        }
        let Some(entry) = state.entries.get_mut(name) else {
            return Err(unknown(name, &state.entries));
        };
        let (entered, old) = match &entry.seat {
            Seat::Built(pool) if !pool.is_closed() => (Entered::Built(pool.clone()), None),
            Seat::Building(failure) => (Entered::Waits(Arc::clone(failure)), None),
            Seat::Vacant | Seat::Built(_) => {
                let failure = Failure::default();
                let seat = Seat::Building(Arc::clone(&failure));
                let old = std::mem::replace(&mut entry.seat, seat);
                let make = Arc::clone(&entry.make);
                (Entered::Builds(BuildTurn { registry: self, name, make, failure }), Some(old))
            }
        };
        drop(state);
        // It may be the last handle of a pool.
        drop(old);
        Ok(entered)
    }

    /// Takes a name out, with its pool if that is built. The pool stays open for
    /// as long as it has handles.
    pub fn remove(&self, name: &str) -> Option<Pool<Any>> {
        // The rest of it, the application's own code among that, goes without the lock.
        let entry = self.state.lock().entries.remove(name)?;
        match entry.seat {
            Seat::Built(pool) => Some(pool),
            Seat::Vacant | Seat::Building(_) => None,
        }
    }

    /// Closes the registry and every pool in it, all at a time, as
    /// [`Pool::close`] does. Builds under way are dropped.
    ///
    /// From then on there is nothing to [`get`](Self::get) or to register.
    /// Closing twice is harmless and reports anew.
    ///
    /// # Cancellation
    ///
    /// Everything is closed from the first poll on, whatever becomes of the
    /// future.
    pub async fn close_all(&self) -> RegistryReport {
        let pools = self.end().into_iter();
        let ends = pools.map(|(name, pool)| async move { (name, pool.close().await) });
        RegistryReport::new(join_all(ends).await)
    }

    /// Closes the registry and waits until every connection of every pool has
    /// come back and is closed, or for `limit`, as [`Pool::drain`] does.
    ///
    /// # Cancellation
    ///
    /// As for [`close_all`](Self::close_all).
    pub async fn drain_all(&self, limit: Duration) -> RegistryReport {
        let pools = self.end().into_iter();
        let ends = pools.map(|(name, pool)| async move { (name, pool.drain(limit).await) });
        RegistryReport::new(join_all(ends).await)
    }

    /// Closes the registry, and hands out the pools that are to follow.
    fn end(&self) -> Vec<(String, Pool<Any>)> {
        self.state.lock().is_closed = true;
        let pools = self.built();
        self.closing.notify(usize::MAX);
        pools
    }

    /// The pools there are.
    fn built(&self) -> Vec<(String, Pool<Any>)> {
        let state = self.state.lock();
        let built = state.entries.iter().filter_map(|(name, entry)| match &entry.seat {
            Seat::Built(pool) => Some((name.clone(), pool.clone())),
            Seat::Vacant | Seat::Building(_) => None,
        });
        built.collect()
    }

    /// Whether the registry has been closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }
}

/// Of the pools that are built.
impl Source for PoolRegistry {
    fn metrics(&self) -> Vec<Metric> {
        let pools: Vec<_> = self.built().into_iter().map(|(_, pool)| pool).collect();
        merged(pools.iter().map(Source::metrics))
    }
}

impl Default for PoolRegistry {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows the pools that are built.
impl fmt::Debug for PoolRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pools = Vec::new();
        for (name, entry) in &self.state.lock().entries {
            let pool = match &entry.seat {
                Seat::Built(pool) => Some(pool.clone()),
                Seat::Vacant | Seat::Building(_) => None,
            };
            pools.push((name.clone(), pool));
        }
        f.write_str("PoolRegistry ")?;
        f.debug_map().entries(pools).finish()
    }
}

impl Entry {
    fn new(make: impl Fn() -> Result<Builder<Any>> + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), seat: Seat::Vacant }
    }

    /// A pool on the database of a URL. With a fault noted it cannot be built.
    fn on(name: &str, url: &str, config: PoolConfig, faults: &mut Vec<String>) -> Self {
        let mut in_url = Vec::new();
        let (of_url, url) = url::take(url, &mut in_url);
        // With settings of the URL in doubt nobody knows what they contradict.
        let settings_are_known = in_url.is_empty();
        let driver = Any::from_url(&url).map_err(|error| url::hint(&url, error));
        in_url.extend(driver.as_ref().err().map(Error::to_string));
        let config = config.or(of_url);
        if settings_are_known {
            let contradictions = config.contradictions();
            faults.extend(contradictions.iter().map(|fault| format!("{name}.{fault}")));
        }
        faults.extend(in_url.iter().map(|fault| format!("{name}.url: {fault}")));
        Self::new(move || Ok(Pool::builder(driver.clone()?).config(config.clone())))
    }
}

/// What a caller of [`PoolRegistry::get`] finds.
enum Entered<'a> {
    Built(Pool<Any>),
    Builds(BuildTurn<'a>),
    Waits(Failure),
}

/// The right to build a pool, which nobody else has at the time. Dropped before
/// the pool is built, it goes to the next.
struct BuildTurn<'a> {
    registry: &'a PoolRegistry,
    name: &'a str,
    make: Arc<Make>,
    failure: Failure,
}

impl BuildTurn<'_> {
    /// Whether it builds the pool of this entry, and not of one that had the name
    /// before.
    fn is_for(&self, entry: &Entry) -> bool {
        matches!(&entry.seat, Seat::Building(failure) if Arc::ptr_eq(failure, &self.failure))
    }

    async fn build(self) -> Result<Pool<Any>> {
        let closing = self.registry.closing.listen();
        if self.registry.is_closed() {
            return Err(closed());
        }
        let work = async { (self.make)()?.or_name(self.name).build().await };
        let pool = match select(pin!(work), closing).await {
            Either::Left((Ok(pool), _)) => pool,
            Either::Left((Err(error), _)) => {
                let error = error.within(format_args!("pool {:?}", self.name));
                self.failure.get_or_init(|| error.clone());
                return Err(error);
            }
            Either::Right(_) => return Err(closed()),
        };
        {
            let mut state = self.registry.state.lock();
            if state.is_closed {
                return Err(closed());
            }
            if let Some(entry) = state.entries.get_mut(self.name).filter(|it| self.is_for(it)) {
                entry.seat = Seat::Built(pool.clone());
            }
        }
        Ok(pool)
    }
}

impl Drop for BuildTurn<'_> {
    fn drop(&mut self) {
        let mut state = self.registry.state.lock();
        if let Some(entry) = state.entries.get_mut(self.name).filter(|it| self.is_for(it)) {
            entry.seat = Seat::Vacant;
        }
        drop(state);
        self.registry.settled.notify(usize::MAX);
    }
}

fn closed() -> Error {
    Error::closed().within("pool registry")
}

fn unknown(name: &str, entries: &BTreeMap<String, Entry>) -> Error {
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    let hint = match nearest(name, &names) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None if names.is_empty() => "there is none".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    Error::config(format!("no pool is named {name:?}: {hint}"))
}

/// The error of a registry with these faults; none if there is none.
fn refuse(faults: &[String]) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!("invalid pool registry: {}", faults.join("; "))))
}
