//! Runs a statement on the client and reads its answer.
//!
//! Decides how a statement is sent and which of its answers count. Knows no
//! marks: whoever calls it has set them.

use std::borrow::Cow;

use futures_core::Stream;
use futures_util::stream;
use millpond_driver::{Cells, Column, Columns, Error, Result, Row, Rows, Value};
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{BinaryProtocol, Conn, Params, QueryResult, TextProtocol};

use crate::error::Fault;
use crate::{MysqlConnection, value};

/// The answer to a statement that was sent, as far as it has not been read.
///
/// The client keeps the state of an answer, so this is made anew for each step
/// and nothing is lost with it.
struct Answer {
    /// Prepared statements are answered in another form than text.
    binary: bool,
}

impl Answer {
    /// Sends a statement: as text if it has no parameters, which is one round
    /// trip, else prepared, which is one more the first time in each epoch.
    async fn of(client: &mut Conn, sql: &str, params: Params, epoch: u64) -> Result<Self, Fault> {
        let Params::Positional(values) = params else {
            client.query_iter(sql).await?;
            return Ok(Self { binary: false });
        };
        let statement = client.prep(&*text(sql, epoch)).await?;
        // The client closes the connection over this.
        let (takes, given) = (usize::from(statement.num_params()), values.len());
        if takes != given {
            return Err(Fault::Ours(Error::statement(format!(
                "the statement takes {takes} parameters and {given} were given"
            ))));
        }
        client.exec_iter(&statement, Params::Positional(values)).await?;
        Ok(Self { binary: true })
    }

    /// The columns of the next rows; none if there are no rows to come.
    fn columns(&self, client: &mut Conn) -> Columns {
        if self.binary {
            columns::<BinaryProtocol>(client)
        } else {
            columns::<TextProtocol>(client)
        }
    }

    /// The next row, `None` once at the end of each set of rows.
    async fn next(&self, client: &mut Conn) -> mysql_async::Result<Option<mysql_async::Row>> {
        if self.binary {
            QueryResult::<BinaryProtocol>::new(client).next().await
        } else {
            QueryResult::<TextProtocol>::new(client).next().await
        }
    }

    /// Reads the rest: further sets, of procedures and of several statements.
    async fn drain(self, client: &mut Conn) -> mysql_async::Result<()> {
        if self.binary {
            QueryResult::<BinaryProtocol>::new(client).drop_result().await
        } else {
            QueryResult::<TextProtocol>::new(client).drop_result().await
        }
    }
}

/// What is prepared. The client finds a statement that it keeps by its text, and
/// the server runs it in the database that was in use when it was prepared: after
/// a change of that it is another statement.
fn text(sql: &str, epoch: u64) -> Cow<'_, str> {
    match (as_it_is(sql), epoch) {
        (sql, 0) => sql,
        (sql, epoch) => Cow::Owned(format!("/*{epoch}*/{sql}")),
    }
}

/// Keeps the client from taking the text after a colon for a parameter of its
/// own, which it does in some literals too: it does not see that this comment
/// ends, and looks at nothing after it.
fn as_it_is(sql: &str) -> Cow<'_, str> {
    let is_name =
        |pair: &[u8]| pair[0] == b':' && (pair[1] == b'_' || pair[1].is_ascii_lowercase());
    if sql.as_bytes().windows(2).any(is_name) {
        Cow::Owned(format!("/**/{sql}"))
    } else {
        Cow::Borrowed(sql)
    }
}

fn columns<P: Protocol>(client: &mut Conn) -> Columns {
    let result = QueryResult::<P>::new(client);
    let columns = result.columns_ref().iter();
    columns
        .map(|column| Column::new(&*column.name_str()).with_type_name(value::type_name(column)))
        .collect()
}

/// A row as it came, whose cells are decoded on request.
struct Raw(mysql_async::Row);

impl Cells for Raw {
    fn cell(&self, index: usize) -> Result<Value> {
        match self.0.as_ref(index) {
            Some(cell) => value::decode(&self.0.columns_ref()[index], cell),
            None => Err(Error::decode("the row is shorter than its columns")),
        }
    }
}

/// Runs a statement and collects its first rows.
pub(crate) async fn collect(
    client: &mut Conn,
    sql: &str,
    params: Params,
    epoch: u64,
) -> Result<Rows, Fault> {
    let answer = Answer::of(client, sql, params, epoch).await?;
    let columns = answer.columns(client);
    if columns.is_empty() {
        let rows = Rows::none().with_affected(client.affected_rows());
        let rows = match client.last_insert_id() {
            Some(id) => rows.with_last_insert_id(id),
            None => rows,
        };
        answer.drain(client).await.map_err(Fault::Later)?;
        return Ok(rows);
    }
    let mut rows = Vec::new();
    while let Some(row) = answer.next(client).await.map_err(Fault::Later)? {
        rows.push(Row::lazy(columns.clone(), Raw(row)));
    }
    answer.drain(client).await.map_err(Fault::Later)?;
    Ok(Rows::new(columns, rows))
}

/// Runs one or several statements and reads all that they answer.
pub(crate) async fn discard(client: &mut Conn, sql: &str) -> Result<(), Fault> {
    let result = client.query_iter(sql).await?;
    result.drop_result().await.map_err(Fault::Later)
}

/// Runs several statements and gives the first cell of the last row.
pub(crate) async fn last_text(client: &mut Conn, sql: &str) -> mysql_async::Result<Option<String>> {
    let mut result = client.query_iter(sql).await?;
    let mut last = None;
    loop {
        while let Some(row) = result.next().await? {
            last = Some(row);
        }
        if result.is_empty() {
            break;
        }
    }
    result.drop_result().await?;
    Ok(last.and_then(|row| row.get_opt(0)?.ok()))
}

/// Where a stream is.
enum Stage<'a> {
    Start { conn: &'a mut MysqlConnection, sql: &'a str, params: &'a [Value] },
    Rows { conn: &'a mut MysqlConnection, sql: &'a str, answer: Answer, columns: Columns },
}

/// Runs a statement and yields its rows as they are asked for: the server waits
/// while nobody does.
pub(crate) fn rows<'a>(
    conn: &'a mut MysqlConnection,
    sql: &'a str,
    params: &'a [Value],
) -> impl Stream<Item = Result<Row>> + Send + 'a {
    stream::try_unfold(Stage::Start { conn, sql, params }, next)
}

async fn next(stage: Stage<'_>) -> Result<Option<(Row, Stage<'_>)>> {
    let (conn, sql, answer, columns) = match stage {
        Stage::Start { conn, sql, params } => {
            let params = value::encode(params)?;
            conn.foresee(sql, &params);
            let epoch = conn.epoch();
            let (reactor, client) = conn.ready().await?;
            let sent = reactor
                .run(async {
                    let answer = Answer::of(client, sql, params, epoch).await?;
                    let columns = answer.columns(client);
                    Ok((answer, columns))
                })
                .await;
            match sent {
                Ok((answer, columns)) => (conn, sql, answer, columns),
                Err(fault) => return conn.end(Err(fault), sql).await,
            }
        }
        Stage::Rows { conn, sql, answer, columns } => (conn, sql, answer, columns),
    };
    let (reactor, client) = conn.goes_on();
    match reactor.run(answer.next(client)).await {
        Ok(Some(row)) => {
            let row = Row::lazy(columns.clone(), Raw(row));
            Ok(Some((row, Stage::Rows { conn, sql, answer, columns })))
        }
        Ok(None) => {
            let drained = reactor.run(answer.drain(client)).await;
            conn.end(drained.map_err(Fault::Later), sql).await?;
            Ok(None)
        }
        Err(error) => conn.end(Err(Fault::Later(error)), sql).await,
    }
}
