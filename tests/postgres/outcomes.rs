//! Connections that are cut under a write: what is said of it, and what the
//! table shows.
//!
//! Nothing keeps a row from being there twice but what is under test.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{Either, join, select};
use millpond::drivers::postgres::Postgres;
use millpond::runtime::block_on;
use millpond::{Cause, Error, ErrorKind, Outcome, Pool, Result, Retry, params};
use millpond_harness::{Cut, Fault, Proxy, Server};

use super::{pool_at, sleep};

const INSERT: &str = "INSERT INTO outcome VALUES ($1)";

/// What was said of each write.
type Said = BTreeMap<String, Result<()>>;

/// By itself, as the only statement of its work.
async fn alone(pool: &Pool<Postgres>, token: &str) -> Result<()> {
    let policy = Retry::new();
    let parameters = params![token];
    let work = pool.run(&policy, |conn| Box::pin(conn.execute(INSERT, &parameters)));
    work.await.map(drop)
}

/// In a transaction.
async fn committed(pool: &Pool<Postgres>, token: &str) -> Result<()> {
    let policy = Retry::new();
    let parameters = params![token];
    let work = pool.transaction(&policy, |tx| Box::pin(tx.execute(INSERT, &parameters)));
    work.await.map(drop)
}

/// In a transaction, and asked for if its commit is unknown.
async fn verified(pool: &Pool<Postgres>, token: &str) -> Result<()> {
    let policy = Retry::new();
    let parameters = params![token];
    let work = pool.transaction(&policy, |tx| Box::pin(tx.execute(INSERT, &parameters))).verify(
        async |pool| {
            let count = "SELECT count(*) FROM outcome WHERE token = $1";
            Ok(pool.query(count, &params![token]).await?.scalar::<i64>()? > 0)
        },
    );
    work.await.map(drop)
}

/// Compares what was said with the table, and returns of how many writes of
/// unknown outcome there is a row, and of how many there is none.
fn judge(server: &Server, said: &Said) -> (usize, usize) {
    let rows = server.sql("SELECT token, count(*) FROM outcome GROUP BY token");
    let rows: BTreeMap<_, _> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let (mut present, mut absent) = (0, 0);
    for (token, said) in said {
        let count = rows.get(token.as_str()).copied().unwrap_or("0");
        match said {
            Ok(()) => assert_eq!(count, "1", "{token} succeeded"),
            Err(error) if error.outcome() != Outcome::Unknown => {
                assert_eq!(count, "0", "{token} is said to have failed: {error:?}");
            }
            Err(error) => match count {
                "0" => absent += 1,
                "1" => present += 1,
                _ => panic!("{token} was written {count} times: {error:?}"),
            },
        }
    }
    assert!(rows.keys().all(|token| said.contains_key(*token)), "{rows:?}");
    (present, absent)
}

/// What was not sent, because the connection had been cut before, is tried again.
fn assert_was_sent_once(error: &Error) {
    let sent = error.earlier().iter().filter(|error| error.outcome() != Outcome::NotSent);
    assert_eq!(sent.count(), 0, "repeated: {error}");
}

#[test]
fn of_400_writes_that_are_cut_none_is_made_twice_or_called_failed_when_it_was_not() {
    const ROUNDS: usize = 400;
    let server = Server::postgres().start();
    server.sql("CREATE TABLE outcome (token text)");
    let mut said = Said::new();
    block_on(async {
        let proxy = Proxy::to(server.address());
        let url = format!("{}?sslmode=disable", server.url_at(proxy.address()));
        let pool = pool_at(&url, 1).await;
        for round in 0..ROUNDS {
            let token = format!("token-{round:04}");
            let how = if round % 16 < 8 { Cut::Reset } else { Cut::Close };
            let write = token.clone().into_bytes();
            let commit = b"COMMIT".to_vec();
            let fault = match round % 8 {
                // The server has the INSERT, and its answer is lost.
                0 | 4 => Fault::CutAnswer(write, how),
                1 | 5 => Fault::CutBefore(write, how),
                // The same with the COMMIT.
                2 | 6 => Fault::CutAnswer(commit, how),
                3 => Fault::CutBefore(commit, how),
                // Anywhere.
                _ => Fault::CutAfter(round % 150 + 1, how),
            };
            proxy.to_server(fault);
            let result = match round % 8 {
                0 | 1 => alone(&pool, &token).await,
                6 if round % 16 == 6 => verified(&pool, &token).await,
                _ => committed(&pool, &token).await,
            };
            match (round % 8, &result) {
                (0 | 1, Err(error)) => {
                    assert_eq!(
                        (error.kind(), error.outcome()),
                        (ErrorKind::Lost, Outcome::Unknown)
                    );
                    assert_was_sent_once(error);
                }
                (2 | 3, Err(error)) => assert_eq!(error.kind(), ErrorKind::CommitUnknown),
                (0..=3, Ok(())) => panic!("round {round} was not cut"),
                // Lost before its commit, a transaction is repeated and succeeds.
                (4 | 5, Err(error)) => panic!("round {round}: {error:?}"),
                (6, Err(error)) => assert_eq!(round % 16, 14, "verified, yet {error:?}"),
                _ => {}
            }
            proxy.to_server(Fault::Pass);
            said.insert(token, result);
        }
        pool.close().await;
    });
    let (present, absent) = judge(&server, &said);
    let succeeded = said.values().filter(|result| result.is_ok()).count();
    println!("{ROUNDS} rounds: {succeeded} succeeded, unknown: {present} there, {absent} not");
    assert!(present >= ROUNDS / 8 && absent >= ROUNDS / 8, "{present} and {absent}");
    assert!(succeeded >= ROUNDS / 4, "{succeeded}");
}

/// The server has committed and waits for a standby that never comes, when its
/// session is ended.
#[test]
fn of_100_writes_that_wait_for_a_standby_none_is_made_twice_or_called_failed() {
    const ROUNDS: usize = 100;
    let server = Server::postgres().setting("synchronous_standby_names", "nobody").start();
    server.sql("SET synchronous_commit = local; CREATE TABLE outcome (token text)");
    let mut said = Said::new();
    block_on(async {
        let (pool, admin) = (pool_at(&server.url(), 1).await, pool_at(&server.url(), 1).await);
        let mut conn = admin.acquire().await.unwrap();
        for round in 0..ROUNDS {
            let token = format!("token-{round:04}");
            let write = async {
                match round % 2 {
                    0 => alone(&pool, &token).await,
                    _ => committed(&pool, &token).await,
                }
            };
            let end = async {
                let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                           WHERE wait_event = 'SyncRep'";
                while conn.query(end, &[]).await?.is_empty() {
                    sleep(Duration::from_millis(1)).await;
                }
                Ok::<_, Error>(())
            };
            // One that did not wait for the standby is a failure of this test.
            let both = join(Box::pin(write), Box::pin(end));
            let limit = Box::pin(sleep(Duration::from_secs(10)));
            let Either::Left(((result, ended), _)) = select(Box::pin(both), limit).await else {
                panic!("round {round} did not wait for the standby");
            };
            ended.unwrap();
            let error = result.as_ref().unwrap_err();
            let expected = if round % 2 == 0 { ErrorKind::Lost } else { ErrorKind::CommitUnknown };
            assert_eq!((error.kind(), error.outcome()), (expected, Outcome::Unknown), "{error:?}");
            assert_ne!(error.cause(), Cause::Caller);
            assert_was_sent_once(error);
            said.insert(token, result);
        }
    });
    assert_eq!(judge(&server, &said), (ROUNDS, 0), "all are there");
}
