//! What strategies make of a fault, on servers with queues, under a load that
//! does not wait for them.
//!
//! Claims with numbers, each on a fixed seed. The same model over all
//! strategies, for longer: `bench/balancing`.

#[path = "support/queueing.rs"]
mod queueing;

use std::time::Duration;

use millpond::balance::{Builder, LeastConnections, RoundRobin};
use millpond::health::HealthConfig;
use millpond::testing::sim::Sim;

use queueing::{Answers, FORTY, Fleet, Modelled, ONE, World};

const SECOND: Duration = Duration::from_secs(1);

/// Requests in a second: two fifths of what the servers can do.
const RATE: f64 = 2000.0;
/// When the first server goes wrong.
const ONSET: f64 = 5.0;

/// Runs requests, so many seconds before the fault, with it, and after it.
fn with_fault(
    (seed, fleet): (u64, Fleet),
    set: impl Fn(Builder<Modelled>) -> Builder<Modelled>,
    fault: impl Fn(&Modelled),
    [during, after]: [u32; 2],
    check: impl FnOnce(&World, Answers),
) {
    Sim::new(seed).run(async |sim| {
        let world = World::new(&sim, fleet, set).await;
        let past = sim.elapsed();
        world.load(RATE, Duration::from_secs_f64(ONSET) - past).await;
        fault(&world.servers[0]);
        world.load(RATE, SECOND * during).await;
        world.servers[0].heal();
        world.load(RATE, SECOND * after).await;
        let answers = world.answers().await;
        check(&world, answers);
    });
}

/// Without what pools do when they are cold.
fn healthy_p99(answers: &Answers) -> f64 {
    let p99 = answers.between(1.0, ONSET).p99();
    assert!((14.0..20.0).contains(&p99), "the model is not what it was: {p99:.1} ms");
    p99
}

fn slow_for_a_while(seed: u64, fleet: Fleet) {
    let (during, after) = (8, 20);
    let ten_times = |server: &Modelled| server.slow(10.0);
    with_fault(
        (seed, fleet),
        |it| it,
        ten_times,
        [during, after],
        |_, answers| {
            let (settled, end) = (ONSET + 2.0, ONSET + f64::from(during));
            for from in [settled, settled + 1.0, end - 1.0] {
                let share = answers.between(from, from + 1.0).share(0);
                assert!(share < 0.05, "{share:.3} from {from}");
            }
            let (healthy, p99) = (healthy_p99(&answers), answers.between(settled, end).p99());
            assert!(p99 <= 2.0 * healthy, "p99 {p99:.1} ms, healthy {healthy:.1} ms");
            let back = end + f64::from(after);
            let share = answers.between(back - 1.0, back).share(0);
            assert!((0.25..0.40).contains(&share), "back at {share:.3}");
            assert_eq!(answers.errors(), 0.0);
        },
    );
}

#[test]
fn a_slow_replica_is_left_out_and_comes_back_for_one_busy_process() {
    slow_for_a_while(1, ONE);
}

#[test]
fn a_slow_replica_is_left_out_and_comes_back_for_forty_processes() {
    slow_for_a_while(2, FORTY);
}

/// Why it is not the default: each process has so few callers that the count of
/// them says nothing of the server.
#[test]
fn least_connections_are_blind_to_a_slow_replica_where_many_processes_share_the_load() {
    let ten_times = |server: &Modelled| server.slow(10.0);
    let p99 = |set: fn(Builder<Modelled>) -> Builder<Modelled>| {
        let mut p99 = 0.0;
        with_fault((3, FORTY), set, ten_times, [5, 0], |_, answers| {
            p99 = answers.between(ONSET + 2.0, ONSET + 5.0).p99();
        });
        p99
    };
    let (blind, default) = (p99(|it| it.strategy(LeastConnections)), p99(|it| it));
    assert!(blind > 3.0 * default, "{blind:.1} ms, and {default:.1} ms by default");
}

#[test]
fn a_replica_that_fails_at_once_attracts_nobody() {
    for fleet in [ONE, FORTY] {
        with_fault(
            (4, fleet),
            |it| it,
            |server| server.fail(1.0),
            [5, 0],
            |_, answers| {
                let fault = answers.between(ONSET, ONSET + 5.0);
                let share = answers.between(ONSET + 1.0, ONSET + 5.0).share(0);
                assert!(share < 0.02, "{fleet:?}: {share:.4}");
                assert!(fault.errors() < 0.01, "{fleet:?}: {:.4}", fault.errors());
                assert!(fault.p99() < 2.0 * healthy_p99(&answers), "{fleet:?}");
            },
        );
    }
}

#[test]
fn a_replica_that_refuses_connections_costs_no_more_than_those_that_it_had() {
    with_fault(
        (5, ONE),
        |it| it,
        |server| server.refuse(),
        [5, 0],
        |_, answers| {
            let fault = answers.between(ONSET, ONSET + 5.0);
            let failed = fault.errors() * fault.len() as f64;
            assert!(failed <= 20.0, "{failed}");
            assert_eq!(answers.between(ONSET + 1.0, ONSET + 5.0).share(0), 0.0);
        },
    );
}

/// Too seldom for a rate of failures, and never in a row: what a failure counts
/// in the cost is all that speaks against it.
#[test]
fn a_replica_that_fails_at_times_is_avoided_without_being_put_out() {
    let never_out = HealthConfig::new().unhealthy_after(u32::MAX);
    let set = |it: Builder<Modelled>| it.health(never_out.clone());
    with_fault(
        (6, ONE),
        set,
        |server| server.fail(0.4),
        [5, 0],
        |world, answers| {
            let share = answers.between(ONSET + 1.0, ONSET + 5.0).share(0);
            assert!(share < 0.05, "{share:.4}");
            let now = world.clusters[0].snapshot();
            assert_eq!(now.nodes.iter().map(|node| node.ejections).sum::<u64>(), 0);
        },
    );
}

#[test]
fn a_few_long_statements_are_no_verdict_on_the_replica_they_run_on() {
    let run = |set: fn(Builder<Modelled>) -> Builder<Modelled>| {
        Sim::new(7).run(async |sim| {
            let world = World::new(&sim, ONE, set).await;
            world.servers.iter().for_each(Modelled::mix);
            world.load(1.5 * RATE, SECOND * 15).await;
            world.answers().await.between(1.0, 15.0)
        })
    };
    let (ours, turns) = (run(|it| it), run(|it| it.strategy(RoundRobin::new())));
    assert!(ours.p99() <= 1.2 * turns.p99(), "{:.1} ms, {:.1} ms", ours.p99(), turns.p99());
    for server in 0..3 {
        let share = ours.share(server);
        assert!((0.28..0.39).contains(&share), "{server}: {share:.3}");
    }
}

/// The first of those alike was always the first: 77 % for one of three.
#[test]
fn where_there_is_little_to_do_nobody_does_most_of_it() {
    Sim::new(8).run(async |sim| {
        let world = World::new(&sim, ONE, |it| it).await;
        world.load(60.0, SECOND * 60).await;
        let answers = world.answers().await;
        for server in 0..3 {
            assert!(answers.share(server) < 0.45, "{server}: {:.3}", answers.share(server));
        }
    });
}
