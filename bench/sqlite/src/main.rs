//! An indexed point read on SQLite: raw rusqlite on the calling thread, through
//! millpond, and through its peers, in one run with interleaved rounds.
//!
//!     cargo run --release --manifest-path bench/sqlite/Cargo.toml
//!
//! Each reads one row of two columns by primary key from a file in WAL mode,
//! with a cached statement and an id that changes from read to read. Figures are
//! medians of rounds.

use std::path::{Path, PathBuf};
use std::time::Instant;

use millpond::params;
use sqlx::Row as _;

const ROWS: i64 = 10_000;
const ROUNDS: usize = 15;
const READS: i64 = 2_000;
const SQL: &str = "SELECT id, name FROM item WHERE id = ?";

/// The goals of millpond's design, as ratios to raw.
const HELD_GOAL: f64 = 1.15;
const POOL_GOAL: f64 = 1.3;

#[tokio::main]
async fn main() {
    let file = Database::create();
    let raw = rusqlite::Connection::open(&file.0).unwrap();
    let pool = millpond::connect(&format!("sqlite://{}", file.0.display())).await.unwrap();
    let mut held = pool.acquire().await.unwrap();
    let deadpool = deadpool_sqlite::Config::new(&file.0)
        .create_pool(deadpool_sqlite::Runtime::Tokio1)
        .unwrap();
    let threaded = tokio_rusqlite::Connection::open(&file.0).await.unwrap();
    let sqlx = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.0.display())).await.unwrap();

    let mut table = [
        ("raw rusqlite", Vec::new(), None),
        ("millpond, connection held", Vec::new(), Some(HELD_GOAL)),
        ("millpond, pool.query", Vec::new(), Some(POOL_GOAL)),
        ("deadpool-sqlite", Vec::new(), None),
        ("tokio-rusqlite", Vec::new(), None),
        ("sqlx", Vec::new(), None),
    ];
    // The first round only warms up.
    for round in 0..=ROUNDS {
        let times = [
            time(async |id| read(&raw, id)).await,
            time(async |id| of_rows(&held.query(SQL, &params![id]).await.unwrap())).await,
            time(async |id| of_rows(&pool.query(SQL, &params![id]).await.unwrap())).await,
            time(async |id| {
                let conn = deadpool.get().await.unwrap();
                conn.interact(move |conn| read(conn, id)).await.unwrap()
            })
            .await,
            time(async |id| {
                let work = move |conn: &mut rusqlite::Connection| -> rusqlite::Result<_> {
                    Ok(read(conn, id))
                };
                threaded.call(work).await.unwrap()
            })
            .await,
            time(async |id| {
                let row = sqlx::query(SQL).bind(id).fetch_one(&sqlx).await.unwrap();
                (row.get::<i64, _>(0), row.get::<String, _>(1))
            })
            .await,
        ];
        if round > 0 {
            for ((_, figures, _), ns) in table.iter_mut().zip(times) {
                figures.push(ns);
            }
        }
    }

    println!("SQLite {}, point read, {ROUNDS} rounds of {READS}", rusqlite::version());
    println!("{:<27}{:>9}  x raw", "", "ns/read");
    let unit = median(&mut table[0].1);
    for (name, figures, goal) in &mut table {
        let ns = median(figures);
        let ratio = ns / unit;
        let goal = goal.map_or(String::new(), |goal| {
            format!("  goal {goal}: {}", if ratio <= goal { "met" } else { "missed" })
        });
        println!("{name:<27}{ns:>9.0}  {ratio:.2}{goal}");
    }
}

/// Nanoseconds a read.
async fn time(mut read: impl AsyncFnMut(i64) -> (i64, String)) -> f64 {
    // What has lain idle for a second is checked before it is lent: not a read.
    read(0).await;
    let start = Instant::now();
    for n in 0..READS {
        let id = n * 7_919 % ROWS;
        let (found, name) = read(id).await;
        assert!(found == id && !name.is_empty());
    }
    start.elapsed().as_nanos() as f64 / READS as f64
}

fn read(conn: &rusqlite::Connection, id: i64) -> (i64, String) {
    let mut statement = conn.prepare_cached(SQL).unwrap();
    statement.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

fn of_rows(rows: &millpond::Rows) -> (i64, String) {
    let row = rows.first().unwrap();
    (row.get(0).unwrap(), row.get(1).unwrap())
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A file that goes when the run ends.
struct Database(PathBuf);

impl Database {
    fn create() -> Self {
        let name = format!("millpond-bench-{}.db", std::process::id());
        let path = std::env::temp_dir().join(name);
        let conn = rusqlite::Connection::open(&path).unwrap();
        conn.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL);",
        )
        .unwrap();
        let mut insert = conn.prepare("INSERT INTO item VALUES (?, ?)").unwrap();
        conn.execute_batch("BEGIN").unwrap();
        for id in 0..ROWS {
            insert.execute((id, format!("item {id}"))).unwrap();
        }
        conn.execute_batch("COMMIT").unwrap();
        Self(path)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let mut path = Path::new(&self.0).as_os_str().to_owned();
            path.push(end);
            let _ = std::fs::remove_file(path);
        }
    }
}
