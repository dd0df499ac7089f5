//! Claims about transactions: all or nothing, and never another's.
//!
//! Knows nothing of isolation, which databases see differently: what is
//! uncommitted is not looked at from outside.

use millpond_driver::{Driver, Fate, Outcome, Session, TransactionOptions};

use super::lab::{Lab, Moment, Stop, Table, Verdict, cut, ensure};
use super::subject::{Ability, Subject};
use crate::{Pool, PooledConnection};

pub(super) async fn a_commit_is_seen_by_others_and_a_rollback_is_not<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Transactions)?;
    let pool = lab.pool(2).await?;
    let table = lab.table(&pool, Table::NUMBERS).await?;
    let mut other = pool.acquire().await?;
    for (commits, expected) in [(true, 1), (false, 1), (true, 2)] {
        let mut transaction = pool.begin().await?;
        transaction.query(&table.insert(), &[]).await?;
        if commits {
            transaction.commit().await?;
        } else {
            transaction.rollback().await?;
        }
        let count = table.count(&mut other).await?;
        ensure!(
            count == expected,
            "another connection sees {count} rows, not {expected}, after a {}",
            if commits { "commit" } else { "rollback" }
        );
    }
    drop(other);
    lab.remove(&pool, &table).await
}

pub(super) async fn a_transaction_left_open_is_undone_before_the_next_borrower<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Transactions)?;
    let pool = lab.pool(1).await?;
    let work = Work::new(lab, &pool).await?;
    for _ in 0..2 {
        // Begun through the pool, which remembers it.
        let mut conn = pool.acquire().await?;
        let mut transaction = conn.begin().await?;
        if let Some(table) = &work.table {
            transaction.query(&table.insert(), &[]).await?;
        }
        drop(transaction);
        drop(conn);
        work.is_undone(lab, &pool).await?;
        // Past it.
        drop(work.leave_open(lab, &pool).await?);
        work.is_undone(lab, &pool).await?;
    }
    work.remove(lab, &pool).await
}

pub(super) async fn a_statement_refused_in_a_transaction_says_whether_it_can_go_on<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Transactions)?;
    let pool = lab.pool(1).await?;
    let mut conn = pool.acquire().await?;
    let mut transaction = conn.begin().await?;
    let refused = lab.subject.refused();
    let error = match transaction.query(&refused, &[]).await {
        Ok(rows) => return Err(Stop::failed(format_args!("not refused: {rows:?}"))),
        Err(error) => error,
    };
    match (error.outcome(), error.fate()) {
        (Outcome::Rejected, Fate::Reusable) => {
            lab.told(&pool, &transaction, Session::InTransaction, "after a harmless refusal")?;
            lab.own_rows(&mut transaction).await?;
        }
        (Outcome::Rejected, Fate::NeedsRollback) => {
            lab.told(&pool, &transaction, Session::FailedTransaction, "if it needs a rollback")?;
        }
        (Outcome::RolledBack, Fate::Reusable) => {
            lab.told(&pool, &transaction, Session::Clean, "if the transaction is gone")?;
        }
        other => {
            return Err(Stop::failed(format_args!("a refusal says {other:?}: {error:?}")));
        }
    }
    if error.outcome() == Outcome::Rejected {
        transaction.rollback().await?;
    } else {
        drop(transaction);
    }
    lab.own_rows(&mut conn).await?;
    lab.told(&pool, &conn, Session::Clean, "after the rollback")?;
    drop(conn);
    lab.next(&pool).await.map(drop)
}

pub(super) async fn a_begin_dropped_anywhere_leaves_no_transaction_open<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Transactions)?;
    let pool = lab.pool(2).await?;
    let table = match lab.can(Ability::Tables) {
        true => Some(lab.table(&pool, Table::NUMBERS).await?),
        false => None,
    };
    let mut inserted = 0;
    for moments in Moment::all() {
        for moment in moments {
            let mut conn = pool.acquire().await?;
            let mut other = pool.acquire().await?;
            let begun = cut(conn.begin(), moment).await.transpose()?.is_some();
            drop(conn);
            let mut conn = lab.next(&pool).await?;
            if let Some(table) = &table {
                conn.query(&table.insert(), &[]).await?;
                inserted += 1;
                let count = table.count(&mut other).await?;
                ensure!(
                    count == inserted,
                    "a begin dropped at {moment:?} has the next borrower's rows unseen"
                );
            }
            if begun {
                break;
            }
        }
    }
    lab.all_back(&pool)?;
    match &table {
        Some(table) => lab.remove(&pool, table).await,
        None => Ok(()),
    }
}

pub(super) async fn a_commit_dropped_anywhere_is_all_or_nothing<S: Subject>(
    lab: &Lab<S>,
) -> Verdict {
    lab.needs(Ability::Transactions)?;
    let pool = lab.pool(1).await?;
    let table = lab.table(&pool, Table::NUMBERS).await?;
    let mut before = 0;
    for moments in Moment::all() {
        for moment in moments {
            let mut conn = pool.acquire().await?;
            let mut transaction = conn.begin().await?;
            for _ in 0..2 {
                transaction.query(&table.insert(), &[]).await?;
            }
            let committed = cut(transaction.commit(), moment).await.transpose()?.is_some();
            drop(conn);
            let count = table.count(&mut lab.next(&pool).await?).await?;
            ensure!(
                count == before + 2 || (count == before && !committed),
                "{before} rows became {count} by a commit of two dropped at {moment:?}"
            );
            before = count;
            if committed {
                break;
            }
        }
    }
    lab.all_back(&pool)?;
    lab.remove(&pool, &table).await
}

/// Work in a transaction that its borrower does not end.
pub(super) struct Work {
    table: Option<Table>,
}

impl Work {
    pub(super) async fn new<S: Subject>(lab: &Lab<S>, pool: &Pool<S::Driver>) -> Verdict<Self> {
        let table = match lab.can(Ability::Tables) {
            true => Some(lab.table(pool, Table::NUMBERS).await?),
            false => None,
        };
        Ok(Self { table })
    }

    /// A connection in an open transaction, if there are any, with a change
    /// made in it.
    pub(super) async fn leave_open<S: Subject>(
        &self,
        lab: &Lab<S>,
        pool: &Pool<S::Driver>,
    ) -> Verdict<PooledConnection<S::Driver>> {
        let mut conn = pool.acquire().await?;
        if lab.can(Ability::Transactions) {
            pool.driver().begin(&mut conn, &TransactionOptions::new()).await?;
            if let Some(table) = &self.table {
                conn.query(&table.insert(), &[]).await?;
            }
        }
        Ok(conn)
    }

    /// The next borrower sees nothing of it.
    pub(super) async fn is_undone<S: Subject>(
        &self,
        lab: &Lab<S>,
        pool: &Pool<S::Driver>,
    ) -> Verdict {
        let mut conn = lab.next(pool).await?;
        if let Some(table) = &self.table {
            let count = table.count(&mut conn).await?;
            ensure!(count == 0, "{count} rows of an open transaction were left");
        }
        Ok(())
    }

    pub(super) async fn remove<S: Subject>(self, lab: &Lab<S>, pool: &Pool<S::Driver>) -> Verdict {
        lab.all_back(pool)?;
        match &self.table {
            Some(table) => lab.remove(pool, table).await,
            None => Ok(()),
        }
    }
}
