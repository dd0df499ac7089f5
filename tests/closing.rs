//! How a pool ends: who is told, what is closed, how long that takes.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join, join_all, join3};
use futures_util::poll;
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::{JoinHandle, Sim};
use millpond::{Builder, ErrorKind, Pool, PooledConnection, Result};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// A caller beside the test, in the queue when this returns.
async fn caller(sim: &Sim, pool: &Pool<Fake>) -> JoinHandle<Result<PooledConnection<Fake>>> {
    let pool = pool.clone();
    let caller = sim.task(async move { pool.acquire().await });
    sim.sleep(MS).await;
    caller
}

async fn give_back_after(sim: &Sim, time: Duration, conn: PooledConnection<Fake>) {
    sim.sleep(time).await;
    drop(conn);
}

// Callers.

#[test]
fn close_tells_everyone_who_waits() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut callers = Vec::new();
        for _ in 0..5 {
            callers.push(caller(&sim, &pool).await);
        }
        let before = sim.elapsed();
        pool.close().await;
        for result in join_all(callers).await {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
        }
        assert_eq!((sim.elapsed(), pool.snapshot().waiting), (before, 0));
        drop(held);
    });
}

#[test]
fn a_closed_pool_lends_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        pool.close().await;
        let errors = [
            pool.acquire().await.unwrap_err(),
            pool.acquire().timeout(Duration::ZERO).await.unwrap_err(),
            pool.query("SELECT 1", &[]).await.unwrap_err(),
            pool.execute("UPDATE", &[]).await.unwrap_err(),
            pool.batch("CREATE").await.unwrap_err(),
            pool.begin().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Closed);
        }
        assert!(pool.try_acquire().is_none());
        assert!(pool.is_closed() && pool.snapshot().is_closed);
        assert_eq!((fake.counts().connects, fake.counts().queries), (1, 0));
    });
}

#[test]
fn close_does_not_wait_for_borrowers_and_names_them() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let line = line!() + 1;
        let first = pool.acquire().label("checkout").await.unwrap();
        sim.sleep(SECOND).await;
        let second = pool.acquire().await.unwrap();
        sim.sleep(SECOND).await;
        let report = pool.close().await;
        assert_eq!(sim.elapsed(), SECOND * 2);
        assert!(!report.is_complete());
        let [oldest, newest] = &report.still_held[..] else { panic!("two are out: {report}") };
        assert_eq!((oldest.held, oldest.label), (SECOND * 2, Some("checkout")));
        assert!(oldest.place.file().ends_with("closing.rs"));
        assert_eq!(oldest.place.line(), line);
        assert_eq!((newest.held, newest.label), (SECOND, None));
        assert_eq!(report.still_closing, 0);
        drop((first, second));
    });
}

#[test]
fn a_borrowed_connection_still_works_after_close_and_is_closed_when_given_back() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        pool.close().await;
        conn.query("SELECT 1", &[]).await.unwrap();
        drop(conn);
        sim.sleep(MS).await;
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (0, 1));
        assert_eq!((pool.snapshot().open, pool.snapshot().idle), (0, 0));
    });
}

#[test]
fn an_unclean_connection_given_back_after_close_is_closed_at_once() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_reset(Act::Hang);
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.query("BEGIN", &[]).await.unwrap();
        pool.close().await;
        drop(conn);
        assert!(pool.drain(SECOND).await.is_complete());
        assert_eq!((sim.elapsed(), fake.counts().live), (Duration::ZERO, 0));
    });
}

// What is under way.

#[test]
fn close_drops_a_connect_under_way() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let gate = Gate::new();
        fake.always_connect(Act::Wait(gate.clone()));
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        let waiter = caller(&sim, &pool).await;
        assert_eq!(pool.snapshot().opening, 1);
        let before = sim.elapsed();
        assert!(pool.close().await.is_complete());
        assert_eq!(sim.elapsed(), before);
        assert_eq!(waiter.await.unwrap_err().kind(), ErrorKind::Closed);
        gate.open();
        sim.sleep(SECOND).await;
        assert_eq!((fake.counts().live, fake.counts().opened), (0, 0));
        assert_eq!((pool.snapshot().open, pool.snapshot().opening), (0, 0));
    });
}

#[test]
fn close_during_a_check_lends_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let gate = Gate::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::Wait(gate.clone()));
        let waiter = caller(&sim, &pool).await;
        assert_eq!(pool.snapshot().checking, 1);
        let before = sim.elapsed();
        assert!(pool.close().await.is_complete());
        assert_eq!(sim.elapsed(), before);
        assert_eq!(waiter.await.unwrap_err().kind(), ErrorKind::Closed);
        gate.open();
        sim.sleep(SECOND).await;
        assert_eq!((fake.counts().live, pool.snapshot().open), (0, 0));
    });
}

#[test]
fn close_during_a_cleaning_lends_nothing() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let gate = Gate::new();
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        fake.always_reset(Act::Wait(gate.clone()));
        let mut conn = pool.acquire().await.unwrap();
        conn.query("BEGIN", &[]).await.unwrap();
        drop(conn);
        let waiter = caller(&sim, &pool).await;
        assert_eq!(pool.snapshot().cleaning, 1);
        let before = sim.elapsed();
        assert!(pool.close().await.is_complete());
        assert_eq!(sim.elapsed(), before);
        assert_eq!(waiter.await.unwrap_err().kind(), ErrorKind::Closed);
        gate.open();
        sim.sleep(SECOND).await;
        assert_eq!((fake.counts().live, pool.snapshot().open), (0, 0));
    });
}

/// The connect ends at the very moment of the close, before or after it.
#[test]
fn a_connect_that_ends_with_the_close_leaves_no_connection() {
    for seed in 0..50 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let gate = Gate::new();
            fake.always_connect(Act::Wait(gate.clone()));
            let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
            let waiter = caller(&sim, &pool).await;
            gate.open();
            let (_, served) = join(pool.close(), waiter).await;
            drop(served);
            sim.sleep(SECOND).await;
            assert_eq!((fake.counts().live, pool.snapshot().open), (0, 0));
        });
    }
}

// Drains.

#[test]
fn a_drain_ends_with_the_last_return() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let first = pool.acquire().await.unwrap();
        let last = pool.acquire().await.unwrap();
        let drain = async {
            let report = pool.drain(SECOND * 60).await;
            assert_eq!(sim.elapsed(), SECOND * 7);
            report
        };
        let returns =
            join(give_back_after(&sim, SECOND * 3, first), give_back_after(&sim, SECOND * 7, last));
        let (report, _) = join(drain, returns).await;
        assert!(report.is_complete(), "{report}");
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (0, 2));
    });
}

#[test]
fn a_drain_ends_at_its_limit_and_names_who_is_out() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let returned = pool.acquire().await.unwrap();
        let _kept = pool.acquire().label("export").await.unwrap();
        let drain = async {
            let report = pool.drain(SECOND * 5).await;
            assert_eq!(sim.elapsed(), SECOND * 5);
            report
        };
        let (report, ()) = join(drain, give_back_after(&sim, SECOND, returned)).await;
        let [holder] = &report.still_held[..] else { panic!("one is out: {report}") };
        assert_eq!((holder.label, holder.held), (Some("export"), SECOND * 5));
        let words = format!(r#"still held: for 5s by "export" at {}"#, file!());
        assert!(report.to_string().contains(&words), "{report}");
    });
}

#[test]
fn a_drain_without_limit_waits_as_long_as_it_takes() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        let hour = SECOND * 3600;
        let drain = pool.drain(Duration::MAX);
        let (report, ()) = join(drain, give_back_after(&sim, hour, conn)).await;
        assert!(report.is_complete());
        assert_eq!(sim.elapsed(), hour);
    });
}

#[test]
fn a_drain_without_borrowers_ends_at_once() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        assert!(pool.drain(SECOND * 60).await.is_complete());
        assert_eq!((sim.elapsed(), fake.counts().live), (Duration::ZERO, 0));
    });
}

#[test]
fn a_dropped_drain_leaves_the_pool_closed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        assert!(cancel_after(1, pool.drain(SECOND * 60)).await.is_none());
        assert!(pool.is_closed());
        drop(conn);
        sim.sleep(MS).await;
        assert_eq!(fake.counts().live, 0);
    });
}

#[test]
fn several_closers_all_end() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let conn = pool.acquire().await.unwrap();
        let minute = SECOND * 60;
        let closers = join3(pool.drain(minute), pool.close(), pool.drain(minute));
        let ((first, close, second), ()) =
            join(closers, give_back_after(&sim, SECOND * 2, conn)).await;
        assert!(first.is_complete() && second.is_complete());
        assert_eq!(close.still_held.len(), 1);
        assert_eq!(sim.elapsed(), SECOND * 2);
    });
}

#[test]
fn closing_twice_is_harmless() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        assert!(pool.close().await.is_complete());
        assert!(pool.close().await.is_complete());
        assert_eq!((sim.elapsed(), fake.counts().goodbyes), (Duration::ZERO, 1));
    });
}

// Goodbyes.

#[test]
fn a_goodbye_that_hangs_is_cut_after_a_second() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
        fake.always_close(Act::Hang);
        let report = pool.close().await;
        assert!(report.is_complete(), "{report}");
        assert_eq!((sim.elapsed(), fake.counts().live), (SECOND, 0));
    });
}

#[test]
fn a_goodbye_that_panics_closes_all_the_same() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        fake.always_close(Act::Panic);
        assert!(pool.close().await.is_complete());
        assert_eq!((sim.elapsed(), fake.counts().live), (Duration::ZERO, 0));
    });
}

#[test]
fn the_goodbyes_of_many_connections_are_said_at_a_time() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 10).build().await.unwrap();
        drop(join_all((0..10).map(|_| pool.acquire())).await);
        fake.always_close(Act::After(MS * 300));
        assert!(pool.close().await.is_complete());
        assert_eq!((sim.elapsed(), fake.counts().goodbyes), (MS * 300, 10));
    });
}

/// Otherwise a pool over a server that hangs up slowly exceeds its limit there.
#[test]
fn a_slot_is_taken_until_the_goodbye_is_over() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_close(Act::After(MS * 500));
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        let uses = (0..6).map(|_| async { pool.acquire().await.unwrap().discard() });
        join_all(uses).await;
        assert_eq!(sim.elapsed(), SECOND, "two at a time, each after the goodbye before it");
        assert_eq!((fake.counts().opened, fake.counts().peak_live), (6, 2));
    });
}

/// A runtime that shuts down takes no task any more.
#[test]
fn close_ends_on_a_runtime_that_drops_every_task() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        drop((pool.acquire().await.unwrap(), pool.acquire().await.unwrap()));
        sim.drop_spawns(1.0);
        assert!(pool.close().await.is_complete());
        assert_eq!((sim.elapsed(), fake.counts().live), (Duration::ZERO, 0));
    });
}

/// The goodbyes go down with it, and the one who waits for them hears of it.
#[test]
fn close_ends_when_the_runtime_does() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        fake.always_close(Act::Hang);
        let ends = async {
            sim.sleep(MS * 100).await;
            sim.end_executor();
        };
        let (report, ()) = join(pool.close(), ends).await;
        assert!(report.is_complete(), "{report}");
        assert_eq!((sim.elapsed(), fake.counts().live), (MS * 100, 0));
    });
}

// Handles.

#[test]
fn a_clone_keeps_the_pool_open() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let clone = pool.clone();
        drop(pool);
        clone.query("SELECT 1", &[]).await.unwrap();
        drop(clone);
        sim.sleep(MS).await;
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (0, 1));
    });
}

#[test]
fn a_borrowed_connection_outlives_the_pool() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        drop(pool);
        sim.sleep(SECOND * 60).await;
        conn.query("SELECT 1", &[]).await.unwrap();
        drop(conn);
        sim.sleep(MS).await;
        assert_eq!((fake.counts().live, fake.counts().goodbyes), (0, 1));
    });
}

// Nothing goes on.

/// Nothing is open, here or on the server, and nothing opens any more.
async fn is_over(sim: &Sim, fake: &Fake, pool: &Pool<Fake>) {
    let now = pool.snapshot();
    assert_eq!((now.open, now.opening, now.waiting), (0, 0, 0), "{now:?}");
    assert_eq!(fake.counts().live, 0);
    let (connects, polls) = (fake.counts().connects, sim.polls());
    sim.sleep(SECOND * 3600).await;
    assert_eq!((fake.counts().connects, fake.counts().live), (connects, 0));
    assert!(sim.polls() - polls < 10, "something still ticks");
}

#[test]
fn nothing_opens_after_a_close_while_the_pool_fills() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::After(MS * 100));
        let pool = pool_of(&fake, &sim, 10).min_idle_conns(10).build_lazy().unwrap();
        sim.sleep(MS * 150).await;
        assert!(pool.close().await.is_complete());
        is_over(&sim, &fake, &pool).await;
    });
}

#[test]
fn a_close_during_an_outage_ends_the_attempts() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::refuse());
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        sim.sleep(SECOND).await;
        assert!(pool.close().await.is_complete());
        assert_eq!(waiter.await.unwrap_err().kind(), ErrorKind::Closed);
        is_over(&sim, &fake, &pool).await;
    });
}

/// Elsewhere a connection that was leaked keeps the close waiting for ever.
#[test]
fn a_leaked_guard_does_not_block_the_close() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 2).build_lazy().unwrap();
        std::mem::forget(pool.acquire().await.unwrap());
        let report = pool.close().await;
        assert_eq!((sim.elapsed(), report.still_held.len()), (Duration::ZERO, 1));
    });
}

#[test]
fn a_close_that_is_never_polled_closes_nothing() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build_lazy().unwrap();
        drop(pool.close());
        assert!(!pool.is_closed());
    });
}

#[test]
fn pools_that_come_and_go_leave_nothing_behind() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        for _ in 0..100 {
            let pool = pool_of(&fake, &sim, 2).min_idle_conns(1).build().await.unwrap();
            drop(pool.acquire().await.unwrap());
        }
        sim.sleep(SECOND).await;
        assert_eq!(fake.counts().live, 0);
        let polls = sim.polls();
        sim.sleep(SECOND * 3600 * 2).await;
        assert!(sim.polls() - polls < 10, "something still ticks");
    });
}

#[test]
fn a_report_of_one_speaks_of_one() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build_lazy().unwrap();
        let _held = pool.acquire().await.unwrap();
        let text = pool.close().await.to_string();
        assert!(text.starts_with("1 connection still held: "), "{text}");
    });
}
