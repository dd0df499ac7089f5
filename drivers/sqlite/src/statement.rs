//! What is known of a statement before and after it first ran.
//!
//! Decides from its first word whether a statement may run on the caller's
//! thread at all, and keeps the columns of those that are cached. Does not run
//! anything.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use millpond_driver::{Column, Columns};
use rusqlite::{Statement, StatementStatus};

use crate::value::Kind;

/// What a statement does, by its first word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Nothing: blank, or comments only.
    Empty,
    /// `SELECT`, `VALUES` or `WITH`: rows, if SQLite says that it only reads.
    Read,
    /// Makes rows with ids.
    Insert,
    /// Changes rows.
    Change,
    /// Schema, settings, transactions. Not worth a place in the cache.
    Other,
}

impl Verb {
    pub(crate) fn of(sql: &str) -> Self {
        let sql = skip_blank(sql.as_bytes());
        let end = sql.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(sql.len());
        let is = |known: &[u8]| sql[..end].eq_ignore_ascii_case(known);
        match sql.first().map(u8::to_ascii_lowercase) {
            None => Self::Empty,
            Some(b's') if is(b"select") => Self::Read,
            Some(b'v') if is(b"values") => Self::Read,
            Some(b'w') if is(b"with") => Self::Read,
            Some(b'i') if is(b"insert") => Self::Insert,
            Some(b'r') if is(b"replace") => Self::Insert,
            Some(b'u') if is(b"update") => Self::Change,
            Some(b'd') if is(b"delete") => Self::Change,
            Some(_) => Self::Other,
        }
    }

    /// Whether its prepared form is kept.
    pub(crate) fn is_cached(self) -> bool {
        !matches!(self, Self::Empty | Self::Other)
    }
}

/// Skips what may stand before a statement: white space, comments, semicolons.
fn skip_blank(mut sql: &[u8]) -> &[u8] {
    loop {
        let skipped = match sql {
            [b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b';', ..] => Some(1),
            [b'-', b'-', ..] => sql.iter().position(|&byte| byte == b'\n').map(|end| end + 1),
            [b'/', b'*', rest @ ..] => {
                rest.windows(2).position(|end| end == b"*/").map(|end| end + 4)
            }
            _ => return sql,
        };
        // A comment without an end goes to the end.
        sql = &sql[skipped.unwrap_or(sql.len())..];
    }
}

/// One in so many runs on a caller's thread is timed, and the first.
const TIMED_RUNS: u8 = 16;

/// What is known of the cached statements that have run.
#[derive(Debug)]
pub(crate) struct Shapes {
    known: HashMap<Box<str>, Shape, BuildHasherDefault<Fold>>,
    /// As many as statements are cached.
    capacity: usize,
}

impl Shapes {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { known: HashMap::default(), capacity }
    }

    /// The shape of a statement that was just taken from the cache.
    pub(crate) fn find(&mut self, sql: &str, statement: &Statement<'_>) -> Option<&Shape> {
        let sql = key(sql);
        // One that has never run is not the one the shape was learnt from.
        if statement.get_status(StatementStatus::Run) == 0 {
            self.known.remove(sql);
            return None;
        }
        self.known.get(sql)
    }

    /// Keeps the shape of a statement. Gives its columns back.
    pub(crate) fn learn(&mut self, sql: &str, shape: Shape) -> Columns {
        let columns = shape.columns.clone();
        if self.known.len() >= self.capacity {
            self.known.clear();
        }
        if self.capacity > 0 {
            self.known.insert(key(sql).into(), shape);
        }
        columns
    }

    /// Notes whether the statement is too long for a caller's thread.
    pub(crate) fn weigh(&mut self, sql: &str, heavy: bool) {
        if let Some(shape) = self.known.get_mut(key(sql)) {
            shape.heavy = heavy;
        }
    }

    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

/// What the cache of statements takes for one statement.
fn key(sql: &str) -> &str {
    sql.trim()
}

/// A hash in a third of the standard one's time. Nobody can overfill a map of a
/// hundred statements, so it need not withstand an attack.
#[derive(Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let words = bytes.chunks_exact(8);
        let rest = words.remainder().iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let words =
            words.map(|word| word.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
        for word in words.chain([rest]) {
            self.0 = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The columns of a statement, and how it did.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) columns: Columns,
    pub(crate) kinds: Box<[Kind]>,
    /// Its last run was too long for a caller's thread.
    pub(crate) heavy: bool,
    /// Its runs on callers' threads, as far as they matter to
    /// [`is_due`](Self::is_due).
    runs: Cell<u8>,
    /// How often SQLite had prepared it anew when this was learnt. It does so
    /// when the schema changes, and then the columns may be others.
    prepared: i32,
}

impl Shape {
    /// Of a statement that has been stepped.
    #[cold]
    pub(crate) fn of(statement: &Statement<'_>) -> Self {
        let mut kinds = Vec::with_capacity(statement.column_count());
        let mut columns = Vec::with_capacity(statement.column_count());
        for column in statement.columns() {
            let declared = column.decl_type();
            kinds.push(Kind::declared(declared));
            let named = Column::new(column.name());
            columns.push(match declared {
                Some(declared) => named.with_type_name(declared.to_owned()),
                None => named,
            });
        }
        Self {
            columns: Columns::from_iter(columns),
            kinds: kinds.into(),
            heavy: false,
            runs: Cell::new(0),
            prepared: statement.get_status(StatementStatus::RePrepare),
        }
    }

    /// Whether this run is one to be timed: a clock read twice costs a tenth of a
    /// quick statement, and none turns slow all at once.
    pub(crate) fn is_due(&self) -> bool {
        let runs = self.runs.get();
        self.runs.set((runs + 1) % TIMED_RUNS);
        runs == 0
    }

    /// Whether it still describes the statement, which has been stepped.
    pub(crate) fn fits(&self, statement: &Statement<'_>) -> bool {
        self.prepared == statement.get_status(StatementStatus::RePrepare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_tells_the_verb() {
        for (sql, verb) in [
            ("SELECT 1", Verb::Read),
            ("\n  with x as (select 1) select * from x", Verb::Read),
            ("VALUES(1)", Verb::Read),
            ("-- why\n/* what; */ ;select 1", Verb::Read),
            ("insert into t values (1)", Verb::Insert),
            ("REPLACE INTO t VALUES (1)", Verb::Insert),
            ("Update t set a = 1", Verb::Change),
            ("delete from t", Verb::Change),
            ("PRAGMA user_version", Verb::Other),
            ("EXPLAIN SELECT 1", Verb::Other),
            ("BEGIN", Verb::Other),
            ("selected", Verb::Other),
            ("(SELECT 1)", Verb::Other),
            ("é", Verb::Other),
        ] {
            assert_eq!(Verb::of(sql), verb, "{sql}");
        }
    }

    #[test]
    fn comments_and_blanks_are_no_statement() {
        for sql in ["", " ;; \n", "-- nothing", "/* never closed", "/**/--", "/*/"] {
            assert_eq!(Verb::of(sql), Verb::Empty, "{sql}");
        }
    }
}
