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
use crate::pooler::Pooler;

/// How much is asked of a server, beginning with all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    All,
    /// Not which cluster it belongs to.
    Place,
    /// Nothing of the log, which is not everywhere PostgreSQL's own.
    Role,
}

impl Asks {
    /// What to ask for once this was refused, if less would do.
    fn after(self, error: &Error) -> Option<Self> {
        let Some(Code::SqlState(state)) = error.code() else { return None };
        match (self, state) {
            (Self::All, b"42501" | b"42883") => Some(Self::Place),
            (Self::All | Self::Place, [b'0', b'A', ..] | [b'4', b'2', ..] | [b'5', b'5', ..]) => {
                Some(Self::Role)
            }
            _ => None,
        }
    }

    /// Role, whether it refuses writes, the number of its process, its place in the
    /// log, bytes not replayed, seconds since the last change replayed, the timeline
    /// in hexadecimal, and the cluster.
    ///
    /// A standby knows its timeline from whom it follows, and tells those who may
    /// read all statistics. What its control file says may be long past. Whether it
    /// receives anything it tells everybody, by a process that does, and what that
    /// process does it tells those who may know: of what does not come it cannot say
    /// how much is not replayed.
    fn question(self, shared: bool) -> String {
        let read_only = if shared { READ_ONLY_BENEATH.to_owned() } else { read_only() };
        let more = match self {
            Self::Role => String::new(),
            Self::All | Self::Place => format!(
                ", pg_wal_lsn_diff(CASE WHEN r THEN pg_last_wal_replay_lsn() \
                 ELSE pg_current_wal_lsn() END, '0/0'), \
                 CASE WHEN r THEN (SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), \
                 pg_last_wal_replay_lsn()) FROM pg_stat_get_wal_receiver() \
                 WHERE pid IS NOT NULL AND coalesce(status, 'streaming') = 'streaming') END, \
                 CASE WHEN r THEN \
                 extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) END, \
                 CASE WHEN r THEN (SELECT to_hex(received_tli) FROM pg_stat_get_wal_receiver()) \
                 ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END, {}",
                if self == Self::All { CLUSTER } else { "NULL" }
            ),
        };
        format!("SELECT r, {read_only}, {PROCESS}{more} FROM pg_is_in_recovery() AS r")
    }
}

/// Whether the server refuses writes, asked in a session of one's own: one that
/// refuses them may have been asked to, and then the server's own setting counts.
fn read_only() -> String {
    format!(
        "CASE current_setting('default_transaction_read_only') WHEN 'off' THEN 'off' \
         ELSE {READ_ONLY_BENEATH} END"
    )
}

/// The server's own setting, which takes it ten times as long. In a session that
/// is shared the other may be anybody's.
const READ_ONLY_BENEATH: &str =
    "(SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only')";
const PROCESS: &str = "pg_backend_pid()";
const CLUSTER: &str = "(SELECT system_identifier FROM pg_control_system())";

/// Asks for the status, in one round trip: the first time in more, where the user
/// may not know all of it, or the server does not.
pub(crate) async fn status(conn: &mut PostgresConnection) -> Result<NodeStatus> {
    // A refusal would fail the transaction.
    let idle = conn.status() == b'I';
    let asks = match conn.asks {
        Asks::All if !idle => Asks::Place,
        asks => asks,
    };
    let shared = conn.pooler != Pooler::None;
    match ask(conn, &asks.question(shared)).await {
        Err(error) => match asks.after(&error) {
            Some(less) if idle => {
                conn.asks = less;
                Box::pin(status(conn)).await
            }
            _ => Err(error),
        },
        Ok(row) => {
            conn.meet(number(&row, 2));
            Ok(node_status(&row))
        }
    }
}

/// Has the session refuse writes, if it is one's own. Where it turns out not to
/// be, nothing has been set.
pub(crate) async fn refuse_writes(conn: &mut PostgresConnection) -> Result<()> {
    const SET: &str = "pg_catalog.set_config('default_transaction_read_only', 'on', false)";

    if conn.pooler != Pooler::There {
        let condition = match conn.process() {
            0 => "true".to_owned(),
            process => format!("{PROCESS} = {}", process as i32),
        };
        let sql = format!("SELECT {PROCESS}, CASE WHEN {condition} THEN {SET} END");
        let row = ask(conn, &sql).await?;
        conn.meet(number(&row, 0));
    }
    match conn.pooler {
        Pooler::There => Err(Error::unsupported("read-only sessions behind a pooler")),
        Pooler::None | Pooler::Unknown => Ok(()),
    }
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
    if row.len() == 3 {
        return status;
    }
    status.position = number(row, 3);
    // What was restored from an archive was never received.
    status.lag_bytes = number::<i128>(row, 4).map(|bytes| bytes.max(0) as u64);
    status.lag =
        number::<f64>(row, 5).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    status.timeline = row.get(6).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    status.cluster = row.get(7).map(Into::into);
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
    const HIDDEN: &str = "positions in the log of this server, which does not tell them";

    if conn.asks == Asks::Role {
        return Err(Error::unsupported(HIDDEN));
    }
    let row = match ask(conn, END).await {
        Err(error) if Asks::Place.after(&error).is_some() => {
            return Err(Error::unsupported(HIDDEN).with_source(error));
        }
        told => told?,
    };
    let lsn = number(&row, 1).map(Lsn);
    if is_standby(&row) {
        return Ok((true, lsn));
    }
    match (lsn, number(&row, 2), number(&row, 3)) {
        (Some(lsn), Some(page), Some(segment)) => Ok((false, Some(lsn.last_end(page, segment)))),
        _ => Err(Error::decode("the server did not tell where its log ends")),
    }
}

/// A place that is not before the end of what this server has committed or
/// replayed.
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
    fn what_a_server_refuses_to_tell_is_asked_for_no_more() {
        use Asks::{All, Place, Role};

        for (state, after_all, after_place) in [
            (b"42501", Some(Place), Some(Role)),
            (b"42883", Some(Place), Some(Role)),
            // As Aurora says it of functions that it does not have.
            (b"0A000", Some(Role), Some(Role)),
            (b"55000", Some(Role), Some(Role)),
            (b"57014", None, None),
            (b"25P02", None, None),
        ] {
            let error = Error::statement("no").with_code(Code::SqlState(*state));
            assert_eq!((All.after(&error), Place.after(&error)), (after_all, after_place));
            assert_eq!(Role.after(&error), None);
        }
        assert_eq!(All.after(&Error::lost("gone")), None);
    }

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
