//! Backups: a copy of a running store that is a data folder itself, and its restoration.
//!
//! The copy is vacuumed: a split page keeps moved rows in its gap, where `secure_delete` does not reach, and deleted text must not
//! be in a backup. Then it is checked, synced and, last, renamed: a folder of the final name is always a whole backup.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use madang_ids::Position;
use rusqlite::Connection;

use super::check::{self, Report};
use super::copy;
use super::folder::{self, DATABASE, Folder};
use crate::embedded::codec::number;
use crate::embedded::open_error::OpenError;
use crate::embedded::schema::{self, Medium};
use crate::embedded::{Embedded, acked};

/// Files of a data folder beside the database that belong to a backup.
const BESIDE: [&str; 2] = ["token.secret", "vapid.pem"];

/// The extent of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackedUp {
    /// It has all rows up to this position.
    pub position: Position,
    /// The size of its database file.
    pub bytes: u64,
}

/// The reason why a backup was not made or not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The target exists.
    #[error("{0} already exists; name a folder that does not")]
    Exists(PathBuf),
    /// The disk has too little room.
    #[error(
        "the copy temporarily needs {needed_bytes} bytes of free space at {path}, but only {free_bytes} are free"
    )]
    NoRoom {
        /// The folder on that disk.
        path: PathBuf,
        /// The bytes that the backup needs.
        needed_bytes: u64,
        /// The free bytes of the disk.
        free_bytes: u64,
    },
    /// A file could not be written or read.
    #[error("{path}: {error}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The store did not make the copy.
    #[error(transparent)]
    Store(#[from] crate::error::StoreError),
    /// SQLite could not write or read the copy.
    #[error("copying failed: {0}")]
    Copy(#[from] rusqlite::Error),
    /// The backup is damaged. One that was just made is kept: it has everything that could be read.
    #[error(
        "the backup {path} is damaged: {first} (and {} more findings); `madang check --data {path}` shows all of \
         them, and `madang restore --accept-damage` accepts the backup as it is", count - 1
    )]
    Damaged {
        /// The folder of the backup.
        path: PathBuf,
        /// The first finding.
        first: String,
        /// The number of findings.
        count: u64,
    },
    /// The folder that holds the backup cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    move |error| BackupError::File { path, error }
}

impl Embedded {
    /// Writes everything up to a present position into the new folder `target`, while others read and write. Needs the size of the
    /// database on the disk, and for a while twice that. Dropping the future cancels it.
    ///
    /// # Errors
    /// `target` exists, the disk has too little room, or the copy does not pass its check.
    pub async fn back_up(&self, target: &Path) -> Result<BackedUp, BackupError> {
        let partial = Partial::make(target)?;
        let database = self.folder.path().join(DATABASE);
        partial.check_room(2 * database.metadata().map_err(at(&database))?.len())?;
        let raw = partial.path.join("copy");
        self.writer.copy(raw.clone()).await?;
        let source = self.folder.path().to_owned();
        let finished = tokio::task::spawn_blocking(move || finish(&source, &raw, partial)).await;
        finished.map_err(|error| crate::error::StoreError::Unavailable(error.to_string()))?
    }
}

fn finish(source: &Path, raw: &Path, partial: Partial) -> Result<BackedUp, BackupError> {
    let database = partial.path.join(DATABASE);
    let from = Connection::open(raw)?;
    copy::vacuum_into(&from, &database)?;
    drop(from);
    for name in ["copy", "copy-wal", "copy-shm"] {
        let file = partial.path.join(name);
        folder::remove(&file).map_err(at(&file))?;
    }
    let position = schema::open_reader(&database, Medium::default())?
        .query_row("SELECT value FROM position", [], |row| number(row, 0))
        .map(Position::new)?;
    acked::write(&partial.path, position, true).map_err(at(&partial.path))?;
    copy_beside(source, &partial.path)?;
    folder::sync_file(&database).map_err(at(&database))?;
    let bytes = database.metadata().map_err(at(&database))?.len();
    let report = check::check_locked(&Folder::open_existing(&partial.path)?, &mut |_| {})?;
    let name = partial.give_name()?;
    refuse_damage(&name, &report)?;
    Ok(BackedUp { position, bytes })
}

fn copy_beside(source: &Path, target: &Path) -> Result<(), BackupError> {
    for name in BESIDE {
        let (from, to) = (source.join(name), target.join(name));
        if from.try_exists().map_err(at(&from))? {
            copy_private(&from, &to).map_err(at(&to))?;
        }
    }
    Ok(())
}

fn copy_private(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut copy = folder::private_file(to)?;
    std::io::copy(&mut std::fs::File::open(from)?, &mut copy)?;
    copy.sync_all()
}

/// Restores a backup as a data folder. Devices with cursors beyond it get a snapshot: the next start begins an epoch at its end.
/// `accept_damage`: also if it is damaged. `progress` is called with the part that is being checked.
///
/// # Errors
/// `target` exists, the backup is damaged, or the disk has too little room.
pub fn restore(
    backup: &Path,
    target: &Path,
    accept_damage: bool,
    progress: &mut dyn FnMut(&str),
) -> Result<Report, BackupError> {
    let source = Folder::open_existing(backup)?;
    let partial = Partial::make(target)?;
    let database = source.path().join(DATABASE);
    partial.check_room(database.metadata().map_err(at(&database))?.len())?;
    for name in [DATABASE, "madang.db-wal", "acked"] {
        let (from, to) = (source.path().join(name), partial.path.join(name));
        if from.try_exists().map_err(at(&from))? {
            copy_private(&from, &to).map_err(at(&to))?;
        }
    }
    copy_beside(source.path(), &partial.path)?;
    let copied = Folder::open_existing(&partial.path)?;
    let report = check::check_locked(&copied, progress)?;
    if !accept_damage {
        refuse_damage(backup, &report)?;
    }
    partial.give_name()?;
    Ok(report)
}

fn refuse_damage(backup: &Path, report: &Report) -> Result<(), BackupError> {
    let Some(first) = report.findings.first() else { return Ok(()) };
    let count = report.findings.len() as u64 + report.more;
    Err(BackupError::Damaged { path: backup.to_owned(), first: first.to_string(), count })
}

/// A folder that is being written; removed again unless it gets its name.
struct Partial {
    path: PathBuf,
    name: PathBuf,
    is_named: bool,
    /// A lock of the kernel, which ends with the process.
    _lock: File,
}

impl Partial {
    fn make(name: &Path) -> Result<Self, BackupError> {
        if !is_free(name).map_err(at(name))? {
            return Err(BackupError::Exists(name.to_owned()));
        }
        let mut path = name.as_os_str().to_owned();
        // A name that only this program gives, so that leftovers of it can be removed.
        path.push(".madang-partial");
        let path = PathBuf::from(path);
        if let Some(parent) = name.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(at(parent))?;
        }
        let lock = Self::lock(&path)?;
        Ok(Self { path, name: name.to_owned(), is_named: false, _lock: lock })
    }

    /// Makes the folder, and removes one that is there. Without a lock it was left by a process that died, and may hold text that
    /// was deleted since.
    fn lock(path: &Path) -> Result<File, BackupError> {
        let make = || DirBuilder::new().mode(0o700).create(path);
        match make() {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Self::hold(path)?;
                std::fs::remove_dir_all(path).and_then(|()| make()).map_err(at(path))?;
            }
            made => made.map_err(at(path))?,
        }
        Self::hold(path)
    }

    fn hold(path: &Path) -> Result<File, BackupError> {
        let file = File::open(path).map_err(at(path))?;
        if folder::try_lock(&file).map_err(at(path))? {
            Ok(file)
        } else {
            Err(BackupError::Exists(path.to_owned()))
        }
    }

    /// A full disk would also stop the server, which usually uses the same disk.
    fn check_room(&self, bytes: u64) -> Result<(), BackupError> {
        let (free_bytes, needed_bytes) = (folder::free_bytes(&self.path)?, bytes + folder::SPARE_BYTES);
        if free_bytes >= needed_bytes {
            return Ok(());
        }
        Err(BackupError::NoRoom { path: self.path.clone(), needed_bytes, free_bytes })
    }

    fn give_name(mut self) -> Result<PathBuf, BackupError> {
        folder::sync_file(&self.path).map_err(at(&self.path))?;
        // `rename` replaces an empty folder, and nothing else.
        std::fs::rename(&self.path, &self.name).map_err(at(&self.name))?;
        self.is_named = true;
        let parent = self.name.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        folder::sync_file(parent).map_err(at(parent))?;
        Ok(self.name.clone())
    }
}

/// Whether there is nothing, or an empty folder.
fn is_free(path: &Path) -> std::io::Result<bool> {
    Ok(!path.try_exists()? || (path.is_dir() && path.read_dir()?.next().is_none()))
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_named {
            // A folder that cannot be removed has a name that marks it as incomplete.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use madang_ids::{Seq, UserId};
    use madang_proto::Content;
    use tokio::task::JoinSet;

    use super::*;
    use crate::commit_order::CommitOrder;
    use crate::embedded::job::Transaction;
    use crate::embedded::tests::{append, config, fill, log};
    use crate::log::{AppendOutcome, Head, LogStore};

    fn no_findings(folder: &Path) -> Report {
        let report = check::check(folder, &mut |_| {}).unwrap();
        assert_eq!(report.findings, []);
        report
    }

    async fn append_text(store: &Embedded, id: u64, head: Head, text: String) -> Head {
        let mut next = append(log(id), head);
        let mut row = next.rows[0].clone();
        row.entry.content = Content::Renamed { name: text, by: UserId::from_raw(1) };
        next.rows = Arc::new([row]);
        let head = next.head();
        assert_eq!(store.append(next).await, Ok(AppendOutcome::Appended));
        head
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_backup_of_a_store_that_is_written_to_is_whole_and_private() {
        let parent = tempfile::tempdir().unwrap();
        let (data, target) = (parent.path().join("data"), parent.path().join("backups/monday"));
        let store = Embedded::open(config(&data)).unwrap();
        std::fs::write(data.join("token.secret"), "secret").unwrap();
        let mut head = Head::default();
        for _ in 0..100 {
            head = append_text(&store, 1, head, "long ".repeat(8_000)).await;
        }
        let before = store.position();
        let mut writers = JoinSet::new();
        for id in 2..6 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let mut head = Head::default();
                loop {
                    head = fill(&store, log(id), head, 1).await;
                }
            });
        }
        let made = store.back_up(&target).await.unwrap();
        let after = store.position();
        writers.shutdown().await;
        assert!(made.position > before && made.position <= after, "{before:?} {made:?} {after:?}");
        assert_eq!(no_findings(&target).position, made.position);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&target), 0o700);
        for name in ["madang.db", "token.secret", "acked"] {
            assert_eq!(mode(&target.join(name)), 0o600, "{name}");
        }
        let again = store.back_up(&target).await;
        assert!(matches!(again, Err(BackupError::Exists(_))), "{again:?}");
        // It is a data folder.
        drop(store);
        let store = Embedded::open(config(&target)).unwrap();
        assert_eq!(store.position(), made.position);
        assert_eq!(store.rows(log(1), Seq::new(100)..=Seq::new(100), 1).await.unwrap().len(), 1);
    }

    /// Also where a page that was split kept a copy of what moved away.
    #[tokio::test]
    async fn what_was_deleted_is_not_in_a_backup() {
        let parent = tempfile::tempdir().unwrap();
        let (data, target) = (parent.path().join("data"), parent.path().join("backup"));
        let medium = Medium { synchronous: "OFF", ..Medium::default() };
        let store = Embedded::open_on(&config(&data), medium).unwrap();
        let mut heads = [Head::default(); 10];
        for number in 0..300 {
            // Of lengths that fill pages and spill over them.
            let text = format!("unsayable-{number} {}", "x".repeat(number * 37 % 6_000));
            let head = &mut heads[number * 7 % 10];
            *head = append_text(&store, number as u64 * 7 % 10 + 1, *head, text).await;
        }
        let update = |sql: &'static str| {
            store.write(move |transaction: &mut Transaction<'_>| transaction.db().execute(sql, []))
        };
        // Edits that make messages longer part pages, and leave a copy of their neighbours.
        let longer =
            "UPDATE log SET content = content || hex(zeroblob(300)), checksum = NULL WHERE pos % 3 = 0";
        assert_eq!(update(longer).await, Ok(100));
        assert_eq!(update(r#"UPDATE log SET content = '{"kind":"x"}', checksum = NULL"#).await, Ok(300));
        store.back_up(&target).await.unwrap();
        let holds =
            |path: &Path| std::fs::read(path).unwrap().windows(9).any(|window| window == b"unsayable");
        drop(store);
        assert!(holds(&data.join("madang.db")), "there is nothing that a backup must leave out");
        for entry in target.read_dir().unwrap() {
            assert!(!holds(&entry.unwrap().path()));
        }
    }

    #[test]
    fn a_copy_that_would_fill_the_disk_is_not_begun_and_leaves_nothing() {
        let parent = tempfile::tempdir().unwrap();
        let partial = Partial::make(&parent.path().join("backup")).unwrap();
        assert!(partial.check_room(1).is_ok());
        assert!(matches!(partial.check_room(1 << 60), Err(BackupError::NoRoom { .. })));
        drop(partial);
        assert_eq!(parent.path().read_dir().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_restore_overwrites_nothing_takes_only_what_is_whole_and_serves() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let store = Embedded::open(config(&path("data"))).unwrap();
        fill(&store, log(1), Head::default(), 20).await;
        store.back_up(&path("backup")).await.unwrap();
        let refusal = restore(&path("backup"), &path("data"), false, &mut |_| {}).unwrap_err();
        assert!(matches!(refusal, BackupError::Exists(_)), "{refusal}");
        let refusal = restore(&path("data"), &path("other"), false, &mut |_| {}).unwrap_err();
        assert!(refusal.to_string().contains("in use"), "{refusal}");
        restore(&path("backup"), &path("restored"), false, &mut |_| {}).unwrap();
        assert_eq!(Embedded::open(config(&path("restored"))).unwrap().position().get(), 20);
        let db = Connection::open(path("backup").join(DATABASE)).unwrap();
        db.execute("UPDATE log SET content = '{}' WHERE seq = 7", []).unwrap();
        drop(db);
        let refusal = restore(&path("backup"), &path("another"), false, &mut |_| {}).unwrap_err().to_string();
        assert!(refusal.contains("seq 7: differs from its checksum"), "{refusal}");
        restore(&path("backup"), &path("accepted"), true, &mut |_| {}).unwrap();
        // A backup of what is damaged says so, and is there.
        let store = Embedded::open(config(&path("accepted"))).unwrap();
        std::fs::create_dir(path("of damage.madang-partial")).unwrap();
        let refusal = store.back_up(&path("of damage")).await.unwrap_err().to_string();
        assert!(refusal.contains("seq 7: differs from its checksum"), "{refusal}");
        drop(store);
        let mut left: Vec<String> = parent
            .path()
            .read_dir()
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["accepted", "backup", "data", "of damage", "restored"]);
    }
}
