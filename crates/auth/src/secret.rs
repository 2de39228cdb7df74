//! The secret with which tokens are signed, in a file of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Reads the 32 bytes at `path`. If there is no such file, draws them and stores them there (mode 0600). Blocks on the
/// disk.
///
/// File and folder are fsynced before the secret is returned, so that no token is signed with a secret that a crash
/// would lose. The file appears complete or not at all. If two processes create it at the same time, both get the same
/// secret.
///
/// # Errors
/// Errors of the disk; `InvalidData` if the file does not contain exactly 32 bytes (it is never overwritten).
pub fn load_or_create_secret(path: &Path) -> io::Result<[u8; 32]> {
    match load_secret(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_secret_file(path, &rand::random::<[u8; 32]>())?;
        }
        other => return other,
    }
    load_secret(path)
}

/// Reads the 32 bytes at `path`. Blocks on the disk.
///
/// # Errors
/// Errors of the disk; `InvalidData` if the file does not contain exactly 32 bytes.
pub fn load_secret(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    // Reading one byte more than needed detects a file that is too long.
    let mut bytes = Vec::with_capacity(33);
    (&mut file).take(33).read_to_end(&mut bytes)?;
    let secret = bytes.try_into().map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidData, "it does not contain a secret of exactly 32 bytes")
    })?;
    // The process that created the file may have crashed before its name was durable.
    file.sync_all()?;
    File::open(folder_of(path))?.sync_all()?;
    Ok(secret)
}

/// Writes a file that only its owner can read, durably; an existing one stays as it is. Blocks on the disk.
///
/// # Errors
/// Errors of the disk.
pub fn create_secret_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    let written = write_draft(&draft, content).and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    });
    let removed = fs::remove_file(&draft);
    written.and(removed)
}

/// Writes a file that only its owner can read, in place of an earlier one: a reader finds one or the other. Blocks on the disk.
///
/// # Errors
/// Errors of the disk.
pub fn replace_secret_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    let written = write_draft(&draft, content).and_then(|()| fs::rename(&draft, path));
    if written.is_err() {
        // It may not exist.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_draft(draft: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(draft)?;
    file.write_all(content)?;
    file.sync_all()
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.draft", rand::random::<u64>()));
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_secret_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.secret");
        let secret = load_or_create_secret(&path).unwrap();
        assert_eq!(load_or_create_secret(&path).unwrap(), secret);
        assert_ne!(secret, [0; 32]);
    }

    #[test]
    fn only_the_owner_may_read_it_and_no_draft_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.secret");
        load_or_create_secret(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_another_length_is_neither_used_nor_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.secret");
        for length in [0, 31, 33, 4096] {
            fs::write(&path, vec![1; length]).unwrap();
            assert_eq!(load_or_create_secret(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
            assert_eq!(fs::metadata(&path).unwrap().len(), length as u64);
        }
    }

    #[test]
    fn concurrent_creators_get_the_same_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.secret");
        let secrets: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| load_or_create_secret(&path).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(secrets.iter().all(|secret| *secret == secrets[0]));
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        assert!(load_or_create_secret(Path::new("/nonexistent/folder/secret")).is_err());
    }
}
