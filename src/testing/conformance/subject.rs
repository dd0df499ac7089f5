//! What the suite cannot guess of a driver and its database.
//!
//! Owns [`Subject`] and the abilities it declares. Does not know the claims.

use std::fmt;

use millpond_driver::{BoxFuture, Driver, Result};

use crate::drivers::{Any, AnyConnection};

/// A driver under test, with what differs between databases.
///
/// Two methods are required. What the others leave out is reported as excluded.
/// Methods that give a statement are called right before it is run, once for
/// each run, so a scripted database may prepare its answer there.
pub trait Subject: Send + Sync + 'static {
    /// The driver.
    type Driver: Driver + fmt::Debug;

    /// The driver, on a database in which the suite may create tables. Called
    /// once for each claim; it may be a new database each time, or the same.
    fn driver(&self) -> Self::Driver;

    /// What the driver and its database can do. Claims about the rest are
    /// excluded.
    fn abilities(&self) -> &[Ability];

    /// How the driver is called in the report. Default: its
    /// [name](Driver::name).
    fn name(&self) -> String {
        self.driver().name().to_owned()
    }

    /// A statement whose answer is one row of one column, this text. The text
    /// is of letters and digits.
    fn select(&self, text: &str) -> String {
        format!("SELECT '{text}'")
    }

    /// The mark of the parameter of this number, from 1. Default: `?`.
    fn placeholder(&self, _number: usize) -> String {
        "?".to_owned()
    }

    /// A statement that the database refuses. Default: one on a table that does
    /// not exist.
    fn refused(&self) -> String {
        "SELECT * FROM millpond_no_such_table".to_owned()
    }

    /// A statement that yields the numbers from 1 to `count`, which is at most
    /// 1000, in order. Default: by a recursive common table expression.
    fn rows(&self, count: u32) -> Option<String> {
        Some(format!(
            "WITH RECURSIVE numbers(n) AS \
             (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) \
             SELECT n FROM numbers"
        ))
    }

    /// A statement that runs until it is cancelled, or for minutes. Default:
    /// none.
    fn slow(&self) -> Option<String> {
        None
    }

    /// The column type in which values of this [kind](millpond_driver::Value::kind)
    /// come back as they went: `BOOLEAN` for `"bool"`; for `"decimal"` one of two
    /// digits after the point, for times one of microseconds, for `"array"` one
    /// of integers. Default: none.
    fn column(&self, _kind: &str) -> Option<&str> {
        None
    }

    /// The type of a column for which the database generates ids that
    /// [`last_insert_id`](millpond_driver::Rows::last_insert_id) tells. Default:
    /// none.
    fn generated_id(&self) -> Option<&str> {
        None
    }

    /// A statement that changes a setting of the session. Default: none.
    fn change_setting(&self) -> Option<String> {
        None
    }

    /// The value of that setting, as text; `None` if the connection cannot tell.
    fn setting<'a>(
        &'a self,
        _conn: &'a mut <Self::Driver as Driver>::Connection,
    ) -> Option<BoxFuture<'a, Result<String>>> {
        None
    }

    /// Runs a statement past the pool, as an application does with the client
    /// behind the connection. Default: no native access.
    fn native<'a>(
        &'a self,
        _conn: &'a mut <Self::Driver as Driver>::Connection,
        _sql: &'a str,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        None
    }

    /// How many sessions the database holds for the driver; one that knows
    /// only whether there are any may say 1 for more. Default: it cannot tell.
    fn sessions(&self) -> Option<BoxFuture<'_, Result<u64>>> {
        None
    }

    /// A driver on a database that may come back: nobody listens there now.
    /// Default: none.
    fn unreachable(&self) -> Option<Self::Driver> {
        None
    }

    /// A driver that is turned away until somebody changes something: a wrong
    /// password, an unknown database. Default: none.
    fn denied(&self) -> Option<Self::Driver> {
        None
    }

    /// The password that the drivers above were given, and that the one denied
    /// lacks: with it as [`Credentials`](millpond_driver::Credentials) that one
    /// is let in. Default: none.
    fn password(&self) -> Option<&str> {
        None
    }
}

/// What a driver or its database may be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// It has tables, and says how many rows a change affected.
    Tables,
    /// It has transactions.
    Transactions,
    /// [`Driver::session`] tells the state; without it the answer is always
    /// `Unverified`.
    Session,
    /// [`Driver::cancel`] stops statements.
    Cancel,
    /// [`Driver::reset`] clears session settings.
    ResetSession,
    /// [`Driver::set_read_only`] refuses writes.
    ReadOnly,
}

/// The same subject behind [`Any`]: a driver chosen at run time must do all that
/// it does alone.
#[derive(Debug, Clone)]
pub struct Erased<S>(pub S);

impl<S: Subject> Subject for Erased<S> {
    type Driver = Any;

    fn driver(&self) -> Any {
        Any::new(self.0.driver())
    }

    fn abilities(&self) -> &[Ability] {
        self.0.abilities()
    }

    fn name(&self) -> String {
        format!("{} as Any", self.0.name())
    }

    fn select(&self, text: &str) -> String {
        self.0.select(text)
    }

    fn placeholder(&self, number: usize) -> String {
        self.0.placeholder(number)
    }

    fn refused(&self) -> String {
        self.0.refused()
    }

    fn rows(&self, count: u32) -> Option<String> {
        self.0.rows(count)
    }

    fn slow(&self) -> Option<String> {
        self.0.slow()
    }

    fn column(&self, kind: &str) -> Option<&str> {
        self.0.column(kind)
    }

    fn generated_id(&self) -> Option<&str> {
        self.0.generated_id()
    }

    fn change_setting(&self) -> Option<String> {
        self.0.change_setting()
    }

    fn setting<'a>(&'a self, conn: &'a mut AnyConnection) -> Option<BoxFuture<'a, Result<String>>> {
        self.0.setting(conn.downcast_mut()?)
    }

    fn native<'a>(
        &'a self,
        conn: &'a mut AnyConnection,
        sql: &'a str,
    ) -> Option<BoxFuture<'a, Result<()>>> {
        self.0.native(conn.downcast_mut()?, sql)
    }

    fn sessions(&self) -> Option<BoxFuture<'_, Result<u64>>> {
        self.0.sessions()
    }

    fn unreachable(&self) -> Option<Any> {
        self.0.unreachable().map(Any::new)
    }

    fn denied(&self) -> Option<Any> {
        self.0.denied().map(Any::new)
    }

    fn password(&self) -> Option<&str> {
        self.0.password()
    }
}
