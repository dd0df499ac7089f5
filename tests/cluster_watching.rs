//! The watcher of a cluster: how long it takes to find what has changed, that it
//! never spins, and that callers are served though its runtime ends or stands
//! still.

#[path = "support/trio.rs"]
mod trio;

use std::time::Duration;

use futures_util::future::{join, join_all};
use millpond::drivers::fake::{Act, Fake};
use millpond::health::HealthConfig;
use millpond::runtime::Runtime;
use millpond::testing::sim::Sim;
use millpond::{Cause, Cluster, Error, Retry, Route};

use trio::{Balky, MS, SECOND, Trio, bring_back, duties, freeze, take_down, with_trio};

/// The wait of callers who come again and again until one is served.
async fn until_served(sim: &Sim, cluster: &Cluster<Fake>, route: Route) -> Duration {
    let start = sim.now();
    while cluster.acquire(route).timeout(SECOND).await.is_err() {
        assert!(sim.now() - start < SECOND * 120, "nobody serves {route}");
        sim.sleep(MS * 100).await;
    }
    sim.now() - start
}

/// How often a caller was sent to the node.
fn picks(cluster: &Cluster<Fake>, name: &str) -> u64 {
    let now = cluster.snapshot();
    now.nodes.iter().find(|node| node.name == name).expect("a node of it").picks
}

/// They slept until their deadlines: nobody told them that nobody watches.
#[test]
fn callers_that_wait_when_the_watchers_runtime_ends_start_another_watcher() {
    with_trio(1, async |sim, trio, cluster| {
        take_down(&trio.a);
        let mut waiters = Vec::new();
        for _ in 0..4 {
            let cluster = cluster.clone();
            let write = async move { cluster.execute("INSERT 1", &[]).await };
            waiters.push(sim.task(write));
        }
        sim.sleep(SECOND * 10).await;
        assert!(duties(&cluster.snapshot()).0.is_empty());
        sim.end_executor();
        trio.promote_b();
        let start = sim.now();
        for written in join_all(waiters).await {
            written.unwrap();
        }
        assert!(sim.now() - start < SECOND * 5, "{:?}", sim.now() - start);
    });
}

/// A watcher that was never polled again kept its office for ever, and the cluster
/// the primary it had.
#[test]
fn a_watcher_whose_runtime_stands_still_is_replaced() {
    Sim::new(2).run(async |sim| {
        let (trio, runtime) = (Trio::new(), Balky::new(&sim));
        let cluster = trio.builder(&sim).runtime(runtime.clone()).build().await.unwrap();
        runtime.come_to_a_stand();
        cluster.execute("INSERT 1", &[]).await.unwrap();
        take_down(&trio.a);
        trio.promote_b();
        let start = sim.now();
        while cluster.execute("INSERT 2", &[]).await.is_err() {
            assert!(sim.now() - start < SECOND * 120, "no write succeeds");
        }
        assert_eq!(duties(&cluster.snapshot()).0, ["b"]);
    });
}

/// They waited for a word of the watcher, of which there was none.
#[test]
fn what_waits_on_a_silent_node_is_given_up_though_the_watcher_is_gone() {
    with_trio(3, async |sim, trio, cluster| {
        drop(join_all((0..4).map(|_| cluster.acquire(Route::Replica))).await);
        let _ice = freeze(&trio.b);
        let mut reads = Vec::new();
        for _ in 0..4 {
            let cluster = cluster.clone();
            let read = async move { cluster.query(Route::Replica, "SELECT 1", &[]).await };
            reads.push(sim.task(read));
        }
        sim.sleep(MS * 50).await;
        sim.end_executor();
        let start = sim.now();
        for read in join_all(reads).await {
            read.unwrap();
        }
        assert!(sim.now() - start < SECOND * 10, "{:?}", sim.now() - start);
    });
}

/// The node was asked again at once, for it was still in doubt.
#[test]
fn a_node_in_doubt_that_refuses_to_tell_its_status_is_not_asked_without_end() {
    with_trio(4, async |sim, trio, cluster| {
        let refused = Error::statement("permission denied");
        trio.a.always_status(Act::FailAfter(MS, refused));
        trio.a.takes_writes(false);
        assert!(cluster.execute("INSERT 1", &[]).await.is_err());
        let before = sim.polls();
        sim.sleep(SECOND * 10).await;
        let polls = sim.polls() - before;
        assert!(polls < 1000, "{polls} polls in ten seconds");
    });
}

/// Without time going by, so that not even the deadline ended it.
#[test]
fn who_is_sent_to_a_node_whose_pool_was_closed_does_not_spin() {
    Sim::new(5).run(async |sim| {
        let (trio, runtime) = (Trio::new(), Balky::new(&sim));
        let cluster = trio.builder(&sim).runtime(runtime).build().await.unwrap();
        cluster.pool("a").unwrap().close().await;
        let start = sim.now();
        let error = cluster.acquire(Route::Primary).timeout(SECOND).await.unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
        assert!(sim.now() - start <= SECOND);
    });
}

/// What was longer than half a second was a silence, whatever the limit was.
#[test]
fn a_node_whose_answers_take_less_than_the_limit_of_a_check_is_not_out() {
    Sim::new(6).run(async |sim| {
        let trio = Trio::new();
        for (_, fake) in trio.all() {
            fake.always_status(Act::After(MS * 600));
        }
        let health = HealthConfig::new().timeout(SECOND * 5);
        let cluster = trio.builder(&sim).health(health).retry(Retry::new()).build().await.unwrap();
        trio.a.next_queries([Act::After(SECOND * 10)]);
        cluster.execute("INSERT 1", &[]).await.unwrap();
    });
}

/// Connects that were refused gave up also what was under way on live sessions,
/// and nobody knew whether it was written.
#[test]
fn a_statement_under_way_is_not_given_up_because_connects_fail() {
    for (seed, act) in [(7, Act::refuse()), (8, Act::deny())] {
        with_trio(seed, async |sim, trio, cluster| {
            drop(cluster.acquire(Route::Primary).await.unwrap());
            trio.a.always_connect(act);
            trio.a.next_queries([Act::After(SECOND * 20)]);
            let others = async {
                sim.sleep(MS * 10).await;
                for _ in 0..6 {
                    drop(cluster.acquire(Route::Primary).timeout(SECOND).await);
                }
            };
            let (done, ()) = join(cluster.execute("INSERT 1", &[]), others).await;
            done.unwrap();
        });
    }
}

/// It was left alone for longer each time, though there was no other.
#[test]
fn a_primary_that_restarts_often_is_found_as_soon_each_time() {
    with_trio(9, async |sim, trio, cluster| {
        for round in 0..8 {
            take_down(&trio.a);
            assert!(cluster.acquire(Route::Primary).timeout(SECOND).await.is_err());
            bring_back(&trio.a);
            let wait = until_served(&sim, &cluster, Route::Primary).await;
            assert!(wait < SECOND * 3, "round {round}: {wait:?}");
            sim.sleep(SECOND * 3).await;
        }
    });
}

/// As with one: the longer, the more often it had happened.
#[test]
fn nodes_that_fall_together_often_are_found_as_soon_each_time() {
    with_trio(10, async |sim, trio, cluster| {
        for round in 0..7 {
            for (_, fake) in trio.all() {
                take_down(fake);
            }
            assert!(cluster.acquire(Route::Any).timeout(SECOND).await.is_err());
            sim.sleep(SECOND).await;
            for (_, fake) in trio.all() {
                bring_back(fake);
            }
            let wait = until_served(&sim, &cluster, Route::Any).await;
            assert!(wait < SECOND * 3, "round {round}: {wait:?}");
            sim.sleep(SECOND * 2).await;
        }
    });
}

/// Two faults are too few for a node to be out, nobody is sent where statements
/// fail, and so it was five seconds until somebody asked again: all that time it
/// counted as used.
#[test]
fn a_node_of_which_two_faults_are_known_is_asked_until_it_is_out() {
    let mut met = 0;
    for seed in 11..41 {
        with_trio(seed, async |sim, trio, cluster| {
            let read = || async { cluster.query(Route::Replica, "SELECT 1", &[]).await };
            join_all((0..8).map(|_| read())).await;
            // The time after a change, in which all are asked all the time, is over.
            sim.sleep(SECOND * 40).await;
            let before = picks(&cluster, "b");
            let leaving = Error::connect("the server is shutting down").with_cause(Cause::Shutdown);
            trio.b.restart().always_connect(Act::Fail(leaving));
            // What its sessions meet counts as one event; here there is none left.
            cluster.pool("b").unwrap().evict();
            read().await.unwrap();
            sim.sleep(SECOND).await;
            if picks(&cluster, "b") > before {
                met += 1;
                assert!(!duties(&cluster.snapshot()).1.contains(&"b"), "seed {seed}");
            }
        });
    }
    assert!(met > 5, "{met}");
}
