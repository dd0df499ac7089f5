//! A fixed load: so many callers that read and write, and what became of each
//! request.
//!
//! Owns the callers and their log. Does not know what happens to the servers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millpond::{Cause, Cluster, Driver, Error, Outcome, Retry, Route, params};
use tokio::task::JoinHandle;

/// How many read, and how many write.
pub(crate) const READERS: usize = 10;
pub(crate) const WRITERS: usize = 6;
/// How long each of them waits between requests.
const PAUSE: Duration = Duration::from_millis(60);

/// What a caller does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
}

/// A request that has ended.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) began: Instant,
    pub(crate) ended: Instant,
    /// The nodes it was sent to, and when.
    pub(crate) sent: Vec<(String, Instant)>,
    /// The nodes that refused it for their role, and when.
    pub(crate) refused: Vec<(String, Instant)>,
    pub(crate) error: Option<Error>,
    /// The number it has written.
    pub(crate) token: i64,
}

impl Request {
    pub(crate) fn took(&self) -> Duration {
        self.ended - self.began
    }
}

/// What reads and writes say to this database.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Words {
    pub(crate) read: &'static str,
    pub(crate) write: &'static str,
}

pub(crate) const POSTGRES: Words =
    Words { read: "SELECT count(*) FROM account", write: "INSERT INTO token VALUES ($1)" };

pub(crate) const MYSQL: Words =
    Words { read: "SELECT count(*) FROM account", write: "INSERT INTO token VALUES (?)" };

/// What both need to be there.
pub(crate) const TABLES: &str = "CREATE TABLE token (n bigint); CREATE TABLE account (n bigint); \
                                 INSERT INTO account VALUES (1), (2), (3)";

/// The load, until it is [ended](Self::end).
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Request>>>,
    callers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Reads by this route, writes on the primary.
    pub(crate) fn start<D: Driver>(cluster: &Cluster<D>, route: Route, words: Words) -> Self {
        Self::of(cluster, route, words, READERS, WRITERS)
    }

    /// So many readers and writers.
    pub(crate) fn of<D: Driver>(
        cluster: &Cluster<D>,
        route: Route,
        words: Words,
        readers: usize,
        writers: usize,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let log = Arc::new(Mutex::new(Vec::new()));
        let tokens = Arc::new(AtomicI64::new(1));
        let policy = Retry::new();
        let callers = (0..readers + writers).map(|number| {
            let kind = if number < readers { Kind::Read } else { Kind::Write };
            let caller = Caller {
                cluster: cluster.clone(),
                policy: policy.clone(),
                route: if kind == Kind::Read { route } else { Route::Primary },
                sql: if kind == Kind::Read { words.read } else { words.write },
                kind,
                over: Arc::clone(&over),
                log: Arc::clone(&log),
                tokens: Arc::clone(&tokens),
            };
            tokio::spawn(async move {
                // Not all at the same time.
                tokio::time::sleep(PAUSE * number as u32 / (readers + writers) as u32).await;
                caller.call().await;
            })
        });
        let callers = callers.collect();
        Self { over, log, callers }
    }

    /// Ends it, when all callers have come to an end: what became of their
    /// requests.
    pub(crate) async fn end(self) -> Requests {
        self.over.store(true, Ordering::Relaxed);
        for caller in self.callers {
            caller.await.expect("callers do not panic");
        }
        Requests(std::mem::take(&mut self.log.lock().expect("no panic")))
    }
}

struct Caller<D: Driver> {
    cluster: Cluster<D>,
    /// With the budget of all callers.
    policy: Retry,
    route: Route,
    sql: &'static str,
    kind: Kind,
    over: Arc<AtomicBool>,
    log: Arc<Mutex<Vec<Request>>>,
    tokens: Arc<AtomicI64>,
}

impl<D: Driver> Caller<D> {
    async fn call(self) {
        while !self.over.load(Ordering::Relaxed) {
            let token = match self.kind {
                Kind::Read => 0,
                Kind::Write => self.tokens.fetch_add(1, Ordering::Relaxed),
            };
            let params = match self.kind {
                Kind::Read => Vec::new(),
                Kind::Write => params![token].to_vec(),
            };
            let (sql, began) = (self.sql, Instant::now());
            let (sent, refused) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
            let done = self.cluster.run(self.route, &self.policy, |conn| {
                let node = conn.pool_name().to_owned();
                sent.lock().expect("no panic").push((node.clone(), Instant::now()));
                Box::pin(async {
                    let done = conn.query(sql, &params).await;
                    if done.as_ref().is_err_and(|error| error.cause() == Cause::WrongRole) {
                        refused.lock().expect("no panic").push((node, Instant::now()));
                    }
                    done
                })
            });
            let error = done.await.err();
            let (kind, ended) = (self.kind, Instant::now());
            let sent = sent.into_inner().expect("no panic");
            let refused = refused.into_inner().expect("no panic");
            let request = Request { kind, began, ended, sent, refused, error, token };
            self.log.lock().expect("no panic").push(request);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What became of all requests.
#[derive(Debug)]
pub(crate) struct Requests(pub(crate) Vec<Request>);

impl Requests {
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Request> {
        self.0.iter().filter(move |request| request.kind == kind)
    }

    /// Those that failed, but for writes of which nobody knows.
    pub(crate) fn errors(&self, kind: Kind) -> Vec<&Error> {
        let failed = self.of(kind).filter_map(|request| request.error.as_ref());
        failed.filter(|error| kind == Kind::Read || error.outcome() != Outcome::Unknown).collect()
    }

    /// Writes of which nobody knows.
    pub(crate) fn unknown(&self) -> Vec<&Request> {
        let is_unknown = |error: &Error| error.outcome() == Outcome::Unknown;
        self.of(Kind::Write).filter(|it| it.error.as_ref().is_some_and(is_unknown)).collect()
    }

    /// The last time that anybody was sent to the node in this span.
    pub(crate) fn last_sent(&self, node: &str, from: Instant, to: Instant) -> Option<Instant> {
        let sent = self.0.iter().flat_map(|request| &request.sent);
        let times = sent.filter(|(name, at)| name == node && *at >= from && *at < to);
        times.map(|(_, at)| *at).max()
    }

    /// The first time after this.
    pub(crate) fn first_sent(&self, node: &str, from: Instant) -> Option<Instant> {
        let sent = self.0.iter().flat_map(|request| &request.sent);
        sent.filter(|(name, at)| name == node && *at >= from).map(|(_, at)| *at).min()
    }

    /// When the first request of this kind succeeded that began after this.
    pub(crate) fn first_success(&self, kind: Kind, from: Instant) -> Option<Instant> {
        let well = self.of(kind).filter(|it| it.error.is_none() && it.ended >= from);
        well.map(|request| request.ended).min()
    }

    /// The time within which so many of a hundred ended, of those that began in
    /// this span.
    pub(crate) fn percentile(
        &self,
        kind: Kind,
        percent: usize,
        from: Instant,
        to: Instant,
    ) -> Duration {
        let span = self.of(kind).filter(|it| it.began >= from && it.began < to);
        let mut times: Vec<_> = span.map(Request::took).collect();
        times.sort_unstable();
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    }

    /// How many acknowledged writes are missing, and how many are there twice.
    pub(crate) fn compare(&self, rows: &[Vec<String>]) -> (usize, usize) {
        let mut there = BTreeMap::<i64, usize>::new();
        for row in rows {
            *there.entry(row[0].parse().expect("a number")).or_default() += 1;
        }
        let acknowledged = self.of(Kind::Write).filter(|request| request.error.is_none());
        let lost = acknowledged.filter(|request| !there.contains_key(&request.token)).count();
        (lost, there.values().filter(|times| **times > 1).count())
    }
}

/// The most common of some errors, and how often, for a note.
pub(crate) fn summary(errors: &[&Error]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for error in errors {
        *counts.entry(error.to_string()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let lines = counts.iter().take(3).map(|(text, count)| format!("{count} x {text}"));
    lines.collect::<Vec<_>>().join(" | ")
}

/// How many errors there are of each kind: for a note, where most of them are
/// long and the same.
pub(crate) fn kinds(errors: &[&Error]) -> String {
    let mut counts = BTreeMap::<String, usize>::new();
    for error in errors {
        *counts.entry(format!("{:?}", error.kind())).or_default() += 1;
    }
    let lines = counts.iter().map(|(kind, count)| format!("{count} x {kind}"));
    lines.collect::<Vec<_>>().join(", ")
}
