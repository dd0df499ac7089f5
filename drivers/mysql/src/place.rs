//! Places in the log of a cluster: where a session has come to, and whether a
//! node has what is before one.
//!
//! Owns the questions and what their answers mean. How transactions are named is
//! known elsewhere.

use std::time::Duration;

use millpond_driver::{Error, Position, Result};
use mysql_async::Row;
use mysql_async::prelude::Queryable;

use crate::MysqlConnection;
use crate::error::{Family, Fault};
use crate::gtid::{GtidSet, Gtids};
use crate::status::SLAVES_RUNNING;

/// A place that is not before the end of what this node has committed or replayed,
/// whichever session did.
pub(crate) async fn position(conn: &mut MysqlConnection) -> Result<Position> {
    match conn.server().family {
        Family::Mariadb => position_in_mariadb(conn).await,
        _ => {
            let sql = "SELECT @@GLOBAL.log_bin, @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed";
            let told = ask(conn, sql).await?;
            check_log(told.is(0))?;
            check_mode(&told.text(1))?;
            Ok(Position::new(told.text(2).parse::<GtidSet>()?.to_string()))
        }
    }
}

async fn position_in_mariadb(conn: &mut MysqlConnection) -> Result<Position> {
    refuse_galera(conn).await?;
    let sql = format!(
        "SELECT @@GLOBAL.log_bin, @@GLOBAL.gtid_slave_pos, @@GLOBAL.gtid_binlog_pos, \
         {SLAVES_RUNNING}, @@last_gtid"
    );
    let told = ask(conn, &sql).await?;
    check_log(told.is(0))?;
    // What this session wrote to a replica was not replayed there.
    let place = log_end(&told)?.or(told.text(4).parse()?);
    Ok(Position::new(place.to_string()))
}

/// Where the log ends on a node of MariaDB, by the place that it has replayed,
/// that of its own log, and whether it follows another, in columns from the
/// second on.
fn log_end(told: &Told) -> Result<Gtids> {
    let replayed: Gtids = told.text(1).parse()?;
    // A replica logs what it replays a moment before it can be read.
    if told.is(3) { Ok(replayed) } else { Ok(replayed.or(told.text(2).parse()?)) }
}

/// Whether what is before `position` is here. Waits for it where it may come.
pub(crate) async fn reached(
    conn: &mut MysqlConnection,
    position: &Position,
    limit: Duration,
) -> Result<bool> {
    match conn.server().family {
        Family::Mariadb => reached_in_mariadb(conn, position.as_str().parse()?, limit).await,
        _ => {
            let wanted: GtidSet = position.as_str().parse()?;
            let sql = format!(
                "SELECT @@GLOBAL.gtid_mode, GTID_SUBSET('{wanted}', @@GLOBAL.gtid_executed)"
            );
            let told = ask(conn, &sql).await?;
            check_mode(&told.text(0))?;
            if told.is(1) || limit.is_zero() {
                return Ok(told.is(1));
            }
            wait(conn, "WAIT_FOR_EXECUTED_GTID_SET", &wanted.to_string(), limit).await
        }
    }
}

async fn reached_in_mariadb(
    conn: &mut MysqlConnection,
    wanted: Gtids,
    limit: Duration,
) -> Result<bool> {
    refuse_galera(conn).await?;
    let sql = format!(
        "SELECT @@GLOBAL.read_only, @@GLOBAL.gtid_slave_pos, @@GLOBAL.gtid_binlog_pos, \
         {SLAVES_RUNNING}"
    );
    let told = ask(conn, &sql).await?;
    let (read_only, follows) = (told.is(0), told.is(3));
    if wanted.is_within(&log_end(&told)?) {
        return Ok(true);
    }
    // To a primary nothing comes that it has lost. A replica that is not running
    // may be connecting.
    let may_come = follows || read_only;
    if !may_come || limit.is_zero() {
        return Ok(false);
    }
    wait(conn, "MASTER_GTID_WAIT", &wanted.to_string(), limit).await
}

/// Has the server wait. `place` is known to need no quoting.
async fn wait(
    conn: &mut MysqlConnection,
    function: &str,
    place: &str,
    limit: Duration,
) -> Result<bool> {
    // Both servers stop understanding somewhere, and take less than this for
    // nothing, which one of them takes for ever.
    let (shortest, longest) = (Duration::from_millis(1), Duration::from_secs(365 * 24 * 3600));
    let seconds = limit.clamp(shortest, longest).as_secs_f64();
    let told = ask(conn, &format!("SELECT {function}('{place}', {seconds:.3})")).await?;
    Ok(told.text(0) == "0")
}

/// What is not logged is behind no place, and no replica hears of it.
fn check_log(is_on: bool) -> Result<()> {
    if !is_on {
        return Err(Error::unsupported(
            "positions in the log of this server, whose binary log is off (log_bin)",
        ));
    }
    Ok(())
}

/// Two modes of four give names to new transactions.
fn check_mode(mode: &str) -> Result<()> {
    if !matches!(mode, "ON" | "ON_PERMISSIVE") {
        return Err(Error::unsupported(
            "positions in the log of this server, whose transactions have no names (gtid_mode)",
        ));
    }
    Ok(())
}

/// Each node of Galera names transactions by itself, unless it is told not to.
async fn refuse_galera(conn: &mut MysqlConnection) -> Result<()> {
    if conn.galera.is_none() {
        let told = ask(conn, "SHOW GLOBAL STATUS LIKE 'wsrep_provider_name'").await?;
        conn.galera = Some(!told.text(1).is_empty());
    }
    if conn.galera == Some(true) {
        return Err(Error::unsupported("positions in the log of a Galera cluster"));
    }
    Ok(())
}

/// The first row of an answer; it may have none.
struct Told(Option<Row>);

impl Told {
    /// Empty for what is not there.
    fn text(&self, index: usize) -> String {
        self.0.as_ref().and_then(|row| row.get_opt(index)?.ok()).unwrap_or_default()
    }

    fn is(&self, index: usize) -> bool {
        !matches!(&*self.text(index), "" | "0" | "OFF")
    }
}

async fn ask(conn: &mut MysqlConnection, sql: &str) -> Result<Told> {
    let (reactor, client) = conn.ready().await?;
    let told = reactor.run(client.query_first(sql)).await;
    conn.finish(told.map(Told).map_err(Fault::Native), sql)
}
