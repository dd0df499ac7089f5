//! Rows of a statement in batches, while it runs.
//!
//! Decides how far a statement may run ahead of whoever reads it. Does not know
//! how a row is read.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt, stream};
use millpond_driver::{Result, Row, Value};

use crate::SqliteConnection;
use crate::statement::Verb;
use crate::work::Stop;

/// Rows handed over at a time: enough that the hand-over costs little of the
/// reading.
const BATCH: usize = 128;

/// Batches that may be read before the first is asked for.
const AHEAD: usize = 2;

/// Where a stream is.
enum Stage<'a> {
    Start { conn: &'a mut SqliteConnection, sql: &'a str, params: &'a [Value] },
    Running { conn: &'a mut SqliteConnection, tap: Tap },
    Done,
}

pub(crate) fn rows<'a>(
    conn: &'a mut SqliteConnection,
    sql: &'a str,
    params: &'a [Value],
) -> impl Stream<Item = Result<Row>> + Send + 'a {
    stream::try_unfold(Stage::Start { conn, sql, params }, next)
        .map_ok(|batch| stream::iter(batch.into_iter().map(Ok)))
        .try_flatten()
}

async fn next(mut stage: Stage<'_>) -> Result<Option<(Vec<Row>, Stage<'_>)>> {
    loop {
        stage = match stage {
            Stage::Start { conn, sql, params } => {
                conn.settle().await?;
                if let Some(rows) = conn.try_inline(sql, params) {
                    return Ok(Some((rows?.into_iter().collect(), Stage::Done)));
                }
                let tap = open(conn, sql, params)?;
                Stage::Running { conn, tap }
            }
            Stage::Running { conn, mut tap } => match tap.batches.next().await {
                Some(Ok(batch)) => {
                    // Refused when the statement is at its end.
                    let _ = tap.more.send(());
                    return Ok(Some((batch, Stage::Running { conn, tap })));
                }
                Some(Err(error)) => {
                    tap.close();
                    // It may be closed, for which the error is the reason.
                    let _ = conn.settle().await;
                    return Err(error);
                }
                None => {
                    tap.close();
                    conn.settle().await?;
                    Stage::Done
                }
            },
            Stage::Done => return Ok(None),
        };
    }
}

/// Starts the statement.
fn open(conn: &mut SqliteConnection, sql: &str, params: &[Value]) -> Result<Tap> {
    let (more, asked) = channel();
    for _ in 1..AHEAD {
        let _ = more.send(());
    }
    let (sink, batches) = unbounded();
    let (text, params) = (sql.to_owned(), params.to_vec());
    // What it answers comes through the tap as well.
    let _done = conn.send(move |engine, runtime| {
        let mut flow = Flow { batch: Vec::new(), sink, asked };
        let ran = engine.stream(&text, &params, runtime, |row| flow.push(row));
        flow.finish(ran.clone());
        ran
    })?;
    let stop = (Verb::of(sql) == Verb::Read).then(|| conn.stopper());
    Ok(Tap { batches, more, stop })
}

/// The reader's end. Dropped early it stops a statement that reads; one that
/// writes has done so before its first row and only stops giving rows, for an
/// interrupt would take its transaction along.
struct Tap {
    batches: UnboundedReceiver<Result<Vec<Row>>>,
    /// One for each batch that may follow.
    more: Sender<()>,
    stop: Option<(Arc<Stop>, Option<u64>)>,
}

impl Tap {
    /// The statement is at its end: nothing to stop.
    fn close(&mut self) {
        self.stop = None;
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some((stop, errand)) = &self.stop {
            stop.stop(*errand);
        }
    }
}

/// The statement's end.
struct Flow {
    batch: Vec<Row>,
    sink: UnboundedSender<Result<Vec<Row>>>,
    asked: Receiver<()>,
}

impl Flow {
    fn push(&mut self, row: Row) -> ControlFlow<()> {
        self.batch.push(row);
        if self.batch.len() < BATCH { ControlFlow::Continue(()) } else { self.hand_over() }
    }

    /// Hands the batch over and waits until another may follow.
    fn hand_over(&mut self) -> ControlFlow<()> {
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let read = self.sink.unbounded_send(Ok(batch)).is_ok() && self.asked.recv().is_ok();
        if read { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn finish(self, ran: Result<()>) {
        if !self.batch.is_empty() {
            let _ = self.sink.unbounded_send(Ok(self.batch));
        }
        if let Err(error) = ran {
            let _ = self.sink.unbounded_send(Err(error));
        }
    }
}

#[cfg(test)]
mod tests {
    use millpond_driver::Columns;

    use super::*;

    /// Rows read while nobody asks for more than comes by itself.
    fn rows_read(asked_for: usize) -> usize {
        let (more, asked) = channel();
        for _ in 0..asked_for {
            more.send(()).expect("the other end is here");
        }
        drop(more);
        let (sink, batches) = unbounded();
        let mut flow = Flow { batch: Vec::new(), sink, asked };
        let mut read = 1;
        while flow.push(Row::new(Columns::default(), [])).is_continue() {
            read += 1;
        }
        drop(batches);
        read
    }

    #[test]
    fn a_statement_runs_no_further_ahead_than_it_may() {
        assert_eq!(rows_read(AHEAD - 1), AHEAD * BATCH);
        assert_eq!(rows_read(5), 6 * BATCH);
    }

    #[test]
    fn a_statement_stops_when_nobody_reads_any_more() {
        let (more, asked) = channel();
        more.send(()).expect("the other end is here");
        let (sink, batches) = unbounded();
        drop(batches);
        let mut flow = Flow { batch: Vec::new(), sink, asked };
        assert!((1..BATCH).all(|_| flow.push(Row::new(Columns::default(), [])).is_continue()));
        assert!(flow.push(Row::new(Columns::default(), [])).is_break());
    }
}
