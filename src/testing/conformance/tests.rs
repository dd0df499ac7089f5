//! The suite against drivers that break one promise each: it must find that one
//! and no other.
//!
//! Works on the simulator. What a database with tables breaks is not tried here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream;
use millpond_driver::{
    Cancel, Cause, ConnectContext, Credentials, Driver, Error, Fate, NodeStatus, Reset, Result,
    Row, Rows, Session, TransactionOptions, Value,
};
use millpond_fake::{Act, Fake, FakeConnection};

use super::*;
use crate::testing::sim::Sim;

/// What a [`Scripted`] driver gets wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    CleanWhileUnread,
    CleanAfterTheNextCall,
    ResetKeepsSettings,
    ResetKeepsTheTransaction,
    StreamForgets,
    StreamStopsShort,
    CancelDoesNothing,
    BeginDoesNothing,
    RefusalDiscards,
    CloseKeepsTheSession,
    DeniedMayPass,
    CredentialsAreIgnored,
    CredentialsAreKept,
    UnreachableIsPermanent,
    ErrorShowsThePassword,
    DebugShowsThePassword,
    StatusPanics,
}

use Fault::*;

const PASSWORD: &str = "correct horse";

/// A fake that streams rows, and has a fault.
#[derive(Clone)]
struct Scripted {
    fake: Fake,
    fault: Fault,
    /// Denied until the password comes as credentials.
    login: Option<Arc<Login>>,
}

#[derive(Default)]
struct Login {
    was_given: AtomicBool,
}

struct Link {
    fake: FakeConnection,
    /// Rows of a stream that nobody has read.
    rows_left: u32,
    /// A call has ended well since the last one that was dropped.
    looks_fine: bool,
}

impl Scripted {
    fn new(fault: Fault) -> Self {
        let fake = Fake::new();
        // Not at once, or no future could be dropped half-way.
        fake.always_query(Act::After(Duration::from_millis(1)));
        Self { fake, fault, login: None }
    }

    fn log_in(&self, given: Option<&Credentials>) -> Result<()> {
        let Some(login) = &self.login else { return Ok(()) };
        let known = given.is_some_and(|given| given.password.as_deref() == Some(PASSWORD));
        let known = match self.fault {
            CredentialsAreIgnored => false,
            CredentialsAreKept => known | login.was_given.fetch_or(known, Ordering::Relaxed),
            _ => known,
        };
        match (known, self.fault) {
            (true, _) => Ok(()),
            (false, DeniedMayPass) => Err(Error::connect("denied, for now")),
            (false, _) => Err(Error::connect("denied").with_cause(Cause::Auth)),
        }
    }

    fn spoil(&self, error: Error) -> Error {
        match self.fault {
            RefusalDiscards => error.with_fate(Fate::Discard),
            ErrorShowsThePassword => error.with_source(format!("login with {PASSWORD}")),
            _ => error,
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.fault == DebugShowsThePassword { PASSWORD } else { "Scripted" })
    }
}

impl Driver for Scripted {
    type Connection = Link;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<Link> {
        self.log_in(cx.credentials())?;
        let fake = self.fake.connect(cx).await?;
        Ok(Link { fake, rows_left: 0, looks_fine: true })
    }

    async fn ping(&self, conn: &mut Link) -> Result<()> {
        self.fake.ping(&mut conn.fake).await
    }

    async fn query(&self, conn: &mut Link, sql: &str, params: &[Value]) -> Result<Rows> {
        conn.looks_fine = false;
        let rows = self.fake.query(&mut conn.fake, sql, params).await;
        conn.looks_fine = true;
        if std::mem::take(&mut conn.rows_left) > 0 {
            return Ok(Rows::one("n", "a row of the last stream"));
        }
        rows.map_err(|error| self.spoil(error))
    }

    fn query_stream<'a>(
        &'a self,
        conn: &'a mut Link,
        sql: &'a str,
        _params: &'a [Value],
    ) -> impl futures_core::Stream<Item = Result<Row>> + Send + 'a {
        let count = sql.strip_prefix("ROWS ").and_then(|count| count.parse().ok()).unwrap_or(0);
        stream::try_unfold((conn, 0), move |(conn, sent)| async move {
            if sent == 0 {
                conn.looks_fine = false;
                conn.fake.native_query(sql).await?;
                conn.looks_fine = true;
                conn.rows_left = count;
            }
            let short = self.fault == StreamStopsShort && sent == 500;
            if conn.rows_left == 0 || short {
                conn.rows_left = 0;
                return Ok(None);
            }
            conn.rows_left -= 1;
            let row = Rows::one("n", sent + 1).into_first().expect("one row");
            Ok(Some((row, (conn, sent + 1))))
        })
    }

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn session(&self, conn: &Link) -> Session {
        let told = self.fake.session(&conn.fake);
        match self.fault {
            CleanWhileUnread if told == Session::Busy => Session::Clean,
            CleanAfterTheNextCall if told == Session::Busy && conn.looks_fine => Session::Clean,
            _ if conn.rows_left > 0 && self.fault != StreamForgets => Session::Busy,
            _ => told,
        }
    }

    async fn reset(&self, conn: &mut Link, to: Reset) -> Result<()> {
        conn.rows_left = 0;
        match self.fault {
            ResetKeepsSettings => self.fake.reset(&mut conn.fake, Reset::Boundary).await,
            ResetKeepsTheTransaction => Ok(()),
            _ => self.fake.reset(&mut conn.fake, to).await,
        }
    }

    fn cancel(&self, conn: &Link) -> Option<Cancel> {
        match self.fault {
            CancelDoesNothing => Some(Cancel::new(async { Ok(()) })),
            _ => self.fake.cancel(&conn.fake),
        }
    }

    async fn begin(&self, conn: &mut Link, options: &TransactionOptions) -> Result<()> {
        if self.fault == BeginDoesNothing {
            return Ok(());
        }
        conn.looks_fine = false;
        let begun = self.fake.begin(&mut conn.fake, options).await;
        conn.looks_fine = true;
        begun
    }

    async fn status(&self, conn: &mut Link) -> Result<NodeStatus> {
        if self.fault == StatusPanics {
            // As a panic, but for the message.
            std::panic::resume_unwind(Box::new("no status"));
        }
        self.fake.status(&mut conn.fake).await
    }

    async fn close(&self, conn: Link) {
        match self.fault {
            CloseKeepsTheSession => std::mem::forget(conn),
            _ => self.fake.close(conn.fake).await,
        }
    }
}

impl Subject for Scripted {
    type Driver = Self;

    fn driver(&self) -> Self {
        self.clone()
    }

    fn abilities(&self) -> &[Ability] {
        use Ability::*;
        &[Transactions, Session, Cancel, ResetSession]
    }

    fn select(&self, text: &str) -> String {
        text.to_owned()
    }

    fn refused(&self) -> String {
        self.fake.next_queries([Act::reject()]);
        "refused".to_owned()
    }

    fn rows(&self, count: u32) -> Option<String> {
        Some(format!("ROWS {count}"))
    }

    fn slow(&self) -> Option<String> {
        self.fake.next_queries([Act::Hang]);
        Some("slow".to_owned())
    }

    fn change_setting(&self) -> Option<String> {
        Some("SET colour".to_owned())
    }

    fn setting<'a>(&'a self, conn: &'a mut Link) -> Option<BoxFuture<'a, Result<String>>> {
        Some(Box::pin(async { Ok(conn.fake.settings().join(" ")) }))
    }

    fn native<'a>(&'a self, conn: &'a mut Link, sql: &'a str) -> Option<BoxFuture<'a, Result<()>>> {
        conn.looks_fine = false;
        Some(Box::pin(async {
            let done = conn.fake.native_query(sql).await.map(drop);
            conn.looks_fine = true;
            done
        }))
    }

    fn sessions(&self) -> Option<BoxFuture<'_, Result<u64>>> {
        Some(Box::pin(async { Ok(self.fake.counts().live) }))
    }

    fn unreachable(&self) -> Option<Self> {
        let driver = Self::new(self.fault);
        let permanent = self.fault == UnreachableIsPermanent;
        driver.fake.always_connect(if permanent { Act::deny() } else { Act::refuse() });
        Some(driver)
    }

    fn denied(&self) -> Option<Self> {
        Some(Self { login: Some(Arc::default()), ..Self::new(self.fault) })
    }

    fn password(&self) -> Option<&str> {
        Some(PASSWORD)
    }
}

/// A driver of three functions, for whose rest the contract's defaults stand.
#[derive(Debug, Clone)]
struct Plain {
    scripted: Scripted,
    is_used_natively: bool,
}

impl Driver for Plain {
    type Connection = FakeConnection;

    async fn connect(&self, cx: &ConnectContext<'_>) -> Result<FakeConnection> {
        self.scripted.fake.connect(cx).await
    }

    async fn ping(&self, conn: &mut FakeConnection) -> Result<()> {
        self.scripted.fake.ping(conn).await
    }

    async fn query(&self, conn: &mut FakeConnection, sql: &str, params: &[Value]) -> Result<Rows> {
        self.scripted.fake.query(conn, sql, params).await
    }
}

impl Subject for Plain {
    type Driver = Self;

    fn driver(&self) -> Self {
        self.clone()
    }

    fn abilities(&self) -> &[Ability] {
        &[Ability::Transactions]
    }

    fn select(&self, text: &str) -> String {
        text.to_owned()
    }

    fn refused(&self) -> String {
        self.scripted.refused()
    }

    fn rows(&self, _count: u32) -> Option<String> {
        None
    }

    fn native<'a>(
        &'a self,
        conn: &'a mut FakeConnection,
        sql: &'a str,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        let query = Box::pin(async { conn.native_query(sql).await.map(drop) });
        if self.is_used_natively { Some(query) } else { None }
    }
}

fn report<S: Subject>(subject: S) -> Report {
    Sim::new(1).run(async |sim| Suite::new(subject).runtime(sim).run().await)
}

fn failed(report: &Report) -> Vec<&str> {
    report.failed().map(|(claim, _)| claim).collect()
}

#[test]
fn a_driver_without_fault_conforms_alone_and_erased() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        sim.run(async |sim| Suite::new(Scripted::new(Nothing)).runtime(sim).run().await).assert();
    }
    let erased = report(Erased(Scripted::new(Nothing)));
    erased.assert();
    assert!(erased.held().eq(report(Scripted::new(Nothing)).held()));
}

#[test]
fn each_fault_is_found_by_the_claims_it_breaks_and_no_other() {
    let broken: [(Fault, &[&str]); 17] = [
        (
            CleanWhileUnread,
            &[
                "a_begin_dropped_anywhere_leaves_no_transaction_open",
                "a_query_dropped_anywhere_leaves_nothing_to_the_next_borrower",
                "a_statement_still_running_leaves_nothing_to_the_next_borrower",
                "a_stream_dropped_half_way_leaves_nothing_to_the_next_borrower",
                "a_connection_used_natively_after_a_dropped_future_leaves_nothing_behind",
                "a_statement_in_flight_is_never_called_clean",
            ],
        ),
        (
            CleanAfterTheNextCall,
            &["a_connection_used_natively_after_a_dropped_future_leaves_nothing_behind"],
        ),
        (ResetKeepsSettings, &["a_reset_of_the_session_clears_settings"]),
        (
            ResetKeepsTheTransaction,
            &[
                "a_reset_to_the_boundary_ends_a_transaction",
                "a_reset_of_the_session_clears_settings",
            ],
        ),
        (StreamForgets, &["a_stream_dropped_half_way_leaves_nothing_to_the_next_borrower"]),
        (
            StreamStopsShort,
            &[
                "a_stream_yields_all_rows_in_order",
                "a_stream_dropped_half_way_leaves_nothing_to_the_next_borrower",
            ],
        ),
        (CancelDoesNothing, &["a_cancel_stops_a_statement_that_is_awaited"]),
        (
            BeginDoesNothing,
            &[
                "a_statement_refused_in_a_transaction_says_whether_it_can_go_on",
                "the_session_is_told_after_each_call",
            ],
        ),
        (
            RefusalDiscards,
            &[
                "a_refused_statement_leaves_the_connection_usable",
                "a_statement_refused_in_a_transaction_says_whether_it_can_go_on",
                "a_cancel_stops_a_statement_that_is_awaited",
            ],
        ),
        (
            CloseKeepsTheSession,
            &["a_close_ends_the_sessions", "a_close_stops_a_statement_left_running"],
        ),
        (
            DeniedMayPass,
            &[
                "a_login_denied_is_permanent_and_nothing_was_sent",
                "credentials_given_for_one_connect_are_used_and_forgotten",
            ],
        ),
        (CredentialsAreIgnored, &["credentials_given_for_one_connect_are_used_and_forgotten"]),
        (CredentialsAreKept, &["credentials_given_for_one_connect_are_used_and_forgotten"]),
        (UnreachableIsPermanent, &["an_unreachable_database_is_transient_and_nothing_was_sent"]),
        (ErrorShowsThePassword, &["no_text_shows_the_password"]),
        (DebugShowsThePassword, &["no_text_shows_the_password"]),
        (StatusPanics, &["the_status_is_told"]),
    ];
    for (fault, claims) in broken {
        assert_eq!(failed(&report(Scripted::new(fault))), claims, "{fault:?}");
    }
}

#[test]
fn three_functions_make_a_driver_that_conforms() {
    report(Plain { scripted: Scripted::new(Nothing), is_used_natively: false }).assert();
}

/// A `ROLLBACK` that is answered proves nothing to a client that has lost its
/// place: the answer may be another's.
#[test]
fn a_native_client_that_loses_its_place_needs_more_than_the_default_reset() {
    let subject = Plain { scripted: Scripted::new(Nothing), is_used_natively: true };
    assert_eq!(
        failed(&report(subject)),
        ["a_connection_used_natively_after_a_dropped_future_leaves_nothing_behind"]
    );
}

#[test]
fn what_is_not_declared_is_reported_with_its_reason() {
    let report = report(Scripted::new(Nothing));
    let why = |claim| report.excluded().find(|(name, _)| *name == claim).map(|(_, why)| why);
    assert_eq!(
        why("a_read_only_session_refuses_writes"),
        Some("the subject does not declare ReadOnly")
    );
    let told = report.held().count() + report.failed().count() + report.excluded().count();
    assert_eq!(told, claims::<Scripted>().len());
}

#[test]
#[should_panic = "conformance: `the_status_is_told` failed for scripted on sim: a panic: no status"]
fn a_report_that_is_asserted_names_claim_driver_and_runtime() {
    report(Scripted::new(StatusPanics)).assert();
}
