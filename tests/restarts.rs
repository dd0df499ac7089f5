//! The database restarts, is down, comes back: no caller meets a connection
//! from before, and what is down is not stormed.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::poll;
use millpond::drivers::fake::{Act, Fake};
use millpond::testing::sim::Sim;
use millpond::{Builder, Error, ErrorKind, Outcome, Phase, Pool, PooledConnection};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// As many connections at once.
async fn hold(pool: &Pool<Fake>, count: usize) -> Vec<PooledConnection<Fake>> {
    let mut held = Vec::new();
    for _ in 0..count {
        held.push(pool.acquire().await.unwrap());
    }
    held
}

/// Has as many connections lie idle.
async fn fill(pool: &Pool<Fake>, count: usize) {
    drop(hold(pool, count).await);
    assert_eq!(pool.snapshot().idle, count);
}

/// The one text of the answer to a statement.
async fn ask(conn: &mut PooledConnection<Fake>, statement: &str) -> String {
    conn.query(statement, &[]).await.unwrap().scalar().unwrap()
}

/// How long it takes, and what comes out of it.
async fn timed<T>(sim: &Sim, work: impl Future<Output = T>) -> (Duration, T) {
    let start = sim.elapsed();
    let result = work.await;
    (sim.elapsed() - start, result)
}

// Dead without anybody knowing.

#[test]
fn no_caller_meets_a_connection_that_died_while_idle() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let pool = pool_of(&fake, &sim, 10).build_lazy().unwrap();
            for _ in 0..5 {
                fill(&pool, 10).await;
                fake.restart();
                sim.sleep(SECOND * 2).await;
                for result in join_all((0..10).map(|_| pool.acquire())).await {
                    assert_eq!(ask(&mut result.unwrap(), "mine").await, "mine");
                }
            }
        });
    }
}

#[test]
fn one_acquire_clears_away_all_that_died_and_opens_one() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build_lazy().unwrap();
        fill(&pool, 3).await;
        fake.restart();
        sim.sleep(SECOND * 2).await;
        let _conn = pool.acquire().await.unwrap();
        sim.sleep(MS).await;
        assert_eq!((pool.snapshot().open, fake.counts().live), (1, 1));
    });
}

/// Elsewhere each dead connection met starts a limit of its own.
#[test]
fn the_deadline_is_kept_however_many_dead_connections_are_met() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 8).build_lazy().unwrap();
        fill(&pool, 8).await;
        sim.sleep(SECOND * 2).await;
        fake.always_ping(Act::FailAfter(MS * 100, Error::lost("connection reset by peer")));
        fake.always_connect(Act::Hang);
        let (took, result) = timed(&sim, pool.acquire().timeout(MS * 250)).await;
        let kind = result.unwrap_err().kind();
        assert_eq!((took, kind), (MS * 250, ErrorKind::Timeout(Phase::Connecting)));
        assert_eq!((fake.counts().pings, pool.snapshot().open), (8, 0));
    });
}

/// A pool of ten that was busy a moment before the restart.
async fn ten_dead_unknown_to_the_pool(sim: &Sim, fake: &Fake) -> Pool<Fake> {
    let pool = pool_of(fake, sim, 10).build_lazy().unwrap();
    fill(&pool, 10).await;
    fake.restart();
    pool
}

/// Elsewhere the caller is handed one dead connection after another, as many
/// as there are.
#[test]
fn a_query_on_the_pool_survives_a_restart_within_the_unchecked_second() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = ten_dead_unknown_to_the_pool(&sim, &fake).await;
        pool.query("mine", &[]).await.unwrap();
    });
}

#[test]
fn a_change_on_the_pool_survives_a_restart_within_the_unchecked_second() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = ten_dead_unknown_to_the_pool(&sim, &fake).await;
        assert_eq!(pool.execute("change", &[]).await.unwrap(), 1);
    });
}

#[test]
fn a_batch_on_the_pool_survives_a_restart_within_the_unchecked_second() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = ten_dead_unknown_to_the_pool(&sim, &fake).await;
        pool.batch("one; two").await.unwrap();
    });
}

#[test]
fn a_transaction_on_the_pool_survives_a_restart_within_the_unchecked_second() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = ten_dead_unknown_to_the_pool(&sim, &fake).await;
        let mut tx = pool.begin().await.unwrap();
        tx.execute("work", &[]).await.unwrap();
        tx.commit().await.unwrap();
    });
}

#[test]
fn a_dead_connection_met_by_a_query_is_replaced_by_one() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        fill(&pool, 1).await;
        fake.restart();
        pool.query("mine", &[]).await.unwrap();
        sim.sleep(MS).await;
        let now = pool.snapshot();
        assert_eq!((now.open, now.created, now.closed), (1, 2, 1));
        assert_eq!((fake.counts().connects, fake.counts().live), (2, 1));
    });
}

/// The error of a statement whose connection was found dead before it was sent.
fn unsent() -> Act {
    Act::Fail(Error::lost("closed by the server").with_outcome(Outcome::NotSent))
}

#[test]
fn what_was_not_sent_is_tried_again_max_retries_times() {
    Sim::new(1).run(async |sim| {
        for (max_retries, attempts) in [(0, 1), (1, 2), (3, 4)] {
            let fake = Fake::new();
            fake.always_query(unsent());
            let pool = pool_of(&fake, &sim, 2).max_retries(max_retries).build().await.unwrap();
            for failed in [
                pool.query("read", &[]).await.err(),
                pool.execute("write", &[]).await.err(),
                pool.batch("several").await.err(),
                pool.begin().await.err(),
            ] {
                assert_eq!(failed.unwrap().message(), "closed by the server");
            }
            assert_eq!(fake.counts().queries, 4 * attempts, "max_retries = {max_retries}");
        }
    });
}

#[test]
fn the_first_retry_follows_at_once_and_the_others_within_retry_interval() {
    let mut longest = Duration::ZERO;
    for seed in 0..50 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            let pool = pool_of(&fake, &sim, 2).retry_interval(SECOND * 2).build().await.unwrap();
            fake.next_queries([unsent()]);
            let (took, answer) = timed(&sim, pool.query("mine", &[])).await;
            answer.unwrap();
            assert!(took < MS, "{took:?}");
            fake.next_queries([unsent(), unsent()]);
            let (took, answer) = timed(&sim, pool.query("mine", &[])).await;
            answer.unwrap();
            assert!(took <= SECOND * 2 + MS, "{took:?}");
            longest = longest.max(took);
        });
    }
    assert!(longest > SECOND, "never longer than {longest:?}");
}

#[test]
fn what_may_have_taken_effect_is_not_tried_again() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 2).build().await.unwrap();
        fake.next_queries([Act::cut()]);
        pool.query("charge the card", &[]).await.unwrap_err();
        assert_eq!(fake.counts().queries, 1);
    });
}

#[test]
fn callers_at_the_same_time_all_survive_a_restart() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = ten_dead_unknown_to_the_pool(&sim, &fake).await;
        for result in join_all((0..10).map(|_| pool.query("mine", &[]))).await {
            result.unwrap();
        }
    });
}

/// Each idle connection is checked once before it is lent.
async fn all_are_suspect(fake: &Fake, pool: &Pool<Fake>, count: usize) {
    let pings = fake.counts().pings;
    let held = hold(pool, count).await;
    assert_eq!(fake.counts().pings - pings, count as u64);
    drop(held);
}

#[test]
fn one_that_dies_in_use_makes_the_idle_ones_suspect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        fill(&pool, 4).await;
        let mut conn = pool.acquire().await.unwrap();
        fake.next_queries([Act::cut()]);
        conn.query("cut", &[]).await.unwrap_err();
        drop(conn);
        all_are_suspect(&fake, &pool, 3).await;
    });
}

#[test]
fn a_refused_statement_makes_nothing_suspect() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        fill(&pool, 4).await;
        fake.next_queries([Act::reject()]);
        let mut conn = pool.acquire().await.unwrap();
        let id = conn.id();
        conn.query("wrong", &[]).await.unwrap_err();
        drop(conn);
        let again = pool.acquire().await.unwrap();
        assert_eq!((again.id(), fake.counts().pings, pool.snapshot().closed), (id, 0, 0));
    });
}

// Down, and back.

#[test]
fn attempts_on_a_database_that_is_down_lie_within_the_backoff() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::refuse());
            let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
            let mut waiter = pin!(pool.acquire().timeout(SECOND * 600));
            assert!(poll!(&mut waiter).is_pending());
            sim.sleep(MS).await;
            let (mut tried, mut last) = (fake.counts().connects, Duration::ZERO);
            let mut longest = MS * 50;
            while tried < 20 {
                sim.sleep(MS).await;
                let now = fake.counts().connects;
                if now > tried {
                    let gap = sim.elapsed() - last;
                    for _ in tried..now {
                        longest = (longest * 2).min(SECOND);
                    }
                    assert!(gap <= longest, "{gap:?} before attempt {now}");
                    (tried, last) = (now, sim.elapsed());
                }
            }
        });
    }
}

#[test]
fn the_backoff_starts_anew_after_a_success() {
    for seed in 0..20 {
        Sim::new(seed).run(async |sim| {
            let fake = Fake::new();
            fake.always_connect(Act::refuse());
            let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
            pool.acquire().timeout(SECOND * 30).await.unwrap_err();
            fake.always_connect(Act::Answer);
            pool.acquire().await.unwrap().discard();
            sim.sleep(MS).await;
            fake.next_connects([Act::refuse()]);
            let (took, conn) = timed(&sim, pool.acquire()).await;
            assert!(conn.is_ok() && took <= MS * 50, "{took:?}");
        });
    }
}

#[test]
fn a_database_that_nobody_waits_for_is_left_alone() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::refuse());
        let pool = pool_of(&fake, &sim, 4).build_lazy().unwrap();
        pool.acquire().timeout(SECOND * 3).await.unwrap_err();
        let tried = fake.counts().connects;
        sim.sleep(SECOND * 600).await;
        assert_eq!(fake.counts().connects, tried);
    });
}

#[test]
fn a_slot_freed_while_the_database_is_down_is_tried_again_for_the_next_caller() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let conn = pool.acquire().await.unwrap();
        let mut first = pin!(pool.acquire().timeout(SECOND));
        assert!(poll!(&mut first).is_pending());
        let mut second = pin!(pool.acquire().timeout(SECOND * 30));
        assert!(poll!(&mut second).is_pending());
        fake.always_connect(Act::refuse());
        conn.discard();
        let error = first.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        fake.always_connect(Act::Answer);
        assert!(second.await.is_ok());
    });
}

#[test]
fn a_caller_goes_on_when_the_runtime_ends_during_a_backoff() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_connect(Act::refuse());
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let waiter = sim.task({
            let pool = pool.clone();
            async move { pool.acquire().await.is_ok() }
        });
        sim.sleep(SECOND * 3).await;
        sim.end_executor();
        fake.always_connect(Act::Answer);
        assert!(waiter.await);
        assert!(sim.elapsed() <= SECOND * 4);
    });
}
