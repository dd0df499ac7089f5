//! A primary that is left alone, by all its replicas.

use std::sync::Arc;
use std::time::{Duration, Instant};

use millpond::{Error, ErrorKind, Route};

use crate::load::{Kind, Load, POSTGRES, READERS, Request, summary};
use crate::site::{NAMES, Trio, blocking, seconds};
use crate::table::{Report, Scenario};

const MS: Duration = Duration::from_millis(1);

pub(crate) const REPLICAS_STOPPED: Scenario = Scenario {
    name: "F11",
    what: "all replicas are stopped",
    optional: false,
    run: || Box::pin(left_alone()),
};

async fn left_alone() -> Report {
    let mut report = Report::default();
    let trio = Arc::new(blocking(Trio::start).await);
    let cluster = trio.cluster().await;
    let load = Load::start(&cluster, Route::PreferReplica, POSTGRES);
    let strict = Load::of(&cluster, Route::Replica, POSTGRES, READERS, 0);
    seconds(2.0).await;

    let fault = Instant::now();
    let at = Arc::clone(&trio);
    let gone = blocking(move || {
        std::thread::scope(|scope| {
            at.servers[1..].iter().for_each(|server| drop(scope.spawn(|| server.stop())));
        });
        Instant::now()
    })
    .await;
    seconds(2.0).await;
    let at = Arc::clone(&trio);
    let end = Instant::now();
    blocking(move || at.servers[1..].iter().for_each(millpond_harness::Server::start_again)).await;
    let back = Instant::now();
    seconds(2.0).await;
    let (requests, strict) = (load.end().await, strict.end().await);

    let errors = [requests.errors(Kind::Read), requests.errors(Kind::Write)].concat();
    report.errors = errors.len();
    report.unknown = requests.unknown().len();
    let refused: Vec<&Request> = strict.0.iter().filter(|it| it.error.is_some()).collect();
    let causes: Vec<&Error> = refused.iter().filter_map(|it| it.error.as_ref()).collect();
    let during = |it: &&Request| (fault..end).contains(&it.began);
    let slowest = requests.of(Kind::Read).filter(during).map(Request::took).max();
    // While they go, somebody has to find that out.
    let slowest_of_all = refused.iter().map(|it| it.took()).max();
    let then = refused.iter().filter(|it| (gone..end).contains(&it.began));
    let slowest_refusal = then.map(|it| it.took()).max();
    report.recover = strict.first_success(Kind::Read, back).map(|at| at - back);
    report.note(format!(
        "{} requests that would rather read on replicas, the slowest read took {:.1?}; {}",
        requests.0.len(),
        slowest.unwrap_or_default(),
        summary(&errors)
    ));
    report.note(format!(
        "{} of {} that would read nowhere else fail, the slowest after {:.1?}, once they are gone \
         {:.1?}; {}",
        refused.len(),
        strict.0.len(),
        slowest_of_all.unwrap_or_default(),
        slowest_refusal.unwrap_or_default(),
        summary(&causes[..causes.len().min(1)])
    ));
    trio.told_since(fault).into_iter().for_each(|line| report.note(line));
    let served = strict.0.iter().filter(|it| it.began >= gone && it.began < end);
    let served = served.filter(|it| it.error.is_none()).count();
    let names = |error: &&&Error| {
        error.kind() == ErrorKind::NoNode && error.nodes().iter().map(|(name, _)| &**name).eq(NAMES)
    };
    report.check("no error where the primary will do", errors.is_empty());
    report.check("nothing unknown", report.unknown == 0);
    report.check("an error where it will not", served == 0 && !causes.is_empty());
    report.check("with a cause for each node", causes.iter().filter(names).count() == causes.len());
    let patient = slowest_of_all.is_some_and(|took| took > MS * 1000);
    report.check("nobody waits for a replica", !patient);
    report.check_time("a read goes on", slowest, MS * 100);
    report.check_time("an error comes", slowest_refusal, MS * 50);
    report.check_time("recover", report.recover, MS * 1500);
    report
}
