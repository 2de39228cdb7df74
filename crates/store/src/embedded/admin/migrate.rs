//! Brings an older file to this program's version: a copy first, then every step in one transaction, so that a step that
//! fails leaves the file as it was.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::copy;
use super::folder::{self, Folder};
use crate::embedded::open_error::OpenError;

/// Room for this many copies: the copy before the steps, and the writes of the steps, which may write everything anew, sorted in a
/// temporary file, into the write-ahead log and from there into the file.
const COPIES: u64 = 4;

pub(in crate::embedded) fn bring_up_to_date(
    folder: &Folder,
    file: &Path,
    connection: &mut Connection,
    migrations: &[&str],
) -> Result<(), OpenError> {
    let broken = OpenError::database(file);
    let version: i64 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&broken)?;
    let (version, target) = (usize::try_from(version).unwrap_or(0), migrations.len());
    if version >= target {
        return Ok(());
    }
    if version == 0 {
        return apply(connection, migrations, target).map_err(&broken);
    }
    let copy = copy_before(folder, file, connection, target)?;
    tracing::warn!(
        from = version,
        to = target,
        copy = %copy.display(),
        "migrating the data folder to a newer version; a copy of its database is beside it"
    );
    // The sorted data may be larger than the memory.
    sort_in(connection, Some(folder.path()))
        .and_then(|()| apply(connection, &migrations[version..], target))
        .and_then(|()| sort_in(connection, None))
        .map_err(&broken)
}

/// Chooses the place of temporary tables: files of a folder, or memory.
fn sort_in(connection: &Connection, folder: Option<&Path>) -> rusqlite::Result<()> {
    let path = folder.map(|folder| folder.to_string_lossy()).unwrap_or_default();
    connection.pragma_update(None, "temp_store", if folder.is_some() { "FILE" } else { "MEMORY" })?;
    // Deprecated since it is not thread-safe; no other thread uses SQLite yet.
    connection.pragma_update(None, "temp_store_directory", path)
}

fn apply(connection: &mut Connection, steps: &[&str], target: usize) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    for step in steps {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", target as i64)?;
    transaction.commit()
}

/// Copies the database beside itself, durably; returns the path of the copy.
fn copy_before(
    folder: &Folder,
    file: &Path,
    connection: &Connection,
    version: usize,
) -> Result<PathBuf, OpenError> {
    let broken = OpenError::database(file);
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(&broken);
    let size_bytes =
        number("PRAGMA page_count")?.cast_unsigned() * number("PRAGMA page_size")?.cast_unsigned();
    let position = number("SELECT value FROM position")?;
    let copy = folder.path().join(format!("madang.db.before-v{version}-{position}"));
    let partial = folder.path().join("madang.db.partial");
    for left in [&copy, &partial] {
        // Left by an attempt that did not end; the file itself is unchanged.
        folder::remove(left).map_err(OpenError::folder(left))?;
    }
    check_room(
        folder.path(),
        version,
        COPIES * size_bytes + folder::SPARE_BYTES,
        folder::free_bytes(folder.path())?,
    )?;
    copy::vacuum_into(connection, &partial).map_err(&broken)?;
    let place = || {
        folder::sync_file(&partial)?;
        std::fs::rename(&partial, &copy)?;
        folder::sync_file(folder.path())
    };
    place().map_err(OpenError::folder(&copy))?;
    Ok(copy)
}

fn check_room(folder: &Path, version: usize, needed_bytes: u64, free_bytes: u64) -> Result<(), OpenError> {
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(OpenError::NoRoom { folder: folder.to_owned(), version, needed_bytes, free_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::schema::{MIGRATIONS, Medium};
    use crate::embedded::{Embedded, EmbeddedConfig};
    use crate::log::LogStore;
    use madang_ids::{ChannelId, LogId, Seq};
    use parking_lot::Mutex;
    use std::sync::Arc;

    /// A folder as version 1 left it, with three rows in a log.
    fn folder_of_version_1() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open(folder.path().join("madang.db")).unwrap();
        db.execute_batch(MIGRATIONS[0]).unwrap();
        db.execute_batch(
            r#"INSERT INTO log (id, seq, pos, at_ms, ordinal, version, content) VALUES
                   (7, 1, 1, 1001, 0, 1, '{"kind":"created","by":"1"}'),
                   (7, 2, 2, 1002, 0, 1, '{"kind":"created","by":"1"}'),
                   (7, 3, 3, 1003, 0, 1, '{"kind":"created","by":"1"}');
               INSERT INTO heads VALUES (7, 3, 0, 1003, 3);
               UPDATE position SET value = 3;
               PRAGMA application_id = 0x4d41444e;
               PRAGMA user_version = 1;"#,
        )
        .unwrap();
        folder
    }

    /// Where SQLite sorts is one setting of the whole process.
    static ONE_MIGRATION: Mutex<()> = Mutex::new(());

    fn open(config: &EmbeddedConfig, medium: Medium) -> Result<Arc<Embedded>, OpenError> {
        let _alone = ONE_MIGRATION.lock();
        Embedded::open_on(config, medium)
    }

    fn names(folder: &Path) -> Vec<String> {
        let names = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains("before")).collect()
    }

    fn version_of(file: &Path) -> i64 {
        let db = Connection::open(file).unwrap();
        db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn an_older_folder_is_copied_then_brought_up_and_serves() {
        let folder = folder_of_version_1();
        let config = EmbeddedConfig { path: folder.path().to_owned(), ..EmbeddedConfig::default() };
        let store = open(&config, Medium::default()).unwrap();
        let log = LogId::Channel(ChannelId::from_raw(7));
        let rows = store.rows(log, Seq::new(1)..=Seq::new(9), usize::MAX).await.unwrap();
        assert_eq!(rows.len(), 3);
        drop(store);
        let copy = format!("madang.db.before-v{}-3", MIGRATIONS.len());
        assert_eq!(names(folder.path()), std::slice::from_ref(&copy));
        assert_eq!(version_of(&folder.path().join(&copy)), 1);
        assert_eq!(version_of(&folder.path().join("madang.db")), MIGRATIONS.len() as i64);
        // The copy is a database of version 1 and can be put in its place.
        std::fs::rename(folder.path().join(copy), folder.path().join("madang.db")).unwrap();
        let store = open(&config, Medium::default()).unwrap();
        assert_eq!(store.tail(log, 9).await.unwrap().rows.len(), 3);
    }

    #[test]
    fn what_is_sorted_lies_in_the_folder() {
        let _alone = ONE_MIGRATION.lock();
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open_in_memory().unwrap();
        let value = |pragma| -> String {
            db.pragma_query_value(None, pragma, |row| row.get::<_, rusqlite::types::Value>(0))
                .map_or_else(|_| String::new(), |value| format!("{value:?}"))
        };
        sort_in(&db, Some(folder.path())).unwrap();
        let path = folder.path().to_string_lossy();
        assert!(value("temp_store_directory").contains(&*path), "{}", value("temp_store_directory"));
        assert_eq!(value("temp_store"), "Integer(1)");
        sort_in(&db, None).unwrap();
        assert_eq!(
            (value("temp_store"), value("temp_store_directory").contains(&*path)),
            ("Integer(2)".into(), false)
        );
    }

    #[test]
    fn a_try_that_was_killed_does_not_stand_in_the_way_of_the_next() {
        let folder = folder_of_version_1();
        let left = format!("madang.db.before-v{}-3", MIGRATIONS.len());
        for name in [&left, "madang.db.partial"] {
            std::fs::write(folder.path().join(name), "torn").unwrap();
        }
        let config = EmbeddedConfig { path: folder.path().to_owned(), ..EmbeddedConfig::default() };
        drop(open(&config, Medium::default()).unwrap());
        assert_eq!(version_of(&folder.path().join(left)), 1);
        assert!(!folder.path().join("madang.db.partial").exists());
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        const BAD: &[&str] =
            &[MIGRATIONS[0], MIGRATIONS[1], "CREATE TABLE new (a); INSERT INTO nowhere VALUES (1)"];
        let folder = folder_of_version_1();
        let config = EmbeddedConfig { path: folder.path().to_owned(), ..EmbeddedConfig::default() };
        let failed = open(&config, Medium { migrations: BAD, ..Medium::default() });
        let refusal = failed.unwrap_err().to_string();
        assert!(refusal.contains("nowhere"), "{refusal}");
        let file = folder.path().join("madang.db");
        assert_eq!(version_of(&file), 1);
        let db = Connection::open(&file).unwrap();
        assert!(
            !db.column_exists(None, "log", "checksum").unwrap() && !db.table_exists(None, "new").unwrap()
        );
        drop(db);
        open(&config, Medium::default()).unwrap();
        assert_eq!(version_of(&file), MIGRATIONS.len() as i64);
    }

    #[test]
    fn without_room_for_the_copy_nothing_is_begun() {
        assert!(check_room(Path::new("data"), 2, 1_000, 1_000).is_ok());
        let refusal = check_room(Path::new("data"), 2, 1_000, 999).unwrap_err().to_string();
        assert!(refusal.contains("needs 1000 bytes") && refusal.contains("only 999 are free:"), "{refusal}");
    }
}
