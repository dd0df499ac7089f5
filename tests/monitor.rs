//! What the monitor tells, and that it harms nobody and leaves nothing behind.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millpond::drivers::fake::{Act, Fake};
use millpond::metrics::{Metric, Monitor, MonitorReport, Source, Value, Watch};
use millpond::runtime::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};
use millpond::testing::sim::Sim;
use millpond::{ErrorKind, Pool};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

type Reports = Arc<Mutex<Vec<MonitorReport>>>;

async fn pool(sim: &Sim, fake: &Fake) -> Pool<Fake> {
    let builder = Pool::builder(fake.clone()).name("shop").max_open_conns(2).runtime(sim.clone());
    builder.build().await.unwrap()
}

fn collect(pool: &impl Watch, interval: Duration) -> (Monitor, Reports) {
    let reports = Reports::default();
    let writer = Arc::clone(&reports);
    let sink = move |report: &MonitorReport| writer.lock().unwrap().push(report.clone());
    (Monitor::start(pool, interval, sink).unwrap(), reports)
}

fn take(reports: &Reports) -> Vec<MonitorReport> {
    std::mem::take(&mut reports.lock().unwrap())
}

fn find<'a>(report: &'a MonitorReport, name: &str) -> &'a Metric {
    report.metrics.iter().find(|metric| metric.name == name).expect(name)
}

fn number(report: &MonitorReport, name: &str) -> u64 {
    let Value::Number(number) = find(report, name).points[0].value else { panic!("{name}") };
    number
}

/// Bug 19 of the monitor that this one replaces: running totals without
/// differences, no reasons of closes, and no trace of a peak between two looks.
#[test]
fn sums_are_told_as_differences_and_short_peaks_are_seen() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool(&sim, &fake).await;
        let (_monitor, reports) = collect(&pool, SECOND * 10);
        let waiter = async |held: Duration| {
            let both = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            let caller = sim.task({
                let pool = pool.clone();
                async move { pool.acquire().await.map(drop) }
            });
            sim.sleep(held).await;
            drop(both);
            caller.await.unwrap();
        };
        // A queue for 300 ms, long over when the monitor looks.
        waiter(MS * 300).await;
        pool.acquire().await.unwrap().discard();
        sim.sleep(SECOND * 10).await;
        waiter(MS * 20).await;
        sim.sleep(SECOND * 10).await;
        let reports = take(&reports);
        assert_eq!(reports.len(), 2);
        let waits = |report| {
            let Value::Distribution(waits) =
                &find(report, "db.client.connection.wait_time").points[0].value
            else {
                panic!()
            };
            waits.timings()
        };
        assert_eq!(
            (number(&reports[0], "millpond.acquired"), waits(&reports[0]).max),
            (4, MS * 300)
        );
        assert_eq!(number(&reports[1], "millpond.acquired"), 3);
        let second = waits(&reports[1]);
        assert!(second.max.abs_diff(MS * 20) < MS, "{second}");
        assert_eq!(number(&reports[0], "db.client.connection.pending_requests"), 0);
        let line = reports[0].to_string();
        assert!(line.contains("connection.closed discarded +1"), "{line}");
        assert!(!reports[1].to_string().contains("connection.closed"), "what is zero is left out");
    });
}

#[test]
fn a_report_is_one_line_that_begins_with_the_pool() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let builder = Pool::builder(fake).name("a\nb").max_open_conns(2).runtime(sim.clone());
        let pool = builder.build().await.unwrap();
        let (_monitor, reports) = collect(&pool, SECOND);
        pool.query("mine", &[]).await.unwrap();
        sim.sleep(SECOND).await;
        sim.sleep(MS).await;
        let line = take(&reports)[0].to_string();
        assert!(
            line.starts_with("a\\nb in 1.0s: connection.idle.max 2; connection.count idle 1; "),
            "{line}"
        );
        assert!(
            line.contains("; acquired +1; released +1; ") && line.lines().count() == 1,
            "{line}"
        );
    });
}

/// Bug 4: a ticker of zero panicked.
#[test]
fn an_interval_of_nothing_is_an_error_that_names_field_value_and_rule() {
    Sim::new(1).run(async |sim| {
        let pool = pool(&sim, &Fake::new()).await;
        for (interval, told) in
            [(Duration::ZERO, "interval = 0ns"), (Duration::MAX, "interval = 1844")]
        {
            let error = Monitor::start(&pool, interval, |_| {}).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = error.to_string();
            assert!(text.contains(told) && text.contains("must be from 1ms to"), "{text}");
        }
    });
}

/// Bug 3: a second stop panicked, and none waited for the task.
#[test]
fn stopping_twice_is_harmless_and_leaves_nothing_running() {
    Sim::new(1).run(async |sim| {
        let pool = pool(&sim, &Fake::new()).await;
        let (monitor, reports) = collect(&pool, SECOND);
        sim.sleep(SECOND * 3 + MS).await;
        assert_eq!((take(&reports).len(), monitor.is_running()), (3, true));
        monitor.stop();
        monitor.stop();
        sim.sleep(MS).await;
        assert!(!monitor.is_running());
        let polls = sim.polls();
        pool.close().await;
        let after_close = sim.polls();
        sim.sleep(SECOND * 10).await;
        assert!(take(&reports).is_empty());
        assert!(sim.polls() - after_close <= 2 && after_close > polls, "only this test is polled");
        monitor.stop();
    });
}

#[test]
fn a_monitor_that_is_dropped_ends() {
    Sim::new(1).run(async |sim| {
        let pool = pool(&sim, &Fake::new()).await;
        let (monitor, reports) = collect(&pool, SECOND);
        drop(monitor);
        sim.sleep(SECOND * 3).await;
        assert!(take(&reports).is_empty());
        assert_eq!(Arc::strong_count(&reports), 1, "the sink is gone with the task");
    });
}

#[test]
fn a_monitor_neither_keeps_a_pool_open_nor_outlives_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool(&sim, &fake).await;
        let weak = pool.downgrade();
        let (monitor, _reports) = collect(&pool, SECOND);
        drop(pool);
        sim.sleep(MS).await;
        assert_eq!(fake.counts().live, 0);
        assert!(weak.metrics().is_empty() && monitor.is_running());
        sim.sleep(SECOND).await;
        assert!(!monitor.is_running());
    });
}

#[test]
fn a_monitor_whose_runtime_has_ended_says_so() {
    Sim::new(1).run(async |sim| {
        let pool = pool(&sim, &Fake::new()).await;
        let (monitor, _reports) = collect(&pool, SECOND);
        sim.end_executor();
        assert!(!monitor.is_running());
        drop(pool.acquire().await.unwrap());
    });
}

#[test]
fn a_sink_that_panics_harms_nobody_and_is_called_again() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool(&sim, &fake).await;
        let calls = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&calls);
        let monitor = Monitor::start(&pool, SECOND, move |_| {
            *counter.lock().unwrap() += 1;
            resume_unwind(Box::new("the sink"));
        });
        sim.sleep(SECOND * 3 + MS).await;
        assert_eq!(*calls.lock().unwrap(), 3);
        pool.query("mine", &[]).await.unwrap();
        assert!(monitor.unwrap().is_running());
    });
}

type Jobs = Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>;

/// The simulator, with threads that the test alone lets go on: a job that is
/// not run is a sink that blocks.
#[derive(Debug, Clone)]
struct Blocked(Sim, Held);

#[derive(Clone, Default)]
struct Held(Jobs);

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held")
    }
}

impl Runtime for Blocked {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(deadline)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.1.0.lock().unwrap().push(job);
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, std::io::Result<Vec<std::net::SocketAddr>>> {
        self.0.resolve(host, port)
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        options: &'a SocketOptions,
    ) -> BoxFuture<'a, std::io::Result<Box<dyn ByteStream>>> {
        self.0.connect(target, options)
    }

    fn random(&self) -> u64 {
        self.0.random()
    }
}

#[test]
fn a_sink_that_blocks_is_not_called_twice_at_once_and_misses_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_query(Act::Answer);
        let jobs = Jobs::default();
        let runtime = Blocked(sim.clone(), Held(Arc::clone(&jobs)));
        let pool = Pool::builder(fake).runtime(runtime).build().await.unwrap();
        let (monitor, reports) = collect(&pool, SECOND);
        for _ in 0..4 {
            pool.query("mine", &[]).await.unwrap();
            sim.sleep(SECOND).await;
        }
        sim.sleep(MS).await;
        assert_eq!((jobs.lock().unwrap().len(), monitor.missed()), (1, 3));
        let run = || jobs.lock().unwrap().pop().unwrap()();
        run();
        sim.sleep(SECOND).await;
        run();
        sim.sleep(SECOND).await;
        // A runtime without threads drops the job it was given; that is no end.
        jobs.lock().unwrap().clear();
        sim.sleep(SECOND).await;
        run();
        let told = take(&reports);
        let acquired: Vec<_> = told
            .iter()
            .map(|report| (number(report, "millpond.acquired"), report.missed))
            .collect();
        assert_eq!(acquired, [(1, 0), (3, 3), (0, 0)], "what was left out is told later");
    });
}
