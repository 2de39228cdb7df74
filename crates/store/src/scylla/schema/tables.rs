//! What `schema.cql` says, so that it can be compared with what a cluster has.

use std::collections::BTreeMap;

/// The tables, as statements.
const SCHEMA: &str = include_str!("../../../../../schema.cql");

/// A table of `schema.cql`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    /// From the opening bracket to the end.
    pub(super) definition: String,
    pub(super) columns: BTreeMap<String, Column>,
}

/// A column, as `system_schema.columns` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    /// `bigint`, `text`, …
    pub(super) cql_type: String,
    /// `partition_key`, `clustering`, `static` or `regular`.
    pub(super) kind: &'static str,
    /// The place in the key; -1 outside it.
    pub(super) position: i32,
}

/// All tables, in the order of the file.
pub(super) fn tables() -> Vec<Table> {
    let text: Vec<&str> = SCHEMA.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
    text.join("\n").split(';').filter_map(table).collect()
}

/// `CREATE TABLE name ( columns ) options`. The file is part of this program, so text of another shape is left out; a test counts
/// the tables.
fn table(statement: &str) -> Option<Table> {
    let (name, definition) = statement.trim().strip_prefix("CREATE TABLE ")?.split_once(' ')?;
    let mut columns = BTreeMap::new();
    let mut keys = String::new();
    for part in parts(definition) {
        if let Some(key) = part.strip_prefix("PRIMARY KEY") {
            key.trim().clone_into(&mut keys);
            continue;
        }
        let mut words = part.split_whitespace();
        let (column, cql_type) = (words.next()?, words.next()?);
        let rest: Vec<&str> = words.collect();
        if rest == ["PRIMARY", "KEY"] {
            keys = format!("(({column}))");
        }
        let kind = if rest == ["STATIC"] { "static" } else { "regular" };
        columns.insert(column.to_owned(), Column { cql_type: cql_type.to_owned(), kind, position: -1 });
    }
    // `((a, b), c)`: the partition key has brackets of its own.
    let (partition, clustering) = keys.strip_prefix("((")?.split_once(')')?;
    for (kind, names) in [("partition_key", partition), ("clustering", clustering)] {
        let names = names.split([',', ')']).map(str::trim).filter(|name| !name.is_empty());
        for (position, name) in (0_i32..).zip(names) {
            let column = columns.get_mut(name)?;
            (column.kind, column.position) = (kind, position);
        }
    }
    Some(Table { name: name.to_owned(), definition: definition.trim().to_owned(), columns })
}

/// The parts between the outer brackets, separated by the commas outside inner ones.
fn parts(definition: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth) = (Vec::new(), String::new(), 0_u32);
    for char in definition.chars() {
        match char {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match (char, depth) {
            ('(', 1) => {}
            (',', 1) => parts.push(std::mem::take(&mut part)),
            (')', 0) => break,
            _ => part.push(char),
        }
    }
    parts.push(part);
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_of_the_file_is_understood() {
        assert_eq!(tables().len(), SCHEMA.matches("CREATE TABLE ").count());
    }

    #[test]
    fn columns_have_their_type_and_their_place_in_the_key() {
        let log = tables().into_iter().find(|table| table.name == "log").unwrap();
        let column =
            |cql_type: &str, kind, position| Column { cql_type: cql_type.to_owned(), kind, position };
        assert_eq!(log.columns["bucket"], column("int", "partition_key", 2));
        assert_eq!(log.columns["key"], column("blob", "clustering", 2));
        assert_eq!(log.columns["details"], column("text", "static", -1));
        assert_eq!(log.columns["body"], column("text", "regular", -1));
        assert!(log.definition.ends_with("WITH CLUSTERING ORDER BY (part ASC, seq DESC, key ASC)"));
    }

    #[test]
    fn keys_have_three_shapes() {
        for definition in ["(a int PRIMARY KEY, b int)", "(a int, b int, PRIMARY KEY ((a)))"] {
            let table = table(&format!("CREATE TABLE t {definition}")).unwrap();
            assert_eq!(table.columns["a"].kind, "partition_key", "{definition}");
            assert_eq!(table.columns["b"].kind, "regular", "{definition}");
        }
        let table =
            table("CREATE TABLE t (a int, b int, c int, PRIMARY KEY ((a, b), c)) WITH x = 1").unwrap();
        assert_eq!(table.columns["b"].position, 1);
        assert_eq!(table.columns["c"].kind, "clustering");
    }
}
