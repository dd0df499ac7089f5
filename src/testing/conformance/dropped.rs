//! Claims about what is dropped: futures, streams and guards, anywhere.
//!
//! Knows one measure: the next borrower gets its own rows, at a boundary, and
//! no connection is lost.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{Either, select};
use millpond_driver::{Driver, Fate, TransactionOptions};

use super::lab::{BEGUN, Lab, Moment, Stop, Table, Verdict, cut, ensure};
use super::subject::{Ability, Subject};
use super::transactions::Work;
use crate::Pool;

/// Rows enough to come in more than one piece.
const MANY: u32 = 1000;

/// How long the next borrower may wait for a statement to be stopped. Shorter
/// than the pool's patience, after which it closes the connection.
const STOPPED: Duration = Duration::from_secs(4);

/// A request to cancel may come before its statement, so it is repeated, after
/// twice the time each.
const CANCELS: u32 = 9;

pub(super) async fn a_query_dropped_anywhere_leaves_nothing_to_the_next_borrower<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let pool = lab.pool(1).await?;
    let table = match lab.can(Ability::Tables) {
        true => Some(lab.table(&pool, Table::NUMBERS).await?),
        false => None,
    };
    let statement = |kind| match kind {
        0 => Some(lab.subject.select(&lab.token())),
        1 => lab.subject.rows(MANY),
        _ => table.as_ref().map(Table::insert),
    };
    for kind in 0..3 {
        for moments in Moment::all() {
            for moment in moments {
                let Some(sql) = statement(kind) else { break };
                let mut conn = pool.acquire().await?;
                let done = cut(conn.query(&sql, &[]), moment).await.transpose()?.is_some();
                drop(conn);
                drop(lab.next(&pool).await?);
                if done {
                    break;
                }
            }
        }
    }
    lab.all_back(&pool)?;
    match &table {
        Some(table) => lab.remove(&pool, table).await,
        None => Ok(()),
    }
}

pub(super) async fn a_statement_still_running_leaves_nothing_to_the_next_borrower<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Cancel)?;
    let pool = lab.pool(1).await?;
    for (begun, in_transaction) in [(false, false), (true, false), (true, true)] {
        let mut conn = pool.acquire().await?;
        if in_transaction && lab.can(Ability::Transactions) {
            pool.driver().begin(&mut conn, &TransactionOptions::new()).await?;
        }
        if begun {
            lab.leave_running(&mut conn).await?;
        } else {
            let sql = lab.given("statement that runs for long", lab.subject.slow())?;
            cut(conn.query(&sql, &[]), Moment::Waiting(1)).await;
        }
        drop(conn);
        let mut conn = lab.within(STOPPED, "the statement left behind", lab.next(&pool)).await??;
        // A cancel that comes late would stop one of these.
        for _ in 0..10 {
            lab.own_rows(&mut conn).await?;
        }
    }
    lab.all_back(&pool)
}

pub(super) async fn a_stream_dropped_half_way_leaves_nothing_to_the_next_borrower<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let pool = lab.pool(1).await?;
    for taken in [0, 1, MANY / 2, MANY - 1] {
        let sql = lab.given("statement of many rows", lab.subject.rows(MANY))?;
        let mut conn = pool.acquire().await?;
        {
            let mut rows = pin!(conn.query_stream(&sql, &[]));
            if taken == 0 {
                cut(rows.next(), Moment::Waiting(1)).await;
            }
            for number in 1..=taken {
                let row = rows.next().await.transpose()?;
                ensure!(row.is_some(), "row {number} of {MANY} is missing");
            }
        }
        drop(conn);
        lab.next(&pool).await?;
    }
    lab.all_back(&pool)
}

/// What no check before the next statement can see: a client that has lost its
/// place and hides it once it is used again.
pub(super) async fn a_connection_used_natively_after_a_dropped_future_leaves_nothing_behind<
    S: Subject,
>(
    lab: &Lab<S>,
) -> Verdict {
    let pool = lab.pool(1).await?;
    for through_the_pool in [true, false] {
        for moments in Moment::all() {
            for moment in moments {
                let mut conn = pool.acquire().await?;
                let sql = lab.subject.select(&lab.token());
                let done = if through_the_pool {
                    cut(conn.query(&sql, &[]), moment).await.is_some()
                } else {
                    let native = lab.subject.native(&mut conn, &sql);
                    cut(lab.given("native access", native)?, moment).await.is_some()
                };
                let sql = lab.subject.select(&lab.token());
                let native = lab.subject.native(&mut conn, &sql);
                // What the client itself makes of it is not the driver's to answer for.
                let _ = lab.given("native access", native)?.await;
                drop(conn);
                drop(lab.next(&pool).await?);
                if done {
                    break;
                }
            }
        }
    }
    lab.all_back(&pool)
}

pub(super) async fn a_guard_dropped_in_a_panic_leaves_nothing_behind<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let pool = lab.pool(1).await?;
    let work = Work::new(lab, &pool).await?;
    let conn = work.leave_open(lab, &pool).await?;
    // As a panic, but for the message.
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _conn = conn;
        resume_unwind(Box::new("on purpose"))
    }));
    ensure!(unwound.is_err_and(|panic| panic.is::<&str>()), "dropping the guard panicked as well");
    work.is_undone(lab, &pool).await?;
    work.remove(lab, &pool).await
}

pub(super) async fn a_guard_dropped_outside_the_runtime_leaves_nothing_behind<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let pool = lab.pool(1).await?;
    let work = Work::new(lab, &pool).await?;
    let conn = work.leave_open(lab, &pool).await?;
    std::thread::scope(|scope| {
        scope.spawn(move || drop(conn));
    });
    work.is_undone(lab, &pool).await?;
    work.remove(lab, &pool).await
}

pub(super) async fn a_cancel_stops_a_statement_that_is_awaited<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Cancel)?;
    let pool: Pool<S::Driver> = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    let mut handles = Vec::new();
    for _ in 0..CANCELS {
        let handle = pool.driver().cancel(&conn);
        handles.push(handle.ok_or_else(|| Stop::failed("the driver gives no cancel handle"))?);
    }
    let sql = lab.given("statement that runs for long", lab.subject.slow())?;
    let ended = {
        let mut query = pin!(conn.query(&sql, &[]));
        let mut pause = BEGUN;
        let mut handles = handles.into_iter();
        loop {
            match select(query.as_mut(), lab.sleep(pause)).await {
                Either::Left((ended, _)) => break ended,
                Either::Right(_) => {
                    let handle = handles.next();
                    let handle = handle.ok_or_else(|| {
                        Stop::failed(format_args!("still running after {CANCELS} cancels"))
                    })?;
                    handle.run().await?;
                    pause *= 2;
                }
            }
        }
    };
    let error = match ended {
        Ok(rows) => return Err(Stop::failed(format_args!("a stopped statement gave {rows:?}"))),
        Err(error) => error,
    };
    ensure!(error.fate() == Fate::Reusable, "a cancel costs the connection: {error:?}");
    lab.own_rows(&mut conn).await?;
    drop(conn);
    lab.next(&pool).await.map(drop)
}
