//! Several nodes as one: who is sent where, what becomes of callers when a node
//! fails or another one is promoted, and what is said of it.

#[path = "support/trio.rs"]
mod trio;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use millpond::balance::{LeastConnections, Member, RoundRobin};
use millpond::drivers::fake::{Act, Fake};
use millpond::metrics::openmetrics;
use millpond::retry::Replay;
use millpond::runtime::Runtime;
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{
    Cause, Cluster, Error, ErrorKind, Fate, Outcome, Phase, Pool, Retry, Role, Route, Scope,
    TransactionOptions,
};

use trio::{MS, SECOND, Trio, bring_back, duties, freeze, take_down, thaw, with_trio};

async fn node_of(cluster: &Cluster<Fake>, route: Route) -> String {
    cluster.acquire(route).await.unwrap().pool_name().to_owned()
}

/// Waits until the cluster is so.
async fn until(sim: &Sim, what: &str, so: impl Fn() -> bool) -> Duration {
    let start = sim.now();
    while !so() {
        assert!(sim.now() - start < SECOND * 60, "never came: {what}");
        sim.sleep(MS * 5).await;
    }
    sim.now() - start
}

#[test]
fn each_route_leads_to_the_nodes_that_serve_it() {
    with_trio(1, async |_, _, cluster| {
        assert_eq!(duties(&cluster.snapshot()), (vec!["a"], vec!["b", "c"]));
        for (route, nodes) in [
            (Route::Primary, &["a"][..]),
            (Route::Replica, &["b", "c"]),
            (Route::PreferReplica, &["b", "c"]),
            (Route::PreferPrimary, &["a"]),
            (Route::Any, &["a", "b", "c"]),
        ] {
            let mut seen = BTreeMap::<String, u32>::new();
            for _ in 0..300 {
                *seen.entry(node_of(&cluster, route).await).or_default() += 1;
            }
            assert_eq!(seen.keys().collect::<Vec<_>>(), nodes, "{route}");
            let fair = 300 / nodes.len() as u32;
            assert!(seen.values().all(|n| n.abs_diff(fair) < fair / 2), "{route}: {seen:?}");
        }
    });
}

#[test]
fn sessions_on_replicas_refuse_writes_and_those_on_the_primary_do_not() {
    with_trio(1, async |_, trio, cluster| {
        let mut replica = cluster.acquire(Route::Replica).await.unwrap();
        assert!(replica.is_read_only());
        let refused = replica.query("INSERT 1", &[]).await.unwrap_err();
        assert_eq!(refused.cause(), Cause::WrongRole);
        drop(replica);
        let mut primary = cluster.acquire(Route::Primary).await.unwrap();
        assert!(!primary.is_read_only());
        primary.query("INSERT 1", &[]).await.unwrap();
        // A caller's mistake on a replica is no news of it.
        assert_eq!(cluster.snapshot().nodes.iter().map(|node| node.epoch).max(), Some(1));
        assert_eq!(trio.a.place(), 1);
    });
}

#[test]
fn of_callers_at_the_same_time_no_node_gets_all() {
    with_trio(3, async |_, _, cluster| {
        let held = join_all((0..8).map(|_| cluster.acquire(Route::Replica))).await;
        let of = |name: &str| held.iter().flatten().filter(|c| c.pool_name() == name).count();
        assert_eq!((of("b"), of("c")), (4, 4));
        let now = cluster.snapshot();
        assert_eq!(now.nodes.iter().map(|node| node.load).collect::<Vec<_>>(), [0, 4, 4]);
        drop(held);
        let now = cluster.snapshot();
        assert_eq!(now.nodes.iter().map(|node| node.load).collect::<Vec<_>>(), [0, 0, 0]);
    });
}

#[test]
fn a_node_that_is_used_up_is_waited_for_only_if_all_are() {
    with_trio(4, async |sim, _, cluster| {
        let held = join_all((0..8).map(|_| cluster.acquire(Route::PreferReplica))).await;
        // What replicas cannot carry does not fall on the primary.
        let error = cluster.acquire(Route::PreferReplica).timeout(SECOND).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout(Phase::Waiting));
        assert!(error.report().is_some() && error.to_string().contains("4 of 4 in use"), "{error}");
        assert_eq!(cluster.snapshot().node("a").unwrap().picks, 0);
        let start = sim.now();
        let next = cluster.acquire(Route::PreferReplica);
        let (next, ()) = futures_util::future::join(next, async {
            sim.sleep(MS * 100).await;
            drop(held);
        })
        .await;
        assert_eq!((next.is_ok(), sim.now() - start), (true, MS * 100));
    });
}

#[test]
fn a_weight_is_a_share() {
    Sim::new(5).run(async |sim| {
        let pool = || Pool::builder(Fake::new()).max_open_conns(100);
        let cluster = Cluster::builder()
            .member(Member::new("heavy", pool()).weight(3.0))
            .member(Member::new("light", pool()))
            .strategy(LeastConnections)
            .runtime(sim.clone())
            .build()
            .await
            .unwrap();
        sim.sleep(SECOND * 11).await;
        let _held = join_all((0..40).map(|_| cluster.acquire(Route::Any))).await;
        let loads = || cluster.snapshot().nodes.iter().map(|node| node.load).collect::<Vec<_>>();
        assert_eq!(loads(), [30, 10]);
        cluster.set_weight("light", 2.0).unwrap();
        sim.sleep(SECOND).await;
        let _more = join_all((0..10).map(|_| cluster.acquire(Route::Any))).await;
        assert_eq!(loads(), [30, 20]);
    });
}

#[test]
fn a_node_that_refuses_connections_is_out_at_once_and_readers_see_no_error() {
    with_trio(6, async |sim, trio, cluster| {
        let policy = Retry::new();
        for _ in 0..20 {
            cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
        }
        // The last probe was a while ago.
        sim.sleep(SECOND * 40).await;
        take_down(&trio.b);
        let start = sim.now();
        for _ in 0..50 {
            let read = cluster.run(Route::Replica, &policy, |conn| {
                Box::pin(async { conn.query("SELECT 1", &[]).await })
            });
            read.await.unwrap();
            sim.sleep(MS).await;
        }
        assert!(!cluster.snapshot().node("b").unwrap().is_used());
        assert!(sim.now() - start < MS * 100, "{:?}", sim.now() - start);
        assert!(trio.told().iter().any(|line| line.starts_with("b is out")));
        let picks = cluster.snapshot().node("b").unwrap().picks;
        for _ in 0..50 {
            cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
        }
        assert_eq!(cluster.snapshot().node("b").unwrap().picks, picks, "nobody is sent there");
        bring_back(&trio.b);
        let back = until(&sim, "b is used", || cluster.snapshot().node("b").unwrap().is_used());
        assert!(back.await < SECOND * 3 / 2);
        let weight = cluster.snapshot().node("b").unwrap().weight;
        assert!(weight < 0.2, "it comes back slowly: {weight}");
    });
}

#[test]
fn all_connections_of_a_node_may_die_without_the_node_being_put_out() {
    with_trio(7, async |_, trio, cluster| {
        let mut held = join_all((0..8).map(|_| cluster.acquire(Route::Replica))).await;
        trio.b.restart();
        for conn in held.iter_mut().flatten().filter(|conn| conn.pool_name() == "b") {
            conn.query("SELECT 1", &[]).await.unwrap_err();
        }
        drop(held);
        for _ in 0..100 {
            cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
        }
        let now = cluster.snapshot();
        assert_eq!(now.node("b").unwrap().ejections, 0);
        assert!(now.node("b").unwrap().is_used());
    });
}

#[test]
fn a_node_on_which_every_statement_kills_its_connection_is_out_though_it_takes_new_ones() {
    Sim::new(35).run(async |sim| {
        let trio = Trio::new();
        let cluster = trio.builder(&sim).strategy(RoundRobin::new()).build().await.unwrap();
        trio.b.always_query(Act::cut()).always_status(Act::Answer);
        let start = sim.now();
        while cluster.snapshot().node("b").unwrap().is_used() {
            assert!(sim.now() - start < SECOND, "{}", cluster.snapshot());
            // The budget is soon spent; what matters here is how long that goes on.
            let _ = cluster.query(Route::Replica, "SELECT 1", &[]).await;
            sim.sleep(MS * 10).await;
        }
    });
}

/// A server that ends sessions has a last word for those that are at work, which
/// comes as the answer to a statement. Three of them were taken for a node that
/// has gone.
#[test]
fn a_server_that_ends_all_sessions_with_a_word_is_not_put_out() {
    with_trio(7, async |_, trio, cluster| {
        let mut held = join_all((0..8).map(|_| cluster.acquire(Route::Replica))).await;
        let word = Error::statement("terminating connection due to administrator command")
            .with_outcome(Outcome::Unknown)
            .with_fate(Fate::Discard)
            .with_cause(Cause::Shutdown)
            .with_scope(Scope::Connection);
        trio.b.next_queries(vec![Act::Fail(word); 4]);
        for conn in held.iter_mut().flatten().filter(|conn| conn.pool_name() == "b") {
            conn.query("SELECT 1", &[]).await.unwrap_err();
        }
        drop(held);
        for _ in 0..100 {
            cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
        }
        let now = cluster.snapshot();
        assert_eq!(now.node("b").unwrap().ejections, 0);
        assert!(now.node("b").unwrap().is_used());
    });
}

#[test]
fn what_waits_on_a_silent_node_is_given_up_and_done_elsewhere() {
    with_trio(8, async |sim, trio, cluster| {
        for _ in 0..20 {
            cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
        }
        let ice = freeze(&trio.b);
        let start = sim.now();
        let reads = (0..8).map(|_| cluster.query(Route::Replica, "SELECT 1", &[]));
        for read in join_all(reads).await {
            read.unwrap();
        }
        let took = sim.now() - start;
        assert!(took <= MS * 2500, "{took:?}");
        assert!(!cluster.snapshot().node("b").unwrap().is_used());
        let start = sim.now();
        cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
        assert_eq!(sim.now(), start);
        thaw(&trio.b, &ice);
        until(&sim, "b is used", || cluster.snapshot().node("b").unwrap().is_used()).await;
    });
}

#[test]
fn a_caller_who_thinks_for_long_is_no_silence_of_the_node() {
    with_trio(9, async |sim, _, cluster| {
        let held = cluster.acquire(Route::Replica).await.unwrap();
        let name = held.pool_name().to_owned();
        sim.sleep(SECOND * 60).await;
        let now = cluster.snapshot();
        assert_eq!((now.node(&name).unwrap().ejections, now.node(&name).unwrap().load), (0, 1));
    });
}

#[test]
fn a_pool_that_is_used_up_says_nothing_of_its_node() {
    with_trio(10, async |_, _, cluster| {
        let held = join_all((0..8).map(|_| cluster.acquire(Route::Replica))).await;
        for _ in 0..10 {
            cluster.acquire(Route::Replica).timeout(SECOND).await.unwrap_err();
        }
        drop(held);
        let now = cluster.snapshot();
        assert!(now.nodes.iter().all(|node| node.ejections == 0 && node.is_used()), "{now}");
    });
}

#[test]
fn without_replicas_a_reader_gets_the_primary_or_an_error_at_once_with_each_cause() {
    with_trio(11, async |sim, trio, cluster| {
        take_down(&trio.b);
        take_down(&trio.c);
        let start = sim.now();
        cluster.query(Route::PreferReplica, "SELECT 1", &[]).await.unwrap();
        assert!(sim.now() - start <= MS * 100, "{:?}", sim.now() - start);
        let start = sim.now();
        let error = cluster.acquire(Route::Replica).await.unwrap_err();
        assert!(sim.now() - start <= MS * 50, "{:?}", sim.now() - start);
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::NoNode, Outcome::NotSent));
        let causes: Vec<_> =
            error.nodes().iter().map(|(name, error)| format!("{name}: {error}")).collect();
        assert_eq!(causes, ["a: is the primary", "b: connection refused", "c: connection refused"]);
        assert_eq!(error.to_string(), format!("no replica can be used: {}", causes.join("; ")));
    });
}

#[test]
fn writers_wait_for_a_promotion_and_go_on_at_once_after_it() {
    with_trio(12, async |sim, trio, cluster| {
        cluster.execute("INSERT 1", &[]).await.unwrap();
        take_down(&trio.a);
        let start = sim.now();
        let writes = join_all((0..20).map(|_| cluster.execute("INSERT 2", &[])));
        let promotion = async {
            sim.sleep(SECOND * 3).await;
            trio.promote_b();
        };
        let (written, ()) = futures_util::future::join(writes, promotion).await;
        assert!(written.iter().all(Result::is_ok), "{written:?}");
        let took = sim.now() - start - SECOND * 3;
        assert!(took <= MS * 500, "{took:?}");
        assert_eq!(trio.b.place(), 1 + 20);
        assert_eq!(duties(&cluster.snapshot()), (vec!["b"], vec!["c"]));
        let told = trio.told();
        assert!(told.contains(&"b is the primary, and is used for writes".to_owned()), "{told:?}");
    });
}

#[test]
fn a_write_that_was_under_way_when_the_primary_fell_is_unknown_and_not_repeated() {
    with_trio(13, async |sim, trio, cluster| {
        trio.a.always_query(Act::After(MS * 100));
        let write = cluster.execute("INSERT 1", &[]);
        let fall = async {
            sim.sleep(MS * 50).await;
            trio.a.always_query(Act::cut());
            take_down(&trio.a);
            trio.promote_b();
        };
        let (written, ()) = futures_util::future::join(write, fall).await;
        let error = written.unwrap_err();
        assert_eq!((error.outcome(), error.earlier().len()), (Outcome::Unknown, 0), "{error:?}");
        assert!(trio.b.statements().is_empty());
        cluster.execute("INSERT 2", &[]).await.unwrap();
        assert_eq!(trio.b.statements(), ["INSERT 2"]);
    });
}

#[test]
fn one_refused_write_is_enough_to_find_the_new_primary() {
    with_trio(14, async |sim, trio, cluster| {
        // Several connections, all of which would be refused.
        trio.a.tells_role(false);
        let held = join_all((0..4).map(|_| cluster.acquire(Route::Primary))).await;
        drop(held);
        trio.promote_b();
        trio.a.follow(&trio.b).timeline(2);
        let before = trio.a.statements().len();
        let start = sim.now();
        for _ in 0..20 {
            cluster.execute("INSERT 1", &[]).await.unwrap();
        }
        assert_eq!(trio.a.statements().len() - before, 1, "one write per node, not per session");
        assert!(sim.now() - start < MS * 200, "{:?}", sim.now() - start);
        assert_eq!(duties(&cluster.snapshot()), (vec!["b"], vec!["a", "c"]));
        assert_eq!(trio.b.statements().len(), 20);
        // The sessions of the old epoch are gone, and new ones refuse writes.
        for _ in 0..10 {
            let conn = cluster.acquire(Route::Replica).await.unwrap();
            assert!(conn.is_read_only());
        }
    });
}

/// Work that asked who does it was taken to have had an effect, and its refusal
/// came out.
#[test]
fn work_that_looks_at_its_node_is_repeated_on_the_new_primary() {
    with_trio(14, async |_, trio, cluster| {
        trio.a.tells_role(false);
        cluster.execute("INSERT 1", &[]).await.unwrap();
        trio.promote_b();
        trio.a.follow(&trio.b).timeline(2);
        let (policy, seen) = (Retry::new(), Mutex::new(Vec::new()));
        let work = cluster.run(Route::Primary, &policy, |conn| {
            seen.lock().unwrap().push((conn.pool_name().to_owned(), conn.is_read_only()));
            assert_ne!(conn.role(), Some(Role::Replica));
            Box::pin(async { conn.query("INSERT 2", &[]).await })
        });
        work.await.unwrap();
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen, [("a".to_owned(), false), ("b".to_owned(), false)]);
    });
}

#[test]
fn a_session_that_hears_of_another_role_is_not_lent_for_writes() {
    with_trio(15, async |_, trio, cluster| {
        cluster.execute("INSERT 1", &[]).await.unwrap();
        let mut held = cluster.acquire(Route::Primary).await.unwrap();
        trio.promote_b();
        trio.a.follow(&trio.b).timeline(2);
        held.query("SELECT 1", &[]).await.unwrap();
        drop(held);
        let before = trio.a.statements().len();
        cluster.execute("INSERT 2", &[]).await.unwrap();
        assert_eq!(trio.a.statements().len(), before, "it was told, and asked nothing");
        assert_eq!(trio.b.statements(), ["INSERT 2"]);
    });
}

#[test]
fn a_write_that_the_caller_himself_forbade_is_no_news_of_the_primary() {
    with_trio(16, async |sim, trio, cluster| {
        trio.a.next_queries([]);
        let refusal = Error::statement("cannot execute INSERT in a read-only transaction")
            .with_cause(Cause::WrongRole);
        for _ in 0..100 {
            trio.a.next_queries([Act::Fail(refusal.clone())]);
            let mut conn = cluster.acquire(Route::Primary).await.unwrap();
            conn.query("INSERT 1", &[]).await.unwrap_err();
            sim.sleep(MS * 10).await;
        }
        let now = cluster.snapshot();
        assert_eq!((now.node("a").unwrap().epoch, now.primary().unwrap().name.as_str()), (0, "a"));
        assert_eq!(now.node("a").unwrap().pool.created, 1, "no connection was retired for it");
    });
}

#[test]
fn of_two_primaries_the_one_of_the_later_timeline_is_used_and_an_alarm_raised() {
    with_trio(17, async |sim, trio, cluster| {
        cluster.execute("INSERT 1", &[]).await.unwrap();
        take_down(&trio.a);
        trio.promote_b();
        cluster.execute("INSERT 2", &[]).await.unwrap();
        trio.told();
        // The old one comes back and has heard of nothing.
        bring_back(&trio.a);
        sim.sleep(SECOND * 5).await;
        assert_eq!(duties(&cluster.snapshot()), (vec!["b"], vec!["c"]));
        let told = trio.told();
        let alarm = "a takes writes beside b, and is not used".to_owned();
        assert_eq!(told.iter().filter(|line| **line == alarm).count(), 1, "{told:?}");
        for _ in 0..50 {
            cluster.execute("INSERT 3", &[]).await.unwrap();
            cluster.query(Route::Any, "SELECT 1", &[]).await.unwrap();
        }
        assert_eq!(trio.a.statements(), ["INSERT 1"]);
    });
}

#[test]
fn a_replica_that_is_too_far_behind_is_left_out_until_it_has_caught_up() {
    Sim::new(18).run(async |sim| {
        let trio = Trio::new();
        let cluster = trio.builder(&sim).max_lag(SECOND * 10).build().await.unwrap();
        trio.b.pause_replay();
        let writes = async |seconds: u32| {
            for _ in 0..seconds {
                cluster.execute("INSERT 1", &[]).await.unwrap();
                sim.sleep(SECOND).await;
            }
        };
        writes(9).await;
        assert_eq!(duties(&cluster.snapshot()).1, ["b", "c"]);
        writes(12).await;
        for _ in 0..50 {
            assert_eq!(node_of(&cluster, Route::Replica).await, "c");
        }
        let told = trio.told();
        assert!(told.iter().any(|line| line.starts_with("b is ") && line.ends_with(" behind")));
        // With no other replica there is still the primary, and then an old answer.
        trio.c.pause_replay();
        writes(20).await;
        assert_eq!(node_of(&cluster, Route::PreferReplica).await, "a");
        let error = cluster.acquire(Route::Replica).await.unwrap_err();
        assert!(error.to_string().contains("behind"), "{error}");
        take_down(&trio.a);
        sim.sleep(SECOND).await;
        cluster.query(Route::PreferReplica, "SELECT 1", &[]).await.unwrap();
        bring_back(&trio.a);
        trio.b.resume_replay();
        trio.c.resume_replay();
        sim.sleep(SECOND * 7).await;
        cluster.acquire(Route::Replica.max_lag(SECOND)).await.unwrap();
        assert!(trio.told().contains(&"b has caught up".to_owned()));
    });
}

#[test]
fn a_primary_that_idles_makes_no_replica_lag() {
    Sim::new(19).run(async |sim| {
        let trio = Trio::new();
        let cluster = trio.builder(&sim).max_lag(SECOND).build().await.unwrap();
        for second in 0..60 {
            trio.b.lags(SECOND * second);
            trio.c.lags(SECOND * second);
            sim.sleep(SECOND).await;
            assert_eq!(duties(&cluster.snapshot()).1, ["b", "c"]);
        }
    });
}

#[test]
fn who_reads_after_a_position_sees_what_was_written_before_it() {
    with_trio(20, async |sim, trio, cluster| {
        cluster.execute("INSERT 1", &[]).await.unwrap();
        let first = cluster.position().await.unwrap();
        trio.b.pause_replay();
        cluster.execute("INSERT 2", &[]).await.unwrap();
        let second = cluster.position().await.unwrap();
        for _ in 0..20 {
            let conn = cluster.acquire(Route::PreferReplica.after(&second)).await.unwrap();
            assert_eq!(conn.pool_name(), "c");
        }
        trio.c.pause_replay();
        cluster.execute("INSERT 3", &[]).await.unwrap();
        let third = cluster.position().await.unwrap();
        for _ in 0..20 {
            let conn = cluster.acquire(Route::PreferReplica.after(&third)).await.unwrap();
            assert_eq!(conn.pool_name(), "a", "no replica has come so far");
            cluster.acquire(Route::Replica.after(&first)).await.unwrap();
        }
        let catch_up = async {
            sim.sleep(SECOND).await;
            trio.b.resume_replay();
            trio.c.resume_replay();
        };
        let start = sim.now();
        let read = cluster.acquire(Route::Replica.after(&third));
        let (read, ()) = futures_util::future::join(read, catch_up).await;
        read.unwrap();
        assert!(sim.now() - start < MS * 1100, "it waits for a replica to come so far");
        let error =
            cluster.acquire(Route::Replica.after(&"nonsense".parse().unwrap())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    });
}

#[test]
fn statements_work_and_transactions_go_where_a_position_can_be_read() {
    with_trio(42, async |sim, trio, cluster| {
        // Both are slower than the primary.
        for replica in [&trio.b, &trio.c] {
            replica.always_query(Act::After(MS * 5));
            replica.pause_replay();
        }
        cluster.execute("INSERT 1", &[]).await.unwrap();
        let position = cluster.position().await.unwrap();
        let policy = Retry::new().max_attempts(1);
        let near = || Route::PreferReplica.after(&position);
        let served = |name: &str| {
            let now = cluster.snapshot();
            now.nodes.iter().find(|node| node.name == name).expect("a node of it").picks
        };
        for caught_up in [false, true] {
            if caught_up {
                trio.c.resume_replay();
                sim.sleep(SECOND).await;
            }
            let expected = if caught_up { "c" } else { "a" };
            let before = served(expected);
            cluster.query(near(), "SELECT 1", &[]).await.unwrap();
            assert!(served(expected) > before, "{expected}");
            let work = cluster.run(near(), &policy, |conn| {
                let name = conn.pool_name().to_owned();
                Box::pin(async move { Ok(name) })
            });
            assert_eq!(work.await.unwrap(), expected);
            let read = cluster
                .transaction(&policy, |tx| Box::pin(async move { Ok(tx.pool_name().to_owned()) }));
            assert_eq!(read.route(near()).await.unwrap(), expected);
        }
        // The wait is bounded as any other.
        trio.c.pause_replay();
        cluster.execute("INSERT 2", &[]).await.unwrap();
        let next = cluster.position().await.unwrap();
        let start = sim.now();
        let error = cluster.query(Route::Replica.after(&next), "SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoNode, "{error}");
        assert!(error.to_string().contains("has not reached"), "{error}");
        assert!(sim.now() - start < SECOND * 31, "{:?}", sim.now() - start);
        let error = cluster.acquire(Route::Replica.max_lag(Duration::ZERO).after(&next));
        error.timeout(SECOND).await.unwrap_err();
    });
}

#[test]
fn a_transaction_is_repeated_on_the_new_primary_and_committed_once() {
    with_trio(21, async |sim, trio, cluster| {
        let policy = Retry::new();
        let work = cluster.transaction(&policy, |tx| {
            Box::pin(async {
                tx.execute("INSERT 1", &[]).await?;
                sim.sleep(MS * 100).await;
                tx.execute("INSERT 2", &[]).await
            })
        });
        let fall = async {
            sim.sleep(MS * 50).await;
            take_down(&trio.a);
            sim.sleep(SECOND).await;
            trio.promote_b();
        };
        let (done, ()) = futures_util::future::join(work.into_future(), fall).await;
        done.unwrap();
        assert_eq!(trio.b.statements(), ["BEGIN", "INSERT 1", "INSERT 2", "COMMIT"]);
    });
}

/// It counted as work done, and the statement was not tried elsewhere.
#[test]
fn who_looks_at_a_connection_has_not_worked_on_it() {
    with_trio(36, async |_, trio, cluster| {
        let policy = Retry::new();
        cluster.execute("INSERT 1", &[]).await.unwrap();
        trio.a.restart();
        let mut nodes = Vec::new();
        let write = cluster.run(Route::Primary, &policy, |conn| {
            nodes.push((conn.pool_name().to_owned(), conn.is_read_only(), conn.info().uses));
            Box::pin(async { conn.execute("INSERT 2", &[]).await })
        });
        write.await.unwrap();
        assert_eq!(nodes.len(), 2, "the first was dead before it was used");
    });
}

#[test]
fn a_transaction_that_reads_may_run_on_a_replica() {
    with_trio(22, async |_, trio, cluster| {
        let policy = Retry::new();
        cluster
            .transaction(&policy, |tx| Box::pin(async { tx.query("SELECT 1", &[]).await }))
            .route(Route::Replica)
            .options(TransactionOptions::new().access(millpond::AccessMode::ReadOnly))
            .await
            .unwrap();
        assert!(trio.a.statements().is_empty());
    });
}

#[test]
fn reads_on_the_primary_are_repeated_only_if_that_is_said_to_be_harmless() {
    with_trio(23, async |_, trio, cluster| {
        trio.a.next_queries([Act::cut(), Act::cut()]);
        let error = cluster.query(Route::Primary, "SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        let policy = Retry::new().replay(Replay::Idempotent);
        let read = cluster.run(Route::Primary, &policy, |conn| {
            Box::pin(async { conn.query("SELECT 1", &[]).await })
        });
        read.await.unwrap();
    });
}

#[test]
fn nodes_join_and_leave_a_running_cluster() {
    with_trio(24, async |sim, trio, cluster| {
        let d = Fake::new();
        d.follow(&trio.a).of_cluster("7");
        let member = || Member::new("d", Pool::builder(d.clone()).max_open_conns(4));
        cluster.join(member()).unwrap();
        let error = cluster.join(member()).unwrap_err();
        assert_eq!(error.to_string(), "invalid cluster: d: is given twice");
        until(&sim, "d is used", || cluster.snapshot().node("d").unwrap().is_used()).await;
        sim.sleep(SECOND * 11).await;
        let held = join_all((0..12).map(|_| cluster.acquire(Route::Replica))).await;
        assert_eq!(cluster.snapshot().node("d").unwrap().load, 4);
        let report = cluster.leave("d").await.unwrap();
        assert_eq!(report.still_held.len(), 4, "{report:?}");
        drop(held);
        for _ in 0..20 {
            assert_ne!(node_of(&cluster, Route::Replica).await, "d");
        }
        let error = cluster.leave("d").await.unwrap_err().to_string();
        assert!(error.contains("which are a, b, c"), "{error}");
        sim.sleep(SECOND * 2).await;
        assert_eq!(d.counts().live, 0, "its probe is gone as well");
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_every_fault() {
    Sim::new(25).run(async |sim| {
        let error = Cluster::<Fake>::builder().runtime(sim.clone()).build().await.unwrap_err();
        assert_eq!(error.to_string(), "invalid cluster: nodes: there must be at least one");
        let pool = || Pool::builder(Fake::new());
        let error = Cluster::builder()
            .node("a", pool())
            .node("a", pool())
            .member(Member::new("b", pool()).weight(-1.0))
            .member(Member::new("c", pool()).weight(f64::NAN))
            .node("", pool())
            .max_lag(Duration::ZERO)
            .retry(Retry::new().max_attempts(0))
            .runtime(sim.clone())
            .build()
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let told = error.to_string();
        for fault in [
            "a: is given twice",
            "b.weight = -1.0: must be from 0.001 to 1000",
            "c.weight = NaN: must be from 0.001 to 1000",
            "name = \"\": must not be empty",
            "max_lag = 0ns: must be above 0",
            "max_attempts = 0: must be at least 1",
        ] {
            assert!(told.contains(fault), "{fault:?} in {told}");
        }
    });
}

#[test]
fn a_cluster_none_of_whose_nodes_answers_is_not_built_and_says_why() {
    Sim::new(26).run(async |sim| {
        let trio = Trio::new();
        take_down(&trio.a);
        trio.b.always_connect(Act::deny());
        let _ice = freeze(&trio.c);
        let error = trio.builder(&sim).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoNode);
        assert_eq!(
            error.to_string(),
            "no node can be used: a: connection refused; b: password authentication failed; \
             c: no answer within 1s"
        );
    });
}

#[test]
fn a_node_of_another_cluster_is_refused_at_first_and_an_alarm_later() {
    Sim::new(27).run(async |sim| {
        let trio = Trio::new();
        trio.c.of_cluster("8");
        let error = trio.builder(&sim).build().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid cluster: c: belongs to another cluster than the others"
        );
        trio.c.of_cluster("7");
        let cluster = trio.cluster(&sim).await;
        trio.c.of_cluster("8");
        sim.sleep(SECOND * 7).await;
        assert_eq!(duties(&cluster.snapshot()).1, ["b"]);
        let alarm = "c is of cluster 8, not 7, and is not used".to_owned();
        assert!(trio.told().contains(&alarm));
    });
}

#[test]
fn a_closed_cluster_lends_nothing_and_leaves_nothing() {
    with_trio(28, async |sim, trio, cluster| {
        let held = cluster.acquire(Route::Primary).await.unwrap();
        take_down(&trio.b);
        take_down(&trio.c);
        let waiting = cluster.acquire(Route::Primary);
        let reports = cluster.close().await;
        assert_eq!(reports.len(), 3);
        assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
        let error = cluster.acquire(Route::Any).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        drop((held, cluster));
        sim.sleep(SECOND * 2).await;
        assert_eq!(trio.all().map(|(_, fake)| fake.counts().live), [0, 0, 0]);
    });
}

/// That of the probes stayed open until the last handle was dropped.
#[test]
fn a_closed_cluster_keeps_no_connection_open_though_a_handle_lives_on() {
    with_trio(28, async |sim, trio, cluster| {
        assert!(trio.all().iter().all(|(_, fake)| fake.counts().live > 0));
        cluster.close().await;
        sim.sleep(SECOND * 2).await;
        assert_eq!(trio.all().map(|(_, fake)| fake.counts().live), [0, 0, 0]);
        assert!(cluster.snapshot().nodes.iter().all(|node| node.pool.is_closed));
    });
}

#[test]
fn a_cluster_that_is_dropped_leaves_no_connection_and_no_task() {
    Sim::new(29).run(async |sim| {
        let trio = Trio::new();
        let cluster = trio.cluster(&sim).await;
        for _ in 0..10 {
            cluster.query(Route::Any, "SELECT 1", &[]).await.unwrap();
        }
        drop(cluster);
        sim.sleep(SECOND * 2).await;
        assert_eq!(trio.all().map(|(_, fake)| fake.counts().live), [0, 0, 0]);
    });
}

#[test]
fn callers_cancelled_anywhere_leave_no_load_behind() {
    for polls in 0..60 {
        with_trio(30 + polls, async |sim, trio, cluster| {
            let calls = (0..12).map(|n| {
                let cluster = cluster.clone();
                let route = [Route::Primary, Route::Replica, Route::PreferReplica][n % 3];
                sim.task(async move {
                    cancel_after(polls, async {
                        let mut conn = cluster.acquire(route).await?;
                        conn.query("SELECT 1", &[]).await
                    })
                    .await
                })
            });
            let calls: Vec<_> = calls.collect();
            if polls % 2 == 0 {
                take_down(&trio.b);
            }
            join_all(calls).await;
            sim.sleep(SECOND * 3).await;
            let loads: Vec<_> = cluster.snapshot().nodes.iter().map(|node| node.load).collect();
            assert_eq!(loads, [0, 0, 0]);
        });
    }
}

#[test]
fn turns_go_round_whatever_else_there_is() {
    Sim::new(31).run(async |sim| {
        let trio = Trio::new();
        let cluster = trio.builder(&sim).strategy(RoundRobin::new()).build().await.unwrap();
        sim.sleep(SECOND * 11).await;
        let mut names = Vec::new();
        for _ in 0..10 {
            names.push(node_of(&cluster, Route::Replica).await);
        }
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    });
}

#[test]
fn a_node_without_room_for_connections_goes_on_with_those_it_has() {
    with_trio(32, async |sim, trio, cluster| {
        let held = join_all((0..2).map(|_| cluster.acquire(Route::Primary))).await;
        drop(held);
        let full = Error::connect("too many clients").with_cause(Cause::Overload);
        trio.a.always_connect(Act::Fail(full));
        let connects = trio.a.counts().connects;
        let start = sim.now();
        let writes = (0..40).map(|_| cluster.execute("INSERT 1", &[]));
        for written in join_all(writes).await {
            written.unwrap();
        }
        sim.sleep(SECOND * 10).await;
        assert!(cluster.snapshot().node("a").unwrap().is_used());
        let seconds = (sim.now() - start).as_secs();
        let tried = trio.a.counts().connects - connects;
        assert!(tried <= 2 * seconds, "{tried} connects in {seconds} s");
    });
}

#[test]
fn a_flapping_node_is_left_alone_for_longer_each_time() {
    with_trio(33, async |sim, trio, cluster| {
        for second in 0..60 {
            match second % 2 {
                0 => take_down(&trio.b),
                _ => bring_back(&trio.b),
            }
            for _ in 0..100 {
                cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
                sim.sleep(MS * 10).await;
            }
        }
        let out = cluster.snapshot().node("b").unwrap().ejections;
        assert!((2..=8).contains(&out), "{out} times in a minute");
    });
}

#[test]
fn an_outage_of_all_nodes_gets_little_more_than_one_attempt_for_each_request() {
    with_trio(34, async |sim, trio, cluster| {
        for (_, fake) in trio.all() {
            fake.always_query(Act::cut());
        }
        let policy = Retry::new().replay(Replay::Idempotent).max_attempts(4);
        let (mut requests, start) = (0_u64, sim.now());
        while sim.now() - start < SECOND * 60 {
            let read = cluster.run(Route::Any, &policy, |conn| {
                Box::pin(async { conn.query("SELECT 1", &[]).await })
            });
            assert!(read.await.is_err());
            requests += 1;
            sim.sleep(MS * 5).await;
        }
        let retries = cluster.snapshot().retries;
        // A tenth of the requests, and what time and the reserve give.
        assert!(retries <= requests / 10 + 70 + 600, "{retries} retries of {requests}");
        for (_, fake) in trio.all() {
            fake.always_query(Act::Answer);
        }
        let start = sim.now();
        while cluster.query(Route::Any, "SELECT 1", &[]).await.is_err() {
            sim.sleep(MS * 10).await;
        }
        assert!(sim.now() - start < SECOND * 2, "{:?}", sim.now() - start);
    });
}

#[test]
fn the_numbers_of_nodes_and_pools_are_exported_together_and_each_name_once() {
    with_trio(37, async |_, _, cluster| {
        cluster.execute("INSERT 1", &[]).await.unwrap();
        cluster.query(Route::Replica, "SELECT 1", &[]).await.unwrap();
        let text = openmetrics(&[&cluster]);
        for line in [
            "millpond_node_writable{db_client_connection_pool_name=\"a\"} 1",
            "millpond_node_writable{db_client_connection_pool_name=\"b\"} 0",
            "millpond_node_role{db_client_connection_pool_name=\"c\",\
             millpond_node_role=\"replica\"} 1",
            "millpond_acquired_total{db_client_connection_pool_name=\"a\"} 1",
            "millpond_node_picks_total{db_client_connection_pool_name=\"a\"} 1",
            "# UNIT millpond_node_cost_microseconds microseconds",
            "# UNIT millpond_node_lag_milliseconds milliseconds",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} in:\n{text}");
        }
        let mut families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let count = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), count);
        assert!(!text.contains("db_client_connection_pool_name=\"fake\""));
    });
}

#[test]
fn a_batch_and_a_transaction_of_its_own_go_to_the_primary() {
    with_trio(44, async |_sim, trio, cluster| {
        cluster.batch("CREATE TABLE visit (n int)").await.unwrap();
        let mut tx = cluster.begin().await.unwrap();
        assert_eq!(tx.pool_name(), "a");
        tx.execute("INSERT INTO visit VALUES (1)", &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(
            trio.a.statements(),
            ["CREATE TABLE visit (n int)", "BEGIN", "INSERT INTO visit VALUES (1)", "COMMIT"]
        );
        assert!(!cluster.is_closed());
        cluster.close().await;
        assert!(cluster.is_closed());
        assert_eq!(cluster.begin().await.unwrap_err().kind(), ErrorKind::Closed);
    });
}

#[test]
fn a_cluster_is_ready_for_what_a_node_serves() {
    with_trio(45, async |sim, trio, cluster| {
        let routes = [
            Route::Primary,
            Route::Replica,
            Route::PreferReplica,
            Route::PreferPrimary,
            Route::Any,
        ];
        let ready = || routes.map(|route| cluster.is_ready(route));
        assert_eq!(ready(), [true; 5]);
        take_down(&trio.a);
        assert!(cluster.acquire(Route::Primary).timeout(SECOND * 5).await.is_err());
        assert_eq!(ready(), [false, true, true, true, true], "without a primary");
        bring_back(&trio.a);
        drop(cluster.acquire(Route::Primary).await.unwrap());
        for replica in [&trio.b, &trio.c] {
            take_down(replica);
        }
        until(&sim, "no replica", || !cluster.is_ready(Route::Replica)).await;
        assert_eq!(ready(), [true, false, true, true, true], "without a replica");
        cluster.close().await;
        assert_eq!(ready(), [false; 5]);
    });
}
