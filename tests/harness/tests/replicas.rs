//! What replicas do when they are made, promoted and turned to a new primary.
//!
//! Each claim is checked on each database that the harness makes replicas of.
#![cfg(unix)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use millpond_harness::{Builder, Server};

/// Makes a test of each claim on each database.
macro_rules! on_each_database {
    ($($claim:ident)*) => {
        mod postgres {
            $(#[test] fn $claim() { super::$claim("postgres") })*
        }
        mod mariadb {
            $(#[test] fn $claim() { super::$claim("mariadb") })*
        }
    };
}

on_each_database! {
    a_replica_shows_what_its_primary_has_and_takes_no_write
    a_replica_can_be_promoted
    a_promoted_server_stays_a_primary_and_can_have_replicas
    a_killed_primary_comes_back_as_a_replica_without_what_only_it_had
    a_frozen_primary_is_succeeded_and_comes_back_as_a_replica
    a_replica_made_under_load_has_everything
    a_running_replica_is_turned_to_the_new_primary
    a_replica_that_has_more_than_the_new_primary_begins_anew
    a_replica_that_is_started_again_is_still_one
    a_replica_that_was_away_catches_up
    a_replica_shows_nothing_new_while_its_replay_is_paused
    what_was_received_during_a_pause_is_replayed_before_a_promotion
}

fn make(database: &str) -> Builder {
    match database {
        "postgres" => Server::postgres(),
        _ => Server::mariadb().replicated(),
    }
}

/// A primary with the table of the tests.
fn with_table(database: &str) -> Server {
    let primary = make(database).start();
    primary.sql("CREATE TABLE t (a INT PRIMARY KEY)");
    primary
}

fn insert(server: &Server, value: i32) {
    server.sql(&format!("INSERT INTO t VALUES ({value})"));
}

fn values(server: &Server) -> Vec<String> {
    server.sql("SELECT a FROM t ORDER BY a").concat()
}

fn refuses_writes(server: &Server) -> bool {
    let write = || server.sql("BEGIN; DELETE FROM t; ROLLBACK");
    catch_unwind(AssertUnwindSafe(write)).is_err()
}

fn a_replica_shows_what_its_primary_has_and_takes_no_write(database: &str) {
    let primary = with_table(database);
    insert(&primary, 1);
    let replica = primary.replica();
    assert_eq!(values(&replica), ["1"]);
    insert(&primary, 2);
    replica.catch_up(&primary);
    assert_eq!(values(&replica), ["1", "2"]);
    assert!(refuses_writes(&replica));
    assert!(!refuses_writes(&primary));
    assert_ne!(replica.port(), primary.port());
}

fn a_replica_can_be_promoted(database: &str) {
    let primary = with_table(database);
    let replica = primary.replica();
    insert(&primary, 1);
    replica.catch_up(&primary);
    primary.kill();
    replica.promote();
    replica.wait_until_writable();
    insert(&replica, 2);
    assert_eq!(values(&replica), ["1", "2"]);
}

fn a_promoted_server_stays_a_primary_and_can_have_replicas(database: &str) {
    let replica = with_table(database).replica();
    replica.promote();
    replica.wait_until_writable();
    insert(&replica, 1);
    replica.kill();
    replica.start_again();
    insert(&replica, 2);
    assert_eq!(values(&replica.replica()), ["1", "2"]);
}

fn a_killed_primary_comes_back_as_a_replica_without_what_only_it_had(database: &str) {
    let old = with_table(database);
    let new = old.replica();
    new.stop();
    insert(&old, 1);
    old.kill();
    new.start_again();
    let port = old.port();
    new.promote();
    old.follow(&new);
    assert_eq!(old.port(), port);
    assert!(refuses_writes(&old));
    insert(&new, 2);
    old.catch_up(&new);
    assert_eq!(values(&old), ["2"]);

    new.kill();
    old.promote();
    new.follow(&old);
    insert(&old, 3);
    new.catch_up(&old);
    assert_eq!(values(&new), ["2", "3"]);
}

fn a_frozen_primary_is_succeeded_and_comes_back_as_a_replica(database: &str) {
    let old = with_table(database);
    let new = old.replica();
    insert(&old, 1);
    new.catch_up(&old);
    old.freeze();
    new.promote();
    new.wait_until_writable();
    insert(&new, 2);
    old.follow(&new);
    old.catch_up(&new);
    assert_eq!(values(&old), ["1", "2"]);
}

fn a_replica_made_under_load_has_everything(database: &str) {
    let primary = with_table(database);
    let done = AtomicBool::new(false);
    let (replica, count) = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                insert(&primary, count);
                count += 1;
            }
            count
        });
        let replica = primary.replica();
        done.store(true, Ordering::Relaxed);
        (replica, load.join().expect("it only inserts"))
    });
    replica.catch_up(&primary);
    assert_eq!(values(&replica).len(), usize::try_from(count).expect("not negative"));
}

fn a_running_replica_is_turned_to_the_new_primary(database: &str) {
    let primary = with_table(database);
    let (new, other) = (primary.replica(), primary.replica());
    let started = starts(&other);
    primary.kill();
    new.promote();
    other.follow(&new);
    insert(&new, 1);
    other.catch_up(&new);
    assert_eq!(values(&other), ["1"]);
    assert_eq!(starts(&other), started);
}

/// Changes when the server is started anew.
fn starts(server: &Server) -> usize {
    server.log().matches("ready").count()
}

fn a_replica_that_has_more_than_the_new_primary_begins_anew(database: &str) {
    let primary = with_table(database);
    let (new, other) = (primary.replica(), primary.replica());
    new.stop();
    insert(&primary, 1);
    other.catch_up(&primary);
    primary.kill();
    new.start_again();
    new.promote();
    new.wait_until_writable();
    insert(&new, 2);
    other.follow(&new);
    other.catch_up(&new);
    assert_eq!(values(&other), ["2"]);
}

fn a_replica_that_is_started_again_is_still_one(database: &str) {
    let primary = with_table(database);
    let replica = primary.replica();
    replica.kill();
    insert(&primary, 1);
    replica.start_again();
    assert!(refuses_writes(&replica));
    replica.catch_up(&primary);
    assert_eq!(values(&replica), ["1"]);
}

fn a_replica_that_was_away_catches_up(database: &str) {
    let primary = with_table(database);
    let replica = primary.replica();
    primary.restart();
    replica.freeze();
    insert(&primary, 1);
    replica.thaw();
    replica.catch_up(&primary);
    primary.kill();
    primary.start_again();
    insert(&primary, 2);
    replica.catch_up(&primary);
    assert_eq!(values(&replica), ["1", "2"]);
}

fn a_replica_shows_nothing_new_while_its_replay_is_paused(database: &str) {
    let primary = with_table(database);
    let (replica, other) = (primary.replica(), primary.replica());
    replica.pause_replay();
    insert(&primary, 1);
    // It has had the same time.
    other.catch_up(&primary);
    assert!(values(&replica).is_empty());
    replica.resume_replay();
    replica.catch_up(&primary);
    assert_eq!(values(&replica), ["1"]);
}

fn what_was_received_during_a_pause_is_replayed_before_a_promotion(database: &str) {
    // A commit waits until a replica has received it.
    let synchronous: &[_] = match database {
        "postgres" => &[("synchronous_standby_names", "*")],
        _ => &[("rpl_semi_sync_master_enabled", "1"), ("rpl_semi_sync_slave_enabled", "1")],
    };
    let builder = make(database);
    let set = |builder: Builder, (name, value): &(&str, &str)| builder.setting(name, value);
    let primary = synchronous.iter().fold(builder, set).start();
    let replica = primary.replica();
    primary.sql("CREATE TABLE t (a INT PRIMARY KEY)");
    replica.catch_up(&primary);
    replica.pause_replay();
    insert(&primary, 1);
    primary.kill();
    assert!(values(&replica).is_empty());
    replica.promote();
    replica.wait_until_writable();
    assert_eq!(values(&replica), ["1"]);
}
