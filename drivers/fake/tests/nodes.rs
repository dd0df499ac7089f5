//! Servers that are the nodes of a cluster, as a test commands them.
//!
//! Owns a clock that jumps to the end of each sleep. Knows no pool.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::{join, pending};
use millpond_driver::{
    BoxFuture, ByteStream, Cause, ConnectContext, Driver, Error, ErrorKind, Fate, NodeStatus,
    Outcome, Position, Reset, Result, Role, Runtime, Scope, Session, SocketOptions, Target,
};
use millpond_fake::{Act, Fake, FakeConnection, Faults};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Time passes only while somebody sleeps.
#[derive(Debug, Clone, Default)]
struct Clock(Arc<Mutex<Duration>>);

#[expect(clippy::disallowed_methods, reason = "this is the runtime")]
static BORN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock {
    fn passed(&self) -> Duration {
        *self.0.lock().expect("no panic")
    }
}

impl Runtime for Clock {
    fn now(&self) -> Instant {
        *BORN + self.passed()
    }
    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        let clock = self.clone();
        Box::pin(async move {
            // Whoever else waits goes first.
            breath().await;
            let mut passed = clock.0.lock().expect("no panic");
            *passed = deadline.saturating_duration_since(*BORN).max(*passed);
        })
    }
    fn spawn(&self, _task: BoxFuture<'static, ()>) {
        unreachable!("the driver has no tasks")
    }
    fn spawn_blocking(&self, _job: Box<dyn FnOnce() + Send>) {
        unreachable!("the driver never blocks")
    }
    fn resolve<'a>(
        &'a self,
        _host: &'a str,
        _port: u16,
    ) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        unreachable!("the driver knows no host")
    }
    fn connect<'a>(
        &'a self,
        _target: &'a Target,
        _options: &'a SocketOptions,
    ) -> BoxFuture<'a, io::Result<Box<dyn ByteStream>>> {
        Box::pin(pending())
    }
    fn random(&self) -> u64 {
        0
    }
}

async fn breath() {
    let mut first = true;
    std::future::poll_fn(
        |_| if std::mem::take(&mut first) { Poll::Pending } else { Poll::Ready(()) },
    )
    .await;
}

/// Runs it to its end, which must come.
fn done<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    for _ in 0..100_000 {
        if let Poll::Ready(value) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
    panic!("it never ends");
}

async fn session_on(clock: &Clock, fake: &Fake) -> FakeConnection {
    let runtime: Arc<dyn Runtime> = Arc::new(clock.clone());
    fake.connect(&ConnectContext::new(&runtime, runtime.now())).await.expect("a session")
}

async fn session(fake: &Fake) -> FakeConnection {
    session_on(&Clock::default(), fake).await
}

async fn run(fake: &Fake, conn: &mut FakeConnection, statements: &[&str]) -> Result<()> {
    for statement in statements {
        fake.query(conn, statement, &[]).await?;
    }
    Ok(())
}

fn says_wrong_role(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Statement);
    assert_eq!((error.cause(), error.scope()), (Cause::WrongRole, Scope::Node), "{error:?}");
}

#[test]
fn a_new_server_says_nothing_of_a_cluster_and_takes_writes() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        run(&fake, &mut conn, &["CREATE TABLE t", "INSERT 1"]).await.unwrap();
        assert_eq!(fake.status(&mut conn).await.unwrap(), NodeStatus::default());
        assert_eq!(fake.role(&conn), None);
    });
}

#[test]
fn the_status_says_what_the_server_was_told() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        fake.becomes(Role::Replica).stands_at(7).timeline(3).of_cluster("shop").lags(MILLISECOND);
        let status = fake.status(&mut conn).await.unwrap();
        assert_eq!((status.role, status.writable), (Role::Replica, Some(false)));
        assert_eq!((status.position, status.timeline), (Some(7), Some(3)));
        assert_eq!((status.cluster.as_deref(), status.lag), (Some("shop"), Some(MILLISECOND)));
        assert_eq!(status.lag_bytes, None, "it follows nobody");
    });
}

#[test]
fn all_but_replicas_take_writes_unless_they_are_told_not_to() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        for (role, writable) in [
            (Role::Primary, Some(true)),
            (Role::Replica, Some(false)),
            (Role::Peer, Some(true)),
            (Role::Standalone, Some(true)),
            (Role::Unknown, None),
        ] {
            fake.becomes(role);
            assert_eq!(fake.status(&mut conn).await.unwrap().writable, writable, "{role:?}");
            let taken = run(&fake, &mut conn, &["INSERT 1"]).await;
            assert_eq!(taken.is_ok(), role != Role::Replica, "{role:?}");
            fake.takes_writes(false);
            let status = fake.status(&mut conn).await.unwrap();
            assert_eq!((status.role, status.writable), (role, Some(false)));
            says_wrong_role(&run(&fake, &mut conn, &["INSERT 1"]).await.unwrap_err());
        }
    });
}

#[test]
fn a_status_is_a_ping_until_it_is_scripted() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        fake.next_pings([Act::cut()]);
        fake.status(&mut conn).await.unwrap_err();
        fake.status(&mut conn).await.unwrap();
        assert_eq!((fake.counts().statuses, fake.counts().pings), (2, 2));

        fake.always_ping(Act::cut()).next_status([Act::Answer, Act::reject()]);
        fake.status(&mut conn).await.unwrap();
        assert_eq!(fake.status(&mut conn).await.unwrap_err().kind(), ErrorKind::Statement);
        fake.status(&mut conn).await.unwrap_err();
        fake.always_status(Act::Answer);
        fake.status(&mut conn).await.unwrap();
        assert_eq!((fake.counts().statuses, fake.counts().pings), (6, 3));
    });
}

#[test]
fn random_trouble_meets_a_status_as_a_ping() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        fake.faults(Faults::each(Duration::ZERO, 1));
        assert_eq!(fake.status(&mut conn).await.unwrap_err().kind(), ErrorKind::Lost);
        assert_eq!(fake.position(&mut conn).await.unwrap_err().kind(), ErrorKind::Lost);
    });
}

#[test]
fn a_session_hears_of_a_new_role_with_its_next_answer() {
    done(async {
        let fake = Fake::new();
        fake.becomes(Role::Primary);
        let mut untold = session(&fake).await;
        assert_eq!(fake.role(&untold), None);
        fake.tells_role(true);
        let mut conn = session(&fake).await;
        assert_eq!(fake.role(&conn), Some(Role::Primary));
        fake.becomes(Role::Replica);
        assert_eq!(fake.role(&conn), Some(Role::Primary), "nothing has been answered");
        says_wrong_role(&run(&fake, &mut conn, &["INSERT 1"]).await.unwrap_err());
        assert_eq!(fake.role(&conn), Some(Role::Replica));
        fake.becomes(Role::Peer);
        fake.ping(&mut conn).await.unwrap();
        assert_eq!(fake.role(&conn), Some(Role::Peer));
        fake.becomes(Role::Standalone);
        fake.reset(&mut conn, Reset::Boundary).await.unwrap();
        assert_eq!(fake.role(&conn), Some(Role::Standalone));
        fake.status(&mut untold).await.unwrap();
        assert_eq!(fake.role(&untold), Some(Role::Standalone));
    });
}

#[test]
fn a_write_moves_the_position_on_by_one() {
    done(async {
        let fake = Fake::new();
        fake.stands_at(10);
        let mut conn = session(&fake).await;
        for (statement, place) in [
            ("SELECT 1", 10),
            ("CREATE TABLE t", 11),
            ("INSERT INTO t", 12),
            ("UPDATE t", 13),
            ("DELETE FROM t", 14),
            ("UPDATED t", 14),
        ] {
            run(&fake, &mut conn, &[statement]).await.unwrap();
            assert_eq!(fake.place(), place, "{statement}");
        }
        assert_eq!(fake.position(&mut conn).await.unwrap().as_str(), "14");
        assert_eq!(fake.status(&mut conn).await.unwrap().position, Some(14));
        assert_eq!(fake.counts().positions, 1);
    });
}

#[test]
fn writes_of_a_transaction_move_it_on_when_they_are_committed() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        run(&fake, &mut conn, &["BEGIN", "INSERT 1", "INSERT 2"]).await.unwrap();
        assert_eq!(fake.place(), 0);
        fake.commit(&mut conn).await.unwrap();
        assert_eq!(fake.place(), 2);
        run(&fake, &mut conn, &["BEGIN", "INSERT 3", "ROLLBACK"]).await.unwrap();
        run(&fake, &mut conn, &["BEGIN", "INSERT 4"]).await.unwrap();
        fake.reset(&mut conn, Reset::Boundary).await.unwrap();
        run(&fake, &mut conn, &["BEGIN", "INSERT 5"]).await.unwrap();
        fake.next_queries([Act::reject()]);
        run(&fake, &mut conn, &["INSERT 6"]).await.unwrap_err();
        run(&fake, &mut conn, &["INSERT 7", "COMMIT"]).await.unwrap();
        assert_eq!(fake.place(), 2);
    });
}

#[test]
fn a_write_refused_in_a_transaction_fails_it() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        run(&fake, &mut conn, &["BEGIN", "INSERT 1"]).await.unwrap();
        fake.becomes(Role::Replica);
        let error = run(&fake, &mut conn, &["INSERT 2"]).await.unwrap_err();
        says_wrong_role(&error);
        assert_eq!((error.outcome(), error.fate()), (Outcome::Rejected, Fate::NeedsRollback));
        assert_eq!(fake.session(&conn), Session::FailedTransaction);
        run(&fake, &mut conn, &["ROLLBACK"]).await.unwrap();
        let error = run(&fake, &mut conn, &["INSERT 2"]).await.unwrap_err();
        assert_eq!((error.outcome(), error.fate()), (Outcome::Rejected, Fate::Reusable));
        assert_eq!(fake.session(&conn), Session::Clean);
    });
}

#[test]
fn writes_are_rolled_back_where_the_server_takes_none_when_they_are_committed() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        run(&fake, &mut conn, &["BEGIN", "INSERT 1"]).await.unwrap();
        fake.becomes(Role::Replica);
        let error = fake.commit(&mut conn).await.unwrap_err();
        says_wrong_role(&error);
        assert_eq!((error.outcome(), error.fate()), (Outcome::RolledBack, Fate::Reusable));
        assert_eq!((fake.session(&conn), fake.place()), (Session::Clean, 0));
        run(&fake, &mut conn, &["BEGIN", "SELECT 1", "COMMIT"]).await.unwrap();
    });
}

#[test]
fn a_read_only_session_refuses_writes_and_stays_so_when_it_is_reset() {
    done(async {
        let fake = Fake::new();
        fake.becomes(Role::Primary);
        let (mut conn, mut other) = (session(&fake).await, session(&fake).await);
        fake.set_read_only(&mut conn, true).await.unwrap();
        for to in [Reset::Boundary, Reset::Session] {
            fake.reset(&mut conn, to).await.unwrap();
            assert!(conn.is_read_only());
            says_wrong_role(&run(&fake, &mut conn, &["DELETE 1"]).await.unwrap_err());
            run(&fake, &mut conn, &["SELECT 1"]).await.unwrap();
        }
        assert_eq!(fake.status(&mut conn).await.unwrap().writable, Some(true));
        run(&fake, &mut other, &["DELETE 1"]).await.unwrap();
        fake.set_read_only(&mut conn, false).await.unwrap();
        run(&fake, &mut conn, &["DELETE 1"]).await.unwrap();
    });
}

#[test]
fn a_replica_is_where_its_primary_is_unless_its_replay_is_paused() {
    done(async {
        let (first, second, third) = (Fake::new(), Fake::new(), Fake::new());
        first.becomes(Role::Primary).stands_at(5);
        second.stands_at(90).follow(&first);
        third.follow(&second);
        let mut conn = session(&first).await;
        run(&first, &mut conn, &["INSERT 1"]).await.unwrap();
        assert_eq!((second.place(), third.place()), (6, 6));
        second.pause_replay();
        run(&first, &mut conn, &["INSERT 1"]).await.unwrap();
        run(&first, &mut conn, &["INSERT 1"]).await.unwrap();
        assert_eq!((first.place(), second.place(), third.place()), (8, 6, 6));
        let status = second.status(&mut session(&second).await).await.unwrap();
        assert_eq!((status.role, status.writable), (Role::Replica, Some(false)));
        assert_eq!((status.position, status.lag_bytes), (Some(6), Some(2)));
        second.resume_replay();
        assert_eq!((second.place(), third.place()), (8, 8));
    });
}

#[test]
fn a_replica_that_takes_over_goes_on_from_where_it_has_come_to() {
    done(async {
        let (first, second) = (Fake::new(), Fake::new());
        first.becomes(Role::Primary).stands_at(5);
        second.follow(&first).pause_replay();
        let mut lost = session(&first).await;
        run(&first, &mut lost, &["INSERT 1"]).await.unwrap();
        second.becomes(Role::Primary);
        first.follow(&second);
        assert_eq!((first.place(), second.place()), (5, 5), "what was not replayed is lost");
        let mut conn = session(&second).await;
        run(&second, &mut conn, &["INSERT 1"]).await.unwrap();
        assert_eq!((first.place(), second.place()), (6, 6));
    });
}

#[test]
#[should_panic(expected = "follow each other")]
fn servers_do_not_follow_each_other() {
    let (first, second, third) = (Fake::new(), Fake::new(), Fake::new());
    second.follow(&first);
    third.follow(&second);
    first.follow(&third);
}

#[test]
fn a_position_is_waited_for_no_longer_than_the_limit() {
    done(async {
        let (clock, fake) = (Clock::default(), Fake::new());
        fake.stands_at(5);
        let mut conn = session_on(&clock, &fake).await;
        let (here, ahead) = (Position::new("5"), Position::new("6"));
        for limit in [Duration::ZERO, Duration::MAX] {
            assert!(fake.reached(&mut conn, &here, limit).await.unwrap());
        }
        assert!(!fake.reached(&mut conn, &ahead, Duration::ZERO).await.unwrap());
        assert_eq!(clock.passed(), Duration::ZERO);
        assert!(!fake.reached(&mut conn, &ahead, MILLISECOND * 5 / 2).await.unwrap());
        assert_eq!(clock.passed(), MILLISECOND * 5 / 2);
        assert_eq!(fake.counts().reaches, 4);
    });
}

#[test]
fn a_position_is_reached_once_it_is_replayed() {
    done(async {
        let (clock, first, second) = (Clock::default(), Fake::new(), Fake::new());
        first.becomes(Role::Primary);
        second.follow(&first).pause_replay();
        let mut writer = session(&first).await;
        run(&first, &mut writer, &["INSERT 1"]).await.unwrap();
        let position = first.position(&mut writer).await.unwrap();
        let mut reader = session_on(&clock, &second).await;
        let replay = async {
            clock.sleep_until(clock.now() + MILLISECOND * 7).await;
            second.resume_replay();
        };
        let waiting = second.reached(&mut reader, &position, MILLISECOND * 50);
        let (reached, ()) = join(waiting, replay).await;
        assert!(reached.unwrap());
        assert!(clock.passed() < MILLISECOND * 10, "{:?}", clock.passed());
    });
}

#[test]
fn what_is_no_position_is_not_waited_for() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        let error = fake.reached(&mut conn, &Position::new("0/5"), MILLISECOND).await.unwrap_err();
        assert_eq!((error.kind(), error.fate()), (ErrorKind::Config, Fate::Reusable));
        assert_eq!(fake.counts().reaches, 0);
    });
}

#[test]
fn positions_are_scripted_and_die_with_the_connection() {
    done(async {
        let fake = Fake::new();
        let mut conn = session(&fake).await;
        fake.always_position(Act::reject()).always_reached(Act::reject());
        let here = Position::new("0");
        fake.position(&mut conn).await.unwrap_err();
        fake.reached(&mut conn, &here, MILLISECOND).await.unwrap_err();
        fake.always_position(Act::Answer).always_reached(Act::Answer).restart();
        assert_eq!(fake.position(&mut conn).await.unwrap_err().kind(), ErrorKind::Lost);
        let error = fake.reached(&mut conn, &here, MILLISECOND).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Lost);
        assert_eq!(fake.set_read_only(&mut conn, true).await.unwrap_err().kind(), ErrorKind::Lost);
    });
}
