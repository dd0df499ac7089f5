//! Thousands of futures and guards dropped at random points.

use futures_util::FutureExt;
use millpond::PooledConnection;
use millpond::drivers::mysql::mysql_async::prelude::Queryable;
use millpond::runtime::BoxFuture;
use millpond::testing::cancel::cancel_after;
use millpond_harness::Server;

use super::storm::{CONNECTIONS, Random, Sea, storm};
use super::*;

struct Mariadb {
    server: &'static Server,
    name: &'static str,
}

impl Sea for Mariadb {
    type Driver = Mysql;

    const ECHO: &'static str = "SELECT CONCAT('own ', ?)";
    const SLOW: &'static str = "SELECT SLEEP(0.003)";
    const MANY: &'static str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                                WHERE i < 900) SELECT i, REPEAT('x', 1000) FROM n";

    /// The client answers the next question with what was asked before.
    fn native<'a>(
        &'a self,
        conn: &'a mut PooledConnection<Mysql>,
        random: &'a mut Random,
    ) -> BoxFuture<'a, ()> {
        async {
            let polls = random.below(6);
            let client = conn.client();
            match random.below(4) {
                0 => drop(cancel_after(polls, client.query_drop("SELECT 'lost'")).await),
                1 => drop(cancel_after(polls, client.query_drop(Self::SLOW)).await),
                2 => drop(cancel_after(polls, client.query_drop("BEGIN")).await),
                _ => {
                    for _ in 0..3 {
                        drop(cancel_after(polls, client.query_drop("SELECT 'lost'")).await);
                    }
                }
            }
        }
        .boxed()
    }

    fn running(&self) -> usize {
        self.server.running(self.name)
    }

    fn transactions(&self) -> usize {
        let open = "SELECT count(*) FROM information_schema.innodb_trx t \
                    JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id";
        let ours = format!("{open} WHERE p.db = '{}'", self.name);
        self.server.sql(&ours)[0][0].parse().expect("a count")
    }

    fn sessions(&self) -> usize {
        self.server.sessions(self.name)
    }
}

#[test]
fn thousands_of_dropped_futures_lose_nothing_and_leave_nothing() {
    for server in both() {
        let sea = Mariadb { server, name: "dropping" };
        let url = server.new_database(sea.name);
        block_on(async { storm(sea, pool_at(&url, CONNECTIONS).await).await });
    }
}

#[test]
fn what_follows_a_dropped_begin_is_kept_if_it_is_said_to_be() {
    block_on(async {
        for server in both() {
            let pool = pool_at(&server.url(), 2).await;
            pool.batch("CREATE TABLE dropped_begin (n BIGINT) ENGINE = InnoDB").await.unwrap();
            begun::what_follows_a_dropped_begin_is_kept_if_it_is_said_to_be(&pool, "dropped_begin")
                .await;
        }
    });
}

#[test]
fn of_levels_that_are_undone_one_savepoint_is_left_at_most() {
    block_on(async {
        for server in both() {
            let pool = pool_at(&server.url(), 1).await;
            begun::of_levels_that_are_undone_one_savepoint_is_left_at_most(&pool).await;
        }
    });
}
