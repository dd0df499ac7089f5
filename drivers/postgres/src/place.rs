//! What a server says of its place among others, and in their log.
//!
//! Owns the questions and how their answers are read. Does not know what anybody
//! does with them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use millpond_driver::{Code, Error, NodeStatus, Position, Result, Role};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use crate::PostgresConnection;

/// Role, whether it refuses writes, its place in the log, bytes not replayed,
/// seconds since the last change replayed, the timeline in hexadecimal, and the
/// cluster if it is asked for.
///
/// A standby knows its timeline from whom it follows, and tells those who may
/// read all statistics. What its control file says may be long past.
fn question(beneath: bool, and_cluster: bool) -> String {
    let read_only = if beneath { READ_ONLY_BENEATH } else { READ_ONLY };
    let cluster = if and_cluster { CLUSTER } else { "NULL" };
    format!(
        "SELECT r, {read_only}, \
         pg_wal_lsn_diff(CASE WHEN r THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0'), \
         CASE WHEN r THEN pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) END, \
         CASE WHEN r THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END, \
         CASE WHEN r THEN (SELECT to_hex(received_tli) FROM pg_stat_get_wal_receiver()) \
         ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END, {cluster} \
         FROM pg_is_in_recovery() AS r"
    )
}

const READ_ONLY: &str = "current_setting('transaction_read_only')";
/// What the server's own setting is, where the session's hides it. It takes the
/// server longer.
const READ_ONLY_BENEATH: &str =
    "(SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only')";
const CLUSTER: &str = "(SELECT system_identifier FROM pg_control_system())";

/// Asks for the status, in one round trip: once in two, where the user may not
/// know the cluster.
pub(crate) async fn status(conn: &mut PostgresConnection) -> Result<NodeStatus> {
    // A refusal would fail the transaction.
    let and_cluster = !conn.cluster_is_hidden && conn.status() == b'I';
    match ask(conn, &question(conn.read_only, and_cluster)).await {
        Err(error) if and_cluster && is_hidden(&error) => {
            conn.cluster_is_hidden = true;
            Box::pin(status(conn)).await
        }
        told => told.map(|row| node_status(&row)),
    }
}

/// Whether a function was refused, or is not there.
fn is_hidden(error: &Error) -> bool {
    matches!(error.code(), Some(Code::SqlState(state)) if matches!(state, b"42501" | b"42883"))
}

async fn ask(conn: &mut PostgresConnection, sql: &str) -> Result<SimpleQueryRow> {
    let answer = conn.run(async |client| client.simple_query(sql).await).await?;
    let row = answer.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.ok_or_else(|| Error::decode("the server told nothing of its place"))
}

fn is_standby(row: &SimpleQueryRow) -> bool {
    row.get(0) == Some("t")
}

fn number<T: FromStr>(row: &SimpleQueryRow, index: usize) -> Option<T> {
    row.get(index)?.parse().ok()
}

fn node_status(row: &SimpleQueryRow) -> NodeStatus {
    let standby = is_standby(row);
    let mut status = NodeStatus::default();
    status.role = if standby { Role::Replica } else { Role::Primary };
    status.writable = Some(!standby && row.get(1) == Some("off"));
    status.position = number(row, 2);
    // What was restored from an archive was never received.
    status.lag_bytes = number::<i128>(row, 3).map(|bytes| bytes.max(0) as u64);
    status.lag =
        number::<f64>(row, 4).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    status.timeline = row.get(5).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    status.cluster = row.get(6).map(Into::into);
    status
}

/// Where the log ends here: on a standby what it has replayed, else what was
/// put in, which with `synchronous_commit = off` is more than what was written.
const END: &str = "SELECT r, pg_wal_lsn_diff(CASE WHEN r THEN pg_last_wal_replay_lsn() \
       ELSE pg_current_wal_insert_lsn() END, '0/0'), \
     current_setting('wal_block_size'), pg_size_bytes(current_setting('wal_segment_size')) \
     FROM pg_is_in_recovery() AS r";

/// Whether the server is a standby, and where its log ends; on a standby that
/// has replayed nothing, nowhere.
async fn end(conn: &mut PostgresConnection) -> Result<(bool, Option<Lsn>)> {
    let row = ask(conn, END).await?;
    let lsn = number(&row, 1).map(Lsn);
    if is_standby(&row) {
        return Ok((true, lsn));
    }
    match (lsn, number(&row, 2), number(&row, 3)) {
        (Some(lsn), Some(page), Some(segment)) => Ok((false, Some(lsn.last_end(page, segment)))),
        _ => Err(Error::decode("the server did not tell where its log ends")),
    }
}

/// A place that is not before the end of what this session has committed.
pub(crate) async fn position(conn: &mut PostgresConnection) -> Result<Position> {
    let (_, lsn) = end(conn).await?;
    Ok(Position::new(lsn.unwrap_or(Lsn(0)).to_string()))
}

/// Looks again and again until a standby has replayed what is before `position`,
/// or the limit is over. Elsewhere what is not there does not come any more.
pub(crate) async fn reached(
    conn: &mut PostgresConnection,
    position: &Position,
    limit: Duration,
) -> Result<bool> {
    const LONGEST_PAUSE: Duration = Duration::from_millis(20);

    let wanted = Some(position.as_str().parse::<Lsn>()?);
    let runtime = conn.runtime();
    let over = runtime.now().checked_add(limit);
    let mut pause = Duration::from_millis(1);
    loop {
        let (standby, lsn) = end(conn).await?;
        if lsn >= wanted || !standby {
            return Ok(lsn >= wanted);
        }
        let now = runtime.now();
        let next = now + pause;
        let wake = over.map_or(next, |over| over.min(next));
        if wake <= now {
            return Ok(false);
        }
        runtime.sleep_until(wake).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A place in the log, written as `0/16B3748`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Lsn(u64);

impl Lsn {
    /// The end of the last record, where `self` is the place of the next. They
    /// differ at the beginning of a page, whose header comes between, and of
    /// which nobody hears before there is a next record: an idle standby would
    /// never get there.
    fn last_end(self, page: u64, segment: u64) -> Self {
        const HEADER: u64 = 24;
        const FIRST_HEADER: u64 = 40;

        let Self(next) = self;
        match (next % segment, next % page) {
            (FIRST_HEADER, _) => Self(next - FIRST_HEADER),
            (_, HEADER) => Self(next - HEADER),
            _ => self,
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & u64::from(u32::MAX))
    }
}

impl FromStr for Lsn {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let half = |digits: &str| {
            let good = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            good.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(u64::from)
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| {
                Error::config(format!("a position here looks like 0/16B3748, not like `{text}`"))
            })
    }
}

#[cfg(test)]
mod tests {
    use millpond_driver::ErrorKind;

    use super::*;

    const PAGE: u64 = 8192;
    const SEGMENT: u64 = 16 << 20;

    #[test]
    fn a_place_in_the_log_is_written_as_the_server_writes_it() {
        for (text, place) in
            [("0/0", 0), ("0/16B3748", 0x16B_3748), ("2A/F0000001", 0x2A_F000_0001)]
        {
            let lsn: Lsn = text.parse().unwrap();
            assert_eq!((lsn, &*lsn.to_string()), (Lsn(place), text));
        }
        assert_eq!("ffffffff/a".parse::<Lsn>().unwrap(), Lsn(0xFFFF_FFFF_0000_000A));
    }

    #[test]
    fn what_is_no_place_in_the_log_is_a_wrong_setting() {
        for text in ["", "/", "0/", "/0", "16B3748", "0/16B3748/0", "0/x", "0/+1", "0/123456789"] {
            let error = text.parse::<Lsn>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.to_string().contains("0/16B3748"), "{error}");
        }
    }

    #[test]
    fn a_header_is_nothing_to_wait_for() {
        for (next, end) in [
            (3 * SEGMENT + 40, 3 * SEGMENT),
            (3 * SEGMENT + PAGE + 24, 3 * SEGMENT + PAGE),
            // The rest of a record that began on the page before.
            (3 * SEGMENT + PAGE + 40, 3 * SEGMENT + PAGE + 40),
            (3 * SEGMENT + PAGE, 3 * SEGMENT + PAGE),
            (3 * SEGMENT + 48, 3 * SEGMENT + 48),
        ] {
            assert_eq!(Lsn(next).last_end(PAGE, SEGMENT), Lsn(end), "{next:x}");
        }
    }
}
