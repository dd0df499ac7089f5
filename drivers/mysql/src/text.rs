//! What the text of a statement says of its effect on the session.
//!
//! Decides by words, and where these do not tell takes the worse for true. Does
//! not parse, and knows neither connection nor error.

/// Whether a statement that fails leaves the transaction as it was, unless its
/// error says otherwise. Procedures may begin one, definitions end one, and of
/// several statements some may have run.
pub(crate) fn cannot_begin_or_end(sql: &str) -> bool {
    const HARMLESS: [&str; 9] =
        ["SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "VALUES", "SHOW", "EXPLAIN"];
    let sql = sql.trim_start();
    let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    HARMLESS.iter().any(|verb| verb.eq_ignore_ascii_case(word)) && !may_be_several(sql)
}

/// Whether there is more than one statement. A semicolon in a literal counts.
pub(crate) fn may_be_several(sql: &str) -> bool {
    sql.trim_end_matches([';', ' ', '\n', '\t', '\r']).contains(';')
}

/// Whether the first statement may run others, each for itself: calls, and the
/// compound statements of MariaDB, which may have a label.
pub(crate) fn runs_others(sql: &str) -> bool {
    const VERBS: [&str; 8] = ["CALL", "EXECUTE", "IF", "CASE", "LOOP", "WHILE", "REPEAT", "FOR"];
    let (word, rest) = first_word(sql);
    let is = |verb: &str| verb.eq_ignore_ascii_case(word);
    let then = |verb: &str| verb.eq_ignore_ascii_case(first_word(rest).0);
    VERBS.into_iter().any(is)
        || (is("BEGIN") && then("NOT"))
        // Settings of MariaDB for one statement, which comes at the end.
        || (is("SET") && then("STATEMENT") && has_word(rest, &["CALL", "EXECUTE", "BEGIN"]))
        || rest.trim_start().starts_with(':')
}

/// The first word after blanks and comments, and what follows it. A comment with
/// a `!` is none, for the servers that it is meant for.
fn first_word(mut sql: &str) -> (&str, &str) {
    loop {
        sql = sql.trim_start_matches(|c: char| c.is_whitespace() || c.is_control());
        let executed = ["/*!", "/*M!"].into_iter().find_map(|mark| sql.strip_prefix(mark));
        let comment = |from: &str, to: &str| {
            let inside = sql.strip_prefix(from)?;
            Some(inside.split_once(to).map_or("", |(_, rest)| rest))
        };
        sql = if let Some(inside) = executed {
            inside.trim_start_matches(|c: char| c.is_ascii_digit())
        } else if let Some(rest) =
            comment("/*", "*/").or_else(|| comment("#", "\n")).or_else(|| comment("--", "\n"))
        {
            rest
        } else {
            let end = sql.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            return sql.split_at(end.unwrap_or(sql.len()));
        };
    }
}

/// Whether a text may change the database in use: it says so somewhere, or runs
/// what was said elsewhere.
pub(crate) fn may_change_the_database(sql: &str) -> bool {
    has_word(sql, &["USE", "EXECUTE"])
}

/// Whether one of the words is anywhere in a text, in literals too.
fn has_word(sql: &str, words: &[&str]) -> bool {
    let mut met = sql.as_bytes().split(|byte| !byte.is_ascii_alphabetic() && *byte != b'_');
    met.any(|met| words.iter().any(|word| word.as_bytes().eq_ignore_ascii_case(met)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_runs_others_is_known_by_its_first_word() {
        for sql in [
            "CALL p()",
            " -- why\n# and\n/* when */ call p()",
            "/*!50003 CALL p() */",
            "/*M!100500call p()*/",
            "BEGIN NOT ATOMIC INSERT INTO t VALUES (1); END",
            "it: LOOP LEAVE it; END LOOP",
            "EXECUTE IMMEDIATE 'CALL p()'",
            "set statement max_statement_time = 1 for CALL p()",
        ] {
            assert!(runs_others(sql), "{sql}");
        }
        for sql in [
            "",
            "BEGIN",
            "BEGIN WORK",
            "SET @n = 1",
            "SET STATEMENT max_statement_time = 1 FOR UPDATE t SET n = 1",
            "INSERT INTO t VALUES ('CALL p()')",
            "/* CALL p() */ SELECT 1",
            "-- CALL p()",
            "(SELECT 1)",
            "callous",
            "é",
        ] {
            assert!(!runs_others(sql), "{sql}");
        }
    }

    #[test]
    fn a_text_changes_the_database_by_a_word() {
        for sql in ["USE b", "DO 1; use`b`", "/*!50000USE b*/", "SELECT 1 FROM t USE INDEX (i)"] {
            assert!(may_change_the_database(sql), "{sql}");
        }
        for sql in ["SELECT user FROM uses", "SELECT in_use, use_it", "", "é"] {
            assert!(!may_change_the_database(sql), "{sql}");
        }
    }
}
