//! The data folder: private to its owner, and used by one process at a time.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use madang_ids::Position;
use rustix::fs::{FlockOperation, flock};

use crate::embedded::OpenError;
use crate::embedded::acked::{self, Noted};

pub(in crate::embedded) const DATABASE: &str = "madang.db";
const LOG: &str = "madang.db-wal";
const LOCK: &str = "lock";

/// A data folder, locked until this is dropped. The lock is the kernel's and ends with the process, however that ends.
#[derive(Debug)]
pub(in crate::embedded) struct Folder {
    path: PathBuf,
    /// `None` on a read-only disk.
    _lock: Option<File>,
}

impl Folder {
    pub(in crate::embedded) fn open(path: &Path) -> Result<Self, OpenError> {
        prepare(path).map_err(OpenError::folder(path))?;
        check_owner(path)?;
        check_database(path)?;
        let lock = lock(path)?;
        Ok(Self { path: path.to_owned(), _lock: Some(lock) })
    }

    /// Opens a folder with a database. Changes nothing in it except the lock.
    pub(in crate::embedded) fn open_existing(path: &Path) -> Result<Self, OpenError> {
        let file = path.join(DATABASE);
        check_owner(path)?;
        check_database(path)?;
        file.metadata().map_err(OpenError::folder(&file))?;
        let lock = match lock(path) {
            Err(OpenError::Folder { error, .. }) if error.kind() == ErrorKind::ReadOnlyFilesystem => None,
            lock => Some(lock?),
        };
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub(in crate::embedded) fn path(&self) -> &Path {
        &self.path
    }

    /// The database's file, which is made if missing, and made private. SQLite gives the files beside it the same mode.
    pub(in crate::embedded) fn database_file(&self) -> Result<PathBuf, OpenError> {
        let file = self.path.join(DATABASE);
        private_file(&file).map_err(OpenError::folder(&file))?;
        Ok(file)
    }
}

/// Bytes that a copy must leave free on its disk.
pub(in crate::embedded) const SPARE_BYTES: u64 = 64 * 1024 * 1024;

/// Free bytes of the folder's disk for its owner.
pub(in crate::embedded) fn free_bytes(path: &Path) -> Result<u64, OpenError> {
    let disk = rustix::fs::statvfs(path).map_err(|error| OpenError::folder(path)(error.into()))?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Removes a file, if there is one.
pub(in crate::embedded) fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a file's content, or a folder's names, durable.
pub(in crate::embedded) fn sync_file(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the folder, or makes it private if it is the store's own. A folder with other files is left as it is.
fn prepare(path: &Path) -> std::io::Result<()> {
    if !path.try_exists()? {
        return DirBuilder::new().recursive(true).mode(0o700).create(path);
    }
    let is_own = path.join(DATABASE).try_exists()? || path.read_dir()?.next().is_none();
    if is_own { tighten(path, 0o700) } else { Ok(()) }
}

/// Removes the rights of the group and of others, if the process owns the file.
fn tighten(path: &Path, mode: u32) -> std::io::Result<()> {
    let metadata = path.metadata()?;
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if is_ours && metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// Refuses root in the folder of another user: it would leave files there that the owner cannot use.
fn check_owner(path: &Path) -> Result<(), OpenError> {
    let Ok(database) = path.join(DATABASE).metadata() else { return Ok(()) };
    let owner = database.uid();
    if is_for(rustix::process::geteuid().as_raw(), owner) {
        return Ok(());
    }
    Err(OpenError::NotOwner { folder: path.to_owned(), owner })
}

/// For users other than root the modes of the files decide.
const fn is_for(us: u32, owner: u32) -> bool {
    us != 0 || owner == 0
}

/// Refuses a folder whose database file is missing or empty although the note proves that there was one: SQLite would discard the
/// write-ahead log that belongs to it, which may be all that is left of the last acknowledged rows.
fn check_database(folder: &Path) -> Result<(), OpenError> {
    let bytes = |name| folder.join(name).metadata().map_or(0, |file| file.len());
    if bytes(DATABASE) > 0 {
        return Ok(());
    }
    let noted = acked::read(folder).map_err(OpenError::folder(folder))?;
    if noted == Noted::Nothing && bytes(LOG) == 0 {
        return Ok(());
    }
    let acked = if let Noted::Position(acked) = noted { acked } else { Position::ZERO };
    Err(OpenError::Gone { file: folder.join(DATABASE), acked })
}

pub(in crate::embedded) fn private_file(path: &Path) -> std::io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    tighten(path, 0o600)?;
    Ok(file)
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let path = folder.join(LOCK);
    let mut file = private_file(&path).map_err(OpenError::folder(&path))?;
    if !try_lock(&file).map_err(OpenError::folder(&path))? {
        return Err(OpenError::InUse { folder: folder.to_owned(), holder: holder(&mut file) });
    }
    note_holder(&mut file).map_err(OpenError::folder(&path))?;
    Ok(file)
}

/// Locks a file or a folder while it is open. `false` if another process holds the lock.
pub(in crate::embedded) fn try_lock(file: &File) -> std::io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Writes the process id into the lock file, for operators; the lock itself is the kernel's.
fn note_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn root_is_not_for_the_folder_of_somebody_else() {
        let pairs = [(0, 0), (0, 7), (7, 7), (7, 0)];
        assert_eq!(pairs.map(|(us, owner)| is_for(us, owner)), [true, false, true, true]);
    }

    #[test]
    fn folder_and_files_are_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::open(&path).unwrap();
        let file = folder.database_file().unwrap();
        assert_eq!((mode(&path), mode(&file), mode(&path.join(LOCK))), (0o700, 0o600, 0o600));
    }

    #[test]
    fn the_stores_own_folder_is_tightened_and_others_are_not() {
        let parent = tempfile::tempdir().unwrap();
        std::fs::set_permissions(parent.path(), Permissions::from_mode(0o755)).unwrap();
        std::fs::write(parent.path().join("holiday.jpg"), "x").unwrap();
        drop(Folder::open(parent.path()).unwrap());
        assert_eq!(mode(parent.path()), 0o755);
        std::fs::write(parent.path().join(DATABASE), "").unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        assert_eq!(mode(parent.path()), 0o700);
        assert_eq!(mode(&folder.database_file().unwrap()), 0o600);
    }

    #[test]
    fn a_second_user_of_a_folder_is_refused_by_name() {
        let parent = tempfile::tempdir().unwrap();
        let held = Folder::open(parent.path()).unwrap();
        let refusal = Folder::open(parent.path()).unwrap_err().to_string();
        assert!(refusal.contains(&parent.path().display().to_string()), "{refusal}");
        assert!(refusal.contains(&std::process::id().to_string()), "{refusal}");
        drop(held);
        Folder::open(parent.path()).unwrap();
    }
}
