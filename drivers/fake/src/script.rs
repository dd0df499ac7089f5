//! What the fake server does when, and what it has seen.
//!
//! Owns the script a test writes and the counts it reads. Knows nothing of
//! statements or sessions.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use futures_util::future::pending;
use millpond_driver::{Cause, Credentials, Error, Result, Runtime};

use crate::node::Node;

/// What the server does with one request.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Act {
    /// Answers at once.
    #[default]
    Answer,
    /// Answers after so long.
    After(Duration),
    /// Answers with this error.
    Fail(Error),
    /// Answers with this error after so long.
    FailAfter(Duration, Error),
    /// Never answers, as a half-open connection.
    Hang,
    /// Panics in the driver.
    Panic,
    /// Answers once the gate is open.
    Wait(Gate),
}

impl Act {
    /// Refuses a connect as a server does that is not there.
    pub fn refuse() -> Self {
        Self::Fail(Error::connect("connection refused"))
    }

    /// Refuses a connect as a server does that knows the user not.
    pub fn deny() -> Self {
        Self::Fail(Error::connect("password authentication failed").with_cause(Cause::Auth))
    }

    /// Cuts the connection under a request.
    pub fn cut() -> Self {
        Self::Fail(Error::lost("connection reset by peer"))
    }

    /// Refuses a statement; the connection is as good as before.
    pub fn reject() -> Self {
        Self::Fail(Error::statement("no such table"))
    }

    pub(crate) async fn perform(self, runtime: &dyn Runtime) -> Result<()> {
        let sleep = |time| runtime.sleep_until(runtime.now() + time);
        match self {
            Self::Answer => Ok(()),
            Self::After(time) => {
                sleep(time).await;
                Ok(())
            }
            Self::Fail(error) => Err(error),
            Self::FailAfter(time, error) => {
                sleep(time).await;
                Err(error)
            }
            Self::Hang => pending().await,
            Self::Panic => panic!("the fake driver was told to panic"),
            Self::Wait(gate) => {
                gate.passed().await;
                Ok(())
            }
        }
    }
}

/// Holds requests back until it is opened, for good. Clones share one gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Mutex<GateState>>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone through.
    pub fn open(&self) {
        let waiting = {
            let mut state = lock(&self.0);
            state.open = true;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    async fn passed(&self) {
        poll_fn(|cx| {
            let mut state = lock(&self.0);
            if state.open {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Random trouble: the share of requests, from 0 to 1, that meet each kind.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// Requests take up to this long.
    pub latency: Duration,
    /// Requests fail: connects are refused, statements rejected.
    pub fail: f64,
    /// Requests lose the connection.
    pub cut: f64,
    /// Requests are never answered.
    pub hang: f64,
    /// Requests panic in the driver.
    pub panic: f64,
}

impl Faults {
    /// No trouble, and answers at once.
    pub fn none() -> Self {
        Self::default()
    }

    /// Answers within `latency`, and each kind of trouble for one request in
    /// `one_in`.
    pub fn each(latency: Duration, one_in: u32) -> Self {
        let share = 1.0 / f64::from(one_in);
        Self { latency, fail: share, cut: share, hang: share, panic: share }
    }

    fn draw(&self, operation: Operation, runtime: &dyn Runtime) -> Act {
        let unit = |random: u64| (random >> 11) as f64 / (1_u64 << 53) as f64;
        let time = self.latency.mul_f64(unit(runtime.random()));
        let mut dice = unit(runtime.random());
        let fail = match operation {
            Operation::Connect => Error::connect("connection refused"),
            Operation::Query => Error::statement("no such table"),
            _ => Error::lost("cut"),
        };
        let kinds = [
            (self.fail, Act::FailAfter(time, fail)),
            (self.cut, Act::FailAfter(time, Error::lost("connection reset by peer"))),
            (self.hang, Act::Hang),
            (self.panic, Act::Panic),
        ];
        for (share, act) in kinds {
            if dice < share {
                return act;
            }
            dice -= share;
        }
        if time.is_zero() { Act::Answer } else { Act::After(time) }
    }
}

/// What has happened on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Connects asked for, refused ones included.
    pub connects: u64,
    /// Connections opened.
    pub opened: u64,
    /// Connections that are open.
    pub live: u64,
    /// The most that were ever open at a time.
    pub peak_live: u64,
    /// Connections that said goodbye.
    pub goodbyes: u64,
    /// Pings, and those that stood in for a status whose answer was not
    /// scripted.
    pub pings: u64,
    /// Questions for the status.
    pub statuses: u64,
    /// Questions for the position.
    pub positions: u64,
    /// Questions whether a position has been reached.
    pub reaches: u64,
    /// Statements.
    pub queries: u64,
    /// Resets.
    pub resets: u64,
    /// Cancel requests.
    pub cancels: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Connect,
    Ping,
    Status,
    Query,
    Position,
    Reached,
    Reset,
    Close,
}

const OPERATIONS: usize = Operation::Close as usize + 1;

/// The server behind a [`Fake`](crate::Fake).
#[derive(Debug, Default)]
pub(crate) struct Server {
    script: Mutex<Script>,
    pub(crate) node: Arc<Node>,
    hides_state: AtomicBool,
    restarts: AtomicU64,
    requests: [AtomicU64; OPERATIONS],
    opened: AtomicU64,
    live: AtomicU64,
    peak_live: AtomicU64,
    goodbyes: AtomicU64,
    cancels: AtomicU64,
}

#[derive(Debug, Default)]
struct Script {
    plans: [Plan; OPERATIONS],
    faults: Option<Faults>,
    statements: Vec<String>,
    logins: Vec<Option<Credentials>>,
}

#[derive(Debug, Default)]
struct Plan {
    next: VecDeque<Act>,
    always: Option<Act>,
}

impl Server {
    pub(crate) fn next(&self, operation: Operation, acts: impl IntoIterator<Item = Act>) {
        lock(&self.script).plans[operation as usize].next.extend(acts);
    }

    pub(crate) fn always(&self, operation: Operation, act: Act) {
        lock(&self.script).plans[operation as usize].always = Some(act);
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        lock(&self.script).faults = Some(faults);
    }

    /// Counts a request and says what is to be done with it. A status for which
    /// nothing was scripted is a ping.
    pub(crate) fn act(&self, operation: Operation, runtime: &dyn Runtime) -> Act {
        self.requests[operation as usize].fetch_add(1, Ordering::Relaxed);
        let mut script = lock(&self.script);
        let faults = script.faults;
        let plan = &mut script.plans[operation as usize];
        match (plan.next.pop_front(), faults, &plan.always) {
            (Some(act), ..) => act,
            (None, _, None) if operation == Operation::Status => {
                drop(script);
                self.act(Operation::Ping, runtime)
            }
            (None, Some(faults), _) => faults.draw(operation, runtime),
            (None, None, always) => always.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn received(&self, statement: &str) {
        lock(&self.script).statements.push(statement.to_owned());
    }

    pub(crate) fn statements(&self) -> Vec<String> {
        lock(&self.script).statements.clone()
    }

    pub(crate) fn asked_by(&self, credentials: Option<&Credentials>) {
        lock(&self.script).logins.push(credentials.cloned());
    }

    pub(crate) fn logins(&self) -> Vec<Option<Credentials>> {
        lock(&self.script).logins.clone()
    }

    pub(crate) fn hide_state(&self) {
        self.hides_state.store(true, Ordering::Relaxed);
    }

    pub(crate) fn hides_state(&self) -> bool {
        self.hides_state.load(Ordering::Relaxed)
    }

    pub(crate) fn restart(&self) {
        self.restarts.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::SeqCst)
    }

    /// A connection has been accepted: its number, and the restarts before it.
    pub(crate) fn arrived(&self) -> (u64, u64) {
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak_live.fetch_max(live, Ordering::SeqCst);
        (self.opened.fetch_add(1, Ordering::SeqCst) + 1, self.restarts())
    }

    pub(crate) fn left(&self) {
        self.live.fetch_sub(1, Ordering::SeqCst);
    }

    pub(crate) fn parted(&self) {
        self.goodbyes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn cancelled(&self) {
        self.cancels.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn counts(&self) -> Counts {
        let requests =
            |operation: Operation| self.requests[operation as usize].load(Ordering::Relaxed);
        Counts {
            connects: requests(Operation::Connect),
            opened: self.opened.load(Ordering::SeqCst),
            live: self.live.load(Ordering::SeqCst),
            peak_live: self.peak_live.load(Ordering::SeqCst),
            goodbyes: self.goodbyes.load(Ordering::SeqCst),
            pings: requests(Operation::Ping),
            statuses: requests(Operation::Status),
            positions: requests(Operation::Position),
            reaches: requests(Operation::Reached),
            queries: requests(Operation::Query),
            resets: requests(Operation::Reset),
            cancels: self.cancels.load(Ordering::SeqCst),
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
