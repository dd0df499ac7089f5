//! Rows one by one.
//!
//! Owns the place of a stream between its statement and its end. The server is
//! held back by whoever does not read. Does not know how a statement starts.

use std::pin::Pin;

use futures_core::Stream;
use futures_util::{TryStreamExt, stream};
use millpond_driver::{Columns, Result, Row, Value};
use tokio_postgres::RowStream;

use crate::PostgresConnection;
use crate::statements::columns;
use crate::value::Lazy;

enum Stage<'a> {
    Start { conn: &'a mut PostgresConnection, sql: &'a str, params: &'a [Value] },
    Running(Running<'a>),
}

struct Running<'a> {
    conn: &'a mut PostgresConnection,
    sql: &'a str,
    rows: Pin<Box<RowStream>>,
    columns: Option<Columns>,
    /// What the explanation of an error needs.
    sent: u32,
}

pub(crate) fn rows<'a>(
    conn: &'a mut PostgresConnection,
    sql: &'a str,
    params: &'a [Value],
) -> impl Stream<Item = Result<Row>> + Send + 'a {
    stream::try_unfold(Stage::Start { conn, sql, params }, next)
}

async fn next(stage: Stage<'_>) -> Result<Option<(Row, Stage<'_>)>> {
    let mut running = match stage {
        Stage::Start { conn, sql, params } => {
            let (rows, columns, sent) = conn.start(sql, params).await?;
            Running { conn, sql, rows: Box::pin(rows), columns, sent }
        }
        Stage::Running(running) => running,
    };
    let failure = match running.rows.try_next().await {
        Ok(Some(row)) => {
            let columns = running.columns.get_or_insert_with(|| columns(row.columns()));
            let row = Row::lazy(columns.clone(), Lazy(row));
            return Ok(Some((row, Stage::Running(running))));
        }
        Ok(None) => None,
        Err(failure) => Some(failure),
    };
    running.conn.finish(running.sql, running.sent, failure).await?;
    Ok(None)
}
