//! How a database is, asked in the background: what is found out, how soon, and
//! that it costs nobody anything. (What the pool does with its own idle
//! connections is in `health.rs`.)

#[path = "support/node.rs"]
mod node;

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use millpond::drivers::fake::{Act, Fake, Faults, Gate};
use millpond::health::{HealthChecker, HealthConfig, HealthStatus, Reason, State};
use millpond::runtime::{BoxFuture, ByteStream, Runtime, SocketOptions, Target};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{Builder, Cause, Credentials, Driver, Error, ErrorKind, Phase, Pool, Purpose, Role};

use node::Node;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

fn start<D: Driver>(pool: &Pool<D>) -> HealthChecker {
    HealthChecker::start(pool, HealthConfig::new()).unwrap()
}

/// A checker that has found its database up.
async fn up<D: Driver>(pool: &Pool<D>, config: HealthConfig) -> HealthChecker {
    let health = HealthChecker::start(pool, config).unwrap();
    reaches(&health, State::Up).await;
    health
}

/// The status with which a state is reached.
async fn reaches(health: &HealthChecker, state: State) -> HealthStatus {
    let mut status = health.status();
    while status.state != state {
        assert!(status.is_running, "{status}");
        status = health.changed(&status).await;
    }
    status
}

/// The server is gone: its connections are dead, and it takes no others.
fn take_down(fake: &Fake) {
    fake.restart().always_connect(Act::refuse());
}

fn bring_back(fake: &Fake) {
    fake.always_connect(Act::Answer).always_ping(Act::Answer);
}

// What the first design of this got wrong.

/// One that nobody ran, that only counted, and forgot all at the first success.
#[test]
fn it_runs_by_itself_and_its_count_is_a_decision() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        assert!(health.is_ready());
        take_down(&fake);
        let down = sim.elapsed();
        let status = reaches(&health, State::Ejected).await;
        assert!(sim.elapsed() - down <= SECOND * 6 + MS, "by the next check");
        assert_eq!(status.reason, Some(Reason::Refused));
        assert!(!health.is_ready() && health.is_alive());
        bring_back(&fake);
        reaches(&health, State::Up).await;
        assert!(health.is_ready());
    });
}

#[test]
fn one_success_clears_nothing_where_more_are_asked_for() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new().healthy_after(3)).await;
        take_down(&fake);
        reaches(&health, State::Ejected).await;
        bring_back(&fake);
        // The second cut is that of the connection opened in place of the first.
        let slow = Act::After(MS);
        fake.next_pings([slow.clone(), slow.clone(), Act::cut(), Act::cut()]).always_ping(slow);
        let before = reaches(&health, State::Probing).await.checks;
        let status = reaches(&health, State::Up).await;
        assert_eq!(status.checks - before, 6, "two good, a bad one, three good");
        assert_eq!(status.failures, 3);
    });
}

/// One that asked through the pool: all in use looked like a dead database, and
/// the check took a slot from users.
#[test]
fn an_exhausted_pool_is_up_and_no_slot_is_taken_from_it() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let _held = join_all([pool.acquire(), pool.acquire()]).await;
        let waiter = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().timeout(SECOND * 60).await }
        });
        let health = up(&pool, HealthConfig::new()).await;
        sim.sleep(SECOND * 70).await;
        let status = health.status();
        assert_eq!((status.state, status.failures), (State::Up, 0));
        assert!(status.checks >= 11, "{status}");
        assert_eq!(waiter.await.unwrap_err().kind(), ErrorKind::Timeout(Phase::Waiting));
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.open, snapshot.in_use), (2, 2));
        assert_eq!((fake.counts().live, fake.counts().opened), (3, 3), "one aside, kept open");
    });
}

/// One that knew neither role nor lag, so that a server that takes no writes
/// was as good as any.
#[test]
fn a_change_of_role_is_noticed_and_told() {
    Sim::new(1).run(async |sim| {
        let node = Node::new(&sim);
        let pool = Pool::builder(node.clone()).runtime(sim.clone()).build().await.unwrap();
        node.says(Role::Primary, true, None);
        let health = up(&pool, HealthConfig::new()).await;
        let known = health.status();
        assert_eq!((known.role, known.writable), (Role::Primary, Some(true)));
        node.says(Role::Replica, false, Some(SECOND * 3));
        let status = health.changed(&known).await;
        assert_eq!((status.role, status.writable), (Role::Replica, Some(false)));
        assert_eq!((status.state, status.lag), (State::Up, Some(SECOND * 3)));
        assert!(status.to_string().contains(", replica, read-only, 3.0s behind;"), "{status}");
        assert!(health.answer().1.contains("\"role\":\"replica\",\"writable\":false"));
    });
}

/// One that a silent server held up for good.
#[test]
fn a_silent_server_is_out_after_so_many_timeouts() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        fake.always_ping(Act::Hang);
        let silent = sim.elapsed();
        let status = reaches(&health, State::Ejected).await;
        let took = sim.elapsed() - silent;
        assert!(took <= (SECOND * 6 + SECOND) * 3, "{took:?}");
        assert_eq!((status.consecutive_failures, status.reason), (3, Some(Reason::Faults)));
        assert!(status.last_error.unwrap().is_timeout());
        bring_back(&fake);
        let answers = sim.elapsed();
        reaches(&health, State::Up).await;
        assert!(sim.elapsed() - answers <= MS * 1250 + MS * 240, "{:?}", sim.elapsed() - answers);
    });
}

#[test]
fn the_first_check_is_at_once() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2).build().await.unwrap();
        let health = start(&pool);
        assert_eq!(health.status().to_string(), "probing for 0.0ns; 0 checks, 0 failed");
        let before = sim.elapsed();
        reaches(&health, State::Up).await;
        assert_eq!(sim.elapsed(), before);
    });
}

#[test]
fn checkers_that_start_together_do_not_ask_together() {
    Sim::new(1).run(async |sim| {
        let nodes = [Node::new(&sim), Node::new(&sim)];
        let mut running = Vec::new();
        for node in &nodes {
            let pool = Pool::builder(node.clone()).runtime(sim.clone()).build_lazy().unwrap();
            running.push((start(&pool), pool));
        }
        sim.sleep(SECOND * 300).await;
        let [one, other] = nodes.map(|node| node.asked());
        assert_eq!(one[0], other[0]);
        assert!(one.iter().skip(1).all(|at| !other.contains(at)));
        for asked in [one, other] {
            assert!((50..=75).contains(&asked.len()), "{}", asked.len());
            let between: Vec<_> = asked.windows(2).map(|two| two[1] - two[0]).collect();
            assert!(between.iter().all(|time| (SECOND * 4..=SECOND * 6).contains(time)));
            assert!(between.iter().any(|time| *time < SECOND * 5));
            assert!(between.iter().any(|time| *time > SECOND * 5));
        }
    });
}

/// One that formatted the error, so that nobody could ask it for its cause.
#[test]
fn the_error_is_kept_with_its_cause() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        fake.always_connect(Act::Fail(Error::connect("cannot reach db").with_source(refused)));
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let error = start(&pool).check_now().await.last_error.expect("an error");
        assert_eq!((error.kind(), error.cause()), (ErrorKind::Connect, Cause::Transport));
        let source = error.source().expect("a source").downcast_ref::<io::Error>();
        assert_eq!(source.expect("the driver's").kind(), io::ErrorKind::ConnectionRefused);
    });
}

// What counts.

#[test]
fn errors_of_statements_never_count_a_probes_own_included() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        fake.always_query(Act::reject());
        fake.always_ping(Act::reject());
        for _ in 0..50 {
            pool.query("wrong", &[]).await.unwrap_err();
            sim.sleep(SECOND).await;
        }
        let status = health.status();
        assert_eq!((status.state, status.failures, status.changes), (State::Up, 0, 1));
        assert_eq!(status.last_error.unwrap().message(), "no such table");
    });
}

#[test]
fn a_server_without_room_is_degraded_and_ready() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        let full = Error::connect("too many connections").with_cause(Cause::Overload);
        fake.restart().always_connect(Act::Fail(full));
        let known = health.status();
        let status = health.changed(&known).await;
        assert_eq!((status.state, status.failures), (State::Degraded, 0));
        sim.sleep(SECOND * 60).await;
        assert!(health.is_ready());
        bring_back(&fake);
        reaches(&health, State::Up).await;
    });
}

/// A firewall or an operator ends one session: that is not the database.
#[test]
fn a_connection_that_died_between_checks_is_replaced_unseen() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        let before = health.status();
        for _ in 0..5 {
            fake.restart();
            health.check_now().await;
        }
        let status = health.status();
        assert_eq!((status.checks - before.checks, status.failures), (5, 0));
        assert_eq!(fake.counts().live, 2);
    });
}

#[test]
fn a_driver_that_panics_in_a_check_has_failed_and_harms_nobody() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new().interval(SECOND)).await;
        let first = fake.counts().pings;
        fake.next_pings([Act::Panic, Act::Panic, Act::Panic]);
        let status = reaches(&health, State::Ejected).await;
        assert_eq!(status.last_error.unwrap().kind(), ErrorKind::Panicked);
        assert_eq!(fake.counts().pings - first, 3);
        pool.query("goes on", &[]).await.unwrap();
        reaches(&health, State::Up).await;
        assert_eq!(fake.counts().live, 2);
    });
}

#[test]
fn it_comes_back_slowly() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        sim.sleep(SECOND * 10).await;
        assert!((health.status().weight - 1.0).abs() < 1e-9);
        take_down(&fake);
        let out = reaches(&health, State::Ejected).await;
        bring_back(&fake);
        fake.always_ping(Act::After(MS));
        let tried = reaches(&health, State::Probing).await;
        assert!((MS * 750..=MS * 1250).contains(&(tried.since - out.since)));
        assert!(out.weight.abs() < 1e-9 && tried.weight.abs() < 1e-9);
        let back = reaches(&health, State::Up).await;
        assert!((back.weight - 0.1).abs() < 1e-9, "{}", back.weight);
        sim.sleep(SECOND * 5).await;
        assert!((health.status().weight - 0.55).abs() < 1e-9);
        sim.sleep(SECOND * 5).await;
        assert!((health.status().weight - 1.0).abs() < 1e-9);
    });
}

// The connection it asks on.

#[test]
fn checks_do_not_overlap_whoever_asks_for_them() {
    Sim::new(1).run(async |sim| {
        let node = Node::new(&sim);
        node.fake.always_ping(Act::After(MS * 900));
        let pool = Pool::builder(node.clone()).runtime(sim.clone()).build().await.unwrap();
        let config = HealthConfig::new().interval(MS * 100).timeout(SECOND * 10);
        let (one, other) = (up(&pool, config.clone()).await, up(&pool, config).await);
        for _ in 0..20 {
            sim.sleep(MS * sim.below(1000) as u32).await;
            join(one.check_now(), other.check_now()).await;
        }
        assert_eq!(node.most_at_once(), 1);
        assert_eq!((one.status().failures, other.status().failures), (0, 0));
    });
}

#[test]
fn all_checkers_of_a_pool_share_one_connection_outside_its_limit() {
    Sim::new(1).run(async |sim| {
        let node = Node::new(&sim);
        let pool = Pool::builder(node.clone()).runtime(sim.clone()).build().await.unwrap();
        let first = up(&pool, HealthConfig::new()).await;
        let second = up(&pool, HealthConfig::new()).await;
        sim.sleep(SECOND * 60).await;
        assert_eq!(node.purposes(), [Purpose::Serve, Purpose::Probe]);
        assert_eq!((pool.snapshot().open, pool.snapshot().created), (1, 1));
        first.stop().await;
        second.check_now().await;
        assert_eq!(node.fake.counts().live, 2, "still asked on");
        second.stop().await;
        sim.sleep(MS).await;
        let counts = node.fake.counts();
        assert_eq!((counts.live, counts.goodbyes, counts.peak_live), (1, 1, 2));
    });
}

#[test]
fn it_logs_in_as_the_pool_does_and_shows_no_password() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2)
            .credentials(|| async { Ok(Credentials::new().user("app").password("hunter2")) })
            .build_lazy()
            .unwrap();
        fake.always_connect(Act::deny());
        let health = start(&pool);
        let status = health.check_now().await;
        let login = fake.logins()[0].clone().expect("credentials");
        assert_eq!(login.password.as_deref(), Some("hunter2"));
        assert_eq!(status.last_error.as_ref().unwrap().cause(), Cause::Auth);
        let shown =
            format!("{status} {status:?} {health:?} {:?} {:?}", health.answer(), pool.config());
        assert!(shown.contains("authentication failed") && !shown.contains("hunter2"), "{shown}");
    });
}

#[test]
fn a_provider_of_credentials_that_hangs_is_bounded_too() {
    Sim::new(1).run(async |sim| {
        let pool =
            pool_of(&Fake::new(), &sim, 2).credentials(std::future::pending).build_lazy().unwrap();
        let status = start(&pool).check_now().await;
        assert_eq!(sim.elapsed(), SECOND);
        assert!(status.last_error.unwrap().is_timeout());
    });
}

// How it ends.

#[test]
fn stopped_in_a_check_it_ends_at_once_and_twice_is_harmless() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        fake.always_ping(Act::Hang);
        let asked = fake.counts().pings;
        sim.sleep(SECOND * 4).await;
        while fake.counts().pings == asked {
            sim.sleep(MS * 100).await;
        }
        let before = sim.elapsed();
        join(health.stop(), health.stop()).await;
        health.stop().await;
        assert_eq!((sim.elapsed(), fake.counts().live), (before, 1));
        let status = health.check_now().await;
        assert!(status.state == State::Up && !status.is_running && !health.is_ready());
        assert!(status.to_string().ends_with("; not checked any more"), "{status}");
        assert_eq!(health.answer().0, 503);
        assert!(!health.changed(&status).await.is_running);
        // The pool's own check of its idle connection comes later.
        sim.sleep(SECOND * 10).await;
        assert_eq!(fake.counts().pings, asked + 1);
    });
}

#[test]
fn dropped_it_stops_and_its_connection_says_goodbye() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        drop(up(&pool, HealthConfig::new()).await);
        sim.sleep(MS).await;
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (1, 1));
        let pings = fake.counts().pings;
        // The first background check of the pool's own comes later.
        sim.sleep(SECOND * 20).await;
        assert_eq!(fake.counts().pings, pings);
    });
}

#[test]
fn a_closed_pool_drains_it_and_one_is_not_kept_open_by_it() {
    Sim::new(1).run(async |sim| {
        for by_hand in [true, false] {
            let fake = Fake::new();
            let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
            let health = up(&pool, HealthConfig::new()).await;
            let known = health.status();
            let weak = pool.downgrade();
            if by_hand {
                assert!(pool.close().await.is_complete());
            } else {
                drop(pool);
                assert!(weak.upgrade().is_none(), "not kept open");
            }
            let status = health.changed(&known).await;
            assert_eq!(status.state, State::Draining);
            sim.sleep(MS).await;
            assert!(!health.is_alive() && !health.is_ready());
            assert_eq!(fake.counts().live, 0);
        }
    });
}

#[test]
fn a_checker_of_a_closed_pool_asks_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        pool.close().await;
        let health = start(&pool);
        let status = health.check_now().await;
        assert_eq!((status.state, status.checks), (State::Draining, 0));
        assert_eq!(fake.counts().connects, 0);
    });
}

#[test]
fn a_paused_pool_is_checked_all_the_same() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        pool.pause();
        let health = up(&pool, HealthConfig::new()).await;
        take_down(&fake);
        reaches(&health, State::Ejected).await;
        bring_back(&fake);
        reaches(&health, State::Up).await;
    });
}

#[test]
fn a_runtime_that_ends_takes_it_along_and_it_says_so() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let health = up(&pool, HealthConfig::new()).await;
        let known = health.status();
        sim.end_executor();
        assert!(!health.is_alive() && !health.is_ready());
        let before = sim.elapsed();
        assert!(!health.changed(&known).await.is_running);
        assert!(!health.check_now().await.is_running);
        health.stop().await;
        assert_eq!(sim.elapsed(), before);
        // Another one does, on the runtime of then.
        assert!(up(&pool, HealthConfig::new()).await.is_ready());
        assert_eq!(fake.counts().live, 2, "the pool's, and the new one's");
    });
}

#[test]
fn a_runtime_that_stands_still_holds_nobody_up_and_is_found_out() {
    Sim::new(1).run(async |sim| {
        let runtime = Standing(sim.clone());
        let pool = Pool::builder(Fake::new()).runtime(runtime).build_lazy().unwrap();
        let health = start(&pool);
        assert!(health.is_alive());
        assert_eq!(health.check_now().await.checks, 0);
        assert_eq!(sim.elapsed(), SECOND * 3);
        sim.sleep(SECOND * 3).await;
        assert!(health.is_alive(), "the first check and the time between two");
        sim.sleep(MS).await;
        assert!(!health.is_alive());
        health.stop().await;
    });
}

// Who is told, and who asks.

#[test]
fn a_listener_is_told_each_change_and_its_panic_is_its_own() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let config = HealthConfig::new().on_change({
            let told = Arc::clone(&told);
            move |status| {
                told.lock().unwrap().push(status.state);
                if status.state == State::Ejected {
                    panic!("the listener was told to panic");
                }
            }
        });
        let health = up(&pool, config).await;
        take_down(&fake);
        reaches(&health, State::Ejected).await;
        bring_back(&fake);
        reaches(&health, State::Up).await;
        pool.close().await;
        reaches_end(&health).await;
        assert_eq!(
            *told.lock().unwrap(),
            [State::Up, State::Ejected, State::Probing, State::Up, State::Draining]
        );
    });
}

async fn reaches_end(health: &HealthChecker) {
    let mut status = health.status();
    while status.is_running {
        status = health.changed(&status).await;
    }
}

#[test]
fn those_who_ask_at_the_same_time_share_a_check_that_begins_after_they_asked() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let gate = Gate::new();
        fake.next_pings([Act::Wait(gate.clone())]);
        let health = start(&pool);
        sim.sleep(MS).await;
        let opened = async {
            sim.sleep(MS * 10).await;
            gate.open();
        };
        let (asked, ()) = join(join_all((0..5).map(|_| health.check_now())), opened).await;
        // The one under way was begun before, and knows nothing of now.
        assert!(asked.iter().all(|status| status.checks == 2), "{asked:?}");
        cancel_after(1, health.check_now()).await;
        sim.sleep(MS).await;
        assert_eq!(health.status().checks, 3);
    });
}

#[test]
fn the_answer_is_one_line_of_json_whatever_the_error_says() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        fake.always_connect(Act::Fail(Error::connect("\"db\"\\\nis\tgone\u{1}")));
        let health = start(&pool);
        health.check_now().await;
        let (code, body) = health.answer();
        assert_eq!((code, body.lines().count()), (503, 1));
        let read: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(read["error"], "\"db\"\\\nis\tgone\u{1}");
        assert_eq!((&read["state"], &read["ready"]), (&"probing".into(), &false.into()));
        bring_back(&fake);
        reaches(&health, State::Up).await;
        let (code, body) = health.answer();
        let read: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((code, &read["ready"], read.get("error")), (200, &true.into(), None));
    });
}

#[test]
fn settings_that_make_no_sense_start_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build_lazy().unwrap();
        let config = HealthConfig::new().interval(Duration::ZERO).timeout(Duration::MAX);
        let error = HealthChecker::start(&pool, config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("interval = 0ns"), "{error}");
        sim.sleep(SECOND).await;
        assert_eq!(fake.counts().connects, 0);
    });
}

#[test]
fn a_checker_can_be_shared() {
    fn shared<T: Send + Sync + std::fmt::Debug>() {}
    shared::<HealthChecker>();
    shared::<HealthConfig>();
    shared::<HealthStatus>();
}

/// A runtime that keeps the time and runs no task.
#[derive(Debug)]
struct Standing(Sim);

impl Runtime for Standing {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.0.sleep_until(deadline)
    }

    /// Dropped, a task would tell that its runtime has ended.
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        std::mem::forget(task);
    }

    fn spawn_blocking(&self, job: Box<dyn FnOnce() + Send>) {
        drop(job);
    }

    fn resolve<'a>(
        &'a self,
        host: &'a str,
        port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        self.0.resolve(host, port)
    }

    fn connect<'a>(
        &'a self,
        target: &'a Target,
        options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        self.0.connect(target, options)
    }

    fn random(&self) -> u64 {
        self.0.random()
    }
}

/// Two checkers and an operator who has no patience, on a server and a runtime
/// that fail in every way.
#[test]
fn in_worlds_full_of_trouble_there_is_one_connection_aside_and_none_is_left() {
    for seed in 0..150 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let mut faults = Faults::each(MS * 300, 12);
            // Contained elsewhere; here it would fill the screen.
            faults.panic = 0.0;
            fake.faults(faults);
            let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
            let config = HealthConfig::new().interval(MS * 300).timeout(MS * 200);
            let mut checkers = [0, 1].map(|_| HealthChecker::start(&pool, config.clone()).unwrap());
            for _ in 0..60 {
                let which = sim.below(2) as usize;
                match sim.below(8) {
                    0 => drop(cancel_after(sim.below(4), checkers[which].stop()).await),
                    1 => drop(cancel_after(sim.below(4), checkers[which].check_now()).await),
                    2 => drop(checkers[which].check_now().await),
                    3 => drop(fake.restart().clone()),
                    4 if sim.one_in(3) => sim.end_executor(),
                    _ => sim.sleep(MS * sim.below(700) as u32).await,
                }
                if !checkers[which].is_alive() {
                    checkers[which] = HealthChecker::start(&pool, config.clone()).unwrap();
                }
                let counts = fake.counts();
                assert!(counts.peak_live <= 1, "{counts:?}");
            }
            fake.faults(Faults::none()).restart();
            checkers[0] = HealthChecker::start(&pool, config.clone()).unwrap();
            reaches(&checkers[0], State::Up).await;
            drop(checkers);
            sim.sleep(SECOND * 2).await;
            assert_eq!((fake.counts().live, pool.snapshot().open), (0, 0));
        });
    }
}
