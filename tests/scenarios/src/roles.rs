//! Nodes that turn from what they were while they are in use.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::Route;

use crate::load::{Kind, Load, MYSQL, POSTGRES, Requests, WRITERS, summary};
use crate::pair::Pair;
use crate::site::{NAMES, Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

/// Who was lent a connection just before another was refused sends within this
/// time, also on a busy machine.
const HASTE: Duration = Duration::from_millis(20);

pub(crate) const PRIMARY_RETURNS: Scenario = Scenario {
    name: "F8",
    what: "a standby is promoted, the primary returns as one",
    optional: false,
    run: || Box::pin(primary_returns()),
};

pub(crate) const PRIMARY_READ_ONLY: Scenario = Scenario {
    name: "F8r",
    what: "the primary is read-only for a while",
    optional: false,
    run: || Box::pin(primary_read_only()),
};

pub(crate) const PRIMARY_DEMOTED: Scenario = Scenario {
    name: "F8m",
    what: "MariaDB: the primary is set read-only, the replica promoted",
    optional: false,
    run: || Box::pin(primary_demoted()),
};

/// The old primary is not told that there is a new one before it falls. What it
/// acknowledges until then is lost, whoever wrote it: the servers' loss.
async fn primary_returns() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    let visible = blocking(move || {
        at.servers[1].promote();
        at.servers[1].wait_until_writable();
        Instant::now()
    })
    .await;
    seconds(1.0).await;
    let fall = Instant::now();
    let at = Arc::clone(&trio);
    let back = blocking(move || {
        at.servers[0].follow(&at.servers[1]);
        Instant::now()
    })
    .await;
    seconds(2.0).await;
    let requests = load.end().await;

    let writes = requests.of(Kind::Write).flat_map(|write| &write.sent);
    let beside = writes.filter(|(node, at)| node == "a" && (visible..fall).contains(at));
    report.detect = Some(beside.map(|(_, at)| *at - visible).max().unwrap_or_default());
    report.recover = requests.first_sent("a", back).map(|at| at - back);
    let at = Arc::clone(&trio);
    let rows = blocking(move || at.servers[1].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    let in_vain = written_in_vain(&requests, fault, &rows);
    report.lost -= in_vain;
    report.note(format!("{in_vain} writes lost that the old primary took beside the new one"));
    see(&mut report, &requests);
    see_logs(&mut report, &requests, &trio);
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check_time("writes go to the new one", report.detect, MS * 500);
    report.check_time("the old one is used as a standby", report.recover, MS * 1500);
    report
}

async fn primary_read_only() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::Replica, POSTGRES);
    seconds(2.0).await;

    let set = |value: &'static str| {
        let at = Arc::clone(&trio);
        blocking(move || {
            let primary = &at.servers[0];
            primary.sql(&format!("ALTER SYSTEM SET default_transaction_read_only = {value}"));
            primary.sql("SELECT pg_reload_conf()");
        })
    };
    let fault = Instant::now();
    set("on").await;
    seconds(2.0).await;
    set("off").await;
    let back = Instant::now();
    seconds(2.0).await;
    let requests = load.end().await;

    let writes = requests.of(Kind::Write).flat_map(|write| &write.sent);
    let then = writes.filter(|(_, at)| (fault..back - MS * 500).contains(at));
    report.detect = Some(then.map(|(_, at)| *at - fault).max().unwrap_or_default());
    report.recover = requests.first_success(Kind::Write, back).map(|at| at - back);
    let at = Arc::clone(&trio);
    let rows = blocking(move || at.servers[0].sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    see(&mut report, &requests);
    see_logs(&mut report, &requests, &trio);
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    let waited = requests.of(Kind::Write).any(|write| write.took() > MS * 1500);
    report.check("writes wait for it", waited);
    report.check_time("writes go on", report.recover, MS * 500);
    report
}

async fn primary_demoted() -> Report {
    let mut report = Report::default();
    let pair = Arc::new(blocking(Pair::start).await);
    let cluster = pair.cluster().await;
    let load = Load::start(&cluster, Route::PreferReplica, MYSQL);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&pair);
    let visible = blocking(move || {
        at.demote();
        at.b.catch_up(&at.a);
        at.b.promote();
        at.b.wait_until_writable();
        Instant::now()
    })
    .await;
    seconds(2.0).await;
    let at = Arc::clone(&pair);
    let back = blocking(move || {
        at.a.follow(&at.b);
        Instant::now()
    })
    .await;
    seconds(2.0).await;
    let requests = load.end().await;

    let writes = requests.of(Kind::Write).flat_map(|write| &write.sent);
    let last = writes.filter(|(node, at)| node == "a" && *at >= fault);
    report.detect = Some(last.map(|(_, at)| *at - fault).max().unwrap_or_default());
    report.recover = requests.first_success(Kind::Write, visible).map(|at| at - visible);
    let reads = requests.of(Kind::Read).flat_map(|read| &read.sent);
    let again = reads.filter(|(node, at)| node == "a" && *at >= back).map(|(_, at)| *at - back);
    let again = again.min();
    let at = Arc::clone(&pair);
    let rows = blocking(move || at.b.sql("SELECT n FROM token")).await;
    (report.lost, report.duplicated) = requests.compare(&rows);
    see(&mut report, &requests);
    pair.told_since(fault).into_iter().for_each(|line| report.note(line));
    report.check_time("writes go on", report.recover, MS * 500);
    report.check_time("the old one is used as a replica", again, MS * 1500);
    report
}

/// What callers saw, and what nodes refused.
fn see(report: &mut Report, requests: &Requests) {
    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    (report.errors, report.unknown) = (errors.len(), requests.unknown().len());
    report.note(format!("{} requests; {}", requests.0.len(), summary(&errors)));
    let refused = NAMES.map(|name| (name, refused(requests, name)));
    for (name, (all, late)) in refused.iter().filter(|(_, (all, _))| *all > 0) {
        report.note(format!("{name} refused {all} writes, {late} of them after the first"));
    }
    report.check("no caller sees an error", errors.is_empty());
    report.check("unknown is only what was under way", report.unknown <= WRITERS);
    // So more than one is refused only where several were under way together.
    report.check("none is sent where one was refused", refused.iter().all(|it| it.1.1 == 0));
    report.check("nothing lost", report.lost == 0);
    report.check("nothing twice", report.duplicated == 0);
}

/// The same by what the servers say.
fn see_logs(report: &mut Report, requests: &Requests, trio: &Trio) {
    let refusals = |log: String| log.matches("cannot execute INSERT in a read-only").count();
    let told: Vec<_> = trio.servers.iter().map(|server| refusals(server.log())).collect();
    let seen = NAMES.map(|name| refused(requests, name).0);
    report.check("as many as the logs of the servers tell", told == seen);
}

/// How many writes this node refused, and how many of these were sent when it
/// had refused one.
fn refused(requests: &Requests, node: &str) -> (usize, usize) {
    let mut refusals: Vec<(Instant, Instant)> = Vec::new();
    for write in requests.of(Kind::Write) {
        for (_, at) in write.refused.iter().filter(|(name, _)| name == node) {
            let sent = write.sent.iter().filter(|(name, sent)| name == node && sent <= at);
            refusals.extend(sent.map(|(_, sent)| (*sent, *at)).max());
        }
    }
    let first = refusals.iter().map(|(_, refused)| *refused).min();
    let late = |sent: Instant| first.is_some_and(|first| sent > first + HASTE);
    (refusals.len(), refusals.iter().filter(|(sent, _)| late(*sent)).count())
}

/// How many are missing that `a` acknowledged after this.
fn written_in_vain(requests: &Requests, from: Instant, rows: &[Vec<String>]) -> usize {
    let there: BTreeSet<&str> = rows.iter().map(|row| &*row[0]).collect();
    let missing = requests.of(Kind::Write).filter(|write| {
        let by_a = write.sent.last().is_some_and(|(node, _)| node == "a");
        by_a && write.error.is_none()
            && write.ended >= from
            && !there.contains(&*write.token.to_string())
    });
    missing.count()
}
