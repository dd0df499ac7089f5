//! Statements of the driver and their answers.
//!
//! Decides when a statement is prepared, when it is run again, and of which a part
//! may stand although it failed. Does not know how an error is explained, nor what
//! else is in flight.

use std::iter;
use std::mem;
use std::pin::pin;

use futures_util::TryStreamExt;
use millpond_driver::{Cause, Columns, Error, Fate, Outcome, Result, Row, Rows, Value};
use tokio_postgres::RowStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::PostgresConnection;
use crate::connection::Fault;
use crate::error;
use crate::statements::{self, Prepared};
use crate::value::{Lazy, Param};

impl PostgresConnection {
    /// Runs a statement and collects its rows.
    pub(crate) async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Rows> {
        let mut repeated = false;
        loop {
            let sent = self.begin().await?;
            match self.try_query(sql, params).await {
                Ok(rows) => {
                    self.done();
                    return Ok(rows);
                }
                Err(fault) => {
                    let error = Box::pin(self.explain_of(sql, fault, sent)).await;
                    if !self.is_stale(sql, &error) || mem::replace(&mut repeated, true) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Runs statements that are separated by semicolons.
    pub(crate) async fn batch(&mut self, sql: &str) -> Result<()> {
        let sent = self.begin().await?;
        let done = match statements::has_zero_byte(sql) {
            true => Err(Fault::Ours(zero_byte())),
            false => self.client.batch_execute(sql).await.map_err(Fault::Client),
        };
        match done {
            Ok(()) => {
                self.done();
                Ok(())
            }
            Err(fault) => {
                let error = Box::pin(self.explain_of(sql, fault, sent)).await;
                Err(match statements::commits_between(sql) {
                    true => error::after_commit(error),
                    false => error,
                })
            }
        }
    }

    /// As [`explain`](Self::explain), of this statement.
    #[cold]
    async fn explain_of(&mut self, sql: &str, fault: Fault, sent: u32) -> Error {
        let error = self.explain(fault, sent).await;
        // In a transaction nothing commits but its end.
        let alone = self.status() != b'E';
        match alone && statements::may_commit(sql) && !error::came_before(&error) {
            true => error::after_commit(error),
            false => error,
        }
    }

    /// Whether a statement failed only because it was prepared long ago, and may be
    /// run again. It is forgotten.
    fn is_stale(&mut self, sql: &str, error: &Error) -> bool {
        error.cause() == Cause::StaleStatement
            && self.statements.forget(sql)
            && error.outcome() == Outcome::Rejected
            && self.status() == b'I'
            && !statements::may_commit(sql)
    }

    async fn try_query(&mut self, sql: &str, params: &[Value]) -> Result<Rows, Fault> {
        let (stream, mut columns) = self.try_start(sql, params).await?;
        let mut stream = pin!(stream);
        let mut rows = Vec::new();
        while let Some(row) = stream.try_next().await? {
            let columns = columns.get_or_insert_with(|| statements::columns(row.columns()));
            rows.push(Row::lazy(columns.clone(), Lazy(row)));
        }
        let rows = Rows::new(columns.unwrap_or_default(), rows);
        Ok(match stream.rows_affected() {
            Some(affected) if self.has_changed() => rows.with_affected(affected),
            _ => rows,
        })
    }

    /// Starts a statement: its rows, and their columns if they were known before.
    async fn try_start(
        &mut self,
        sql: &str,
        params: &[Value],
    ) -> Result<(RowStream, Option<Columns>), Fault> {
        let prepared = match self.statements.get(sql) {
            Some(prepared) => prepared,
            None if statements::has_zero_byte(sql) => return Err(Fault::Ours(zero_byte())),
            None if params.is_empty() && statements::gives_no_rows(sql) => {
                let none = iter::empty::<(Param<'_>, Type)>();
                let rows = Box::pin(self.client.query_typed_raw(sql, none)).await?;
                return Ok((rows, None));
            }
            // In a box, so that the future of one that is known is small.
            None => Box::pin(self.prepare(sql)).await?,
        };
        let wanted = prepared.statement.params().len();
        if wanted != params.len() {
            return Err(Fault::Ours(miscounted(wanted, params.len())));
        }
        let params = params.iter().enumerate().map(|(index, value)| Param(index + 1, value));
        let stream = self.client.query_raw(&prepared.statement, params).await?;
        Ok((stream, Some(prepared.columns)))
    }

    async fn prepare(&mut self, sql: &str) -> Result<Prepared, Fault> {
        if statements::is_copy(sql) {
            return Err(Fault::Ours(Error::unsupported(
                "COPY with the client's data; see copy_in and copy_out of conn.client()",
            )));
        }
        match self.client.prepare(sql).await {
            Ok(statement) => {
                let prepared = Prepared::new(statement);
                self.statements.keep(sql, prepared.clone());
                Ok(prepared)
            }
            // One of the client's own, by which it learns types, has been thrown
            // away past it. It goes on to run that as long as it lives.
            Err(native) if native.code() == Some(&SqlState::INVALID_SQL_STATEMENT_NAME) => {
                Err(Fault::Ours(error::error(native).with_fate(Fate::Discard)))
            }
            Err(native) => Err(native.into()),
        }
    }

    /// Starts a statement whose rows come one by one; the caller says when they
    /// have.
    pub(crate) async fn start(
        &mut self,
        sql: &str,
        params: &[Value],
    ) -> Result<(RowStream, Option<Columns>, u32)> {
        let mut repeated = false;
        loop {
            let sent = self.begin().await?;
            match self.try_start(sql, params).await {
                Ok((stream, columns)) => return Ok((stream, columns, sent)),
                Err(fault) => {
                    let error = Box::pin(self.explain_of(sql, fault, sent)).await;
                    if !self.is_stale(sql, &error) || mem::replace(&mut repeated, true) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The rows have come, or an error instead.
    pub(crate) async fn finish(
        &mut self,
        sql: &str,
        sent: u32,
        failure: Option<tokio_postgres::Error>,
    ) -> Result<()> {
        match failure {
            None => {
                self.done();
                Ok(())
            }
            Some(error) => Err(Box::pin(self.explain_of(sql, error.into(), sent)).await),
        }
    }

    /// Whether the last statement was one that changes rows.
    fn has_changed(&self) -> bool {
        let tag = self.tag();
        let verb = tag.split(|&byte| byte == b' ' || byte == 0).next().unwrap_or_default();
        matches!(verb, b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE" | b"COPY")
    }
}

#[cold]
fn miscounted(wanted: usize, given: usize) -> Error {
    Error::statement(format!("the statement has {wanted} parameters, {given} values were given"))
        .with_outcome(Outcome::NotSent)
}

#[cold]
fn zero_byte() -> Error {
    Error::statement("the statement has a zero byte, which no text has")
        .with_outcome(Outcome::NotSent)
}
