//! A database that keeps statements at their commit, and one by one where there is
//! no transaction.
//!
//! Owns the statement `fault`, which fails as a test says, takes the transaction
//! along, and leaves a session that says nothing of it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use millpond::{ConnectContext, Driver, Error, Result, Rows, Session, Value};

#[derive(Clone, Default)]
pub(crate) struct Undoing {
    kept: Arc<Mutex<Vec<String>>>,
    faults: Arc<Mutex<VecDeque<Error>>>,
    /// A fault leaves the transaction open.
    keeps_open: bool,
}

impl Undoing {
    /// One whose next `fault`s fail so; the others are statements like any.
    pub(crate) fn with(faults: impl IntoIterator<Item = Error>) -> Self {
        let faults = Arc::new(Mutex::new(faults.into_iter().collect()));
        Self { kept: Arc::default(), faults, keeps_open: false }
    }

    /// The same, and a fault leaves the transaction open.
    #[allow(dead_code, reason = "each test file uses its part")]
    pub(crate) fn keeping_what_is_open(mut self) -> Self {
        self.keeps_open = true;
        self
    }

    /// The statements that have taken effect.
    pub(crate) fn kept(&self) -> Vec<String> {
        self.kept.lock().unwrap().clone()
    }
}

impl Driver for Undoing {
    type Connection = Option<Vec<String>>;

    async fn connect(&self, _: &ConnectContext<'_>) -> Result<Self::Connection> {
        Ok(None)
    }

    async fn ping(&self, _: &mut Self::Connection) -> Result<()> {
        Ok(())
    }

    async fn query(&self, conn: &mut Self::Connection, sql: &str, _: &[Value]) -> Result<Rows> {
        let fault = (sql == "fault").then(|| self.faults.lock().unwrap().pop_front()).flatten();
        if let Some(error) = fault {
            if !self.keeps_open {
                *conn = None;
            }
            return Err(error);
        }
        match sql {
            "BEGIN" => *conn = Some(Vec::new()),
            "COMMIT" => self.kept.lock().unwrap().extend(conn.take().unwrap_or_default()),
            "ROLLBACK" => *conn = None,
            _ => match conn {
                Some(pending) => pending.push(sql.to_owned()),
                None => self.kept.lock().unwrap().push(sql.to_owned()),
            },
        }
        Ok(Rows::none())
    }

    fn session(&self, conn: &Self::Connection) -> Session {
        if conn.is_some() { Session::InTransaction } else { Session::Clean }
    }
}
