//! Options of tables that depend on the server, and not on the model.

use std::collections::BTreeMap;

/// A compaction strategy with its options.
pub(super) type Compaction = BTreeMap<String, String>;

/// The compaction of a table, or `None` for the default of the server.
///
/// Rows with one time to live for all are kept in windows of time: a whole file expires at once and is never rewritten. A window
/// is about a thirtieth of the time to live, which makes some thirty files.
pub(super) fn compaction(table: &str) -> Option<Compaction> {
    let (unit, size) = match table {
        // 30 days.
        "sends" => ("DAYS", "1"),
        // 7 days.
        "alert_notes" => ("HOURS", "6"),
        // Two days.
        "claims" => ("HOURS", "2"),
        // An hour.
        "revocations" => ("MINUTES", "5"),
        _ => return None,
    };
    let options = [
        ("class", "TimeWindowCompactionStrategy"),
        ("compaction_window_unit", unit),
        ("compaction_window_size", size),
    ];
    Some(options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Whether a table has the wanted options. It may have more, and the name of the class may have its package.
pub(super) fn has(found: &Compaction, wanted: &Compaction) -> bool {
    wanted.iter().all(|(key, value)| {
        found.get(key).is_some_and(|found| found == value || found.ends_with(&format!(".{value}")))
    })
}

/// As a CQL map.
pub(super) fn as_cql(options: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = options.iter().map(|(key, value)| format!("'{key}': '{value}'")).collect();
    format!("{{{}}}", pairs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_may_have_its_package() {
        let wanted = compaction("claims").unwrap();
        let mut found = wanted.clone();
        found
            .insert("class".into(), "org.apache.cassandra.db.compaction.TimeWindowCompactionStrategy".into());
        found.insert("max_threshold".into(), "32".into());
        assert!(has(&found, &wanted));
        found.insert("compaction_window_size".into(), "1".into());
        assert!(!has(&found, &wanted));
        assert_eq!(compaction("log"), None);
    }
}
