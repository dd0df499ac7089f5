//! What a node says of its place among others.
//!
//! Owns the question and how its answer is read. Does not know what anybody
//! does with it.

use std::time::Duration;

use millpond_driver::{NodeStatus, Role};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, Row, Value};

use crate::connection::Server;
use crate::error::Family;

/// The question, in one round trip.
pub(crate) fn sql(server: &Server) -> &'static str {
    // MySQL renamed it in 8.0.22 and dropped the old name in 8.4.
    if server.family == Family::Mysql && version(&server.version) >= (8, 0, 22) {
        "SELECT @@GLOBAL.read_only, @@GLOBAL.innodb_read_only; SHOW REPLICA STATUS"
    } else {
        "SELECT @@GLOBAL.read_only, @@GLOBAL.innodb_read_only; SHOW SLAVE STATUS"
    }
}

/// The leading numbers of `8.0.36-log`.
fn version(text: &str) -> (u32, u32, u32) {
    let mut numbers =
        text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    (next(), next(), next())
}

/// Asks it. Without the privilege to see the replication, the role is unknown
/// unless the rest tells.
pub(crate) async fn read(client: &mut Conn, sql: &str) -> mysql_async::Result<NodeStatus> {
    let mut result = client.query_iter(sql).await?;
    let modes: Vec<Row> = result.collect().await?;
    let channels = match result.collect::<Row>().await {
        Ok(channels) => Some(channels),
        Err(Error::Server(_)) => None,
        Err(error) => return Err(error),
    };
    result.drop_result().await?;
    let mode = |index| modes.first().and_then(|row| row.as_ref(index)).is_some_and(is_on);
    Ok(judge(mode(0), mode(1), channels.as_deref()))
}

fn judge(read_only: bool, engine_read_only: bool, channels: Option<&[Row]>) -> NodeStatus {
    let mut status = NodeStatus::default();
    status.writable = Some(!read_only && !engine_read_only);
    status.role = match channels {
        Some([]) | None if engine_read_only => Role::Replica,
        Some([]) if !read_only => Role::Primary,
        Some([]) | None => Role::Unknown,
        Some(_) => Role::Replica,
    };
    // Of several channels the slowest counts.
    status.lag = channels.unwrap_or_default().iter().filter_map(lag).max();
    status
}

fn lag(channel: &Row) -> Option<Duration> {
    const NAMES: [&str; 2] = ["Seconds_Behind_Master", "Seconds_Behind_Source"];
    let index = channel.columns_ref().iter().position(|column| {
        let name = column.name_str();
        NAMES.iter().any(|known| known.eq_ignore_ascii_case(&name))
    })?;
    let seconds: Option<u64> = channel.get_opt(index)?.ok()?;
    seconds.map(Duration::from_secs)
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
            [("8.4.0", "REPLICA"), ("8.0.21", "SLAVE"), ("10.11.14-MariaDB", "SLAVE")]
        {
            let server = Server::new(version, "");
            assert!(sql(&server).ends_with(&format!("SHOW {name} STATUS")), "{version}");
        }
    }

    #[test]
    fn a_node_without_channels_is_a_primary_if_it_takes_writes() {
        let primary = judge(false, false, Some(&[]));
        assert_eq!((primary.role, primary.writable), (Role::Primary, Some(true)));
        let stopped = judge(true, false, Some(&[]));
        assert_eq!((stopped.role, stopped.writable), (Role::Unknown, Some(false)));
        assert_eq!(judge(false, false, None).role, Role::Unknown, "not allowed to see");
        assert_eq!(judge(true, true, None).role, Role::Replica, "a reader on shared storage");
    }
}
