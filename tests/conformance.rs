//! Every driver under the conformance suite, on whichever real runtime is
//! enabled, alone and behind `Any`.
#![cfg(any(feature = "tokio", feature = "async-std", feature = "smol"))]

use millpond::Result;
use millpond::runtime::{BoxFuture, block_on};
use millpond::testing::conformance::{Ability, Erased, Report, Subject, Suite};

/// The suite on a subject, and on the same behind `Any`. Nothing is left out but
/// what is named.
fn conforms<S: Subject>(subject: impl Fn() -> S, left_out: &[&str]) {
    let check = |report: Report| {
        report.assert();
        let excluded: Vec<&str> = report.excluded().map(|(claim, _)| claim).collect();
        assert_eq!(excluded, left_out, "{report}");
    };
    block_on(async {
        check(Suite::new(subject()).run().await);
        check(Suite::new(Erased(subject())).run().await);
    });
}

#[cfg(all(unix, feature = "mysql"))]
#[path = "conformance/mysql.rs"]
mod mysql;
#[cfg(all(unix, feature = "postgres"))]
#[path = "conformance/postgres.rs"]
mod postgres;

#[cfg(feature = "fake")]
mod fake {
    use std::time::Duration;

    use millpond::drivers::fake::{Act, Fake, FakeConnection};

    use super::*;

    /// It has no tables, rows or passwords.
    const LEFT_OUT: &[&str] = &[
        "an_empty_answer_has_columns",
        "a_change_tells_how_many_rows_it_affected",
        "an_insert_tells_the_generated_id",
        "a_batch_runs_all_its_statements",
        "a_stream_yields_all_rows_in_order",
        "a_commit_is_seen_by_others_and_a_rollback_is_not",
        "a_commit_dropped_anywhere_is_all_or_nothing",
        "a_stream_dropped_half_way_leaves_nothing_to_the_next_borrower",
        "a_read_only_session_refuses_writes",
        "credentials_given_for_one_connect_are_used_and_forgotten",
        "no_text_shows_the_password",
        "values_of_kind_bool_come_back_as_they_went",
        "values_of_kind_i64_come_back_as_they_went",
        "values_of_kind_u64_come_back_as_they_went",
        "values_of_kind_f64_come_back_as_they_went",
        "values_of_kind_decimal_come_back_as_they_went",
        "values_of_kind_text_come_back_as_they_went",
        "values_of_kind_bytes_come_back_as_they_went",
        "values_of_kind_date_come_back_as_they_went",
        "values_of_kind_time_come_back_as_they_went",
        "values_of_kind_datetime_come_back_as_they_went",
        "values_of_kind_timestamp_come_back_as_they_went",
        "values_of_kind_uuid_come_back_as_they_went",
        "values_of_kind_json_come_back_as_they_went",
        "values_of_kind_array_come_back_as_they_went",
    ];

    struct Scripted(Fake);

    impl Subject for Scripted {
        type Driver = Fake;

        fn driver(&self) -> Fake {
            self.0.clone()
        }

        fn abilities(&self) -> &[Ability] {
            use Ability::{Cancel, ResetSession, Session, Transactions};
            &[Transactions, Session, Cancel, ResetSession]
        }

        fn select(&self, text: &str) -> String {
            text.to_owned()
        }

        fn refused(&self) -> String {
            self.0.next_queries([Act::reject()]);
            "refused".to_owned()
        }

        fn rows(&self, _count: u32) -> Option<String> {
            None
        }

        fn slow(&self) -> Option<String> {
            self.0.next_queries([Act::Hang]);
            Some("slow".to_owned())
        }

        fn change_setting(&self) -> Option<String> {
            Some("SET colour".to_owned())
        }

        fn setting<'a>(
            &'a self,
            conn: &'a mut FakeConnection,
        ) -> Option<BoxFuture<'a, Result<String>>> {
            Some(Box::pin(async { Ok(conn.settings().join(" ")) }))
        }

        fn native<'a>(
            &'a self,
            conn: &'a mut FakeConnection,
            sql: &'a str,
        ) -> Option<BoxFuture<'a, Result<()>>> {
            Some(Box::pin(async { conn.native_query(sql).await.map(drop) }))
        }

        fn sessions(&self) -> Option<BoxFuture<'_, Result<u64>>> {
            Some(Box::pin(async { Ok(self.0.counts().live) }))
        }

        fn unreachable(&self) -> Option<Fake> {
            Some(Fake::new().always_connect(Act::refuse()).clone())
        }

        fn denied(&self) -> Option<Fake> {
            Some(Fake::new().always_connect(Act::deny()).clone())
        }
    }

    #[test]
    fn the_fake_conforms() {
        let fake = Fake::new();
        // Not at once, or no future could be dropped half-way.
        fake.always_query(Act::After(Duration::from_micros(10)));
        conforms(|| Scripted(fake.clone()), LEFT_OUT);
    }
}

#[cfg(feature = "sqlite-system")]
mod sqlite {
    use std::path::PathBuf;

    use millpond::drivers::sqlite::{Sqlite, SqliteConnection, rusqlite};

    use super::*;

    struct Database {
        driver: Sqlite,
        name: &'static str,
        /// The file and its write-ahead log, which the last connection removes.
        files: Option<(PathBuf, PathBuf)>,
    }

    impl Subject for Database {
        type Driver = Sqlite;

        fn driver(&self) -> Sqlite {
            self.driver.clone()
        }

        fn abilities(&self) -> &[Ability] {
            use Ability::{Cancel, ReadOnly, Session, Tables, Transactions};
            &[Tables, Transactions, Session, Cancel, ReadOnly]
        }

        fn name(&self) -> String {
            format!("sqlite {}", self.name)
        }

        fn slow(&self) -> Option<String> {
            let endless = "SELECT 1 UNION ALL SELECT n + 1 FROM numbers";
            Some(format!("WITH RECURSIVE numbers(n) AS ({endless}) SELECT count(*) FROM numbers"))
        }

        fn column(&self, kind: &str) -> Option<&str> {
            Some(match kind {
                "bool" => "BOOLEAN",
                "i64" => "INTEGER",
                "f64" => "REAL",
                "text" => "TEXT",
                "bytes" => "BLOB",
                "date" => "DATE",
                "time" => "TIME",
                "datetime" => "DATETIME",
                "timestamp" => "TIMESTAMP",
                "uuid" => "UUID",
                "json" => "JSON",
                _ => return None,
            })
        }

        fn generated_id(&self) -> Option<&str> {
            Some("INTEGER PRIMARY KEY")
        }

        fn native<'a>(
            &'a self,
            conn: &'a mut SqliteConnection,
            sql: &'a str,
        ) -> Option<BoxFuture<'a, Result<()>>> {
            let sql = sql.to_owned();
            Some(Box::pin(async {
                conn.with(move |sqlite| sqlite.query_row(&sql, [], |_| Ok(()))).await
            }))
        }

        fn sessions(&self) -> Option<BoxFuture<'_, Result<u64>>> {
            let (file, log) = self.files.as_ref()?;
            Some(Box::pin(async move {
                // Two that are closed at the same time leave the log behind; a last
                // one that comes and goes removes it.
                let last = rusqlite::Connection::open(file).expect("a database");
                last.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
                    .expect("an answer");
                drop(last);
                Ok(u64::from(log.exists()))
            }))
        }

        fn denied(&self) -> Option<Sqlite> {
            Some(Sqlite::file("/no/such/folder/database"))
        }
    }

    /// A file that is gone with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("millpond-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a temporary folder");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    /// It has no settings that could be cleared, no network, no passwords, and
    /// not all kinds of values.
    const LEFT_OUT: [&str; 7] = [
        "a_reset_of_the_session_clears_settings",
        "an_unreachable_database_is_transient_and_nothing_was_sent",
        "credentials_given_for_one_connect_are_used_and_forgotten",
        "no_text_shows_the_password",
        "values_of_kind_u64_come_back_as_they_went",
        "values_of_kind_decimal_come_back_as_they_went",
        "values_of_kind_array_come_back_as_they_went",
    ];

    #[test]
    fn a_file_conforms() {
        let folder = Folder::new();
        let file = folder.0.join("conformance.db");
        let database = || Database {
            driver: Sqlite::file(&file),
            name: "file",
            files: Some((file.clone(), folder.0.join("conformance.db-wal"))),
        };
        conforms(database, &LEFT_OUT);
    }

    /// Nobody outside can see whether a database in memory is closed.
    #[test]
    fn a_database_in_memory_conforms() {
        let database = || Database { driver: Sqlite::memory(), name: "memory", files: None };
        let mut left_out = LEFT_OUT.to_vec();
        left_out
            .splice(1..1, ["a_close_ends_the_sessions", "a_close_stops_a_statement_left_running"]);
        conforms(database, &left_out);
    }
}
