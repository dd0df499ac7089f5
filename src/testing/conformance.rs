//! What every driver must do, as one suite for any driver.
//!
//! Owns the claims and how they are reported: all of them run, all failures are
//! listed, and what a database cannot do is listed as excluded. Knows no
//! database: a [`Subject`] gives the driver and the few statements that differ.
//!
//! The claims are tried over a real [`Pool`](crate::Pool), because what counts
//! is what the next borrower gets. A driver's own crate runs them in one line
//! for each runtime:
//!
//! ```
//! use millpond::drivers::fake::{Act, Fake};
//! use millpond::testing::conformance::{Ability, Subject, Suite};
//! use millpond::testing::sim::Sim;
//!
//! struct Scripted(Fake);
//!
//! impl Subject for Scripted {
//!     type Driver = Fake;
//!
//!     fn driver(&self) -> Fake {
//!         self.0.clone()
//!     }
//!     fn abilities(&self) -> &[Ability] {
//!         &[Ability::Transactions, Ability::Session]
//!     }
//!     /// The fake repeats statements.
//!     fn select(&self, text: &str) -> String {
//!         text.to_owned()
//!     }
//!     fn refused(&self) -> String {
//!         self.0.next_queries([Act::reject()]);
//!         "refused".to_owned()
//!     }
//!     fn rows(&self, _count: u32) -> Option<String> {
//!         None
//!     }
//! }
//!
//! let suite = Suite::new(Scripted(Fake::new()));
//! let report = Sim::new(1).run(async |sim| suite.runtime(sim).run().await);
//! report.assert();
//! assert!(report.excluded().any(|(claim, _)| claim == "a_batch_runs_all_its_statements"));
//! ```

mod dropped;
mod lab;
mod sessions;
mod statements;
mod subject;
mod transactions;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use event_listener::Event;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use millpond_driver::{BoxFuture, Runtime};

pub use subject::{Ability, Erased, Subject};

use crate::Builder;
use lab::{Lab, Stop, Verdict};

/// How long one claim may take. Only one that fails by hanging takes this long.
const CLAIM_LIMIT: Duration = Duration::from_secs(60);

/// All claims about one driver on one runtime.
#[must_use = "a suite does nothing until run"]
pub struct Suite<S: Subject> {
    subject: S,
    runtime: Option<Arc<dyn Runtime>>,
    equip: Equip<S::Driver>,
}

/// Gives a pool the runtime of the suite.
type Equip<D> = Box<dyn Fn(Builder<D>) -> Builder<D> + Send + Sync>;

impl<S: Subject> Suite<S> {
    /// The claims about `subject`.
    pub fn new(subject: S) -> Self {
        Self { subject, runtime: None, equip: Box::new(|builder| builder) }
    }

    /// The runtime to work on. Default: the one a pool takes by itself.
    pub fn runtime(mut self, runtime: impl Runtime + Clone) -> Self {
        self.runtime = Some(Arc::new(runtime.clone()));
        self.equip = Box::new(move |builder| builder.runtime(runtime.clone()));
        self
    }

    /// Runs all claims, one after another, each as a task of the runtime.
    ///
    /// # Panics
    ///
    /// If no runtime is given and none is current.
    ///
    /// # Cancellation
    ///
    /// The claim that runs goes on; no other begins.
    pub async fn run(self) -> Report {
        let runtime = self.runtime.or_else(crate::runtime::current);
        let runtime = runtime.expect("the suite runs inside a runtime, or is given one");
        let title = format!("{} on {}", self.subject.name(), name_of(&*runtime));
        let lab = Arc::new(Lab::new(self.subject, Arc::clone(&runtime), self.equip));
        let mut results = Vec::new();
        for claim in claims::<S>() {
            let verdict = judge(&runtime, (claim.check)(Arc::clone(&lab))).await;
            results.push((claim.name, verdict));
        }
        Report { title, results }
    }
}

impl<S: Subject> fmt::Debug for Suite<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").field("subject", &self.subject.name()).finish_non_exhaustive()
    }
}

/// What has become of each claim.
#[derive(Debug, Clone)]
#[must_use = "a report is to be asserted"]
pub struct Report {
    /// Driver and runtime.
    title: String,
    results: Vec<(String, Verdict)>,
}

impl Report {
    /// The claims that hold.
    pub fn held(&self) -> impl Iterator<Item = &str> {
        self.results.iter().filter(|(_, verdict)| verdict.is_ok()).map(|(claim, _)| &**claim)
    }

    /// The claims that were tried and do not hold, with what was seen.
    pub fn failed(&self) -> impl Iterator<Item = (&str, &str)> {
        self.results.iter().filter_map(|(claim, verdict)| match verdict {
            Err(Stop::Failed(what)) => Some((&**claim, &**what)),
            _ => None,
        })
    }

    /// The claims that say nothing about this driver, with the reason.
    pub fn excluded(&self) -> impl Iterator<Item = (&str, &str)> {
        self.results.iter().filter_map(|(claim, verdict)| match verdict {
            Err(Stop::Excluded(why)) => Some((&**claim, &**why)),
            _ => None,
        })
    }

    /// Prints the report, for whoever wants to see what was excluded.
    ///
    /// # Panics
    ///
    /// If a claim failed. The message lists all that did.
    #[track_caller]
    pub fn assert(&self) {
        println!("{self}");
        let failures: Vec<_> = self
            .failed()
            .map(|(claim, what)| {
                format!("conformance: `{claim}` failed for {}: {what}", self.title)
            })
            .collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}

impl fmt::Display for Report {
    /// The count of claims that hold, then a line for each other one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conformance of {}: {} claims hold", self.title, self.held().count())?;
        for (claim, what) in self.failed() {
            write!(f, "\n  failed    `{claim}`: {what}")?;
        }
        for (claim, why) in self.excluded() {
            write!(f, "\n  excluded  `{claim}`: {why}")?;
        }
        Ok(())
    }
}

/// One claim and its check.
struct Claim<S: Subject> {
    name: String,
    check: Check<S>,
}

type Check<S> = Box<dyn Fn(Arc<Lab<S>>) -> BoxFuture<'static, Verdict> + Send + Sync>;

/// Claims named as the functions that check them.
macro_rules! claims {
    ($($module:ident: $($name:ident),+;)+) => {
        vec![$($(Claim {
            name: stringify!($name).to_owned(),
            check: Box::new(|lab| Box::pin(async move { $module::$name(&lab).await })),
        }),+),+]
    };
}

fn claims<S: Subject>() -> Vec<Claim<S>> {
    let mut claims: Vec<Claim<S>> = claims! {
        statements:
            a_connection_answers_and_says_who_it_is,
            every_statement_gets_its_own_answer,
            an_empty_answer_has_columns,
            a_change_tells_how_many_rows_it_affected,
            an_insert_tells_the_generated_id,
            a_refused_statement_leaves_the_connection_usable,
            a_batch_runs_all_its_statements,
            a_stream_yields_all_rows_in_order;
        transactions:
            a_commit_is_seen_by_others_and_a_rollback_is_not,
            a_transaction_left_open_is_undone_before_the_next_borrower,
            a_statement_refused_in_a_transaction_says_whether_it_can_go_on,
            a_begin_dropped_anywhere_leaves_no_transaction_open,
            a_commit_dropped_anywhere_is_all_or_nothing;
        dropped:
            a_query_dropped_anywhere_leaves_nothing_to_the_next_borrower,
            a_statement_still_running_leaves_nothing_to_the_next_borrower,
            a_stream_dropped_half_way_leaves_nothing_to_the_next_borrower,
            a_connection_used_natively_after_a_dropped_future_leaves_nothing_behind,
            a_guard_dropped_in_a_panic_leaves_nothing_behind,
            a_guard_dropped_outside_the_runtime_leaves_nothing_behind,
            a_cancel_stops_a_statement_that_is_awaited;
        sessions:
            the_session_is_told_after_each_call,
            a_statement_in_flight_is_never_called_clean,
            a_reset_to_the_boundary_ends_a_transaction,
            a_reset_of_the_session_clears_settings,
            a_read_only_session_refuses_writes,
            the_status_is_told,
            a_close_ends_the_sessions,
            a_close_stops_a_statement_left_running,
            an_unreachable_database_is_transient_and_nothing_was_sent,
            a_login_denied_is_permanent_and_nothing_was_sent,
            credentials_given_for_one_connect_are_used_and_forgotten,
            no_text_shows_the_password;
    };
    claims.extend(statements::KINDS.iter().map(|&kind| Claim {
        name: format!("values_of_kind_{kind}_come_back_as_they_went"),
        check: Box::new(move |lab: Arc<Lab<S>>| {
            Box::pin(async move { statements::values_come_back(&lab, kind).await })
        }),
    }));
    claims
}

/// Runs a check as a task. A panic, a task that the runtime drops, and one that
/// does not end are failures.
async fn judge(runtime: &Arc<dyn Runtime>, check: BoxFuture<'static, Verdict>) -> Verdict {
    let outcome = Arc::new(Outcome::default());
    let reporter = Reporter(Arc::clone(&outcome));
    runtime.spawn(Box::pin(async move {
        let verdict = AssertUnwindSafe(check).catch_unwind().await;
        reporter.0.set(verdict.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(Stop::failed(format_args!("a panic: {}", text.unwrap_or("without a message"))))
        }));
    }));
    let limit = runtime.sleep_until(runtime.now() + CLAIM_LIMIT);
    match select(Box::pin(outcome.wait()), limit).await {
        Either::Left((verdict, _)) => verdict,
        Either::Right(_) => Err(Stop::failed(format_args!("no end within {CLAIM_LIMIT:?}"))),
    }
}

/// Where a task leaves its verdict.
#[derive(Default)]
struct Outcome {
    verdict: Mutex<Option<Verdict>>,
    told: Event,
}

impl Outcome {
    fn set(&self, verdict: Verdict) {
        self.lock().get_or_insert(verdict);
        self.told.notify(usize::MAX);
    }

    async fn wait(&self) -> Verdict {
        loop {
            let told = self.told.listen();
            if let Some(verdict) = self.lock().clone() {
                return verdict;
            }
            told.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Verdict>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of a task that is dropped before it has a verdict.
struct Reporter(Arc<Outcome>);

impl Drop for Reporter {
    fn drop(&mut self) {
        self.0.set(Err(Stop::failed("the runtime dropped the task")));
    }
}

/// The first word of what a runtime prints, as its feature is written:
/// `async-std`.
fn name_of(runtime: &dyn Runtime) -> String {
    let mut name = String::new();
    for c in format!("{runtime:?}").chars().take_while(|c| c.is_alphanumeric()) {
        if c.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(c.to_lowercase());
    }
    name
}

#[cfg(all(test, feature = "fake"))]
mod tests;
