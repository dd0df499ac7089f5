//! Thousands of futures and guards dropped at random points.

use std::pin::pin;

use futures_util::{FutureExt, SinkExt};
use millpond::PooledConnection;
use millpond::drivers::postgres::{Postgres, tokio_postgres};
use millpond::runtime::{BoxFuture, block_on};
use millpond::testing::cancel::cancel_after;
use millpond_harness::{Server, postgres};

use super::pool_at;
use super::storm::{CONNECTIONS, Random, Sea, storm};

const NAME: &str = "dropped";

struct Postgresql(&'static Server);

impl Sea for Postgresql {
    type Driver = Postgres;

    const ECHO: &'static str = "SELECT 'own ' || $1::bigint";
    const INSERT: &'static str = "INSERT INTO half VALUES ($1)";
    const SLOW: &'static str = "SELECT 'slow' || pg_sleep(0.003)";
    const MANY: &'static str = "SELECT generate_series(1, 5000)";

    fn native<'a>(
        &'a self,
        conn: &'a mut PooledConnection<Postgres>,
        random: &'a mut Random,
    ) -> BoxFuture<'a, ()> {
        async {
            let polls = random.below(6);
            match random.below(6) {
                0 => drop(cancel_after(polls, conn.client().query("SELECT 'lost'", &[])).await),
                1 => drop(cancel_after(polls, conn.client().simple_query(Self::SLOW)).await),
                2 => drop(cancel_after(polls, conn.client_mut().transaction()).await),
                3 => drop(cancel_after(polls, conn.client().batch_execute("BEGIN")).await),
                4 => {
                    // A COPY is left half-way, its last rows perhaps unsent.
                    let copy = async {
                        let sink = conn.client().copy_in("COPY half FROM STDIN").await?;
                        let mut sink = pin!(sink);
                        for _ in 0..100 {
                            sink.send(&b"1\n2\n"[..]).await?;
                        }
                        std::future::pending::<Result<(), tokio_postgres::Error>>().await
                    };
                    drop(cancel_after(polls * 10, copy).await);
                }
                _ => {
                    for _ in 0..3 {
                        drop(cancel_after(polls, conn.client().query("SELECT 'lost'", &[])).await);
                    }
                }
            }
        }
        .boxed()
    }

    fn running(&self) -> usize {
        self.0.running(NAME)
    }

    fn transactions(&self) -> usize {
        let open = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = 'dropped' AND xact_start IS NOT NULL";
        self.0.sql(open)[0][0].parse().expect("a count")
    }

    fn sessions(&self) -> usize {
        self.0.sessions(NAME)
    }
}

#[test]
fn thousands_of_dropped_futures_lose_nothing_and_leave_nothing() {
    let url = postgres().new_database(NAME);
    block_on(async { storm(Postgresql(postgres()), pool_at(&url, CONNECTIONS).await).await });
}

#[test]
fn what_follows_a_dropped_begin_is_kept_if_it_is_said_to_be() {
    block_on(async {
        let pool = super::pool(2).await;
        pool.batch("CREATE TABLE dropped_begin (n bigint)").await.unwrap();
        super::begun::what_follows_a_dropped_begin_is_kept_if_it_is_said_to_be(
            &pool,
            "dropped_begin",
        )
        .await;
    });
}

#[test]
fn of_levels_that_are_undone_one_savepoint_is_left_at_most() {
    block_on(async {
        let pool = super::pool(1).await;
        super::begun::of_levels_that_are_undone_one_savepoint_is_left_at_most(&pool).await;
    });
}
