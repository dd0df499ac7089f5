//! What only a real SQLite can show, on whichever real runtime is enabled.
#![cfg(all(
    any(feature = "sqlite", feature = "sqlite-system"),
    any(feature = "tokio", feature = "async-std", feature = "smol")
))]

#[path = "support/begun.rs"]
mod begun;
#[path = "sqlite/cluster.rs"]
mod cluster;
#[path = "support/storm.rs"]
mod storm;
#[path = "support/violations.rs"]
mod violations;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use millpond::drivers::sqlite::{Sqlite, rusqlite};
use millpond::runtime::{BoxFuture, block_on};
use millpond::testing::cancel::cancel_after;
use millpond::{Driver, ErrorKind, Outcome, Pool, PooledConnection, Position, Role, params};

use storm::{CONNECTIONS, Random, Sea, storm};

/// A file to storm over, which is removed with its log in the end.
struct File(PathBuf);

impl Sea for File {
    type Driver = Sqlite;

    const ECHO: &'static str = "SELECT 'own ' || ?";
    /// Long enough to go to a thread that may block.
    const SLOW: &'static str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                                WHERE i < 20000) SELECT count(*) FROM n";
    const MANY: &'static str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n \
                                WHERE i < 5000) SELECT i FROM n";

    fn native<'a>(
        &'a self,
        conn: &'a mut PooledConnection<Sqlite>,
        random: &'a mut Random,
    ) -> BoxFuture<'a, ()> {
        async {
            let polls = random.below(4);
            let statement = ["BEGIN", "BEGIN IMMEDIATE", Self::SLOW][random.below(3) as usize];
            let work = conn.with(|conn| conn.execute_batch(statement));
            drop(cancel_after(polls, work).await);
        }
        .boxed()
    }

    /// A statement runs on a connection, and all of them are taken in the end.
    fn running(&self) -> usize {
        0
    }

    fn transactions(&self) -> usize {
        let other = rusqlite::Connection::open(&self.0).expect("a database");
        other.busy_timeout(Duration::ZERO).expect("a setting");
        usize::from(other.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err())
    }

    /// Whether there are any: the last session removes the log. Two that are
    /// closed at the same time leave it behind, and one more removes it then.
    fn sessions(&self) -> usize {
        let last = rusqlite::Connection::open(&self.0).expect("a database");
        last.query_row("SELECT count(*) FROM half", [], |_| Ok(())).expect("an answer");
        drop(last);
        usize::from(beside(&self.0, "-wal").exists())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(beside(&self.0, end));
        }
    }
}

fn beside(path: &Path, end: &str) -> PathBuf {
    PathBuf::from(format!("{}{end}", path.display()))
}

#[test]
fn thousands_of_dropped_futures_lose_nothing_and_leave_nothing() {
    block_on(async {
        let name = format!("millpond-dropped-{}.db", std::process::id());
        let file = File(std::env::temp_dir().join(name));
        let builder = Pool::builder(Sqlite::file(&file.0)).max_open_conns(CONNECTIONS);
        storm(file, builder.build().await.unwrap()).await;
    });
}

#[test]
fn what_follows_a_dropped_begin_is_kept_if_it_is_said_to_be() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).max_open_conns(2).build().await.unwrap();
        pool.batch("CREATE TABLE begun (n INTEGER)").await.unwrap();
        begun::what_follows_a_dropped_begin_is_kept_if_it_is_said_to_be(&pool, "begun").await;
    });
}

/// The savepoint was released by the first, and the second found none.
#[test]
fn a_rollback_to_a_savepoint_that_is_dropped_on_its_way_is_made_up_for() {
    block_on(async {
        for polls in 0..4 {
            let pool = Pool::builder(Sqlite::memory()).max_open_conns(1).build().await.unwrap();
            pool.batch("CREATE TABLE kept (n INTEGER)").await.unwrap();
            let mut tx = pool.begin().await.unwrap();
            tx.execute("INSERT INTO kept VALUES (1)", &[]).await.unwrap();
            let mut inner = tx.begin().await.unwrap();
            inner.execute("INSERT INTO kept VALUES (2)", &[]).await.unwrap();
            cancel_after(polls, inner.rollback()).await;
            tx.execute("INSERT INTO kept VALUES (3)", &[]).await.unwrap();
            tx.commit().await.unwrap();
            let rows = pool.query("SELECT n FROM kept ORDER BY n", &[]).await.unwrap();
            let kept: Vec<i64> = rows.iter().map(|row| row.get(0).unwrap()).collect();
            assert_eq!(kept, [1, 3], "dropped after {polls} polls");
        }
    });
}

/// Whatever failed while the transaction ended was told as rolled back.
#[test]
fn what_was_committed_before_an_error_is_not_called_rolled_back() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).max_open_conns(1).build().await.unwrap();
        pool.batch("CREATE TABLE kept (n INTEGER)").await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("BEGIN; INSERT INTO kept VALUES (1)").await.unwrap();
        let error = conn.batch("COMMIT; INSERT INTO nowhere VALUES (1)").await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        conn.batch("BEGIN; INSERT INTO kept VALUES (2)").await.unwrap();
        let closed = conn.with(|conn| {
            conn.execute_batch("COMMIT")?;
            conn.execute_batch("INSERT INTO nowhere VALUES (1)")
        });
        assert_eq!(closed.await.unwrap_err().outcome(), Outcome::Unknown);
        let refused = "BEGIN; INSERT INTO kept VALUES (3); INSERT INTO nowhere VALUES (1)";
        let error = conn.batch(refused).await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Rejected, "{error:?}");
        conn.query("ROLLBACK", &[]).await.unwrap();
        assert_eq!(conn.query("SELECT n FROM kept", &[]).await.unwrap().len(), 2);
    });
}

/// The shape of the one was taken for that of the other, long after it had changed.
#[test]
fn a_statement_with_blanks_around_it_is_the_same_as_without() {
    block_on(async {
        let driver = Sqlite::memory().statement_cache(2);
        let pool = Pool::builder(driver).max_open_conns(1).build().await.unwrap();
        let mut conn = pool.acquire().await.unwrap();
        conn.batch("CREATE TABLE wide (a INTEGER); INSERT INTO wide VALUES (1)").await.unwrap();
        let spellings = ["SELECT * FROM wide", " SELECT * FROM wide"];
        for sql in spellings.repeat(2) {
            assert_eq!(conn.query(sql, &[]).await.unwrap().columns().len(), 1);
        }
        // The cache is full of these.
        conn.begin().await.unwrap().commit().await.unwrap();
        conn.batch("ALTER TABLE wide ADD COLUMN b INTEGER DEFAULT 2").await.unwrap();
        for sql in spellings.repeat(2) {
            let rows = conn.query(sql, &[]).await.unwrap();
            assert_eq!(
                (rows.columns().len(), rows.first().expect("a row").get::<i64>(1).unwrap()),
                (2, 2),
                "{sql:?}"
            );
        }
    });
}

#[test]
fn a_broken_rule_has_the_same_name_everywhere() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).max_open_conns(1).build().await.unwrap();
        violations::a_broken_rule_has_the_same_name_everywhere(&pool).await;
    });
}

#[test]
fn of_levels_that_are_undone_one_savepoint_is_left_at_most() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).max_open_conns(1).build().await.unwrap();
        begun::of_levels_that_are_undone_one_savepoint_is_left_at_most(&pool).await;
    });
}

#[test]
fn a_stream_on_the_pool_gives_its_connection_back_at_its_end_or_half_way() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).max_open_conns(1).build().await.unwrap();
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
             SELECT i FROM n";
        for (rows, read) in [(1_000, 1_000), (1_000_000, 7)] {
            let params = params![rows];
            let mut stream = pin!(pool.query_stream(sql, &params));
            for expected in 1..=read {
                let row = stream.next().await.expect("a row").unwrap();
                assert_eq!(row.get::<i64>(0).unwrap(), expected);
            }
            if rows == read {
                assert!(stream.next().await.is_none());
            }
        }
        let rows = pool.query("SELECT ?", &params!["mine"]).await.unwrap();
        assert_eq!(rows.scalar::<String>().unwrap(), "mine");
    });
}

#[test]
fn a_stream_on_the_pool_ends_with_its_error() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).build().await.unwrap();
        let mut stream = pin!(pool.query_stream("SELECT 1 FROM nowhere", &[]));
        let error = stream.next().await.expect("an item").unwrap_err();
        assert!(error.to_string().starts_with("no such table: nowhere"), "{error}");
        assert!(stream.next().await.is_none());
    });
}

#[test]
fn what_is_committed_on_one_connection_can_be_read_on_any_other() {
    block_on(async {
        let pool = Pool::builder(Sqlite::memory()).max_open_conns(2).build().await.unwrap();
        let (mut writer, mut reader) =
            (pool.acquire().await.unwrap(), pool.acquire().await.unwrap());
        writer.batch("CREATE TABLE written (n INTEGER)").await.unwrap();
        let position = pool.driver().position(&mut writer).await.unwrap();
        let reached = pool.driver().reached(&mut reader, &position, Duration::ZERO).await;
        assert!(reached.unwrap());
        reader.query("SELECT * FROM written", &[]).await.unwrap();

        let other = Position::new("0/16B3748");
        let error = pool.driver().reached(&mut reader, &other, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_eq!(pool.driver().role(&reader), None);
        let status = pool.driver().status(&mut reader).await.unwrap();
        assert_eq!((status.role, status.position), (Role::Standalone, None));
    });
}
