//! A cluster on a primary and its replica, by one URL, on whichever database and
//! runtime the test file is for.
//!
//! Owns the claims that are the same on each. Knows no database.

use millpond::drivers::Any;
use millpond::{Cluster, ErrorKind, Outcome, Retry, Route};
use millpond_harness::Server;

/// A cluster on both, by their addresses.
async fn cluster(primary: &Server, replica: &Server) -> Cluster<Any> {
    let both = format!("{},{}", primary.address(), replica.address());
    let url = primary.url().replace(&primary.address().to_string(), &both);
    millpond::connect_cluster(&url).await.unwrap()
}

async fn count(cluster: &Cluster<Any>, route: Route) -> i64 {
    let rows = cluster.query(route, "SELECT count(*) FROM written", &[]).await.unwrap();
    rows.scalar().unwrap()
}

/// Whoever reads on the replica after a position sees all that was written before.
pub(crate) async fn reads_its_own_writes(primary: &Server, replica: &Server) {
    primary.sql("CREATE TABLE written (n INT)");
    replica.catch_up(primary);
    let cluster = cluster(primary, replica).await;
    for written in 1..=50 {
        cluster.execute("INSERT INTO written VALUES (1)", &[]).await.unwrap();
        let position = cluster.position().await.unwrap();
        let mut conn = cluster.acquire(Route::Replica.after(&position)).await.unwrap();
        assert_eq!(conn.pool_name(), replica.address().to_string());
        let rows = conn.query("SELECT count(*) FROM written", &[]).await.unwrap();
        assert_eq!(rows.scalar::<i64>().unwrap(), written);
    }
    // One that does not come so far leaves it to the primary.
    replica.pause_replay();
    cluster.execute("INSERT INTO written VALUES (1)", &[]).await.unwrap();
    let position = cluster.position().await.unwrap();
    let conn = cluster.acquire(Route::PreferReplica.after(&position)).await.unwrap();
    assert_eq!(conn.pool_name(), primary.address().to_string());
    drop(conn);
    replica.resume_replay();
    cluster.acquire(Route::Replica.after(&position)).await.unwrap();
}

/// Writes that begin while there is no primary succeed on the next one.
pub(crate) async fn writes_where_the_primary_is_by_then(primary: &Server, replica: &Server) {
    primary.sql("CREATE TABLE written (n INT)");
    replica.catch_up(primary);
    let cluster = cluster(primary, replica).await;
    cluster.execute("INSERT INTO written VALUES (1)", &[]).await.unwrap();
    let policy = Retry::new();
    let refused = cluster.run(Route::Replica, &policy, |conn| {
        Box::pin(async { conn.execute("INSERT INTO written VALUES (2)", &[]).await })
    });
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Statement);
    replica.catch_up(primary);
    primary.kill();
    replica.promote();
    // A client that hides its socket meets the end of a session that was used a
    // moment ago with a statement, of which nobody knows then.
    if let Err(error) = cluster.execute("INSERT INTO written VALUES (3)", &[]).await {
        assert_eq!(error.outcome(), Outcome::Unknown, "{error:?}");
        cluster.execute("INSERT INTO written VALUES (3)", &[]).await.unwrap();
    }
    cluster
        .transaction(&policy, |tx| {
            Box::pin(async { tx.execute("INSERT INTO written VALUES (4)", &[]).await })
        })
        .await
        .unwrap();
    assert_eq!(count(&cluster, Route::Primary).await, 3);
    let now = cluster.snapshot();
    assert_eq!(now.primary().unwrap().name, replica.address().to_string(), "{now}");
}
