//! Who is served next: callers in order of arrival, and nobody overtakes,
//! however a connection becomes free.

use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{join_all, poll_fn};
use futures_util::poll;
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::testing::cancel::cancel_when_woken;
use millpond::testing::sim::{JoinHandle, Sim};
use millpond::{Builder, ErrorKind, Phase, Pool};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn pool_of(fake: &Fake, sim: &Sim, max_open: usize) -> Builder<Fake> {
    Pool::builder(fake.clone()).max_open_conns(max_open).runtime(sim.clone())
}

/// Callers by number, in the order in which they were served, and when.
#[derive(Clone, Default)]
struct Served(Arc<Mutex<Vec<(u32, Duration)>>>);

impl Served {
    /// Another caller joins the queue, is behind all before it when this
    /// returns, and keeps what it gets for a millisecond.
    async fn queue(&self, sim: &Sim, pool: &Pool<Fake>, number: u32) -> JoinHandle<()> {
        let (served, world, shared) = (self.clone(), sim.clone(), pool.clone());
        let before = pool.snapshot().waiting;
        let caller = sim.task(async move {
            let conn = shared.acquire().await.unwrap();
            served.note(&world, number);
            world.sleep(MILLISECOND).await;
            drop(conn);
        });
        sim.sleep(MILLISECOND).await;
        assert_eq!(pool.snapshot().waiting, before + 1);
        caller
    }

    fn note(&self, sim: &Sim, number: u32) {
        self.0.lock().unwrap().push((number, sim.elapsed()));
    }

    fn numbers(&self) -> Vec<u32> {
        self.0.lock().unwrap().iter().map(|(number, _)| *number).collect()
    }

    fn times(&self) -> Vec<Duration> {
        self.0.lock().unwrap().iter().map(|(_, at)| *at).collect()
    }
}

#[test]
fn callers_are_served_in_order_of_arrival() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
            let held = pool.acquire().await.unwrap();
            let served = Served::default();
            let mut callers = Vec::new();
            for number in 0..20 {
                callers.push(served.queue(&sim, &pool, number).await);
            }
            let start = sim.elapsed();
            drop(held);
            join_all(callers).await;
            assert_eq!(served.numbers(), Vec::from_iter(0..20));
            let times: Vec<_> = (0..20).map(|n| start + MILLISECOND * n).collect();
            assert_eq!(served.times(), times, "and each at once after the one before");
        });
    }
}

#[test]
fn a_releaser_that_acquires_again_at_once_does_not_overtake() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
            let held = pool.acquire().await.unwrap();
            let served = Served::default();
            let first = served.queue(&sim, &pool, 1).await;
            let second = served.queue(&sim, &pool, 2).await;
            drop(held);
            drop(pool.acquire().await.unwrap());
            served.note(&sim, 3);
            join_all([first, second]).await;
            assert_eq!(served.numbers(), [1, 2, 3]);
        });
    }
}

#[test]
fn a_waiter_that_gave_up_is_skipped() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut first = Box::pin(pool.acquire());
        let mut second = Box::pin(pool.acquire());
        let mut third = Box::pin(pool.acquire());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());
        assert!(poll!(&mut third).is_pending());
        drop((first, second));
        assert_eq!(pool.snapshot().waiting, 1);
        drop(held);
        assert!(poll!(&mut third).is_ready());
    });
}

#[test]
fn a_waiter_dropped_after_it_was_woken_passes_the_connection_on() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
            let held = pool.acquire().await.unwrap();
            let shared = pool.clone();
            let quitter =
                sim.task(async move { cancel_when_woken(1, shared.acquire()).await.is_none() });
            sim.sleep(MILLISECOND).await;
            let served = Served::default();
            let next = served.queue(&sim, &pool, 1).await;
            let start = sim.elapsed();
            drop(held);
            assert!(quitter.await, "woken and gone");
            next.await;
            assert_eq!(served.times(), [start]);
        });
    }
}

#[test]
fn sixty_four_that_give_up_before_each_hand_over_delay_nobody() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        for _ in 0..100 {
            let held = pool.acquire().await.unwrap();
            let mut quitters: Vec<_> = (0..64).map(|_| Box::pin(pool.acquire())).collect();
            for quitter in &mut quitters {
                assert!(poll!(quitter).is_pending());
            }
            let mut waiter = pin!(pool.acquire());
            assert!(poll!(&mut waiter).is_pending());
            // Half of them leave before the return, half are passed over by it.
            quitters.truncate(32);
            drop(held);
            drop(quitters);
            assert!(poll!(&mut waiter).is_ready());
        }
        assert_eq!((sim.elapsed(), pool.snapshot().waiting), (Duration::ZERO, 0));
    });
}

#[test]
fn two_returns_in_one_instant_serve_two_waiters() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 2).build().await.unwrap();
            let held = (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
            let served = Served::default();
            let first = served.queue(&sim, &pool, 1).await;
            let second = served.queue(&sim, &pool, 2).await;
            let start = sim.elapsed();
            drop(held);
            join_all([first, second]).await;
            assert_eq!(served.times(), [start, start]);
        });
    }
}

#[test]
fn a_discarded_connection_makes_room_for_a_waiter() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.always_close(Act::After(SECOND / 4));
        let pool = pool_of(&fake, &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        held.discard();
        assert_eq!(waiter.await.unwrap().id(), 2);
        assert_eq!(sim.elapsed(), SECOND / 4, "once the goodbye is said");
        assert_eq!(fake.counts().peak_live, 1);
    });
}

#[test]
fn waiters_get_in_order_the_connects_that_succeed_after_one_that_failed() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        fake.next_connects([Act::refuse()]).always_connect(Act::After(SECOND));
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let served = Served::default();
        let first = served.queue(&sim, &pool, 1).await;
        let second = served.queue(&sim, &pool, 2).await;
        join_all([first, second]).await;
        assert_eq!(served.numbers(), [1, 2]);
        let times = served.times();
        assert!(times[0] >= SECOND && times[0] <= SECOND + SECOND / 20, "{times:?}");
        assert_eq!(times[1], times[0] + MILLISECOND);
        assert_eq!(fake.counts().connects, 2);
    });
}

#[test]
fn a_connection_that_comes_back_expired_makes_room_for_a_waiter() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 1).conn_max_lifetime(SECOND * 60).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        sim.sleep(SECOND * 61).await;
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        drop(held);
        assert_eq!(waiter.await.unwrap().id(), 2);
        assert_eq!(sim.elapsed(), SECOND * 61);
        assert_eq!(fake.counts().peak_live, 1);
    });
}

#[test]
fn a_connection_handed_to_a_waiter_is_not_for_a_newcomer() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut waiter = pin!(pool.acquire());
        assert!(poll!(&mut waiter).is_pending());
        drop(held);
        assert!(pool.try_acquire().is_none());
        let error = pool.acquire().timeout(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Waiting));
        let mut newcomer = pin!(pool.acquire());
        assert!(poll!(&mut newcomer).is_pending());
        assert!(poll!(&mut waiter).is_ready(), "its own, polled last or not");
        assert!(newcomer.await.is_ok());
    });
}

#[test]
fn a_connection_opened_for_a_waiter_is_not_for_a_newcomer() {
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let gate = Gate::new();
        fake.always_connect(Act::Wait(gate.clone()));
        let pool = pool_of(&fake, &sim, 1).build_lazy().unwrap();
        let served = Served::default();
        let waiter = served.queue(&sim, &pool, 1).await;
        assert!(pool.try_acquire().is_none());
        gate.open();
        assert!(pool.try_acquire().is_none());
        let error = pool.acquire().timeout(Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Connecting));
        waiter.await;
        assert_eq!(pool.snapshot().waiting, 0);
        assert!(pool.try_acquire().is_some());
    });
}

#[test]
fn more_than_max_waiters_are_turned_away_at_once() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).max_waiters(2).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        let mut first = Box::pin(pool.acquire());
        let mut second = Box::pin(pool.acquire());
        assert!(poll!(&mut first).is_pending());
        assert!(poll!(&mut second).is_pending());

        let error = pool.acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        assert_eq!(error.to_string(), "2 callers wait for a connection already (max_waiters)");
        assert_eq!((sim.elapsed(), pool.snapshot().overloads), (Duration::ZERO, 1));

        drop(first);
        let mut third = Box::pin(pool.acquire());
        assert!(poll!(&mut third).is_pending(), "in the place of the one that left");
        assert_eq!(pool.acquire().await.unwrap_err().kind(), ErrorKind::Overloaded);

        drop(held);
        let mut fourth = Box::pin(pool.acquire());
        assert!(poll!(&mut fourth).is_pending(), "in the place of the one that was served");
        assert_eq!(pool.acquire().await.unwrap_err().kind(), ErrorKind::Overloaded);

        drop(second.await.unwrap());
        drop(third.await.unwrap());
        drop(fourth.await.unwrap());
        assert_eq!((pool.snapshot().overloads, pool.snapshot().idle), (3, 1));
    });
}

#[test]
fn with_no_waiters_allowed_a_free_connection_is_still_lent() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 1).max_waiters(0).build().await.unwrap();
        let held = pool.acquire().await.unwrap();
        assert_eq!(pool.acquire().await.unwrap_err().kind(), ErrorKind::Overloaded);
        drop(held);
        assert!(pool.acquire().await.is_ok());
    });
}

#[test]
fn a_queue_of_25_000_on_three_connections_is_served() {
    const CALLERS: u32 = 25_000;
    Sim::new(1).run(async |sim| {
        let fake = Fake::new();
        let pool = pool_of(&fake, &sim, 3).build().await.unwrap();
        let calls = (0..CALLERS).map(|_| async {
            let conn = pool.acquire().await.unwrap();
            sim.sleep(MILLISECOND).await;
            drop(conn);
        });
        join_all(calls).await;
        assert_eq!(sim.elapsed(), MILLISECOND * CALLERS.div_ceil(3), "without a gap");
        let end = pool.snapshot();
        assert_eq!((end.acquired, end.idle, end.waiting), (u64::from(CALLERS), 3, 0));
        assert_eq!(fake.counts().opened, 3);
    });
}

/// One group gives back and comes again at once, the other rests in between.
#[test]
fn two_groups_that_compete_get_equal_shares() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 2).build().await.unwrap();
            let end = SECOND;
            let callers = (0..16).map(|number: u32| {
                let (world, pool) = (sim.clone(), pool.clone());
                sim.task(async move {
                    let mut turns = 0;
                    while world.elapsed() < end {
                        let conn = pool.acquire().await.unwrap();
                        world.sleep(MILLISECOND).await;
                        drop(conn);
                        turns += 1;
                        if number % 2 == 1 {
                            yield_now().await;
                        }
                    }
                    turns
                })
            });
            let turns: Vec<u32> = join_all(callers.collect::<Vec<_>>()).await;
            let (fewest, most) = (turns.iter().min().unwrap(), turns.iter().max().unwrap());
            assert!(most - fewest <= 2, "{turns:?}");
        });
    }
}

/// Callers that gave up leave no backlog that would make later ones late.
#[test]
fn timeouts_stop_as_soon_as_the_load_falls_below_capacity() {
    for seed in 0..10 {
        Sim::new(seed).run(async |sim| {
            let pool = pool_of(&Fake::new(), &sim, 4)
                .acquire_timeout(MILLISECOND * 15)
                .build()
                .await
                .unwrap();
            let callers = async |count: usize, uses| {
                let callers = (0..count).map(|_| {
                    let (world, pool) = (sim.clone(), pool.clone());
                    sim.task(async move {
                        for _ in 0..uses {
                            if let Ok(_conn) = pool.acquire().await {
                                world.sleep(MILLISECOND * 10).await;
                            }
                        }
                    })
                });
                join_all(callers.collect::<Vec<_>>()).await;
                pool.snapshot().timeouts
            };
            let under_load = callers(20, 10).await;
            assert!(under_load > 50, "{under_load} timeouts");
            assert_eq!(callers(4, 25).await, under_load, "of the next hundred none is late");
        });
    }
}

/// Lets every task run that is ready.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

#[test]
fn the_connection_used_last_is_lent_first() {
    Sim::new(1).run(async |sim| {
        let pool = pool_of(&Fake::new(), &sim, 3).build().await.unwrap();
        let first = pool.acquire().await.unwrap();
        let second = pool.acquire().await.unwrap();
        let third = pool.acquire().await.unwrap();
        assert_eq!([first.id(), second.id(), third.id()], [1, 2, 3]);
        drop(second);
        drop(first);
        drop(third);
        let again = [
            pool.acquire().await.unwrap(),
            pool.acquire().await.unwrap(),
            pool.acquire().await.unwrap(),
        ];
        assert_eq!(again.map(|conn| conn.id()), [3, 1, 2]);
    });
}
