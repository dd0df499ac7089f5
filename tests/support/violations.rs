//! Rules of a schema, broken one by one.
//!
//! Owns the claim: each is told by the same word on every database. Knows none.

use millpond::{Driver, Pool, Violation};

pub(crate) async fn a_broken_rule_has_the_same_name_everywhere<D: Driver>(pool: &Pool<D>) {
    let mut conn = pool.acquire().await.unwrap();
    for create in [
        "CREATE TABLE owner (id INTEGER PRIMARY KEY)",
        "CREATE TABLE thing (id INTEGER NOT NULL UNIQUE, owner INTEGER, n INTEGER CHECK (n > 0), \
         FOREIGN KEY (owner) REFERENCES owner (id))",
        "INSERT INTO owner VALUES (1)",
        "INSERT INTO thing VALUES (1, 1, 1)",
    ] {
        conn.query(create, &[]).await.unwrap();
    }
    for (statement, expected) in [
        ("INSERT INTO owner VALUES (1)", Some(Violation::Unique)),
        ("INSERT INTO thing VALUES (1, 1, 1)", Some(Violation::Unique)),
        ("INSERT INTO thing VALUES (2, 7, 1)", Some(Violation::ForeignKey)),
        ("DELETE FROM owner", Some(Violation::ForeignKey)),
        ("INSERT INTO thing VALUES (NULL, 1, 1)", Some(Violation::NotNull)),
        ("INSERT INTO thing (owner) VALUES (1)", Some(Violation::NotNull)),
        ("INSERT INTO thing VALUES (3, 1, 0)", Some(Violation::Check)),
        ("INSERT INTO nowhere VALUES (1)", None),
    ] {
        let error = conn.query(statement, &[]).await.unwrap_err();
        assert_eq!(error.violation(), expected, "{statement}: {error}");
    }
}
