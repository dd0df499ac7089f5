//! The prepared statements that a connection keeps.
//!
//! Decides which are kept, and which statements are not worth preparing. Does
//! not prepare any.

use std::collections::HashMap;

use millpond_driver::{Column, Columns};
use tokio_postgres::Statement;

/// A prepared statement and the columns of its answers.
#[derive(Clone)]
pub(crate) struct Prepared {
    pub(crate) statement: Statement,
    pub(crate) columns: Columns,
}

impl Prepared {
    pub(crate) fn new(statement: Statement) -> Self {
        let columns = columns(statement.columns());
        Self { statement, columns }
    }
}

/// The columns as the contract has them.
pub(crate) fn columns(columns: &[tokio_postgres::Column]) -> Columns {
    let column = |column: &tokio_postgres::Column| {
        Column::new(column.name()).with_type_name(column.type_().name().to_owned())
    };
    columns.iter().map(column).collect()
}

/// Statements by their text, the most recently used of them.
pub(crate) struct Statements<T = Prepared> {
    known: HashMap<Box<str>, (T, u64)>,
    capacity: usize,
    /// Counts uses.
    clock: u64,
}

impl<T: Clone> Statements<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { known: HashMap::new(), capacity, clock: 0 }
    }

    pub(crate) fn get(&mut self, sql: &str) -> Option<T> {
        let (statement, used) = self.known.get_mut(sql)?;
        self.clock += 1;
        *used = self.clock;
        Some(statement.clone())
    }

    /// Keeps a statement, in place of the one that was not used for longest.
    pub(crate) fn keep(&mut self, sql: &str, statement: T) {
        if self.capacity == 0 {
            return;
        }
        if self.known.len() >= self.capacity {
            let oldest = self.known.iter().min_by_key(|(_, (_, used))| *used);
            let oldest = oldest.map(|(sql, _)| sql.clone());
            oldest.and_then(|sql| self.known.remove(&sql));
        }
        self.clock += 1;
        self.known.insert(sql.into(), (statement, self.clock));
    }

    /// Forgets a statement. Whether it was known.
    pub(crate) fn forget(&mut self, sql: &str) -> bool {
        self.known.remove(sql).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }
}

/// Whether a statement without parameters, by its first word, gives no rows. Run
/// unprepared it takes one round trip. Of those that give rows the types of
/// their columns must be known first: the client would ask for an unknown one
/// while the rows are on their way, and wait for ever.
pub(crate) fn gives_no_rows(sql: &str) -> bool {
    const NO_ROWS: [&str; 35] = [
        "abort",
        "alter",
        "analyze",
        "begin",
        "checkpoint",
        "close",
        "cluster",
        "comment",
        "commit",
        "create",
        "deallocate",
        "declare",
        "discard",
        "do",
        "drop",
        "end",
        "grant",
        "import",
        "listen",
        "lock",
        "move",
        "notify",
        "prepare",
        "reassign",
        "refresh",
        "reindex",
        "release",
        "reset",
        "revoke",
        "rollback",
        "savepoint",
        "set",
        "start",
        "truncate",
        "unlisten",
    ];
    const CHANGES: [&str; 4] = ["delete", "insert", "merge", "update"];
    let verb = first_word(sql);
    let is = |word: &&str| word.eq_ignore_ascii_case(verb);
    NO_ROWS.iter().any(is) || CHANGES.iter().any(is) && !contains(sql, "returning")
}

/// Whether the statement moves data past rows and parameters, which only the
/// client can do.
pub(crate) fn is_copy(sql: &str) -> bool {
    first_word(sql).eq_ignore_ascii_case("copy")
        && (contains(sql, "stdin") || contains(sql, "stdout"))
}

/// Whether the statement is a procedure's call or a block of code, which outside a
/// transaction may have committed a part of its work when it fails. A block can do
/// so only by a word of these, and a backslash or `UESCAPE` may hide one.
pub(crate) fn may_commit(sql: &str) -> bool {
    const WORDS: [&str; 5] = ["call", "commit", "execute", "\\", "uescape"];
    let verb = first_word(sql);
    verb.eq_ignore_ascii_case("call")
        || verb.eq_ignore_ascii_case("do") && WORDS.iter().any(|word| contains(sql, word))
}

/// Whether one of several statements may have committed before a later one fails.
/// Strings and comments are not told apart from statements: rather once too often.
pub(crate) fn commits_between(sql: &str) -> bool {
    let bare = without_bodies(sql);
    let several = bare.trim_end_matches(|c: char| c == ';' || c.is_whitespace()).contains(';');
    // `END` is a commit as well, but not that of a function's body.
    let is_end = |sql: &str| first_word(sql).eq_ignore_ascii_case("end");
    several && (contains(sql, "commit") || bare.split(';').any(is_end))
}

/// The text without what stands between two `$$`, or two `$tag$`.
fn without_bodies(sql: &str) -> String {
    let (mut bare, mut rest) = (String::new(), sql);
    while let Some((before, after)) = rest.split_once('$') {
        bare.push_str(before);
        rest = after;
        let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
        // A parameter has no second one.
        if after[end..].starts_with('$') {
            let mark = format!("${}$", &after[..end]);
            rest = after[end + 1..].split_once(&*mark).map_or("", |(_, rest)| rest);
        }
    }
    bare + rest
}

/// Whether the text cannot be sent: there a zero byte is its end.
pub(crate) fn has_zero_byte(sql: &str) -> bool {
    sql.as_bytes().contains(&0)
}

fn first_word(sql: &str) -> &str {
    let sql = skip_blanks(sql);
    let end = sql.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(sql.len());
    &sql[..end]
}

/// Past blanks and comments.
fn skip_blanks(sql: &str) -> &str {
    let mut sql = sql.trim_start();
    loop {
        let rest = match sql.as_bytes() {
            [b'-', b'-', ..] => sql.split_once('\n').map_or("", |(_, rest)| rest),
            [b'/', b'*', ..] => sql.split_once("*/").map_or("", |(_, rest)| rest),
            _ => return sql,
        };
        sql = rest.trim_start();
    }
}

/// Whether a lower-case word is somewhere in the text, in any case.
fn contains(text: &str, word: &str) -> bool {
    text.as_bytes().windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_that_was_not_used_for_longest_makes_room() {
        let mut statements = Statements::new(2);
        statements.keep("a", 1);
        statements.keep("b", 2);
        assert_eq!(statements.get("a"), Some(1));
        statements.keep("c", 3);
        assert_eq!((statements.get("a"), statements.get("b")), (Some(1), None));
        assert!(statements.forget("a") && !statements.forget("a"));
        assert_eq!(statements.len(), 1);
    }

    #[test]
    fn nothing_is_kept_without_room() {
        let mut statements = Statements::new(0);
        statements.keep("a", 1);
        assert_eq!(statements.get("a"), None);
    }

    #[test]
    fn what_may_give_rows_is_prepared_first() {
        for sql in [
            "SELECT 1",
            "/* INSERT */ WITH a AS (SELECT 1) SELECT * FROM a",
            "insert into t values (1) RETURNING id",
            "SHOW all",
            "EXECUTE s",
            "",
            "(SELECT 1)",
        ] {
            assert!(!gives_no_rows(sql), "{sql}");
        }
        for sql in
            ["INSERT INTO t VALUES (1)", " -- a\n/* b */ Create TABLE t ()", "begin", "SET a=1"]
        {
            assert!(gives_no_rows(sql), "{sql}");
        }
    }

    #[test]
    fn code_that_may_commit_is_known() {
        for sql in [
            "CALL p()",
            " -- a\n/* b */ call p($1)",
            "DO $$ BEGIN COMMIT; END $$",
            "do 'begin call p(); end'",
            "DO $$ BEGIN EXECUTE $1; END $$",
            "DO E'BEGIN C\\x41LL p(); END'",
        ] {
            assert!(may_commit(sql), "{sql}");
        }
        for sql in ["DO $$ BEGIN RAISE 'no'; END $$", "SELECT 'CALL'", "COMMIT", "domain", ""] {
            assert!(!may_commit(sql), "{sql}");
        }
    }

    #[test]
    fn several_statements_of_which_one_may_commit_are_known() {
        for sql in [
            "BEGIN; SELECT 1; commit; SELECT 2",
            "BEGIN;End;SELECT 1",
            "COMMIT; -- a\nSELECT 1",
            "BEGIN; PREPARE a AS SELECT $1, $2; DO $a$ a; $$ $a$; END; SELECT 1",
            "BEGIN; END; SELECT $$",
        ] {
            assert!(commits_between(sql), "{sql}");
        }
        for sql in [
            "COMMIT",
            "commit; ;\n",
            "END",
            "SELECT 1; SELECT 2",
            "BEGIN; SELECT ended",
            "DO $$ BEGIN a; END; $$",
            "DO $a$ BEGIN $$; END; $a$; SELECT $1, $2",
            "DO $a$ BEGIN; COMMIT; END $a$;",
        ] {
            assert!(!commits_between(sql), "{sql}");
        }
    }

    #[test]
    fn a_copy_that_needs_the_client_is_known() {
        assert!(is_copy("COPY t FROM STDIN"));
        assert!(is_copy("copy (SELECT 1) to stdout"));
        assert!(!is_copy("COPY t FROM '/tmp/t'"));
        assert!(!is_copy("SELECT 'COPY t FROM STDIN'"));
    }
}
