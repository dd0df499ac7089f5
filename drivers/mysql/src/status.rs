//! What a node says of its place among others.
//!
//! Owns the question and how its answer is read. Does not know what anybody
//! does with it.

use std::time::Duration;

use millpond_driver::{NodeStatus, Role};
use mysql_async::prelude::{FromValue, Queryable};
use mysql_async::{Conn, Error, Row, Value};

use crate::connection::Server;
use crate::error::Family;
use crate::gtid::{GtidSet, Gtids};

/// What it makes sense to ask a server for, as it has turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asks {
    /// It knows the variables of global transaction identifiers.
    pub(crate) gtids: bool,
    /// It may be a node of Galera.
    pub(crate) galera: bool,
}

/// The question, in one round trip. What a node of Galera still answers that is
/// out of the cluster comes first, what may be forbidden comes last.
pub(crate) fn sql(server: &Server, asks: Asks) -> String {
    let galera = if asks.galera { GALERA } else { "" };
    let (running, replicas) = match server.family {
        Family::Mariadb => (SLAVES_RUNNING, "ALL SLAVES"),
        // MySQL renamed it in 8.0.22 and dropped the old name in 8.4.
        _ if version(&server.version) >= (8, 0, 22) => ("NULL", "REPLICA"),
        _ => ("NULL", "SLAVE"),
    };
    let gtids = match server.family {
        _ if !asks.gtids => "",
        Family::Mariadb => ", @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_slave_pos",
        _ => ", @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed",
    };
    format!(
        "{galera}SELECT @@GLOBAL.read_only, @@GLOBAL.innodb_read_only, {running}{gtids}; \
         SHOW {replicas} STATUS"
    )
}

/// How many channels of MariaDB are connected and replay. Everybody may know;
/// MySQL has nothing like it.
pub(crate) const SLAVES_RUNNING: &str = "(SELECT VARIABLE_VALUE \
     FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'SLAVES_RUNNING')";

const GALERA: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('wsrep_provider_name', \
     'wsrep_ready', 'wsrep_cluster_status', 'wsrep_cluster_state_uuid', 'wsrep_last_committed'); ";

/// The leading numbers of `8.0.36-log`.
fn version(text: &str) -> (u32, u32, u32) {
    let mut numbers =
        text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    (next(), next(), next())
}

/// A node of Galera, as it sees itself.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Galera {
    /// It takes part, in the part of the cluster that has the majority.
    ready: bool,
    cluster: Option<Box<str>>,
    /// How many transactions of the cluster it has.
    position: Option<u128>,
}

/// Asks it. Without the privilege to see the replication, the role is unknown
/// unless the rest tells. Says as well whether it is a node of Galera.
pub(crate) async fn read(
    client: &mut Conn,
    sql: &str,
    family: Family,
    asks: Asks,
) -> mysql_async::Result<(NodeStatus, bool)> {
    let mut result = client.query_iter(sql).await?;
    let galera = match asks.galera {
        true => galera(&result.collect().await?),
        false => None,
    };
    let is_galera = galera.is_some();
    let modes: Vec<Row> = match result.collect().await {
        // As all statements but a few while the node is out of its cluster: it is of
        // no use then, and so is what it says of itself.
        Err(refusal @ Error::Server(_)) => {
            result.drop_result().await?;
            return Err(refusal);
        }
        modes => modes?,
    };
    let channels = match result.collect::<Row>().await {
        Ok(channels) => Some(channels),
        Err(Error::Server(_)) => None,
        Err(error) => return Err(error),
    };
    result.drop_result().await?;
    let modes = modes.first();
    let mode = |index| modes.and_then(|row| row.as_ref(index)).is_some_and(is_on);
    let told = Modes { read_only: mode(0), engine_read_only: mode(1), follows: mode(2) };
    let channels = channels.map(|rows| rows.iter().map(Channel::of).collect::<Vec<_>>());
    let mut status = judge(told, channels.as_deref(), galera);
    if asks.gtids && !is_galera {
        let text = |index| modes.and_then(|row| row.get_opt::<String, _>(index)?.ok());
        status.position =
            position(family, &text(3).unwrap_or_default(), &text(4).unwrap_or_default());
    }
    Ok((status, is_galera))
}

fn galera(told: &[(String, String)]) -> Option<Galera> {
    let value = |wanted: &str| {
        let found = told.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map_or("", |(_, value)| value)
    };
    // Servers without a provider have these variables as well.
    if value("wsrep_provider_name").is_empty() {
        return None;
    }
    let ready = value("wsrep_ready").eq_ignore_ascii_case("ON")
        && value("wsrep_cluster_status").eq_ignore_ascii_case("Primary");
    // Nothing but zeros until it has joined one.
    let cluster = Some(value("wsrep_cluster_state_uuid"))
        .filter(|uuid| uuid.bytes().any(|byte| !matches!(byte, b'0' | b'-')));
    // Below zero until it has joined one.
    let position = value("wsrep_last_committed").parse().ok();
    Some(Galera { ready, cluster: cluster.map(Into::into), position })
}

/// How many transactions are in the log, written here or replayed, by the two
/// variables that [`sql`] names.
fn position(family: Family, first: &str, second: &str) -> Option<u128> {
    match family {
        Family::Mariadb => first.parse::<Gtids>().ok()?.or(second.parse().ok()?).count(),
        _ if first.eq_ignore_ascii_case("OFF") || first.is_empty() => None,
        _ => second.parse::<GtidSet>().ok()?.count(),
    }
}

/// What everybody may know of a node.
#[derive(Debug, Clone, Copy, Default)]
struct Modes {
    read_only: bool,
    /// It reads what another node writes to the storage of both.
    engine_read_only: bool,
    /// A channel is connected and replays. `false` may mean that it is not known.
    follows: bool,
}

/// One by which a node follows another.
#[derive(Debug, Clone, Copy, Default)]
struct Channel {
    /// It receives, tries to, or replays.
    runs: bool,
    lag: Option<Duration>,
}

impl Channel {
    fn of(row: &Row) -> Self {
        let text = |names| find::<String>(row, names).unwrap_or_default();
        // It is `Connecting` while the primary is away.
        let runs = |names| !matches!(&*text(names), "" | "No");
        let lag = find(row, ["Seconds_Behind_Source", "Seconds_Behind_Master"]);
        Self {
            runs: runs(["Replica_IO_Running", "Slave_IO_Running"])
                || runs(["Replica_SQL_Running", "Slave_SQL_Running"]),
            lag: lag.map(Duration::from_secs),
        }
    }
}

/// A channel that nobody has removed says nothing while it rests: to stop it and
/// to allow writes is how many make a primary.
fn judge(modes: Modes, channels: Option<&[Channel]>, galera: Option<Galera>) -> NodeStatus {
    let mut status = NodeStatus::default();
    let writable = !modes.read_only && !modes.engine_read_only;
    status.writable = Some(writable);
    let follows = modes.follows || channels.unwrap_or_default().iter().any(|channel| channel.runs);
    status.role = match channels {
        _ if follows || modes.engine_read_only => Role::Replica,
        Some(_) if writable => Role::Primary,
        Some([]) | None => Role::Unknown,
        Some(_) => Role::Replica,
    };
    // Of several channels the slowest counts.
    status.lag = channels.unwrap_or_default().iter().filter_map(|channel| channel.lag).max();
    if let Some(galera) = galera {
        status.role = Role::Peer;
        status.writable = status.writable.map(|writable| writable && galera.ready);
        status.cluster = galera.cluster;
        status.position = galera.position;
    }
    status
}

/// The value of a column that has one of these names.
fn find<T: FromValue>(row: &Row, names: [&str; 2]) -> Option<T> {
    let index = row.columns_ref().iter().position(|column| {
        let name = column.name_str();
        names.iter().any(|known| known.eq_ignore_ascii_case(&name))
    })?;
    row.get_opt::<Option<T>, _>(index)?.ok()?
}

fn is_on(value: &Value) -> bool {
    match value {
        Value::Int(number) => *number != 0,
        Value::UInt(number) => *number != 0,
        Value::Bytes(text) => !matches!(text.as_slice(), b"0" | b"OFF"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_up_to_its_suffix() {
        assert_eq!(version("8.0.36-log"), (8, 0, 36));
        assert_eq!(version("10.11.14-MariaDB"), (10, 11, 14));
        assert_eq!(version("9"), (9, 0, 0));
        assert_eq!(version(""), (0, 0, 0));
    }

    #[test]
    fn the_question_has_the_name_that_the_server_knows() {
        for (version, name) in
            [("8.4.0", "REPLICA"), ("8.0.21", "SLAVE"), ("10.11.14-MariaDB", "ALL SLAVES")]
        {
            let server = Server::new(version, "");
            let sql = sql(&server, Asks { gtids: true, galera: true });
            assert!(sql.ends_with(&format!("SHOW {name} STATUS")), "{version}");
        }
    }

    const WRITABLE: Modes = Modes { read_only: false, engine_read_only: false, follows: false };
    const READ_ONLY: Modes = Modes { read_only: true, ..WRITABLE };
    const RUNS: Channel = Channel { runs: true, lag: None };
    const RESTS: Channel = Channel { runs: false, lag: None };

    #[test]
    fn a_node_is_a_primary_if_it_takes_writes_and_no_channel_of_it_runs() {
        let (primary, replica, unknown) = (Role::Primary, Role::Replica, Role::Unknown);
        let follows = Modes { follows: true, ..WRITABLE };
        let reader = Modes { read_only: true, engine_read_only: true, follows: false };
        for (modes, channels, role) in [
            (WRITABLE, Some(&[][..]), primary),
            (READ_ONLY, Some(&[]), unknown),
            (WRITABLE, Some(&[RUNS]), replica),
            (READ_ONLY, Some(&[RUNS]), replica),
            (WRITABLE, Some(&[RESTS]), primary),
            (READ_ONLY, Some(&[RESTS]), replica),
            (WRITABLE, Some(&[RESTS, RUNS]), replica),
            // Who asks is not allowed to see the channels.
            (WRITABLE, None, unknown),
            (READ_ONLY, None, unknown),
            (follows, None, replica),
            // It shares its storage with a writer.
            (reader, None, replica),
            (reader, Some(&[]), replica),
        ] {
            let status = judge(modes, channels, None);
            assert_eq!(status.role, role, "{modes:?}, {channels:?}");
            assert_eq!(status.writable, Some(!modes.read_only), "{modes:?}");
        }
    }

    #[test]
    fn of_several_channels_the_slowest_counts() {
        let seconds = |seconds| Channel { runs: true, lag: Some(Duration::from_secs(seconds)) };
        let status = judge(READ_ONLY, Some(&[seconds(1), seconds(9), RESTS]), None);
        assert_eq!(status.lag, Some(Duration::from_secs(9)));
    }

    fn told(provider: &str, ready: &str, status: &str, uuid: &str) -> Option<Galera> {
        galera(&[
            ("wsrep_cluster_state_uuid".to_owned(), uuid.to_owned()),
            ("wsrep_cluster_status".to_owned(), status.to_owned()),
            ("wsrep_provider_name".to_owned(), provider.to_owned()),
            ("wsrep_ready".to_owned(), ready.to_owned()),
            ("wsrep_last_committed".to_owned(), "9".to_owned()),
        ])
    }

    #[test]
    fn a_node_of_galera_is_a_peer_that_takes_writes_while_it_is_in_the_majority() {
        const UUID: &str = "0ba0e2a2-0000-11f0-8000-d3c2b1a09f8e";

        for (ready, component, read_only, writable) in [
            ("ON", "Primary", false, true),
            ("ON", "Primary", true, false),
            ("OFF", "Primary", false, false),
            ("ON", "non-Primary", false, false),
            ("OFF", "Disconnected", false, false),
        ] {
            let modes = if read_only { READ_ONLY } else { WRITABLE };
            let status = judge(modes, Some(&[]), told("Galera", ready, component, UUID));
            assert_eq!((status.role, status.writable), (Role::Peer, Some(writable)), "{component}");
            assert_eq!((status.cluster.as_deref(), status.position), (Some(UUID), Some(9)));
        }
        let joining = "00000000-0000-0000-0000-000000000000";
        let alone = told("Galera", "OFF", "non-Primary", joining).expect("a provider");
        assert_eq!(alone.cluster, None);
    }

    #[test]
    fn a_server_without_a_provider_is_no_node_of_galera() {
        assert_eq!(told("", "OFF", "Disconnected", ""), None);
        assert_eq!(galera(&[]), None);
    }

    #[test]
    fn a_position_is_the_number_of_transactions_in_the_log() {
        assert_eq!(position(Family::Mariadb, "0-1-42,1-1-8", "0-2-44"), Some(52));
        assert_eq!(position(Family::Mariadb, "", ""), None, "nothing is logged");
        let set = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7";
        assert_eq!(position(Family::Mysql, "ON", set), Some(6));
        assert_eq!(position(Family::Mysql, "ON", ""), None, "nothing is logged");
        assert_eq!(position(Family::Mysql, "OFF", set), None);
    }
}
