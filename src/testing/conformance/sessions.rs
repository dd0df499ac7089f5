//! Claims about the life of a session: how it opens, what it tells of itself,
//! how it is cleared and closed, and what never shows.

use std::error::Error as StdError;
use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt;
use millpond_driver::{
    ConnectContext, Credentials, Driver, Error, Fate, Outcome, Reset, Session, TransactionOptions,
};

use super::lab::{Lab, Moment, Stop, Table, Verdict, cut, ensure};
use super::subject::{Ability, Subject};
use crate::{Pool, PooledConnection};

/// How long something that is on its way may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn the_session_is_told_after_each_call<S: Subject>(lab: &Lab<S>) -> Verdict {
    lab.needs(Ability::Session)?;
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    lab.told(&pool, &conn, Session::Clean, "after the connect")?;
    conn.ping().await?;
    lab.told(&pool, &conn, Session::Clean, "after a ping")?;
    lab.own_rows(&mut conn).await?;
    lab.told(&pool, &conn, Session::Clean, "after a statement")?;
    let sql = lab.subject.select(&lab.token());
    let _: Vec<_> = pin!(conn.query_stream(&sql, &[])).try_collect().await?;
    lab.told(&pool, &conn, Session::Clean, "after a stream")?;
    if !lab.can(Ability::Transactions) {
        return Ok(());
    }
    let driver = pool.driver();
    let options = TransactionOptions::new();
    for commits in [true, false] {
        driver.begin(&mut conn, &options).await?;
        lab.told(&pool, &conn, Session::InTransaction, "after a begin")?;
        lab.own_rows(&mut conn).await?;
        lab.told(&pool, &conn, Session::InTransaction, "after a statement in a transaction")?;
        if commits {
            driver.commit(&mut conn).await?;
            lab.told(&pool, &conn, Session::Clean, "after a commit")?;
        } else {
            driver.rollback(&mut conn).await?;
            lab.told(&pool, &conn, Session::Clean, "after a rollback")?;
        }
    }
    Ok(())
}

/// A dropped statement that the session calls clean must have left nothing, and
/// one that has begun for certain is not clean.
pub(super) async fn a_statement_in_flight_is_never_called_clean<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Session)?;
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    let sql = lab.given("statement that runs for long", lab.subject.slow())?;
    cut(conn.query(&sql, &[]), Moment::Waiting(1)).await;
    if pool.driver().session(&conn) == Session::Clean {
        lab.within(PATIENCE, "a statement on a clean session", lab.own_rows(&mut conn)).await??;
    }
    conn.discard();
    let mut conn = pool.acquire().await?;
    lab.leave_running(&mut conn).await?;
    let told = pool.driver().session(&conn);
    conn.discard();
    ensure!(
        matches!(told, Session::Busy | Session::Unverified | Session::Closed),
        "a session with a statement in flight is told as {told:?}"
    );
    lab.next(&pool).await.map(drop)
}

pub(super) async fn a_reset_to_the_boundary_ends_a_transaction<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Transactions)?;
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    // The second finds nothing to do.
    pool.driver().begin(&mut conn, &TransactionOptions::new()).await?;
    for _ in 0..2 {
        pool.driver().reset(&mut conn, Reset::Boundary).await?;
        lab.told(&pool, &conn, Session::Clean, "after a reset")?;
    }
    pool.driver().begin(&mut conn, &TransactionOptions::new()).await?;
    pool.driver().rollback(&mut conn).await?;
    lab.own_rows(&mut conn).await
}

pub(super) async fn a_reset_of_the_session_clears_settings<S: Subject>(lab: &Lab<S>) -> Verdict {
    lab.needs(Ability::ResetSession)?;
    let builder = lab.builder(lab.subject.driver(), 1).reset(Reset::Session);
    let pool = builder.build().await?;
    let mut conn = pool.acquire().await?;
    let (id, before) = (conn.id(), setting(lab, &mut conn).await?);
    for by_the_pool in [false, true] {
        let change = lab.given("setting to change", lab.subject.change_setting())?;
        conn.query(&change, &[]).await?;
        let changed = setting(lab, &mut conn).await?;
        ensure!(changed != before, "the setting is {before:?} before and after its change");
        if by_the_pool {
            drop(conn);
            conn = lab.next(&pool).await?;
        } else {
            pool.driver().reset(&mut conn, Reset::Session).await?;
        }
        let after = setting(lab, &mut conn).await?;
        ensure!(after == before, "the setting was {before:?} and is {after:?} after a reset");
    }
    ensure!(conn.id() == id, "the connection was closed, not reset");
    Ok(())
}

async fn setting<S: Subject>(
    lab: &Lab<S>,
    conn: &mut PooledConnection<S::Driver>,
) -> Verdict<String> {
    let value = lab.subject.setting(conn);
    Ok(lab.given("value of the setting", value)?.await?)
}

pub(super) async fn a_read_only_session_refuses_writes<S: Subject>(lab: &Lab<S>) -> Verdict {
    lab.needs(Ability::ReadOnly)?;
    let pool = lab.pool(1).await?;
    let table = lab.table(&pool, Table::NUMBERS).await?;
    let mut conn = pool.acquire().await?;
    let driver = pool.driver();
    driver.set_read_only(&mut conn, true).await?;
    for when in ["at once", "after a reset"] {
        match conn.query(&table.insert(), &[]).await {
            Ok(_) => return Err(Stop::failed(format_args!("it takes a write {when}"))),
            Err(error) => ensure!(
                error.outcome() == Outcome::Rejected && error.fate() != Fate::Discard,
                "a write is not refused, but {error:?}"
            ),
        }
        let count = table.count(&mut conn).await?;
        ensure!(count == 0, "a write took effect {when}");
        driver.reset(&mut conn, Reset::Boundary).await?;
    }
    driver.set_read_only(&mut conn, false).await?;
    conn.query(&table.insert(), &[]).await?;
    drop(conn);
    lab.remove(&pool, &table).await
}

pub(super) async fn the_status_is_told<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    let status = pool.driver().status(&mut conn).await?;
    ensure!(
        !lab.can(Ability::Tables) || status.writable != Some(false),
        "the suite can create tables, but the node says that it takes no writes: {status:?}"
    );
    lab.told(&pool, &conn, Session::Clean, "after the status")?;
    lab.own_rows(&mut conn).await
}

pub(super) async fn a_close_ends_the_sessions<S: Subject>(lab: &Lab<S>) -> Verdict {
    let pool = lab.pool(2).await?;
    let both = (pool.acquire().await?, pool.acquire().await?);
    sessions_become(lab, "some", |sessions| sessions > 0).await?;
    drop(both);
    closes(lab, &pool).await
}

pub(super) async fn a_close_stops_a_statement_left_running<S: Subject>(lab: &Lab<S>) -> Verdict {
    lab.needs(Ability::Cancel)?;
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    lab.leave_running(&mut conn).await?;
    sessions_become(lab, "some", |sessions| sessions > 0).await?;
    drop(conn);
    closes(lab, &pool).await
}

async fn closes<S: Subject>(lab: &Lab<S>, pool: &Pool<S::Driver>) -> Verdict {
    let report = pool.close().await;
    ensure!(report.is_complete(), "the pool does not close: {report}");
    // Those of earlier claims have been closed as well.
    sessions_become(lab, "none", |sessions| sessions == 0).await
}

/// Waits for a server that counts its sessions when it comes to it.
async fn sessions_become<S: Subject>(
    lab: &Lab<S>,
    expected: &str,
    as_expected: impl Fn(u64) -> bool,
) -> Verdict {
    let mut pause = Duration::from_millis(1);
    loop {
        let sessions = lab.given("count of sessions", lab.subject.sessions())?.await?;
        if as_expected(sessions) {
            return Ok(());
        }
        ensure!(
            pause < PATIENCE,
            "the server counts {sessions} sessions where {expected} should be"
        );
        lab.sleep(pause).await;
        pause *= 2;
    }
}

pub(super) async fn an_unreachable_database_is_transient_and_nothing_was_sent<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let driver = lab.given("driver on an unreachable database", lab.subject.unreachable())?;
    let error = refused_connect(lab, driver).await?;
    ensure!(!error.is_permanent(), "it may come back, but the error is permanent: {error:?}");
    Ok(())
}

pub(super) async fn a_login_denied_is_permanent_and_nothing_was_sent<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let driver = lab.given("driver that is denied", lab.subject.denied())?;
    let error = refused_connect(lab, driver).await?;
    ensure!(error.is_permanent(), "somebody must change something, but: {error:?}");
    Ok(())
}

/// Twice, for what a driver keeps may come to light late.
pub(super) async fn credentials_given_for_one_connect_are_used_and_forgotten<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    let driver = lab.given("driver that is denied", lab.subject.denied())?;
    let password = lab.given("password", lab.subject.password())?;
    let given = Credentials::new().password(password);
    for _ in 0..2 {
        let cx = ConnectContext::new(&lab.runtime, lab.runtime.now() + PATIENCE);
        let mut conn = driver.connect(&cx.with_credentials(&given)).await?;
        driver.ping(&mut conn).await?;
        let cx = ConnectContext::new(&lab.runtime, lab.runtime.now() + PATIENCE);
        let next = driver.connect(&cx).await;
        driver.close(conn).await;
        match next {
            Ok(_) => return Err(Stop::failed("the next connect is let in without credentials")),
            Err(error) => ensure!(error.is_permanent(), "the next connect fails of {error:?}"),
        }
    }
    Ok(())
}

async fn refused_connect<S: Subject>(lab: &Lab<S>, driver: S::Driver) -> Verdict<Error> {
    let error = match lab.builder(driver, 1).build().await {
        Ok(_) => return Err(Stop::failed("it connects")),
        Err(error) => error,
    };
    ensure!(error.outcome() == Outcome::NotSent, "the outcome is {:?}: {error:?}", error.outcome());
    Ok(error)
}

pub(super) async fn no_text_shows_the_password<S: Subject>(lab: &Lab<S>) -> Verdict {
    let password = lab.given("password", lab.subject.password())?;
    let shown = |text: &str| match text.contains(password) {
        true => Err(Stop::failed(format_args!("the password is in {text:?}"))),
        false => Ok(()),
    };
    let pool: Pool<S::Driver> = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    let refused = lab.subject.refused();
    let mut errors: Vec<Error> = conn.query(&refused, &[]).await.err().into_iter().collect();
    for driver in [lab.subject.unreachable(), lab.subject.denied()].into_iter().flatten() {
        shown(&format!("{driver:?} {driver:#?}"))?;
        errors.extend(lab.builder(driver, 1).build().await.err());
    }
    for error in &errors {
        shown(&format!("{error} {error:?} {error:#?}"))?;
        let mut source = error.source();
        while let Some(inner) = source {
            shown(&format!("{inner} {inner:?}"))?;
            source = inner.source();
        }
    }
    let server = conn.server();
    shown(&format!("{:?} {:?} {pool:?} {conn:?} {server:?}", pool.driver(), lab.subject.name()))
}
