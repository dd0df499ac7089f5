//! Clusters in worlds full of trouble: nodes that fall, freeze, change their
//! roles and come back, while callers come, give up and are cancelled. Whatever
//! happens, nothing is lost, nothing is written twice, and it all works again.

#[path = "support/trio.rs"]
mod trio;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::join_all;
use millpond::balance::Member;
use millpond::drivers::fake::{Act, Fake, Gate};
use millpond::testing::cancel::cancel_after;
use millpond::testing::sim::Sim;
use millpond::{Cluster, Outcome, Pool, Retry, Role, Route};

use trio::{MS, SECOND, Trio, bring_back, duties, freeze, take_down, thaw};

/// What became of the writes, by their numbers.
#[derive(Default)]
struct Ledger {
    next: AtomicU64,
    /// Those that succeeded, and those of which nobody knows.
    done: std::sync::Mutex<BTreeMap<u64, bool>>,
}

async fn writer(sim: Sim, cluster: Cluster<Fake>, ledger: Arc<Ledger>, over: Arc<AtomicBool>) {
    let policy = Retry::new();
    while !over.load(Ordering::Relaxed) {
        sim.sleep(MS * sim.below(40) as u32).await;
        let number = ledger.next.fetch_add(1, Ordering::Relaxed);
        let sql = format!("INSERT {number}");
        let write = async {
            if sim.one_in(3) {
                let done = cluster.transaction(&policy, |tx| {
                    let sql = sql.clone();
                    Box::pin(async move { tx.execute(&sql, &[]).await })
                });
                done.await.map(drop)
            } else {
                cluster.execute(&sql, &[]).await.map(drop)
            }
        };
        let patience = if sim.one_in(4) { sim.below(30) } else { 100_000 };
        let known = match cancel_after(patience, write).await {
            Some(Ok(())) => true,
            Some(Err(error)) if error.outcome() != Outcome::Unknown => continue,
            Some(Err(_)) | None => false,
        };
        ledger.done.lock().unwrap().insert(number, known);
    }
}

async fn reader(sim: Sim, cluster: Cluster<Fake>, over: Arc<AtomicBool>) {
    let routes = [Route::Replica, Route::PreferReplica, Route::PreferPrimary, Route::Any];
    while !over.load(Ordering::Relaxed) {
        sim.sleep(MS * sim.below(20) as u32).await;
        let route = routes[sim.below(4) as usize];
        let patience = if sim.one_in(3) { sim.below(30) } else { 100_000 };
        let read = async {
            if sim.one_in(4) {
                let mut conn = cluster.acquire(route).timeout(MS * sim.below(500) as u32).await?;
                sim.sleep(MS * sim.below(100) as u32).await;
                return conn.query("SELECT 1", &[]).await;
            }
            cluster.query(route, "SELECT 1", &[]).await
        };
        let _ = cancel_after(patience, read).await;
    }
}

/// One thing after the other happens to the servers.
async fn trouble(sim: &Sim, trio: &Trio, cluster: &Cluster<Fake>) {
    let mut ice: Vec<(&Fake, Gate)> = Vec::new();
    let melt = |ice: &mut Vec<(&Fake, Gate)>| {
        for (fake, ice) in ice.drain(..) {
            thaw(fake, &ice);
            fake.always_query(Act::After(MS));
        }
    };
    let all = trio.all();
    for timeline in 2..40 {
        sim.sleep(MS * sim.below(1500) as u32).await;
        let (name, fake) = all[sim.below(3) as usize];
        match sim.below(9) {
            0 => take_down(fake),
            1 => bring_back(fake),
            2 => ice.push((fake, freeze(fake))),
            3 | 4 => melt(&mut ice),
            5 => drop(fake.restart()),
            6 => {
                // A promotion of whoever is up; the others follow, or stay away.
                let others = all.iter().filter(|(other, _)| *other != name);
                fake.becomes(Role::Primary).timeline(timeline);
                for (_, other) in others.filter(|_| !sim.one_in(3)) {
                    other.becomes(Role::Primary).follow(fake).timeline(timeline);
                }
            }
            7 => cluster.set_weight(name, 0.5 + sim.below(3) as f64).unwrap(),
            _ => {
                let d = Fake::new();
                d.becomes(Role::Replica).of_cluster("7");
                let member = Member::new("d", Pool::builder(d).max_open_conns(2));
                if cluster.join(member).is_err() {
                    cluster.leave("d").await.unwrap();
                }
            }
        }
    }
    melt(&mut ice);
}

fn world(seed: u64) {
    Sim::new(seed).run(async |sim| {
        let trio = Trio::new();
        for (_, fake) in trio.all() {
            fake.always_query(Act::After(MS));
        }
        let cluster = trio.cluster(&sim).await;
        let (ledger, over) = (Arc::new(Ledger::default()), Arc::new(AtomicBool::new(false)));
        let writers = (0..4).map(|_| {
            sim.task(writer(sim.clone(), cluster.clone(), Arc::clone(&ledger), Arc::clone(&over)))
        });
        let writers: Vec<_> = writers.collect();
        let readers =
            (0..6).map(|_| sim.task(reader(sim.clone(), cluster.clone(), Arc::clone(&over))));
        let readers: Vec<_> = readers.collect();
        trouble(&sim, &trio, &cluster).await;

        // All is well again.
        for (_, fake) in trio.all() {
            bring_back(fake);
        }
        trio.a.becomes(Role::Primary).timeline(99);
        for replica in [&trio.b, &trio.c] {
            replica.becomes(Role::Primary).follow(&trio.a).timeline(99);
        }
        let _ = cluster.leave("d").await;
        sim.sleep(SECOND).await;
        over.store(true, Ordering::Relaxed);
        // The longest that a node is left alone after so much, and a probe.
        sim.sleep(SECOND * 70).await;
        join_all(writers).await;
        join_all(readers).await;
        let now = cluster.snapshot();
        assert_eq!(duties(&now), (vec!["a"], vec!["b", "c"]), "{now}");
        for route in [Route::Primary, Route::Replica, Route::Any] {
            cluster.query(route, "SELECT 1", &[]).await.unwrap();
        }
        sim.sleep(SECOND * 3).await;
        let loads: Vec<_> = cluster.snapshot().nodes.iter().map(|node| node.load).collect();
        assert_eq!(loads, [0, 0, 0], "nobody is there, and somebody is counted");

        // Refused writes may have been sent to several servers: one took them.
        let mut sent = BTreeMap::<String, u32>::new();
        for (_, fake) in trio.all() {
            for statement in fake.written() {
                *sent.entry(statement).or_default() += 1;
            }
        }
        for (number, known) in ledger.done.lock().unwrap().iter() {
            let times = sent.get(&format!("INSERT {number}")).copied().unwrap_or(0);
            assert!(times <= 1, "written {times} times: {number}");
            assert!(times == 1 || !known, "said to be written, and is not: {number}");
        }
        drop((cluster, now));
        sim.sleep(SECOND * 3).await;
        assert_eq!(trio.all().map(|(_, fake)| fake.counts().live), [0, 0, 0]);
    });
}

#[test]
fn whatever_happens_to_nodes_nothing_is_lost_or_written_twice_and_it_works_again() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("MILLPOND_SEED") {
        Some(seed) => world(seed),
        // A world is much larger than a history of one pool.
        None => (0..number("MILLPOND_SEEDS").map_or(12, |seeds| seeds / 50)).for_each(world),
    }
}
